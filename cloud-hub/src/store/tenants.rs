//! Tenants: their rows, whether they are served, and how much they have of what they may have.

use serde_json::{Map, Value};
use sqlx::FromRow;
use time::OffsetDateTime;

use super::{StoreError, TenantTx, routes};
use crate::domain::ids::TenantId;
use crate::domain::tenant::{Overrides, Resource, Tier, admits_one_more, quota};

/// A tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// What was agreed upon.
    pub tier: Tier,
    /// Where it differs from its tier.
    pub quotas: Overrides,
    /// Since when it is not served, if it is not.
    pub suspended_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// Writes the tenant of the transaction, its feed counter and its route.
pub async fn create(tx: &mut TenantTx, name: &str, tier: Tier) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO tenant (tenant_id, name, tier) VALUES ($1, $2, $3)")
        .bind(tenant)
        .bind(name)
        .bind(tier.as_str())
        .execute(tx.conn())
        .await?;
    sqlx::query("INSERT INTO feed_counter (tenant_id) VALUES ($1)").bind(tenant).execute(tx.conn()).await?;
    routes::add(tx, "tenant", tenant).await
}

#[derive(FromRow)]
struct TenantRow {
    name: String,
    tier: String,
    quotas: Value,
    suspended_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
}

/// The tenant of the transaction.
pub async fn get(tx: &mut TenantTx) -> Result<Tenant, StoreError> {
    let id = tx.tenant();
    let row: Option<TenantRow> =
        sqlx::query_as("SELECT name, tier, quotas, suspended_at, created_at FROM tenant WHERE tenant_id = $1")
            .bind(id.0)
            .fetch_optional(tx.conn())
            .await?;
    let row = row.ok_or(StoreError::NotFound { what: "tenant", id: id.0 })?;
    Ok(Tenant {
        id,
        name: row.name,
        tier: row.tier.parse().map_err(|_| StoreError::Unreadable { what: "tenant.tier", reason: "no such tier" })?,
        quotas: read_quotas(&row.quotas)?,
        suspended_at: row.suspended_at,
        created_at: row.created_at,
    })
}

/// Stops serving the tenant, or serves it again; returns whether that is a change.
pub async fn suspend(tx: &mut TenantTx, since: Option<OffsetDateTime>) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE tenant SET suspended_at = $2 WHERE tenant_id = $1 AND (suspended_at IS NULL) <> ($2::timestamptz IS NULL)",
    )
    .bind(tenant)
    .bind(since)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Changes what was agreed upon. What is there already stays, whatever the new quotas are.
pub async fn agree(tx: &mut TenantTx, tier: Tier, quotas: &Overrides) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE tenant SET tier = $2, quotas = $3 WHERE tenant_id = $1")
        .bind(tenant)
        .bind(tier.as_str())
        .bind(written_quotas(quotas))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// How many of a resource the tenant has.
pub async fn count(tx: &mut TenantTx, resource: Resource) -> Result<u64, StoreError> {
    let statement = match resource {
        Resource::People => "SELECT count(*) FROM person WHERE tenant_id = $1 AND state = 'active'",
        Resource::Templates => "SELECT count(*) FROM template WHERE tenant_id = $1",
        Resource::Devices => "SELECT count(*) FROM device WHERE tenant_id = $1 AND state <> 'revoked'",
    };
    let tenant = tx.tenant_uuid();
    let count: i64 = sqlx::query_scalar(statement).bind(tenant).fetch_one(tx.conn()).await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Fails if one more would be above the tenant's quota. Call it before anything else of the transaction: where there is a
/// quota, the tenant's row is kept until the end, so that of two who come at once the second counts the first.
pub async fn admit(tx: &mut TenantTx, resource: Resource) -> Result<(), StoreError> {
    let tenant = get(tx).await?;
    let limit = quota(tenant.tier, &tenant.quotas, resource);
    let Some(quota) = limit else { return Ok(()) };
    sqlx::query("SELECT FROM tenant WHERE tenant_id = $1 FOR NO KEY UPDATE")
        .bind(tenant.id.0)
        .execute(tx.conn())
        .await?;
    if admits_one_more(limit, count(tx, resource).await?) {
        Ok(())
    } else {
        Err(StoreError::QuotaReached { what: resource.as_str(), quota })
    }
}

/// Names of resources that this program does not know are left alone: a newer one wrote them.
fn read_quotas(value: &Value) -> Result<Overrides, StoreError> {
    let unreadable = || StoreError::Unreadable { what: "tenant.quotas", reason: "neither a count nor null" };
    Resource::ALL.iter().try_fold(Overrides::default(), |quotas, resource| {
        let said = match value.get(resource.as_str()) {
            None => None,
            Some(Value::Null) => Some(None),
            Some(count) => Some(Some(count.as_u64().ok_or_else(unreadable)?)),
        };
        Ok(quotas.with(*resource, said))
    })
}

fn written_quotas(quotas: &Overrides) -> Value {
    let said = Resource::ALL.iter().filter_map(|resource| {
        quotas.of(*resource).map(|quota| (resource.as_str().to_owned(), quota.map_or(Value::Null, Value::from)))
    });
    Value::Object(said.collect::<Map<_, _>>())
}
