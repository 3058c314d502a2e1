//! The driver's part of the clock: asking the hub for the time when nothing else vouches for it, and passing on what the
//! hub says on other occasions.

use std::sync::Arc;

use face_core::MonoTime;
use tokio::task::JoinHandle;
use wire_contract::hub_time::HubTimeError;
use wire_contract::{Succession, Timestamp};

use super::super::Timing;
use super::super::hub_time::{self, TellError};
use super::Driver;
use crate::clock::TimeRefused;
use crate::logging::chain;
use crate::sync::backoff::Backoff;
use crate::sync::transport::Connect;

/// Where the question for the time stands.
pub(super) struct Telling {
    task: Option<JoinHandle<Result<Vec<Succession>, TellError>>>,
    /// Not before this, after a failure.
    not_before: Option<MonoTime>,
    backoff: Backoff,
    /// Whether a question of this run has had its outcome.
    asked: bool,
}

impl Telling {
    pub(super) fn new(timing: Timing) -> Self {
        let backoff = Backoff::new(timing.backoff_first, timing.backoff_longest);
        Self { task: None, not_before: None, backoff, asked: false }
    }

    /// The outcome of a question; never, while there is none.
    pub(super) async fn done(&mut self) -> Result<Vec<Succession>, TellError> {
        match &mut self.task {
            Some(task) => {
                let outcome = task.await.expect("asking does not panic, and is aborted only after the loop");
                self.task = None;
                outcome
            }
            None => std::future::pending().await,
        }
    }

    /// Whether the first question of this run is still under way: whatever judges a certificate waits for it, since it
    /// cannot judge without the time. When it has failed, the rest goes on by what is known to be past.
    pub(super) fn first_is_under_way(&self) -> bool {
        self.task.is_some() && !self.asked
    }

    pub(super) fn abandon(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl<C: Connect> Driver<C> {
    /// Asks for the time while nobody vouches for the clock. A line that is up brings it by itself.
    pub(super) fn ask_when_untrusted(&mut self) {
        let now = self.now();
        let waits = self.telling.not_before.is_some_and(|at| now < at) || self.telling.task.is_some();
        if waits || self.status.borrow().connected || self.sync.clock.wall().trusted().is_some() {
            return;
        }
        let (identity, clock, limit) =
            (Arc::clone(&self.identity), Arc::clone(&self.sync.clock), self.sync.timing.connect_timeout);
        tracing::info!(
            event = "clock_untrusted",
            "nothing vouches for this device's clock; the hub is asked for the time"
        );
        self.telling.task = Some(tokio::spawn(async move { hub_time::learn(&identity, &clock, limit).await }));
    }

    pub(super) async fn on_told(&mut self, told: Result<Vec<Succession>, TellError>) {
        self.telling.asked = true;
        match told {
            Ok(successions) => {
                self.telling.backoff.reset();
                self.telling.not_before = None;
                self.learn(&successions).await;
            }
            Err(error) => {
                self.telling.not_before = Some(self.now() + self.telling.backoff.next(rand::random()));
                match &error {
                    TellError::Refused(refused) => alarm(refused),
                    TellError::Answer(HubTimeError::UnknownKey { found }) => self.unknown_key(*found),
                    _ => {}
                }
                self.trouble("time_not_learned", &error);
            }
        }
    }

    /// Passes on what the hub said, sealed or signed for a question of `asked`.
    pub(super) fn hub_said(&self, at: Timestamp, asked: MonoTime) {
        if let Err(refused) = self.sync.clock.hub_said(at.to_offset_date_time(), asked) {
            alarm(&refused);
        }
    }
}

fn alarm(refused: &TimeRefused) {
    match refused {
        TimeRefused::Slow { .. } => tracing::debug!(event = "hub_time_late", error = %refused, "not taken"),
        TimeRefused::BelowFloor { .. } => tracing::error!(
            event = "hub_time_below_floor",
            alarm = true,
            error = chain(refused),
            "the hub's time is not taken"
        ),
    }
}
