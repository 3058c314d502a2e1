//! The driver's part of the link: when its keys are fetched, and taking them in.

use std::sync::Arc;
use std::time::Duration;

use edge_store::Identity;
use face_core::MonoTime;
use tokio::task::JoinHandle;
use url::Url;
use uuid::Uuid;
use wire_contract::claim::SignedTimeError;
use wire_contract::{LinkAnswer, Timestamp};

use super::super::link::{self, LinkError, LinkRing};
use super::super::tls::{self, Now};
use super::super::{Timing, TlsError};
use super::{Connection, Driver, blocking};
use crate::clock::SharedClock;
use crate::sync::backoff::Backoff;
use crate::sync::https::{HttpsError, Hub};
use crate::sync::transport::Connect;

/// Between two fetches of the link that the hub's own messages ask for.
const LINK_SPACING: Duration = Duration::from_secs(10);

/// Why the link could not be fetched or taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("hub address {found} is not a URL; claim the device again")]
    Address {
        found: String,
        #[source]
        source: url::ParseError,
    },
    #[error(transparent)]
    Https(#[from] HttpsError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl FetchError {
    /// The hub's own code, when it refused.
    pub(super) fn code(&self) -> Option<wire_contract::Code> {
        match self {
            Self::Https(HttpsError::Refused { code, .. }) => Some(*code),
            _ => None,
        }
    }
}

/// A link answer on its way in.
pub(super) struct Fetched {
    answer: LinkAnswer,
    /// What the time in it must be signed for.
    nonce: Uuid,
    asked: MonoTime,
    answered: MonoTime,
}

/// Where fetching the link stands.
pub(super) struct Linking {
    task: Option<JoinHandle<Result<Fetched, FetchError>>>,
    /// When it is to be fetched; none when there is no reason to.
    due: Option<MonoTime>,
    backoff: Backoff,
    last: Option<MonoTime>,
}

impl Linking {
    /// Due at once.
    pub(super) fn new(timing: Timing, now: MonoTime) -> Self {
        let backoff = Backoff::new(timing.backoff_first, timing.backoff_longest);
        Self { task: None, due: Some(now), backoff, last: None }
    }

    /// The outcome of a fetch; never, while there is none.
    pub(super) async fn done(&mut self) -> Result<Fetched, FetchError> {
        match &mut self.task {
            Some(task) => {
                let outcome = task.await.expect("fetching does not panic, and is aborted only after the loop");
                self.task = None;
                outcome
            }
            None => std::future::pending().await,
        }
    }

    /// Fetches it at `at`, whatever was planned.
    pub(super) fn plan(&mut self, at: MonoTime) {
        self.due = Some(at);
    }

    pub(super) fn abandon(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl<C: Connect> Driver<C> {
    pub(super) async fn load_ring(&mut self) {
        let (sync, identity) = (Arc::clone(&self.sync), Arc::clone(&self.identity));
        let loaded = blocking(move || LinkRing::load(&sync.keys, &identity)).await;
        match loaded {
            Ok(ring) => {
                let epoch = ring.as_ref().map(LinkRing::epoch);
                self.status.send_modify(|status| status.link_epoch = epoch);
                self.ring = ring;
            }
            Err(error) => self.trouble("link_keys_unreadable", &error),
        }
    }

    pub(super) fn fetch_link_when_due(&mut self) {
        let now = self.now();
        if self.linking.task.is_some() || self.linking.due.is_none_or(|at| at > now) {
            return;
        }
        self.linking.due = None;
        let (identity, clock) = (Arc::clone(&self.identity), Arc::clone(&self.sync.clock));
        self.linking.task = Some(tokio::spawn(fetch(identity, clock, self.sync.timing.connect_timeout)));
    }

    /// Asks for the link soon, however often the hub's messages say that it is needed.
    pub(super) fn want_link(&mut self) {
        let earliest = self.linking.last.map_or(self.now(), |last| last + LINK_SPACING);
        self.linking.due = Some(self.linking.due.map_or(earliest, |at| at.min(earliest)));
    }

    pub(super) async fn on_link(&mut self, fetched: Result<Fetched, FetchError>) {
        self.linking.last = Some(self.now());
        let taken = match fetched {
            Ok(fetched) => self.take_in(fetched).await.map_err(FetchError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            if let FetchError::Link(LinkError::Time(SignedTimeError::UnknownKey { found })) = &error {
                self.unknown_key(*found);
            }
            self.linking.due = Some(self.now() + self.linking.backoff.next(rand::random()));
            self.trouble("link_not_fetched", &error);
            return;
        }
        self.linking.backoff.reset();
        let before = self.ring.as_ref().map(LinkRing::epoch);
        self.load_ring().await;
        let after = self.ring.as_ref().map(LinkRing::epoch);
        tracing::info!(event = "link_fetched", link_epoch = after, "link and gallery keys are up to date");
        if before != after && before.is_some() && !matches!(self.connection, Connection::Down(_)) {
            // The will on the broker carries the old epoch; a new connection leaves a new one.
            self.hang_up(self.now());
        }
        self.reports.changed(self.now());
    }

    async fn take_in(&mut self, fetched: Fetched) -> Result<(), LinkError> {
        let Fetched { answer, nonce, asked, answered } = fetched;
        self.learn(&answer.successions).await;
        let (sync, identity, at) = (Arc::clone(&self.sync), Arc::clone(&self.identity), answer.server_time.at);
        let taken = blocking(move || link::take_in(&answer, nonce, &identity, &sync.keys, &sync.galleries)).await;
        if !matches!(taken, Err(LinkError::Time(_))) {
            // Opening a gallery may have taken a while; the hub spoke before that.
            let since = self.now().since(answered);
            self.hub_said(later(at, since), asked + since);
        }
        if taken.is_ok() {
            self.in_contact(at);
        }
        taken
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_unix_ms(at.unix_ms().saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

async fn fetch(identity: Arc<Identity>, clock: SharedClock, timeout: Duration) -> Result<Fetched, FetchError> {
    let hub = hub_of(&identity, &clock, timeout)?;
    let (nonce, asked) = (Uuid::new_v4(), clock.now());
    let answer = hub.link(nonce).await?;
    Ok(Fetched { answer, nonce, asked, answered: clock.now() })
}

/// The hub's HTTPS calls, with this device's certificate, the hub's judged by the agent's clock.
pub(super) fn hub_of(identity: &Identity, clock: &SharedClock, timeout: Duration) -> Result<Hub, FetchError> {
    let found = &identity.hub_url;
    let base: Url = found.parse().map_err(|source| FetchError::Address { found: found.clone(), source })?;
    Ok(Hub::new(tls::mutual(identity, Now::Of(Arc::clone(clock)))?, base, timeout)?)
}
