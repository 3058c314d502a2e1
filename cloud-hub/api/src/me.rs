//! What a user does about themselves: see who they are, change their password, log out.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Code;
use zeroize::Zeroizing;

use super::auth::{Caller, Who};
use super::body::{Fields, Json};
use super::login::{locked, new_password, set_cookie};
use super::openapi::{texts, words};
use super::problem::ApiError;
use super::state::Api;
use super::users::{self, UserView};
use hub_domain::permission::Permission;
use hub_keys::{LoggedIn, Means, PasswordChange};

/// The present password and the next.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasswordChange)]
pub(super) struct Passwords {
    #[schema(max_length = 512)]
    old_password: String,
    #[schema(value_type = texts::Password)]
    new_password: String,
}

impl Fields for Passwords {
    const KNOWN: &'static [&'static str] = &["old_password", "new_password"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// Who calls.
#[derive(Serialize, ToSchema)]
#[schema(as = Me)]
pub(super) struct MeView {
    tenant_id: Uuid,
    user: UserView,
    #[schema(value_type = Vec<words::Permission>)]
    permissions: Vec<&'static str>,
    /// Recovery codes of the second factor that are left; `null` without one.
    #[schema(required)]
    recovery_codes_left: Option<u64>,
    /// Whether a second factor must be set up before anything else can be done.
    totp_setup_required: bool,
    /// With a cookie: to be sent as `X-CSRF-Token` with whatever changes something.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
}

/// The access layer has let in nobody else.
pub(super) fn user(caller: &Caller) -> Result<LoggedIn, ApiError> {
    match caller.who {
        Who::User(user) => Ok(user),
        Who::Key(_) | Who::Session(_) => Err(ApiError::of(Code::Forbidden)),
    }
}

/// `GET /v1/me`
#[utoipa::path(
    get, path = "/v1/me", operation_id = "get_me", tag = "log-in",
    summary = "Who has logged in, and what they may do",
    responses((status = 200, description = "The user", body = MeView)),
)]
pub(super) async fn get(State(api): State<Arc<Api>>, caller: Caller) -> Result<axum::Json<MeView>, ApiError> {
    let who = user(&caller)?;
    Ok(axum::Json(MeView {
        tenant_id: caller.tenant.0,
        user: users::view(api.custody.user(caller.tenant, who.user).await?),
        permissions: caller.permissions.iter().map(Permission::as_str).collect(),
        recovery_codes_left: api.custody.totp(caller.tenant, who.user).await?,
        totp_setup_required: who.must_set_up_totp,
        csrf_token: who.csrf_text(),
    }))
}

/// `POST /v1/me/password`
#[utoipa::path(
    post, path = "/v1/me/password", operation_id = "change_my_password", tag = "log-in",
    summary = "Change one's password",
    description = "All other log-ins of the user end. Wrong passwords count as at the log-in.",
    request_body = Passwords,
    responses(
        (status = 204, description = "It is changed"),
        (status = 422, description = "`invalid_field`: the present password is not that one."),
        (status = 429, description = "`rate_limited`: too many passwords were wrong."),
    ),
)]
pub(super) async fn change_password(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(asked): Json<Passwords>,
) -> Result<StatusCode, ApiError> {
    let (who, old) = (user(&caller)?, Zeroizing::new(asked.old_password));
    let new = new_password("/new_password", asked.new_password)?;
    match api.custody.change_password(who, old, new).await? {
        PasswordChange::Done => Ok(StatusCode::NO_CONTENT),
        PasswordChange::Wrong => {
            Err(ApiError::field("/old_password", Code::InvalidField, "is not the present password"))
        }
        PasswordChange::Locked(until) => Err(locked(until, api.clock.now())),
    }
}

/// `POST /v1/logout`
#[utoipa::path(
    post, path = "/v1/logout", operation_id = "log_out", tag = "log-in",
    summary = "Log out",
    description = "The log-in ends with its tokens and its cookie, on every hub within seconds.",
    responses((status = 204, description = "It has ended")),
)]
pub(super) async fn log_out(State(api): State<Arc<Api>>, caller: Caller) -> Result<(StatusCode, HeaderMap), ApiError> {
    let who = user(&caller)?;
    api.custody.log_out(caller.tenant, who.login).await?;
    let mut headers = HeaderMap::new();
    if matches!(who.by, Means::Cookie(_)) {
        set_cookie(&mut headers, "", Some(0));
    }
    Ok((StatusCode::NO_CONTENT, headers))
}
