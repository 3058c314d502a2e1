//! Sealed tenant secrets, as bytes. What is in them is the business of `keys`.

use std::time::Duration;

use gallery_log::KeyId;
use sqlx::FromRow;
use time::OffsetDateTime;

use super::{StoreError, TenantTx};

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tenant key under the master key.
    TenantKey,
    /// An index key under the tenant key.
    IndexKey,
    /// The key by which doors know groups, under the tenant key.
    GroupKey,
    /// The rotation seed of one embedding space under the tenant key.
    RotationSeed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::TenantKey => "tk",
            Self::IndexKey => "bi",
            Self::GroupKey => "gi",
            Self::RotationSeed => "rs",
        }
    }
}

/// Stores a secret unless there is one of that kind, name and version; returns whether it was stored.
pub async fn add(tx: &mut TenantTx, kind: Kind, name: &str, version: u32, sealed: &[u8]) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "INSERT INTO tenant_secret (tenant_id, kind, name, version, sealed) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(kind.name())
    .bind(name)
    .bind(
        i32::try_from(version)
            .map_err(|_| StoreError::Unreadable { what: "tenant_secret.version", reason: "too large" })?,
    )
    .bind(sealed)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// All versions of a secret with their numbers, newest first.
pub async fn versions(tx: &mut TenantTx, kind: Kind, name: &str) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(i32, Vec<u8>)> = sqlx::query_as(
        "SELECT version, sealed FROM tenant_secret WHERE tenant_id = $1 AND kind = $2 AND name = $3 ORDER BY version DESC",
    )
    .bind(tenant)
    .bind(kind.name())
    .bind(name)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter()
        .map(|(version, sealed)| {
            let version = u32::try_from(version)
                .map_err(|_| StoreError::Unreadable { what: "tenant_secret.version", reason: "negative" })?;
            Ok((version, sealed))
        })
        .collect()
}

/// A version of a secret.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its number.
    pub version: u32,
    /// The secret, sealed.
    pub sealed: Vec<u8>,
    /// How long ago it was made, by the database's clock, which all hubs share.
    pub age: Duration,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// For how long nobody has used it any more, if that was said.
    pub ended: Option<Duration>,
}

#[derive(FromRow)]
struct VersionRow {
    version: i32,
    sealed: Vec<u8>,
    age: f64,
    created_at: OffsetDateTime,
    ended: Option<f64>,
}

/// The versions of a secret with their ages, newest first.
pub async fn aged(tx: &mut TenantTx, kind: Kind, name: &str) -> Result<Vec<Version>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<VersionRow> = sqlx::query_as(
        "SELECT version, sealed, greatest(extract(epoch FROM clock_timestamp() - created_at), 0)::float8 AS age, created_at,
             CASE WHEN ended_at IS NOT NULL
                 THEN greatest(extract(epoch FROM clock_timestamp() - ended_at), 0)::float8 END AS ended
         FROM tenant_secret WHERE tenant_id = $1 AND kind = $2 AND name = $3 ORDER BY version DESC",
    )
    .bind(tenant)
    .bind(kind.name())
    .bind(name)
    .fetch_all(tx.conn())
    .await?;
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let version = |row: VersionRow| {
        let version = u32::try_from(row.version)
            .map_err(|_| StoreError::Unreadable { what: "tenant_secret.version", reason: "negative" })?;
        let (age, ended) = (seconds(row.age), row.ended.map(seconds));
        Ok(Version { version, sealed: row.sealed, age, created_at: row.created_at, ended })
    };
    rows.into_iter().map(version).collect()
}

/// The versions of the tenant's key, newest first.
pub async fn tenant_keys(tx: &mut TenantTx) -> Result<Vec<Version>, StoreError> {
    aged(tx, Kind::TenantKey, "").await
}

/// Says of the versions before this one that nobody is to use them any more.
pub async fn end_before(tx: &mut TenantTx, kind: Kind, name: &str, version: u32) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE tenant_secret SET ended_at = clock_timestamp()
         WHERE tenant_id = $1 AND kind = $2 AND name = $3 AND version < $4 AND ended_at IS NULL",
    )
    .bind(tx.tenant_uuid())
    .bind(kind.name())
    .bind(name)
    .bind(i64::from(version))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The names of the secrets of a kind.
pub async fn names(tx: &mut TenantTx, kind: Kind) -> Result<Vec<String>, StoreError> {
    let found =
        sqlx::query_scalar("SELECT DISTINCT name FROM tenant_secret WHERE tenant_id = $1 AND kind = $2 ORDER BY 1");
    Ok(found.bind(tx.tenant_uuid()).bind(kind.name()).fetch_all(tx.conn()).await?)
}

/// A secret that is sealed under the tenant's key.
#[derive(Clone, Debug)]
pub struct SecretRow {
    /// Any but [`Kind::TenantKey`].
    pub kind: Kind,
    /// Of a rotation seed its space.
    pub name: String,
    /// Its number.
    pub version: u32,
    /// The secret.
    pub sealed: Vec<u8>,
}

/// The secrets that are sealed under one of these keys of the tenant.
pub async fn under(tx: &mut TenantTx, keys: &[KeyId]) -> Result<Vec<SecretRow>, StoreError> {
    let ids: Vec<Vec<u8>> = keys.iter().map(|id| id.0.to_vec()).collect();
    let rows: Vec<(String, String, i32, Vec<u8>)> = sqlx::query_as(
        "SELECT kind, name, version, sealed FROM tenant_secret
         WHERE tenant_id = $1 AND kind <> 'tk' AND substr(sealed, 2, 16) = ANY($2) FOR UPDATE",
    )
    .bind(tx.tenant_uuid())
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter()
        .map(|(kind, name, version, sealed)| {
            let kind = match kind.as_str() {
                "bi" => Kind::IndexKey,
                "gi" => Kind::GroupKey,
                "rs" => Kind::RotationSeed,
                _ => return Err(StoreError::Unreadable { what: "tenant_secret.kind", reason: "not known" }),
            };
            let version = u32::try_from(version)
                .map_err(|_| StoreError::Unreadable { what: "tenant_secret.version", reason: "negative" })?;
            Ok(SecretRow { kind, name, version, sealed })
        })
        .collect()
}

/// Puts another seal of the same secret in the place of `before`; false if something else is there.
pub async fn replace(
    tx: &mut TenantTx,
    kind: Kind,
    name: &str,
    version: u32,
    before: &[u8],
    sealed: &[u8],
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE tenant_secret SET sealed = $6
         WHERE tenant_id = $1 AND kind = $2 AND name = $3 AND version = $4 AND sealed = $5",
    )
    .bind(tx.tenant_uuid())
    .bind(kind.name())
    .bind(name)
    .bind(i64::from(version))
    .bind(before)
    .bind(sealed)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes the versions of a secret that are older than this one; returns how many there were.
pub async fn remove_before(tx: &mut TenantTx, kind: Kind, name: &str, version: u32) -> Result<u64, StoreError> {
    let done =
        sqlx::query("DELETE FROM tenant_secret WHERE tenant_id = $1 AND kind = $2 AND name = $3 AND version < $4")
            .bind(tx.tenant_uuid())
            .bind(kind.name())
            .bind(name)
            .bind(i64::from(version))
            .execute(tx.conn())
            .await?;
    Ok(done.rows_affected())
}
