//! One hash over everything that is live in a gallery, kept up to date entry by entry.
//!
//! ```text
//! leaf   = SHA-256(0 ‖ kind ‖ id ‖ rev ‖ HMAC-SHA256(GDK, body))
//! bucket = SHA-256(1 ‖ its leaves, sorted by id),  the bucket of an id = first byte of SHA-256(id)
//! root   = SHA-256(2 ‖ gallery ‖ epoch ‖ 256 buckets)
//! ```
//!
//! In: leaves by id. Out: bucket hashes and the [`Root`]. Numbers are big-endian: kind one byte, rev and epoch u32.
//! Deliberately absent: which record may come next; that is [`crate::log`].

use std::collections::{BTreeMap, BTreeSet};

use ring::digest::{Context, SHA256, digest};

use crate::ids::{GalleryId, RecordId};
use crate::keys::DigestKey;
use crate::record::Kind;

/// How many buckets a gallery has.
pub const BUCKETS: usize = 256;

const LEAF: u8 = 0;
const BUCKET: u8 = 1;
const ROOT: u8 = 2;

macro_rules! hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

hash! {
    /// The hash of one live entry. The hub may keep it in a column, so that a root needs no body to be unsealed.
    Leaf
}
hash! {
    /// The hash of one bucket.
    Bucket
}
hash! {
    /// The hash of a whole gallery: equal on hub and edge exactly when all live entries are.
    Root
}

impl Leaf {
    /// The leaf of an entry with this plaintext body.
    pub fn of(key: &DigestKey, kind: Kind, id: RecordId, rev: u32, body: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[LEAF, kind.as_byte()]);
        context.update(id.as_bytes());
        context.update(&rev.to_be_bytes());
        context.update(&key.mac(body));
        Self(finish(context))
    }
}

/// The bucket that an id falls into.
pub fn bucket_of(id: RecordId) -> u8 {
    digest(&SHA256, id.as_bytes()).as_ref()[0]
}

/// The live leaves of one gallery, in their buckets. Cost of a change: one bucket is hashed again at the next [`Digest::root`].
#[derive(Clone, Debug)]
pub struct Digest {
    gallery: GalleryId,
    epoch: u32,
    leaves: Vec<BTreeMap<RecordId, Leaf>>,
    hashes: Vec<Option<Bucket>>,
}

impl Digest {
    /// The digest of an empty gallery.
    pub fn new(gallery: GalleryId, epoch: u32) -> Self {
        Self { gallery, epoch, leaves: vec![BTreeMap::new(); BUCKETS], hashes: vec![None; BUCKETS] }
    }

    /// The gallery that is hashed.
    pub const fn gallery(&self) -> GalleryId {
        self.gallery
    }

    /// The epoch that is hashed.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Adds or replaces the leaf of `id`; returns the one it replaced.
    pub fn put(&mut self, id: RecordId, leaf: Leaf) -> Option<Leaf> {
        let bucket = usize::from(bucket_of(id));
        self.hashes[bucket] = None;
        self.leaves[bucket].insert(id, leaf)
    }

    /// Removes the leaf of `id`; returns it, or `None` when there was none.
    pub fn del(&mut self, id: RecordId) -> Option<Leaf> {
        let bucket = usize::from(bucket_of(id));
        self.hashes[bucket] = None;
        self.leaves[bucket].remove(&id)
    }

    /// How many entries are live.
    pub fn len(&self) -> usize {
        self.leaves.iter().map(BTreeMap::len).sum()
    }

    /// Whether no entry is live.
    pub fn is_empty(&self) -> bool {
        self.leaves.iter().all(BTreeMap::is_empty)
    }

    /// The 256 bucket hashes, hashing again those that changed.
    pub fn buckets(&mut self) -> [Bucket; BUCKETS] {
        std::array::from_fn(|i| *self.hashes[i].get_or_insert_with(|| hash_bucket(&self.leaves[i])))
    }

    /// The root hash of what is live now.
    pub fn root(&mut self) -> Root {
        let buckets = self.buckets();
        root_of(self.gallery, self.epoch, &buckets)
    }
}

/// The root over 256 bucket hashes.
pub fn root_of(gallery: GalleryId, epoch: u32, buckets: &[Bucket; BUCKETS]) -> Root {
    let mut context = Context::new(&SHA256);
    context.update(&[ROOT]);
    context.update(gallery.as_bytes());
    context.update(&epoch.to_be_bytes());
    for bucket in buckets {
        context.update(&bucket.0);
    }
    Root(finish(context))
}

/// The buckets in which two galleries differ.
pub fn differing(ours: &[Bucket; BUCKETS], theirs: &[Bucket; BUCKETS]) -> BTreeSet<u8> {
    (0..=u8::MAX).filter(|bucket| ours[usize::from(*bucket)] != theirs[usize::from(*bucket)]).collect()
}

fn hash_bucket(leaves: &BTreeMap<RecordId, Leaf>) -> Bucket {
    let mut context = Context::new(&SHA256);
    context.update(&[BUCKET]);
    for leaf in leaves.values() {
        context.update(&leaf.0);
    }
    Bucket(finish(context))
}

fn finish(context: Context) -> [u8; 32] {
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const GALLERY: GalleryId = GalleryId(Uuid::from_u128(0x6061_6263_6465_6667_6869_6a6b_6c6d_6e6f));

    fn gdk() -> DigestKey {
        DigestKey::new([0x55; 32])
    }

    fn id(n: u8) -> RecordId {
        RecordId::from_bytes([n; 16])
    }

    /// Two ids that fall into bucket 49.
    fn pair() -> [RecordId; 2] {
        [0x422b_61c1_a5f0_6dcb_f774_e951_3203_ea82, 0xee84_64c4_dd21_a2fa_3f83_386e_bdfa_b6a5]
            .map(|n| RecordId(Uuid::from_u128(n)))
    }

    fn example() -> Digest {
        let mut digest = Digest::new(GALLERY, 3);
        let entries: [(Kind, RecordId, u32, &[u8]); 5] = [
            (Kind::Person, pair()[1], 2, b"pair"),
            (Kind::Person, id(1), 1, b"one"),
            (Kind::Template, id(2), 1, b"two"),
            (Kind::Rule, id(3), 9, b""),
            (Kind::Person, pair()[0], 2, b"pair"),
        ];
        for (kind, id, rev, body) in entries {
            digest.put(id, Leaf::of(&gdk(), kind, id, rev, body));
        }
        digest
    }

    // The constants below come from Python's hashlib, not from this code.

    #[test]
    fn leaf_bucket_and_root_are_as_specified() {
        let leaf = Leaf::of(&gdk(), Kind::Person, id(1), 1, b"one");
        assert_eq!(leaf.to_string(), "11e3cfe16db00d0e8a04ebfeed1911ffa194ab419f23597795bbbb15c48aa71f");
        assert_eq!(bucket_of(id(1)), 204);
        assert_eq!(pair().map(bucket_of), [49, 49]);
        let mut digest = example();
        let bucket = digest.buckets()[49];
        assert_eq!(bucket.to_string(), "5d95a71c39dd560fb17a1bf2205e1f72a9b7a1dcd7b445633ef6578c8ed7d55b");
        assert_eq!(digest.root().to_string(), "c565317b370fbc387a94ced31a501a26f244612e76ab2a162d820c3ae87d9cfb");
        let empty = Digest::new(GALLERY, 3).root();
        assert_eq!(empty.to_string(), "bd2bfbfe94b7ad270d8e111be459012549c023f63141af2c9e959406f05bb1ed");
    }

    #[test]
    fn a_differing_body_changes_the_root() {
        let whole = example().root();
        let mut digest = example();
        digest.put(id(2), Leaf::of(&gdk(), Kind::Template, id(2), 1, b"twp"));
        assert_ne!(digest.root(), whole);
        digest.put(id(2), Leaf::of(&gdk(), Kind::Template, id(2), 1, b"two"));
        assert_eq!(digest.root(), whole);
    }

    #[test]
    fn everything_else_that_differs_changes_the_root_too() {
        let whole = example().root();
        let leaf = |kind, rev, key: &DigestKey| {
            let mut digest = example();
            digest.put(id(2), Leaf::of(key, kind, id(2), rev, b"two"));
            digest.root()
        };
        assert_eq!(leaf(Kind::Template, 1, &gdk()), whole);
        assert_ne!(leaf(Kind::Person, 1, &gdk()), whole);
        assert_ne!(leaf(Kind::Template, 2, &gdk()), whole);
        assert_ne!(leaf(Kind::Template, 1, &DigestKey::new([0x56; 32])), whole);
        let mut fewer = example();
        fewer.del(id(2));
        assert_ne!(fewer.root(), whole);
        let buckets = example().buckets();
        assert_eq!(root_of(GALLERY, 3, &buckets), whole);
        assert_ne!(root_of(GALLERY, 4, &buckets), whole);
        assert_ne!(root_of(GalleryId(Uuid::nil()), 3, &buckets), whole);
    }

    proptest! {
        #[test]
        fn the_incremental_root_is_the_one_from_scratch(
            steps in prop::collection::vec((any::<u8>(), prop::option::weighted(0.7, any::<u32>()), any::<bool>()), 0..200),
        ) {
            let mut digest = Digest::new(GALLERY, 1);
            let mut live = BTreeMap::new();
            for (n, rev, ask) in steps {
                match rev {
                    Some(rev) => {
                        let leaf = Leaf::of(&gdk(), Kind::Person, id(n), rev, &[n]);
                        prop_assert_eq!(digest.put(id(n), leaf), live.insert(id(n), leaf));
                    }
                    None => prop_assert_eq!(digest.del(id(n)), live.remove(&id(n))),
                }
                if ask {
                    digest.root();
                }
            }
            let mut scratch = Digest::new(GALLERY, 1);
            for (id, leaf) in live.iter().rev() {
                scratch.put(*id, *leaf);
            }
            prop_assert_eq!(digest.len(), live.len());
            prop_assert_eq!(digest.root(), scratch.root());
        }
    }
}
