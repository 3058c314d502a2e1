//! Sealed tenant secrets, as bytes. What is in them is the business of `keys`.

use std::time::Duration;

use gallery_log::KeyId;
use time::OffsetDateTime;

use super::{StoreError, TenantTx};

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tenant key under the master key.
    TenantKey,
    /// The blind index key under the tenant key.
    BlindIndex,
    /// The rotation seed of one embedding space under the tenant key.
    RotationSeed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::TenantKey => "tk",
            Self::BlindIndex => "bi",
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

/// A version of a tenant's key.
#[derive(Clone, Debug)]
pub struct TenantKeyRow {
    /// Its number.
    pub version: u32,
    /// The key, sealed.
    pub sealed: Vec<u8>,
    /// How long ago it was made, by the database's clock, which all hubs share.
    pub age: Duration,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// The versions of the tenant's key, newest first.
pub async fn tenant_keys(tx: &mut TenantTx) -> Result<Vec<TenantKeyRow>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(i32, Vec<u8>, f64, OffsetDateTime)> = sqlx::query_as(
        "SELECT version, sealed, greatest(extract(epoch FROM clock_timestamp() - created_at), 0)::float8, created_at
         FROM tenant_secret WHERE tenant_id = $1 AND kind = 'tk' ORDER BY version DESC",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    let row = |(version, sealed, age, created_at): (i32, Vec<u8>, f64, OffsetDateTime)| {
        let version = u32::try_from(version)
            .map_err(|_| StoreError::Unreadable { what: "tenant_secret.version", reason: "negative" })?;
        Ok(TenantKeyRow { version, sealed, age: Duration::try_from_secs_f64(age).unwrap_or_default(), created_at })
    };
    rows.into_iter().map(row).collect()
}

/// A secret that is sealed under the tenant's key.
#[derive(Clone, Debug)]
pub struct SecretRow {
    /// [`Kind::BlindIndex`] or [`Kind::RotationSeed`].
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
                "bi" => Kind::BlindIndex,
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

/// Removes the versions of the tenant's key that are older than this one; returns how many there were.
pub async fn remove_before(tx: &mut TenantTx, version: u32) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM tenant_secret WHERE tenant_id = $1 AND kind = 'tk' AND version < $2")
        .bind(tx.tenant_uuid())
        .bind(i64::from(version))
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected())
}
