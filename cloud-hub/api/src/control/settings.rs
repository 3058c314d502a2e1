//! Settings that are changed while the hubs run: what holds, what held, and another version.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, OPERATOR, ok};
use crate::body::{Fields, Json};
use crate::live_settings;
use crate::state::Api;

/// Versions in one answer.
const MOST: u32 = 200;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/settings", get(show).post(change))
        .route("/settings/history", get(history))
        .route("/settings/{version}/restore", post(restore))
}

#[derive(Debug, Deserialize)]
struct Restored {
    #[serde(default)]
    comment: Option<String>,
}

impl Fields for Restored {
    const KNOWN: &'static [&'static str] = &["comment"];
    const REQUIRED: &'static [&'static str] = &[];
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HowMany {
    #[serde(default)]
    limit: Option<u32>,
}

async fn show(State(api): State<Arc<Api>>) -> Answer {
    ok(json!(live_settings::show(&api).await?))
}

async fn history(State(api): State<Arc<Api>>, Query(query): Query<HowMany>) -> Answer {
    let limit = query.limit.unwrap_or(50).clamp(1, MOST);
    ok(json!({ "versions": live_settings::history(&api, None, limit).await? }))
}

async fn change(State(api): State<Arc<Api>>, Json(wanted): Json<live_settings::Wanted>) -> Answer {
    ok(json!(live_settings::change(&api, wanted, OPERATOR).await?))
}

async fn restore(State(api): State<Arc<Api>>, Path(wanted): Path<i32>, Json(restored): Json<Restored>) -> Answer {
    ok(json!(live_settings::restore(&api, wanted, restored.comment, OPERATOR).await?))
}
