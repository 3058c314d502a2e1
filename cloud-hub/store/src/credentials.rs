//! API keys: their MACs, what they may do, and their end.

use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::roles::{self, BESIDE, RoleRow};
use super::tenants::{AGREEMENT, AgreementRow};
use super::{StoreError, TenantTx, routes};
use hub_domain::ids::ApiKeyId;
use hub_domain::permission::Grant;
use hub_domain::tenant::Agreement;

/// How exactly it is known when a key was last used: a key that is used all the time is not written all the time.
pub const LAST_USED_WITHIN: Duration = Duration::MINUTE;

/// A MAC of a secret, and which of the hub's peppers made it.
#[derive(Clone, Copy, Debug)]
pub struct NewMac {
    /// The MAC.
    pub mac: [u8; 32],
    /// 16 bytes that name the pepper.
    pub pepper: [u8; 16],
}

/// A key to be stored.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// The public half.
    pub id: ApiKeyId,
    /// What it is for.
    pub name: String,
    /// The MAC of the secret half under the hub's pepper.
    pub mac: NewMac,
    /// What it may do.
    pub grant: Grant,
    /// When it ends by itself, if it does.
    pub expires_at: Option<OffsetDateTime>,
    /// How many requests an hour it may ask, if not as many as its tenant.
    pub requests_per_hour: Option<u32>,
}

/// An API key as its owner may see it afterwards.
#[derive(Clone, Debug)]
pub struct ApiKeyRow {
    /// The public half.
    pub id: ApiKeyId,
    /// What its owner called it.
    pub name: String,
    /// What it may do.
    pub grant: Grant,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends by itself, if it does.
    pub expires_at: Option<OffsetDateTime>,
    /// How many requests an hour it may ask, if not as many as its tenant.
    pub requests_per_hour: Option<u32>,
    /// When it was last used, to [`LAST_USED_WITHIN`].
    pub last_used_at: Option<OffsetDateTime>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<OffsetDateTime>,
    /// The key that took its place, if one did.
    pub replaced_by: Option<ApiKeyId>,
}

/// What decides whether a key is let in.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The MAC of its secret half.
    pub mac: [u8; 32],
    /// Which pepper made it, if that was noted.
    pub pepper: Option<[u8; 16]>,
    /// What it may do.
    pub grant: Grant,
    /// When it was last used, to [`LAST_USED_WITHIN`].
    pub last_used_at: Option<OffsetDateTime>,
    /// How many requests an hour it may ask, if not as many as its tenant.
    pub requests_per_hour: Option<u32>,
    /// When it ends by itself, if it does.
    pub expires_at: Option<OffsetDateTime>,
    /// Whether its tenant is not served at present.
    pub suspended: bool,
    /// What was agreed upon with its tenant.
    pub agreement: Agreement,
}

/// Stores a new key.
pub async fn create(tx: &mut TenantTx, key: &NewApiKey) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    roles::hold(tx, key.grant.role.which).await?;
    let (role, own_role) = roles::columns(key.grant.role.which);
    sqlx::query(
        "INSERT INTO api_key (tenant_id, id, name, mac, role, own_role, scopes, expires_at, requests_per_hour, pepper)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(tenant)
    .bind(key.id.0)
    .bind(&key.name)
    .bind(key.mac.mac.as_slice())
    .bind(role)
    .bind(own_role)
    .bind(key.grant.scopes.map(roles::words))
    .bind(key.expires_at)
    .bind(key.requests_per_hour.map(i64::from))
    .bind(key.mac.pepper.as_slice())
    .execute(tx.conn())
    .await?;
    routes::add(tx, "api_key", key.id.0).await
}

fn grant(role: RoleRow, scopes: Option<Vec<String>>) -> Result<Grant, StoreError> {
    Ok(Grant { role: role.try_into()?, scopes: scopes.map(|words| roles::permissions(&words)) })
}

#[derive(FromRow)]
struct AdmissionRow {
    mac: Vec<u8>,
    pepper: Option<Vec<u8>>,
    #[sqlx(flatten)]
    role: RoleRow,
    scopes: Option<Vec<String>>,
    last_used_at: Option<OffsetDateTime>,
    key_requests_per_hour: Option<i64>,
    expires_at: Option<OffsetDateTime>,
    suspended: bool,
    #[sqlx(flatten)]
    agreement: AgreementRow,
}

fn requests(count: Option<i64>) -> Option<u32> {
    count.map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// What decides about a key that is neither revoked nor expired at `now`.
pub async fn admission(tx: &mut TenantTx, id: ApiKeyId, now: OffsetDateTime) -> Result<Option<Admission>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!(
        "SELECT k.mac, k.pepper, k.role, {BESIDE}, k.scopes, k.last_used_at, k.requests_per_hour AS key_requests_per_hour, k.expires_at,
             t.suspended_at IS NOT NULL AS suspended, {AGREEMENT}
         FROM api_key k JOIN tenant t USING (tenant_id)
             LEFT JOIN tenant_role r ON r.tenant_id = k.tenant_id AND r.id = k.own_role
         WHERE k.tenant_id = $1 AND k.id = $2 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $3)"
    );
    let row: Option<AdmissionRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(tenant)
        .bind(id.0)
        .bind(now)
        .fetch_optional(tx.conn())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mac = row.mac.try_into().map_err(|_| StoreError::Unreadable { what: "api_key.mac", reason: "not 32 bytes" })?;
    Ok(Some(Admission {
        mac,
        pepper: row.pepper.and_then(|id| id.try_into().ok()),
        grant: grant(row.role, row.scopes)?,
        last_used_at: row.last_used_at,
        requests_per_hour: requests(row.key_requests_per_hour),
        expires_at: row.expires_at,
        suspended: row.suspended,
        agreement: row.agreement.try_into()?,
    }))
}

/// Puts another MAC of the same secret in the place of `before`, and says which pepper made it.
pub async fn renew(tx: &mut TenantTx, id: ApiKeyId, before: &[u8; 32], anew: NewMac) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE api_key SET mac = $4, pepper = $5 WHERE tenant_id = $1 AND id = $2 AND mac = $3")
        .bind(tenant)
        .bind(id.0)
        .bind(before.as_slice())
        .bind(anew.mac.as_slice())
        .bind(anew.pepper.as_slice())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// What is good and was made by another pepper than this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderOther {
    /// API keys that have not ended; of all tenants together, with those of platform administrators.
    pub api_keys: u64,
    /// Recovery codes that nobody has used.
    pub recovery_codes: u64,
}

/// Counts what the tenant has of it.
pub async fn under_other(tx: &mut TenantTx, pepper: &[u8; 16], now: OffsetDateTime) -> Result<UnderOther, StoreError> {
    let (api_keys, recovery_codes): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM api_key WHERE tenant_id = $1 AND pepper IS DISTINCT FROM $2 AND revoked_at IS NULL
                     AND (expires_at IS NULL OR expires_at > $3)),
                (SELECT count(*) FROM recovery_code WHERE tenant_id = $1 AND pepper IS DISTINCT FROM $2 AND used_at IS NULL)",
    )
    .bind(tx.tenant_uuid())
    .bind(pepper.as_slice())
    .bind(now)
    .fetch_one(tx.conn())
    .await?;
    Ok(UnderOther { api_keys: api_keys.unsigned_abs(), recovery_codes: recovery_codes.unsigned_abs() })
}

/// Notes that a key was used.
pub async fn used(tx: &mut TenantTx, id: ApiKeyId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE api_key SET last_used_at = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct KeyRow {
    id: Uuid,
    name: String,
    #[sqlx(flatten)]
    role: RoleRow,
    scopes: Option<Vec<String>>,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    requests_per_hour: Option<i64>,
    last_used_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    replaced_by: Option<Uuid>,
}

impl TryFrom<KeyRow> for ApiKeyRow {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: ApiKeyId(row.id),
            name: row.name,
            grant: grant(row.role, row.scopes)?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            requests_per_hour: requests(row.requests_per_hour),
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
            replaced_by: row.replaced_by.map(ApiKeyId),
        })
    }
}

/// Keys of a tenant, the oldest first: the one of an id, or all.
async fn keys(tx: &mut TenantTx, id: Option<ApiKeyId>) -> Result<Vec<ApiKeyRow>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!(
        "SELECT k.id, k.name, k.role, {BESIDE}, k.scopes, k.created_at, k.expires_at, k.requests_per_hour, k.last_used_at,
             k.revoked_at, k.replaced_by
         FROM api_key k LEFT JOIN tenant_role r ON r.tenant_id = k.tenant_id AND r.id = k.own_role
         WHERE k.tenant_id = $1 AND ($2::uuid IS NULL OR k.id = $2) ORDER BY k.id"
    );
    let rows: Vec<KeyRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(tenant)
        .bind(id.map(|id| id.0))
        .fetch_all(tx.conn())
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// One key of the tenant.
pub async fn get(tx: &mut TenantTx, id: ApiKeyId) -> Result<ApiKeyRow, StoreError> {
    let found = keys(tx, Some(id)).await?;
    found.into_iter().next().ok_or(StoreError::NotFound { what: "api key", id: id.0 })
}

/// All keys of the tenant, oldest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<ApiKeyRow>, StoreError> {
    keys(tx, None).await
}

/// Lets a key end at `at`, since `by` takes its place; whether there was a living one that nothing had replaced.
pub async fn replace(
    tx: &mut TenantTx,
    id: ApiKeyId,
    by: ApiKeyId,
    at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE api_key SET replaced_by = $3, expires_at = least(expires_at, $4)
         WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL AND replaced_by IS NULL
             AND (expires_at IS NULL OR expires_at > $5)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(by.0)
    .bind(at)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
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
