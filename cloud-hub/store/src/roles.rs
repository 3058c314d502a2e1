//! Roles that a tenant made, and how a row that was given a role says which.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, TenantTx};
use hub_domain::ids::RoleId;
use hub_domain::permission::{Permission, Permissions, Role};
use hub_domain::role::{GivenRole, RoleRef};

/// A role of a tenant's.
#[derive(Clone, Debug)]
pub struct OwnRole {
    /// Its id.
    pub id: RoleId,
    /// Its name, which no other living role of the tenant has.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it allows.
    pub permissions: Permissions,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was changed last.
    pub changed_at: OffsetDateTime,
}

impl From<OwnRole> for GivenRole {
    fn from(role: OwnRole) -> Self {
        Self { which: RoleRef::Own(role.id), name: role.name, permissions: role.permissions }
    }
}

#[derive(FromRow)]
struct OwnRow {
    id: Uuid,
    name: String,
    description: String,
    permissions: Vec<String>,
    created_at: OffsetDateTime,
    changed_at: OffsetDateTime,
}

impl From<OwnRow> for OwnRole {
    fn from(row: OwnRow) -> Self {
        Self {
            id: RoleId(row.id),
            name: row.name,
            description: row.description,
            permissions: permissions(&row.permissions),
            created_at: row.created_at,
            changed_at: row.changed_at,
        }
    }
}

/// The permissions of these words. One that this program does not know is of a newer one, and allows nothing here.
pub(super) fn permissions(words: &[String]) -> Permissions {
    words.iter().filter_map(|word| word.parse::<Permission>().ok()).collect()
}

/// The words of permissions.
pub(super) fn words(permissions: Permissions) -> Vec<String> {
    permissions.iter().map(|permission| permission.as_str().to_owned()).collect()
}

/// What of a tenant's role is read beside a row that has it, whose role is `role`; the row of it is `r`.
pub(super) const BESIDE: &str = "r.id AS own_role, r.name AS own_name, r.permissions AS own_permissions";

/// The role of a row.
#[derive(FromRow)]
pub(super) struct RoleRow {
    role: String,
    own_role: Option<Uuid>,
    own_name: Option<String>,
    own_permissions: Option<Vec<String>>,
}

impl TryFrom<RoleRow> for GivenRole {
    type Error = StoreError;

    fn try_from(row: RoleRow) -> Result<Self, StoreError> {
        match (row.own_role, row.own_name, row.own_permissions) {
            (Some(id), Some(name), Some(words)) => {
                Ok(Self { which: RoleRef::Own(RoleId(id)), name, permissions: permissions(&words) })
            }
            _ => {
                let role = row.role.parse::<Role>();
                Ok(role.map_err(|_| StoreError::Unreadable { what: "role", reason: "no such role" })?.into())
            }
        }
    }
}

/// The two columns that say which role a row has.
pub(super) fn columns(role: RoleRef) -> (&'static str, Option<Uuid>) {
    match role {
        RoleRef::Program(role) => (role.as_str(), None),
        RoleRef::Own(id) => ("own", Some(id.0)),
    }
}

/// Holds a role that is about to be given until the end of the transaction: whoever deletes it meanwhile waits, and then counts
/// this one too.
pub(super) async fn hold(tx: &mut TenantTx, role: RoleRef) -> Result<(), StoreError> {
    let RoleRef::Own(id) = role else { return Ok(()) };
    let tenant = tx.tenant_uuid();
    let found =
        sqlx::query("SELECT 1 FROM tenant_role WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL FOR KEY SHARE")
            .bind(tenant)
            .bind(id.0)
            .fetch_optional(tx.conn())
            .await?;
    found.map(drop).ok_or(StoreError::NotFound { what: "role", id: id.0 })
}

const COLUMNS: &str = "id, name, description, permissions, created_at, changed_at";

/// The living role of a name or an id.
pub async fn find(tx: &mut TenantTx, named: &str) -> Result<Option<OwnRole>, StoreError> {
    read(tx, named, "").await
}

/// The same, held until the end of the transaction: nobody changes it, and nobody is given it.
pub async fn lock(tx: &mut TenantTx, named: &str) -> Result<Option<OwnRole>, StoreError> {
    read(tx, named, " FOR UPDATE").await
}

async fn read(tx: &mut TenantTx, named: &str, locked: &'static str) -> Result<Option<OwnRole>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!(
        "SELECT {COLUMNS} FROM tenant_role WHERE tenant_id = $1 AND (name = $2 OR id = $3) AND deleted_at IS NULL{locked}"
    );
    let row: Option<OwnRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(tenant)
        .bind(named)
        .bind(Uuid::parse_str(named).ok())
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.map(OwnRole::from))
}

/// All living roles of the tenant, oldest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<OwnRole>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement =
        format!("SELECT {COLUMNS} FROM tenant_role WHERE tenant_id = $1 AND deleted_at IS NULL ORDER BY id");
    let rows: Vec<OwnRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(tenant).fetch_all(tx.conn()).await?;
    Ok(rows.into_iter().map(OwnRole::from).collect())
}

/// Stores a new role.
pub async fn create(tx: &mut TenantTx, new: &OwnRole) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO tenant_role (tenant_id, id, name, description, permissions, created_at, changed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(tenant)
    .bind(new.id.0)
    .bind(&new.name)
    .bind(&new.description)
    .bind(words(new.permissions))
    .bind(new.created_at)
    .bind(new.changed_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Stores a role as it is now.
pub async fn change(tx: &mut TenantTx, role: &OwnRole) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE tenant_role SET name = $3, description = $4, permissions = $5, changed_at = $6
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(role.id.0)
    .bind(&role.name)
    .bind(&role.description)
    .bind(words(role.permissions))
    .bind(role.changed_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How many users, and how many keys that have not ended at `now`, have a role.
pub async fn in_use(tx: &mut TenantTx, id: RoleId, now: OffsetDateTime) -> Result<(u64, u64), StoreError> {
    let tenant = tx.tenant_uuid();
    let (users, keys): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM app_user WHERE tenant_id = $1 AND own_role = $2),
             (SELECT count(*) FROM api_key WHERE tenant_id = $1 AND own_role = $2 AND revoked_at IS NULL
                  AND (expires_at IS NULL OR expires_at > $3))",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(now)
    .fetch_one(tx.conn())
    .await?;
    Ok((u64::try_from(users).unwrap_or(0), u64::try_from(keys).unwrap_or(0)))
}

/// Ends a role; keys that ended with it go on naming it.
pub async fn delete(tx: &mut TenantTx, id: RoleId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE tenant_role SET deleted_at = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}
