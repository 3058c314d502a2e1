//! API keys: made with a role, listed, rotated, revoked. Nobody gives away more than they have.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::openapi::{texts, wire, words};
use super::page::Page;
use super::problem::{ApiError, beyond_rights};
use super::roles;
use super::sites::MAX_NAME;
use super::state::Api;
use hub_domain::api_key::ApiKey;
use hub_domain::ids::{ApiKeyId, TenantId};
use hub_domain::permission::{Grant, Permission, Permissions, Role};
use hub_keys::WantedApiKey;
use hub_store::credentials::{self, ApiKeyRow};

/// How long a rotated key goes on working when nobody says.
const OVERLAP: Duration = Duration::hours(24);
/// How long it may go on at most: a change-over that takes longer is two keys.
pub(super) const MAX_OVERLAP: Duration = Duration::days(30);

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewApiKey {
    #[schema(value_type = texts::Name)]
    name: String,
    /// An owner's without it.
    #[serde(default)]
    #[schema(value_type = Option<texts::RoleName>)]
    role: Option<String>,
    /// Permissions of the role, to which the key is narrowed; all of the role without it.
    #[serde(default)]
    #[schema(value_type = Option<Vec<words::Permission>>, min_items = 1)]
    scopes: Option<Vec<String>>,
    /// When it ends by itself; in the future.
    #[serde(default)]
    #[schema(value_type = Option<texts::Moment>)]
    expires_at: Option<Timestamp>,
    /// How many requests an hour it may ask; as many as its tenant without it.
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 4_294_967_295_i64)]
    requests_per_hour: Option<u32>,
}

impl Fields for NewApiKey {
    const KNOWN: &'static [&'static str] = &["name", "role", "scopes", "expires_at", "requests_per_hour"];
    const REQUIRED: &'static [&'static str] = &["name"];
}

/// How one key takes the place of another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// Seconds for which the old one goes on; a day without it.
    #[serde(default)]
    #[schema(maximum = 2_592_000)]
    overlap_s: Option<u32>,
}

impl Fields for Rotation {
    const KNOWN: &'static [&'static str] = &["overlap_s"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// A key without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(super) struct ApiKeyView {
    id: Uuid,
    name: String,
    #[schema(value_type = texts::RoleName)]
    role: String,
    /// What it may do in the end: its role, narrowed by its scopes.
    #[schema(value_type = Vec<words::Permission>)]
    permissions: Vec<&'static str>,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    expires_at: Option<Timestamp>,
    /// `null`: as many as its tenant.
    #[schema(required)]
    requests_per_hour: Option<u32>,
    /// To the minute.
    #[schema(value_type = Option<wire::Timestamp>, required)]
    last_used_at: Option<Timestamp>,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    revoked_at: Option<Timestamp>,
    /// The key that took its place.
    #[schema(required)]
    replaced_by: Option<Uuid>,
}

/// A key with its secret, once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NewKey)]
pub(super) struct CreatedView {
    id: Uuid,
    /// Goes behind the id: `Authorization: ApiKey <id>:<secret>`.
    secret: String,
    /// When the key that it replaces ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = wire::Timestamp)]
    old_ends_at: Option<Timestamp>,
}

impl CreatedView {
    /// A key that replaces none.
    pub(super) fn of(key: &ApiKey) -> Self {
        Self { id: key.id.0, secret: key.secret_text().to_string(), old_ends_at: None }
    }
}

fn view(key: ApiKeyRow) -> ApiKeyView {
    ApiKeyView {
        id: key.id.0,
        name: key.name,
        role: key.grant.role.name.clone(),
        permissions: key.grant.permissions().iter().map(Permission::as_str).collect(),
        created_at: key.created_at.into(),
        expires_at: key.expires_at.map(Timestamp::from),
        requests_per_hour: key.requests_per_hour,
        last_used_at: key.last_used_at.map(Timestamp::from),
        revoked_at: key.revoked_at.map(Timestamp::from),
        replaced_by: key.replaced_by.map(|id| id.0),
    }
}

/// What is asked for, read and checked.
async fn asked(api: &Api, tenant: TenantId, new: NewApiKey) -> Result<WantedApiKey, ApiError> {
    let now = api.clock.now();
    let invalid = |pointer: &str, message: String| ApiError::field(pointer, Code::InvalidField, message);
    let expires_at = new.expires_at.map(Timestamp::to_offset_date_time);
    Checks::default()
        .text("/name", &new.name, MAX_NAME)
        .that(expires_at.is_none_or(|end| end > now), "/expires_at", "is past")
        .that(new.requests_per_hour != Some(0), "/requests_per_hour", "must be at least 1")
        .that(
            new.scopes.as_ref().is_none_or(|scopes| !scopes.is_empty()),
            "/scopes",
            "allow nothing; leave them out for all of the role",
        )
        .done()?;
    let role = new.role.as_deref().unwrap_or(Role::Owner.as_str());
    let role = roles::named(api, tenant, role).await?;
    let mut scopes = None;
    for (index, word) in new.scopes.iter().flatten().enumerate() {
        let pointer = format!("/scopes/{index}");
        let scope: Permission = word.parse().map_err(|error| invalid(&pointer, format!("{error}")))?;
        if !role.permissions.allow(scope) {
            return Err(invalid(&pointer, format!("the role {} does not have {scope}", role.name)));
        }
        scopes = Some(scopes.into_iter().flat_map(Permissions::iter).chain([scope]).collect());
    }
    let grant = Grant { role, scopes };
    Ok(WantedApiKey { name: new.name, grant, expires_at, requests_per_hour: new.requests_per_hour })
}

/// Makes a key for whoever may give away at least its rights (`None`: the operator of the machine).
pub(super) async fn make(
    api: &Api,
    tenant: TenantId,
    new: NewApiKey,
    giver: Option<Permissions>,
    actor: &str,
) -> Result<CreatedView, ApiError> {
    let wanted = asked(api, tenant, new).await?;
    if let Some(giver) = giver {
        within(wanted.grant.permissions(), giver)?;
    }
    let key = api.custody.create_api_key(tenant, wanted, actor).await?;
    Ok(CreatedView::of(&key))
}

pub(super) fn within(wanted: Permissions, giver: Permissions) -> Result<(), ApiError> {
    let beyond = wanted.beyond(giver);
    if beyond == Permissions::default() { Ok(()) } else { Err(beyond_rights(beyond)) }
}

/// Puts another key in the place of one.
pub(super) async fn renew(
    api: &Api,
    tenant: TenantId,
    key: ApiKeyId,
    rotation: &Rotation,
    giver: Option<Permissions>,
    actor: &str,
) -> Result<CreatedView, ApiError> {
    let overlap = rotation.overlap_s.map_or(OVERLAP, |seconds| Duration::seconds(seconds.into()));
    let longest = MAX_OVERLAP.whole_seconds();
    Checks::default().that(overlap <= MAX_OVERLAP, "/overlap_s", &format!("must be at most {longest}")).done()?;
    let rotated = api.custody.rotate_api_key(tenant, key, api.clock.now() + overlap, giver, actor).await?;
    let secret = rotated.key.secret_text().to_string();
    Ok(CreatedView { id: rotated.key.id.0, secret, old_ends_at: Some(rotated.old_ends_at.into()) })
}

/// Every key of a tenant, the oldest first.
pub(super) async fn all(api: &Api, tenant: TenantId) -> Result<Vec<ApiKeyView>, ApiError> {
    let keys = api.db.tenant(tenant, |tx| Box::pin(credentials::list(tx))).await?;
    Ok(keys.into_iter().map(view).collect())
}

/// `POST /v1/api-keys`
#[utoipa::path(
    post, path = "/v1/api-keys", operation_id = "create_api_key", tag = "api keys",
    summary = "Make a key",
    description = "The answer has the secret, which is shown this once. Nobody makes a key with more rights than their own.",
    request_body = NewApiKey,
    responses(
        (status = 201, description = "The key with its secret", body = CreatedView),
        (status = 403, description = "`forbidden`: it would have rights that the caller does not have."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewApiKey>,
) -> Result<(StatusCode, axum::Json<CreatedView>), ApiError> {
    let made = make(&api, caller.tenant, new, Some(caller.permissions), &caller.actor()).await?;
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// `GET /v1/api-keys`: all of them, those that have ended too.
#[utoipa::path(
    get, path = "/v1/api-keys", operation_id = "list_api_keys", tag = "api keys",
    summary = "All keys",
    description = "Those that have ended too, the oldest first. Never a secret.",
    responses(
        (status = 200, description = "All of them, in one page", body = Page<ApiKeyView>),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<axum::Json<Page<ApiKeyView>>, ApiError> {
    Ok(axum::Json(Page::whole(all(&api, caller.tenant).await?)))
}

/// `GET /v1/api-keys/{id}`
#[utoipa::path(
    get, path = "/v1/api-keys/{id}", operation_id = "get_api_key", tag = "api keys",
    summary = "One key",
    params(("id" = Uuid, Path, description = "The key")),
    responses(
        (status = 200, description = "The key", body = ApiKeyView),
    ),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<ApiKeyView>, ApiError> {
    let key = api.db.tenant(caller.tenant, move |tx| Box::pin(credentials::get(tx, ApiKeyId(id)))).await?;
    Ok(axum::Json(view(key)))
}

/// `POST /v1/api-keys/{id}/rotate`
#[utoipa::path(
    post, path = "/v1/api-keys/{id}/rotate", operation_id = "rotate_api_key", tag = "api keys",
    summary = "Put another key in the place of one",
    description = "The new one has the same name and rights; the old one goes on for the overlap.",
    params(("id" = Uuid, Path, description = "The key")),
    request_body = Rotation,
    responses(
        (status = 201, description = "The new key with its secret", body = CreatedView),
        (status = 403, description = "`forbidden`: the key has rights that the caller does not have."),
        (status = 409, description = "`conflict`: the key has ended or was replaced already."),
    ),
)]
pub(super) async fn rotate(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(rotation): Json<Rotation>,
) -> Result<(StatusCode, axum::Json<CreatedView>), ApiError> {
    let (giver, actor) = (Some(caller.permissions), caller.actor());
    let made = renew(&api, caller.tenant, ApiKeyId(id), &rotation, giver, &actor).await?;
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// `DELETE /v1/api-keys/{id}`
#[utoipa::path(
    delete, path = "/v1/api-keys/{id}", operation_id = "revoke_api_key", tag = "api keys",
    summary = "Revoke a key",
    description = "It ends at once, and so do its streams.",
    params(("id" = Uuid, Path, description = "The key")),
    responses(
        (status = 204, description = "It has ended"),
    ),
)]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    api.custody.revoke_api_key(caller.tenant, ApiKeyId(id), Some(caller.permissions), &caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}
