//! A whole gallery from the hub: what is done with an offer, what has come of the content, and when it is applied.
//!
//! In: the hub's offer, its signed manifest, bytes. Out: an [`Outcome`], and in the end a gallery replaced in one durable step.
//! Nothing is applied before the signature of a pinned key, or of one that it leads to, was found on the manifest, every chunk had the hash that it names, opened
//! at its own place, and all records together had its root. Until then doors go on with what they have.
//! A download outlives cuts of the line, the agent's restarts and power cuts: what is on disk is checked chunk by chunk and
//! the rest is asked for. [`fetch`] is the HTTPS side of it.
//! Everything of [`Download`] blocks on the disk.

pub mod fetch;

use std::path::{Path, PathBuf};

use edge_store::{DeviceKeys, FileError, GalleryError, KeysError, PartialSnapshot, Replaced, WholeError};
use gallery_log::snapshot::{ChunkError, decode_chunk};
use gallery_log::{
    GalleryId, Purpose, Record, ReplaceError, Root, RootMismatch, SealContext, SealError, SnapshotPlace, TenantId,
};
use ring::digest::{SHA256, digest};
use uuid::Uuid;
use wire_contract::claim::HubKey;
use wire_contract::snapshot::{ManifestError, SnapshotAnswer, SnapshotManifest, SnapshotOffer, Wanted};
use wire_contract::succession::trusted;
use wire_contract::{Code, DeviceId};

use super::receiver::{Outcome, line_of, other_epoch};
use crate::gallery::{FillError, Galleries, RosterError};

/// A snapshot that the hub has for this device, and that it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The snapshot.
    pub id: Uuid,
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version that it brings.
    pub version: u64,
}

/// Why a snapshot is not applied. The gallery is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is not the hub's, or not this one.
    #[error("the snapshot's manifest is refused")]
    Manifest(#[from] ManifestError),
    /// A chunk is another one than the manifest names, again and again.
    #[error("chunk {chunk} of the snapshot has another hash than its manifest names")]
    Damaged {
        /// Its number.
        chunk: usize,
    },
    /// A chunk does not open where it stands.
    #[error("chunk {chunk} of the snapshot does not open")]
    Seal {
        /// Its number.
        chunk: usize,
        /// Why.
        #[source]
        source: SealError,
    },
    /// What is in a chunk are no records.
    #[error("chunk {chunk} of the snapshot cannot be read")]
    Content {
        /// Its number.
        chunk: usize,
        /// Why.
        #[source]
        source: ChunkError,
    },
    /// Its records cannot be a gallery.
    #[error("the snapshot is not one of this gallery")]
    Records(#[source] ReplaceError),
    /// Its records have another root than its manifest says.
    #[error("the snapshot is not what its manifest says")]
    Root(#[source] RootMismatch),
    /// The store failed.
    #[error("the snapshot cannot be stored")]
    Store(#[source] GalleryError),
    /// It is stored, but the galleries cannot be read.
    #[error(transparent)]
    Roster(Box<RosterError>),
    /// The disk refused.
    #[error("what came of the snapshot cannot be kept")]
    Keys(#[from] KeysError),
    /// The disk refused.
    #[error("what came of the snapshot cannot be kept")]
    File(#[from] FileError),
}

impl SnapshotError {
    /// What it says of the snapshot, as a code of the register; `None` when it says nothing of it and the disk is to blame.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Manifest(_) => Some(Code::SnapshotForged),
            Self::Damaged { .. } | Self::Seal { .. } | Self::Content { .. } => Some(Code::SnapshotDamaged),
            Self::Records(_) => Some(Code::SnapshotDamaged),
            Self::Root(_) => Some(Code::RootMismatch),
            Self::Store(_) | Self::Roster(_) | Self::Keys(_) | Self::File(_) => None,
        }
    }
}

/// What an offer leads to.
pub(super) fn offered(galleries: &Galleries, offer: &SnapshotOffer) -> Outcome {
    let gallery = GalleryId(offer.gallery.0);
    let Some(line) = line_of(galleries, gallery) else { return Outcome::FetchLink };
    if let Some(outcome) = other_epoch(&line, offer.epoch) {
        return outcome;
    }
    let brings = offer.version > line.version || (offer.version == line.version && line.differing.is_some());
    if !brings {
        tracing::debug!(event = "snapshot_not_needed", gallery = %gallery, version = offer.version, "ignored: the gallery is as far by now");
        return Outcome::Done;
    }
    Outcome::Offered(Offered { id: offer.snapshot, gallery, epoch: offer.epoch, version: offer.version })
}

/// Where a gallery's snapshot lies meanwhile.
#[must_use]
pub fn dir_of(state_dir: &Path, gallery: GalleryId) -> PathBuf {
    state_dir.join("snapshots").join(gallery.to_string())
}

/// Whose snapshot it must be, and who may have signed it.
#[derive(Clone, Debug)]
pub struct Addressee {
    /// The tenant.
    pub tenant: Uuid,
    /// The device.
    pub device: Uuid,
    /// The pinned keys, and those that they led to.
    pub hub_keys: Vec<HubKey>,
}

impl Addressee {
    fn wanted(&self, offered: &Offered) -> Wanted {
        Wanted {
            snapshot: offered.id,
            tenant: wire_contract::TenantId(self.tenant),
            device: DeviceId(self.device),
            gallery: wire_contract::GalleryId(offered.gallery.0),
            epoch: offered.epoch,
            version: offered.version,
        }
    }
}

/// A snapshot whose manifest was checked, on its way.
#[derive(Debug)]
pub struct Download {
    offered: Offered,
    tenant: Uuid,
    manifest: SnapshotManifest,
    partial: PartialSnapshot,
    /// Chunks whose hash was found right: the content is good up to the end of the last of them.
    checked: usize,
}

impl Download {
    /// Goes on with what an earlier attempt left of this very snapshot; `None` if nothing can be gone on with. What is there is
    /// checked, and cut off from the first chunk on that is not right.
    pub fn resume(
        dir: &Path,
        keys: &DeviceKeys,
        to: &Addressee,
        offered: Offered,
    ) -> Result<Option<Self>, SnapshotError> {
        let Some(partial) = PartialSnapshot::open(dir, keys, offered.gallery)? else { return Ok(None) };
        let manifest = match serde_json::from_slice::<SnapshotManifest>(partial.manifest()) {
            Ok(manifest) if partial.id() == offered.id => manifest,
            // Another one, or one that a power cut has spoilt.
            Ok(_) | Err(_) => return Ok(None),
        };
        if manifest.verify(&to.hub_keys, &to.wanted(&offered)).is_err() {
            return Ok(None);
        }
        let mut download = Self { offered, tenant: to.tenant, manifest, partial, checked: 0 };
        if let Err(SnapshotError::Damaged { chunk }) = download.check() {
            tracing::warn!(event = "snapshot_cut_back", gallery = %offered.gallery, chunk, "what is on disk of a snapshot ends before this chunk; the rest is fetched again");
        }
        tracing::info!(event = "snapshot_resumed", gallery = %offered.gallery, snapshot = %offered.id, held = download.held(), bytes = download.bytes(), "a snapshot is fetched on");
        Ok(Some(download))
    }

    /// Begins with a manifest that the hub has just given, if it is good.
    pub fn begin(
        dir: &Path,
        keys: &DeviceKeys,
        to: &Addressee,
        offered: Offered,
        answer: &SnapshotAnswer,
    ) -> Result<Self, SnapshotError> {
        let manifest = answer.manifest.clone();
        manifest.verify(&trusted(&to.hub_keys, &answer.successions), &to.wanted(&offered))?;
        let bytes = serde_json::to_vec(&manifest).expect("a manifest is a plain struct");
        let partial = PartialSnapshot::begin(dir, keys, offered.gallery, offered.id, &bytes, answer.key.expose())?;
        Ok(Self { offered, tenant: to.tenant, manifest, partial, checked: 0 })
    }

    /// What it is a download of.
    #[must_use]
    pub fn offered(&self) -> Offered {
        self.offered
    }

    /// How many bytes are here.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.partial.held()
    }

    /// How many there will be.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.manifest.content_bytes()
    }

    /// Takes in what came next, and checks every chunk that is complete with it. After [`SnapshotError::Damaged`] that chunk
    /// is cut off again: what follows [`Download::held`] is to be asked for.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        // A hub that sends on behind the end must not fill the disk.
        let room = usize::try_from(self.bytes().saturating_sub(self.held())).unwrap_or(usize::MAX);
        self.partial.append(&bytes[..bytes.len().min(room)])?;
        self.check()
    }

    fn check(&mut self) -> Result<(), SnapshotError> {
        let mut begin = self.begin_of(self.checked);
        while let Some(chunk) = self.manifest.chunks.get(self.checked) {
            let end = begin + u64::from(chunk.bytes);
            if end > self.held() {
                return Ok(());
            }
            let bytes = self.partial.read(begin, chunk.bytes as usize)?;
            if digest(&SHA256, &bytes).as_ref() != chunk.sha256.0 {
                self.partial.cut(begin)?;
                return Err(SnapshotError::Damaged { chunk: self.checked });
            }
            self.checked += 1;
            begin = end;
        }
        Ok(())
    }

    fn begin_of(&self, chunk: usize) -> u64 {
        self.manifest.chunks[..chunk].iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// Whether all of it is here and has the right hashes.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.checked == self.manifest.chunks.len()
    }

    /// Replaces the gallery by it, in one durable step; then, or when it turns out to be wrong, what was fetched is destroyed.
    pub fn apply(mut self, galleries: &Galleries) -> Result<Replaced, SnapshotError> {
        self.partial.sync()?;
        let (gallery, version, root) = (self.offered.gallery, self.offered.version, Root(self.manifest.root.0));
        let mut chunk = 0;
        let filled = galleries.fill(gallery, version, root, || {
            let records = self.open(chunk)?;
            chunk += 1;
            Ok(records)
        });
        let filled = filled.map_err(|error| match error {
            FillError::Whole(WholeError::Source(error)) => error,
            FillError::Whole(WholeError::Replace(error)) => SnapshotError::Records(error),
            FillError::Whole(WholeError::Root(error)) => SnapshotError::Root(error),
            FillError::Whole(WholeError::Store(error)) => SnapshotError::Store(error),
            FillError::Roster(error) => SnapshotError::Roster(error),
        });
        let keep = filled.as_ref().is_err_and(|error| error.code().is_none());
        if !keep {
            self.destroy();
        }
        filled
    }

    /// Throws away what was fetched.
    pub fn destroy(self) {
        let gallery = self.offered.gallery;
        if let Err(error) = self.partial.destroy() {
            tracing::warn!(event = "snapshot_not_removed", gallery = %gallery, error = crate::logging::chain(&error), "what was fetched stays on disk, sealed, until the next one");
        }
    }

    /// The records of a chunk; `None` behind the last.
    fn open(&mut self, chunk: usize) -> Result<Option<Vec<Record>>, SnapshotError> {
        let Some(about) = self.manifest.chunks.get(chunk) else { return Ok(None) };
        let (begin, length) = (self.begin_of(chunk), about.bytes as usize);
        let sealed = self.partial.read(begin, length)?;
        let number = u32::try_from(chunk).expect("a manifest has 4096 chunks at most");
        let Offered { id, gallery, epoch, version } = self.offered;
        let place = SnapshotPlace { gallery, epoch, version, chunk: number };
        let context = SealContext::new(Purpose::SNAPSHOT, TenantId(self.tenant), id, 1).with_place(place);
        let plain = self.partial.key().open(&context, &sealed);
        let plain = plain.map_err(|source| SnapshotError::Seal { chunk, source })?;
        decode_chunk(&plain).map(Some).map_err(|source| SnapshotError::Content { chunk, source })
    }
}

#[cfg(test)]
mod tests;
