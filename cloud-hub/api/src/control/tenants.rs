//! Tenants: made, agreed with, suspended, ended.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::json;
use uuid::Uuid;

use super::{Answer, OPERATOR, ok};
use crate::body::Json;
use crate::state::Api;
use crate::{agreements, deletion, tenant_life};
use hub_domain::ids::TenantId;
use hub_store::routes as store_routes;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/tenants", post(create_tenant).get(list_tenants))
        .route("/tenants/{tenant}", get(show_tenant).patch(agree_with_tenant))
        .route("/tenants/{tenant}/deletion", get(show_deletion).post(delete_tenant))
        .route("/tenants/{tenant}/suspend", post(suspend_tenant))
        .route("/tenants/{tenant}/resume", post(resume_tenant))
}

async fn create_tenant(State(api): State<Arc<Api>>, Json(new): Json<tenant_life::NewTenant>) -> Answer {
    let made = tenant_life::make(&api, new, String::from(OPERATOR)).await?;
    Ok((StatusCode::CREATED, axum::Json(json!(made))))
}

async fn list_tenants(State(api): State<Arc<Api>>) -> Answer {
    let ids = store_routes::tenants_with_rows(&api.db).await?;
    ok(json!({ "tenants": tenant_life::show_all(&api, ids).await? }))
}

async fn show_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    ok(json!(tenant_life::show(&api, TenantId(tenant)).await?))
}

async fn show_deletion(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    ok(json!(deletion::show(&api, TenantId(tenant)).await?))
}

async fn delete_tenant(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(order): Json<deletion::Order>,
) -> Answer {
    let begun = deletion::order(&api, TenantId(tenant), order, String::from(OPERATOR)).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!(begun))))
}

async fn agree_with_tenant(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(new): Json<agreements::Changes>,
) -> Answer {
    ok(json!(tenant_life::agree(&api, tenant, &new, String::from(OPERATOR)).await?))
}

async fn suspend_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    ok(json!(tenant_life::suspend(&api, tenant, String::from(OPERATOR)).await?))
}

async fn resume_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    ok(json!(tenant_life::resume(&api, tenant, String::from(OPERATOR)).await?))
}
