//! Which record may follow: own gallery, own epoch, version = last + 1, revisions that only grow, ids never used twice.
//!
//! In: records in the order of the log. Out: the [`Log`]'s position and root, or an [`AppendError`] that leaves it unchanged.
//! The hub uses it before it writes a record, the edge before it stores one; so neither can go where the other cannot follow.
//! Deliberately absent: the bodies. A log keeps 60 bytes an entry, whatever the entry says.

mod replace;
mod whole;

use std::collections::BTreeMap;

use crate::digest::{BUCKETS, Bucket, Digest, Leaf, Root};
use crate::ids::{GalleryId, RecordId};
use crate::keys::DigestKey;
use crate::record::{self, Kind, Op, Record, RecordError};

pub use replace::ReplaceError;
pub use whole::Whole;

/// Why a record may not be appended. Nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A record of another gallery.
    #[error("record belongs to gallery {found}, this log is of gallery {expected}")]
    OtherGallery {
        /// This log's gallery.
        expected: GalleryId,
        /// The record's gallery.
        found: GalleryId,
    },
    /// A record of another epoch. A lower one must raise an alarm; a higher one needs new keys and an empty start.
    #[error("gallery {gallery}: record has epoch {found}, the log is at epoch {expected}")]
    OtherEpoch {
        /// The gallery.
        gallery: GalleryId,
        /// This log's epoch.
        expected: u32,
        /// The record's epoch.
        found: u32,
    },
    /// Records are missing before this one, or it was applied already.
    #[error("gallery {gallery}: record has version {found}, the next must have {expected}")]
    OutOfOrder {
        /// The gallery.
        gallery: GalleryId,
        /// last + 1.
        expected: u64,
        /// The record's version.
        found: u64,
    },
    /// The revision of an entry must grow.
    #[error("entry {id}: revision {found} does not follow revision {last}")]
    RevisionNotHigher {
        /// The entry.
        id: RecordId,
        /// The revision it has.
        last: u32,
        /// The record's revision.
        found: u32,
    },
    /// An id keeps its kind.
    #[error("entry {id} is of kind {last:?}, the record says {found:?}")]
    KindChanged {
        /// The entry.
        id: RecordId,
        /// The kind it has.
        last: Kind,
        /// The record's kind.
        found: Kind,
    },
    /// Deleted ids never come back.
    #[error("entry {id} was deleted; ids are never used again")]
    Deleted {
        /// The entry.
        id: RecordId,
    },
    /// Only what exists can be deleted.
    #[error("entry {id} cannot be deleted: it does not exist")]
    NoSuchEntry {
        /// The entry.
        id: RecordId,
    },
    /// The record breaks its own rules.
    #[error("record {version} of gallery {gallery} is malformed")]
    Malformed {
        /// The gallery.
        gallery: GalleryId,
        /// The record's version.
        version: u64,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
}

/// The log's root is not the one expected: hub and edge differ, and the gallery must not be used for decisions.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("gallery {gallery} epoch {epoch} version {version}: root is {found}, expected {expected}")]
pub struct RootMismatch {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version at which the roots were compared.
    pub version: u64,
    /// What the other side says.
    pub expected: Root,
    /// What this side has.
    pub found: Root,
}

/// An entry that a log remembers: live, or deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What kind of thing it is.
    pub kind: Kind,
    /// Its last revision.
    pub rev: u32,
    /// Its leaf while it is live, `None` once it is deleted.
    pub leaf: Option<Leaf>,
}

/// The position of one gallery's log: last version, every id ever used, and the digest of what is live.
#[derive(Clone, Debug)]
pub struct Log {
    version: u64,
    entries: BTreeMap<RecordId, Entry>,
    digest: Digest,
}

impl Log {
    /// An empty log, before version 1.
    pub fn new(gallery: GalleryId, epoch: u32) -> Self {
        Self { version: 0, entries: BTreeMap::new(), digest: Digest::new(gallery, epoch) }
    }

    /// A log taken up from a store that kept its version and entries (deleted ones too).
    ///
    /// The caller must compare [`Log::root`] with the root it kept elsewhere before it trusts the result.
    pub fn restore(
        gallery: GalleryId,
        epoch: u32,
        version: u64,
        entries: impl IntoIterator<Item = (RecordId, Entry)>,
    ) -> Self {
        let mut log = Self::new(gallery, epoch);
        log.version = version;
        for (id, entry) in entries {
            log.set(id, entry);
        }
        log
    }

    /// The gallery.
    pub const fn gallery(&self) -> GalleryId {
        self.digest.gallery()
    }

    /// The epoch.
    pub const fn epoch(&self) -> u32 {
        self.digest.epoch()
    }

    /// The last version applied; 0 when there is none.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What the log knows of `id`.
    pub fn entry(&self, id: RecordId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Everything the log knows, by id; what [`Log::restore`] takes.
    pub fn entries(&self) -> impl Iterator<Item = (RecordId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// How many entries are live.
    pub fn live(&self) -> usize {
        self.digest.len()
    }

    /// Checks that `record` may come next, without applying it.
    pub fn check(&self, record: &Record) -> Result<(), AppendError> {
        let gallery = self.gallery();
        if record.gallery != gallery {
            return Err(AppendError::OtherGallery { expected: gallery, found: record.gallery });
        }
        if record.epoch != self.epoch() {
            return Err(AppendError::OtherEpoch { gallery, expected: self.epoch(), found: record.epoch });
        }
        if Some(record.version) != self.version.checked_add(1) {
            return Err(AppendError::OutOfOrder {
                gallery,
                expected: self.version.saturating_add(1),
                found: record.version,
            });
        }
        record::check_body(record.op, record.body.len()).map_err(|source| AppendError::Malformed {
            gallery,
            version: record.version,
            source,
        })?;
        self.check_entry(record)
    }

    fn check_entry(&self, record: &Record) -> Result<(), AppendError> {
        let id = record.id;
        let Some(last) = self.entries.get(&id) else {
            return match record.op {
                Op::Put => Ok(()),
                Op::Del => Err(AppendError::NoSuchEntry { id }),
            };
        };
        if last.leaf.is_none() {
            return Err(AppendError::Deleted { id });
        }
        if last.kind != record.kind {
            return Err(AppendError::KindChanged { id, last: last.kind, found: record.kind });
        }
        if record.rev <= last.rev {
            return Err(AppendError::RevisionNotHigher { id, last: last.rev, found: record.rev });
        }
        Ok(())
    }

    /// Applies `record` if it may come next; on an error the log is as before.
    pub fn apply(&mut self, record: &Record, key: &DigestKey) -> Result<(), AppendError> {
        self.check(record)?;
        let leaf = match record.op {
            Op::Put => Some(Leaf::of(key, record.kind, record.id, record.rev, &record.body)),
            Op::Del => None,
        };
        self.set(record.id, Entry { kind: record.kind, rev: record.rev, leaf });
        self.version = record.version;
        Ok(())
    }

    /// The root of what is live now.
    pub fn root(&mut self) -> Root {
        self.digest.root()
    }

    /// The 256 bucket hashes, to find out where two galleries differ.
    pub fn buckets(&mut self) -> [Bucket; BUCKETS] {
        self.digest.buckets()
    }

    /// Compares the root with what the other side says it is at this version.
    pub fn verify_root(&mut self, expected: Root) -> Result<(), RootMismatch> {
        let found = self.root();
        if found == expected {
            return Ok(());
        }
        Err(RootMismatch { gallery: self.gallery(), epoch: self.epoch(), version: self.version, expected, found })
    }

    fn set(&mut self, id: RecordId, entry: Entry) {
        match entry.leaf {
            Some(leaf) => self.digest.put(id, leaf),
            None => self.digest.del(id),
        };
        self.entries.insert(id, entry);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const GALLERY: GalleryId = GalleryId(Uuid::from_u128(0x6a));

    fn key() -> DigestKey {
        DigestKey::new([1; 32])
    }

    fn put(version: u64, id: u128, rev: u32) -> Record {
        Record {
            gallery: GALLERY,
            epoch: 2,
            version,
            op: Op::Put,
            kind: Kind::Person,
            id: RecordId(Uuid::from_u128(id)),
            rev,
            body: vec![7],
        }
    }

    fn del(version: u64, id: u128, rev: u32) -> Record {
        Record { op: Op::Del, body: Vec::new(), ..put(version, id, rev) }
    }

    fn log(records: &[Record]) -> Log {
        let mut log = Log::new(GALLERY, 2);
        for record in records {
            log.apply(record, &key()).unwrap();
        }
        log
    }

    fn refused(log: &mut Log, record: &Record) -> AppendError {
        let (version, root, live) = (log.version(), log.root(), log.live());
        let error = log.apply(record, &key()).unwrap_err();
        assert_eq!((log.version(), log.root(), log.live()), (version, root, live), "a refused record changed the log");
        error
    }

    #[test]
    fn entries_come_change_and_go() {
        let mut log = log(&[put(1, 1, 1), put(2, 2, 1), put(3, 1, 2), del(4, 2, 2)]);
        assert_eq!((log.version(), log.live()), (4, 1));
        let mut only = Digest::new(GALLERY, 2);
        let id = RecordId(Uuid::from_u128(1));
        only.put(id, Leaf::of(&key(), Kind::Person, id, 2, &[7]));
        assert_eq!(log.root(), only.root());
    }

    #[test]
    fn only_the_next_record_of_this_epoch_and_gallery_is_applied() {
        let mut log = log(&[put(1, 1, 1)]);
        let out_of_order = |found| AppendError::OutOfOrder { gallery: GALLERY, expected: 2, found };
        assert_eq!(refused(&mut log, &put(1, 2, 1)), out_of_order(1));
        assert_eq!(refused(&mut log, &put(3, 2, 1)), out_of_order(3));
        let other = Record { epoch: 3, ..put(2, 2, 1) };
        assert_eq!(refused(&mut log, &other), AppendError::OtherEpoch { gallery: GALLERY, expected: 2, found: 3 });
        let other = Record { gallery: GalleryId(Uuid::nil()), ..put(2, 2, 1) };
        assert!(matches!(refused(&mut log, &other), AppendError::OtherGallery { .. }));
    }

    #[test]
    fn revisions_grow_kinds_stay_and_ids_never_come_back() {
        let mut log = log(&[put(1, 1, 5), put(2, 2, 1), del(3, 2, 2)]);
        let id = RecordId(Uuid::from_u128(1));
        assert_eq!(refused(&mut log, &put(4, 1, 5)), AppendError::RevisionNotHigher { id, last: 5, found: 5 });
        assert_eq!(refused(&mut log, &del(4, 1, 4)), AppendError::RevisionNotHigher { id, last: 5, found: 4 });
        let rule = Record { kind: Kind::Rule, ..put(4, 1, 6) };
        let changed = AppendError::KindChanged { id, last: Kind::Person, found: Kind::Rule };
        assert_eq!(refused(&mut log, &rule), changed);
        let gone = AppendError::Deleted { id: RecordId(Uuid::from_u128(2)) };
        assert_eq!(refused(&mut log, &put(4, 2, 9)), gone);
        assert_eq!(refused(&mut log, &del(4, 2, 9)), gone);
        let never = AppendError::NoSuchEntry { id: RecordId(Uuid::from_u128(3)) };
        assert_eq!(refused(&mut log, &del(4, 3, 1)), never);
        let fat = Record { body: vec![1], ..del(4, 1, 6) };
        assert!(matches!(refused(&mut log, &fat), AppendError::Malformed { .. }));
    }

    #[test]
    fn a_wrong_root_is_named_with_its_place() {
        let mut log = log(&[put(1, 1, 1)]);
        let found = log.root();
        assert_eq!(log.verify_root(found), Ok(()));
        let expected = Root([0; 32]);
        assert_eq!(
            log.verify_root(expected),
            Err(RootMismatch { gallery: GALLERY, epoch: 2, version: 1, expected, found })
        );
    }

    proptest! {
        #[test]
        fn a_restored_log_goes_on_as_the_first_would(
            steps in prop::collection::vec((0..12_u128, 1..4_u32, any::<bool>()), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let at = cut.index(steps.len() + 1);
            let (mut first, mut second) = (Log::new(GALLERY, 2), Log::new(GALLERY, 2));
            for (i, (id, grow, delete)) in steps.into_iter().enumerate() {
                if i == at {
                    let entries = first.entries.clone();
                    second = Log::restore(GALLERY, 2, first.version(), entries);
                }
                let rev = first.entry(RecordId(Uuid::from_u128(id))).map_or(0, |e| e.rev) + grow - 1;
                let record = if delete { del(first.version() + 1, id, rev) } else { put(first.version() + 1, id, rev) };
                let outcome = first.apply(&record, &key());
                if i >= at {
                    prop_assert_eq!(outcome, second.apply(&record, &key()));
                    prop_assert_eq!(first.root(), second.root());
                }
            }
        }
    }
}
