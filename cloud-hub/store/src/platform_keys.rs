//! Keys of platform administrators: their MACs, their roles, and their end. No tenant's rows; each function is one statement, which
//! nobody who goes away can leave half-way.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::credentials::NewMac;
use super::{Database, StoreError};
use hub_domain::ids::PlatformKeyId;
use hub_domain::platform::PlatformRole;

/// A key to be stored.
#[derive(Clone, Debug)]
pub struct NewPlatformKey {
    /// The public half.
    pub id: PlatformKeyId,
    /// Whose it is, or what it is for.
    pub name: String,
    /// What it may do.
    pub role: PlatformRole,
    /// The MAC of the secret half under the hub's pepper.
    pub mac: NewMac,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends by itself, if it does.
    pub expires_at: Option<OffsetDateTime>,
}

/// A key as it may be seen afterwards.
#[derive(Clone, Debug)]
pub struct PlatformKeyRow {
    /// The public half.
    pub id: PlatformKeyId,
    /// Whose it is, or what it is for.
    pub name: String,
    /// What it may do.
    pub role: PlatformRole,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends by itself, if it does.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<OffsetDateTime>,
}

/// What decides whether a key is let in.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// The MAC of its secret half.
    pub mac: [u8; 32],
    /// Which pepper made it, if that was noted.
    pub pepper: Option<[u8; 16]>,
    /// What it may do.
    pub role: PlatformRole,
    /// When it was last used, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
}

/// Stores a new key.
pub async fn create(db: &Database, key: &NewPlatformKey) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO platform_key (id, name, role, mac, created_at, expires_at, pepper) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(key.id.0)
    .bind(&key.name)
    .bind(key.role.as_str())
    .bind(key.mac.mac.as_slice())
    .bind(key.created_at)
    .bind(key.expires_at)
    .bind(key.mac.pepper.as_slice())
    .execute(db.pool())
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct AdmissionRow {
    mac: Vec<u8>,
    pepper: Option<Vec<u8>>,
    role: String,
    last_used_at: Option<OffsetDateTime>,
}

/// What decides about a key that is neither revoked nor expired at `now`.
pub async fn admission(db: &Database, id: PlatformKeyId, now: OffsetDateTime) -> Result<Option<Admission>, StoreError> {
    let row: Option<AdmissionRow> = sqlx::query_as(
        "SELECT mac, pepper, role, last_used_at FROM platform_key
         WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(id.0)
    .bind(now)
    .fetch_optional(db.pool())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mac = row.mac.try_into();
    let mac = mac.map_err(|_| StoreError::Unreadable { what: "platform_key.mac", reason: "not 32 bytes" })?;
    let pepper = row.pepper.and_then(|id| id.try_into().ok());
    Ok(Some(Admission { mac, pepper, role: role(&row.role)?, last_used_at: row.last_used_at }))
}

/// Puts another MAC of the same secret in the place of `before`, and says which pepper made it.
pub async fn renew(db: &Database, id: PlatformKeyId, before: &[u8; 32], anew: NewMac) -> Result<(), StoreError> {
    sqlx::query("UPDATE platform_key SET mac = $3, pepper = $4 WHERE id = $1 AND mac = $2")
        .bind(id.0)
        .bind(before.as_slice())
        .bind(anew.mac.as_slice())
        .bind(anew.pepper.as_slice())
        .execute(db.pool())
        .await?;
    Ok(())
}

/// Counts the keys that are good and were made by another pepper than this one.
pub async fn under_other(db: &Database, pepper: &[u8; 16], now: OffsetDateTime) -> Result<u64, StoreError> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM platform_key
         WHERE pepper IS DISTINCT FROM $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(pepper.as_slice())
    .bind(now)
    .fetch_one(db.pool())
    .await?;
    Ok(count.unsigned_abs())
}

/// Whether there is such a key, whatever became of it.
pub async fn exists(db: &Database, id: PlatformKeyId) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM platform_key WHERE id = $1)").bind(id.0);
    Ok(found.fetch_one(db.pool()).await?)
}

/// Notes that a key was used.
pub async fn used(db: &Database, id: PlatformKeyId, now: OffsetDateTime) -> Result<(), StoreError> {
    let noted = sqlx::query("UPDATE platform_key SET last_used_at = $2 WHERE id = $1").bind(id.0).bind(now);
    noted.execute(db.pool()).await?;
    Ok(())
}

/// Ends a key. Requests that are already past their authentication finish.
pub async fn revoke(db: &Database, id: PlatformKeyId, now: OffsetDateTime) -> Result<(), StoreError> {
    let ended = sqlx::query("UPDATE platform_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
        .bind(id.0)
        .bind(now)
        .execute(db.pool())
        .await?;
    match ended.rows_affected() {
        0 => Err(StoreError::NotFound { what: "platform key", id: id.0 }),
        _ => Ok(()),
    }
}

#[derive(FromRow)]
struct KeyRow {
    id: Uuid,
    name: String,
    role: String,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
}

/// All keys, those that have ended too, the oldest first.
pub async fn list(db: &Database) -> Result<Vec<PlatformKeyRow>, StoreError> {
    let rows: Vec<KeyRow> = sqlx::query_as(
        "SELECT id, name, role, created_at, expires_at, last_used_at, revoked_at FROM platform_key ORDER BY id",
    )
    .fetch_all(db.pool())
    .await?;
    let row = |row: KeyRow| {
        Ok(PlatformKeyRow {
            id: PlatformKeyId(row.id),
            role: role(&row.role)?,
            name: row.name,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
        })
    };
    rows.into_iter().map(row).collect()
}

fn role(word: &str) -> Result<PlatformRole, StoreError> {
    word.parse().map_err(|_| StoreError::Unreadable { what: "platform_key.role", reason: "no such role" })
}
