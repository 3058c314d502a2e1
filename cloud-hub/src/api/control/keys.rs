//! The hub's own keys and tenants' keys: how they stand, and others in their places.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::routing::{get, post};
use uuid::Uuid;

use super::{Answer, OPERATOR, existing, ok};
use crate::api::body::Json;
use crate::api::state::Api;
use crate::api::token_keys;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/keys", get(show_keys))
        .route("/keys/jwt", post(rotate_token_key))
        .route("/keys/master", post(rotate_master))
        .route("/keys/master/retire", post(retire_master))
        .route("/tenants/{tenant}/keys", get(show_tenant).post(rotate_tenant))
}

async fn show_keys(State(api): State<Arc<Api>>) -> Answer {
    ok(token_keys::show(&api).await?)
}

async fn rotate_token_key(State(api): State<Arc<Api>>, Json(rotation): Json<token_keys::Rotation>) -> Answer {
    ok(token_keys::rotate(&api, &rotation, OPERATOR).await?)
}

async fn rotate_master(State(api): State<Arc<Api>>, Json(rotation): Json<token_keys::MasterRotation>) -> Answer {
    ok(token_keys::rotate_master(&api, &rotation).await?)
}

async fn retire_master(State(api): State<Arc<Api>>) -> Answer {
    ok(token_keys::retire_master(&api).await?)
}

async fn show_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(token_keys::show_tenant(&api, tenant).await?)
}

async fn rotate_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(token_keys::rotate_tenant(&api, tenant, OPERATOR).await?)
}
