//! Empties tenants that are being deleted: batch after batch, each a transaction, until nothing is left but a receipt.
//!
//! In: the routing table. Out: rows that are gone. Several hubs may do it at once, and take turns at the tenant's row; one that is
//! killed leaves whole batches, and whoever comes next goes on. A task of its own: a tenant of a million events must not
//! keep other jobs waiting.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::chain::chain;
use crate::clock::Clock;
use crate::domain::erasure::Receipt;
use crate::domain::ids::TenantId;
use crate::keys::{Custody, KeysError, Step};
use crate::store::{Database, routes};

/// How often tenants to be emptied are looked for, and a tenant whose audit waits for its last head is asked again.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two batches: the door that reports at this moment comes first.
const PAUSE: Duration = Duration::from_millis(10);

/// The job and what it needs.
#[derive(Clone)]
pub struct Deletions {
    /// The database.
    pub db: Database,
    /// Keys and rows together.
    pub custody: Custody,
    /// The time.
    pub clock: Clock,
    /// Rows of one batch.
    pub batch: u32,
}

impl Deletions {
    /// Rows of one batch, unless somebody wants it otherwise: tens of milliseconds.
    pub const BATCH: u32 = 2_000;

    /// Works until `stop`. The first look is at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            // Cut off between two batches, or in one, which is then done by the database or not at all.
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.round() => {}
            }
        }
    }

    /// Works on every tenant that is marked, until it is gone or waits for its audit's last head.
    pub async fn round(&self) {
        let due = match routes::due(&self.db, routes::Job::Deletion, self.clock.now()).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(event = "job_failed", job = "deletion", error = %chain(&error), "a job failed and is tried again");
                return;
            }
        };
        for tenant in due {
            match self.empty(tenant).await {
                Ok(Some(receipt)) => tracing::info!(
                    event = "tenant_erased", client_id = %tenant, rows = receipt.erased.removed.values().sum::<u64>(),
                    "nothing is left of a tenant but its receipt"
                ),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(event = "job_failed", job = "deletion", client_id = %tenant, error = %chain(&error), "a job failed for a tenant and is tried again");
                }
            }
        }
    }

    /// The receipt, if this hub did the last step.
    async fn empty(&self, tenant: TenantId) -> Result<Option<Receipt>, KeysError> {
        let mut from = 0;
        loop {
            match self.custody.empty_tenant(tenant, from, self.batch).await? {
                Step::Removed(next) => from = next,
                Step::Waits | Step::Gone => return Ok(None),
                Step::Done(receipt) => return Ok(Some(*receipt)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
