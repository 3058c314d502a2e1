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

use std::collections::BTreeMap;

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
