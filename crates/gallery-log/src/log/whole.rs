//! A log made anew from everything that is live elsewhere, entry by entry, so that nobody holds all records at once.
//!
//! In: the version of the whole, and its live entries in any order. Out: a log at that version, and the `del` records that
//! stand for what is no longer there. Whether it is right only [`Whole::finish`] can say, which compares roots.
//!
//! As with [`Log::replace`] the rules of [`Log::apply`] do not hold for single entries; the version never falls, and what
//! was deleted here before stays deleted, unless it is live there.

use std::collections::BTreeSet;

use super::{Entry, Log, ReplaceError, RootMismatch};
use crate::digest::{Leaf, Root};
use crate::ids::RecordId;
use crate::keys::DigestKey;
use crate::record::{self, Op, Record};

/// A log on its way to replace another one.
#[derive(Debug)]
pub struct Whole {
    log: Log,
    seen: BTreeSet<RecordId>,
    /// What the log before knew, dels included.
    before: Vec<(RecordId, Entry)>,
}

impl Log {
    /// Begins the log that takes this one's place at `version`, which must not be older. The log itself stays as it is.
    pub fn whole(&self, version: u64) -> Result<Whole, ReplaceError> {
        if version < self.version {
            return Err(ReplaceError::Older { gallery: self.gallery(), held: self.version, offered: version });
        }
        let mut log = Self::new(self.gallery(), self.epoch());
        log.version = version;
        let before = self.entries.iter().map(|(id, entry)| (*id, *entry)).collect();
        Ok(Whole { log, seen: BTreeSet::new(), before })
    }
}

impl Whole {
    /// Takes a live entry in.
    pub fn take(&mut self, record: &Record, key: &DigestKey) -> Result<(), ReplaceError> {
        let (id, version) = (record.id, record.version);
        if record.gallery != self.log.gallery() || record.epoch != self.log.epoch() {
            return Err(ReplaceError::Foreign { id, gallery: record.gallery, epoch: record.epoch });
        }
        if record.op != Op::Put || version > self.log.version || !self.seen.insert(id) {
            return Err(ReplaceError::NotLive { id, version });
        }
        record::check_body(record.op, record.body.len()).map_err(|source| ReplaceError::Malformed { id, source })?;
        let leaf = Leaf::of(key, record.kind, id, record.rev, &record.body);
        self.log.set(id, Entry { kind: record.kind, rev: record.rev, leaf: Some(leaf) });
        Ok(())
    }

    /// The log, if it has this root; with it the `del` records of all that was known before and is not live in it.
    pub fn finish(mut self, expected: Root) -> Result<(Log, Vec<Record>), RootMismatch> {
        self.log.verify_root(expected)?;
        let version = self.log.version;
        let gone = self.before.iter().filter(|(id, _)| !self.seen.contains(id));
        let dels = gone
            .map(|(id, entry)| {
                // What was deleted before keeps its revision.
                let rev = if entry.leaf.is_some() { entry.rev.saturating_add(1) } else { entry.rev };
                self.log.bury(*id, entry.kind, rev, version)
            })
            .collect();
        Ok((self.log, dels))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::GalleryId;
    use crate::log::AppendError;
    use crate::record::Kind;

    const GALLERY: GalleryId = GalleryId(Uuid::from_u128(0x6a));

    fn key() -> DigestKey {
        DigestKey::new([3; 32])
    }

    fn id(n: u128) -> RecordId {
        RecordId(Uuid::from_u128(n))
    }

    fn put(version: u64, n: u128, rev: u32) -> Record {
        Record { gallery: GALLERY, epoch: 2, version, op: Op::Put, kind: Kind::Person, id: id(n), rev, body: vec![7] }
    }

    fn del(version: u64, n: u128) -> Record {
        Record { op: Op::Del, rev: 9, body: Vec::new(), ..put(version, n, 1) }
    }

    fn log(records: &[Record]) -> Log {
        let mut log = Log::new(GALLERY, 2);
        for record in records {
            log.apply(record, &key()).unwrap();
        }
        log
    }

    #[test]
    fn the_whole_of_elsewhere_takes_the_place_of_what_was_here() {
        let mut hub = log(&[put(1, 1, 1), put(2, 2, 1), put(3, 3, 1), del(4, 1), put(5, 2, 2), put(6, 4, 1)]);
        let edge = log(&[put(1, 1, 1), put(2, 2, 1), put(3, 5, 1), del(4, 5)]);
        let mut whole = edge.whole(6).unwrap();
        for record in [put(3, 3, 1), put(5, 2, 2), put(6, 4, 1)] {
            whole.take(&record, &key()).unwrap();
        }
        let (mut made, dels) = whole.finish(hub.root()).unwrap();
        assert_eq!((made.root(), made.version(), made.live()), (hub.root(), 6, 3));
        assert_eq!(dels.iter().map(|del| del.id).collect::<Vec<_>>(), [id(1), id(5)], "gone, and gone before");
        for n in [1, 5] {
            assert_eq!(made.apply(&put(7, n, 30), &key()), Err(AppendError::Deleted { id: id(n) }));
        }
        assert_eq!(made.apply(&put(7, 2, 3), &key()), Ok(()));
    }

    #[test]
    fn a_whole_of_the_version_that_is_held_already_may_take_its_place() {
        let mut edge = log(&[put(1, 1, 1), put(2, 2, 1)]);
        let mut whole = edge.whole(2).unwrap();
        for record in [put(1, 1, 1), put(2, 2, 1)] {
            whole.take(&record, &key()).unwrap();
        }
        let (mut made, dels) = whole.finish(edge.root()).unwrap();
        assert_eq!((made.root(), made.version(), dels), (edge.root(), 2, Vec::new()));
    }

    #[test]
    fn who_goes_with_a_whole_gets_a_higher_revision_and_who_was_gone_keeps_theirs() {
        let edge = log(&[put(1, 1, 4), put(2, 2, 1), Record { rev: 6, ..del(3, 2) }]);
        let whole = edge.whole(9).unwrap();
        let (made, dels) = whole.finish(Log::new(GALLERY, 2).root()).unwrap();
        assert_eq!(
            dels.iter().map(|del| (del.id, del.version, del.op)).collect::<Vec<_>>(),
            [(id(1), 9, Op::Del), (id(2), 9, Op::Del)]
        );
        assert_eq!([dels[0].rev, dels[1].rev], [5, 6]);
        assert_eq!((made.live(), made.version()), (0, 9));
        assert!(made.entry(id(1)).unwrap().leaf.is_none() && made.entry(id(2)).unwrap().leaf.is_none());
    }

    #[test]
    fn what_cannot_be_a_whole_is_refused_and_the_log_stays() {
        let mut edge = log(&[put(1, 1, 1), put(2, 2, 1)]);
        let root = edge.root();
        let older = ReplaceError::Older { gallery: GALLERY, held: 2, offered: 1 };
        assert_eq!(edge.whole(1).unwrap_err(), older);
        let mut whole = edge.whole(3).unwrap();
        assert!(matches!(whole.take(&del(3, 1), &key()), Err(ReplaceError::NotLive { .. })));
        assert!(matches!(whole.take(&put(4, 1, 1), &key()), Err(ReplaceError::NotLive { .. })), "later than the whole");
        assert!(matches!(whole.take(&Record { epoch: 1, ..put(1, 1, 1) }, &key()), Err(ReplaceError::Foreign { .. })));
        whole.take(&put(1, 1, 1), &key()).unwrap();
        assert!(matches!(whole.take(&put(2, 1, 2), &key()), Err(ReplaceError::NotLive { .. })), "twice");
        assert!(whole.finish(root).is_err(), "somebody is missing");
        assert_eq!((edge.root(), edge.version()), (root, 2));
    }
}
