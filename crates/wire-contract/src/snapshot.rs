//! A whole gallery at one version, fetched over HTTPS: the offer on `down/gallery`, and the signed manifest.
//!
//! ```text
//! device                                        hub
//!                        ◄─ down/gallery ─ snapshot (id, gallery, epoch, version)
//!   GET …/snapshots/{id}/manifest ──────►  cuts the gallery into chunks, hashes them, signs
//!   GET …/snapshots/{id}  Range: bytes=N- ►  the chunks' sealed bytes from N on, made anew, the same to the byte
//!   checks, applies in one step, reports ─►
//! ```
//!
//! In: the manifest's fields. Out: a manifest whose signature, addressee and sums were checked ([`SnapshotManifest::verify`],
//! [`SnapshotManifest::check`]), and where a byte of the content belongs ([`SnapshotManifest::locate`]).
//! A chunk is a seal (`gallery_log::seal`) under a key of this snapshot alone, which comes with the manifest and never goes over
//! the broker: purpose `snapshot`, object = the snapshot, revision 1, and gallery, epoch, version and number of the chunk. Its
//! plaintext is `gallery_log::snapshot`'s. Link keys change at every start of an agent; a download must outlive that.
//! Deliberately absent: HTTP, files, and whether the device wants it.

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::claim::HubKey;
use crate::encoding::{Bytes, Hash32, SecretBytes, V1};
use crate::ids::{DeviceId, GalleryId, TenantId};
use crate::link::push_field;
use crate::succession::Succession;
use crate::time::Timestamp;

/// Chunks of one snapshot, at most: 1 GiB of content, some 500,000 templates, with a manifest below 1 MiB.
pub const MAX_CHUNKS: usize = 4096;
/// The longest sealed chunk, in bytes: 256 KiB of records and their seal.
pub const MAX_SEALED_CHUNK_BYTES: u32 = 256 * 1024 + 45;

/// `down/gallery`: there is a snapshot to be fetched. Sealed as every `down` payload; delivered again it does nothing, for the
/// hub no longer has the snapshot, or the device is there already.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotOffer {
    /// Payload version.
    pub v: V1,
    /// Its id, as in the path.
    pub snapshot: Uuid,
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version that the gallery has with it.
    pub version: u64,
    /// Until when the hub keeps it.
    pub expires_at: Timestamp,
}

/// One chunk of the content, as it is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotChunk {
    /// Its length, sealed.
    pub bytes: u32,
    /// SHA-256 of the sealed bytes.
    pub sha256: Hash32,
}

/// What a snapshot is, signed by an HSK.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotManifest {
    /// Payload version.
    pub v: V1,
    /// The snapshot.
    pub snapshot: Uuid,
    /// The tenant.
    pub tenant: TenantId,
    /// The device that it is sealed for.
    pub device: DeviceId,
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version that the gallery has with it.
    pub version: u64,
    /// The root that it has with it.
    pub root: Hash32,
    /// Records in all.
    pub records: u64,
    /// The chunks, in order.
    pub chunks: Vec<SnapshotChunk>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when the hub keeps it.
    pub expires_at: Timestamp,
    /// The HSK.
    pub key_id: Uuid,
    /// Ed25519, 64 bytes, over `lintel.snapshot.v1` and all fields above, each with its length in front.
    pub signature: Bytes,
}

/// What `GET …/manifest` answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotAnswer {
    /// What the snapshot is.
    pub manifest: SnapshotManifest,
    /// The key of its chunks, for this device alone.
    pub key: SecretBytes,
    /// By which the signing keys that the device pinned lead to the present one; none as long as it was never replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub successions: Vec<Succession>,
}

/// Why a manifest is not what a device asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Signed by a key that is not pinned.
    #[error(
        "the manifest was signed by key {found}, which is not pinned; claim the device again if the hub's key was exchanged"
    )]
    UnknownKey {
        /// The key.
        found: Uuid,
    },
    /// The signature is not one of the key that it names.
    #[error("the manifest's signature is not authentic")]
    NotAuthentic,
    /// Signed by the hub, but for something else.
    #[error("the manifest is about another {what} than was asked for")]
    Other {
        /// What is another: snapshot, tenant, device, gallery, epoch or version.
        what: &'static str,
    },
    /// More than a device takes.
    #[error("the manifest names {found} chunks, at most {MAX_CHUNKS} are allowed")]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// A chunk of no length, or longer than any.
    #[error("chunk {index} of the manifest has {bytes} bytes, 1 to {MAX_SEALED_CHUNK_BYTES} are allowed")]
    Length {
        /// Its number.
        index: usize,
        /// Its length.
        bytes: u32,
    },
}

/// The fields that a manifest must share with what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The snapshot.
    pub snapshot: Uuid,
    /// The tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version.
    pub version: u64,
}

impl SnapshotManifest {
    /// The manifest with its signature in place of whatever stood there.
    #[must_use]
    pub fn signed(mut self, key_pair: &Ed25519KeyPair, key_id: Uuid) -> Self {
        self.key_id = key_id;
        self.signature = Bytes(key_pair.sign(&self.signed_bytes()).as_ref().to_vec());
        self
    }

    /// Checks, in this order: a pinned key signed it, it is what was asked for, and its chunks can be chunks. Nothing of a
    /// manifest may be used before.
    pub fn verify(&self, keys: &[HubKey], wanted: &Wanted) -> Result<(), ManifestError> {
        let unknown = ManifestError::UnknownKey { found: self.key_id };
        let key = keys.iter().find(|key| key.key_id == self.key_id).ok_or(unknown)?;
        UnparsedPublicKey::new(&ED25519, &key.public_key.0)
            .verify(&self.signed_bytes(), &self.signature.0)
            .map_err(|_| ManifestError::NotAuthentic)?;
        for (what, same) in [
            ("snapshot", self.snapshot == wanted.snapshot),
            ("tenant", self.tenant == wanted.tenant),
            ("device", self.device == wanted.device),
            ("gallery", self.gallery == wanted.gallery),
            ("epoch", self.epoch == wanted.epoch),
            ("version", self.version == wanted.version),
        ] {
            if !same {
                return Err(ManifestError::Other { what });
            }
        }
        self.check()
    }

    /// Checks what can be seen without a key.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.chunks.len() > MAX_CHUNKS {
            return Err(ManifestError::TooMany { found: self.chunks.len() });
        }
        let fits = |chunk: &SnapshotChunk| (1..=MAX_SEALED_CHUNK_BYTES).contains(&chunk.bytes);
        match self.chunks.iter().enumerate().find(|(_, chunk)| !fits(chunk)) {
            Some((index, chunk)) => Err(ManifestError::Length { index, bytes: chunk.bytes }),
            None => Ok(()),
        }
    }

    /// The length of the content.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// The chunk that the byte at `offset` of the content belongs to, and where that chunk begins; `None` at and behind the
    /// end.
    #[must_use]
    pub fn locate(&self, offset: u64) -> Option<(usize, u64)> {
        let mut begin = 0;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let end = begin + u64::from(chunk.bytes);
            if offset < end {
                return Some((index, begin));
            }
            begin = end;
        }
        None
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.chunks.len() * 36);
        for field in [
            &b"lintel.snapshot.v1"[..],
            self.snapshot.as_bytes(),
            self.tenant.0.as_bytes(),
            self.device.0.as_bytes(),
            self.gallery.0.as_bytes(),
            &self.epoch.to_be_bytes(),
            &self.version.to_be_bytes(),
            &self.root.0,
            &self.records.to_be_bytes(),
            &self.created_at.unix_ms().to_be_bytes(),
            &self.expires_at.unix_ms().to_be_bytes(),
            self.key_id.as_bytes(),
        ] {
            push_field(&mut out, field);
        }
        let chunks = self.chunks.iter().flat_map(|chunk| chunk.bytes.to_be_bytes().into_iter().chain(chunk.sha256.0));
        push_field(&mut out, &chunks.collect::<Vec<u8>>());
        out
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair as _;

    use super::*;

    fn pair() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
    }

    fn pinned() -> Vec<HubKey> {
        vec![HubKey { key_id: Uuid::from_u128(4), public_key: Bytes(pair().public_key().as_ref().to_vec()) }]
    }

    fn wanted() -> Wanted {
        let id = Uuid::from_u128;
        let (tenant, device, gallery) = (TenantId(id(1)), DeviceId(id(2)), GalleryId(id(3)));
        Wanted { snapshot: id(9), tenant, device, gallery, epoch: 2, version: 7 }
    }

    fn unsigned() -> SnapshotManifest {
        let Wanted { snapshot, tenant, device, gallery, epoch, version } = wanted();
        let chunk = |bytes| SnapshotChunk { bytes, sha256: Hash32([bytes as u8; 32]) };
        SnapshotManifest {
            v: V1,
            snapshot,
            tenant,
            device,
            gallery,
            epoch,
            version,
            root: Hash32([5; 32]),
            records: 12,
            chunks: vec![chunk(100), chunk(50)],
            created_at: Timestamp::from_unix_ms(1_795_343_851_000),
            expires_at: Timestamp::from_unix_ms(1_795_347_451_000),
            key_id: Uuid::nil(),
            signature: Bytes(Vec::new()),
        }
    }

    fn manifest() -> SnapshotManifest {
        unsigned().signed(&pair(), Uuid::from_u128(4))
    }

    #[test]
    fn a_manifest_that_a_pinned_key_signed_for_this_device_is_taken() {
        assert_eq!(manifest().verify(&pinned(), &wanted()), Ok(()));
        let json = serde_json::to_vec(&manifest()).unwrap();
        let read: SnapshotManifest = serde_json::from_slice(&json).unwrap();
        assert_eq!(read.verify(&pinned(), &wanted()), Ok(()));
    }

    #[test]
    fn any_changed_field_breaks_the_signature() {
        let good = manifest();
        let mut swapped = good.clone();
        swapped.chunks.swap(0, 1);
        let mut other_hash = good.clone();
        other_hash.chunks[1].sha256 = Hash32([9; 32]);
        for forged in [
            SnapshotManifest { version: 8, ..good.clone() },
            SnapshotManifest { epoch: 1, ..good.clone() },
            SnapshotManifest { root: Hash32([6; 32]), ..good.clone() },
            SnapshotManifest { records: 13, ..good.clone() },
            SnapshotManifest { device: DeviceId(Uuid::nil()), ..good.clone() },
            SnapshotManifest { expires_at: good.created_at, ..good.clone() },
            SnapshotManifest { chunks: good.chunks[..1].to_vec(), ..good.clone() },
            swapped,
            other_hash,
        ] {
            assert_eq!(forged.verify(&pinned(), &wanted()), Err(ManifestError::NotAuthentic), "{forged:?}");
        }
        let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        let forged = unsigned().signed(&other, Uuid::from_u128(4));
        assert_eq!(forged.verify(&pinned(), &wanted()), Err(ManifestError::NotAuthentic));
        let unpinned = unsigned().signed(&other, Uuid::from_u128(5));
        assert_eq!(unpinned.verify(&pinned(), &wanted()), Err(ManifestError::UnknownKey { found: Uuid::from_u128(5) }));
    }

    #[test]
    fn a_good_manifest_about_something_else_is_refused() {
        let wanted = wanted();
        for (what, other) in [
            ("snapshot", Wanted { snapshot: Uuid::nil(), ..wanted }),
            ("tenant", Wanted { tenant: TenantId(Uuid::nil()), ..wanted }),
            ("device", Wanted { device: DeviceId(Uuid::nil()), ..wanted }),
            ("gallery", Wanted { gallery: GalleryId(Uuid::nil()), ..wanted }),
            ("epoch", Wanted { epoch: 3, ..wanted }),
            ("version", Wanted { version: 8, ..wanted }),
        ] {
            assert_eq!(manifest().verify(&pinned(), &other), Err(ManifestError::Other { what }));
        }
    }

    #[test]
    fn impossible_chunks_are_named_and_bytes_are_found() {
        let chunk = |bytes| SnapshotChunk { bytes, sha256: Hash32([0; 32]) };
        for bytes in [0, MAX_SEALED_CHUNK_BYTES + 1] {
            let wrong = SnapshotManifest { chunks: vec![chunk(5), chunk(bytes)], ..unsigned() };
            assert_eq!(wrong.check(), Err(ManifestError::Length { index: 1, bytes }));
        }
        let many = SnapshotManifest { chunks: vec![chunk(1); MAX_CHUNKS + 1], ..unsigned() };
        assert_eq!(many.check(), Err(ManifestError::TooMany { found: MAX_CHUNKS + 1 }));
        let good = manifest();
        assert_eq!(good.content_bytes(), 150);
        assert_eq!(
            [0, 99, 100, 149, 150].map(|at| good.locate(at)),
            [Some((0, 0)), Some((0, 0)), Some((1, 100)), Some((1, 100)), None]
        );
    }
}
