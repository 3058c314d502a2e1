//! The edge's copy of one gallery: a sealed cache of the hub's log that would rather be empty than wrong.
//!
//! In: log records with the root that the hub expects after them. Out: the same entries, sealed on disk, with a version
//! and a root that can be believed after any crash, power cut, bit flip or swapped file.
//!
//! How it is known to be right: every value is sealed (AES-256-GCM) under a store key (SK) with its place in the
//! additional data; at opening every entry is unsealed and the root is computed anew and compared with the sealed head;
//! and a watermark file outside sled says which version and root there must be at least. On any doubt the SK is
//! destroyed, the directory is removed, and the store starts empty at version 0: the hub has the truth.
//!
//! Each *generation* of the store has its own directory and its own SK. [`GalleryStore::rewrite`] begins a new one, so that
//! what was deleted is not only unlinked (sled keeps old values in its log) but unreadable.
//!
//! Deliberately absent: the network, which template matches, the snapshot that searches use, the clock.

mod cells;
mod differing;
mod durable_sled;
mod epoch;
mod load;
mod rewriting;
mod whole;

pub use differing::{BucketHashes, Replaced};
pub use durable_sled::SledError;
pub use load::Doubt;
pub use whole::WholeError;

use std::path::{Path, PathBuf};

use gallery_log::{
    AnchorBody, AppendError, Body, BodyError, CredentialBody, DigestKey, GalleryId, Kind, Log, Op, PersonBody, Record,
    RecordId, ReplaceError, Root, RootMismatch, RuleBody, SealKey, TemplateBody,
};

use crate::files::{self, DirLock, FileError};
use crate::keys::{DeviceKeys, GalleryKeys, KeysError};
use crate::seal::SealingError;
use crate::watermark::{Watermark, WatermarkError};
use cells::{Counts, Head, Mark};
use durable_sled::DurableSled;
use load::{Loaded, Verdict};

/// How [`GalleryStore::open`] found the store.
#[derive(Debug)]
pub enum Opened {
    /// As it was left.
    Intact,
    /// There was none: it starts at version 0.
    New,
    /// There was one that cannot be trusted: its key is destroyed, it starts again at version 0. Alarm, and fill it.
    Rebuilt {
        /// What was wrong.
        reason: Doubt,
    },
}

/// Why a store could not be opened or written, without a doubt about its content.
#[derive(Debug, thiserror::Error)]
pub enum GalleryError {
    /// The lock is held.
    #[error("gallery store {dir}: another process has it open; stop that one first", dir = .dir.display())]
    InUse {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The content must not be trusted: call [`GalleryStore::destroy_and_restart`].
    #[error("gallery store {dir} cannot be trusted", dir = .dir.display())]
    Doubt {
        /// The store's directory.
        dir: PathBuf,
        /// Why.
        #[source]
        reason: Doubt,
    },
    /// An earlier write failed and the store could not be opened again.
    #[error("gallery store {dir}: an earlier write failed; the next write tries again", dir = .dir.display())]
    Closed {
        /// The store's directory.
        dir: PathBuf,
    },
    /// An entry's body is of a newer format.
    #[error("gallery entry {id}")]
    Body {
        /// The entry.
        id: RecordId,
        /// What is wrong with its body.
        #[source]
        source: BodyError,
    },
    /// The database failed.
    #[error(transparent)]
    Sled(#[from] SledError),
    /// A key file failed.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The watermark could not be read or written.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// No randomness.
    #[error(transparent)]
    Sealing(#[from] SealingError),
}

impl GalleryError {
    /// True when freeing disk space is what helps.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Sled(error) => error.is_disk_full(),
            Self::File(error) | Self::Watermark(WatermarkError::File(error)) | Self::Keys(KeysError::File(error)) => {
                error.is_disk_full()
            }
            _ => false,
        }
    }
}

/// Why records were not applied. The store is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A record may not come next: wrong epoch, a hole, a reused id.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The buckets are not of this gallery, or older than it.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The records lead to another root than the hub says.
    #[error(transparent)]
    Root(#[from] RootMismatch),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] GalleryError),
}

/// What a batch led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The version now.
    pub version: u64,
    /// The root now.
    pub root: Root,
}

/// Everything in a gallery, decoded, in id order within each kind.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// People; the id is the person's.
    pub people: Vec<(RecordId, PersonBody)>,
    /// Templates; the id is the template's.
    pub templates: Vec<(RecordId, TemplateBody)>,
    /// PINs, cards and codes.
    pub credentials: Vec<(RecordId, CredentialBody)>,
    /// Schedules, holidays and policies.
    pub rules: Vec<(RecordId, RuleBody)>,
    /// Negative anchors; the id is the anchor's.
    pub anchors: Vec<(RecordId, AnchorBody)>,
}

/// An open gallery store. One owner writes; `Send`, so that it may live on a thread of its own.
pub struct GalleryStore {
    dir: PathBuf,
    gallery: GalleryId,
    keys: DeviceKeys,
    digest_key: DigestKey,
    log: Log,
    root: Root,
    /// Live entries by kind.
    live: Counts,
    generation: u64,
    slot: Option<Open>,
    /// A write failed for another reason than a full disk: see [`GalleryStore::reopen`].
    disk_may_lie: bool,
    /// The bucket hashes, while it is known to differ from the hub's gallery.
    differing: Option<BucketHashes>,
    _lock: DirLock,
}

/// What is closed after a failed write and opened again by the next one.
struct Open {
    db: DurableSled,
    key: SealKey,
    mark: Watermark,
    /// Something was deleted in this generation.
    remains: bool,
}

impl GalleryStore {
    /// Opens the store of `gallery` in `dir` (a directory of its own), making it where there is none.
    ///
    /// `gallery_keys` are those of `keys.gallery(gallery)`. Where their epoch is higher than the store's, a power cut came between
    /// the two: what it kept from is done now ([`GalleryStore::begin_epoch`]), or the store is emptied. Cost: every entry is
    /// unsealed and hashed, about 10 µs each. Fails only for reasons outside the content: the store is open elsewhere, the
    /// disk is full, a permission is missing.
    pub fn open(
        dir: &Path,
        keys: &DeviceKeys,
        gallery: GalleryId,
        gallery_keys: &GalleryKeys,
    ) -> Result<(Self, Opened), GalleryError> {
        files::create_private_dir(dir)?;
        let lock = DirLock::take(dir)?.ok_or_else(|| GalleryError::InUse { dir: dir.to_path_buf() })?;
        let (loaded, opened) = match load::load(dir, keys, gallery, gallery_keys)? {
            Verdict::Intact(loaded) => (*loaded, Opened::Intact),
            // Of a first start that was cut short there may be something, which is worth nothing.
            Verdict::Nothing => (load::destroy_and_begin(dir, keys, gallery, gallery_keys)?, Opened::New),
            Verdict::Doubtful(reason) => {
                tracing::error!(gallery = %gallery, reason = %reason, "gallery store cannot be trusted; it is destroyed");
                (load::destroy_and_begin(dir, keys, gallery, gallery_keys)?, Opened::Rebuilt { reason })
            }
        };
        load::remove_leftovers(dir, keys, gallery, loaded.generation)?;
        let Loaded { mut log, digest_key, live, generation, open } = loaded;
        let mut store = Self {
            dir: dir.to_path_buf(),
            gallery,
            keys: keys.clone(),
            digest_key,
            root: log.root(),
            differing: differing::noted(dir, &mut log),
            log,
            live,
            generation,
            slot: Some(open),
            disk_may_lie: false,
            _lock: lock,
        };
        let behind = store.epoch() < gallery_keys.epoch;
        let opened = if behind { store.finish_epoch(gallery_keys)? } else { opened };
        store.forget_former_keys();
        Ok((store, opened))
    }

    /// The gallery.
    #[must_use]
    pub fn gallery(&self) -> GalleryId {
        self.gallery
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.log.epoch()
    }

    /// The last version applied; 0 when empty.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.log.version()
    }

    /// The root of what is live.
    #[must_use]
    pub fn root(&self) -> Root {
        self.root
    }

    /// How many entries of a kind are live.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.live[cells::index_of(kind)]
    }

    /// Applies records in one durable step: when this returns, they, the version and the root are on disk, and so is the
    /// watermark that demands them at the next opening.
    ///
    /// All or none. `expected_root` is what the hub says the gallery is after the last of them. An error leaves the
    /// store as it was; after [`GalleryError::Doubt`] call [`GalleryStore::destroy_and_restart`].
    pub fn apply(&mut self, records: &[Record], expected_root: Root) -> Result<Applied, ApplyError> {
        self.reopen()?;
        let mut log = self.log.clone();
        let mut live = self.live;
        for record in records {
            count(&mut live, &log, record);
            log.apply(record, &self.digest_key)?;
        }
        log.verify_root(expected_root)?;
        if records.is_empty() {
            return Ok(Applied { version: self.version(), root: self.root });
        }
        self.write(&mut log, records)?;
        self.log = log;
        self.live = live;
        self.root = expected_root;
        Ok(Applied { version: self.version(), root: self.root })
    }

    fn write(&mut self, log: &mut Log, records: &[Record]) -> Result<(), GalleryError> {
        let (gallery, generation) = (self.gallery, self.generation);
        let open = self.slot.as_mut().ok_or_else(|| GalleryError::Closed { dir: self.dir.clone() })?;
        let head = Head::of(log);
        let result = open.commit(gallery, generation, &head, records);
        if let Err(error) = &result {
            // What reached the disk is unknown now; the next write looks.
            self.slot = None;
            self.disk_may_lie |= !error.is_disk_full();
        }
        result
    }

    /// After a failed write: opens the database again, to whatever had reached the disk. Does nothing otherwise; each
    /// write begins with it.
    ///
    /// After a failed fsync the kernel calls the pages clean that it could not write, so that they are read back as if they
    /// were on disk, and the next fsync of the file succeeds without them. What was read (and unsealed, and compared with
    /// its root) is therefore copied into a new generation, whose files no fsync has failed on yet.
    pub fn reopen(&mut self) -> Result<(), GalleryError> {
        if self.slot.is_some() {
            return Ok(());
        }
        let gallery_keys = GalleryKeys {
            epoch: self.epoch(),
            digest: self.digest_key.clone(),
            credential: gallery_log::keys::KeyBytes::default(),
        };
        match load::load(&self.dir, &self.keys, self.gallery, &gallery_keys)? {
            Verdict::Intact(loaded) => {
                self.log = loaded.log;
                self.root = self.log.root();
                self.differing = self.differing.as_ref().map(|_| std::sync::Arc::new(self.log.buckets()));
                self.live = loaded.live;
                self.generation = loaded.generation;
                self.slot = Some(loaded.open);
                if self.disk_may_lie {
                    self.copy_to_next_generation()?;
                    self.disk_may_lie = false;
                }
                Ok(())
            }
            Verdict::Nothing => Err(GalleryError::Doubt { dir: self.dir.clone(), reason: Doubt::Gone }),
            Verdict::Doubtful(reason) => Err(GalleryError::Doubt { dir: self.dir.clone(), reason }),
        }
    }

    /// Every live entry as the record that last wrote it, in id order.
    ///
    /// A value that does not unseal is [`GalleryError::Doubt`].
    pub fn records(&self) -> Result<Vec<Record>, GalleryError> {
        let open = self.slot.as_ref().ok_or_else(|| GalleryError::Closed { dir: self.dir.clone() })?;
        let mut records = open.records(self.gallery).map_err(|error| error.into_error(&self.dir))?;
        records.retain(|record| record.op == Op::Put);
        Ok(records)
    }

    /// Every live entry, decoded: what the index is built from.
    pub fn contents(&self) -> Result<Contents, GalleryError> {
        let mut contents = Contents::default();
        for record in self.records()? {
            let id = record.id;
            match Body::decode(record.kind, &record.body).map_err(|source| GalleryError::Body { id, source })? {
                Body::Person(body) => contents.people.push((id, body)),
                Body::Template(body) => contents.templates.push((id, body)),
                Body::Credential(body) => contents.credentials.push((id, body)),
                Body::Rule(body) => contents.rules.push((id, body)),
                Body::Anchor(body) => contents.anchors.push((id, body)),
            }
        }
        Ok(contents)
    }

    /// Destroys the SK and the files, and starts empty at version 0 in a new generation: on a doubt, on the hub's order to
    /// rebuild, and where a new epoch cannot begin with what is there (then with that epoch's keys).
    pub fn destroy_and_restart(&mut self, gallery_keys: &GalleryKeys) -> Result<(), GalleryError> {
        // Closed first: sled would otherwise write into a directory that is being removed.
        self.slot = None;
        let loaded = load::destroy_and_begin(&self.dir, &self.keys, self.gallery, gallery_keys)?;
        self.digest_key = loaded.digest_key;
        self.log = loaded.log;
        self.root = self.log.root();
        self.live = loaded.live;
        self.generation = loaded.generation;
        self.slot = Some(loaded.open);
        self.disk_may_lie = false;
        self.differing = None;
        self.forget_former_keys();
        Ok(())
    }

    /// Destroys everything of a gallery that is no longer this device's: SK, files, and its keys.
    pub fn destroy(self) -> Result<(), GalleryError> {
        let Self { dir, gallery, slot, keys, .. } = self;
        drop(slot);
        load::destroy_all(&dir, &keys, gallery)?;
        keys.destroy_gallery(gallery)?;
        Ok(())
    }

    /// As [`GalleryStore::destroy`], for a store that need not or cannot be opened: a gallery whose keys cannot be read, or
    /// a device that is claimed anew. Fails when the store is open.
    pub fn destroy_unopened(dir: &Path, keys: &DeviceKeys, gallery: GalleryId) -> Result<(), GalleryError> {
        files::create_private_dir(dir)?;
        let _lock = DirLock::take(dir)?.ok_or_else(|| GalleryError::InUse { dir: dir.to_path_buf() })?;
        load::destroy_all(dir, keys, gallery)?;
        keys.destroy_gallery(gallery)?;
        Ok(())
    }
}

impl Open {
    fn commit(
        &mut self,
        gallery: GalleryId,
        generation: u64,
        head: &Head,
        records: &[Record],
    ) -> Result<(), GalleryError> {
        let mut batch = sled::Batch::default();
        for record in records {
            batch.insert(cells::entry_key(record.id).to_vec(), cells::seal_entry(&self.key, record)?);
        }
        batch.insert(cells::HEAD_KEY, cells::seal_head(&self.key, gallery, generation, head)?);
        let deleted = records.iter().any(|record| record.op == Op::Del);
        if deleted {
            batch.insert(cells::REMAINS_KEY, Vec::new());
        }
        self.db.commit(batch)?;
        self.remains |= deleted;
        self.mark.advance(&Mark { generation, head: *head }.encode())?;
        Ok(())
    }

    fn records(&self, gallery: GalleryId) -> Result<Vec<Record>, load::ReadError> {
        load::read_entries(&self.db, &self.key, gallery)
    }
}

/// Keeps the count of live entries, before `record` is applied to `log`.
fn count(live: &mut Counts, log: &Log, record: &Record) {
    let was_live = log.entry(record.id).is_some_and(|entry| entry.leaf.is_some());
    let slot = &mut live[cells::index_of(record.kind)];
    match (was_live, record.op) {
        (false, Op::Put) => *slot += 1,
        (true, Op::Del) => *slot = slot.saturating_sub(1),
        _ => {}
    }
}
