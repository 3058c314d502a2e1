//! A store that is known to differ from the hub's gallery, and how it is made equal again bucket by bucket.
//!
//! In: the word of whoever compared, then the buckets of the hub. Out: bucket hashes to compare by, and a store that holds
//! what the hub holds. That a store differs is kept in a file beside it (`differs`, empty), so that no restart makes it one
//! that may be searched; what is in the store stays as it is, for most of it is right.
//! Deliberately absent: who compares, and what may be searched meanwhile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gallery_log::digest::{BUCKETS, Bucket};
use gallery_log::{Log, Record, Root};

use super::cells::{self, Counts};
use super::{ApplyError, GalleryStore};
use crate::files::{self, FileError};

const FILE: &str = "differs";

/// The hashes of all buckets.
pub type BucketHashes = Arc<[Bucket; BUCKETS]>;

/// What a replacement of buckets changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Entries that came.
    pub received: u64,
    /// Entries that the hub does not have: they are gone.
    pub removed: u64,
}

impl GalleryStore {
    /// The bucket hashes, while the store is known to differ from the hub's gallery.
    #[must_use]
    pub fn differing(&self) -> Option<&BucketHashes> {
        self.differing.as_ref()
    }

    /// Notes that the store differs from the hub's gallery.
    ///
    /// An error is about the file alone: until a restart the store is known to differ all the same.
    pub fn note_difference(&mut self) -> Result<(), FileError> {
        self.differing = Some(Arc::new(self.log.buckets()));
        files::write_atomically(&file(&self.dir), &[])
    }

    /// Makes `buckets` hold exactly `live`, which is what the hub has there at `version`, in one durable step, as
    /// [`GalleryStore::apply`] does with records; the store no longer differs then.
    ///
    /// All or none. A power cut in the middle may leave a store that its watermark contradicts: the next opening destroys
    /// that, as any doubtful one.
    pub fn replace(
        &mut self,
        version: u64,
        buckets: &BTreeSet<u8>,
        live: Vec<Record>,
        expected_root: Root,
    ) -> Result<Replaced, ApplyError> {
        self.reopen()?;
        let mut log = self.log.clone();
        let dels = log.replace(version, buckets, &live, &self.digest_key)?;
        log.verify_root(expected_root)?;
        let done = Replaced { received: live.len() as u64, removed: dels.len() as u64 };
        let records: Vec<Record> = live.into_iter().chain(dels).collect();
        self.write(&mut log, &records)?;
        self.live = count_all(&log);
        self.log = log;
        self.root = expected_root;
        self.differing = None;
        // Left behind, it costs one comparison after the next start.
        if let Err(error) = files::destroy_file(&file(&self.dir)) {
            tracing::warn!(gallery = %self.gallery, error = %error, "the note that the gallery differed could not be removed");
        }
        Ok(done)
    }
}

/// The note's place in a store's directory.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// The hashes, if the note is there.
pub(super) fn noted(dir: &Path, log: &mut Log) -> Option<BucketHashes> {
    file(dir).exists().then(|| Arc::new(log.buckets()))
}

pub(super) fn count_all(log: &Log) -> Counts {
    let mut live = Counts::default();
    for (_, entry) in log.entries().filter(|(_, entry)| entry.leaf.is_some()) {
        live[cells::index_of(entry.kind)] += 1;
    }
    live
}
