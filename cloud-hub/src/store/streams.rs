//! Outbox streams of devices: the one integer each that makes redelivery harmless.

use uuid::Uuid;

use super::{StoreError, TenantTx};
use crate::domain::ids::DeviceId;

/// A stream's committed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Whose outbox.
    pub device: DeviceId,
    /// Which one: 32 lower-case hex digits.
    pub stream: String,
    /// Every sequence up to this one is stored.
    pub committed: u64,
    /// Whether a clone was seen on it.
    pub conflicted: bool,
}

/// Makes the stream's row if it is new, locks it until the transaction ends and returns it.
pub async fn lock(tx: &mut TenantTx, device: DeviceId, stream: &str) -> Result<Stream, StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO stream (tenant_id, device_id, stream) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(tenant)
        .bind(device.0)
        .bind(stream)
        .execute(tx.conn())
        .await?;
    let (committed, conflicted): (i64, bool) = sqlx::query_as(
        "SELECT committed, conflicted FROM stream WHERE tenant_id = $1 AND device_id = $2 AND stream = $3 FOR UPDATE",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(stream)
    .fetch_one(tx.conn())
    .await?;
    Ok(Stream { device, stream: stream.to_owned(), committed: sequence(committed)?, conflicted })
}

/// Advances a locked stream.
pub async fn set_committed(tx: &mut TenantTx, device: DeviceId, stream: &str, through: u64) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let through = i64::try_from(through)
        .map_err(|_| StoreError::Unreadable { what: "stream.committed", reason: "above 2^63" })?;
    sqlx::query(
        "UPDATE stream SET committed = $4, updated_at = now()
         WHERE tenant_id = $1 AND device_id = $2 AND stream = $3 AND committed <= $4",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(stream)
    .bind(through)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that a clone was seen; returns whether that is news.
pub async fn mark_conflict(tx: &mut TenantTx, device: DeviceId, stream: &str) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE stream SET conflicted = true, updated_at = now()
         WHERE tenant_id = $1 AND device_id = $2 AND stream = $3 AND NOT conflicted",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(stream)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The stream as committed, read afresh: what an evtack may say. `None` for a stream that was never stored.
pub async fn committed(tx: &mut TenantTx, device: DeviceId, stream: &str) -> Result<Option<u64>, StoreError> {
    let tenant = tx.tenant_uuid();
    let found: Option<i64> =
        sqlx::query_scalar("SELECT committed FROM stream WHERE tenant_id = $1 AND device_id = $2 AND stream = $3")
            .bind(tenant)
            .bind(device.0)
            .bind(stream)
            .fetch_optional(tx.conn())
            .await?;
    found.map(sequence).transpose()
}

/// Every stream of the tenant's devices that are claimed now, the newest of each device last.
pub async fn all(tx: &mut TenantTx) -> Result<Vec<Stream>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(Uuid, String, i64, bool)> = sqlx::query_as(
        "SELECT s.device_id, s.stream, s.committed, s.conflicted
         FROM stream s JOIN device d ON d.tenant_id = s.tenant_id AND d.id = s.device_id
         WHERE s.tenant_id = $1 AND d.state = 'claimed' ORDER BY s.device_id, s.created_at",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter()
        .map(|(device, stream, committed, conflicted)| {
            Ok(Stream { device: DeviceId(device), stream, committed: sequence(committed)?, conflicted })
        })
        .collect()
}

fn sequence(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Unreadable { what: "stream.committed", reason: "negative" })
}
