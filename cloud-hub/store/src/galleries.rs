//! Galleries: heads, records, roots and leaves. The maths is [`hub_domain::gallery`]'s.
//!
//! [`append`] appends to the log (by the statements in [`writing`]), [`reading`] reads it, [`snapshots`] are of it, [`compaction`] shortens it, [`epochs`] begins it anew;
//! here is what they share, and which galleries there are.

mod append;
pub mod compaction;
pub mod epochs;
mod reading;
pub mod snapshots;
mod writing;

use std::collections::BTreeMap;

use gallery_log::digest::{BUCKETS, Bucket};
use gallery_log::{Kind, Leaf, Op, RecordId, Root};
use sqlx::FromRow;
use uuid::Uuid;

use super::devices::epoch;
use super::{StoreError, TenantTx};
use hub_domain::gallery::{Change, Head};
use hub_domain::ids::{GalleryId, PersonId, SiteId};

pub use append::{append, remove};
pub use reading::{HeadBuckets, hold, is_whole_at, live_at, live_in, records, root_at};

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
    /// Up to here the log lacks what is no longer live: a device below it cannot be brought on by records.
    pub compacted_to: u64,
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
    writing::write_roots(tx, std::iter::once((id, number, 0, head.root()))).await
}

#[derive(FromRow)]
struct GalleryRow {
    id: Uuid,
    site_id: Uuid,
    epoch: i64,
    version: i64,
    root: Vec<u8>,
    compacted_to: i64,
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
            compacted_to: version("gallery.compacted_to", row.compacted_to)?,
            gdk_sealed: row.gdk_sealed,
            ck_sealed: row.ck_sealed,
        })
    }
}

/// One gallery.
pub async fn get(tx: &mut TenantTx, id: GalleryId) -> Result<Gallery, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<GalleryRow> = sqlx::query_as(
        "SELECT id, site_id, epoch, version, root, compacted_to, gdk_sealed, ck_sealed FROM gallery
         WHERE tenant_id = $1 AND id = $2",
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
        Kind::Anchor => "anchor",
    }
}

fn kind_of(name: &str) -> Result<Kind, StoreError> {
    Kind::ALL
        .into_iter()
        .find(|kind| kind_name(*kind) == name)
        .ok_or(StoreError::Unreadable { what: "gallery_record.kind", reason: "unknown name" })
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
