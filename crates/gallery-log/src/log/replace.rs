//! Healing: some buckets of a log made as they are elsewhere, in one step.
//!
//! In: the version that the whole gallery is at elsewhere, and every live entry of some buckets there. Out: a log at that
//! version, and the entries that are gone with it. Whether the whole is right afterwards only [`Log::verify_root`] can say:
//! the buckets that were not replaced are believed to be equal.
//!
//! The rules of [`Log::apply`] do not hold here, for here the log itself is in the wrong: an entry may get a lower revision,
//! another kind, or come back. One rule stays: the version never falls, so that no older state comes back this way.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Log};
use crate::digest::{Leaf, bucket_of};
use crate::ids::{GalleryId, RecordId};
use crate::keys::DigestKey;
use crate::record::{self, Kind, Op, Record, RecordError};

/// Why buckets may not be replaced. Nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// The buckets are of a state before this log's.
    #[error("gallery {gallery}: buckets of version {offered} are older than version {held}")]
    Older {
        /// The gallery.
        gallery: GalleryId,
        /// This log's version.
        held: u64,
        /// The version that is offered.
        offered: u64,
    },
    /// A record that is not this log's.
    #[error("entry {id} belongs to gallery {gallery} epoch {epoch}")]
    Foreign {
        /// The entry.
        id: RecordId,
        /// The gallery that it names.
        gallery: GalleryId,
        /// The epoch that it names.
        epoch: u32,
    },
    /// A record that does not belong into the buckets that are replaced.
    #[error("entry {id} is of bucket {bucket}, which is not replaced")]
    OtherBucket {
        /// The entry.
        id: RecordId,
        /// Its bucket.
        bucket: u8,
    },
    /// What is live is never a `del`, stands there once, and was written before the state that it belongs to.
    #[error("entry {id} version {version} cannot be live")]
    NotLive {
        /// The entry.
        id: RecordId,
        /// The version of its record.
        version: u64,
    },
    /// A record breaks its own rules.
    #[error("entry {id} is malformed")]
    Malformed {
        /// The entry.
        id: RecordId,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
}

impl Log {
    /// Makes `buckets` hold exactly `live`, and the log be at `version`. Returns the entries that were live and are no
    /// more, as the `del` records that stand for them from now on. On an error the log is as before.
    pub fn replace(
        &mut self,
        version: u64,
        buckets: &BTreeSet<u8>,
        live: &[Record],
        key: &DigestKey,
    ) -> Result<Vec<Record>, ReplaceError> {
        if version < self.version {
            return Err(ReplaceError::Older { gallery: self.gallery(), held: self.version, offered: version });
        }
        let mut fresh = BTreeMap::new();
        for record in live {
            self.check_live(record, version, buckets)?;
            let leaf = Leaf::of(key, record.kind, record.id, record.rev, &record.body);
            let entry = Entry { kind: record.kind, rev: record.rev, leaf: Some(leaf) };
            if fresh.insert(record.id, entry).is_some() {
                return Err(ReplaceError::NotLive { id: record.id, version: record.version });
            }
        }
        let gone: Vec<(RecordId, Kind, u32)> = self
            .entries
            .iter()
            .filter(|(id, entry)| entry.leaf.is_some() && buckets.contains(&bucket_of(**id)) && !fresh.contains_key(id))
            .map(|(id, entry)| (*id, entry.kind, entry.rev))
            .collect();
        let dels =
            gone.into_iter().map(|(id, kind, rev)| self.bury(id, kind, rev.saturating_add(1), version)).collect();
        for (id, entry) in fresh {
            self.set(id, entry);
        }
        self.version = version;
        Ok(dels)
    }

    fn check_live(&self, record: &Record, version: u64, buckets: &BTreeSet<u8>) -> Result<(), ReplaceError> {
        let id = record.id;
        if record.gallery != self.gallery() || record.epoch != self.epoch() {
            return Err(ReplaceError::Foreign { id, gallery: record.gallery, epoch: record.epoch });
        }
        if record.op != Op::Put || record.version > version {
            return Err(ReplaceError::NotLive { id, version: record.version });
        }
        let bucket = bucket_of(id);
        if !buckets.contains(&bucket) {
            return Err(ReplaceError::OtherBucket { id, bucket });
        }
        record::check_body(record.op, record.body.len()).map_err(|source| ReplaceError::Malformed { id, source })
    }

    /// Marks an entry as deleted by a `del` of this revision; a later put of its id is refused as that of any deleted entry.
    pub(super) fn bury(&mut self, id: RecordId, kind: Kind, rev: u32, version: u64) -> Record {
        self.set(id, Entry { kind, rev, leaf: None });
        let (gallery, epoch) = (self.gallery(), self.epoch());
        Record { gallery, epoch, version, op: Op::Del, kind, id, rev, body: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::digest::differing;
    use crate::log::AppendError;

    const GALLERY: GalleryId = GalleryId(Uuid::from_u128(0x6a));

    fn key() -> DigestKey {
        DigestKey::new([3; 32])
    }

    fn id(n: u128) -> RecordId {
        RecordId(Uuid::from_u128(n))
    }

    fn put(version: u64, n: u128, rev: u32) -> Record {
        let kind = if n.is_multiple_of(2) { Kind::Person } else { Kind::Template };
        Record { gallery: GALLERY, epoch: 2, version, op: Op::Put, kind, id: id(n), rev, body: vec![7] }
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

    /// What a hub sends: every live entry of the buckets that differ.
    fn heal(edge: &mut Log, hub: &mut Log, written: &[Record]) -> (BTreeSet<u8>, Vec<Record>) {
        let buckets = differing(&edge.buckets(), &hub.buckets());
        let is_live = |record: &&Record| hub.entry(record.id).is_some_and(|entry| entry.leaf.is_some());
        let newest = |record: &&Record| !written.iter().any(|r| r.id == record.id && r.version > record.version);
        let live: Vec<Record> = written
            .iter()
            .filter(|record| buckets.contains(&bucket_of(record.id)))
            .filter(is_live)
            .filter(newest)
            .cloned()
            .collect();
        let dels = edge.replace(hub.version(), &buckets, &live, &key()).unwrap();
        (buckets, dels)
    }

    #[test]
    fn an_entry_too_many_goes_and_one_that_lacks_comes_and_nothing_else_travels() {
        let written = [put(1, 1, 1), put(2, 2, 1), put(3, 3, 1), del(4, 1)];
        let mut hub = log(&written);
        let mut edge = log(&[put(1, 1, 1), put(2, 2, 1), put(3, 3, 1), del(4, 3)]);
        let (buckets, dels) = heal(&mut edge, &mut hub, &written);
        assert_eq!(buckets, [1, 3].map(|n| bucket_of(id(n))).into());
        assert_eq!((edge.root(), edge.version()), (hub.root(), 4));
        assert_eq!(dels.iter().map(|del| del.id).collect::<Vec<_>>(), [id(1)]);
        let again = edge.apply(&put(5, 1, 20), &key());
        assert_eq!(again, Err(AppendError::Deleted { id: id(1) }), "what healing removed is dead as any other");
        assert_eq!(edge.apply(&put(5, 3, 2), &key()), Ok(()), "what came back lives on");
    }

    #[test]
    fn what_cannot_be_a_state_of_this_gallery_changes_nothing() {
        let mut edge = log(&[put(1, 1, 1), put(2, 2, 1)]);
        let (root, all) = (edge.root(), (0..=255).collect::<BTreeSet<u8>>());
        let refused = |edge: &mut Log, version, buckets: &BTreeSet<u8>, record: Record| {
            let error = edge.replace(version, buckets, std::slice::from_ref(&record), &key()).unwrap_err();
            assert_eq!((edge.root(), edge.version()), (root, 2));
            error
        };
        let older = ReplaceError::Older { gallery: GALLERY, held: 2, offered: 1 };
        assert_eq!(refused(&mut edge, 1, &all, put(1, 1, 1)), older);
        let later = refused(&mut edge, 2, &all, put(3, 1, 1));
        assert_eq!(later, ReplaceError::NotLive { id: id(1), version: 3 });
        assert!(matches!(refused(&mut edge, 2, &all, del(2, 1)), ReplaceError::NotLive { .. }));
        let bucket = bucket_of(id(1));
        let others = all.iter().copied().filter(|one| *one != bucket).collect();
        let elsewhere = refused(&mut edge, 2, &others, put(1, 1, 1));
        assert_eq!(elsewhere, ReplaceError::OtherBucket { id: id(1), bucket });
        let foreign = Record { epoch: 3, ..put(1, 1, 1) };
        assert!(matches!(refused(&mut edge, 2, &all, foreign), ReplaceError::Foreign { .. }));
        let twice = edge.replace(2, &all, &[put(1, 1, 1), put(1, 1, 1)], &key());
        assert!(matches!(twice, Err(ReplaceError::NotLive { .. })));
        assert_eq!(edge.root(), root);
    }

    proptest! {
        /// However edge and hub have come apart, replacing what differs makes them one, and a restored log agrees.
        #[test]
        fn any_two_logs_are_equal_after_healing(
            hubs in prop::collection::vec((0..30_u128, any::<bool>()), 0..80),
            edges in prop::collection::vec((0..30_u128, any::<bool>()), 0..80),
        ) {
            let play = |steps: &[(u128, bool)]| {
                let (mut log, mut written) = (Log::new(GALLERY, 2), Vec::new());
                for (n, delete) in steps {
                    let (version, rev) = (log.version() + 1, log.entry(id(*n)).map_or(1, |entry| entry.rev + 1));
                    let record = if *delete { Record { rev, ..del(version, *n) } } else { put(version, *n, rev) };
                    if log.apply(&record, &key()).is_ok() {
                        written.push(record);
                    }
                }
                (log, written)
            };
            let ((mut hub, written), (mut edge, _)) = (play(&hubs), play(&edges));
            prop_assume!(edge.version() <= hub.version());
            heal(&mut edge, &mut hub, &written);
            prop_assert_eq!(edge.root(), hub.root());
            prop_assert_eq!(edge.live(), hub.live());
            let entries: Vec<_> = edge.entries().map(|(id, entry)| (id, *entry)).collect();
            prop_assert_eq!(Log::restore(GALLERY, 2, edge.version(), entries).root(), hub.root());
        }
    }
}
