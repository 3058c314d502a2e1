//! Sessions of a tenant, as the operator of the machine sees and ends them: by the same code as over the API.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use serde_json::json;
use uuid::Uuid;

use super::{Answer, OPERATOR, existing, ok};
use crate::page::PageQuery;
use crate::sessions;
use crate::state::Api;
use hub_domain::ids::SessionId;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/tenants/{tenant}/sessions", get(list))
        .route("/tenants/{tenant}/sessions/{session}", get(show).delete(end))
}

async fn list(State(api): State<Arc<Api>>, Path(tenant): Path<Uuid>, Query(query): Query<PageQuery>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!(sessions::page(&api, tenant, &query).await?))
}

async fn show(State(api): State<Arc<Api>>, Path((tenant, session)): Path<(Uuid, Uuid)>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!(sessions::show(&api, tenant, SessionId(session)).await?))
}

async fn end(State(api): State<Arc<Api>>, Path((tenant, session)): Path<(Uuid, Uuid)>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!(sessions::end(&api, tenant, SessionId(session), OPERATOR).await?))
}
