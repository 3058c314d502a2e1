//! Appending to a gallery's log, in the transaction of whatever made the change.
//!
//! In: changes with their sealed bodies. Out: records, a root for each version, the leaves of the present state, the new head
//! and the announcement. A put of an entry that was deleted before is refused, whoever wants it.

use std::collections::{BTreeMap, BTreeSet};

use gallery_log::{AppendError, DigestKey, Leaf, RecordId, Root};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Pending, bucket_bytes, buckets, hash, kind_name, kind_of, op_name, version};
use crate::domain::gallery::{Appended, Change, Head, Known, LiveLeaf, append as compute, touched_buckets};
use crate::domain::ids::GalleryId;
use crate::domain::vault::TenantKeys;
use crate::store::database::GALLERY_CHANNEL;
use crate::store::devices::epoch;
use crate::store::{StoreError, TenantTx};

/// Appends to a gallery's log: records, a root per version, leaves, the new head, and the announcement.
/// Locks the gallery until the transaction ends; a transaction that changes several takes them in the order of ids.
pub async fn append(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    id: GalleryId,
    pending: &[Pending],
) -> Result<u64, StoreError> {
    let (head, gdk) = lock(tx, keys, id).await?;
    let known = Known { leaves: leaves(tx, id, &touched(pending)).await?, deleted: deleted(tx, id, pending).await? };
    write(tx, &head, &gdk, &known, pending).await
}

/// Appends those of these dels whose objects are live in the gallery; `None` if none is. A del of what is not there
/// would not follow from the log.
pub async fn remove(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    id: GalleryId,
    mut dels: Vec<Pending>,
) -> Result<Option<u64>, StoreError> {
    let (head, gdk) = lock(tx, keys, id).await?;
    let known = Known { leaves: leaves(tx, id, &touched(&dels)).await?, deleted: BTreeSet::new() };
    dels.retain(|del| known.leaves.contains_key(&del.change.id()));
    if dels.is_empty() {
        return Ok(None);
    }
    write(tx, &head, &gdk, &known, &dels).await.map(Some)
}

fn touched(pending: &[Pending]) -> BTreeSet<u8> {
    let changes: Vec<Change> = pending.iter().map(|one| one.change.clone()).collect();
    touched_buckets(&changes)
}

async fn write(
    tx: &mut TenantTx,
    head: &Head,
    gdk: &DigestKey,
    known: &Known,
    pending: &[Pending],
) -> Result<u64, StoreError> {
    let id = head.gallery;
    let changes: Vec<Change> = pending.iter().map(|one| one.change.clone()).collect();
    let (appended, next) = compute(head, known, &changes, gdk).map_err(|error| match error {
        AppendError::Deleted { id } => StoreError::Deleted { id: id.0 },
        _ => StoreError::Unreadable { what: "gallery_leaf", reason: "a change does not follow from it" },
    })?;
    for (record, pending) in appended.iter().zip(pending) {
        write_record(tx, &next, record, pending).await?;
        write_leaf(tx, id, record).await?;
        write_root(tx, id, next.epoch, record.version, record.root).await?;
    }
    write_head(tx, &next).await?;
    Ok(next.version)
}

#[derive(FromRow)]
struct HeadRow {
    epoch: i64,
    version: i64,
    buckets: Vec<u8>,
    gdk_sealed: Vec<u8>,
}

async fn lock(tx: &mut TenantTx, keys: &TenantKeys, id: GalleryId) -> Result<(Head, DigestKey), StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<HeadRow> = sqlx::query_as(
        "SELECT epoch, version, buckets, gdk_sealed FROM gallery WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    let row = row.ok_or(StoreError::NotFound { what: "gallery", id: id.0 })?;
    let number = epoch("gallery.epoch", row.epoch)?;
    let gdk = DigestKey::new(*keys.open_gdk(id, number, &row.gdk_sealed)?);
    let head = Head {
        gallery: id,
        epoch: number,
        version: version("gallery.version", row.version)?,
        buckets: buckets(&row.buckets)?,
    };
    Ok((head, gdk))
}

async fn leaves(
    tx: &mut TenantTx,
    id: GalleryId,
    touched: &BTreeSet<u8>,
) -> Result<BTreeMap<RecordId, LiveLeaf>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(Uuid, String, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT object_id, kind, revision, leaf FROM gallery_leaf
         WHERE tenant_id = $1 AND gallery_id = $2 AND bucket = ANY ($3)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(touched.iter().map(|bucket| i16::from(*bucket)).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter()
        .map(|(object, kind, revision, leaf)| {
            let leaf = LiveLeaf {
                kind: kind_of(&kind)?,
                rev: epoch("gallery_leaf.revision", revision)?,
                leaf: Leaf(hash("gallery_leaf.leaf", &leaf)?),
            };
            Ok((RecordId(object), leaf))
        })
        .collect()
}

/// Which of the entries that are to be put have been deleted before: in any epoch, and whether or not the log still has their
/// `del`, for ids are never used again.
async fn deleted(tx: &mut TenantTx, id: GalleryId, pending: &[Pending]) -> Result<BTreeSet<RecordId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let puts = pending.iter().filter(|one| matches!(one.change, Change::Put { .. }));
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT object_id FROM gallery_record
         WHERE tenant_id = $1 AND gallery_id = $2 AND op = 'del' AND object_id = ANY ($3)
         UNION
         SELECT object_id FROM gallery_buried WHERE tenant_id = $1 AND gallery_id = $2 AND object_id = ANY ($3)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(puts.map(|one| one.change.id().0).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(RecordId).collect())
}

async fn write_record(tx: &mut TenantTx, head: &Head, record: &Appended, pending: &Pending) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO gallery_record (tenant_id, gallery_id, epoch, version, op, kind, object_id, revision, person_id, space_id, sealed, leaf)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(tenant)
    .bind(head.gallery.0)
    .bind(i64::from(head.epoch))
    .bind(i64::try_from(record.version).unwrap_or(i64::MAX))
    .bind(op_name(record.op))
    .bind(kind_name(record.kind))
    .bind(record.id.0)
    .bind(i64::from(record.rev))
    .bind(pending.person.map(|id| id.0))
    .bind(pending.space_id.as_deref())
    .bind(pending.sealed.as_deref())
    .bind(record.leaf.map(|leaf| leaf.0.to_vec()))
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn write_leaf(tx: &mut TenantTx, id: GalleryId, record: &Appended) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let query = match record.leaf {
        Some(leaf) => sqlx::query(
            "INSERT INTO gallery_leaf (tenant_id, gallery_id, bucket, object_id, kind, revision, leaf)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (tenant_id, gallery_id, bucket, object_id) DO UPDATE
             SET revision = excluded.revision, leaf = excluded.leaf",
        )
        .bind(tenant)
        .bind(id.0)
        .bind(i16::from(record.bucket))
        .bind(record.id.0)
        .bind(kind_name(record.kind))
        .bind(i64::from(record.rev))
        .bind(leaf.0.to_vec()),
        None => sqlx::query(
            "DELETE FROM gallery_leaf WHERE tenant_id = $1 AND gallery_id = $2 AND bucket = $3 AND object_id = $4",
        )
        .bind(tenant)
        .bind(id.0)
        .bind(i16::from(record.bucket))
        .bind(record.id.0),
    };
    query.execute(tx.conn()).await?;
    Ok(())
}

pub(super) async fn write_root(
    tx: &mut TenantTx,
    id: GalleryId,
    number: u32,
    version: u64,
    root: Root,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO gallery_version (tenant_id, gallery_id, epoch, version, root) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(i64::from(number))
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .bind(root.0.as_slice())
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn write_head(tx: &mut TenantTx, head: &Head) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE gallery SET version = $3, buckets = $4, root = $5 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(head.gallery.0)
        .bind(i64::try_from(head.version).unwrap_or(i64::MAX))
        .bind(bucket_bytes(head))
        .bind(head.root().0.as_slice())
        .execute(tx.conn())
        .await?;
    announce(tx, head.gallery).await
}

/// Tells whoever keeps devices up to a gallery that it has changed, when this transaction is committed.
pub(super) async fn announce(tx: &mut TenantTx, id: GalleryId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(GALLERY_CHANNEL)
        .bind(format!("{tenant}/{id}"))
        .execute(tx.conn())
        .await?;
    Ok(())
}
