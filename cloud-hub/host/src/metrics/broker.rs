//! The broker, and what devices send over it.

use super::{Label, Metric, REQUEST_SECONDS};

const CHANNEL: Label =
    Label { name: "channel", values: &["status", "evt", "twin", "gallery", "cmd", "home_assistant", "other"] };

const CONNECTED: Metric = Metric::gauge(
    "lintel_hub_broker_connected",
    "1 while the hub is connected to the broker and subscribed, else 0.",
    &[],
);
const SESSIONS_ENDED: Metric = Metric::counter(
    "lintel_hub_broker_sessions_ended_total",
    "Sessions at the broker that ended; the hub connects again.",
    &[],
);
const RECEIVED: Metric =
    Metric::counter("lintel_hub_broker_messages_received_total", "Messages of devices, by channel.", &[CHANNEL]);
const DROPPED: Metric = Metric::counter(
    "lintel_hub_broker_messages_dropped_total",
    "Messages of devices that were dropped because a queue in the hub was full, by channel.",
    &[CHANNEL],
);
const PUBLISHED: Metric =
    Metric::counter("lintel_hub_broker_messages_published_total", "Messages given to the broker.", &[]);
const ACKNOWLEDGED: Metric = Metric::counter(
    "lintel_hub_broker_acknowledgements_total",
    "What the broker said of messages: taken, taken though nobody reads it (a device that is away), refused.",
    &[Label { name: "outcome", values: &["taken", "for_nobody", "refused"] }],
);
const QUEUE: Metric = Metric::gauge(
    "lintel_hub_broker_outbox_messages",
    "Messages that wait for the connection to the broker; when it is full, producers wait.",
    &[],
);
const BATCHES: Metric = Metric::counter(
    "lintel_hub_ingest_batches_total",
    "Batches of events from devices: committed, rewind (something before them is missing), conflict (another device has used the \
     same sequence), refused (forged or unreadable), failed (the hub's trouble; they come again).",
    &[Label { name: "outcome", values: &["committed", "rewind", "conflict", "refused", "failed"] }],
);
const EVENTS: Metric =
    Metric::counter("lintel_hub_ingest_events_total", "Events from devices that were stored, each once.", &[]);
const DUPLICATES: Metric = Metric::counter(
    "lintel_hub_ingest_duplicates_total",
    "Events from devices that were stored before and came again.",
    &[],
);
const INGEST_QUEUE: Metric = Metric::gauge(
    "lintel_hub_ingest_queue_batches",
    "Batches that wait to be taken in; while it is full, more wait at the broker.",
    &[],
);
const INGEST: Metric = Metric::histogram(
    "lintel_hub_ingest_duration_seconds",
    "Taking in what was waiting together of one tenant, to its acknowledgement.",
    &[],
    REQUEST_SECONDS,
);

pub(super) const METRICS: &[Metric] = &[
    CONNECTED,
    SESSIONS_ENDED,
    RECEIVED,
    DROPPED,
    PUBLISHED,
    ACKNOWLEDGED,
    QUEUE,
    BATCHES,
    EVENTS,
    DUPLICATES,
    INGEST_QUEUE,
    INGEST,
];

/// Words of Home Assistant, which come on no device's channel.
pub const HOME_ASSISTANT: &str = "home_assistant";

/// Whether the hub is connected and subscribed.
pub fn connected(connected: bool) {
    CONNECTED.set(&[], f64::from(u8::from(connected)));
}

/// A session at the broker ended.
pub fn session_ended() {
    SESSIONS_ENDED.count(&[]);
}

/// A message came.
pub fn received(channel: &'static str) {
    RECEIVED.count(&[channel]);
}

/// There was no room for a message.
pub fn dropped(channel: &'static str) {
    DROPPED.count(&[channel]);
}

/// A message was given to the broker.
pub fn published() {
    PUBLISHED.count(&[]);
}

/// What the broker said of a message.
#[derive(Clone, Copy, Debug)]
pub enum Acknowledged {
    /// It has it.
    Taken,
    /// It has it, and nobody reads it.
    ForNobody,
    /// It does not want it.
    Refused,
}

/// The broker said something of a message.
pub fn acknowledged(said: Acknowledged) {
    ACKNOWLEDGED.count(&[match said {
        Acknowledged::Taken => "taken",
        Acknowledged::ForNobody => "for_nobody",
        Acknowledged::Refused => "refused",
    }]);
}

/// Messages that wait for the connection.
pub fn outbox(waiting: usize) {
    QUEUE.set(&[], waiting as f64);
}

/// What became of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Batch {
    /// It is stored.
    Committed {
        /// Events that were new.
        events: usize,
        /// Events that were there before.
        repeated: usize,
    },
    /// Something before it is missing.
    Rewind,
    /// Another device has used its sequences.
    Conflict,
    /// It is none of a device of ours, or can never be stored.
    Refused,
    /// The hub could not.
    Failed,
}

/// A batch was looked at.
pub fn batch(outcome: Batch) {
    BATCHES.count(&[match outcome {
        Batch::Committed { events, repeated } => {
            EVENTS.add(&[], events as u64);
            DUPLICATES.add(&[], repeated as u64);
            "committed"
        }
        Batch::Rewind => "rewind",
        Batch::Conflict => "conflict",
        Batch::Refused => "refused",
        Batch::Failed => "failed",
    }]);
}

/// Batches that wait.
pub fn ingest_queue(waiting: usize) {
    INGEST_QUEUE.set(&[], waiting as f64);
}

/// What was waiting was taken in.
pub fn taken_in(took: std::time::Duration) {
    INGEST.observe(&[], took.as_secs_f64());
}
