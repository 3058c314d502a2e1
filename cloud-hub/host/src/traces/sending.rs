//! From the queue to the receiver: batches, another try, and the end.
//!
//! A batch that is not taken is tried again after a pause that grows; meanwhile the queue fills. So a receiver that is away for some
//! seconds misses nothing, one that is away for longer misses what is above the bounds, and when it is back spans go on within
//! [`MAX_PAUSE`] at the most. The log says so once in a while; the metric has the numbers.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Request;
use super::otlp::{NotTaken, Receiver};
use crate::chain::chain;
use crate::metrics::traces as measured;

/// Requests in one batch: with all their parts about a megabyte, a twentieth of what a collector takes at once.
const BATCH: usize = 256;
/// After the first of a batch it is waited so long for others.
const GATHER: Duration = Duration::from_secs(1);
/// After a batch that was not taken.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Then a batch is dropped: it may be what the receiver stumbles over.
const MAX_ATTEMPTS: usize = 5;
/// Warnings are so far apart at least.
const WARN_EVERY: Duration = Duration::from_secs(600);
/// At the end, for what still waits: less than tasks get that were told to stop.
const FLUSH_WITHIN: Duration = Duration::from_millis(800);

/// Sends spans.
pub struct Sending {
    inbox: mpsc::Receiver<Request>,
    receiver: Receiver,
    batch: Vec<Request>,
    pause: Duration,
    warned: Option<Instant>,
    /// It was said that spans are not taken, and not yet that they are again.
    in_trouble: bool,
}

impl Sending {
    pub(super) fn new(inbox: mpsc::Receiver<Request>, receiver: Receiver) -> Self {
        Self { inbox, receiver, batch: Vec::new(), pause: FIRST_PAUSE, warned: None, in_trouble: false }
    }

    /// Until `stop`, and then what still waits, each batch once.
    pub async fn run(mut self, stop: CancellationToken) {
        let over = async {
            stop.cancelled().await;
            sleep(FLUSH_WITHIN).await;
        };
        tokio::select! {
            () = self.work(&stop) => {}
            () = over => {}
        }
        self.inbox.close();
        while let Ok(request) = self.inbox.try_recv() {
            self.batch.push(request);
        }
        let left = spans(&self.batch);
        if left > 0 {
            measured::dropped(left);
            tracing::warn!(event = "spans_lost", spans = left, "the hub stops, and nobody has taken its last spans");
        }
    }

    async fn work(&mut self, stop: &CancellationToken) {
        loop {
            self.gather(stop).await;
            if self.batch.is_empty() || !self.deliver(stop).await {
                return;
            }
        }
    }

    /// Waits for spans, and then a little for more. At the end it takes what there is; nothing, if nothing waits any more.
    async fn gather(&mut self, stop: &CancellationToken) {
        let mut until = None;
        while self.batch.len() < BATCH {
            let room = BATCH - self.batch.len();
            tokio::select! {
                biased;
                came = self.inbox.recv_many(&mut self.batch, room) => {
                    if came == 0 {
                        // Nobody is left who could send.
                        return stop.cancelled().await;
                    }
                    until.get_or_insert_with(|| Instant::now() + GATHER);
                }
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return,
            }
        }
    }

    /// Sends the batch, again and again if need be. Says whether to go on: not if it was told to stop and the receiver is away.
    async fn deliver(&mut self, stop: &CancellationToken) -> bool {
        let spans = spans(&self.batch);
        for attempt in 1..=MAX_ATTEMPTS {
            let Err(error) = self.receiver.send(&self.batch).await else {
                measured::sent(spans);
                self.batch.clear();
                self.well();
                return true;
            };
            self.trouble(&error);
            if !error.may_pass() || attempt == MAX_ATTEMPTS {
                break;
            }
            if stop.is_cancelled() {
                return false;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(self.pause) => {}
            }
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        }
        measured::dropped(spans);
        self.batch.clear();
        true
    }

    fn well(&mut self) {
        self.pause = FIRST_PAUSE;
        if std::mem::take(&mut self.in_trouble) {
            tracing::info!(event = "spans_taken_again", "the receiver of [traces] takes spans again");
        }
    }

    fn trouble(&mut self, error: &NotTaken) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            self.in_trouble = true;
            tracing::warn!(
                event = "spans_not_taken",
                cause = %chain(error),
                "the receiver of [traces] does not take spans: they are tried again for a while, then dropped; no request waits"
            );
        }
    }
}

fn spans(requests: &[Request]) -> u64 {
    requests.iter().map(Request::spans).sum()
}
