//! Which batch goes out next: a pure machine over sequences and times.
//!
//! In: what was recorded, what was sent, what the hub acknowledged, when the line came and went, and that nobody listened
//! at the broker. Out: the sequence after which to read the outbox, when something may be sent. The driver reads the
//! outbox and publishes.
//!
//! The rules (protocol.md): at most four batches on their way; from `through + 1` on connect, on a rewind, when the hub
//! announces itself (at each of its own connections it says again what it has committed: what was on its way may be
//! lost), and after ten seconds without progress. The hub answers each batch once, or several with one answer, so an answer that
//! says nothing new is an announcement, unless batches were sent twice and owe one.
//!
//! A fleet that comes back sends all at once, and the hub needs its time. So the first batch of a connection goes alone, and four
//! go only while the hub answers within a second: a thousand devices then have a thousand batches at the broker and not four
//! thousand. And a hub that has just shown that it needs eight seconds is not asked again after ten.
//! Public for whoever plays the line by seed (the fault lab).
//! Sending twice is always safe: the hub knows (stream, sequence). Deliberately absent: events, topics, keys.

use std::collections::VecDeque;
use std::time::Duration;

use face_core::MonoTime;
use wire_contract::batch::MAX_BATCHES_IN_FLIGHT;

/// A working hub answers a batch within this. An answer that says nothing new and comes later than that is taken for an
/// announcement even while answers to repeated batches are owed.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Patience with a slow hub grows to this many times the usual one.
const MOST_PATIENCE: u32 = 8;

#[derive(Debug, Clone, Copy)]
struct Flight {
    last: u64,
    sent_at: MonoTime,
}

/// Where one stream stands.
#[derive(Debug, Clone)]
pub struct Sender {
    timeout: Duration,
    /// How long the hub may say nothing now.
    patience: Duration,
    /// Batches that may be on their way now.
    window: usize,
    connected: bool,
    /// Everything up to here is committed at the hub.
    acknowledged: u64,
    /// Everything up to here was sent on this connection.
    sent: u64,
    in_flight: VecDeque<Flight>,
    progress_at: MonoTime,
    /// Answers that may still come for batches of this connection that were sent again: they will say nothing new, and
    /// must not cause more repetitions.
    owed: usize,
    /// The broker had nobody to give a batch to: the next word of the hub means that it is back, without that batch.
    unheard: bool,
    /// The last rewind, so that one hole answered four times makes one repetition.
    rewound: Option<(u64, MonoTime)>,
}

/// Why everything unacknowledged is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// The hub has a hole before a batch.
    Rewind,
    /// The hub announced itself: what was on its way to it may be lost.
    HubAnnounced,
    /// No word for too long.
    Timeout,
}

impl Sender {
    /// Nothing is on its way; everything up to `acknowledged` is committed. `timeout` is how long the hub may say nothing.
    #[must_use]
    pub fn new(acknowledged: u64, timeout: Duration) -> Self {
        Self {
            timeout,
            patience: timeout,
            window: 1,
            connected: false,
            acknowledged,
            sent: acknowledged,
            in_flight: VecDeque::new(),
            progress_at: MonoTime::START,
            owed: 0,
            unheard: false,
            rewound: None,
        }
    }

    /// The line is up: whatever was on its way on the last one may be lost.
    pub fn connected(&mut self, now: MonoTime) {
        self.connected = true;
        self.forget(now);
    }

    /// The line is down.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// The outbox begins a new stream, or was set to `acknowledged` by a restored hub.
    pub fn reset(&mut self, acknowledged: u64, now: MonoTime) {
        self.acknowledged = acknowledged;
        self.forget(now);
    }

    /// The sequence after which to read the next batch, if one may be sent now and `recorded` has more.
    #[must_use]
    pub fn next(&self, recorded: u64) -> Option<u64> {
        let room = self.connected && self.in_flight.len() < self.window;
        (room && recorded > self.sent).then_some(self.sent)
    }

    /// A batch through `last` is on its way.
    pub fn sent(&mut self, last: u64, now: MonoTime) {
        if self.in_flight.is_empty() {
            self.progress_at = now;
        }
        self.sent = self.sent.max(last);
        self.in_flight.push_back(Flight { last, sent_at: now });
    }

    /// The broker took a batch that nobody listened for.
    pub fn unheard(&mut self) {
        self.unheard = true;
    }

    /// The hub has committed everything through `through`. Says so when it means that batches must be repeated.
    pub fn acknowledged(&mut self, through: u64, now: MonoTime) -> Option<Resend> {
        let back = std::mem::take(&mut self.unheard);
        let progress = self.advance(through, now);
        let Some(oldest) = self.in_flight.front() else {
            self.owed = self.owed.saturating_sub(usize::from(!progress));
            return None;
        };
        let late = now.since(oldest.sent_at) >= ANSWER_TIME;
        if !back && (progress || through < self.acknowledged) {
            return None;
        }
        if !back && !late && self.owed > 0 {
            self.owed -= 1;
            return None;
        }
        self.start_over(now);
        if back {
            // The broker threw them away: nobody will answer them.
            self.owed = 0;
        }
        Some(Resend::HubAnnounced)
    }

    /// The hub has a hole after `through`.
    pub fn rewind(&mut self, through: u64, now: MonoTime) -> Option<Resend> {
        self.unheard = false;
        self.advance(through, now);
        let repeated = self.rewound.is_some_and(|(to, at)| to == through && now.since(at) < ANSWER_TIME);
        if repeated || self.sent <= self.acknowledged {
            return None;
        }
        self.rewound = Some((through, now));
        self.start_over(now);
        Some(Resend::Rewind)
    }

    /// Looks at the time.
    pub fn tick(&mut self, now: MonoTime) -> Option<Resend> {
        if !self.connected || self.in_flight.is_empty() || now.since(self.progress_at) < self.patience {
            return None;
        }
        self.start_over(now);
        self.window = 1;
        self.patience = (self.patience * 2).min(self.timeout * MOST_PATIENCE);
        // A hub that has not said a word for so long will not answer them any more.
        self.owed = 0;
        Some(Resend::Timeout)
    }

    /// Takes progress in; false when `through` says nothing new.
    fn advance(&mut self, through: u64, now: MonoTime) -> bool {
        if through <= self.acknowledged {
            return false;
        }
        self.acknowledged = through;
        self.sent = self.sent.max(through);
        if let Some(first) = self.in_flight.front().filter(|flight| flight.last <= through) {
            self.learn(now.since(first.sent_at));
        }
        self.in_flight.retain(|flight| flight.last > through);
        self.progress_at = now;
        true
    }

    /// The hub answered a batch after so long. Patience shrinks by halves: an answer may be that to an earlier copy of the batch.
    fn learn(&mut self, took: Duration) {
        self.window = if took < ANSWER_TIME { MAX_BATCHES_IN_FLIGHT } else { 1 };
        self.patience = (took * 2).max(self.patience / 2).clamp(self.timeout, self.timeout * MOST_PATIENCE);
    }

    /// Sends again what is not acknowledged. Each batch that is still on its way will be answered besides, at most once.
    fn start_over(&mut self, now: MonoTime) {
        self.owed = self.in_flight.len();
        self.sent = self.acknowledged;
        self.in_flight.clear();
        self.progress_at = now;
    }

    /// Begins anew, where no answer to anything that was sent before is waited for.
    fn forget(&mut self, now: MonoTime) {
        self.start_over(now);
        self.window = 1;
        self.patience = self.timeout;
        self.rewound = None;
        self.owed = 0;
        self.unheard = false;
    }
}

#[cfg(test)]
mod tests;
