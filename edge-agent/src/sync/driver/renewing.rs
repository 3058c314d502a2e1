//! The driver's part of a renewal: starting it when it is due, trying again, and going on under the new identity.

use std::sync::Arc;

use edge_store::Identity;
use face_core::MonoTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wire_contract::claim::SignedTimeError;

use super::super::renewal::{self, RenewalError, Term};
use super::super::{SyncStatus, Timing};
use super::Driver;
use crate::logging::chain;
use crate::sync::backoff::Backoff;
use crate::sync::claim::ClaimError;
use crate::sync::tls::Now;
use crate::sync::transport::Connect;

/// Where the renewal of the certificate stands.
pub(super) struct Renewing {
    term: Option<Term>,
    task: Option<JoinHandle<Result<Identity, RenewalError>>>,
    /// Not before this, after a failure.
    not_before: Option<MonoTime>,
    backoff: Backoff,
}

impl Renewing {
    pub(super) fn new(identity: &Identity, timing: Timing) -> Self {
        Self {
            term: Term::of(identity),
            task: None,
            not_before: None,
            backoff: Backoff::new(timing.renewal_first, timing.renewal_longest),
        }
    }

    pub(super) fn show(&self, status: &watch::Sender<SyncStatus>) {
        let (end, due) = renewal::shown(self.term);
        status.send_modify(|status| {
            status.certificate_expires_at = end;
            status.certificate_renewal_at = due;
        });
    }

    /// The renewal's outcome; never, while none is on its way.
    pub(super) async fn done(&mut self) -> Result<Identity, RenewalError> {
        match &mut self.task {
            Some(task) => {
                let outcome = task.await.expect("a renewal does not panic, and is aborted only after the loop");
                self.task = None;
                outcome
            }
            None => std::future::pending().await,
        }
    }

    /// Whether one is under way, which may write the identity at any moment.
    pub(super) fn is_under_way(&self) -> bool {
        self.task.is_some()
    }

    pub(super) fn abandon(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl<C: Connect> Driver<C> {
    /// Starts the renewal when the certificate's time has come, by a clock that is trusted or by what is known to be past: a
    /// clock that was set years ahead must not make a device ask for certificates.
    pub(super) fn renew_when_due(&mut self) {
        let (now, clock) = (self.now(), &self.sync.clock);
        let wall = clock.wall().trusted().unwrap_or(clock.known_past()).max(self.known_past());
        let due = self.renewing.term.is_some_and(|term| term.due() <= wall);
        let waits = self.renewing.not_before.is_some_and(|at| now < at);
        if !due || waits || self.renewing.task.is_some() {
            return;
        }
        let (identity, state_dir) = (Arc::clone(&self.identity), self.sync.state_dir.clone());
        let (timing, judged) = (self.sync.timing, Now::Of(Arc::clone(&self.sync.clock)));
        tracing::info!(event = "certificate_renewal", "this device asks for its next certificate");
        self.renewing.task =
            Some(tokio::spawn(async move { renewal::renew(&identity, &state_dir, judged, timing).await }));
    }

    fn known_past(&self) -> time::OffsetDateTime {
        time::OffsetDateTime::from_unix_timestamp(self.identity.signed_time).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    }

    pub(super) fn on_renewed(&mut self, renewed: Result<Identity, RenewalError>) {
        let now = self.now();
        match renewed {
            Ok(identity) => {
                self.renewing = Renewing::new(&identity, self.sync.timing);
                // A clock that is years ahead finds the next certificate due as well; it is not asked for without end.
                self.renewing.not_before = Some(now + self.sync.timing.renewal_longest);
                self.renewing.show(&self.status);
                self.identity = Arc::new(identity);
                self.learning.kept();
                let until = self.status.borrow().certificate_expires_at;
                tracing::info!(
                    event = "certificate_renewed",
                    until = until.map(|at| at.to_string()),
                    "this device has its next certificate"
                );
                // The first call under the new certificate ends the old one at the hub and brings new link keys, with
                // which the line is opened anew.
                self.linking.plan(now);
            }
            Err(error) => {
                if let RenewalError::Answer(ClaimError::Time(SignedTimeError::UnknownKey { found })) = &error {
                    self.unknown_key(*found);
                }
                let wait = self.renewing.backoff.next(rand::random());
                self.renewing.not_before = Some(now + wait);
                let clock = &self.sync.clock;
                let wall = clock.wall().trusted().unwrap_or(clock.known_past());
                if self.renewing.term.is_some_and(|term| term.is_late(wall)) {
                    let end = self.renewing.term.map(|term| term.end().to_string());
                    tracing::error!(
                        event = "certificate_not_renewed",
                        alarm = true,
                        end,
                        error = chain(&error),
                        "the certificate nears its end, or has passed it, and cannot be renewed; without one the hub hears nothing of this door. After thirty days only a new claim helps: edge-agent claim"
                    );
                }
                self.trouble("certificate_not_renewed", &error);
            }
        }
    }
}
