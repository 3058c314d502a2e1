//! Raising a gallery's epoch: after the database was restored from a backup, for devices have seen what the backup does not have,
//! and when the gallery gets other keys.
//!
//! In: a gallery with its keys sealed for the new epoch. Out: the same live entries under that epoch, as a log that is compacted
//! up to its present version: a device that is not there takes a snapshot. Leaves are hashes of bodies under GDK, in which no epoch is: after a
//! restored backup they stay, and nothing needs to be unsealed; under another GDK they are others ([`relabel`]).

use gallery_log::digest::{bucket_of, root_of};
use gallery_log::{Digest, Leaf, RecordId};

use super::writing::announce;
use super::{GalleryId, buckets, version};
use crate::devices::epoch;
use crate::{StoreError, TenantTx};
use hub_domain::gallery::log_id;

/// Leaves that one statement writes.
const AT_ONCE: usize = 1_000;
/// A large gallery's records are all written at once when its epoch rises: more than other statements may take.
const LONGER: &str = "SET LOCAL statement_timeout = '2min'";

/// The leaf of a live entry under another key.
#[derive(Clone, Copy, Debug)]
pub struct NewLeaf {
    /// The entry.
    pub id: RecordId,
    /// The version of its record.
    pub version: u64,
    /// Its leaf.
    pub leaf: Leaf,
}

/// Keeps others from changing a gallery until the transaction ends; returns its epoch.
pub async fn lock(tx: &mut TenantTx, id: GalleryId) -> Result<u32, StoreError> {
    let tenant = tx.tenant_uuid();
    let held: Option<i64> =
        sqlx::query_scalar("SELECT epoch FROM gallery WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE")
            .bind(tenant)
            .bind(id.0)
            .fetch_optional(tx.conn())
            .await?;
    epoch("gallery.epoch", held.ok_or(StoreError::NotFound { what: "gallery", id: id.0 })?)
}

/// Gives all live entries of a gallery other leaves, and the gallery the buckets that follow from them. The root follows when its epoch
/// is [`raise`]d, in the same transaction.
pub async fn relabel(tx: &mut TenantTx, id: GalleryId, leaves: &[NewLeaf]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(LONGER).execute(tx.conn()).await?;
    let live: i64 = sqlx::query_scalar("SELECT count(*) FROM gallery_leaf WHERE tenant_id = $1 AND gallery_id = $2")
        .bind(tenant)
        .bind(id.0)
        .fetch_one(tx.conn())
        .await?;
    let mut digest = Digest::new(log_id(id), 0);
    for some in leaves.chunks(AT_ONCE) {
        for one in some {
            digest.put(one.id, one.leaf);
        }
        let written = write_leaves(tx, id, some).await?;
        if written != some.len() as u64 {
            return Err(StoreError::Unreadable { what: "gallery_leaf", reason: "a record's leaf is not there" });
        }
    }
    if digest.len() != usize::try_from(live).unwrap_or(0) {
        return Err(StoreError::Unreadable { what: "gallery_leaf", reason: "a leaf's record is not there" });
    }
    let bytes: Vec<u8> = digest.buckets().iter().flat_map(|bucket| bucket.0).collect();
    sqlx::query("UPDATE gallery SET buckets = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(bytes)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Writes leaves, of the present state and of the log; returns how many there were of the present state.
async fn write_leaves(tx: &mut TenantTx, id: GalleryId, leaves: &[NewLeaf]) -> Result<u64, StoreError> {
    let tenant = tx.tenant_uuid();
    let objects: Vec<_> = leaves.iter().map(|one| one.id.0).collect();
    let hashes: Vec<Vec<u8>> = leaves.iter().map(|one| one.leaf.0.to_vec()).collect();
    let written = sqlx::query(
        "UPDATE gallery_leaf l SET leaf = n.leaf FROM UNNEST($3::smallint[], $4::uuid[], $5::bytea[]) n (bucket, object_id, leaf)
         WHERE l.tenant_id = $1 AND l.gallery_id = $2 AND l.bucket = n.bucket AND l.object_id = n.object_id",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(leaves.iter().map(|one| i16::from(bucket_of(one.id))).collect::<Vec<_>>())
    .bind(objects)
    .bind(hashes.clone())
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "UPDATE gallery_record r SET leaf = n.leaf
         FROM UNNEST($3::bigint[], $4::bytea[]) n (version, leaf), gallery g
         WHERE g.tenant_id = $1 AND g.id = $2
           AND r.tenant_id = $1 AND r.gallery_id = $2 AND r.epoch = g.epoch AND r.version = n.version",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(leaves.iter().map(|one| i64::try_from(one.version).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(hashes)
    .execute(tx.conn())
    .await?;
    Ok(written.rows_affected())
}

/// Moves a gallery to a higher epoch, and tells those who keep devices up to it; false when it is there, or beyond it, already.
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
    announce(tx, &[id]).await?;
    Ok(true)
}
