//! The hub's own keys and tenants' keys: how they stand, and others in their places.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::routing::{get, post};
use uuid::Uuid;

use super::{Answer, OPERATOR, existing, ok};
use crate::body::Json;
use crate::problem::ApiError;
use crate::state::Api;
use crate::{hub_authorities, rotations};
use hub_domain::ids::TenantId;
use hub_store::routes;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/keys", get(show_keys))
        .route("/keys/authorities", post(rotate_authorities))
        .route("/keys/authorities/retire", post(retire_authorities))
        .route("/keys/blind-index", post(rotate_index_keys))
        .route("/keys/galleries", post(rotate_galleries))
        .route("/keys/jwt", post(rotate_token_key))
        .route("/keys/master", post(rotate_master))
        .route("/keys/master/retire", post(retire_master))
        .route("/keys/people", post(rotate_people))
        .route("/keys/pepper", post(rotate_pepper))
        .route("/keys/pepper/retire", post(retire_pepper))
        .route("/keys/seeds", post(rotate_seeds))
        .route("/keys/signing", post(rotate_signing))
        .route("/keys/signing/retire", post(retire_signing))
        .route("/tenants/{tenant}/keys", get(show_tenant).post(rotate_tenant))
}

async fn show_keys(State(api): State<Arc<Api>>) -> Answer {
    ok(rotations::show(&api).await?)
}

async fn rotate_token_key(State(api): State<Arc<Api>>, Json(rotation): Json<rotations::Rotation>) -> Answer {
    ok(rotations::rotate(&api, &rotation, OPERATOR).await?)
}

async fn rotate_master(State(api): State<Arc<Api>>, Json(rotation): Json<rotations::SharedRotation>) -> Answer {
    ok(rotations::rotate_master(&api, &rotation).await?)
}

async fn retire_master(State(api): State<Arc<Api>>) -> Answer {
    ok(rotations::retire_master(&api).await?)
}

async fn rotate_pepper(State(api): State<Arc<Api>>, Json(rotation): Json<rotations::SharedRotation>) -> Answer {
    ok(rotations::rotate_pepper(&api, &rotation).await?)
}

async fn retire_pepper(State(api): State<Arc<Api>>, Json(end): Json<rotations::PepperEnd>) -> Answer {
    ok(rotations::retire_pepper(&api, &end).await?)
}

async fn rotate_signing(State(api): State<Arc<Api>>, Json(rotation): Json<rotations::SharedRotation>) -> Answer {
    ok(rotations::rotate_signing(&api, &rotation).await?)
}

async fn retire_signing(State(api): State<Arc<Api>>) -> Answer {
    ok(rotations::retire_signing(&api).await?)
}

async fn rotate_authorities(State(api): State<Arc<Api>>, Json(rotation): Json<rotations::SharedRotation>) -> Answer {
    ok(hub_authorities::rotate(&api, &rotation).await?)
}

async fn retire_authorities(State(api): State<Arc<Api>>, Json(end): Json<hub_authorities::AuthorityEnd>) -> Answer {
    ok(hub_authorities::retire(&api, &end).await?)
}

async fn rotate_index_keys(State(api): State<Arc<Api>>, Json(whose): Json<rotations::Whose>) -> Answer {
    let tenants = of(&api, whose).await?;
    ok(rotations::rotate_index_keys(&api, &tenants, OPERATOR).await?)
}

async fn rotate_seeds(State(api): State<Arc<Api>>, Json(whose): Json<rotations::Whose>) -> Answer {
    let tenants = of(&api, whose).await?;
    ok(rotations::rotate_seeds(&api, &tenants, OPERATOR).await?)
}

async fn rotate_people(State(api): State<Arc<Api>>, Json(whose): Json<rotations::Whose>) -> Answer {
    let tenants = of(&api, whose).await?;
    ok(rotations::rotate_people(&api, &tenants, OPERATOR).await?)
}

async fn rotate_galleries(State(api): State<Arc<Api>>, Json(whose): Json<rotations::Whose>) -> Answer {
    let tenants = of(&api, whose).await?;
    ok(rotations::rotate_galleries(&api, &tenants, OPERATOR).await?)
}

/// The tenant that is named, or all that there are.
async fn of(api: &Api, whose: rotations::Whose) -> Result<Vec<TenantId>, ApiError> {
    if let Some(tenant) = whose.tenant {
        return Ok(vec![existing(api, tenant).await?]);
    }
    Ok(routes::tenants(&api.db).await?)
}

async fn show_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(rotations::show_tenant(&api, tenant).await?)
}

async fn rotate_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(rotations::rotate_tenant(&api, tenant, OPERATOR).await?)
}
