//! Second factors: set up by a user for themselves, taken off again, and demanded by a tenant of all its users.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire_contract::Code;
use zeroize::Zeroizing;

use super::auth::Caller;
use super::body::{Fields, Json};
use super::login::locked;
use super::me::user;
use super::openapi::texts;
use super::problem::ApiError;
use super::state::Api;
use hub_keys::{Beginning, Confirmed, Removed};
use hub_store::second_factors;

/// Who sets a second factor up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TotpBeginning)]
pub(super) struct Proof {
    #[schema(max_length = 512)]
    password: String,
}

impl Fields for Proof {
    const KNOWN: &'static [&'static str] = &["password"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// A secret for an authenticator app, shown once.
#[derive(Serialize, ToSchema)]
#[schema(as = TotpSecret)]
pub(super) struct SecretView {
    /// In base32, to be typed in: SHA-1, six digits, thirty seconds.
    secret: String,
    /// `otpauth://…`, to be shown as a QR code.
    uri: String,
}

/// A code of the app.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TotpConfirmation)]
pub(super) struct Confirmation {
    #[schema(value_type = texts::OneTimeCode)]
    code: String,
}

impl Fields for Confirmation {
    const KNOWN: &'static [&'static str] = &["code"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// Codes for whoever lost the app, shown once.
#[derive(Serialize, ToSchema)]
#[schema(as = RecoveryCodes)]
pub(super) struct CodesView {
    /// Each opens one log-in in the place of a code.
    recovery_codes: Vec<String>,
}

/// What it takes to be without a second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TotpRemoval)]
pub(super) struct Removal {
    #[schema(max_length = 512)]
    password: String,
    #[schema(value_type = texts::OneTimeCode)]
    code: String,
}

impl Fields for Removal {
    const KNOWN: &'static [&'static str] = &["password", "code"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// What a tenant demands of its users' log-ins.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LogInPolicy)]
pub(super) struct Policy {
    /// Whether all users must have a second factor; one who has none can do nothing but set one up.
    require_totp: bool,
}

impl Fields for Policy {
    const KNOWN: &'static [&'static str] = &["require_totp"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

const NOT_THE_PASSWORD: &str = "is not the present password";

/// Nothing of this is for a cache.
fn once(view: impl Serialize) -> Response {
    let mut response = axum::Json(view).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `POST /v1/me/totp`
#[utoipa::path(
    post, path = "/v1/me/totp", operation_id = "begin_totp", tag = "log-in",
    summary = "Begin to set up a second factor",
    description = "It counts once a code of it was shown (`POST /v1/me/totp/confirm`). Begun once more, the secret before is good for nothing. Wrong passwords count as at the log-in.",
    request_body = Proof,
    responses(
        (status = 200, description = "The secret, shown once", body = SecretView),
        (status = 409, description = "`conflict`: there is one that counts."),
        (status = 422, description = "`invalid_field`: the password is not that one."),
        (status = 429, description = "`rate_limited`: too much was wrong."),
    ),
)]
pub(super) async fn begin(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(asked): Json<Proof>,
) -> Result<Response, ApiError> {
    match api.custody.begin_totp(user(&caller)?, Zeroizing::new(asked.password)).await? {
        Beginning::Begun(begun) => {
            Ok(once(SecretView { secret: begun.secret.to_string(), uri: begun.uri.to_string() }))
        }
        Beginning::There => Err(ApiError::because(Code::Conflict, "there is a second factor: take it off first")),
        Beginning::WrongPassword => Err(ApiError::field("/password", Code::InvalidField, NOT_THE_PASSWORD)),
        Beginning::Locked(until) => Err(locked(until, api.clock.now())),
    }
}

/// `POST /v1/me/totp/confirm`
#[utoipa::path(
    post, path = "/v1/me/totp/confirm", operation_id = "confirm_totp", tag = "log-in",
    summary = "Let a second factor count",
    description = "From now on a log-in takes a code. All other log-ins of the user end: they were made without one.",
    request_body = Confirmation,
    responses(
        (status = 200, description = "Ten recovery codes, shown once", body = CodesView),
        (status = 409, description = "`conflict`: nothing was begun, or it counts already."),
        (status = 422, description = "`invalid_field`: this is no code of it. Are the clocks right?"),
    ),
)]
pub(super) async fn confirm(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(asked): Json<Confirmation>,
) -> Result<Response, ApiError> {
    let code = Zeroizing::new(asked.code);
    match api.custody.confirm_totp(user(&caller)?, &code).await? {
        Confirmed::Yes(codes) => {
            Ok(once(CodesView { recovery_codes: codes.iter().map(|code| code.to_string()).collect() }))
        }
        Confirmed::Wrong => {
            let message = "is no code of this second factor now; are the clocks of the telephone and the hub right?";
            Err(ApiError::field("/code", Code::InvalidField, message))
        }
        Confirmed::NotBegun => {
            Err(ApiError::because(Code::Conflict, "nothing was begun, or it counts already: POST /v1/me/totp"))
        }
    }
}

/// `DELETE /v1/me/totp`
#[utoipa::path(
    delete, path = "/v1/me/totp", operation_id = "remove_totp", tag = "log-in",
    summary = "Take one's second factor off",
    description = "By the password and a code, or a recovery code. Failures count as at the log-in.",
    request_body = Removal,
    responses(
        (status = 204, description = "There is none any more"),
        (status = 409, description = "`conflict`: there is none."),
        (status = 422, description = "`invalid_field`: the password or the code is not that one."),
        (status = 429, description = "`rate_limited`: too much was wrong."),
    ),
)]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(asked): Json<Removal>,
) -> Result<StatusCode, ApiError> {
    let (password, code) = (Zeroizing::new(asked.password), Zeroizing::new(asked.code));
    let wrong = |pointer: &str, message: &str| Err(ApiError::field(pointer, Code::InvalidField, message));
    match api.custody.remove_totp(user(&caller)?, password, code).await? {
        Removed::Yes => Ok(StatusCode::NO_CONTENT),
        Removed::NotThere => Err(ApiError::because(Code::Conflict, "there is no second factor")),
        Removed::WrongPassword => wrong("/password", NOT_THE_PASSWORD),
        Removed::WrongCode => wrong("/code", "is wrong, or was used before"),
        Removed::Locked(until) => Err(locked(until, api.clock.now())),
    }
}

/// `GET /v1/tenant/login`
#[utoipa::path(
    get, path = "/v1/tenant/login", operation_id = "get_login_policy", tag = "tenant",
    summary = "What is demanded of the log-ins of users",
    responses((status = 200, description = "The policy", body = Policy)),
)]
pub(super) async fn get_policy(State(api): State<Arc<Api>>, caller: Caller) -> Result<axum::Json<Policy>, ApiError> {
    let require_totp = api.db.tenant(caller.tenant, |tx| Box::pin(second_factors::is_required(tx))).await?;
    Ok(axum::Json(Policy { require_totp }))
}

/// `PUT /v1/tenant/login`
#[utoipa::path(
    put, path = "/v1/tenant/login", operation_id = "put_login_policy", tag = "tenant",
    summary = "Say what is demanded of the log-ins of users",
    description = "It holds for log-ins that there are, within seconds: until a user without a second factor has set one up, nothing else is open to them (`403 totp_setup_required`). Keys are not touched.",
    request_body = Policy,
    responses((status = 200, description = "The policy as it is now", body = Policy)),
)]
pub(super) async fn put_policy(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(policy): Json<Policy>,
) -> Result<axum::Json<Policy>, ApiError> {
    api.custody.require_totp(caller.tenant, policy.require_totp, &caller.actor()).await?;
    Ok(axum::Json(policy))
}
