//! Device claims: stored by the MAC of their secret, bound to the first public key in one statement.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, TenantTx, routes};
use hub_domain::claim::Claim;
use hub_domain::ids::{ClaimId, DeviceId};

/// Stores a new claim for a device.
pub async fn create(
    tx: &mut TenantTx,
    id: ClaimId,
    device: DeviceId,
    secret_mac: &[u8; 32],
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    // The moment of the statement and not of the transaction, which may have waited for another that makes a claim.
    sqlx::query(
        "INSERT INTO claim (tenant_id, id, device_id, secret_mac, created_at, expires_at)
         VALUES ($1, $2, $3, $4, clock_timestamp(), $5)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(device.0)
    .bind(secret_mac.as_slice())
    .bind(expires_at)
    .execute(tx.conn())
    .await?;
    routes::add(tx, "claim", id.0).await
}

/// Ends the claims of a device that nobody has taken up.
pub async fn expire_others(tx: &mut TenantTx, device: DeviceId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE claim SET expires_at = $3
         WHERE tenant_id = $1 AND device_id = $2 AND bound_spki IS NULL AND expires_at > $3",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct ClaimRow {
    device_id: Uuid,
    secret_mac: Vec<u8>,
    expires_at: OffsetDateTime,
    bound_spki: Option<Vec<u8>>,
    newest: bool,
}

/// A claim and the device that it is for.
pub async fn get(tx: &mut TenantTx, id: ClaimId) -> Result<Option<(DeviceId, Claim)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<ClaimRow> = sqlx::query_as(
        "SELECT device_id, secret_mac, expires_at, bound_spki, NOT EXISTS (
             SELECT FROM claim later
             WHERE later.tenant_id = claim.tenant_id AND later.device_id = claim.device_id
               AND (later.created_at, later.id) > (claim.created_at, claim.id)) AS newest
         FROM claim WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    row.map(|row| {
        let claim = Claim {
            secret_mac: hash("claim.secret_mac", row.secret_mac)?,
            expires_at: row.expires_at,
            bound_spki: row.bound_spki.map(|spki| hash("claim.bound_spki", spki)).transpose()?,
            newest: row.newest,
        };
        Ok((DeviceId(row.device_id), claim))
    })
    .transpose()
}

/// Binds a free, living claim to a public key, or confirms that it is bound to this one. One statement, so that of
/// two racing devices exactly one gets `true`.
pub async fn bind(
    tx: &mut TenantTx,
    id: ClaimId,
    spki_sha256: &[u8; 32],
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE claim SET bound_spki = $3, bound_at = coalesce(bound_at, $4)
         WHERE tenant_id = $1 AND id = $2 AND ((bound_spki IS NULL AND expires_at > $4) OR bound_spki = $3)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(spki_sha256.as_slice())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

fn hash(what: &'static str, bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Unreadable { what, reason: "not 32 bytes" })
}
