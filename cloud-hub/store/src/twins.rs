//! Twins: every desired state with who wished it, and the last report of each device.

use serde_json::Value;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::{Hash32, TwinSettings, TwinState, TwinUp, TwinVersion};

use super::database::TWIN_CHANNEL;
use super::{StoreError, TenantTx};
use hub_domain::ids::DeviceId;
use hub_domain::twin::{Desired, Reported};

/// How many desired states of a device are listed.
pub const LISTED: i64 = 50;

#[derive(FromRow)]
struct DesiredRow {
    version: i64,
    settings: Value,
    actor: String,
    created_at: OffsetDateTime,
}

impl TryFrom<DesiredRow> for Desired {
    type Error = StoreError;

    fn try_from(row: DesiredRow) -> Result<Self, StoreError> {
        let unreadable = |reason| StoreError::Unreadable { what: "twin_desired", reason };
        Ok(Self {
            version: u64::try_from(row.version).map_err(|_| unreadable("version out of range"))?,
            settings: TwinSettings::parse(&row.settings).map_err(|_| unreadable("settings of another program"))?,
            actor: row.actor,
            created_at: row.created_at,
        })
    }
}

/// The present desired state of a device.
pub async fn desired(tx: &mut TenantTx, device: DeviceId) -> Result<Option<Desired>, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<DesiredRow> = sqlx::query_as(
        "SELECT version, settings, actor, created_at FROM twin_desired WHERE tenant_id = $1 AND device_id = $2
         ORDER BY version DESC LIMIT 1",
    )
    .bind(tenant)
    .bind(device.0)
    .fetch_optional(tx.conn())
    .await?;
    row.map(Desired::try_from).transpose()
}

/// The last [`LISTED`] desired states of a device, the newest first.
pub async fn versions(tx: &mut TenantTx, device: DeviceId) -> Result<Vec<Desired>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<DesiredRow> = sqlx::query_as(
        "SELECT version, settings, actor, created_at FROM twin_desired WHERE tenant_id = $1 AND device_id = $2
         ORDER BY version DESC LIMIT $3",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(LISTED)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Desired::try_from).collect()
}

/// The devices for which anything is wished.
pub async fn devices(tx: &mut TenantTx) -> Result<Vec<DeviceId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<Uuid> =
        sqlx::query_scalar("SELECT DISTINCT device_id FROM twin_desired WHERE tenant_id = $1 ORDER BY device_id")
            .bind(tenant)
            .fetch_all(tx.conn())
            .await?;
    Ok(rows.into_iter().map(DeviceId).collect())
}

/// Writes a desired state and announces it at the commit. Two at once: the second finds its version taken, and fails.
pub async fn wish(tx: &mut TenantTx, device: DeviceId, desired: &Desired) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let settings = serde_json::to_value(&desired.settings).expect("settings are plain structs");
    sqlx::query(
        "INSERT INTO twin_desired (tenant_id, device_id, version, settings, actor, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(i64::try_from(desired.version).unwrap_or(i64::MAX))
    .bind(settings)
    .bind(&desired.actor)
    .bind(desired.created_at)
    .execute(tx.conn())
    .await?;
    announce(tx, device).await
}

/// Tells the publisher to send a device its wishes (again).
pub async fn announce(tx: &mut TenantTx, device: DeviceId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(TWIN_CHANNEL)
        .bind(format!("{tenant}/{device}"))
        .execute(tx.conn())
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct ReportedRow {
    seen_epoch: Option<i64>,
    seen_version: Option<i64>,
    applied_epoch: Option<i64>,
    applied_version: Option<i64>,
    state: String,
    settings: Value,
    restart_needed: Value,
    code: Option<String>,
    reason: Option<String>,
    reported_at: OffsetDateTime,
    since: OffsetDateTime,
}

fn version(epoch: Option<i64>, version: Option<i64>) -> Option<TwinVersion> {
    Some(TwinVersion { epoch: u32::try_from(epoch?).ok()?, version: u64::try_from(version?).ok()? })
}

/// What a device said last.
pub async fn reported(tx: &mut TenantTx, device: DeviceId) -> Result<Option<Reported>, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<ReportedRow> = sqlx::query_as(
        "SELECT seen_epoch, seen_version, applied_epoch, applied_version, state, settings, restart_needed, code, reason,
                reported_at, since
         FROM twin_reported WHERE tenant_id = $1 AND device_id = $2",
    )
    .bind(tenant)
    .bind(device.0)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let states = [TwinState::None, TwinState::Applied, TwinState::RestartNeeded, TwinState::Refused];
    let state = states.into_iter().find(|state| state.as_str() == row.state);
    Ok(Some(Reported {
        seen: version(row.seen_epoch, row.seen_version),
        applied: version(row.applied_epoch, row.applied_version),
        state: state.ok_or(StoreError::Unreadable { what: "twin_reported.state", reason: "unknown name" })?,
        settings: row.settings,
        restart_needed: serde_json::from_value(row.restart_needed).unwrap_or_default(),
        code: row.code,
        reason: row.reason,
        reported_at: row.reported_at,
        since: row.since,
    }))
}

/// Notes what a device says.
pub async fn report(tx: &mut TenantTx, device: DeviceId, said: &TwinUp, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let epoch = |version: Option<TwinVersion>| version.map(|version| i64::from(version.epoch));
    let number = |version: Option<TwinVersion>| version.and_then(|version| i64::try_from(version.version).ok());
    sqlx::query(
        "INSERT INTO twin_reported AS r
             (tenant_id, device_id, seen_epoch, seen_version, applied_epoch, applied_version, hash, state, settings,
              restart_needed, code, reason, reported_at, since)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
         ON CONFLICT (tenant_id, device_id) DO UPDATE SET
             since = CASE WHEN (r.seen_epoch, r.seen_version, r.applied_epoch, r.applied_version, r.state, r.settings)
                      IS NOT DISTINCT FROM (excluded.seen_epoch, excluded.seen_version, excluded.applied_epoch,
                                            excluded.applied_version, excluded.state, excluded.settings)
                          THEN r.since ELSE excluded.since END,
             seen_epoch = excluded.seen_epoch, seen_version = excluded.seen_version,
             applied_epoch = excluded.applied_epoch, applied_version = excluded.applied_version,
             hash = excluded.hash, state = excluded.state, settings = excluded.settings,
             restart_needed = excluded.restart_needed, code = excluded.code, reason = excluded.reason,
             reported_at = excluded.reported_at",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(epoch(said.seen))
    .bind(number(said.seen))
    .bind(epoch(said.applied))
    .bind(number(said.applied))
    .bind(said.hash.map(|Hash32(hash)| hash.to_vec()))
    .bind(said.state.as_str())
    .bind(&said.settings)
    .bind(serde_json::json!(said.restart_needed))
    .bind(said.code.map(|code| code.as_str()))
    .bind(&said.reason)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}
