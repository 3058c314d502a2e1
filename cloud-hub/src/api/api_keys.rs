//! API keys: made with a role, listed, rotated, revoked. Nobody gives away more than they have.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::page::Page;
use super::problem::ApiError;
use super::sites::MAX_NAME;
use super::state::Api;
use crate::domain::ids::{ApiKeyId, TenantId};
use crate::domain::permission::{Grant, Permission, Permissions, Role};
use crate::keys::WantedApiKey;
use crate::store::credentials::{self, ApiKeyRow};

/// How long a rotated key goes on working when nobody says.
const OVERLAP: Duration = Duration::hours(24);
/// How long it may go on at most: a change-over that takes longer is two keys.
const MAX_OVERLAP: Duration = Duration::days(30);

#[derive(Debug, Deserialize)]
pub(super) struct NewApiKey {
    name: String,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    scopes: Option<Vec<String>>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    requests_per_hour: Option<u32>,
}

impl Fields for NewApiKey {
    const KNOWN: &'static [&'static str] = &["name", "role", "scopes", "expires_at", "requests_per_hour"];
    const REQUIRED: &'static [&'static str] = &["name"];
}

#[derive(Debug, Deserialize)]
pub(super) struct Rotation {
    #[serde(default)]
    overlap_s: Option<u32>,
}

impl Fields for Rotation {
    const KNOWN: &'static [&'static str] = &["overlap_s"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// A key without its secret.
#[derive(Debug, Serialize)]
pub(super) struct ApiKeyView {
    id: Uuid,
    name: String,
    role: &'static str,
    /// What it may do in the end: its role, narrowed by its scopes.
    permissions: Vec<&'static str>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    /// `null`: as many as its tenant.
    requests_per_hour: Option<u32>,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    replaced_by: Option<Uuid>,
}

/// A key with its secret, once.
#[derive(Debug, Serialize)]
pub(super) struct CreatedView {
    id: Uuid,
    secret: String,
    /// When the key that it replaces ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_ends_at: Option<Timestamp>,
}

fn view(key: ApiKeyRow) -> ApiKeyView {
    ApiKeyView {
        id: key.id.0,
        name: key.name,
        role: key.grant.role.as_str(),
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
fn asked(new: NewApiKey, now: OffsetDateTime) -> Result<WantedApiKey, ApiError> {
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
    let role: Role = role.parse().map_err(|error| invalid("/role", format!("{error}")))?;
    let mut scopes = None;
    for (index, word) in new.scopes.iter().flatten().enumerate() {
        let pointer = format!("/scopes/{index}");
        let scope: Permission = word.parse().map_err(|error| invalid(&pointer, format!("{error}")))?;
        if !role.permissions().allow(scope) {
            return Err(invalid(&pointer, format!("the role {role} does not have {scope}")));
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
    let wanted = asked(new, api.clock.now())?;
    if let Some(giver) = giver {
        within(wanted.grant.permissions(), giver)?;
    }
    let key = api.custody.create_api_key(tenant, wanted, actor).await?;
    Ok(CreatedView { id: key.id.0, secret: key.secret_text().to_string(), old_ends_at: None })
}

fn within(wanted: Permissions, giver: Permissions) -> Result<(), ApiError> {
    let beyond: Vec<&str> = wanted.beyond(giver).iter().map(Permission::as_str).collect();
    if beyond.is_empty() {
        return Ok(());
    }
    let detail = format!("nobody gives away what they do not have: {}", beyond.join(", "));
    Err(ApiError::because(Code::Forbidden, detail))
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
    if let Some(giver) = giver {
        let old = api.db.tenant(tenant, move |tx| Box::pin(credentials::get(tx, key))).await?;
        within(old.grant.permissions(), giver)?;
    }
    let rotated = api.custody.rotate_api_key(tenant, key, api.clock.now() + overlap, actor).await?;
    let secret = rotated.key.secret_text().to_string();
    Ok(CreatedView { id: rotated.key.id.0, secret, old_ends_at: Some(rotated.old_ends_at.into()) })
}

/// Every key of a tenant, the oldest first.
pub(super) async fn all(api: &Api, tenant: TenantId) -> Result<Vec<ApiKeyView>, ApiError> {
    let keys = api.db.tenant(tenant, |tx| Box::pin(credentials::list(tx))).await?;
    Ok(keys.into_iter().map(view).collect())
}

/// `POST /v1/api-keys`
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewApiKey>,
) -> Result<(StatusCode, axum::Json<CreatedView>), ApiError> {
    let made = make(&api, caller.tenant, new, Some(caller.permissions), &caller.actor()).await?;
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// `GET /v1/api-keys`: all of them, those that have ended too.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<axum::Json<Page<ApiKeyView>>, ApiError> {
    Ok(axum::Json(Page::whole(all(&api, caller.tenant).await?)))
}

/// `GET /v1/api-keys/{id}`
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<ApiKeyView>, ApiError> {
    let key = api.db.tenant(caller.tenant, move |tx| Box::pin(credentials::get(tx, ApiKeyId(id)))).await?;
    Ok(axum::Json(view(key)))
}

/// `POST /v1/api-keys/{id}/rotate`
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
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    api.custody.revoke_api_key(caller.tenant, ApiKeyId(id), &caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}
