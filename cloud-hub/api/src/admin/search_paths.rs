//! Which way the galleries of tenants are searched by the hub that answers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use serde::Serialize;
use time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Timestamp;

use crate::openapi::{wire, words};
use crate::page::{Page, PageQuery, encode_id};
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::ids::TenantId;
use hub_recognition::paths::{InMemory, Serving};
use hub_store::routes;

const SEARCH_PATHS: &str = "/v1/admin/search-paths";

/// A tenant's gallery of one space, and what serves its searches.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SearchedGallery)]
pub(crate) struct SearchPathView {
    tenant_id: Uuid,
    /// What its templates can be compared within.
    space_id: String,
    #[schema(value_type = words::SearchPath)]
    path: &'static str,
    templates: usize,
    #[schema(value_type = words::VectorIndex)]
    index: &'static str,
    /// Whether all vectors are in the database. After a crash of it they are made anew, and nothing is searched by them meanwhile.
    vectors_whole: bool,
    /// The gallery in this hub's memory; `null` if nobody has searched it lately, or it is too large.
    #[schema(required)]
    in_memory: Option<InMemoryView>,
}

/// A gallery in the memory of the hub that answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GalleryInMemory)]
pub(crate) struct InMemoryView {
    /// What it takes of the memory, near enough.
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
    description = "Which way the hub that answers searches each tenant's galleries, a page of tenants at a time, the oldest first. A tenant without templates has none. Nothing of the people in them.",
    params(PageQuery),
    responses(
        (status = 200, description = "The galleries of so many tenants", body = Page<SearchPathView>,
            headers(("Link" = Option<String>, description = "The next page, if there is one"))),
        (status = 422, description = "`invalid_field`: the limit or the cursor is none."),
    ),
)]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<PageQuery>,
) -> Result<(HeaderMap, Json<Page<SearchPathView>>), ApiError> {
    let (limit, after) = (query.limit()?, query.after_id()?.map(TenantId));
    let mut tenants = routes::tenants_with_rows_after(&api.db, after, limit + 1).await?;
    let more = tenants.len() > limit as usize;
    tenants.truncate(limit as usize);
    let next_cursor = tenants.last().filter(|_| more).map(|last| encode_id(last.0));
    let now = api.clock.now();
    let held = |held: InMemory| InMemoryView {
        bytes: held.bytes,
        last_searched_at: (now - Duration::try_from(held.searched_ago).unwrap_or_default()).into(),
        stamp: held.stamp,
    };
    let view = |serving: Serving| SearchPathView {
        tenant_id: serving.tenant.0,
        space_id: serving.space_id,
        path: serving.path.as_str(),
        templates: serving.templates,
        index: serving.index.as_str(),
        vectors_whole: serving.vectors_whole,
        in_memory: serving.held.map(held),
    };
    let data = api.galleries.paths(&tenants).await?.into_iter().map(view).collect();
    let page = Page { data, next_cursor };
    Ok((page.link(SEARCH_PATHS, limit, None), Json(page)))
}
