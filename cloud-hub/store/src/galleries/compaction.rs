//! Taking out of a gallery's log what no device needs any more.
//!
//! In: who counts as a live device, and how young a record must be to stay in any case. Out: a log without the puts that were
//! replaced and without the dels, up to the version that every live device has passed; what is live keeps its record there,
//! so that snapshots and healings can be made. The ids of removed dels are kept for good: no put of them is ever appended.

use super::version;
use crate::devices::epoch;
use crate::{StoreError, TenantTx};
use hub_domain::compaction::{Compacted, Keep, LogSize};
use hub_domain::ids::GalleryId;

/// Versions that one transaction passes at most, so that no change of people waits long for the gallery's lock.
const STEP: i64 = 20_000;

/// Compacts one gallery's log as far as it may be, a step at most.
pub async fn compact(tx: &mut TenantTx, id: GalleryId, keep: Keep) -> Result<Compacted, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT epoch, version, compacted_to FROM gallery WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    // What has ended is on no offer any more, and holds nothing back.
    sqlx::query("DELETE FROM gallery_snapshot WHERE tenant_id = $1 AND gallery_id = $2 AND expires_at <= $3")
        .bind(tenant)
        .bind(id.0)
        .bind(keep.now)
        .execute(tx.conn())
        .await?;
    let (number, head, before) = row.ok_or(StoreError::NotFound { what: "gallery", id: id.0 })?;
    let allowed = passed_by_all(tx, id, number, keep).await?.unwrap_or(head).min(head);
    let to = allowed.min(before + STEP);
    if to <= before {
        return Ok(Compacted { compacted_to: version("gallery.compacted_to", before)?, ..Compacted::default() });
    }
    // A tombstone is kept by its id alone.
    let buried = sqlx::query(
        "INSERT INTO gallery_buried (tenant_id, gallery_id, object_id)
         SELECT DISTINCT tenant_id, gallery_id, object_id FROM gallery_record
         WHERE tenant_id = $1 AND gallery_id = $2 AND op = 'del' AND (epoch < $3 OR (epoch = $3 AND version <= $4))
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(number)
    .bind(to)
    .execute(tx.conn())
    .await?;
    let gone = sqlx::query(
        "DELETE FROM gallery_record r
         WHERE r.tenant_id = $1 AND r.gallery_id = $2 AND (r.epoch < $3 OR (r.epoch = $3 AND r.version <= $4
               AND (r.op = 'del' OR EXISTS (
                   SELECT FROM gallery_record n
                   WHERE n.tenant_id = $1 AND n.gallery_id = $2 AND n.epoch = $3 AND n.object_id = r.object_id
                     AND n.version > r.version AND n.version <= $4))))",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(number)
    .bind(to)
    .execute(tx.conn())
    .await?;
    // The root of the last version stays: who stands there is compared with it.
    sqlx::query(
        "DELETE FROM gallery_version
         WHERE tenant_id = $1 AND gallery_id = $2 AND (epoch < $3 OR (epoch = $3 AND version < $4))",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(number)
    .bind(to)
    .execute(tx.conn())
    .await?;
    sqlx::query("UPDATE gallery SET compacted_to = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(to)
        .execute(tx.conn())
        .await?;
    Ok(Compacted {
        compacted_to: version("gallery.compacted_to", to)?,
        records: gone.rows_affected(),
        tombstones: buried.rows_affected(),
        more: to < allowed,
    })
}

/// The version that every live device has reported, that lies before what was written lately, and that no snapshot on offer
/// needs; `None` when nothing holds anything back.
async fn passed_by_all(tx: &mut TenantTx, id: GalleryId, number: i64, keep: Keep) -> Result<Option<i64>, StoreError> {
    let tenant = tx.tenant_uuid();
    Ok(sqlx::query_scalar(
        "SELECT least(
             (SELECT min(r.version) FROM gallery g
              JOIN device d ON d.tenant_id = g.tenant_id AND d.site_id = g.site_id AND d.state = 'claimed'
              JOIN device_gallery r ON r.tenant_id = d.tenant_id AND r.device_id = d.id AND r.gallery_id = g.id
              WHERE g.tenant_id = $1 AND g.id = $2 AND r.epoch = $3
                AND ($4::timestamptz IS NULL OR d.last_seen_at >= $4)),
             (SELECT min(s.version) FROM gallery_snapshot s
              WHERE s.tenant_id = $1 AND s.gallery_id = $2 AND s.epoch = $3 AND s.expires_at > $6),
             (SELECT min(c.version) - 1 FROM gallery_record c
              WHERE c.tenant_id = $1 AND c.gallery_id = $2 AND c.epoch = $3 AND c.at >= $5))",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(number)
    .bind(keep.live_since)
    .bind(keep.written_since)
    .bind(keep.now)
    .fetch_one(tx.conn())
    .await?)
}

/// How long a gallery's log is.
pub async fn size(tx: &mut TenantTx, id: GalleryId) -> Result<LogSize, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<(i64, i64, i64, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT g.epoch, g.version, g.compacted_to,
                (SELECT count(*) FROM gallery_leaf l WHERE l.tenant_id = g.tenant_id AND l.gallery_id = g.id),
                (SELECT count(*) FROM gallery_record r WHERE r.tenant_id = g.tenant_id AND r.gallery_id = g.id),
                (SELECT count(*) FROM gallery_buried b WHERE b.tenant_id = g.tenant_id AND b.gallery_id = g.id),
                (SELECT count(*) FROM gallery_snapshot s WHERE s.tenant_id = g.tenant_id AND s.gallery_id = g.id)
         FROM gallery g WHERE g.tenant_id = $1 AND g.id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    let (number, last, whole_from, live, records, buried, snapshots) =
        row.ok_or(StoreError::NotFound { what: "gallery", id: id.0 })?;
    Ok(LogSize {
        gallery: id,
        epoch: epoch("gallery.epoch", number)?,
        version: version("gallery.version", last)?,
        compacted_to: version("gallery.compacted_to", whole_from)?,
        live: version("count", live)?,
        records: version("count", records)?,
        buried: version("count", buried)?,
        snapshots: version("count", snapshots)?,
    })
}
