//! A tenant as it sees itself: what was agreed upon, and how much of it is used.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use wire_contract::Timestamp;

use super::auth::Caller;
use super::problem::ApiError;
use super::state::Api;
use crate::domain::ids::TenantId;
use crate::domain::tenant::{Resource, quota};
use crate::store::tenants::{self, Tenant};

/// A tenant with what it uses.
#[derive(Debug, Serialize)]
pub(super) struct TenantView {
    id: Uuid,
    name: String,
    tier: &'static str,
    /// `active` or `suspended`.
    state: &'static str,
    suspended_at: Option<Timestamp>,
    created_at: Timestamp,
    /// For each resource how many there are, and how many there may be (`null`: as many as it likes).
    usage: Map<String, Value>,
}

/// The tenant as it is now.
pub(super) async fn show(api: &Api, tenant: TenantId) -> Result<TenantView, ApiError> {
    let shown = api.db.tenant(tenant, |tx| {
        Box::pin(async move {
            let tenant = tenants::get(tx).await?;
            let mut usage = Map::new();
            for resource in Resource::ALL {
                let quota = quota(tenant.tier, &tenant.quotas, *resource);
                let used = tenants::count(tx, *resource).await?;
                usage.insert(resource.as_str().to_owned(), json!({ "used": used, "quota": quota }));
            }
            Ok::<_, ApiError>(view(tenant, usage))
        })
    });
    shown.await
}

fn view(tenant: Tenant, usage: Map<String, Value>) -> TenantView {
    TenantView {
        id: tenant.id.0,
        name: tenant.name,
        tier: tenant.tier.as_str(),
        state: if tenant.suspended_at.is_some() { "suspended" } else { "active" },
        suspended_at: tenant.suspended_at.map(Timestamp::from),
        created_at: tenant.created_at.into(),
        usage,
    }
}

/// `GET /v1/tenant`
pub(super) async fn get(State(api): State<Arc<Api>>, caller: Caller) -> Result<axum::Json<TenantView>, ApiError> {
    Ok(axum::Json(show(&api, caller.tenant).await?))
}
