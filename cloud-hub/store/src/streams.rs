//! Outbox streams of devices: the one integer each that makes redelivery harmless.

use std::collections::HashMap;

use uuid::Uuid;

use super::{StoreError, TenantTx};
use hub_domain::ids::DeviceId;

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

/// Locks these streams until the transaction ends, making those that are new, and returns how far each is committed.
///
/// In the order of device and stream, so that no two transactions wait for each other.
pub async fn lock_all(
    tx: &mut TenantTx,
    wanted: &[(DeviceId, String)],
) -> Result<HashMap<(DeviceId, String), u64>, StoreError> {
    let found = lock_present(tx, wanted).await?;
    if wanted.iter().all(|stream| found.contains_key(stream)) {
        return Ok(found);
    }
    let tenant = tx.tenant_uuid();
    let (devices, streams) = columns(wanted);
    sqlx::query(
        "INSERT INTO stream (tenant_id, device_id, stream)
         SELECT DISTINCT $1, w.device_id, w.stream FROM unnest($2::uuid[], $3::text[]) AS w (device_id, stream)
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(devices)
    .bind(streams)
    .execute(tx.conn())
    .await?;
    lock_present(tx, wanted).await
}

async fn lock_present(
    tx: &mut TenantTx,
    wanted: &[(DeviceId, String)],
) -> Result<HashMap<(DeviceId, String), u64>, StoreError> {
    let tenant = tx.tenant_uuid();
    let (devices, streams) = columns(wanted);
    let rows: Vec<(Uuid, String, i64)> = sqlx::query_as(
        "SELECT s.device_id, s.stream, s.committed
         FROM stream s JOIN unnest($2::uuid[], $3::text[]) AS w (device_id, stream) USING (device_id, stream)
         WHERE s.tenant_id = $1 ORDER BY s.device_id, s.stream FOR UPDATE OF s",
    )
    .bind(tenant)
    .bind(devices)
    .bind(streams)
    .fetch_all(tx.conn())
    .await?;
    by_stream(rows)
}

/// Advances locked streams.
pub async fn advance_all(tx: &mut TenantTx, through: &[(DeviceId, String, u64)]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let committed = through
        .iter()
        .map(|stream| i64::try_from(stream.2))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| StoreError::Unreadable { what: "stream.committed", reason: "above 2^63" })?;
    sqlx::query(
        "UPDATE stream s SET committed = w.committed, updated_at = now()
         FROM unnest($2::uuid[], $3::text[], $4::bigint[]) AS w (device_id, stream, committed)
         WHERE s.tenant_id = $1 AND s.device_id = w.device_id AND s.stream = w.stream AND s.committed <= w.committed",
    )
    .bind(tenant)
    .bind(through.iter().map(|stream| stream.0.0).collect::<Vec<_>>())
    .bind(through.iter().map(|stream| stream.1.as_str()).collect::<Vec<_>>())
    .bind(committed)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// These streams as committed, read afresh: what evtacks may say.
pub async fn committed_of(
    tx: &mut TenantTx,
    wanted: &[(DeviceId, String)],
) -> Result<HashMap<(DeviceId, String), u64>, StoreError> {
    let tenant = tx.tenant_uuid();
    let (devices, streams) = columns(wanted);
    let rows: Vec<(Uuid, String, i64)> = sqlx::query_as(
        "SELECT s.device_id, s.stream, s.committed
         FROM stream s JOIN unnest($2::uuid[], $3::text[]) AS w (device_id, stream) USING (device_id, stream)
         WHERE s.tenant_id = $1",
    )
    .bind(tenant)
    .bind(devices)
    .bind(streams)
    .fetch_all(tx.conn())
    .await?;
    by_stream(rows)
}

fn columns(streams: &[(DeviceId, String)]) -> (Vec<Uuid>, Vec<&str>) {
    streams.iter().map(|(device, stream)| (device.0, stream.as_str())).unzip()
}

fn by_stream(rows: Vec<(Uuid, String, i64)>) -> Result<HashMap<(DeviceId, String), u64>, StoreError> {
    rows.into_iter().map(|(device, stream, committed)| Ok(((DeviceId(device), stream), sequence(committed)?))).collect()
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
