//! Goes on with changes of keys that somebody has begun: the master key, and tenants' keys, index keys, seeds and people's keys.
//!
//! In: the seals themselves, and a word that something was begun. Out: rows and keys that are sealed anew. Several hubs may do it at
//! once; one that is killed leaves whole batches, and whoever starts next goes on. A task of its own: a tenant of a hundred thousand
//! people must not keep other jobs waiting.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chain::chain;
use crate::domain::ids::TenantId;
use crate::keys::{Custody, KeysError, Progress};
use crate::store::{Database, routes};

/// How often every tenant is looked at: another hub may have been killed at it.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often those are looked at of which it is known that there is something to do.
const GO_ON_EVERY: Duration = Duration::from_secs(5);
/// Between two batches: whoever waits at a door comes first.
const PAUSE: Duration = Duration::from_millis(10);
/// How often a batch is tried again, and after what, that somebody else is at work on; then others come first.
const TRIES: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The job and what it needs.
#[derive(Clone)]
pub struct Rotations {
    /// The database.
    pub db: Database,
    /// Keys and rows together.
    pub custody: Custody,
    /// Told when somebody has begun to replace a key.
    pub begun: Arc<Notify>,
}

impl Rotations {
    /// Works until `stop`. The first look is at once.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            // Cut off between two batches, or in one, which is then done by the database or not at all.
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        let mut under_way = BTreeSet::new();
        let mut looked: Option<Instant> = None;
        loop {
            if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                looked = Some(Instant::now());
                match routes::tenants(&self.db).await {
                    Ok(tenants) => under_way = tenants.into_iter().collect(),
                    Err(error) => failed(None, &error.into()),
                }
            }
            let master_waits = self.go_on_with_master().await.unwrap_or_else(|error| {
                failed(None, &error);
                false
            });
            let mut still = BTreeSet::new();
            for tenant in under_way {
                match self.go_on(tenant).await {
                    Ok(true) => {}
                    Ok(false) => _ = still.insert(tenant),
                    Err(error) => failed(Some(tenant), &error),
                }
            }
            under_way = still;
            let pause = if under_way.is_empty() && !master_waits { LOOK_EVERY } else { GO_ON_EVERY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.begun.notified() => looked = None,
            }
        }
    }

    /// Everything that can be sealed anew now; whether the key before is kept for a while only.
    async fn go_on_with_master(&self) -> Result<bool, KeysError> {
        loop {
            match self.custody.go_on_with_master().await? {
                Progress::Idle | Progress::Done => return Ok(false),
                Progress::Waits | Progress::Busy => return Ok(true),
                Progress::Resealed(count) => {
                    tracing::info!(event = "master_key_resealed", count, "keys were sealed under another master key");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Goes on with everything that is being replaced of a tenant; whether there is nothing to do later either. One that fails keeps no
    /// other one waiting.
    async fn go_on(&self, tenant: TenantId) -> Result<bool, KeysError> {
        let mut outcome = Ok(true);
        for change in Change::ALL {
            outcome = match (self.go_on_with(tenant, change).await, outcome) {
                (Ok(done), Ok(all)) => Ok(all && done),
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            };
        }
        outcome
    }

    /// Batches until there is nothing more to do now; whether there is nothing to do later either.
    async fn go_on_with(&self, tenant: TenantId, change: Change) -> Result<bool, KeysError> {
        let mut tries = 0;
        loop {
            let progress = match change {
                Change::TenantKey => self.custody.go_on_with_tenant_key(tenant).await?,
                Change::IndexKey => self.custody.go_on_with_index_key(tenant).await?,
                Change::Seeds => self.custody.go_on_with_seeds(tenant).await?,
                Change::People => self.custody.go_on_with_person_keys(tenant).await?,
            };
            match progress {
                Progress::Idle | Progress::Done => return Ok(true),
                Progress::Busy if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Progress::Waits | Progress::Busy => return Ok(false),
                // Nothing of these was under another key.
                Progress::Resealed(0) => tries = 0,
                Progress::Resealed(count) => {
                    tries = 0;
                    tracing::info!(event = change.event(), client_id = %tenant, count, "rows of a tenant were put under its new key");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What of a tenant is replaced.
#[derive(Clone, Copy)]
enum Change {
    TenantKey,
    IndexKey,
    Seeds,
    People,
}

impl Change {
    const ALL: [Self; 4] = [Self::TenantKey, Self::IndexKey, Self::Seeds, Self::People];

    fn event(self) -> &'static str {
        match self {
            Self::TenantKey => "tenant_key_resealed",
            Self::IndexKey => "tenant_reindexed",
            Self::Seeds => "vectors_rotated",
            Self::People => "people_resealed",
        }
    }
}

fn failed(tenant: Option<TenantId>, error: &KeysError) {
    let tenant = tenant.map(|tenant| tenant.to_string());
    tracing::warn!(event = "job_failed", job = "rotation", client_id = tenant, error = %chain(error), "a job failed and is tried again");
}
