//! The delivery loop: takes what is due, one task an attempt, writes down how it ended.
//!
//! In: the routing table of due tenants, and wake-ups. Out: attempts. Endpoints are kept apart: one that is being
//! served gets nothing more until its deliveries under way have ended, and one that cannot be reached rests for a while,
//! so a dead endpoint holds a few tasks and nobody else's deliveries. Tenants take turns, and so do the endpoints of each; no tenant
//! holds all tasks of four or more, however long its receivers take. However many attempts end at once, few connections to the database are taken by
//! it. A crash in the middle of an attempt costs the lease's time and no delivery.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;
use wire_contract::webhook::WebhookBody;
use wire_contract::{CloudEvent, DeviceId as WireDevice, TenantId as WireTenant};

use super::client::{Attempt, Message, WebhookClient};
use crate::clock::Clock;
use crate::domain::ids::{EndpointId, TenantId};
use crate::domain::rest::Rests;
use crate::domain::retry::{Next, Outcome, after_attempt};
use crate::domain::trace::Trace;
use crate::keys::{Custody, KeysError};
use crate::metrics::webhooks as measured;
use crate::store::webhooks::{self, Delivery};
use crate::store::{Database, StoreError, routes};

/// Without a wake-up the due list is read this often: wake-ups may be lost, and other hubs may have died.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Two looks are at least this far apart, unless something wakes the loop.
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// After a failed look at the database.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// A lease outlives the attempt's own timeout by this much: reading keys before, then waiting to write the outcome and writing it. An
/// outcome that comes later than that changes nothing if another hub has tried again.
const LEASE_MARGIN: Duration = Duration::from_secs(15);
/// Outcomes that are written down at once: more would hold connections that requests need.
const WRITERS: usize = 6;
/// Of these, of one tenant: they wait for each other in the database.
const WRITERS_OF_A_TENANT: usize = 2;
/// One task in so many is kept from any one tenant; with fewer tasks than this, none is.
const KEPT_FOR_OTHERS: usize = 4;

/// Bounds of the delivery loop.
#[derive(Debug, Clone, Copy)]
pub struct NotifierOptions {
    /// Attempts under way at once.
    pub workers: usize,
    /// Of these, to one endpoint.
    pub per_endpoint: u32,
    /// An attempt's timeout.
    pub timeout: Duration,
}

/// The delivery loop and what it needs.
pub struct Notifier {
    /// The database.
    pub db: Database,
    /// Opens the endpoints' secrets.
    pub custody: Custody,
    /// Sends.
    pub client: WebhookClient,
    /// The time.
    pub clock: Clock,
    /// Bounds.
    pub options: NotifierOptions,
    /// Woken when there are new deliveries.
    pub wake: Arc<Notify>,
}

/// Attempts under way, by endpoint.
struct UnderWay {
    tasks: JoinSet<Ended>,
    by_endpoint: HashMap<EndpointId, (TenantId, usize)>,
    rests: Rests,
    /// Who was served last: the one after them is next.
    served: Option<TenantId>,
    /// Which of each tenant's endpoints was served last.
    served_of: HashMap<TenantId, EndpointId>,
    writers: Writers,
}

/// Who may write an outcome down: first among those of the tenant, then among all.
struct Writers {
    all: Arc<Semaphore>,
    of: HashMap<TenantId, Arc<Semaphore>>,
}

impl Writers {
    fn of(&mut self, tenant: TenantId) -> [Arc<Semaphore>; 2] {
        self.of.retain(|_, writers| Arc::strong_count(writers) > 1);
        let of = self.of.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(WRITERS_OF_A_TENANT)));
        [Arc::clone(of), Arc::clone(&self.all)]
    }
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            by_endpoint: HashMap::new(),
            rests: Rests::default(),
            served: None,
            served_of: HashMap::new(),
            writers: Writers { all: Arc::new(Semaphore::new(WRITERS)), of: HashMap::new() },
        }
    }
}

/// An attempt that is over.
struct Ended {
    endpoint: EndpointId,
    /// Whether anybody answered, whatever the answer was.
    reached: bool,
}

impl UnderWay {
    /// Who gets nothing now: endpoints that are being served, and those that rest.
    fn busy(&self, now: OffsetDateTime) -> Vec<EndpointId> {
        self.by_endpoint.keys().copied().chain(self.rests.resting(now)).collect()
    }

    /// How many more of the tasks a tenant may have.
    fn room(&self, tenant: TenantId, workers: usize) -> usize {
        let held: usize = self.by_endpoint.values().filter(|(of, _)| *of == tenant).map(|(_, count)| count).sum();
        let at_most = workers - workers / KEPT_FOR_OTHERS;
        workers.saturating_sub(self.tasks.len()).min(at_most.saturating_sub(held))
    }

    /// These were leased for a tenant, who has had their turn.
    fn begun(&mut self, tenant: TenantId, deliveries: &[Delivery]) {
        let before = self.served_of.get(&tenant).copied();
        let leased = deliveries.iter().map(|delivery| delivery.id.endpoint);
        // As they are leased: from the one after the last on, then from the first on.
        if let Some(last) = leased.clone().max_by_key(|endpoint| (Some(*endpoint) <= before, *endpoint)) {
            self.served_of.insert(tenant, last);
        }
        for endpoint in leased {
            self.by_endpoint.entry(endpoint).or_insert((tenant, 0)).1 += 1;
        }
    }

    fn ended(&mut self, endpoint: EndpointId) {
        if let Some((_, count)) = self.by_endpoint.get_mut(&endpoint) {
            *count -= 1;
            if *count == 0 {
                self.by_endpoint.remove(&endpoint);
            }
        }
    }
}

impl Notifier {
    /// Runs until `stop`; attempts under way are then given up (their leases run out and they are made again).
    pub async fn run(self, stop: CancellationToken) {
        let notifier = Arc::new(self);
        let mut under_way = UnderWay::default();
        loop {
            let pause = match Arc::clone(&notifier).start_due(&mut under_way).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(event = "webhook_queue_unreadable", %error, "due deliveries cannot be read");
                    PAUSE_AFTER_ERROR
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = notifier.wake.notified() => {}
                Some(ended) = under_way.tasks.join_next() => notifier.reap(&mut under_way, ended),
                () = tokio::time::sleep(pause) => {}
            }
            // Whatever else has ended meanwhile frees its endpoint too.
            while let Some(ended) = under_way.tasks.try_join_next() {
                notifier.reap(&mut under_way, ended);
            }
        }
    }

    fn reap(&self, under_way: &mut UnderWay, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(Ended { endpoint, reached }) => {
                under_way.ended(endpoint);
                under_way.rests.ended(endpoint, reached, self.clock.now());
            }
            Err(error) => {
                // Which endpoint it was is not known: start the count anew; leases keep deliveries from doubling.
                tracing::error!(event = "webhook_task_failed", %error, "a delivery task failed");
                under_way.by_endpoint.clear();
            }
        }
    }

    /// Leases what is due and starts it. Returns how long to wait for the next look.
    async fn start_due(self: Arc<Self>, under_way: &mut UnderWay) -> Result<Duration, KeysError> {
        let now = self.clock.now();
        for tenant in in_turn(routes::due(&self.db, routes::Job::Webhook, now).await?, under_way.served) {
            if under_way.tasks.len() >= self.options.workers {
                return Ok(LOOK_EVERY);
            }
            // Before anything can fail: whoever cannot be served has had their turn, too.
            under_way.served = Some(tenant);
            let room = under_way.room(tenant, self.options.workers);
            if room == 0 {
                continue;
            }
            let (busy, last) = (under_way.busy(now), under_way.served_of.get(&tenant).copied());
            let deliveries = self.lease(tenant, busy, last, now, room).await?;
            under_way.begun(tenant, &deliveries);
            for delivery in deliveries {
                let (notifier, writers) = (Arc::clone(&self), under_way.writers.of(tenant));
                under_way.tasks.spawn(async move {
                    let endpoint = delivery.id.endpoint;
                    Ended { endpoint, reached: notifier.deliver(tenant, delivery, &writers).await }
                });
            }
        }
        let next = routes::next_due(&self.db, routes::Job::Webhook).await?;
        // What is due and was not taken had no room or belongs to busy endpoints, the end of which wakes the loop, or to resting ones.
        let until = next.and_then(|due| Duration::try_from(due - self.clock.now()).ok()).filter(|wait| !wait.is_zero());
        Ok(until.unwrap_or(LOOK_EVERY).clamp(MIN_PAUSE, LOOK_EVERY))
    }

    async fn lease(
        &self,
        tenant: TenantId,
        busy: Vec<EndpointId>,
        last: Option<EndpointId>,
        now: OffsetDateTime,
        room: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let lease = time::Duration::try_from(self.options.timeout + LEASE_MARGIN).unwrap_or(time::Duration::MINUTE);
        let bounds = (u32::try_from(room).unwrap_or(u32::MAX), self.options.per_endpoint);
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let deliveries = webhooks::lease_due(tx, now, lease, bounds, (&busy, last)).await?;
                    webhooks::reschedule(tx).await?;
                    Ok(deliveries)
                })
            })
            .await
    }

    /// Makes one attempt and writes down its outcome. Returns whether anybody answered.
    async fn deliver(&self, tenant: TenantId, delivery: Delivery, writers: &[Arc<Semaphore>; 2]) -> bool {
        let (under_way, begun) = (measured::begin(), Instant::now());
        let trace = Trace::begin(rand::random());
        let outcome = match self.attempt(tenant, &delivery, &trace).await {
            Ok(attempt) => attempt,
            Err(error) => {
                tracing::error!(event = "webhook_not_sendable", client_id = %tenant, delivery = %delivery.id, %error, "a delivery cannot be made");
                Attempt::Failed
            }
        };
        measured::attempted(judge(&outcome).2, begun.elapsed());
        drop(under_way);
        tracing::debug!(event = "webhook_attempt", trace_id = %trace.trace_id(), span_id = %trace.span_id(), client_id = %tenant, delivery = %delivery.id, attempts = delivery.attempts, outcome = ?outcome);
        let _turn = (writers[0].acquire().await, writers[1].acquire().await);
        if let Err(error) = self.write_down(tenant, &delivery, &outcome).await {
            // The lease runs out and the attempt is made again: at least once, as promised.
            tracing::warn!(event = "webhook_outcome_lost", client_id = %tenant, delivery = %delivery.id, %error, "an outcome was not written");
        }
        matches!(outcome, Attempt::Answered { .. })
    }

    async fn attempt(&self, tenant: TenantId, delivery: &Delivery, trace: &Trace) -> Result<Attempt, DeliveryError> {
        let keys = self.custody.tenant_keys(tenant).await?;
        let secret =
            keys.open_webhook_secret(delivery.id.endpoint, &delivery.secret_sealed).map_err(KeysError::from)?;
        let url = Url::parse(&delivery.url)?;
        let event: CloudEvent = serde_json::from_value(delivery.body.clone())?;
        let device = delivery.device.map(|device| WireDevice(device.0));
        let body = serde_json::to_vec(&WebhookBody::of(&event, WireTenant(tenant.0), device))?;
        let id = delivery.event.to_string();
        let timestamp = self.clock.now().unix_timestamp();
        let message = Message { id: &id, timestamp, trace, body: Bytes::from(body) };
        Ok(self.client.send(&url, secret.as_slice(), &message).await)
    }

    async fn write_down(&self, tenant: TenantId, delivery: &Delivery, attempt: &Attempt) -> Result<(), StoreError> {
        let (id, endpoint, now) = (delivery.id, delivery.id.endpoint, self.clock.now());
        let attempts = delivery.attempts;
        let (outcome, status, word) = judge(attempt);
        let next = after_attempt(delivery.attempts, outcome, rand::random());
        if next == Next::GiveUp {
            measured::given_up();
        }
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    match next {
                        Next::Delivered => webhooks::delivered(tx, id, status.unwrap_or(200), now).await?,
                        Next::RetryAfter(wait) => {
                            webhooks::failed(tx, id, attempts, (status, word), Some(now + wait)).await?;
                        }
                        Next::GiveUp => webhooks::failed(tx, id, attempts, (status, word), None).await?,
                    }
                    if outcome == Outcome::Gone {
                        webhooks::delete(tx, endpoint, now).await?;
                    }
                    webhooks::reschedule(tx).await?;
                    Ok(())
                })
            })
            .await
    }
}

/// Tenants in the order of their ids, from the one after this on.
fn in_turn(mut due: Vec<TenantId>, served: Option<TenantId>) -> Vec<TenantId> {
    due.sort_unstable();
    let before = served.map_or(0, |served| due.partition_point(|tenant| *tenant <= served));
    due.rotate_left(before);
    due
}

/// What an attempt means for the schedule, and the word that is kept of it.
fn judge(attempt: &Attempt) -> (Outcome, Option<u16>, &'static str) {
    match attempt {
        Attempt::Answered { status: status @ 200..=299, .. } => (Outcome::Delivered, Some(*status), ""),
        Attempt::Answered { status: 410, .. } => (Outcome::Gone, Some(410), "gone"),
        Attempt::Answered { status, retry_after } => {
            let seconds = retry_after.and_then(|seconds| i64::try_from(seconds).ok());
            (Outcome::Failed { retry_after: seconds.map(time::Duration::seconds) }, Some(*status), "status")
        }
        Attempt::Refused(_) => (FAILED, None, "address_not_allowed"),
        Attempt::TimedOut => (FAILED, None, "timeout"),
        Attempt::Failed => (FAILED, None, "connection"),
    }
}

const FAILED: Outcome = Outcome::Failed { retry_after: None };

/// A delivery that cannot even be attempted.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("stored endpoint URL: {0}")]
    Url(#[from] url::ParseError),
    #[error("stored event: {0}")]
    Event(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_is_delivered_and_410_ends_the_endpoint() {
        let answered = |status| judge(&Attempt::Answered { status, retry_after: None }).0;
        assert_eq!(answered(204), Outcome::Delivered);
        assert_eq!(answered(410), Outcome::Gone);
        for status in [199, 301, 302, 400, 404, 429, 500, 503] {
            assert_eq!(answered(status), FAILED, "{status}");
        }
        assert_eq!(judge(&Attempt::TimedOut).0, FAILED);
        let patient = judge(&Attempt::Answered { status: 429, retry_after: Some(60) }).0;
        assert_eq!(patient, Outcome::Failed { retry_after: Some(time::Duration::MINUTE) });
    }

    #[test]
    fn tenants_take_turns() {
        let tenants = [1, 2, 3].map(|id| TenantId(uuid::Uuid::from_u128(id)));
        let [one, two, three] = tenants;
        assert_eq!(in_turn(vec![three, one, two], None), [one, two, three]);
        assert_eq!(in_turn(vec![three, one, two], Some(one)), [two, three, one]);
        assert_eq!(in_turn(vec![three, one, two], Some(three)), [one, two, three]);
        assert_eq!(in_turn(vec![three, one], Some(two)), [three, one], "who is not due any more still had their turn");
        assert_eq!(in_turn(Vec::new(), Some(two)), []);
    }

    #[test]
    fn no_tenant_holds_all_tasks() {
        let (one, other) = (TenantId(uuid::Uuid::from_u128(1)), TenantId(uuid::Uuid::from_u128(2)));
        let mut under_way = UnderWay::default();
        assert_eq!([1, 2, 3, 4, 16].map(|workers| under_way.room(one, workers)), [1, 2, 3, 3, 12]);
        under_way.by_endpoint.insert(EndpointId(uuid::Uuid::from_u128(3)), (one, 8));
        under_way.by_endpoint.insert(EndpointId(uuid::Uuid::from_u128(4)), (one, 3));
        assert_eq!((under_way.room(one, 16), under_way.room(other, 16)), (1, 12));
    }

    #[test]
    fn an_endpoint_is_busy_until_its_last_delivery_ends() {
        let endpoint = EndpointId(uuid::Uuid::from_u128(1));
        let mut under_way = UnderWay::default();
        under_way.by_endpoint.insert(endpoint, (TenantId(uuid::Uuid::nil()), 2));
        under_way.ended(endpoint);
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(under_way.busy(now), [endpoint]);
        under_way.ended(endpoint);
        assert!(under_way.busy(now).is_empty());
    }
}
