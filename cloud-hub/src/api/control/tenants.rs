//! Tenants: made, agreed with, suspended, ended.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;
use wire_contract::Code;

use super::{Answer, OPERATOR, existing, ok};
use crate::api::body::{Checks, Fields, Json};
use crate::api::problem::ApiError;
use crate::api::sites::MAX_NAME;
use crate::api::state::Api;
use crate::api::{agreements, deletion, tenants};
use crate::domain::ids::TenantId;
use crate::domain::permission::{Grant, Role};
use crate::domain::tenant::Tier;
use crate::keys::WantedApiKey;
use crate::store::{audit, routes as store_routes, tenants as store_tenants};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/tenants", post(create_tenant).get(list_tenants))
        .route("/tenants/{tenant}", get(show_tenant).patch(agree_with_tenant))
        .route("/tenants/{tenant}/deletion", get(show_deletion).post(delete_tenant))
        .route("/tenants/{tenant}/suspend", post(suspend_tenant))
        .route("/tenants/{tenant}/resume", post(resume_tenant))
}

#[derive(Debug, Deserialize)]
struct NewTenant {
    name: String,
    #[serde(default)]
    tier: Option<String>,
}

impl Fields for NewTenant {
    const KNOWN: &'static [&'static str] = &["name", "tier"];
    const REQUIRED: &'static [&'static str] = &["name"];
}

async fn create_tenant(State(api): State<Arc<Api>>, Json(new): Json<NewTenant>) -> Answer {
    Checks::default().text("/name", &new.name, MAX_NAME).done()?;
    let tier = new.tier.as_deref().map_or(Ok(Tier::Enterprise), agreements::tier)?;
    let tenant = api.custody.create_tenant(&new.name, tier, OPERATOR).await?;
    let grant = Grant::all_of(Role::Owner);
    let key = api.custody.create_api_key(tenant, WantedApiKey::of("first key", grant), OPERATOR).await?;
    let secret = key.secret_text();
    let answer = json!({
        "tenant": { "id": tenant.0, "name": new.name, "tier": tier.as_str() },
        "api_key": { "id": key.id.0, "secret": secret.as_str() },
    });
    Ok((StatusCode::CREATED, axum::Json(answer)))
}

async fn list_tenants(State(api): State<Arc<Api>>) -> Answer {
    let mut all = Vec::new();
    for tenant in store_routes::tenants_with_rows(&api.db).await? {
        match shown(&api, tenant).await {
            Ok(tenant) => all.push(tenant),
            // It went since the list was made.
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    ok(json!({ "tenants": all }))
}

async fn show_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    ok(shown(&api, TenantId(tenant)).await?)
}

/// A tenant, or how far its end is.
async fn shown(api: &Api, tenant: TenantId) -> Result<Value, ApiError> {
    if deletion::has_begun(api, tenant).await? {
        return Ok(json!(deletion::show(api, tenant).await?));
    }
    Ok(json!(tenants::show(api, tenant).await?))
}

async fn show_deletion(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    ok(json!(deletion::show(&api, TenantId(tenant)).await?))
}

async fn delete_tenant(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(order): Json<deletion::Order>,
) -> Answer {
    let tenant = TenantId(tenant);
    deletion::order(Arc::clone(&api), tenant, order, OPERATOR).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!(deletion::show(&api, tenant).await?))))
}

async fn agree_with_tenant(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(new): Json<agreements::Changes>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    agreements::change(&api, tenant, &new, OPERATOR).await?;
    ok(json!(tenants::show(&api, tenant).await?))
}

async fn suspend_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    serve_tenant(&api, tenant, false).await
}

async fn resume_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    serve_tenant(&api, tenant, true).await
}

/// Its keys are refused or let in again. Doors go on as they were: nobody is locked in or out over a bill.
async fn serve_tenant(api: &Api, tenant: Uuid, serve: bool) -> Answer {
    let tenant = existing(api, tenant).await?;
    let since = (!serve).then(|| api.clock.now());
    let action = if serve { audit::Action::TenantResume } else { audit::Action::TenantSuspend };
    api.db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                if store_tenants::suspend(tx, since).await? {
                    audit::write(tx, of_tenant(tenant, action, json!({}))).await?;
                }
                Ok::<_, ApiError>(())
            })
        })
        .await?;
    api.custody.forget_keys(tenant);
    ok(json!(tenants::show(api, tenant).await?))
}

fn of_tenant(tenant: TenantId, action: audit::Action, detail: Value) -> audit::Entry<'static> {
    audit::Entry { actor: OPERATOR, action, object_kind: "tenant", object_id: Some(tenant.0), detail }
}
