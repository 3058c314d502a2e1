//! Sites and doors.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, TenantTx};
use hub_domain::ids::{DeviceId, DoorId, GalleryId, SiteId};

/// A site and its gallery.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its id.
    pub id: SiteId,
    /// Its name, unique in the tenant.
    pub name: String,
    /// IANA name of the time zone of its doors.
    pub time_zone: String,
    /// The log of who may be recognised there.
    pub gallery_id: GalleryId,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A door.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its id.
    pub id: DoorId,
    /// Where it is.
    pub site_id: SiteId,
    /// Which agent drives it, if one does.
    pub device_id: Option<DeviceId>,
    /// What that agent's configuration calls it.
    pub local_id: Option<String>,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// Keeps the tenant's sites to this transaction: of two that make one, the second waits, as does whoever reads the
/// whole list for a person ([`share_sites`]). Rows that merely refer to the tenant are not held up.
pub async fn lock_sites(tx: &mut TenantTx) -> Result<(), StoreError> {
    hold_tenant(tx, "SELECT FROM tenant WHERE tenant_id = $1 FOR NO KEY UPDATE").await
}

/// Keeps the list of the tenant's sites as it is until the transaction ends.
pub(super) async fn share_sites(tx: &mut TenantTx) -> Result<(), StoreError> {
    hold_tenant(tx, "SELECT FROM tenant WHERE tenant_id = $1 FOR SHARE").await
}

async fn hold_tenant(tx: &mut TenantTx, statement: &'static str) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let found = sqlx::query(statement).bind(tenant).fetch_optional(tx.conn()).await?;
    found.map(|_| ()).ok_or(StoreError::NotFound { what: "tenant", id: tenant })
}

/// Writes a site. Its gallery follows in the same transaction ([`super::galleries::create`]).
pub async fn create_site(tx: &mut TenantTx, id: SiteId, name: &str, time_zone: &str) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO site (tenant_id, id, name, time_zone) VALUES ($1, $2, $3, $4)")
        .bind(tenant)
        .bind(id.0)
        .bind(name)
        .bind(time_zone)
        .execute(tx.conn())
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct SiteRow {
    id: Uuid,
    name: String,
    time_zone: String,
    gallery_id: Uuid,
    created_at: OffsetDateTime,
}

impl From<SiteRow> for Site {
    fn from(row: SiteRow) -> Self {
        Self {
            id: SiteId(row.id),
            name: row.name,
            time_zone: row.time_zone,
            gallery_id: GalleryId(row.gallery_id),
            created_at: row.created_at,
        }
    }
}

/// All sites, oldest first.
pub async fn sites(tx: &mut TenantTx) -> Result<Vec<Site>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<SiteRow> = sqlx::query_as(
        "SELECT s.id, s.name, s.time_zone, g.id AS gallery_id, s.created_at
         FROM site s JOIN gallery g ON g.tenant_id = s.tenant_id AND g.site_id = s.id
         WHERE s.tenant_id = $1 ORDER BY s.id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Site::from).collect())
}

/// One site.
pub async fn site(tx: &mut TenantTx, id: SiteId) -> Result<Site, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<SiteRow> = sqlx::query_as(
        "SELECT s.id, s.name, s.time_zone, g.id AS gallery_id, s.created_at
         FROM site s JOIN gallery g ON g.tenant_id = s.tenant_id AND g.site_id = s.id
         WHERE s.tenant_id = $1 AND s.id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    row.map(Site::from).ok_or(StoreError::NotFound { what: "site", id: id.0 })
}

/// A door to be written.
#[derive(Clone, Debug)]
pub struct NewDoor {
    /// Its id.
    pub id: DoorId,
    /// Where it is.
    pub site_id: SiteId,
    /// Which agent drives it.
    pub device_id: Option<DeviceId>,
    /// What that agent's configuration calls it; unique per agent.
    pub local_id: Option<String>,
    /// What people call it.
    pub name: String,
}

/// Writes a door.
pub async fn create_door(tx: &mut TenantTx, door: &NewDoor) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO door (tenant_id, id, site_id, device_id, local_id, name) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(tenant)
        .bind(door.id.0)
        .bind(door.site_id.0)
        .bind(door.device_id.map(|id| id.0))
        .bind(door.local_id.as_deref())
        .bind(&door.name)
        .execute(tx.conn())
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct DoorRow {
    id: Uuid,
    site_id: Uuid,
    device_id: Option<Uuid>,
    local_id: Option<String>,
    name: String,
    created_at: OffsetDateTime,
}

/// All doors, oldest first; of one device if `device` is given.
pub async fn doors(tx: &mut TenantTx, device: Option<DeviceId>) -> Result<Vec<Door>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<DoorRow> = sqlx::query_as(
        "SELECT id, site_id, device_id, local_id, name, created_at FROM door
         WHERE tenant_id = $1 AND ($2::uuid IS NULL OR device_id = $2) ORDER BY id",
    )
    .bind(tenant)
    .bind(device.map(|id| id.0))
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Door {
            id: DoorId(row.id),
            site_id: SiteId(row.site_id),
            device_id: row.device_id.map(DeviceId),
            local_id: row.local_id,
            name: row.name,
            created_at: row.created_at,
        })
        .collect())
}
