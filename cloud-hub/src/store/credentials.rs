//! API keys: their MACs and their end.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, TenantTx, routes};
use crate::domain::ids::ApiKeyId;

/// An API key as its owner may see it afterwards.
#[derive(Clone, Debug)]
pub struct ApiKeyRow {
    /// The public half.
    pub id: ApiKeyId,
    /// What its owner called it.
    pub name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was revoked, if it was.
    pub revoked_at: Option<OffsetDateTime>,
}

/// Stores a new key by the MAC of its secret.
pub async fn create(tx: &mut TenantTx, id: ApiKeyId, name: &str, mac: &[u8; 32]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO api_key (tenant_id, id, name, mac) VALUES ($1, $2, $3, $4)")
        .bind(tenant)
        .bind(id.0)
        .bind(name)
        .bind(mac.as_slice())
        .execute(tx.conn())
        .await?;
    routes::add(tx, "api_key", id.0).await
}

/// The MAC of a key that is not revoked.
pub async fn mac(tx: &mut TenantTx, id: ApiKeyId) -> Result<Option<[u8; 32]>, StoreError> {
    let tenant = tx.tenant_uuid();
    let mac: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT mac FROM api_key WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL")
            .bind(tenant)
            .bind(id.0)
            .fetch_optional(tx.conn())
            .await?;
    mac.map(|mac| mac.try_into().map_err(|_| StoreError::Unreadable { what: "api_key.mac", reason: "not 32 bytes" }))
        .transpose()
}

/// All keys of the tenant, oldest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<ApiKeyRow>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(Uuid, String, OffsetDateTime, Option<OffsetDateTime>)> =
        sqlx::query_as("SELECT id, name, created_at, revoked_at FROM api_key WHERE tenant_id = $1 ORDER BY id")
            .bind(tenant)
            .fetch_all(tx.conn())
            .await?;
    Ok(rows
        .into_iter()
        .map(|(id, name, created_at, revoked_at)| ApiKeyRow { id: ApiKeyId(id), name, created_at, revoked_at })
        .collect())
}

/// Ends a key. Requests that are already past their authentication finish.
pub async fn revoke(tx: &mut TenantTx, id: ApiKeyId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let done =
        sqlx::query("UPDATE api_key SET revoked_at = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL")
            .bind(tenant)
            .bind(id.0)
            .bind(now)
            .execute(tx.conn())
            .await?;
    if done.rows_affected() == 0 {
        return Err(StoreError::NotFound { what: "api key", id: id.0 });
    }
    routes::deactivate(tx, "api_key", id.0).await
}
