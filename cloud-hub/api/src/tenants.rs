//! A tenant as it sees itself: what was agreed upon, and how much of it is used.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::schema::{SchemaType, Type};
use uuid::Uuid;
use wire_contract::Timestamp;

use super::auth::Caller;
use super::openapi::{wire, words};
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::TenantId;
use hub_domain::limit::Span;
use hub_domain::tenant::{Feature, Resource};
use hub_store::tenants::{self, Tenant};

/// A tenant with what it uses.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(super) struct TenantView {
    id: Uuid,
    name: String,
    #[schema(value_type = words::Tier)]
    tier: &'static str,
    /// `active` or `suspended`.
    #[schema(value_type = words::TenantState)]
    state: &'static str,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    suspended_at: Option<Timestamp>,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
    /// For each resource how many there are, and how many there may be (`null`: as many as it likes).
    #[schema(schema_with = usage_schema)]
    usage: Map<String, Value>,
    /// Requests an hour and a day (`null`: as many as it likes).
    #[schema(schema_with = requests_schema)]
    requests: Map<String, Value>,
    /// Which features it has.
    #[schema(schema_with = features_schema)]
    features: Map<String, Value>,
}

/// The schema of `requests`.
fn requests_schema() -> ObjectBuilder {
    let count =
        || ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Integer, Type::Null])).minimum(Some(1));
    [Span::Hour, Span::Day].iter().fold(ObjectBuilder::new(), |all, span| {
        let name = format!("per_{}", span.as_str());
        all.property(name.clone(), count()).required(name)
    })
}

/// The schema of `features`, by the list of them.
fn features_schema() -> ObjectBuilder {
    Feature::ALL.iter().fold(ObjectBuilder::new(), |all, feature| {
        all.property(feature.as_str(), ObjectBuilder::new().schema_type(Type::Boolean)).required(feature.as_str())
    })
}

/// The schema of `usage`, by the list of what there is a quota of.
fn usage_schema() -> ObjectBuilder {
    let count = || ObjectBuilder::new().minimum(Some(0));
    let number = count().schema_type(Type::Integer);
    let quota = count().schema_type(SchemaType::from_iter([Type::Integer, Type::Null]));
    let of_one = ObjectBuilder::new()
        .property("used", number)
        .property("quota", quota)
        .required("used")
        .required("quota")
        .build();
    Resource::ALL.iter().fold(ObjectBuilder::new(), |all, resource| {
        all.property(resource.as_str(), of_one.clone()).required(resource.as_str())
    })
}

/// The tenant as it is now.
pub(super) async fn show(api: &Api, tenant: TenantId) -> Result<TenantView, ApiError> {
    let shown = api.db.tenant(tenant, |tx| {
        Box::pin(async move {
            let tenant = tenants::get(tx).await?;
            let mut usage = Map::new();
            for resource in Resource::ALL {
                let quota = tenant.agreement.quota(*resource);
                let used = tenants::count(tx, *resource).await?;
                usage.insert(resource.as_str().to_owned(), json!({ "used": used, "quota": quota }));
            }
            Ok::<_, ApiError>(view(tenant, usage))
        })
    });
    shown.await
}

fn view(tenant: Tenant, usage: Map<String, Value>) -> TenantView {
    let agreed = &tenant.agreement;
    let requests = [Span::Hour, Span::Day].map(|span| {
        let count = agreed.allowance.of(agreed.tier, span);
        (format!("per_{}", span.as_str()), json!(count))
    });
    let features = Feature::ALL.iter().map(|feature| (feature.as_str().to_owned(), json!(agreed.has(*feature))));
    TenantView {
        id: tenant.id.0,
        name: tenant.name,
        requests: requests.into_iter().collect(),
        features: features.collect(),
        tier: agreed.tier.as_str(),
        state: if tenant.suspended_at.is_some() { "suspended" } else { "active" },
        suspended_at: tenant.suspended_at.map(Timestamp::from),
        created_at: tenant.created_at.into(),
        usage,
    }
}

/// `GET /v1/tenant`
#[utoipa::path(
    get, path = "/v1/tenant", operation_id = "get_tenant", tag = "tenant",
    summary = "The tenant of the key",
    description = "Its tier, whether it is suspended, and for each quota how much is used.",
    responses(
        (status = 200, description = "The tenant", body = TenantView),
    ),
)]
pub(super) async fn get(State(api): State<Arc<Api>>, caller: Caller) -> Result<axum::Json<TenantView>, ApiError> {
    Ok(axum::Json(show(&api, caller.tenant).await?))
}
