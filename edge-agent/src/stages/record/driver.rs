//! The thread that writes events into the outbox.
//!
//! An event counts as recorded when `append` has returned, which is after the fsync. What cannot be written is kept and
//! tried again; meanwhile [`RecordHealth`] says so and each door's policy decides. Nothing is dropped in silence.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use edge_store::{Outbox, OutboxError, Position, Priority};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::{NoContext, Uuid};
use wire_contract::event::{CloudEvent, Meta, SystemGapData};
use wire_contract::topic::EventClass;
use wire_contract::{EventData, EventId, Sequence, StreamId, Timestamp};

use super::event::{Origin, Told, data_of};
use super::{Happening, Message, RecordHealth};
use crate::clock::{SharedClock, WallTime};
use crate::logging::chain;

/// Events written with one fsync, when several wait.
const BATCH: usize = 32;
/// Between attempts while the disk refuses.
const RETRY: Duration = Duration::from_millis(500);

/// What the record thread owns.
pub struct Record {
    /// The store.
    pub outbox: Arc<Outbox>,
    /// `/tenants/…/devices/…`; none while the device has no identity: then there is nobody to record for.
    pub source: Option<String>,
    /// What every event says of the agent.
    pub origin: Origin,
    /// This run of the agent.
    pub run: Uuid,
    /// The clock.
    pub clock: SharedClock,
    /// How recording stands.
    pub health: Arc<RecordHealth>,
    /// The last sequence on disk, for the sender to wake up by.
    pub recorded: watch::Sender<u64>,
    /// Turns of the loop, for the watchdog.
    pub turns: Arc<AtomicU64>,
    /// Ends the attempts on a disk that refuses, when the agent must stop.
    pub give_up: CancellationToken,
}

/// Events shed since the last one that was written.
#[derive(Default)]
struct Gap {
    span: Option<(OffsetDateTime, OffsetDateTime)>,
    count: u64,
    classes: BTreeSet<&'static str>,
}

struct Prepared {
    told: Told,
    wall: WallTime,
    monotonic_ms: u64,
    id: EventId,
    priority: Priority,
}

/// Records until it is closed or every sender is gone. This is what "drain" means at a stop: what was handed over is
/// written.
pub fn run(record: &Record, mut messages: mpsc::Receiver<Message>) {
    let mut gap = Gap::default();
    let mut batch = Vec::new();
    loop {
        record.turns.fetch_add(1, Ordering::Relaxed);
        if messages.blocking_recv_many(&mut batch, BATCH) == 0 {
            return;
        }
        record.health.writing.store(true, Ordering::Release);
        let mut prepared = Vec::new();
        for message in batch.drain(..) {
            match message {
                Message::Happened(happening) => prepared.push(record.prepare(&happening)),
                Message::Close => messages.close(),
            }
        }
        for run in prepared.chunk_by(|a, b| a.priority == b.priority) {
            record.write(run, &mut gap);
        }
        record.health.writing.store(false, Ordering::Release);
    }
}

impl Record {
    fn prepare(&self, happening: &Happening) -> Prepared {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let utc = wall.utc - now.since(happening.at());
        let told = data_of(happening, &self.origin);
        log(&told);
        let priority = if happening.must_keep() { Priority::MustKeep } else { Priority::MayShed };
        Prepared {
            told,
            wall: WallTime { utc, ..wall },
            monotonic_ms: happening.at().as_millis(),
            id: event_id(utc),
            priority,
        }
    }

    /// Writes events of one priority. Returns when they are on disk or may be shed; else it tries again.
    fn write(&self, events: &[Prepared], gap: &mut Gap) {
        let Some(source) = &self.source else { return };
        loop {
            let gap_event = (gap.count > 0).then(|| self.gap_event(gap));
            let all: Vec<&Prepared> = gap_event.iter().chain(events).collect();
            let encoders = all.iter().map(|event| |position: Position| self.encode(source, event, position));
            let now = SystemTime::from(self.clock.wall().utc);
            match self.outbox.append_batch(now, events[0].priority, encoders) {
                Ok(range) => {
                    if gap_event.is_some() {
                        *gap = Gap::default();
                    }
                    self.succeeded(*range.end(), all.len());
                    return;
                }
                Err(OutboxError::Shed { reason }) => {
                    tracing::warn!(event = "events_shed", count = events.len(), reason = %reason, "events of low priority are not recorded");
                    gap.add(events);
                    self.health.shed.fetch_add(events.len() as u64, Ordering::Relaxed);
                    return;
                }
                Err(OutboxError::TooLarge { bytes }) => {
                    tracing::error!(
                        event = "event_too_large",
                        alarm = true,
                        bytes,
                        "an event is longer than can ever be sent"
                    );
                    gap.add(events);
                    return;
                }
                Err(error) => self.failed(&error),
            }
            // Everything behind waits in the channel; the doors go on by their own policy.
            std::thread::sleep(RETRY);
            if self.give_up.is_cancelled() {
                tracing::error!(
                    event = "events_lost_at_stop",
                    alarm = true,
                    count = events.len(),
                    "the disk refused to the end"
                );
                return;
            }
        }
    }

    fn succeeded(&self, last: u64, count: usize) {
        if self.health.failing.swap(false, Ordering::AcqRel) {
            tracing::info!(event = "recording_resumed", "events are recorded again");
        }
        self.health.recorded.fetch_add(count as u64, Ordering::Relaxed);
        self.recorded.send_replace(last);
    }

    fn failed(&self, error: &OutboxError) {
        // A store that says that only a restart helps gets it: without turns the watchdog ends the process.
        if !matches!(error, OutboxError::Failed { .. }) {
            self.turns.fetch_add(1, Ordering::Relaxed);
        }
        if !self.health.failing.swap(true, Ordering::AcqRel) {
            tracing::error!(
                event = "outbox_write_failed",
                alarm = true,
                error = chain(error),
                "events cannot be recorded; doors follow their policy"
            );
        }
    }

    fn encode(&self, source: &str, event: &Prepared, position: Position) -> Vec<u8> {
        let meta = Meta {
            id: event.id,
            source: source.to_owned(),
            subject: event.told.subject.clone(),
            time: Timestamp::from(event.wall.utc),
            stream: StreamId(*position.stream.as_bytes()),
            sequence: Sequence(position.sequence),
            boot: self.run,
            monotonic_ms: event.monotonic_ms,
            clock_quality: event.wall.quality,
        };
        serde_json::to_vec(&CloudEvent::new(meta, &event.told.data)).expect("an event has a JSON form")
    }

    fn gap_event(&self, gap: &Gap) -> Prepared {
        let wall = self.clock.wall();
        let (from, until) = gap.span.unwrap_or((wall.utc, wall.utc));
        let classes = gap.classes.iter().filter_map(|word| EventClass::from_word(word)).collect();
        let data = SystemGapData { from: from.into(), until: until.into(), count: gap.count, classes };
        Prepared {
            told: Told { data: EventData::SystemGap(data), subject: None },
            wall,
            monotonic_ms: self.clock.now().as_millis(),
            id: event_id(wall.utc),
            priority: Priority::MustKeep,
        }
    }
}

impl Gap {
    fn add(&mut self, events: &[Prepared]) {
        for event in events {
            let at = event.wall.utc;
            self.span = Some(self.span.map_or((at, at), |(from, until)| (from.min(at), until.max(at))));
            self.count += 1;
            self.classes.insert(event.told.data.class().as_str());
        }
    }
}

/// A UUIDv7 of this time, so that ids sort as the events happened.
fn event_id(utc: OffsetDateTime) -> EventId {
    let seconds = u64::try_from(utc.unix_timestamp()).unwrap_or(0);
    EventId(Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, utc.nanosecond())))
}

/// Says on the log what is about to be recorded: ids, codes and scores only.
fn log(told: &Told) {
    let data = &told.data;
    match data {
        EventData::AccessGranted(access) => tracing::info!(
            event = "access_granted",
            door = %access.door,
            person = access.person.map(|p| p.to_string()),
            score = access.reason.score.map(wire_contract::Score::get),
            arrival_to_relay_ms = access.timing.arrival_to_relay_ms,
            last_frame_to_relay_ms = access.timing.last_frame_to_relay_ms,
            "the door is opened"
        ),
        EventData::AccessDenied(access) => tracing::info!(
            event = "access_denied",
            door = %access.door,
            reason = access.reason.code.as_str(),
            score = access.reason.score.map(wire_contract::Score::get),
            threshold = access.reason.threshold.map(wire_contract::Score::get),
            "entry is denied"
        ),
        other => tracing::info!(event = "happened", kind = other.kind(), subject = told.subject.as_deref(), "an event"),
    }
}

#[cfg(test)]
mod tests;
