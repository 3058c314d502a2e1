//! What the door remembers: its keys, its identity, its gallery and its outbox, on a disk that may lose power at any time.
//!
//! In: directories of the agent's state, log records and event bytes. Out: stores whose answers can be believed, or the
//! reason why not.
//!
//! - [`DeviceKeys`]: one device store key, and every other key wrapped under it.
//! - [`Identity`]: certificate, key, root and addresses from the claim, replaced as a whole.
//! - [`ClockStore`]: what time it is at least, over restarts.
//! - [`GalleryStore`]: the people and templates of one gallery: a sealed sled cache. On any doubt its key is destroyed
//!   and it starts empty; the hub fills it again.
//! - [`PartialSnapshot`]: what has come of a whole gallery that is being fetched.
//! - [`Outbox`]: the only copy of an event until the hub has it: redb, one durable commit before anything is
//!   acknowledged.
//! - [`StateFile`]: what the agent itself must know after a restart: a lock-down, a reboot under way, the twin.
//!
//! Invariants: nothing is acknowledged before it is fsynced; nothing of people lies on disk unsealed; a store that went back in time
//! is noticed by a watermark outside it. Deliberately absent: the network, the clock (times are arguments), what an event
//! or a decision means.

mod clock_mark;
mod contact;
mod files;
mod gallery;
mod identity;
mod keys;
mod outbox;
mod seal;
mod snapshot;
mod state_file;
mod watermark;

pub use clock_mark::{ClockMark, ClockStore, ClockStoreError, ProvenTime};
pub use contact::{Contact, ContactError, ContactFile, ContactFound};
pub use files::FileError;
pub use gallery::{
    Applied, ApplyError, BucketHashes, Contents, Doubt, GalleryError, GalleryStore, Opened as GalleryOpened, Replaced,
    SledError, WholeError,
};
pub use identity::{Broker, HubKey, Identity, IdentityError};
pub use keys::{DeviceKeys, GalleryKeys, KeySource, KeysError, LinkKey, LinkKeys, OutboxKeys};
pub use outbox::{
    Acknowledged, BadStreamId, CorruptPart, Entry, MAX_EVENT_BYTES, Opened as OutboxOpened, Outbox, OutboxError,
    OutboxOptions, OutboxStats, Position, Priority, Renewal as OutboxRenewal, RenewalReason, ShedReason, StreamId,
};
pub use seal::SealingError;
pub use snapshot::PartialSnapshot;
pub use state_file::{StateFile, StateFileError};
pub use watermark::WatermarkError;
