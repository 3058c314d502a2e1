//! What a gallery is, on both ends of the wire: its log, its root hash and the seal that hides it.
//!
//! In: bytes and keys that the programs fetched or stored. Out: sealed bytes, checked [`Record`]s, and the
//! [`Root`] that proves that hub and edge hold the same people.
//!
//! Where to start: [`record`] is one entry of the log, [`log`] says which entry may follow which (and, where two logs came
//! apart, how one becomes the other), [`digest`] turns the live entries into one hash and says which buckets of two galleries
//! differ, [`snapshot`] how a whole gallery is cut into chunks, [`body`] is what an entry says, [`seal`] is the one way in which Lintel encrypts, and [`keys`] makes and derives
//! the keys for it. All of it is specified in `docs/protocol.md`.
//!
//! Deliberately absent: files, sockets, clocks, async, JSON, and any crate of ours. The only outside effect is reading
//! random bytes from the operating system for nonces and new keys.

pub mod body;
pub mod digest;
pub mod ids;
pub mod keys;
mod lengths;
pub mod log;
pub mod record;
pub mod seal;
pub mod snapshot;

pub use body::{
    AnchorBody, Body, BodyError, CredentialBody, CredentialKind, PersonBody, PersonState, RuleBody, RuleKind,
    TemplateBody,
};
pub use digest::{Digest, Leaf, Root};
pub use ids::{GalleryId, RecordId, TenantId};
pub use keys::DigestKey;
pub use log::{AppendError, Log, ReplaceError, RootMismatch, Whole};
pub use record::{Kind, Op, Record, RecordError};
pub use seal::{KeyId, Purpose, SealContext, SealError, SealKey, SnapshotPlace, TemplateRow};
