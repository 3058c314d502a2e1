//! Logging in: a name and a password become tokens, or a cookie in a browser. Invitations are redeemed here too.
//!
//! All of it is open to anybody, so every address has a budget, and all together have one. What is wrong is not told: neither
//! whether there is such a user, nor whether they may log in.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::{Code, Timestamp};
use zeroize::Zeroizing;

use super::auth::COOKIE;
use super::body::{Fields, Json};
use super::limits;
use super::openapi::{texts, wire};
use super::peer::Peer;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::TenantId;
use hub_domain::limit::Rate;
use hub_domain::user;
use hub_host::metrics::security::{self, Lack, Proof as Shown};
use hub_keys::{ACCESS_LIFE, Entered, Granted, Proof, Refreshed};
use hub_limit::{Asked, Bucket};
use hub_store::logins::Kind;

/// An office behind one address in the morning.
fn each() -> Asked {
    Asked { bucket: Bucket::Login, rate: Rate::new(1, Duration::from_secs(1), 60) }
}

/// What the processors can do without the doors noticing.
fn all() -> Asked {
    Asked { bucket: Bucket::LoginOfAll, rate: Rate::new(20, Duration::from_secs(1), 400) }
}

fn admit(api: &Api, peer: &Peer) -> Result<(), ApiError> {
    limits::take_free(api, peer.address.ip(), each(), all())
}

/// Who wants to come in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogIn {
    /// The tenant.
    tenant: Uuid,
    #[schema(max_length = 254)]
    login: String,
    #[schema(max_length = 512)]
    password: String,
    /// Of the user's second factor, if they have one: a code that their app shows, or a recovery code. Each is good once.
    #[serde(default)]
    #[schema(value_type = Option<texts::OneTimeCode>)]
    code: Option<String>,
    /// For browsers: a cookie instead of tokens.
    #[serde(default)]
    cookie: Option<bool>,
}

impl Fields for LogIn {
    const KNOWN: &'static [&'static str] = &["tenant", "login", "password", "code", "cookie"];
    const REQUIRED: &'static [&'static str] = &["tenant", "login", "password"];
}

/// A refresh token, to be used up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    refresh_token: String,
}

impl Fields for Refresh {
    const KNOWN: &'static [&'static str] = &["refresh_token"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// An invitation, and the password that is chosen by it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Acceptance {
    invitation: String,
    #[schema(value_type = texts::Password)]
    password: String,
}

impl Fields for Acceptance {
    const KNOWN: &'static [&'static str] = &["invitation", "password"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// What whoever is let in gets: tokens, or what goes with the cookie.
#[derive(Serialize, ToSchema)]
#[schema(as = LoggedIn)]
pub(super) struct LoggedInView {
    user_id: Uuid,
    #[schema(value_type = texts::RoleName)]
    role: String,
    /// Whether they must set up a second factor before they can do anything else: `POST /v1/me/totp`.
    totp_setup_required: bool,
    /// When the log-in ends, however often it is refreshed.
    #[schema(value_type = wire::Timestamp)]
    expires_at: Timestamp,
    /// `Authorization: Bearer …`
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    /// Seconds for which the access token is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<i64>,
    /// For `POST /v1/login/refresh`, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// With a cookie: to be sent as `X-CSRF-Token` with whatever changes something.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
}

/// A password that may be chosen.
pub(super) fn new_password(pointer: &str, password: String) -> Result<Zeroizing<String>, ApiError> {
    let password = Zeroizing::new(password);
    user::check_password(&password).map_err(|error| ApiError::field(pointer, Code::InvalidField, error.to_string()))?;
    Ok(password)
}

/// The refusal of a name that is locked.
pub(super) fn locked(until: OffsetDateTime, now: OffsetDateTime) -> ApiError {
    let seconds = u32::try_from((until - now).whole_seconds() + 1).unwrap_or(1).max(1);
    security::name_locked();
    let detail = format!("too many passwords by this name were wrong: come back in {seconds} s");
    ApiError::because(Code::RateLimited, detail).retry_after(seconds)
}

fn suspended(tenant: TenantId) -> ApiError {
    security::forbidden(Lack::Service);
    tracing::info!(event = "tenant_suspended", client_id = %tenant, "a user of a suspended tenant was refused");
    ApiError::of(Code::TenantSuspended)
}

/// Nothing of this is for a cache.
fn private(granted: Granted) -> Response {
    let cookie = granted.csrf_token.is_some();
    let secret = granted.secret.to_string();
    let view = LoggedInView {
        user_id: granted.user.0,
        role: granted.role,
        totp_setup_required: granted.must_set_up_totp,
        expires_at: granted.expires_at.into(),
        expires_in: granted.access_token.is_some().then_some(ACCESS_LIFE.whole_seconds()),
        access_token: granted.access_token,
        refresh_token: (!cookie).then(|| secret.clone()),
        csrf_token: granted.csrf_token,
    };
    let mut response = axum::Json(view).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if cookie {
        set_cookie(response.headers_mut(), &secret, None);
    }
    response
}

/// Sets the cookie, or lets it end (`Some(0)`). Without an age it ends with the browser; the hub ends it after its time anyway.
pub(super) fn set_cookie(headers: &mut HeaderMap, value: &str, max_age_s: Option<u32>) {
    let age = max_age_s.map(|age| format!("; Max-Age={age}")).unwrap_or_default();
    let line = format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{age}");
    if let Ok(line) = HeaderValue::from_str(&line) {
        headers.append(header::SET_COOKIE, line);
    }
}

/// `POST /v1/login`
#[utoipa::path(
    post, path = "/v1/login", operation_id = "log_in", tag = "log-in",
    summary = "Log in",
    description = "After five wrong passwords a name is locked for a minute, then for longer, whether or not there is such a user. So do a missing and a wrong code of the second factor, of users who have one.",
    request_body = LogIn,
    responses(
        (status = 200, description = "Tokens, or with `cookie` a cookie and its `csrf_token`", body = LoggedInView),
        (status = 401, description = "`unauthorized`: name and password are not those of a user who may log in. `totp_required`: they are, and a code of the second factor is missing, wrong, or was used."),
        (status = 403, description = "`tenant_suspended`: the tenant's users are refused for now."),
        (status = 429, description = "`rate_limited`: too many wrong passwords by this name, or too many log-ins from this address."),
        (status = 503, description = "`unavailable`: too many log in at once, or the database does not answer."),
    ),
)]
pub(super) async fn login(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Json(asked): Json<LogIn>,
) -> Result<Response, ApiError> {
    let password = Zeroizing::new(asked.password);
    admit(&api, &peer)?;
    if password.len() > user::MAX_PASSWORD_BYTES {
        return Err(ApiError::field("/password", Code::InvalidField, user::Unusable::Long.to_string()));
    }
    let kind = if asked.cookie == Some(true) { Kind::Cookie } else { Kind::Tokens };
    let proof = Proof { password, code: asked.code.map(Zeroizing::new) };
    match api.custody.log_in(TenantId(asked.tenant), &asked.login, proof, kind).await? {
        Entered::In(granted) => Ok(private(*granted)),
        Entered::Refused => {
            security::refused(Shown::Password);
            tracing::warn!(event = "login_refused", client_id = %asked.tenant, peer = %peer.address.ip(), "a name and a password were refused");
            Err(ApiError::because(Code::Unauthorized, "name and password are not those of a user who may log in"))
        }
        Entered::CodeNeeded { shown: false } => Err(ApiError::of(Code::TotpRequired)),
        Entered::CodeNeeded { shown: true } => {
            security::refused(Shown::Code);
            tracing::warn!(event = "login_code_refused", client_id = %asked.tenant, peer = %peer.address.ip(), "a code of a second factor was refused");
            Err(ApiError::because(Code::TotpRequired, "this code is wrong, or was used before: wait for the next one"))
        }
        Entered::Locked(until) => {
            tracing::warn!(event = "login_locked", client_id = %asked.tenant, peer = %peer.address.ip(), "a name is locked for a while");
            Err(locked(until, api.clock.now()))
        }
        Entered::Suspended(tenant) => Err(suspended(tenant)),
    }
}

/// `POST /v1/login/refresh`
#[utoipa::path(
    post, path = "/v1/login/refresh", operation_id = "refresh_login", tag = "log-in",
    summary = "Other tokens in the place of a refresh token",
    description = "A refresh token is good once. When one is shown again there is a copy of it, and the whole log-in ends.",
    request_body = Refresh,
    responses(
        (status = 200, description = "Tokens", body = LoggedInView),
        (status = 401, description = "`unauthorized`: it is none, has ended, or was used before. Log in again."),
        (status = 403, description = "`tenant_suspended`: the tenant's users are refused for now."),
        (status = 429, description = "`rate_limited`: too many log-ins from this address."),
    ),
)]
pub(super) async fn refresh(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Json(asked): Json<Refresh>,
) -> Result<Response, ApiError> {
    admit(&api, &peer)?;
    match api.custody.refresh(&Zeroizing::new(asked.refresh_token)).await? {
        Refreshed::In(granted) => Ok(private(*granted)),
        Refreshed::Refused => {
            security::refused(Shown::RefreshToken);
            Err(ApiError::because(Code::Unauthorized, "this refresh token is not good (any more): log in again"))
        }
        Refreshed::Suspended(tenant) => Err(suspended(tenant)),
    }
}

/// `POST /v1/login/invitation`
#[utoipa::path(
    post, path = "/v1/login/invitation", operation_id = "accept_invitation", tag = "log-in",
    summary = "Choose a password by an invitation",
    description = "The invitation ends with it. Log in afterwards.",
    request_body = Acceptance,
    responses(
        (status = 204, description = "The password is chosen"),
        (status = 401, description = "`unauthorized`: it is no invitation, or one that was used or has ended."),
        (status = 429, description = "`rate_limited`: too many log-ins from this address."),
        (status = 503, description = "`unavailable`: too many log in at once, or the database does not answer."),
    ),
)]
pub(super) async fn accept(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Json(asked): Json<Acceptance>,
) -> Result<StatusCode, ApiError> {
    let invitation = Zeroizing::new(asked.invitation);
    admit(&api, &peer)?;
    let password = new_password("/password", asked.password)?;
    if api.custody.accept_invitation(&invitation, password).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    security::refused(Shown::Invitation);
    Err(ApiError::because(Code::Unauthorized, "this invitation is not good (any more): ask for another one"))
}

/// The public halves of the keys of access tokens (RFC 7517).
#[derive(Serialize, ToSchema)]
#[schema(as = JsonWebKeys)]
pub(super) struct JwksView {
    keys: Vec<JwkView>,
}

/// An Ed25519 key (RFC 8037).
#[derive(Serialize, ToSchema)]
#[schema(as = JsonWebKey)]
pub(super) struct JwkView {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    used_for: &'static str,
    kid: String,
    x: String,
}

/// `GET /v1/jwks.json`
#[utoipa::path(
    get, path = "/v1/jwks.json", operation_id = "get_jwks", tag = "log-in",
    summary = "The keys by which access tokens are verified",
    description = "For programs that are shown a user's token. That its log-in goes on is known to the hub alone.",
    responses((status = 200, description = "The key that signs first, then those that will or did, while a token of them may be good", body = JwksView)),
)]
pub(super) async fn jwks(State(api): State<Arc<Api>>) -> Result<axum::Json<JwksView>, ApiError> {
    let keys = api.custody.token_keys().await?;
    let keys = keys.public().iter().map(|key| JwkView {
        kty: "OKP",
        crv: "Ed25519",
        alg: "EdDSA",
        used_for: "sig",
        kid: key.kid.to_string(),
        x: URL_SAFE_NO_PAD.encode(&key.public),
    });
    Ok(axum::Json(JwksView { keys: keys.collect() }))
}
