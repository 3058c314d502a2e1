//! Tenants: their rows, whether they are served, and how much they have of what they may have.

use serde_json::{Map, Value};
use sqlx::FromRow;
use time::OffsetDateTime;

use super::{StoreError, TenantTx, routes, vectors};
use hub_domain::ids::TenantId;
use hub_domain::limit::Allowance;
use hub_domain::session::Lifetimes;
use hub_domain::tenant::{Agreement, Feature, Overrides, Resource, Switches, Tier, admits_one_more};

/// A tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// What was agreed upon.
    pub agreement: Agreement,
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
    vectors::begin(tx).await?;
    routes::add(tx, "tenant", tenant).await
}

/// The columns of an agreement. Where a tenant's row is joined to another one it is `t`.
pub(super) const AGREEMENT: &str = "t.tier, t.quotas, t.requests_per_hour, t.requests_per_day, t.features";

#[derive(FromRow)]
pub(super) struct AgreementRow {
    tier: String,
    quotas: Value,
    requests_per_hour: Option<i64>,
    requests_per_day: Option<i64>,
    features: Value,
}

impl TryFrom<AgreementRow> for Agreement {
    type Error = StoreError;

    fn try_from(row: AgreementRow) -> Result<Self, StoreError> {
        let requests = |count: Option<i64>| count.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        Ok(Self {
            tier: row
                .tier
                .parse()
                .map_err(|_| StoreError::Unreadable { what: "tenant.tier", reason: "no such tier" })?,
            quotas: read_quotas(&row.quotas)?,
            allowance: Allowance { per_hour: requests(row.requests_per_hour), per_day: requests(row.requests_per_day) },
            features: read_switches(&row.features)?,
        })
    }
}

#[derive(FromRow)]
struct TenantRow {
    name: String,
    #[sqlx(flatten)]
    agreement: AgreementRow,
    suspended_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
}

/// The tenant of the transaction.
pub async fn get(tx: &mut TenantTx) -> Result<Tenant, StoreError> {
    read(tx, "").await
}

/// The same, and nobody else changes it before the end of the transaction.
pub async fn lock(tx: &mut TenantTx) -> Result<Tenant, StoreError> {
    read(tx, " FOR NO KEY UPDATE").await
}

async fn read(tx: &mut TenantTx, locked: &'static str) -> Result<Tenant, StoreError> {
    let id = tx.tenant();
    let statement = format!(
        "SELECT t.name, {AGREEMENT}, t.suspended_at, t.created_at FROM tenant t WHERE t.tenant_id = $1{locked}"
    );
    let row: Option<TenantRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(id.0).fetch_optional(tx.conn()).await?;
    let row = row.ok_or(StoreError::NotFound { what: "tenant", id: id.0 })?;
    Ok(Tenant {
        id,
        name: row.name,
        agreement: row.agreement.try_into()?,
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
pub async fn agree(tx: &mut TenantTx, agreement: &Agreement) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE tenant SET tier = $2, quotas = $3, requests_per_hour = $4, requests_per_day = $5, features = $6
         WHERE tenant_id = $1",
    )
    .bind(tenant)
    .bind(agreement.tier.as_str())
    .bind(written_quotas(&agreement.quotas))
    .bind(agreement.allowance.per_hour.map(i64::from))
    .bind(agreement.allowance.per_day.map(i64::from))
    .bind(written_switches(&agreement.features))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How sure recognition must be for the tenant: a FAR from the model pack's table of thresholds.
pub async fn match_far(tx: &mut TenantTx) -> Result<String, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = "SELECT match_far FROM tenant WHERE tenant_id = $1";
    Ok(sqlx::query_scalar(statement).bind(tenant).fetch_one(tx.conn()).await?)
}

/// Changes it.
pub async fn set_match_far(tx: &mut TenantTx, far: &str) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = "UPDATE tenant SET match_far = $2 WHERE tenant_id = $1";
    sqlx::query(statement).bind(tenant).bind(far).execute(tx.conn()).await?;
    Ok(())
}

/// How long the tenant's sessions stay open.
pub async fn session_lifetimes(tx: &mut TenantTx) -> Result<Lifetimes, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = "SELECT authentication_session_s, enrolment_session_s FROM tenant WHERE tenant_id = $1";
    let (authentication, enrolment): (i32, i32) = sqlx::query_as(statement).bind(tenant).fetch_one(tx.conn()).await?;
    Ok(Lifetimes { authentication_s: authentication.unsigned_abs(), enrolment_s: enrolment.unsigned_abs() })
}

/// Changes it, for sessions that are opened from now on.
pub async fn set_session_lifetimes(tx: &mut TenantTx, lifetimes: Lifetimes) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let seconds = |seconds: u32| i32::try_from(seconds).unwrap_or(i32::MAX);
    sqlx::query("UPDATE tenant SET authentication_session_s = $2, enrolment_session_s = $3 WHERE tenant_id = $1")
        .bind(tenant)
        .bind(seconds(lifetimes.authentication_s))
        .bind(seconds(lifetimes.enrolment_s))
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
        // One whose time is over is not open, whether or not the job has been there.
        Resource::Sessions => {
            "SELECT count(*) FROM session
             WHERE tenant_id = $1 AND ended_at IS NULL AND expires_at > now() AND token_mac IS NOT NULL"
        }
        // Not the copies of it in galleries, the audit, or deliveries: what a tenant has, not what the hub makes of it.
        Resource::Storage => {
            "SELECT (SELECT coalesce(sum(bytes), 0) FROM feed_counter WHERE tenant_id = $1)::bigint
                  + (SELECT coalesce(sum(octet_length(profile_sealed)), 0) FROM person WHERE tenant_id = $1)
                  + (SELECT coalesce(sum(octet_length(sealed)), 0) FROM template WHERE tenant_id = $1)
                  + (SELECT coalesce(sum(octet_length(sealed)), 0) FROM anchor WHERE tenant_id = $1)"
        }
    };
    let tenant = tx.tenant_uuid();
    let count: i64 = sqlx::query_scalar(statement).bind(tenant).fetch_one(tx.conn()).await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Fails if one more would be above the tenant's quota, or if all its storage is used. Call it before anything else of the
/// transaction: where there is a quota, the tenant's row is kept until the end, so that of two who come at once the second counts the
/// first. Events ask nobody: what a door reports is stored whatever the quota, and counts.
pub async fn admit(tx: &mut TenantTx, resource: Resource) -> Result<(), StoreError> {
    let needed = [resource, Resource::Storage];
    let agreed = get(tx).await?.agreement;
    if needed.iter().all(|resource| agreed.quota(*resource).is_none()) {
        return Ok(());
    }
    let agreed = lock(tx).await?.agreement;
    for resource in needed {
        let Some(quota) = agreed.quota(resource) else { continue };
        if !admits_one_more(Some(quota), count(tx, resource).await?) {
            return Err(StoreError::QuotaReached { what: resource.counted(), quota });
        }
    }
    Ok(())
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

/// Names of features that this program does not know are left alone, as with quotas.
fn read_switches(value: &Value) -> Result<Switches, StoreError> {
    let unreadable = || StoreError::Unreadable { what: "tenant.features", reason: "neither true nor false" };
    let mut switches = Switches::default();
    for feature in Feature::ALL {
        if let Some(on) = value.get(feature.as_str()) {
            switches = switches.with(*feature, Some(on.as_bool().ok_or_else(unreadable)?));
        }
    }
    Ok(switches)
}

fn written_switches(switches: &Switches) -> Value {
    let told =
        Feature::ALL.iter().filter_map(|feature| Some((feature.as_str().to_owned(), switches.of(*feature)?.into())));
    Value::Object(told.collect::<Map<String, Value>>())
}
