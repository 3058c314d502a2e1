//! Reading a gallery's log: runs of records, the state of a version, and single buckets of the present state.

use std::collections::BTreeSet;

use gallery_log::digest::{BUCKETS, Bucket};
use gallery_log::{Leaf, RecordId, Root};
use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::{StoredRecord, buckets, hash, kind_of, op_of, version};
use crate::devices::epoch;
use crate::{StoreError, TenantTx};
use hub_domain::ids::{GalleryId, PersonId};

#[derive(FromRow)]
pub(super) struct RecordRow {
    version: i64,
    op: String,
    kind: String,
    object_id: Uuid,
    revision: i64,
    person_id: Option<Uuid>,
    space_id: Option<String>,
    sealed: Option<Vec<u8>>,
    leaf: Option<Vec<u8>>,
}

impl TryFrom<RecordRow> for StoredRecord {
    type Error = StoreError;

    fn try_from(row: RecordRow) -> Result<Self, StoreError> {
        Ok(Self {
            version: version("gallery_record.version", row.version)?,
            op: op_of(&row.op)?,
            kind: kind_of(&row.kind)?,
            id: RecordId(row.object_id),
            rev: epoch("gallery_record.revision", row.revision)?,
            person: row.person_id.map(PersonId),
            space_id: row.space_id,
            sealed: row.sealed,
            leaf: row.leaf.map(|leaf| hash("gallery_record.leaf", &leaf).map(Leaf)).transpose()?,
        })
    }
}

/// A record's row; the sealed body of somebody whose key is missing counts as erased, for nobody can open it.
pub(super) const RECORD: &str = "r.version, r.op, r.kind, r.object_id, r.revision, r.person_id, r.space_id,
    CASE WHEN p.key_missing THEN NULL ELSE r.sealed END AS sealed, r.leaf
    FROM gallery_record r LEFT JOIN person p ON p.tenant_id = r.tenant_id AND p.id = r.person_id";

/// Up to `limit` records after version `after`, in the order of the log.
pub async fn records(
    tx: &mut TenantTx,
    id: GalleryId,
    number: u32,
    after: u64,
    limit: u32,
) -> Result<Vec<StoredRecord>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<RecordRow> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT {RECORD}
         WHERE r.tenant_id = $1 AND r.gallery_id = $2 AND r.epoch = $3 AND r.version > $4 ORDER BY r.version LIMIT $5"
    )))
    .bind(tenant)
    .bind(id.0)
    .bind(i64::from(number))
    .bind(i64::try_from(after).unwrap_or(i64::MAX))
    .bind(i64::from(limit))
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(StoredRecord::try_from).collect()
}

/// What was live at `version`: the newest record of every object up to it, dels left out.
pub async fn live_at(
    tx: &mut TenantTx,
    id: GalleryId,
    number: u32,
    version: u64,
) -> Result<Vec<StoredRecord>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<RecordRow> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT * FROM (
             SELECT DISTINCT ON (r.object_id) {RECORD}
             WHERE r.tenant_id = $1 AND r.gallery_id = $2 AND r.epoch = $3 AND r.version <= $4
             ORDER BY r.object_id, r.version DESC) newest
         WHERE op = 'put'"
    )))
    .bind(tenant)
    .bind(id.0)
    .bind(i64::from(number))
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(StoredRecord::try_from).collect()
}

/// The root of one version.
pub async fn root_at(tx: &mut TenantTx, id: GalleryId, number: u32, version: u64) -> Result<Option<Root>, StoreError> {
    let tenant = tx.tenant_uuid();
    let root: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT root FROM gallery_version WHERE tenant_id = $1 AND gallery_id = $2 AND epoch = $3 AND version = $4",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(i64::from(number))
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .fetch_optional(tx.conn())
    .await?;
    root.map(|root| hash("gallery_version.root", &root).map(Root)).transpose()
}

/// Whether everything that was live at `version` can still be told: no put up to it has lost its body to an erasure (or
/// to a missing key) while its del comes only afterwards. Only then may an edge be expected to have the root of that version.
pub async fn is_whole_at(tx: &mut TenantTx, id: GalleryId, number: u32, version: u64) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let erased_but_live: bool = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT FROM gallery_record p LEFT JOIN person w ON w.tenant_id = p.tenant_id AND w.id = p.person_id
             WHERE p.tenant_id = $1 AND p.gallery_id = $2 AND p.epoch = $3 AND p.version <= $4
               AND p.op = 'put' AND (p.sealed IS NULL OR w.key_missing)
               AND NOT EXISTS (
                   SELECT FROM gallery_record d
                   WHERE d.tenant_id = $1 AND d.gallery_id = $2 AND d.epoch = $3 AND d.version <= $4
                     AND d.version > p.version AND d.object_id = p.object_id))",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(i64::from(number))
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .fetch_one(tx.conn())
    .await?;
    Ok(!erased_but_live)
}

/// The present state of a gallery with its bucket hashes.
#[derive(Clone, Debug)]
pub struct HeadBuckets {
    /// Its epoch.
    pub epoch: u32,
    /// Its last version.
    pub version: u64,
    /// The root of that version.
    pub root: Root,
    /// The hashes behind the root.
    pub buckets: Box<[Bucket; BUCKETS]>,
}

/// The present state, which nobody changes until this transaction ends: who reads several of its buckets gets them of one
/// version, and no body is erased in between.
pub async fn hold(tx: &mut TenantTx, id: GalleryId) -> Result<HeadBuckets, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<(i64, i64, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT epoch, version, root, buckets FROM gallery WHERE tenant_id = $1 AND id = $2 FOR SHARE")
            .bind(tenant)
            .bind(id.0)
            .fetch_optional(tx.conn())
            .await?;
    let (number, last, root, hashes) = row.ok_or(StoreError::NotFound { what: "gallery", id: id.0 })?;
    Ok(HeadBuckets {
        epoch: epoch("gallery.epoch", number)?,
        version: version("gallery.version", last)?,
        root: Root(hash("gallery.root", &root)?),
        buckets: buckets(&hashes)?,
    })
}

/// The records behind the present leaves of some buckets, in the order of ids. The caller [`hold`]s the gallery.
pub async fn live_in(
    tx: &mut TenantTx,
    id: GalleryId,
    number: u32,
    wanted: &BTreeSet<u8>,
) -> Result<Vec<StoredRecord>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<RecordRow> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT {RECORD}
         JOIN gallery_leaf l ON l.tenant_id = r.tenant_id AND l.gallery_id = r.gallery_id
              AND l.object_id = r.object_id AND l.revision = r.revision
         WHERE r.tenant_id = $1 AND r.gallery_id = $2 AND r.epoch = $3 AND r.op = 'put' AND l.bucket = ANY ($4)
         ORDER BY r.object_id"
    )))
    .bind(tenant)
    .bind(id.0)
    .bind(i64::from(number))
    .bind(wanted.iter().map(|bucket| i16::from(*bucket)).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(StoredRecord::try_from).collect()
}
