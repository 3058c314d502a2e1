//! The line before the disk: events that wait for the commit that takes them all.
//!
//! A commit costs an fsync, whoever asks for it and however many events it takes. So whoever appends joins the line, where
//! the events get their numbers, and the first who finds the disk free commits for everybody in it; the others find
//! their answer on their [`Ticket`]. Nobody waits for company: an event alone is committed at once.
//!
//! Invariant: the numbers in the line follow the last one on disk without a hole. Therefore a commit that fails fails
//! everything behind it too, and the line is closed until the engine says again where it goes on.
//! Deliberately absent: the disk, and which errors close it.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::types::{OutboxError, Position, StreamId};

/// An event that has its number, but is not on disk.
pub(super) struct Waiting {
    pub(super) at: SystemTime,
    pub(super) event: Vec<u8>,
}

/// What became of a commit, for each of those whose events were in it. Empty until it is known.
pub(super) type Ticket = Arc<OnceLock<Result<(), OutboxError>>>;

/// The events for the next commit.
#[derive(Default)]
pub(super) struct Line {
    /// Where the line goes on; none while it is closed.
    tail: Option<Tail>,
    waiting: Vec<Waiting>,
    ticket: Ticket,
}

struct Tail {
    next: Position,
    /// Bytes kept on disk and waiting, for the quota. Sealing adds a little to each event, which the next commit corrects.
    bytes: u64,
}

/// The events of one commit.
pub(super) struct Group {
    pub(super) waiting: Vec<Waiting>,
    pub(super) ticket: Ticket,
}

impl Line {
    /// Opens the line behind the last event on disk.
    pub(super) fn open(&mut self, stream: StreamId, last: u64, bytes: u64) {
        if self.tail.is_none() {
            self.tail = Some(Tail { next: Position { stream, sequence: last + 1 }, bytes });
        }
    }

    /// The position of the next event, and the bytes kept so far; none while the line is closed.
    pub(super) fn tail(&self) -> Option<(Position, u64)> {
        self.tail.as_ref().map(|tail| (tail.next, tail.bytes))
    }

    /// Puts events, encoded for the positions from [`Line::tail`] on, at the end of the line.
    pub(super) fn join(&mut self, at: SystemTime, events: Vec<Vec<u8>>) -> Ticket {
        if let Some(tail) = &mut self.tail {
            tail.next.sequence += events.len() as u64;
            tail.bytes += events.iter().map(|event| event.len() as u64).sum::<u64>();
            self.waiting.extend(events.into_iter().map(|event| Waiting { at, event }));
        }
        Arc::clone(&self.ticket)
    }

    /// Takes everybody who waits; whoever comes now waits for the next commit.
    pub(super) fn take(&mut self) -> Group {
        Group { waiting: std::mem::take(&mut self.waiting), ticket: std::mem::take(&mut self.ticket) }
    }

    /// Takes everybody who waits and lets nobody join until the line is opened again.
    pub(super) fn close(&mut self) -> Group {
        self.tail = None;
        self.take()
    }

    /// Corrects the bytes kept after a commit.
    pub(super) fn correct(&mut self, on_disk: u64) {
        let waiting: u64 = self.waiting.iter().map(|waiting| waiting.event.len() as u64).sum();
        if let Some(tail) = &mut self.tail {
            tail.bytes = on_disk + waiting;
        }
    }
}
