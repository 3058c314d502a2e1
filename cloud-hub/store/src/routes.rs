//! The routing tables: which tenant an id belongs to, and where jobs have something to do.
//!
//! The only reads outside a tenant's transaction. The tables hold ids and times and nothing else.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, StoreError, TenantTx};
use hub_domain::ids::{ApiKeyId, ClaimId, DeviceId, TenantId};

/// A job that is routed by tenant and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Webhook deliveries to attempt.
    Webhook,
    /// Person keys to destroy, because a crash came between the commit and the destruction.
    Erasure,
    /// Rows of a tenant that is being deleted.
    Deletion,
    /// Sessions whose time is over.
    Session,
}

impl Job {
    fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Erasure => "erasure",
            Self::Deletion => "deletion",
            Self::Session => "session",
        }
    }
}

async fn tenant_of(db: &Database, kind: &'static str, id: Uuid) -> Result<Option<TenantId>, StoreError> {
    let found = sqlx::query_scalar("SELECT tenant_id FROM route WHERE kind = $1 AND id = $2 AND active")
        .bind(kind)
        .bind(id)
        .fetch_optional(db.pool())
        .await?;
    Ok(found.map(TenantId))
}

/// Whose API key this is, if it is not revoked.
pub async fn tenant_of_api_key(db: &Database, id: ApiKeyId) -> Result<Option<TenantId>, StoreError> {
    tenant_of(db, "api_key", id.0).await
}

/// Whose claim this is.
pub async fn tenant_of_claim(db: &Database, id: ClaimId) -> Result<Option<TenantId>, StoreError> {
    tenant_of(db, "claim", id.0).await
}

/// Whose device this is, if it is claimed and not revoked: this is the registry that topics are checked against.
pub async fn tenant_of_device(db: &Database, id: DeviceId) -> Result<Option<TenantId>, StoreError> {
    tenant_of(db, "device", id.0).await
}

/// Every tenant, oldest first (ids are of version 7).
pub async fn tenants(db: &Database) -> Result<Vec<TenantId>, StoreError> {
    let ids = sqlx::query_scalar("SELECT tenant_id FROM route WHERE kind = 'tenant' AND active ORDER BY id")
        .fetch_all(db.pool())
        .await?;
    Ok(ids.into_iter().map(TenantId).collect())
}

/// The same, and those that are being deleted: whose rows are there.
pub async fn tenants_with_rows(db: &Database) -> Result<Vec<TenantId>, StoreError> {
    let ids = sqlx::query_scalar("SELECT tenant_id FROM route WHERE kind = 'tenant' ORDER BY id");
    Ok(ids.fetch_all(db.pool()).await?.into_iter().map(TenantId).collect())
}

/// Some of the same: those after this one, or from the first on.
pub async fn tenants_with_rows_after(
    db: &Database,
    after: Option<TenantId>,
    at_most: u32,
) -> Result<Vec<TenantId>, StoreError> {
    let ids = sqlx::query_scalar(
        "SELECT tenant_id FROM route WHERE kind = 'tenant' AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2",
    );
    let ids = ids.bind(after.map(|tenant| tenant.0)).bind(i64::from(at_most));
    Ok(ids.fetch_all(db.pool()).await?.into_iter().map(TenantId).collect())
}

/// Every device that may speak to the broker: the source of its access lines.
pub async fn devices(db: &Database) -> Result<Vec<(TenantId, DeviceId)>, StoreError> {
    let rows: Vec<(Uuid, Uuid)> =
        sqlx::query_as("SELECT tenant_id, id FROM route WHERE kind = 'device' AND active ORDER BY id")
            .fetch_all(db.pool())
            .await?;
    Ok(rows.into_iter().map(|(tenant, device)| (TenantId(tenant), DeviceId(device))).collect())
}

/// Every tenant that has consumers at the broker.
pub async fn tenants_with_consumers(db: &Database) -> Result<Vec<TenantId>, StoreError> {
    let ids = sqlx::query_scalar(
        "SELECT DISTINCT tenant_id FROM route WHERE kind = 'consumer' AND active ORDER BY tenant_id",
    )
    .fetch_all(db.pool())
    .await?;
    Ok(ids.into_iter().map(TenantId).collect())
}

/// A device's certificate that is good for nothing although it has not expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// Since when.
    pub revoked_at: OffsetDateTime,
}

/// The certificates that were replaced or revoked and have not expired at `now`, by serial.
pub async fn revoked_certificates(db: &Database, now: OffsetDateTime) -> Result<Vec<RevokedCertificate>, StoreError> {
    let rows: Vec<(String, OffsetDateTime)> =
        sqlx::query_as("SELECT serial, revoked_at FROM revoked_certificate WHERE expires_at > $1 ORDER BY serial")
            .bind(now)
            .fetch_all(db.pool())
            .await?;
    Ok(rows.into_iter().map(|(serial, revoked_at)| RevokedCertificate { serial, revoked_at }).collect())
}

/// Removes revoked certificates that have expired before `now`; returns how many.
pub async fn forget_expired_certificates(db: &Database, now: OffsetDateTime) -> Result<u64, StoreError> {
    let done =
        sqlx::query("DELETE FROM revoked_certificate WHERE expires_at < $1").bind(now).execute(db.pool()).await?;
    Ok(done.rows_affected())
}

/// The tenants that have work of this kind at `now`, the longest waiting first.
pub async fn due(db: &Database, job: Job, now: OffsetDateTime) -> Result<Vec<TenantId>, StoreError> {
    let ids = sqlx::query_scalar("SELECT tenant_id FROM route_due WHERE kind = $1 AND due_at <= $2 ORDER BY due_at")
        .bind(job.name())
        .bind(now)
        .fetch_all(db.pool())
        .await?;
    Ok(ids.into_iter().map(TenantId).collect())
}

/// When work of this kind is next due anywhere; `None` if there is none.
pub async fn next_due(db: &Database, job: Job) -> Result<Option<OffsetDateTime>, StoreError> {
    Ok(sqlx::query_scalar("SELECT min(due_at) FROM route_due WHERE kind = $1")
        .bind(job.name())
        .fetch_one(db.pool())
        .await?)
}

/// How many tenants, devices and API keys there are.
pub async fn totals(db: &Database) -> Result<(i64, i64, i64), StoreError> {
    let row = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE kind = 'tenant'), count(*) FILTER (WHERE kind = 'device'),
                count(*) FILTER (WHERE kind = 'api_key')
         FROM route WHERE active",
    );
    Ok(row.fetch_one(db.pool()).await?)
}

/// How many transactions wrote audit entries that have no place in a chain yet.
pub async fn unsealed(db: &Database) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM route_unsealed").fetch_one(db.pool()).await?)
}

pub(super) async fn add(tx: &mut TenantTx, kind: &'static str, id: Uuid) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO route (kind, id, tenant_id) VALUES ($1, $2, $3)
         ON CONFLICT (kind, id) DO UPDATE SET active = true WHERE route.tenant_id = excluded.tenant_id",
    )
    .bind(kind)
    .bind(id)
    .bind(tenant)
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub(super) async fn deactivate(tx: &mut TenantTx, kind: &'static str, id: Uuid) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE route SET active = false WHERE kind = $1 AND id = $2 AND tenant_id = $3")
        .bind(kind)
        .bind(id)
        .bind(tenant)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Notes that the tenant has work at `at`; an earlier note stays.
pub(super) async fn set_due(tx: &mut TenantTx, job: Job, at: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO route_due (kind, tenant_id, due_at) VALUES ($1, $2, $3)
         ON CONFLICT (kind, tenant_id) DO UPDATE SET due_at = least(route_due.due_at, excluded.due_at)",
    )
    .bind(job.name())
    .bind(tenant)
    .bind(at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Replaces the note: the job has looked (holding the note's lock) and knows when work is next due, if ever.
/// Without a note there was no lock, so then the earlier time wins.
pub(super) async fn replace_due(tx: &mut TenantTx, job: Job, at: Option<OffsetDateTime>) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let Some(at) = at else {
        sqlx::query("DELETE FROM route_due WHERE kind = $1 AND tenant_id = $2")
            .bind(job.name())
            .bind(tenant)
            .execute(tx.conn())
            .await?;
        return Ok(());
    };
    let done = sqlx::query("UPDATE route_due SET due_at = $3 WHERE kind = $1 AND tenant_id = $2")
        .bind(job.name())
        .bind(tenant)
        .bind(at)
        .execute(tx.conn())
        .await?;
    if done.rows_affected() == 0 { set_due(tx, job, at).await } else { Ok(()) }
}
