//! Work that nobody waits for: keys of deleted people, searchable vectors, finished deliveries, old claims and sessions, logs of
//! galleries.
//!
//! In: the routing table and the clock. Out: rows and keys that are gone or rebuilt. Each job may run on several hubs
//! at once and be cut off anywhere: it finds its work anew. Deliberately absent: webhooks (`notify`).

mod compaction;
mod deletion;
mod rotation;
mod vector_indexes;

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::compaction::KeepRule;
use crate::domain::ids::TenantId;
use crate::keys::{BEAT, Custody, KeysError};
use crate::store::{Database, housekeeping, idempotency, routes};

pub use deletion::Deletions;
pub use rotation::Rotations;
pub use vector_indexes::VectorIndexes;

/// How often each job looks for work. Erasure is a promise to a person, so it is retried soon; the rest is order.
const ERASURE_EVERY: Duration = Duration::from_secs(5);
/// Whatever frames gave goes within this time of a session's end; nobody is let in meanwhile either.
const SESSIONS_EVERY: Duration = Duration::from_secs(2);
/// Vectors are missing after a crash of the database only; the start looks too.
const VECTORS_EVERY: Duration = Duration::from_secs(60);
/// Rows to tidy up pile up slowly.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// A log grows by what people change; an hour more or less of it is nothing.
const COMPACTION_EVERY: Duration = Duration::from_secs(3600);
/// Idempotency keys of a tenant that one round removes: more than a tenant can use between two.
const ENDED_KEYS: u32 = 5_000;
/// Claims and sessions are kept this long after their end, for whoever asks what happened.
const KEEP_ENDED: time::Duration = time::Duration::days(7);

/// The jobs and what they need.
pub struct Jobs {
    /// The database.
    pub db: Database,
    /// Keys and rows together.
    pub custody: Custody,
    /// The time.
    pub clock: Clock,
    /// How long finished deliveries are kept.
    pub delivery_retention: Duration,
    /// What stays in the logs of galleries.
    pub keep: KeepRule,
}

impl Jobs {
    /// Runs every job at its own pace until `stop`. The first round is at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut erasure = tokio::time::interval(ERASURE_EVERY);
        let mut sessions = tokio::time::interval(SESSIONS_EVERY);
        let mut vectors = tokio::time::interval(VECTORS_EVERY);
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        let mut beat = tokio::time::interval(BEAT);
        let mut compaction = tokio::time::interval(COMPACTION_EVERY);
        loop {
            let (job, outcome) = tokio::select! {
                () = stop.cancelled() => return,
                _ = erasure.tick() => ("erasure", self.destroy_keys().await),
                _ = sessions.tick() => ("sessions", self.expire_sessions().await),
                _ = vectors.tick() => ("vectors", self.rebuild_vectors().await),
                _ = tidy.tick() => ("tidy", self.tidy().await),
                _ = beat.tick() => ("mark", self.custody.beat().await),
                _ = compaction.tick() => ("compaction", self.compact().await),
            };
            if let Err(error) = outcome {
                tracing::warn!(event = "job_failed", job, %error, "a job failed and is tried again");
            }
        }
    }

    /// Destroys the keys of deleted people that a crash between commit and destruction left over.
    async fn destroy_keys(&self) -> Result<(), KeysError> {
        for tenant in routes::due(&self.db, routes::Job::Erasure, self.clock.now()).await? {
            let outcome = self.custody.destroy_pending_keys(tenant).await;
            let Some(destroyed) = told("erasure", tenant, outcome) else { continue };
            if destroyed > 0 {
                tracing::info!(event = "person_keys_destroyed", client_id = %tenant, count = destroyed, "keys of deleted people were destroyed late");
            }
        }
        Ok(())
    }

    /// Ends sessions whose time is over.
    async fn expire_sessions(&self) -> Result<(), KeysError> {
        for tenant in routes::due(&self.db, routes::Job::Session, self.clock.now()).await? {
            // A batch each round, so that one tenant keeps no other waiting.
            let outcome = self.custody.expire_sessions(tenant).await;
            let expired = told("sessions", tenant, outcome).unwrap_or(0);
            if expired > 0 {
                tracing::info!(event = "sessions_expired", client_id = %tenant, count = expired, "the time of sessions was over");
            }
        }
        Ok(())
    }

    /// Rebuilds searchable vectors from the sealed records.
    async fn rebuild_vectors(&self) -> Result<(), KeysError> {
        for tenant in routes::tenants(&self.db).await? {
            let outcome = self.custody.rebuild_vectors(tenant).await;
            let rebuilt = told("vectors", tenant, outcome).unwrap_or(0);
            if rebuilt > 0 {
                tracing::info!(event = "vectors_rebuilt", client_id = %tenant, count = rebuilt, "searchable vectors were rebuilt");
            }
            let outcome = self.custody.find_missing_keys(tenant).await;
            let found = told("missing_keys", tenant, outcome).unwrap_or(0);
            if found > 0 {
                tracing::info!(event = "person_keys_found", client_id = %tenant, count = found, "people whose keys were missing have them again");
            }
        }
        Ok(())
    }

    /// Removes rows whose time is over.
    async fn tidy(&self) -> Result<(), KeysError> {
        let now = self.clock.now();
        let retention = time::Duration::try_from(self.delivery_retention).unwrap_or(time::Duration::MAX);
        routes::forget_expired_certificates(&self.db, now).await?;
        let deliveries_before = now.checked_sub(retention).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        for tenant in routes::tenants(&self.db).await? {
            told("tidy", tenant, self.tidy_tenant(tenant, deliveries_before, now - KEEP_ENDED).await);
        }
        Ok(())
    }

    /// Shortens the logs of galleries.
    async fn compact(&self) -> Result<(), KeysError> {
        for tenant in routes::tenants(&self.db).await? {
            let outcome = compaction::compact_tenant(&self.db, &self.clock, self.keep, tenant).await;
            told("compaction", tenant, outcome.map_err(KeysError::from));
        }
        Ok(())
    }

    async fn tidy_tenant(
        &self,
        tenant: TenantId,
        deliveries_before: OffsetDateTime,
        ended_before: OffsetDateTime,
    ) -> Result<(), KeysError> {
        let now = self.clock.now();
        let removed = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let tidied = housekeeping::tidy(tx, deliveries_before, ended_before).await?;
                Ok::<_, KeysError>(tidied + idempotency::remove_ended(tx, now, ENDED_KEYS).await?)
            })
        });
        let removed = removed.await?;
        if removed > 0 {
            tracing::info!(event = "rows_tidied", client_id = %tenant, count = removed, "rows whose time is over were removed");
        }
        Ok(())
    }
}

/// One tenant's trouble is told and is no reason to leave the other tenants' work undone.
fn told<T>(job: &'static str, tenant: TenantId, outcome: Result<T, KeysError>) -> Option<T> {
    outcome
        .inspect_err(|error| {
            tracing::warn!(event = "job_failed", job, client_id = %tenant, %error, "a job failed for a tenant and is tried again");
        })
        .ok()
}
