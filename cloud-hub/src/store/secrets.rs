//! Sealed tenant secrets, as bytes. What is in them is the business of `keys`.

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
