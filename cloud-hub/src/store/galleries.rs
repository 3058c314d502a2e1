//! Galleries: heads, records, roots and leaves. The maths is [`crate::domain::gallery`]'s.

use std::collections::{BTreeMap, BTreeSet};

use gallery_log::digest::{BUCKETS, Bucket};
use gallery_log::{DigestKey, Kind, Leaf, Op, RecordId, Root};
use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::database::GALLERY_CHANNEL;
use super::devices::epoch;
use super::{StoreError, TenantTx};
use crate::domain::gallery::{Appended, Change, Head, LiveLeaf, append as compute, touched_buckets};
use crate::domain::ids::{GalleryId, PersonId, SiteId};
use crate::domain::vault::TenantKeys;

/// A gallery without its leaves.
#[derive(Clone, Debug)]
pub struct Gallery {
    /// Its id.
    pub id: GalleryId,
    /// The site whose gallery it is.
    pub site_id: SiteId,
    /// Its epoch.
    pub epoch: u32,
    /// Its last version.
    pub version: u64,
    /// The root of that version.
    pub root: Root,
    /// GDK under the tenant key.
    pub gdk_sealed: Vec<u8>,
    /// CK under the tenant key.
    pub ck_sealed: Vec<u8>,
}

/// A change and what goes with it into the log's row.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The change; its plaintext body is hashed here and stored nowhere.
    pub change: Change,
    /// The sealed body of a put.
    pub sealed: Option<Vec<u8>>,
    /// Whose key seals it; `None` for rules.
    pub person: Option<PersonId>,
    /// Of templates: the embedding space.
    pub space_id: Option<String>,
}

/// A record as stored.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    /// Its place in the log.
    pub version: u64,
    /// What it does.
    pub op: Op,
    /// To what.
    pub kind: Kind,
    /// To which.
    pub id: RecordId,
    /// Its revision.
    pub rev: u32,
    /// Whose key seals the body.
    pub person: Option<PersonId>,
    /// Of templates: the embedding space.
    pub space_id: Option<String>,
    /// The sealed body; `None` for a del, and for a put whose person was erased since.
    pub sealed: Option<Vec<u8>>,
    /// The leaf of a put, as it was when it was written.
    pub leaf: Option<Leaf>,
}

/// Writes an empty gallery for a site.
pub async fn create(
    tx: &mut TenantTx,
    id: GalleryId,
    site: SiteId,
    number: u32,
    gdk_sealed: &[u8],
    ck_sealed: &[u8],
) -> Result<(), StoreError> {
    let (tenant, head) = (tx.tenant_uuid(), Head::empty(id, number));
    sqlx::query(
        "INSERT INTO gallery (tenant_id, id, site_id, epoch, gdk_sealed, ck_sealed, buckets, root)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(site.0)
    .bind(i64::from(number))
    .bind(gdk_sealed)
    .bind(ck_sealed)
    .bind(bucket_bytes(&head))
    .bind(head.root().0.as_slice())
    .execute(tx.conn())
    .await?;
    write_root(tx, id, number, 0, head.root()).await
}

#[derive(FromRow)]
struct GalleryRow {
    id: Uuid,
    site_id: Uuid,
    epoch: i64,
    version: i64,
    root: Vec<u8>,
    gdk_sealed: Vec<u8>,
    ck_sealed: Vec<u8>,
}

impl TryFrom<GalleryRow> for Gallery {
    type Error = StoreError;

    fn try_from(row: GalleryRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: GalleryId(row.id),
            site_id: SiteId(row.site_id),
            epoch: epoch("gallery.epoch", row.epoch)?,
            version: version("gallery.version", row.version)?,
            root: Root(hash("gallery.root", &row.root)?),
            gdk_sealed: row.gdk_sealed,
            ck_sealed: row.ck_sealed,
        })
    }
}

/// One gallery.
pub async fn get(tx: &mut TenantTx, id: GalleryId) -> Result<Gallery, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<GalleryRow> = sqlx::query_as(
        "SELECT id, site_id, epoch, version, root, gdk_sealed, ck_sealed FROM gallery WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    row.ok_or(StoreError::NotFound { what: "gallery", id: id.0 }).and_then(Gallery::try_from)
}

/// The galleries of a tenant, or of some of its sites, in the order in which they must be locked.
pub async fn of_sites(tx: &mut TenantTx, sites: Option<&[SiteId]>) -> Result<Vec<GalleryId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let wanted = sites.map(|sites| sites.iter().map(|id| id.0).collect::<Vec<_>>());
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM gallery WHERE tenant_id = $1 AND ($2::uuid[] IS NULL OR site_id = ANY ($2)) ORDER BY id",
    )
    .bind(tenant)
    .bind(wanted.as_deref())
    .fetch_all(tx.conn())
    .await?;
    if let Some(missing) = sites.and_then(|sites| (ids.len() < sites.len()).then(|| sites.first()).flatten()) {
        return Err(StoreError::NotFound { what: "one of the sites, such as", id: missing.0 });
    }
    Ok(ids.into_iter().map(GalleryId).collect())
}

/// The galleries that a person is in, in the order in which they must be locked.
pub async fn of_person(tx: &mut TenantTx, person: PersonId) -> Result<Vec<GalleryId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let ids = sqlx::query_scalar(
        "SELECT gallery_id FROM gallery_member WHERE tenant_id = $1 AND person_id = $2 ORDER BY gallery_id",
    )
    .bind(tenant)
    .bind(person.0)
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(GalleryId).collect())
}

/// What the logs of all galleries ever said of a person, by gallery in the order in which they must be locked: kinds
/// and ids, the person's own record last.
pub async fn objects_of_person(
    tx: &mut TenantTx,
    person: PersonId,
) -> Result<BTreeMap<GalleryId, Vec<(Kind, RecordId)>>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(Uuid, String, Uuid)> = sqlx::query_as(
        "SELECT gallery_id, kind, object_id FROM gallery_record
         WHERE tenant_id = $1 AND person_id = $2
         GROUP BY gallery_id, kind, object_id ORDER BY gallery_id, min(version) DESC",
    )
    .bind(tenant)
    .bind(person.0)
    .fetch_all(tx.conn())
    .await?;
    let mut objects: BTreeMap<GalleryId, Vec<(Kind, RecordId)>> = BTreeMap::new();
    for (gallery, kind, object) in rows {
        objects.entry(GalleryId(gallery)).or_default().push((kind_of(&kind)?, RecordId(object)));
    }
    Ok(objects)
}

/// Appends to a gallery's log: records, a root per version, leaves, the new head, and the announcement.
/// Locks the gallery until the transaction ends; a transaction that changes several takes them in the order of ids.
pub async fn append(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    id: GalleryId,
    pending: &[Pending],
) -> Result<u64, StoreError> {
    let (head, gdk) = lock(tx, keys, id).await?;
    let leaves = leaves(tx, id, &touched(pending)).await?;
    write(tx, &head, &gdk, &leaves, pending).await
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
    let leaves = leaves(tx, id, &touched(&dels)).await?;
    dels.retain(|del| leaves.contains_key(&del.change.id()));
    if dels.is_empty() {
        return Ok(None);
    }
    write(tx, &head, &gdk, &leaves, &dels).await.map(Some)
}

fn touched(pending: &[Pending]) -> BTreeSet<u8> {
    let changes: Vec<Change> = pending.iter().map(|one| one.change.clone()).collect();
    touched_buckets(&changes)
}

async fn write(
    tx: &mut TenantTx,
    head: &Head,
    gdk: &DigestKey,
    leaves: &BTreeMap<RecordId, LiveLeaf>,
    pending: &[Pending],
) -> Result<u64, StoreError> {
    let id = head.gallery;
    let changes: Vec<Change> = pending.iter().map(|one| one.change.clone()).collect();
    let (appended, next) = compute(head, leaves, &changes, gdk)
        .map_err(|_| StoreError::Unreadable { what: "gallery_leaf", reason: "a change does not follow from it" })?;
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

fn buckets(bytes: &[u8]) -> Result<Box<[Bucket; BUCKETS]>, StoreError> {
    let (chunks, rest) = bytes.as_chunks::<32>();
    let hashes: Vec<Bucket> = chunks.iter().copied().map(Bucket).collect();
    let unreadable = StoreError::Unreadable { what: "gallery.buckets", reason: "not 256 hashes" };
    if !rest.is_empty() {
        return Err(unreadable);
    }
    hashes.into_boxed_slice().try_into().map_err(|_| unreadable)
}

fn bucket_bytes(head: &Head) -> Vec<u8> {
    head.buckets.iter().flat_map(|bucket| bucket.0).collect()
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

async fn write_root(tx: &mut TenantTx, id: GalleryId, number: u32, version: u64, root: Root) -> Result<(), StoreError> {
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
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(GALLERY_CHANNEL)
        .bind(format!("{tenant}/{}", head.gallery))
        .execute(tx.conn())
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct RecordRow {
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
const RECORD: &str = "r.version, r.op, r.kind, r.object_id, r.revision, r.person_id, r.space_id,
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

pub(super) fn version(what: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Unreadable { what, reason: "negative" })
}

fn hash(what: &'static str, bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Unreadable { what, reason: "not 32 bytes" })
}

fn op_name(op: Op) -> &'static str {
    match op {
        Op::Put => "put",
        Op::Del => "del",
    }
}

fn op_of(name: &str) -> Result<Op, StoreError> {
    match name {
        "put" => Ok(Op::Put),
        "del" => Ok(Op::Del),
        _ => Err(StoreError::Unreadable { what: "gallery_record.op", reason: "unknown name" }),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Person => "person",
        Kind::Template => "template",
        Kind::Credential => "credential",
        Kind::Rule => "rule",
    }
}

fn kind_of(name: &str) -> Result<Kind, StoreError> {
    Kind::ALL
        .into_iter()
        .find(|kind| kind_name(*kind) == name)
        .ok_or(StoreError::Unreadable { what: "gallery_record.kind", reason: "unknown name" })
}
