//! People of a tenant who log in: invited, reset, taken off.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{delete, post};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use wire_contract::Code;

use super::{Answer, OPERATOR, existing, ok};
use crate::body::{Fields, Json};
use crate::problem::ApiError;
use crate::state::Api;
use crate::{login, users};
use hub_domain::ids::UserId;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/tenants/{tenant}/users", post(create_user).get(list_users))
        .route("/tenants/{tenant}/users/{user}", delete(delete_user))
        .route("/tenants/{tenant}/users/{user}/password", post(reset_user))
        .route("/tenants/{tenant}/users/{user}/totp", delete(take_totp))
}

async fn create_user(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(new): Json<users::NewUser>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    Ok((StatusCode::CREATED, axum::Json(json!(users::make(&api, tenant, new, None, OPERATOR).await?))))
}

async fn list_users(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!({ "users": users::all(&api, tenant).await? }))
}

async fn delete_user(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, user)): UrlPath<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    let tenant = existing(&api, tenant).await?;
    api.custody.delete_user(tenant, UserId(user), None, OPERATOR).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn take_totp(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, user)): UrlPath<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    let tenant = existing(&api, tenant).await?;
    if api.custody.take_totp(tenant, UserId(user), None, OPERATOR).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::because(Code::Conflict, "this user has no second factor"))
}

/// A password that the operator typed in, or none: then the user is invited to choose one.
#[derive(Deserialize)]
struct Reset {
    #[serde(default)]
    password: Option<String>,
}

impl Fields for Reset {
    const KNOWN: &'static [&'static str] = &["password"];
    const REQUIRED: &'static [&'static str] = &[];
}

async fn reset_user(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, user)): UrlPath<(Uuid, Uuid)>,
    Json(reset): Json<Reset>,
) -> Answer {
    let (tenant, user) = (existing(&api, tenant).await?, UserId(user));
    if let Some(password) = reset.password {
        let password = login::new_password("/password", password)?;
        api.custody.set_password(tenant, user, password, OPERATOR).await?;
        return ok(json!({ "id": user.0, "password": "set" }));
    }
    let invited = api.custody.invite_user(tenant, user, None, OPERATOR).await?;
    ok(json!(users::InvitedView::from(&invited)))
}
