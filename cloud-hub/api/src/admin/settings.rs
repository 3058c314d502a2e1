//! Settings of the hub that hold without a start.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use uuid::Uuid;
use wire_contract::Code;

use super::PlatformCaller;
use crate::body;
use crate::live_settings::{self, SettingsView, VersionView, Wanted};
use crate::page::{Page, PageQuery, encode_id};
use crate::problem::ApiError;
use crate::state::Api;

/// `GET /v1/admin/settings`
#[utoipa::path(
    get, path = "/v1/admin/settings", operation_id = "admin_get_settings", tag = "platform",
    summary = "The settings that can be changed while the hub runs",
    description = "Each with what holds, and what the file of the hub that answers says.",
    responses((status = 200, description = "The settings", body = SettingsView)),
)]
pub(crate) async fn get(State(api): State<Arc<Api>>) -> Result<Json<SettingsView>, ApiError> {
    Ok(Json(live_settings::show(&api).await?))
}

/// `PUT /v1/admin/settings`
#[utoipa::path(
    put, path = "/v1/admin/settings", operation_id = "admin_put_settings", tag = "platform",
    summary = "Change some of them",
    description = "It makes a version, which holds on the hub that answers at once and on every other one within two seconds.",
    request_body = Wanted,
    responses(
        (status = 200, description = "The settings as they are now, or would be", body = SettingsView),
        (status = 409, description = "`conflict`: somebody else has changed them meanwhile."),
    ),
)]
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    caller: PlatformCaller,
    body::Json(wanted): body::Json<Wanted>,
) -> Result<Json<SettingsView>, ApiError> {
    Ok(Json(live_settings::change(&api, wanted, &caller.actor()).await?))
}

/// `GET /v1/admin/settings/history`
#[utoipa::path(
    get, path = "/v1/admin/settings/history", operation_id = "admin_list_settings_versions", tag = "platform",
    summary = "Who changed them, when and why",
    description = "The newest version first.",
    params(PageQuery),
    responses(
        (status = 200, description = "A page", body = Page<VersionView>,
            headers(("Link" = Option<String>, description = "The next page, if there is one"))),
        (status = 422, description = "`invalid_field`: the limit or the cursor is none."),
    ),
)]
pub(crate) async fn history(
    State(api): State<Arc<Api>>,
    Query(query): Query<PageQuery>,
) -> Result<(HeaderMap, Json<Page<VersionView>>), ApiError> {
    let (limit, before) = (query.limit()?, query.after_id()?.map(version_of).transpose()?);
    let mut data = live_settings::history(&api, before, limit + 1).await?;
    let more = data.len() > limit as usize;
    data.truncate(limit as usize);
    let next_cursor = data.last().filter(|_| more).map(|last| encode_id(id_of(last.version)));
    let page = Page { data, next_cursor };
    Ok((page.link("/v1/admin/settings/history", limit, None), Json(page)))
}

/// A version in the place of an id, for a cursor.
fn id_of(version: i32) -> Uuid {
    Uuid::from_u128(version.unsigned_abs().into())
}

fn version_of(id: Uuid) -> Result<i32, ApiError> {
    let wrong = |_| ApiError::field("cursor", Code::InvalidField, "is not one that this hub gave out");
    i32::try_from(id.as_u128()).map_err(wrong)
}
