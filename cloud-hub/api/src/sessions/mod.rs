//! Sessions over the API: opened by a key or a user ([`open`]), given frames ([`frames`]), completed ([`decide`]), cancelled; by whoever may,
//! or by a kiosk that has nothing but the session's token.
//!
//! Opening one runs no model; frames wait in the models' bounded queue as photographs do. What somebody shows is kept as sealed
//! templates until the session ends, never as pictures.

pub(super) mod decide;
mod enrol;
pub(super) mod frames;
pub(super) mod open;
pub(super) mod settings;
mod views;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use uuid::Uuid;

use super::auth::Caller;
use super::page::{Page, PageQuery, encode_id};
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::{SessionId, TenantId};
use hub_domain::session::Input;
use hub_store::sessions;
pub(super) use views::{MOVEMENTS, SessionView, StateView};

/// `GET /v1/sessions`
#[utoipa::path(
    get, path = "/v1/sessions", operation_id = "list_sessions", tag = "sessions",
    summary = "Sessions",
    description = "The oldest first; those that ended are kept for a week.",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of them", body = Page<SessionView>, headers(("Link" = Option<String>, description = "The next page"))),
        (status = 422, description = "`invalid_field`: `limit` or `cursor` is not one."),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<(HeaderMap, Json<Page<SessionView>>), ApiError> {
    let limit = query.limit()?;
    let page = page(&api, caller.tenant, &query).await?;
    Ok((page.link("/v1/sessions", limit, None), Json(page)))
}

/// A page of a tenant's sessions.
pub(super) async fn page(api: &Api, tenant: TenantId, query: &PageQuery) -> Result<Page<SessionView>, ApiError> {
    let (limit, after, now) = (query.limit()?, query.after_id()?, api.clock.now());
    let mut found = api.db.tenant(tenant, move |tx| Box::pin(sessions::list(tx, after, limit + 1))).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| encode_id(last.id.0));
    Ok(Page { data: found.into_iter().map(|session| SessionView::of(session, now)).collect(), next_cursor })
}

/// `GET /v1/sessions/{id}`
#[utoipa::path(
    get, path = "/v1/sessions/{id}", operation_id = "get_session", tag = "sessions",
    summary = "One session",
    description = "How far it is, what is asked of the person now, and what came of it.",
    params(("id" = Uuid, Path, description = "The session")),
    responses((status = 200, description = "The session", body = StateView)),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<StateView>, ApiError> {
    Ok(Json(show(&api, caller.tenant, SessionId(id)).await?))
}

/// How far a session is.
pub(super) async fn show(api: &Api, tenant: TenantId, id: SessionId) -> Result<StateView, ApiError> {
    let found = api.custody.session(tenant, id).await?;
    Ok(StateView::of(found, api.clock.now()))
}

/// `DELETE /v1/sessions/{id}`
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", operation_id = "cancel_session", tag = "sessions",
    summary = "Cancel a session",
    description = "Whatever its frames gave is removed at once, and its token opens nothing any more. The session can be looked at for a week.",
    params(("id" = Uuid, Path, description = "The session")),
    responses(
        (status = 200, description = "The session as it ended", body = StateView),
        (status = 409, description = "`conflict`: it has ended already."),
    ),
)]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<StateView>, ApiError> {
    Ok(Json(end(&api, caller.tenant, SessionId(id), &caller.actor()).await?))
}

/// Cancels a session.
pub(super) async fn end(api: &Api, tenant: TenantId, id: SessionId, actor: &str) -> Result<StateView, ApiError> {
    let ended = api.custody.end_session(tenant, id, (Input::Cancelled, None), actor).await?;
    Ok(StateView::of(ended, api.clock.now()))
}
