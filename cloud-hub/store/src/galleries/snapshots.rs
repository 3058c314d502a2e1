//! Snapshots that are on offer, and the reading of a gallery as it was at one version, in the order of ids.
//!
//! In: a device and its gallery; how a snapshot was cut. Out: rows, and runs of records. The content is nowhere here: it is
//! made of the log whenever it is asked for (`keys::snapshots`), which a compaction leaves possible as long as the row lives.

use gallery_log::{RecordId, Root};
use sqlx::{AssertSqlSafe, FromRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::reading::{RECORD, RecordRow};
use super::{StoredRecord, hash, version};
use crate::devices::epoch;
use crate::{StoreError, TenantTx};
use hub_domain::ids::{DeviceId, GalleryId, SnapshotId};

/// Length of one chunk's entry in the row.
const ENTRY: usize = 16 + 4 + 32;

/// A snapshot on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// For whom.
    pub device: DeviceId,
    /// Of which gallery.
    pub gallery: GalleryId,
    /// At which epoch.
    pub epoch: u32,
    /// At which version.
    pub version: u64,
    /// When it was offered first.
    pub created_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// How it was cut; `None` before its manifest was asked for.
    pub cut: Option<Cut>,
}

/// A snapshot in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The key of its chunks, under the tenant key.
    pub key_sealed: Vec<u8>,
    /// The root of what is in it.
    pub root: Root,
    /// How many records are in it.
    pub records: u64,
    /// Its chunks.
    pub chunks: Vec<CutChunk>,
}

/// One chunk: every record behind the chunk before, up to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutChunk {
    /// The highest id in it.
    pub last: RecordId,
    /// Its length, sealed.
    pub bytes: u32,
    /// SHA-256 of the sealed bytes.
    pub sha256: [u8; 32],
}

impl Cut {
    /// The length of the whole content.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }
}

#[derive(FromRow)]
struct SnapshotRow {
    id: Uuid,
    device_id: Uuid,
    gallery_id: Uuid,
    epoch: i64,
    version: i64,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    key_sealed: Option<Vec<u8>>,
    root: Option<Vec<u8>>,
    records: Option<i64>,
    chunks: Option<Vec<u8>>,
}

impl TryFrom<SnapshotRow> for Snapshot {
    type Error = StoreError;

    fn try_from(row: SnapshotRow) -> Result<Self, StoreError> {
        let cut = match (row.key_sealed, row.root, row.records, row.chunks) {
            (Some(key_sealed), Some(root), Some(records), Some(chunks)) => Some(Cut {
                key_sealed,
                root: Root(hash("gallery_snapshot.root", &root)?),
                records: version("gallery_snapshot.records", records)?,
                chunks: unpacked(&chunks)?,
            }),
            _ => None,
        };
        Ok(Self {
            id: SnapshotId(row.id),
            device: DeviceId(row.device_id),
            gallery: GalleryId(row.gallery_id),
            epoch: epoch("gallery_snapshot.epoch", row.epoch)?,
            version: version("gallery_snapshot.version", row.version)?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            cut,
        })
    }
}

const COLUMNS: &str =
    "id, device_id, gallery_id, epoch, version, created_at, expires_at, key_sealed, root, records, chunks";

/// The snapshot of this id, if it is this device's and its time is not over.
pub async fn of_device(
    tx: &mut TenantTx,
    device: DeviceId,
    id: SnapshotId,
    now: OffsetDateTime,
) -> Result<Option<Snapshot>, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<SnapshotRow> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM gallery_snapshot
         WHERE tenant_id = $1 AND id = $2 AND device_id = $3 AND expires_at > $4"
    )))
    .bind(tenant)
    .bind(id.0)
    .bind(device.0)
    .bind(now)
    .fetch_optional(tx.conn())
    .await?;
    row.map(Snapshot::try_from).transpose()
}

/// The snapshot that a device may have of a gallery: the one it was offered before, if its time is not over and it is still one of
/// the present epoch; else `new`, of the gallery's present version, in its place. A snapshot that nobody has begun to fetch
/// is replaced by a newer one: it would bring less.
pub async fn offer(
    tx: &mut TenantTx,
    device: DeviceId,
    gallery: &super::Gallery,
    new: SnapshotId,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<Snapshot, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: SnapshotRow = sqlx::query_as(AssertSqlSafe(format!(
        "INSERT INTO gallery_snapshot AS s (tenant_id, id, device_id, gallery_id, epoch, version, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT ON CONSTRAINT gallery_snapshot_of_device DO UPDATE SET
             (id, epoch, version, created_at, expires_at, key_sealed, root, records, chunks, bytes, fetched, fetched_at) =
             (SELECT excluded.id, excluded.epoch, excluded.version, excluded.created_at, excluded.expires_at,
                     NULL::bytea, NULL::bytea, NULL::bigint, NULL::bytea, NULL::bigint, 0, NULL::timestamptz
              WHERE s.expires_at <= $7 OR s.epoch <> excluded.epoch OR (s.root IS NULL AND s.version < excluded.version)
              UNION ALL
              SELECT s.id, s.epoch, s.version, s.created_at, s.expires_at,
                     s.key_sealed, s.root, s.records, s.chunks, s.bytes, s.fetched, s.fetched_at
              WHERE NOT (s.expires_at <= $7 OR s.epoch <> excluded.epoch OR (s.root IS NULL AND s.version < excluded.version)))
         RETURNING {COLUMNS}"
    )))
    .bind(tenant)
    .bind(new.0)
    .bind(device.0)
    .bind(gallery.id.0)
    .bind(i64::from(gallery.epoch))
    .bind(i64::try_from(gallery.version).unwrap_or(i64::MAX))
    .bind(now)
    .bind(expires_at)
    .fetch_one(tx.conn())
    .await?;
    Snapshot::try_from(row)
}

/// Notes how a snapshot was cut. False when it is gone, or when another request was first: read it again then.
pub async fn cut(tx: &mut TenantTx, id: SnapshotId, cut: &Cut) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE gallery_snapshot SET key_sealed = $3, root = $4, records = $5, chunks = $6, bytes = $7
         WHERE tenant_id = $1 AND id = $2 AND root IS NULL",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(&cut.key_sealed)
    .bind(cut.root.0.as_slice())
    .bind(i64::try_from(cut.records).unwrap_or(i64::MAX))
    .bind(packed(&cut.chunks))
    .bind(i64::try_from(cut.bytes()).unwrap_or(i64::MAX))
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes how far the device has read.
pub async fn fetched(tx: &mut TenantTx, id: SnapshotId, bytes: u64, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE gallery_snapshot SET fetched = greatest(fetched, $3), fetched_at = $4 WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes a snapshot back: its time is over, it was applied, or somebody in it was erased.
pub async fn withdraw(tx: &mut TenantTx, id: SnapshotId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("DELETE FROM gallery_snapshot WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Takes back what a device has had the use of: it reports that version of that gallery, or a later one. Returns how many.
pub async fn used(
    tx: &mut TenantTx,
    device: DeviceId,
    gallery: GalleryId,
    number: u32,
    reported: u64,
) -> Result<u64, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "DELETE FROM gallery_snapshot
         WHERE tenant_id = $1 AND device_id = $2 AND gallery_id = $3 AND (epoch < $4 OR (epoch = $4 AND version <= $5))",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(gallery.0)
    .bind(i64::from(number))
    .bind(i64::try_from(reported).unwrap_or(i64::MAX))
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Up to `limit` entries that were live at `at`, in the order of ids, behind `after` and up to `last`.
pub async fn live_between(
    tx: &mut TenantTx,
    snapshot: &Snapshot,
    after: Option<RecordId>,
    last: Option<RecordId>,
    limit: u32,
) -> Result<Vec<StoredRecord>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<RecordRow> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT * FROM (
             SELECT DISTINCT ON (r.object_id) {RECORD}
             WHERE r.tenant_id = $1 AND r.gallery_id = $2 AND r.epoch = $3 AND r.version <= $4
               AND ($5::uuid IS NULL OR r.object_id > $5) AND ($6::uuid IS NULL OR r.object_id <= $6)
             ORDER BY r.object_id, r.version DESC) newest
         WHERE op = 'put' ORDER BY object_id LIMIT $7"
    )))
    .bind(tenant)
    .bind(snapshot.gallery.0)
    .bind(i64::from(snapshot.epoch))
    .bind(i64::try_from(snapshot.version).unwrap_or(i64::MAX))
    .bind(after.map(|id| id.0))
    .bind(last.map(|id| id.0))
    .bind(i64::from(limit))
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(StoredRecord::try_from).collect()
}

fn packed(chunks: &[CutChunk]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunks.len() * ENTRY);
    for chunk in chunks {
        bytes.extend_from_slice(chunk.last.as_bytes());
        bytes.extend_from_slice(&chunk.bytes.to_be_bytes());
        bytes.extend_from_slice(&chunk.sha256);
    }
    bytes
}

fn unpacked(bytes: &[u8]) -> Result<Vec<CutChunk>, StoreError> {
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        return Err(StoreError::Unreadable { what: "gallery_snapshot.chunks", reason: "not whole entries" });
    }
    let entry = |entry: &[u8; ENTRY]| {
        let (id, rest) = entry.split_first_chunk::<16>()?;
        let (bytes, rest) = rest.split_first_chunk::<4>()?;
        let sha256 = rest.try_into().ok()?;
        Some(CutChunk { last: RecordId::from_bytes(*id), bytes: u32::from_be_bytes(*bytes), sha256 })
    };
    let unreadable = StoreError::Unreadable { what: "gallery_snapshot.chunks", reason: "not an entry" };
    entries.iter().map(entry).collect::<Option<_>>().ok_or(unreadable)
}
