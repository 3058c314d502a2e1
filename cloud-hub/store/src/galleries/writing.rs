//! The statements that write a gallery's log. Each writes the rows of any number of galleries, by arrays.

use std::collections::BTreeMap;

use gallery_log::{RecordId, Root};

use super::{Pending, bucket_bytes, kind_name, op_name};
use crate::database::GALLERY_CHANNEL;
use crate::{StoreError, TenantTx};
use hub_domain::gallery::{Appended, Head};
use hub_domain::ids::GalleryId;

/// A record on its way into a log.
pub(super) struct Written {
    pub(super) gallery: GalleryId,
    pub(super) epoch: u32,
    pub(super) record: Appended,
    /// Its place in the list of what is pending.
    pub(super) of: usize,
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A body goes over once, however many galleries it is for.
pub(super) async fn write_records(
    tx: &mut TenantTx,
    records: &[Written],
    pending: &[Pending],
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO gallery_record (tenant_id, gallery_id, epoch, version, op, kind, object_id, revision, person_id, space_id, sealed, leaf)
         SELECT $1, r.gallery_id, r.epoch, r.version, r.op, r.kind, r.object_id, r.revision, p.person_id, p.space_id, p.sealed, r.leaf
         FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::uuid[], $8::bigint[], $9::bytea[], $10::bigint[])
                AS r (gallery_id, epoch, version, op, kind, object_id, revision, leaf, place)
         JOIN unnest($11::uuid[], $12::text[], $13::bytea[]) WITH ORDINALITY AS p (person_id, space_id, sealed, n) ON p.n = r.place + 1",
    )
    .bind(tenant)
    .bind(records.iter().map(|one| one.gallery.0).collect::<Vec<_>>())
    .bind(records.iter().map(|one| i64::from(one.epoch)).collect::<Vec<_>>())
    .bind(records.iter().map(|one| number(one.record.version)).collect::<Vec<_>>())
    .bind(records.iter().map(|one| op_name(one.record.op)).collect::<Vec<_>>())
    .bind(records.iter().map(|one| kind_name(one.record.kind)).collect::<Vec<_>>())
    .bind(records.iter().map(|one| one.record.id.0).collect::<Vec<_>>())
    .bind(records.iter().map(|one| i64::from(one.record.rev)).collect::<Vec<_>>())
    .bind(records.iter().map(|one| one.record.leaf.map(|leaf| leaf.0.to_vec())).collect::<Vec<_>>())
    .bind(records.iter().map(|one| number(one.of as u64)).collect::<Vec<_>>())
    .bind(pending.iter().map(|one| one.person.map(|id| id.0)).collect::<Vec<_>>())
    .bind(pending.iter().map(|one| one.space_id.as_deref()).collect::<Vec<_>>())
    .bind(pending.iter().map(|one| one.sealed.as_deref()).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub(super) async fn write_leaves(tx: &mut TenantTx, records: &[Written]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    // What comes twice in one change is in the end as its last record says.
    let last: BTreeMap<(GalleryId, RecordId), &Appended> =
        records.iter().map(|one| ((one.gallery, one.record.id), &one.record)).collect();
    let (live, gone): (Vec<_>, Vec<_>) = last.into_iter().partition(|(_, record)| record.leaf.is_some());
    let galleries = |of: &[((GalleryId, RecordId), &Appended)]| of.iter().map(|(at, _)| at.0.0).collect::<Vec<_>>();
    let buckets = |of: &[((GalleryId, RecordId), &Appended)]| {
        of.iter().map(|(_, record)| i16::from(record.bucket)).collect::<Vec<_>>()
    };
    let objects = |of: &[((GalleryId, RecordId), &Appended)]| of.iter().map(|(at, _)| at.1.0).collect::<Vec<_>>();
    if !live.is_empty() {
        sqlx::query(
            "INSERT INTO gallery_leaf (tenant_id, gallery_id, bucket, object_id, kind, revision, leaf)
             SELECT $1, * FROM unnest($2::uuid[], $3::smallint[], $4::uuid[], $5::text[], $6::bigint[], $7::bytea[])
             ON CONFLICT (tenant_id, gallery_id, bucket, object_id) DO UPDATE
             SET revision = excluded.revision, leaf = excluded.leaf",
        )
        .bind(tenant)
        .bind(galleries(&live))
        .bind(buckets(&live))
        .bind(objects(&live))
        .bind(live.iter().map(|(_, record)| kind_name(record.kind)).collect::<Vec<_>>())
        .bind(live.iter().map(|(_, record)| i64::from(record.rev)).collect::<Vec<_>>())
        .bind(live.iter().map(|(_, record)| record.leaf.map(|leaf| leaf.0.to_vec())).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    }
    if !gone.is_empty() {
        sqlx::query(
            "DELETE FROM gallery_leaf l USING unnest($2::uuid[], $3::smallint[], $4::uuid[]) AS gone (gallery_id, bucket, object_id)
             WHERE l.tenant_id = $1 AND l.gallery_id = gone.gallery_id AND l.bucket = gone.bucket AND l.object_id = gone.object_id",
        )
        .bind(tenant)
        .bind(galleries(&gone))
        .bind(buckets(&gone))
        .bind(objects(&gone))
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// The root of each version: gallery, epoch, version, root.
pub(super) async fn write_roots(
    tx: &mut TenantTx,
    roots: impl Iterator<Item = (GalleryId, u32, u64, Root)> + Clone,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO gallery_version (tenant_id, gallery_id, epoch, version, root)
         SELECT $1, * FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bytea[])",
    )
    .bind(tenant)
    .bind(roots.clone().map(|(id, ..)| id.0).collect::<Vec<_>>())
    .bind(roots.clone().map(|(_, epoch, ..)| i64::from(epoch)).collect::<Vec<_>>())
    .bind(roots.clone().map(|(_, _, version, _)| number(version)).collect::<Vec<_>>())
    .bind(roots.map(|(.., root)| root.0.to_vec()).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}

pub(super) async fn write_heads(tx: &mut TenantTx, heads: &[Head]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE gallery g SET version = head.version, buckets = head.buckets, root = head.root
         FROM unnest($2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[]) AS head (id, version, buckets, root)
         WHERE g.tenant_id = $1 AND g.id = head.id",
    )
    .bind(tenant)
    .bind(heads.iter().map(|head| head.gallery.0).collect::<Vec<_>>())
    .bind(heads.iter().map(|head| number(head.version)).collect::<Vec<_>>())
    .bind(heads.iter().map(bucket_bytes).collect::<Vec<_>>())
    .bind(heads.iter().map(|head| head.root().0.to_vec()).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Tells whoever keeps devices up to a gallery that it has changed, when this transaction is committed.
pub(super) async fn announce(tx: &mut TenantTx, galleries: &[GalleryId]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload")
        .bind(GALLERY_CHANNEL)
        .bind(galleries.iter().map(|id| format!("{tenant}/{id}")).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    Ok(())
}
