//! Appending to a gallery's log, in the transaction of whatever made the change.
//!
//! In: changes with their sealed bodies, and the galleries that they are for. Out: records, a root for each version, the leaves of the
//! present state, new heads and announcements. A put of an entry that was deleted before is refused, whoever wants it.

use std::collections::{BTreeMap, BTreeSet};

use gallery_log::{AppendError, DigestKey, Leaf, RecordId};
use sqlx::FromRow;
use uuid::Uuid;

use super::writing::{Written, announce, write_heads, write_leaves, write_records, write_roots};
use super::{Pending, buckets, hash, kind_of, version};
use crate::devices::epoch;
use crate::{StoreError, TenantTx};
use hub_domain::gallery::{Change, Head, Known, LiveLeaf, append as compute, touched_buckets};
use hub_domain::ids::GalleryId;
use hub_domain::vault::TenantKeys;

/// Galleries that one statement reads or writes: their heads have 8 KiB each.
const AT_ONCE: usize = 256;

/// The galleries of a change, each with the places of its share in the list of what is pending.
type Shares = BTreeMap<GalleryId, Vec<usize>>;

/// Appends the same changes to the logs of these galleries: records, a root per version, leaves, new heads, and announcements.
/// Locks them until the transaction ends, in the order of ids. Whatever the number of galleries, the statements are as many.
pub async fn append(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    galleries: &[GalleryId],
    pending: &[Pending],
) -> Result<(), StoreError> {
    let shares: Shares = galleries.iter().map(|id| (*id, (0..pending.len()).collect())).collect();
    for shares in some_at_once(shares) {
        let locked = lock(tx, keys, &shares).await?;
        let known = known(tx, &shares, pending).await?;
        write(tx, &locked, known, &shares, pending).await?;
    }
    Ok(())
}

/// Appends those of these dels whose objects are live in their gallery. A del of what is not there would not follow from the log.
/// Returns the galleries in which there were some, with their versions.
pub async fn remove(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    dels: BTreeMap<GalleryId, Vec<Pending>>,
) -> Result<Vec<(GalleryId, u64)>, StoreError> {
    let (mut pending, mut shares) = (Vec::new(), Shares::new());
    for (gallery, dels) in dels {
        shares.insert(gallery, (pending.len()..pending.len() + dels.len()).collect());
        pending.extend(dels);
    }
    let mut changed = Vec::new();
    for mut shares in some_at_once(shares) {
        let locked = lock(tx, keys, &shares).await?;
        let known = known(tx, &shares, &pending).await?;
        shares.retain(|gallery, share| {
            share.retain(|at| known[gallery].leaves.contains_key(&pending[*at].change.id()));
            !share.is_empty()
        });
        changed.extend(write(tx, &locked, known, &shares, &pending).await?);
    }
    Ok(changed)
}

/// In the order in which they are locked.
fn some_at_once(mut shares: Shares) -> impl Iterator<Item = Shares> {
    std::iter::from_fn(move || {
        let rest = shares.keys().nth(AT_ONCE).copied().map(|next| shares.split_off(&next)).unwrap_or_default();
        let some = std::mem::replace(&mut shares, rest);
        (!some.is_empty()).then_some(some)
    })
}

fn ids(shares: &Shares) -> Vec<Uuid> {
    shares.keys().map(|id| id.0).collect()
}

fn changes<'a>(share: &'a [usize], pending: &'a [Pending]) -> impl Iterator<Item = &'a Change> {
    share.iter().map(|at| &pending[*at].change)
}

#[derive(FromRow)]
struct HeadRow {
    id: Uuid,
    epoch: i64,
    version: i64,
    buckets: Vec<u8>,
    gdk_sealed: Vec<u8>,
}

async fn lock(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    shares: &Shares,
) -> Result<BTreeMap<GalleryId, (Head, DigestKey)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<HeadRow> = sqlx::query_as(
        "SELECT id, epoch, version, buckets, gdk_sealed FROM gallery WHERE tenant_id = $1 AND id = ANY ($2)
         ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(tenant)
    .bind(ids(shares))
    .fetch_all(tx.conn())
    .await?;
    let mut locked = BTreeMap::new();
    for row in rows {
        let (gallery, number) = (GalleryId(row.id), epoch("gallery.epoch", row.epoch)?);
        let gdk = DigestKey::new(*keys.open_gdk(gallery, number, &row.gdk_sealed)?);
        let version = version("gallery.version", row.version)?;
        locked.insert(gallery, (Head { gallery, epoch: number, version, buckets: buckets(&row.buckets)? }, gdk));
    }
    match shares.keys().find(|id| !locked.contains_key(id)) {
        Some(missing) => Err(StoreError::NotFound { what: "gallery", id: missing.0 }),
        None => Ok(locked),
    }
}

/// What the galleries say of the entries that their shares are about.
async fn known(
    tx: &mut TenantTx,
    shares: &Shares,
    pending: &[Pending],
) -> Result<BTreeMap<GalleryId, Known>, StoreError> {
    let mut known: BTreeMap<GalleryId, Known> = shares.keys().map(|id| (*id, Known::default())).collect();
    for (gallery, object, leaf) in leaves(tx, shares, pending).await? {
        known.entry(gallery).or_default().leaves.insert(object, leaf);
    }
    for (gallery, object) in deleted(tx, shares, pending).await? {
        known.entry(gallery).or_default().deleted.insert(object);
    }
    Ok(known)
}

async fn leaves(
    tx: &mut TenantTx,
    shares: &Shares,
    pending: &[Pending],
) -> Result<Vec<(GalleryId, RecordId, LiveLeaf)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let (mut galleries, mut touched) = (Vec::new(), Vec::new());
    for (gallery, share) in shares {
        for bucket in touched_buckets(changes(share, pending)) {
            galleries.push(gallery.0);
            touched.push(i16::from(bucket));
        }
    }
    let rows: Vec<(Uuid, Uuid, String, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT l.gallery_id, l.object_id, l.kind, l.revision, l.leaf
         FROM unnest($2::uuid[], $3::smallint[]) AS touched (gallery_id, bucket)
         JOIN gallery_leaf l ON l.tenant_id = $1 AND l.gallery_id = touched.gallery_id AND l.bucket = touched.bucket",
    )
    .bind(tenant)
    .bind(galleries)
    .bind(touched)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter()
        .map(|(gallery, object, kind, revision, leaf)| {
            let leaf = LiveLeaf {
                kind: kind_of(&kind)?,
                rev: epoch("gallery_leaf.revision", revision)?,
                leaf: Leaf(hash("gallery_leaf.leaf", &leaf)?),
            };
            Ok((GalleryId(gallery), RecordId(object), leaf))
        })
        .collect()
}

/// Which of the entries that are to be put have been deleted before: in any epoch, and whether or not the log still has their
/// `del`, for ids are never used again.
async fn deleted(
    tx: &mut TenantTx,
    shares: &Shares,
    pending: &[Pending],
) -> Result<Vec<(GalleryId, RecordId)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let puts: BTreeSet<Uuid> = shares
        .values()
        .flat_map(|share| changes(share, pending))
        .filter(|change| matches!(change, Change::Put { .. }))
        .map(|change| change.id().0)
        .collect();
    if puts.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT gallery_id, object_id FROM gallery_record
         WHERE tenant_id = $1 AND gallery_id = ANY ($2) AND op = 'del' AND object_id = ANY ($3)
         UNION
         SELECT gallery_id, object_id FROM gallery_buried
         WHERE tenant_id = $1 AND gallery_id = ANY ($2) AND object_id = ANY ($3)",
    )
    .bind(tenant)
    .bind(ids(shares))
    .bind(puts.into_iter().collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    Ok(found.into_iter().map(|(gallery, object)| (GalleryId(gallery), RecordId(object))).collect())
}

/// Appends each gallery's share to its log. Returns their new versions.
async fn write(
    tx: &mut TenantTx,
    locked: &BTreeMap<GalleryId, (Head, DigestKey)>,
    mut known: BTreeMap<GalleryId, Known>,
    shares: &Shares,
    pending: &[Pending],
) -> Result<Vec<(GalleryId, u64)>, StoreError> {
    let (mut heads, mut records) = (Vec::new(), Vec::new());
    for (gallery, share) in shares {
        let (head, gdk) = &locked[gallery];
        let changes: Vec<Change> = changes(share, pending).cloned().collect();
        let known = known.remove(gallery).unwrap_or_default();
        let (appended, next) = compute(head, &known, &changes, gdk).map_err(|error| match error {
            AppendError::Deleted { id } => StoreError::Deleted { id: id.0 },
            _ => StoreError::Unreadable { what: "gallery_leaf", reason: "a change does not follow from it" },
        })?;
        let of = appended.into_iter().zip(share);
        records.extend(of.map(|(record, at)| Written { gallery: *gallery, epoch: next.epoch, record, of: *at }));
        heads.push(next);
    }
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    write_records(tx, &records, pending).await?;
    write_leaves(tx, &records).await?;
    let roots = records.iter().map(|one| (one.gallery, one.epoch, one.record.version, one.record.root));
    write_roots(tx, roots).await?;
    write_heads(tx, &heads).await?;
    announce(tx, &heads.iter().map(|head| head.gallery).collect::<Vec<_>>()).await?;
    Ok(heads.into_iter().map(|head| (head.gallery, head.version)).collect())
}
