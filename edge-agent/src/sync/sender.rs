//! Which batch goes out next: a pure machine over sequences and times.
//!
//! In: what was recorded, what was sent, what the hub acknowledged, when the line came and went. Out: the sequence after
//! which to read the outbox, when something may be sent. The driver reads the outbox and publishes.
//!
//! The rules (protocol.md): at most four batches on their way; from `through + 1` on connect, on a rewind, when the hub
//! says again what it said before (it restarted and lost what was on its way), and after ten seconds without progress.
//! Sending twice is always safe: the hub knows (stream, sequence). Deliberately absent: events, topics, keys.

use std::collections::VecDeque;
use std::time::Duration;

use face_core::MonoTime;
use wire_contract::batch::MAX_BATCHES_IN_FLIGHT;

/// An acknowledgement that says nothing new is taken for a restarted hub only when the oldest batch is on its way for
/// longer than this: a working hub answers within it, and its answers to repeated batches must not cause more of them.
const RESTART_SUSPICION: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Flight {
    last: u64,
    sent_at: MonoTime,
}

/// Where one stream stands.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    timeout: Duration,
    connected: bool,
    /// Everything up to here is committed at the hub.
    acknowledged: u64,
    /// Everything up to here was sent on this connection.
    sent: u64,
    in_flight: VecDeque<Flight>,
    progress_at: MonoTime,
    /// The last rewind, so that one hole answered four times makes one repetition.
    rewound: Option<(u64, MonoTime)>,
}

/// Why everything unacknowledged is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resend {
    /// The hub has a hole before a batch.
    Rewind,
    /// The hub said again what it had said before.
    HubRestarted,
    /// No word for too long.
    Timeout,
}

impl Sender {
    pub(super) fn new(acknowledged: u64, timeout: Duration) -> Self {
        Self {
            timeout,
            connected: false,
            acknowledged,
            sent: acknowledged,
            in_flight: VecDeque::new(),
            progress_at: MonoTime::START,
            rewound: None,
        }
    }

    /// The line is up: whatever was on its way on the last one may be lost.
    pub(super) fn connected(&mut self, now: MonoTime) {
        self.connected = true;
        self.rewound = None;
        self.start_over(now);
    }

    /// The line is down.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
    }

    /// The outbox begins a new stream, or was set to `acknowledged` by a restored hub.
    pub(super) fn reset(&mut self, acknowledged: u64, now: MonoTime) {
        self.acknowledged = acknowledged;
        self.rewound = None;
        self.start_over(now);
    }

    /// The sequence after which to read the next batch, if one may be sent now and `recorded` has more.
    pub(super) fn next(&self, recorded: u64) -> Option<u64> {
        let room = self.connected && self.in_flight.len() < MAX_BATCHES_IN_FLIGHT;
        (room && recorded > self.sent).then_some(self.sent)
    }

    /// A batch through `last` is on its way.
    pub(super) fn sent(&mut self, last: u64, now: MonoTime) {
        if self.in_flight.is_empty() {
            self.progress_at = now;
        }
        self.sent = self.sent.max(last);
        self.in_flight.push_back(Flight { last, sent_at: now });
    }

    /// The hub has committed everything through `through`. Says so when it means that batches must be repeated.
    pub(super) fn acknowledged(&mut self, through: u64, now: MonoTime) -> Option<Resend> {
        if through > self.acknowledged {
            self.acknowledged = through;
            self.sent = self.sent.max(through);
            self.in_flight.retain(|flight| flight.last > through);
            self.progress_at = now;
            return None;
        }
        let oldest = self.in_flight.front()?;
        let restarted = through == self.acknowledged && now.since(oldest.sent_at) >= RESTART_SUSPICION;
        restarted.then(|| {
            self.start_over(now);
            Resend::HubRestarted
        })
    }

    /// The hub has a hole after `through`.
    pub(super) fn rewind(&mut self, through: u64, now: MonoTime) -> Option<Resend> {
        let progress = self.acknowledged(through, now);
        let repeated = self.rewound.is_some_and(|(to, at)| to == through && now.since(at) < RESTART_SUSPICION);
        if progress.is_some() || repeated || self.sent <= self.acknowledged {
            return progress;
        }
        self.rewound = Some((through, now));
        self.start_over(now);
        Some(Resend::Rewind)
    }

    /// Looks at the time.
    pub(super) fn tick(&mut self, now: MonoTime) -> Option<Resend> {
        if !self.connected || self.in_flight.is_empty() || now.since(self.progress_at) < self.timeout {
            return None;
        }
        self.start_over(now);
        Some(Resend::Timeout)
    }

    fn start_over(&mut self, now: MonoTime) {
        self.sent = self.acknowledged;
        self.in_flight.clear();
        self.progress_at = now;
    }
}

#[cfg(test)]
mod tests;
