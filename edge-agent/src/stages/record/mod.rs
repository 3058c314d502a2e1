//! From what happened to an event on disk.
//!
//! In: [`Happening`]s of all stages. Out: CloudEvents in the outbox, each fsynced before it counts as recorded. One
//! thread ([`driver`]) writes; [`event`] is the pure translation into the wire contract. Deliberately absent: sending
//! (sync), and any name, picture or vector of a person.
//!
//! Channel: bounded at [`HAPPENINGS`]. Full means that the disk is behind. What must be kept waits at its sender, which
//! goes on working its door meanwhile; what may be shed is counted, and the count becomes a `system.gap` event.

mod driver;
mod event;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use edge_store::Replaced;
use face_core::{MonoTime, TrackId};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::stages::decide::DoorEvent;

pub use driver::{Record, run};
pub use event::{Origin, Told, data_of, denial_code, quality_code};

/// Happenings that may wait for the disk.
pub const HAPPENINGS: usize = 256;

/// Something that goes on record.
#[derive(Debug, Clone)]
pub enum Happening {
    /// At a door.
    Door {
        /// The door's id.
        door: Arc<str>,
        /// Its camera's id.
        camera: Arc<str>,
        /// What.
        event: DoorEvent,
        /// When.
        at: MonoTime,
    },
    /// A face that was not there before.
    FaceAppeared {
        /// The camera's id.
        camera: Arc<str>,
        /// The face's track.
        track: TrackId,
        /// Capture time.
        at: MonoTime,
    },
    /// A camera gives no frames.
    CameraStalled {
        /// The camera's id.
        camera: Arc<str>,
        /// Age of the newest frame; none when there never was one.
        frame_age: Option<Duration>,
        /// Why, in capture's words.
        detail: String,
        /// When it was noticed.
        at: MonoTime,
    },
    /// A camera gives frames again.
    CameraRecovered {
        /// The camera's id.
        camera: Arc<str>,
        /// How long there were none.
        outage: Duration,
        /// When.
        at: MonoTime,
    },
    /// The agent has started.
    SystemStarted {
        /// When.
        at: MonoTime,
    },
    /// A new stream had to begin: what waited in the one before never reaches the hub.
    StreamRenewed {
        /// When the oldest of it was recorded, as far as that is known.
        from: OffsetDateTime,
        /// When the new stream began.
        until: OffsetDateTime,
        /// How many the hub may lack at most; 0 when nothing tells.
        count: u64,
        /// When the new stream began.
        at: MonoTime,
    },
    /// A gallery was thrown away and is fetched anew.
    GalleryRebuilt {
        /// The gallery.
        gallery: Uuid,
        /// Its epoch.
        epoch: u32,
        /// Why.
        code: wire_contract::Code,
        /// When.
        at: MonoTime,
    },
    /// A gallery differed from the hub's, and the buckets that did were replaced.
    GalleryHealed {
        /// The gallery.
        gallery: Uuid,
        /// Its epoch.
        epoch: u32,
        /// Its version since.
        version: u64,
        /// How many buckets were replaced.
        buckets: u32,
        /// What that changed.
        replaced: Replaced,
        /// When.
        at: MonoTime,
    },
    /// A snapshot of a gallery was not what the hub signed, and was refused.
    SnapshotRefused {
        /// The gallery.
        gallery: Uuid,
        /// The epoch that was offered.
        epoch: u32,
        /// The version that was offered.
        version: u64,
        /// Why.
        code: wire_contract::Code,
        /// When.
        at: MonoTime,
    },
    /// Something was said of a gallery for an older epoch than it has, and was refused.
    OlderEpochOffered {
        /// The gallery.
        gallery: Uuid,
        /// The epoch that was named.
        offered: u32,
        /// The gallery's own.
        held: u32,
        /// When.
        at: MonoTime,
    },
    /// An operator's command had its last word.
    CommandSettled {
        /// The command.
        command: wire_contract::CommandId,
        /// What was ordered.
        order: wire_contract::Order,
        /// What became of it.
        state: wire_contract::CommandState,
        /// Why, when it did not succeed.
        code: Option<wire_contract::Code>,
        /// When.
        at: MonoTime,
    },
}

impl Happening {
    /// When it happened.
    #[must_use]
    pub fn at(&self) -> MonoTime {
        match self {
            Self::Door { at, .. }
            | Self::FaceAppeared { at, .. }
            | Self::CameraStalled { at, .. }
            | Self::CameraRecovered { at, .. }
            | Self::SystemStarted { at }
            | Self::StreamRenewed { at, .. }
            | Self::GalleryRebuilt { at, .. }
            | Self::GalleryHealed { at, .. }
            | Self::OlderEpochOffered { at, .. }
            | Self::SnapshotRefused { at, .. }
            | Self::CommandSettled { at, .. } => *at,
        }
    }

    /// Whether it is kept even when room runs out: who was let in or refused, what the relay did, and what became of the
    /// galleries by which that was decided.
    #[must_use]
    pub fn must_keep(&self) -> bool {
        matches!(
            self,
            Self::Door { .. }
                | Self::StreamRenewed { .. }
                | Self::GalleryRebuilt { .. }
                | Self::GalleryHealed { .. }
                | Self::OlderEpochOffered { .. }
                | Self::SnapshotRefused { .. }
                | Self::CommandSettled { .. }
        )
    }
}

/// What travels in the channel.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "256 places of 208 bytes are less trouble than a box for each event")]
pub enum Message {
    /// To be recorded.
    Happened(Happening),
    /// Nothing more is accepted; what was handed over before is still recorded.
    Close,
}

/// How recording stands, seen by every stage.
#[derive(Debug, Default)]
pub struct RecordHealth {
    failing: AtomicBool,
    writing: AtomicBool,
    recorded: AtomicU64,
    shed: AtomicU64,
}

impl RecordHealth {
    /// Whether the last write succeeded.
    #[must_use]
    pub fn recording(&self) -> bool {
        !self.failing.load(Ordering::Acquire)
    }

    /// Events recorded since the start.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Events shed since the start.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }
}

/// A place in the channel.
#[derive(Debug)]
pub struct Room(mpsc::OwnedPermit<Message>);

impl Room {
    /// Uses it.
    pub fn record(self, happening: Happening) {
        self.0.send(Message::Happened(happening));
    }
}

/// The stages' end of the channel.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Message>,
    health: Arc<RecordHealth>,
}

impl Recorder {
    /// A channel to the record thread.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(HAPPENINGS);
        (Self { sender, health: Arc::default() }, receiver)
    }

    /// Waits for room. The happening is on its way when this returns, not yet on disk.
    pub async fn record(&self, happening: Happening) {
        if self.sender.send(Message::Happened(happening)).await.is_err() {
            tracing::error!(event = "record_after_stop", "an event came after recording had stopped");
        }
    }

    /// Room for one happening, for senders that must go on working meanwhile; none when recording has stopped.
    pub async fn reserve(&self) -> Option<Room> {
        self.sender.clone().reserve_owned().await.ok().map(Room)
    }

    /// Ends recording once everything handed over so far is written. Later happenings are refused with a log line.
    pub async fn close(&self) {
        // An error means that it has ended already.
        let _ = self.sender.send(Message::Close).await;
    }

    /// Whether nothing waits and nothing is being written.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.sender.capacity() == HAPPENINGS && !self.health.writing.load(Ordering::Acquire)
    }

    /// Hands over what may be shed. When the channel is full it is counted instead.
    pub fn try_record(&self, happening: Happening) {
        if self.sender.try_send(Message::Happened(happening)).is_err() {
            self.health.shed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How recording stands.
    #[must_use]
    pub fn health(&self) -> Arc<RecordHealth> {
        Arc::clone(&self.health)
    }
}
