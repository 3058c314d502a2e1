//! Devices: who they are, how they may link, where they are and what they last reported.

mod held;

use std::collections::HashMap;

use serde_json::Value;
use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{StoreError, TenantTx, certificates, routes};
use hub_domain::ids::{DeviceId, SiteId};

pub use held::{
    Agreement, DeviceGallery, Reported, SnapshotProgress, Standing, galleries, galleries_of, report_gallery, standings,
};

/// How long the link key before the present one is still accepted, by protocol.md.
pub const PREVIOUS_LINK_ACCEPTED: Duration = Duration::hours(24);

/// What a device is to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Waits for its claim.
    Created,
    /// Has an identity.
    Claimed,
    /// Had one.
    Revoked,
}

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its id, the common name of its certificate.
    pub id: DeviceId,
    /// Where it is.
    pub site_id: SiteId,
    /// Its name, unique in the tenant.
    pub name: String,
    /// What it is to the hub.
    pub state: DeviceState,
    /// SHA-256 of its present public key.
    pub spki_sha256: Option<Vec<u8>>,
    /// Serial number of its present certificate, lower-case hex.
    pub certificate_serial: Option<String>,
    /// End of its present certificate.
    pub certificate_expires_at: Option<OffsetDateTime>,
    /// Serial number of the certificate that a renewal gave it and that it has not shown yet.
    pub next_certificate_serial: Option<String>,
    /// The present link key's number; 0 before the first.
    pub link_epoch: u32,
    /// Whether it is connected to the broker, as far as the broker told.
    pub online: bool,
    /// What it runs, as it said.
    pub versions: Option<Value>,
    /// When it was last heard of.
    pub last_seen_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

#[derive(FromRow)]
struct DeviceRow {
    id: Uuid,
    site_id: Uuid,
    name: String,
    state: String,
    spki_sha256: Option<Vec<u8>>,
    certificate_serial: Option<String>,
    certificate_expires_at: Option<OffsetDateTime>,
    next_certificate_serial: Option<String>,
    link_epoch: i64,
    online: bool,
    versions: Option<Value>,
    last_seen_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
}

impl TryFrom<DeviceRow> for Device {
    type Error = StoreError;

    fn try_from(row: DeviceRow) -> Result<Self, StoreError> {
        let state = match row.state.as_str() {
            "created" => DeviceState::Created,
            "claimed" => DeviceState::Claimed,
            "revoked" => DeviceState::Revoked,
            _ => return Err(StoreError::Unreadable { what: "device.state", reason: "unknown name" }),
        };
        Ok(Self {
            id: DeviceId(row.id),
            site_id: SiteId(row.site_id),
            name: row.name,
            state,
            spki_sha256: row.spki_sha256,
            certificate_serial: row.certificate_serial,
            certificate_expires_at: row.certificate_expires_at,
            next_certificate_serial: row.next_certificate_serial,
            link_epoch: epoch("device.link_epoch", row.link_epoch)?,
            online: row.online,
            versions: row.versions,
            last_seen_at: row.last_seen_at,
            created_at: row.created_at,
        })
    }
}

pub(super) fn epoch(what: &'static str, value: i64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::Unreadable { what, reason: "out of range" })
}

/// Writes a device that waits for its claim.
pub async fn create(tx: &mut TenantTx, id: DeviceId, site: SiteId, name: &str) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO device (tenant_id, id, site_id, name) VALUES ($1, $2, $3, $4)")
        .bind(tenant)
        .bind(id.0)
        .bind(site.0)
        .bind(name)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// All devices, oldest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Device>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<DeviceRow> = sqlx::query_as(
        "SELECT id, site_id, name, state, spki_sha256, certificate_serial, certificate_expires_at,
                next_certificate_serial, link_epoch, online, versions, last_seen_at, created_at
         FROM device WHERE tenant_id = $1 ORDER BY id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Device::try_from).collect()
}

/// One device.
pub async fn get(tx: &mut TenantTx, id: DeviceId) -> Result<Device, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<DeviceRow> = sqlx::query_as(
        "SELECT id, site_id, name, state, spki_sha256, certificate_serial, certificate_expires_at,
                next_certificate_serial, link_epoch, online, versions, last_seen_at, created_at
         FROM device WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    row.ok_or(StoreError::NotFound { what: "device", id: id.0 }).and_then(Device::try_from)
}

/// Keeps a device that is not revoked to this transaction, so that of two claims made at once one is the later.
pub async fn lock_for_claim(tx: &mut TenantTx, id: DeviceId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let found =
        sqlx::query("SELECT FROM device WHERE tenant_id = $1 AND id = $2 AND state <> 'revoked' FOR NO KEY UPDATE")
            .bind(tenant)
            .bind(id.0)
            .fetch_optional(tx.conn())
            .await?;
    found.map(|_| ()).ok_or(StoreError::NotFound { what: "device", id: id.0 })
}

/// Ends a device: its topics are refused, its certificate serves for nothing, its doors decide on their own policy.
pub async fn revoke(tx: &mut TenantTx, id: DeviceId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE device SET state = 'revoked', online = false WHERE tenant_id = $1 AND id = $2 AND state <> 'revoked'",
    )
    .bind(tenant)
    .bind(id.0)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Err(StoreError::NotFound { what: "device", id: id.0 });
    }
    certificates::revoke(tx, id, None).await?;
    routes::deactivate(tx, "device", id.0).await
}

/// A link key that is accepted now.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its number.
    pub epoch: u32,
    /// The key, sealed under the tenant key.
    pub sealed: Vec<u8>,
}

/// The accepted link keys at `now`, the present one first.
pub async fn links(tx: &mut TenantTx, id: DeviceId, now: OffsetDateTime) -> Result<Vec<Link>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT link_epoch, sealed FROM device_link
         WHERE tenant_id = $1 AND device_id = $2 AND (retired_at IS NULL OR retired_at > $3)
         ORDER BY link_epoch DESC LIMIT 2",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(now - PREVIOUS_LINK_ACCEPTED)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter()
        .map(|(number, sealed)| Ok(Link { epoch: epoch("device_link.link_epoch", number)?, sealed }))
        .collect()
}

/// Makes the next link key of every device of the tenant `by` numbers higher than it would have been: the database was restored,
/// and devices have keys of which it does not know.
pub async fn skip_link_epochs(tx: &mut TenantTx, by: u32) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE device SET link_epoch = link_epoch + $2 WHERE tenant_id = $1 AND link_epoch > 0")
        .bind(tenant)
        .bind(i64::from(by))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The links of [`links`] for each of these devices that may speak: registered with this tenant and not revoked.
pub async fn links_of(
    tx: &mut TenantTx,
    ids: &[DeviceId],
    now: OffsetDateTime,
) -> Result<HashMap<DeviceId, Vec<Link>>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(Uuid, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT l.device_id, l.link_epoch, l.sealed
         FROM device_link l JOIN route r ON r.kind = 'device' AND r.id = l.device_id AND r.active AND r.tenant_id = $1
         WHERE l.tenant_id = $1 AND l.device_id = ANY ($2) AND (l.retired_at IS NULL OR l.retired_at > $3)
         ORDER BY l.device_id, l.link_epoch DESC",
    )
    .bind(tenant)
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .bind(now - PREVIOUS_LINK_ACCEPTED)
    .fetch_all(tx.conn())
    .await?;
    let mut links: HashMap<DeviceId, Vec<Link>> = HashMap::new();
    for (device, number, sealed) in rows {
        let known = links.entry(DeviceId(device)).or_default();
        if known.len() < 2 {
            known.push(Link { epoch: epoch("device_link.link_epoch", number)?, sealed });
        }
    }
    Ok(links)
}

/// Locks the device and returns the number that its next link key will have.
pub async fn next_link_epoch(tx: &mut TenantTx, id: DeviceId) -> Result<u32, StoreError> {
    let tenant = tx.tenant_uuid();
    let present: Option<i64> = sqlx::query_scalar(
        "SELECT link_epoch FROM device WHERE tenant_id = $1 AND id = $2 AND state = 'claimed' FOR UPDATE",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    let present = present.ok_or(StoreError::NotFound { what: "device", id: id.0 })?;
    epoch("device.link_epoch", present + 1)
}

/// Stores the next link key; the present one becomes the previous one and is accepted a while longer (a renewal).
pub async fn renew_link(
    tx: &mut TenantTx,
    id: DeviceId,
    number: u32,
    sealed: &[u8],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    retire_links(tx, id, now).await?;
    add_link(tx, id, number, sealed, now).await
}

/// Stores the next link key and ends all others at once (a claim: whoever held the old ones is another device now).
/// What the old one said of its connections and galleries goes too: the new one counts its connections from the
/// beginning and holds nobody.
pub async fn replace_link(
    tx: &mut TenantTx,
    id: DeviceId,
    number: u32,
    sealed: &[u8],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    for statement in [
        "DELETE FROM device_link WHERE tenant_id = $1 AND device_id = $2",
        "DELETE FROM device_gallery WHERE tenant_id = $1 AND device_id = $2",
        "UPDATE device SET online = false, boot_id = NULL, connection_epoch = NULL WHERE tenant_id = $1 AND id = $2",
    ] {
        sqlx::query(statement).bind(tenant).bind(id.0).execute(tx.conn()).await?;
    }
    add_link(tx, id, number, sealed, now).await
}

async fn retire_links(tx: &mut TenantTx, id: DeviceId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE device_link SET retired_at = $3 WHERE tenant_id = $1 AND device_id = $2 AND retired_at IS NULL",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn add_link(
    tx: &mut TenantTx,
    id: DeviceId,
    number: u32,
    sealed: &[u8],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO device_link (tenant_id, device_id, link_epoch, sealed, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(i64::from(number))
    .bind(sealed)
    .bind(now)
    .execute(tx.conn())
    .await?;
    sqlx::query("UPDATE device SET link_epoch = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(i64::from(number))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// What `up/status` said.
#[derive(Clone, Debug)]
pub struct Presence<'a> {
    /// Connected or gone.
    pub online: bool,
    /// The agent's present life.
    pub boot_id: &'a str,
    /// Counts its connections; an older one's last will must not end a newer one's presence.
    pub connection_epoch: u64,
    /// What it runs.
    pub versions: Value,
}

/// Notes presence; returns whether it was news (a late last will of an older connection is not).
pub async fn present(
    tx: &mut TenantTx,
    id: DeviceId,
    presence: &Presence<'_>,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE device SET online = $3, boot_id = $4, connection_epoch = $5, versions = $6, last_seen_at = $7
         WHERE tenant_id = $1 AND id = $2 AND (connection_epoch IS NULL OR connection_epoch <= $5)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(presence.online)
    .bind(presence.boot_id)
    .bind(i64::try_from(presence.connection_epoch).unwrap_or(i64::MAX))
    .bind(&presence.versions)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the presence of all devices that were not heard of since then; returns how many.
pub async fn end_presence(tx: &mut TenantTx, unheard_since: OffsetDateTime) -> Result<u64, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "WITH gone AS (
             SELECT id FROM device WHERE tenant_id = $1 AND online AND (last_seen_at IS NULL OR last_seen_at < $2)
             ORDER BY id FOR NO KEY UPDATE)
         UPDATE device d SET online = false FROM gone WHERE d.tenant_id = $1 AND d.id = gone.id",
    )
    .bind(tenant)
    .bind(unheard_since)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Notes that devices were heard of. In the order of their ids, so that no two transactions wait for each other.
pub async fn seen_all(tx: &mut TenantTx, ids: &[DeviceId], now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "WITH heard AS (
             SELECT id FROM device WHERE tenant_id = $1 AND id = ANY ($2) ORDER BY id FOR NO KEY UPDATE)
         UPDATE device d SET last_seen_at = $3 FROM heard WHERE d.tenant_id = $1 AND d.id = heard.id",
    )
    .bind(tenant)
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that the device was heard of.
pub async fn seen(tx: &mut TenantTx, id: DeviceId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE device SET last_seen_at = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}
