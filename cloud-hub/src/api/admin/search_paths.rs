//! Which galleries this hub searches, and where.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Timestamp;

use crate::api::openapi::{wire, words};
use crate::api::page::Page;
use crate::api::problem::ApiError;
use crate::api::state::Api;
use crate::recognition::paths::Served;

/// A tenant's gallery of one space, and what serves it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SearchedGallery)]
pub(in crate::api) struct SearchPathView {
    tenant_id: Uuid,
    /// What its templates can be compared within.
    space_id: String,
    #[schema(value_type = words::SearchPath)]
    path: &'static str,
    templates: usize,
    /// What it takes of this hub's memory, near enough.
    bytes: usize,
    #[schema(value_type = wire::Timestamp)]
    last_searched_at: Timestamp,
    /// How many changes of the tenant's templates are in it.
    stamp: i64,
}

/// `GET /v1/admin/search-paths`
#[utoipa::path(
    get, path = "/v1/admin/search-paths", operation_id = "admin_list_search_paths", tag = "platform",
    summary = "Where faces are looked for",
    description = "The galleries that the hub that answers has searched lately, by tenant and space. A gallery that nobody searches is in no list. Nothing of the people in it.",
    responses((status = 200, description = "All of them, in one page", body = Page<SearchPathView>)),
)]
pub(in crate::api) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Page<SearchPathView>>, ApiError> {
    let now = api.clock.now();
    let view = |served: Served| {
        let ago = Duration::try_from(served.searched_ago).unwrap_or_default();
        SearchPathView {
            tenant_id: served.tenant.0,
            space_id: served.space,
            path: served.path.as_str(),
            templates: served.templates,
            bytes: served.bytes,
            last_searched_at: (now - ago).into(),
            stamp: served.stamp,
        }
    };
    Ok(Json(Page::whole(api.galleries.served().into_iter().map(view).collect())))
}
