//! What a change of people does to a gallery's log: versions, leaves and roots.
//!
//! In: the gallery's head, the leaves of the buckets that the change touches, and the change as a list of puts and
//! dels. Out: the records with their versions, one root per version, and the new head. The caller holds the lock on
//! the gallery's row and writes all of it in the same transaction.
//!
//! Cost: the touched buckets' leaves (about n/256 each) and 256 hashes per record; the gallery itself is never read
//! as a whole. Deliberately absent: sealing (`vault`) and the wire (`publish`).

use std::collections::{BTreeMap, BTreeSet};

use gallery_log::digest::{BUCKETS, Bucket, bucket_of, root_of};
use gallery_log::{AppendError, Digest, DigestKey, Kind, Leaf, Op, RecordId, Root};

use super::ids::GalleryId;

/// Where a gallery stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which gallery.
    pub gallery: GalleryId,
    /// Its epoch, from 1.
    pub epoch: u32,
    /// The last version; 0 when nothing was ever appended.
    pub version: u64,
    /// The hashes of all 256 buckets.
    pub buckets: Box<[Bucket; BUCKETS]>,
}

/// One wanted entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds or replaces an entry.
    Put {
        /// What it is.
        kind: Kind,
        /// Whose entry.
        id: RecordId,
        /// Higher than any before for this id.
        rev: u32,
        /// The plaintext that the digest covers.
        body: Vec<u8>,
    },
    /// Removes an entry for ever.
    Del {
        /// What it was.
        kind: Kind,
        /// Whose entry.
        id: RecordId,
    },
}

/// A live entry as the hub stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveLeaf {
    /// What it is.
    pub kind: Kind,
    /// Its revision.
    pub rev: u32,
    /// Its hash.
    pub leaf: Leaf,
}

/// What a gallery says of the entries that a change is about.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// All live entries of the [`touched_buckets`].
    pub leaves: BTreeMap<RecordId, LiveLeaf>,
    /// Those of the entries to be put that were deleted before.
    pub deleted: BTreeSet<RecordId>,
}

/// One record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the log.
    pub version: u64,
    /// What it does.
    pub op: Op,
    /// To what.
    pub kind: Kind,
    /// To which.
    pub id: RecordId,
    /// Its revision.
    pub rev: u32,
    /// The bucket it falls in.
    pub bucket: u8,
    /// The new leaf; `None` for a `del`.
    pub leaf: Option<Leaf>,
    /// The gallery's root after it.
    pub root: Root,
}

impl Change {
    /// The entry it is about.
    #[must_use]
    pub fn id(&self) -> RecordId {
        match self {
            Self::Put { id, .. } | Self::Del { id, .. } => *id,
        }
    }
}

impl Head {
    /// The head of a gallery in which nothing is.
    #[must_use]
    pub fn empty(gallery: GalleryId, epoch: u32) -> Self {
        Self { gallery, epoch, version: 0, buckets: Box::new(Digest::new(log_id(gallery), epoch).buckets()) }
    }

    /// The root of this head.
    #[must_use]
    pub fn root(&self) -> Root {
        root_of(log_id(self.gallery), self.epoch, &self.buckets)
    }
}

/// The buckets whose leaves [`append`] must be given.
#[must_use]
pub fn touched_buckets<'a>(changes: impl IntoIterator<Item = &'a Change>) -> BTreeSet<u8> {
    changes.into_iter().map(|change| bucket_of(change.id())).collect()
}

/// Appends `changes` in order.
///
/// Refused, with nothing changed: a put whose revision is not higher, a kind that changes, a del of nothing, and a put of
/// what was deleted, however late it comes and from wherever: no device would follow.
pub fn append(
    head: &Head,
    known: &Known,
    changes: &[Change],
    key: &DigestKey,
) -> Result<(Vec<Appended>, Head), AppendError> {
    let (mut head, Known { leaves: mut live, mut deleted }) = (head.clone(), known.clone());
    // Only the touched buckets are right in this digest; the others are taken from the head.
    let mut digest = Digest::new(log_id(head.gallery), head.epoch);
    for (id, entry) in &live {
        digest.put(*id, entry.leaf);
    }
    let mut appended = Vec::with_capacity(changes.len());
    for change in changes {
        let id = change.id();
        if deleted.contains(&id) {
            return Err(AppendError::Deleted { id });
        }
        let (op, kind, rev, leaf) = next_entry(live.get(&id).copied(), change, key)?;
        match leaf {
            Some(leaf) => {
                digest.put(id, leaf);
                live.insert(id, LiveLeaf { kind, rev, leaf });
            }
            None => {
                digest.del(id);
                live.remove(&id);
                deleted.insert(id);
            }
        }
        let bucket = bucket_of(id);
        head.buckets[usize::from(bucket)] = digest.buckets()[usize::from(bucket)];
        head.version += 1;
        appended.push(Appended { version: head.version, op, kind, id, rev, bucket, leaf, root: head.root() });
    }
    Ok((appended, head))
}

fn next_entry(
    last: Option<LiveLeaf>,
    change: &Change,
    key: &DigestKey,
) -> Result<(Op, Kind, u32, Option<Leaf>), AppendError> {
    let id = change.id();
    let check_kind = |kind: Kind| match last {
        Some(last) if last.kind != kind => Err(AppendError::KindChanged { id, last: last.kind, found: kind }),
        _ => Ok(kind),
    };
    match change {
        Change::Put { kind, rev, body, .. } => {
            let kind = check_kind(*kind)?;
            match last {
                Some(last) if *rev <= last.rev => {
                    Err(AppendError::RevisionNotHigher { id, last: last.rev, found: *rev })
                }
                _ => Ok((Op::Put, kind, *rev, Some(Leaf::of(key, kind, id, *rev, body)))),
            }
        }
        Change::Del { kind, .. } => {
            let kind = check_kind(*kind)?;
            let last = last.ok_or(AppendError::NoSuchEntry { id })?;
            Ok((Op::Del, kind, last.rev.saturating_add(1), None))
        }
    }
}

/// The gallery's id in gallery-log's type.
#[must_use]
pub fn log_id(gallery: GalleryId) -> gallery_log::GalleryId {
    gallery_log::GalleryId(gallery.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gallery_log::{Log, Record};
    use proptest::prelude::*;
    use uuid::Uuid;

    const GALLERY: GalleryId = GalleryId(Uuid::from_u128(77));

    fn key() -> DigestKey {
        DigestKey::new([3; 32])
    }

    fn id(n: u8) -> RecordId {
        RecordId(Uuid::from_u128(u128::from(n)))
    }

    /// What the store does: keeps every leaf, hands over those of the touched buckets.
    fn run(
        head: &mut Head,
        all: &mut BTreeMap<RecordId, LiveLeaf>,
        changes: &[Change],
    ) -> Result<Vec<Appended>, AppendError> {
        let touched = touched_buckets(changes);
        let given =
            all.iter().filter(|(id, _)| touched.contains(&bucket_of(**id))).map(|(id, leaf)| (*id, *leaf)).collect();
        let (appended, next) = append(head, &Known { leaves: given, deleted: BTreeSet::new() }, changes, &key())?;
        for record in &appended {
            match record.leaf {
                Some(leaf) => all.insert(record.id, LiveLeaf { kind: record.kind, rev: record.rev, leaf }),
                None => all.remove(&record.id),
            };
        }
        *head = next;
        Ok(appended)
    }

    proptest! {
        /// An edge that follows the records by gallery-log's own rules has the hub's root after each of them.
        #[test]
        fn an_edge_that_follows_agrees_at_every_version(steps in prop::collection::vec((0u8..40, any::<bool>(), 1usize..4), 1..60)) {
            let mut head = Head::empty(GALLERY, 1);
            let mut all = BTreeMap::new();
            let mut edge = Log::new(log_id(GALLERY), 1);
            let mut gone = BTreeSet::new();
            for (n, delete, repeat) in steps {
                if gone.contains(&n) { continue; }
                let rev = all.get(&id(n)).map_or(0, |leaf: &LiveLeaf| leaf.rev);
                let change = if delete {
                    Change::Del { kind: Kind::Person, id: id(n) }
                } else {
                    Change::Put { kind: Kind::Person, id: id(n), rev: rev + u32::try_from(repeat).unwrap(), body: vec![n; repeat] }
                };
                let body = match &change { Change::Put { body, .. } => body.clone(), Change::Del { .. } => Vec::new() };
                match run(&mut head, &mut all, std::slice::from_ref(&change)) {
                    Ok(appended) => {
                        if delete { gone.insert(n); }
                        for one in appended {
                            let record = Record {
                                gallery: log_id(GALLERY), epoch: 1, version: one.version, op: one.op,
                                kind: one.kind, id: one.id, rev: one.rev, body: body.clone(),
                            };
                            edge.apply(&record, &key()).unwrap();
                            prop_assert_eq!(edge.root(), one.root);
                        }
                    }
                    Err(error) => prop_assert_eq!(error, AppendError::NoSuchEntry { id: id(n) }),
                }
            }
            prop_assert_eq!(edge.root(), head.root());
        }
    }

    #[test]
    fn several_changes_get_contiguous_versions_and_a_root_each() {
        let mut head = Head::empty(GALLERY, 1);
        let mut all = BTreeMap::new();
        let put = |n: u8| Change::Put { kind: Kind::Person, id: id(n), rev: 1, body: vec![n] };
        let appended = run(&mut head, &mut all, &[put(1), put(2), put(3)]).unwrap();
        assert_eq!(appended.iter().map(|record| record.version).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(appended[2].root, head.root());
        assert_ne!(appended[0].root, appended[1].root);
    }

    #[test]
    fn a_forbidden_change_leaves_nothing_behind() {
        let mut head = Head::empty(GALLERY, 1);
        let mut all = BTreeMap::new();
        let put = |rev| Change::Put { kind: Kind::Person, id: id(1), rev, body: vec![] };
        run(&mut head, &mut all, &[put(2)]).unwrap();
        let before = head.clone();
        assert!(matches!(run(&mut head, &mut all, &[put(3), put(3)]), Err(AppendError::RevisionNotHigher { .. })));
        let other = Change::Del { kind: Kind::Template, id: id(1) };
        assert!(matches!(run(&mut head, &mut all, &[other]), Err(AppendError::KindChanged { .. })));
        assert_eq!(head, before);
    }

    #[test]
    fn what_was_deleted_is_never_put_again() {
        let head = Head::empty(GALLERY, 1);
        let put = Change::Put { kind: Kind::Person, id: id(1), rev: 9, body: vec![] };
        let refused = |known: &Known, changes: &[Change]| append(&head, known, changes, &key()).map(drop);
        let again = Err(AppendError::Deleted { id: id(1) });
        let buried = Known { deleted: [id(1)].into(), ..Known::default() };
        assert_eq!(refused(&buried, std::slice::from_ref(&put)), again);
        let first = Change::Put { kind: Kind::Person, id: id(1), rev: 1, body: vec![] };
        let del = Change::Del { kind: Kind::Person, id: id(1) };
        assert_eq!(refused(&Known::default(), &[first, del, put]), again, "within one change too");
    }
}
