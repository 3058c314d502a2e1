//! A device's certificates: the present one, the next one while a renewal is on its way, and those that serve for nothing.
//!
//! In: what was issued, and what a device showed. Out: rows of `device` and `revoked_certificate`. The caller has the
//! device locked ([`super::devices::lock_for_claim`]) wherever two certificates may change at once.
//! Deliberately absent: who may have a certificate (`domain`), and making one (`pki`).

use std::collections::BTreeSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::devices::lock_for_claim;
use super::{StoreError, TenantTx, routes};
use hub_domain::certificate::{DeviceCertificate, RENEWABLE_AFTER_END};
use hub_domain::ids::DeviceId;

/// Notes the certificate of a claim, makes the device known to topics and broker, and so ends the use of every older one.
pub async fn claimed(
    tx: &mut TenantTx,
    id: DeviceId,
    hardware_serial: &str,
    certificate: &DeviceCertificate,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    lock_for_claim(tx, id).await?;
    revoke(tx, id, Some(&certificate.serial)).await?;
    let done = sqlx::query(
        "UPDATE device SET state = 'claimed', serial = $3, spki_sha256 = $4, certificate_serial = $5,
             certificate_expires_at = $6, certificate_issuer = $7, next_spki_sha256 = NULL, next_certificate_serial = NULL,
             next_certificate_expires_at = NULL, next_certificate_issuer = NULL
         WHERE tenant_id = $1 AND id = $2 AND state <> 'revoked'",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(hardware_serial)
    .bind(certificate.spki_sha256.as_slice())
    .bind(&certificate.serial)
    .bind(certificate.expires_at)
    .bind(certificate.issuer.as_slice())
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Err(StoreError::NotFound { what: "device", id: id.0 });
    }
    routes::add(tx, "device", id.0).await
}

/// Notes the next certificate of a device that renews. One that an earlier answer offered serves for nothing any more:
/// the device asks again only when it does not have that answer.
pub async fn offered(tx: &mut TenantTx, id: DeviceId, certificate: &DeviceCertificate) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO revoked_certificate (serial, expires_at)
         SELECT next_certificate_serial, next_certificate_expires_at FROM device
         WHERE tenant_id = $1 AND id = $2 AND next_certificate_serial IS NOT NULL
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(id.0)
    .execute(tx.conn())
    .await?;
    let done = sqlx::query(
        "UPDATE device SET next_spki_sha256 = $3, next_certificate_serial = $4, next_certificate_expires_at = $5,
             next_certificate_issuer = $6
         WHERE tenant_id = $1 AND id = $2 AND state = 'claimed'",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(certificate.spki_sha256.as_slice())
    .bind(&certificate.serial)
    .bind(certificate.expires_at)
    .bind(certificate.issuer.as_slice())
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Err(StoreError::NotFound { what: "device", id: id.0 });
    }
    Ok(())
}

/// The device has shown its next certificate: it is the present one now, and the one before serves for nothing.
/// False when `serial` is not the next one, because another request was first.
pub async fn taken_up(tx: &mut TenantTx, id: DeviceId, serial: &str) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    lock_for_claim(tx, id).await?;
    let next: Option<String> =
        sqlx::query_scalar("SELECT next_certificate_serial FROM device WHERE tenant_id = $1 AND id = $2")
            .bind(tenant)
            .bind(id.0)
            .fetch_one(tx.conn())
            .await?;
    if next.as_deref() != Some(serial) {
        return Ok(false);
    }
    revoke(tx, id, Some(serial)).await?;
    sqlx::query(
        "UPDATE device SET spki_sha256 = next_spki_sha256, certificate_serial = next_certificate_serial,
             certificate_expires_at = next_certificate_expires_at, certificate_issuer = next_certificate_issuer,
             next_spki_sha256 = NULL, next_certificate_serial = NULL, next_certificate_expires_at = NULL,
             next_certificate_issuer = NULL
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .execute(tx.conn())
    .await?;
    Ok(true)
}

/// Puts the device's certificates on the list of those that are good for nothing, all but the one that is `kept`.
pub(super) async fn revoke(tx: &mut TenantTx, id: DeviceId, kept: Option<&str>) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO revoked_certificate (serial, expires_at)
         SELECT held.serial, held.expires_at
         FROM device, LATERAL (VALUES (certificate_serial, certificate_expires_at),
                                      (next_certificate_serial, next_certificate_expires_at)) AS held (serial, expires_at)
         WHERE tenant_id = $1 AND id = $2 AND held.serial IS NOT NULL AND held.expires_at IS NOT NULL
           AND held.serial IS DISTINCT FROM $3
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(kept)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How many devices would have to be claimed anew at `now` if nobody but this authority were believed: the present certificate
/// is of another one, or the next one is. What has no issuer is of a version that noted none, and so of another one.
pub async fn of_others(tx: &mut TenantTx, issuer: &[u8; 32], now: OffsetDateTime) -> Result<u64, StoreError> {
    let tenant = tx.tenant_uuid();
    let n: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM device
         WHERE tenant_id = $1 AND state = 'claimed'
           AND ((certificate_serial IS NOT NULL AND certificate_expires_at > $3 AND certificate_issuer IS DISTINCT FROM $2)
             OR (next_certificate_serial IS NOT NULL AND next_certificate_expires_at > $3
                 AND next_certificate_issuer IS DISTINCT FROM $2))",
    )
    .bind(tenant)
    .bind(issuer.as_slice())
    // Until then it may still renew itself.
    .bind(now - RENEWABLE_AFTER_END)
    .fetch_one(tx.conn())
    .await?;
    Ok(n.unsigned_abs())
}

/// Ends the certificates that another authority issued. Returns whose they were; such a device is claimed anew, unless its next
/// certificate is of this authority and it shows that one.
pub async fn end_of_others(tx: &mut TenantTx, issuer: &[u8; 32]) -> Result<BTreeSet<DeviceId>, StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO revoked_certificate (serial, expires_at)
         SELECT held.serial, held.expires_at
         FROM device, LATERAL (VALUES (certificate_serial, certificate_expires_at, certificate_issuer),
                                      (next_certificate_serial, next_certificate_expires_at, next_certificate_issuer))
                      AS held (serial, expires_at, issuer)
         WHERE tenant_id = $1 AND state = 'claimed' AND held.serial IS NOT NULL AND held.expires_at IS NOT NULL
           AND held.issuer IS DISTINCT FROM $2
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(issuer.as_slice())
    .execute(tx.conn())
    .await?;
    let mut ended = BTreeSet::new();
    for statement in [
        "UPDATE device SET spki_sha256 = NULL, certificate_serial = NULL, certificate_expires_at = NULL, certificate_issuer = NULL
         WHERE tenant_id = $1 AND state = 'claimed' AND certificate_serial IS NOT NULL AND certificate_issuer IS DISTINCT FROM $2
         RETURNING id",
        "UPDATE device SET next_spki_sha256 = NULL, next_certificate_serial = NULL, next_certificate_expires_at = NULL,
             next_certificate_issuer = NULL
         WHERE tenant_id = $1 AND state = 'claimed' AND next_certificate_serial IS NOT NULL
           AND next_certificate_issuer IS DISTINCT FROM $2
         RETURNING id",
    ] {
        let ids: Vec<Uuid> =
            sqlx::query_scalar(statement).bind(tenant).bind(issuer.as_slice()).fetch_all(tx.conn()).await?;
        ended.extend(ids.into_iter().map(DeviceId));
    }
    Ok(ended)
}
