//! Raising a gallery's epoch after the database was restored from a backup: devices have seen what the backup does not have.
//!
//! In: a gallery with its keys sealed for the new epoch. Out: the same live entries under that epoch, as a log that is compacted
//! up to its present version, so that every device takes a snapshot of it. Leaves are hashes of bodies under GDK, in which
//! no epoch is: they stay, and nothing needs to be unsealed.

use gallery_log::digest::root_of;

use super::{GalleryId, buckets, version};
use crate::domain::gallery::log_id;
use crate::store::{StoreError, TenantTx};

/// Moves a gallery to a higher epoch; false when it is there, or beyond it, already.
pub async fn raise(
    tx: &mut TenantTx,
    id: GalleryId,
    to: u32,
    gdk_sealed: &[u8],
    ck_sealed: &[u8],
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<(i64, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT epoch, version, buckets FROM gallery WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    let (held, head, hashes) = row.ok_or(StoreError::NotFound { what: "gallery", id: id.0 })?;
    if held >= i64::from(to) {
        return Ok(false);
    }
    version("gallery.version", head)?;
    let root = root_of(log_id(id), to, &*buckets(&hashes)?);
    for statement in [
        "INSERT INTO gallery_buried (tenant_id, gallery_id, object_id)
         SELECT DISTINCT tenant_id, gallery_id, object_id FROM gallery_record
         WHERE tenant_id = $1 AND gallery_id = $2 AND op = 'del' AND epoch <= $3
         ON CONFLICT DO NOTHING",
        // Version 0 is no version of a record, and behind the head none is needed.
        "DELETE FROM gallery_record r
         WHERE r.tenant_id = $1 AND r.gallery_id = $2 AND (r.epoch < $3 OR r.op = 'del' OR NOT EXISTS (
             SELECT FROM gallery_leaf l
             WHERE l.tenant_id = $1 AND l.gallery_id = $2 AND l.object_id = r.object_id AND l.revision = r.revision))",
        "DELETE FROM gallery_version WHERE tenant_id = $1 AND gallery_id = $2 AND epoch <= $3",
        "DELETE FROM gallery_snapshot WHERE tenant_id = $1 AND gallery_id = $2 AND epoch <= $3",
    ] {
        sqlx::query(statement).bind(tenant).bind(id.0).bind(held).execute(tx.conn()).await?;
    }
    sqlx::query("UPDATE gallery_record SET epoch = $3 WHERE tenant_id = $1 AND gallery_id = $2 AND epoch = $4")
        .bind(tenant)
        .bind(id.0)
        .bind(i64::from(to))
        .bind(held)
        .execute(tx.conn())
        .await?;
    sqlx::query(
        "INSERT INTO gallery_version (tenant_id, gallery_id, epoch, version, root) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(i64::from(to))
    .bind(head)
    .bind(root.0.as_slice())
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "UPDATE gallery SET epoch = $3, root = $4, gdk_sealed = $5, ck_sealed = $6, compacted_to = version
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(i64::from(to))
    .bind(root.0.as_slice())
    .bind(gdk_sealed)
    .bind(ck_sealed)
    .execute(tx.conn())
    .await?;
    Ok(true)
}
