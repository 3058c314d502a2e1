//! What every handler works with.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Imports;
use super::feed::Feed;
use super::health::{Component, Life, Probe};
use super::idempotency::Bodies;
use hub_domain::compaction::KeepRule;
use hub_domain::ids::{ConsumerId, DeviceId, TenantId};
use hub_host::clock::Clock;
use hub_host::outbound::address::AddressPolicy;
use hub_host::traces::Traces;
use hub_keys::{Custody, Snapshots};
use hub_limit::{InForce, Limiter, Watch};
use hub_pki::Pki;
use hub_recognition::enroller::Enroller;
use hub_recognition::{Comparisons, Galleries, Standings, Uses};
use hub_store::Database;

/// The API's share of the configuration, as final values.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where clients and devices reach the API.
    pub public_url: Url,
    /// Where devices reach the broker.
    pub broker_host: String,
    /// Where devices reach the broker.
    pub broker_port: u16,
    /// Host and port for consumers of the feed; `None` where the hub keeps no listener for them.
    pub consumers: Option<(String, u16)>,
    /// Tenants whose devices are announced to Home Assistant.
    pub home_assistant: BTreeSet<TenantId>,
    /// Bounds of one enrolment.
    pub enrolment: EnrolmentLimits,
    /// Which addresses webhooks may have.
    pub webhook_policy: AddressPolicy,
    /// What stays in the logs of galleries.
    pub keep: KeepRule,
}

/// Bounds of one enrolment.
#[derive(Debug, Clone)]
pub struct EnrolmentLimits {
    /// Photographs.
    pub max_photos: usize,
    /// Bytes of one photograph.
    pub max_photo_bytes: usize,
}

/// The broker could not be told.
#[derive(Debug, thiserror::Error)]
#[error("the broker's access lines could not be written: {0}")]
pub struct BrokerError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What the API asks of the broker. The wiring joins it to the embedded or external one.
pub trait BrokerControl: Send + Sync {
    /// Writes the access lines of every device in the registry, and makes the broker read them.
    fn refresh(&self) -> BoxFuture<'_, Result<(), BrokerError>>;
    /// Shows and believes, at the listener and at the broker, what the authorities are now.
    fn refresh_authorities(&self) -> BoxFuture<'_, Result<(), BrokerError>>;
    /// Writes who may read the feed, and makes the broker read it: it ends the sessions of those who may no longer.
    fn refresh_consumers(&self) -> BoxFuture<'_, Result<(), BrokerError>>;
    /// Throws away what the broker still holds for a consumer that was removed.
    fn end_consumer(&self, consumer: ConsumerId) -> BoxFuture<'_, ()>;
    /// Ends a device's live session. The next connection is judged by the new access lines.
    fn end_session(&self, device: DeviceId) -> BoxFuture<'_, ()>;
}

/// Everything a handler may use.
pub struct Api {
    /// The database, one tenant at a time.
    pub db: Database,
    /// Operations in which a row and a key change together.
    pub custody: Custody,
    /// Galleries whole, for devices.
    pub snapshots: Snapshots,
    /// The hub's certificates.
    pub pki: Arc<Pki>,
    /// The time.
    pub clock: Clock,
    /// How much everybody may ask.
    pub limiter: Arc<Limiter>,
    /// Settings that may be changed while the hub runs.
    pub in_force: Arc<InForce>,
    /// What callers did of late.
    pub watch: Watch,
    /// Room for requests with an `Idempotency-Key`.
    pub bodies: Bodies,
    /// Wakes readers of the feed.
    pub feed: Feed,
    /// Works on photographs.
    pub enroller: Enroller,
    /// Files of people that are imported.
    pub imports: Imports,
    /// Tenants' galleries in memory.
    pub galleries: Galleries,
    /// What comparisons go by.
    pub standings: Standings,
    /// Notes uses of recognition.
    pub uses: Uses,
    /// Makes comparisons.
    pub comparisons: Comparisons,
    /// Takes spans of requests.
    pub traces: Traces,
    /// Tells the job that somebody has begun to replace a key.
    pub rotations: Arc<Notify>,
    /// The broker.
    pub broker: Arc<dyn BrokerControl>,
    /// Starting, ready, draining.
    pub life: Life,
    /// Parts that the API does not know itself.
    pub probes: Vec<Probe>,
    /// Ends live streams when the hub stops.
    pub stop: CancellationToken,
    /// The configuration.
    pub settings: Settings,
}

impl Api {
    /// Asks every part how it is.
    pub(super) async fn components(&self) -> Vec<Component> {
        let database = match self.db.ping().await {
            Ok(()) => Component::pass("database"),
            Err(_) => Component::fail("database", "does not answer"),
        };
        let models = if self.enroller.has_models() {
            Component::pass("models")
        } else {
            Component::warn("models", "no model pack in use: enrolment is refused; see the log and [models]")
        };
        let mut components = vec![database, models];
        components.extend(futures::future::join_all(self.probes.iter().map(|probe| probe())).await);
        components
    }
}
