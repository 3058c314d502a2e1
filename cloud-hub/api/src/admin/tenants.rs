//! Tenants: made, agreed with, suspended, ended.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::PlatformCaller;
use crate::deletion::{self, DeletionView, Order};
use crate::openapi::texts;
use crate::page::{Page, PageQuery, encode_id};
use crate::problem::ApiError;
use crate::state::Api;
use crate::tenant_life::{self, MadeView, NewTenant, StandingView};
use crate::tenants::TenantView;
use crate::{agreements, body};
use hub_domain::ids::TenantId;
use hub_store::routes;

const TENANTS: &str = "/v1/admin/tenants";

/// `POST /v1/admin/tenants`
#[utoipa::path(
    post, path = "/v1/admin/tenants", operation_id = "admin_create_tenant", tag = "platform",
    summary = "Make a tenant",
    description = "The answer has its first key, an owner's, whose secret is shown this once. Asked twice, there are two: a tenant whose answer was lost is suspended and deleted.",
    request_body = NewTenant,
    responses(
        (status = 201, description = "The tenant and its first key", body = MadeView),
    ),
)]
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    caller: PlatformCaller,
    body::Json(new): body::Json<NewTenant>,
) -> Result<(StatusCode, Json<MadeView>), ApiError> {
    Ok((StatusCode::CREATED, Json(tenant_life::make(&api, new, caller.actor()).await?)))
}

/// `GET /v1/admin/tenants`
#[utoipa::path(
    get, path = "/v1/admin/tenants", operation_id = "admin_list_tenants", tag = "platform",
    summary = "Tenants, a page at a time",
    description = "The oldest first, each with what it has of what it may have; those that are being deleted with how far that is.",
    params(PageQuery),
    responses(
        (status = 200, description = "A page", body = Page<StandingView>,
            headers(("Link" = Option<String>, description = "The next page, if there is one"))),
        (status = 422, description = "`invalid_field`: the limit or the cursor is none."),
    ),
)]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<PageQuery>,
) -> Result<(HeaderMap, Json<Page<StandingView>>), ApiError> {
    let (limit, after) = (query.limit()?, query.after_id()?.map(TenantId));
    let mut ids = routes::tenants_with_rows_after(&api.db, after, limit + 1).await?;
    let more = ids.len() > limit as usize;
    ids.truncate(limit as usize);
    let next_cursor = ids.last().filter(|_| more).map(|last| encode_id(last.0));
    let page = Page { data: tenant_life::show_all(&api, ids).await?, next_cursor };
    Ok((page.link(TENANTS, limit, None), Json(page)))
}

/// `GET /v1/admin/tenants/{id}`
#[utoipa::path(
    get, path = "/v1/admin/tenants/{id}", operation_id = "admin_get_tenant", tag = "platform",
    summary = "One tenant",
    description = "Of one that was deleted, how far that is, and in the end the signed receipt.",
    params(("id" = Uuid, Path, description = "The tenant")),
    responses(
        (status = 200, description = "The tenant, or how far its end is", body = StandingView),
    ),
)]
pub(crate) async fn get(State(api): State<Arc<Api>>, Path(id): Path<Uuid>) -> Result<Json<StandingView>, ApiError> {
    Ok(Json(tenant_life::show(&api, TenantId(id)).await?))
}

/// `PATCH /v1/admin/tenants/{id}`
#[utoipa::path(
    patch, path = "/v1/admin/tenants/{id}", operation_id = "admin_change_tenant", tag = "platform",
    summary = "Agree with a tenant anew",
    description = "Tier, quotas, requests and features. What is left out stays; `\"tier\"` goes back to what the tier has. What is there already stays, whatever the quotas.",
    params(("id" = Uuid, Path, description = "The tenant")),
    request_body = agreements::Changes,
    responses(
        (status = 200, description = "The tenant as it is now", body = TenantView),
        (status = 409, description = "`conflict`: it is being deleted, or was."),
    ),
)]
pub(crate) async fn change(
    State(api): State<Arc<Api>>,
    caller: PlatformCaller,
    Path(id): Path<Uuid>,
    body::Json(changes): body::Json<agreements::Changes>,
) -> Result<Json<TenantView>, ApiError> {
    Ok(Json(tenant_life::agree(&api, id, &changes, caller.actor()).await?))
}

/// `POST /v1/admin/tenants/{id}/suspend`
#[utoipa::path(
    post, path = "/v1/admin/tenants/{id}/suspend", operation_id = "admin_suspend_tenant", tag = "platform",
    summary = "Refuse a tenant's keys and users",
    description = "Here at once, on other hubs within two seconds. Its doors go on as they were.",
    params(("id" = Uuid, Path, description = "The tenant")),
    responses(
        (status = 200, description = "The tenant as it is now", body = TenantView),
        (status = 409, description = "`conflict`: it is being deleted, or was."),
    ),
)]
pub(crate) async fn suspend(
    State(api): State<Arc<Api>>,
    caller: PlatformCaller,
    Path(id): Path<Uuid>,
) -> Result<Json<TenantView>, ApiError> {
    Ok(Json(tenant_life::suspend(&api, id, caller.actor()).await?))
}

/// `POST /v1/admin/tenants/{id}/resume`
#[utoipa::path(
    post, path = "/v1/admin/tenants/{id}/resume", operation_id = "admin_resume_tenant", tag = "platform",
    summary = "Let a tenant's keys and users in again",
    params(("id" = Uuid, Path, description = "The tenant")),
    responses(
        (status = 200, description = "The tenant as it is now", body = TenantView),
        (status = 409, description = "`conflict`: it is being deleted, or was."),
    ),
)]
pub(crate) async fn resume(
    State(api): State<Arc<Api>>,
    caller: PlatformCaller,
    Path(id): Path<Uuid>,
) -> Result<Json<TenantView>, ApiError> {
    Ok(Json(tenant_life::resume(&api, id, caller.actor()).await?))
}

/// What must be said to delete a tenant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmation {
    /// The tenant's name, letter by letter: there is no way back.
    #[param(value_type = texts::Name)]
    confirm: String,
}

/// `DELETE /v1/admin/tenants/{id}`
#[utoipa::path(
    delete, path = "/v1/admin/tenants/{id}", operation_id = "admin_delete_tenant", tag = "platform",
    summary = "Delete a suspended tenant for good",
    description = "When this is answered the keys of the tenant and of everybody in it are destroyed, and nothing of them can be read any more. Rows go in the background. There is no way back.",
    params(("id" = Uuid, Path, description = "The tenant"), Confirmation),
    responses(
        (status = 202, description = "How far that is", body = DeletionView),
        (status = 409, description = "`conflict`: it is not suspended."),
        (status = 422, description = "`invalid_field`: it has another name."),
    ),
)]
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    caller: PlatformCaller,
    Path(id): Path<Uuid>,
    Query(Confirmation { confirm }): Query<Confirmation>,
) -> Result<(StatusCode, Json<DeletionView>), ApiError> {
    let begun = deletion::order(&api, TenantId(id), Order { confirm }, caller.actor()).await?;
    Ok((StatusCode::ACCEPTED, Json(begun)))
}
