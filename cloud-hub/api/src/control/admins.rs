//! Keys of platform administrators: made, listed, revoked. Only here: nobody makes another administrator over the network.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::Duration;
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use super::{Answer, OPERATOR, ok};
use crate::body::{Checks, Fields, Json};
use crate::problem::ApiError;
use crate::sites::MAX_NAME;
use crate::state::Api;
use hub_domain::ids::PlatformKeyId;
use hub_domain::platform::PlatformRole;
use hub_keys::WantedPlatformKey;
use hub_store::platform_keys::{self, PlatformKeyRow};

/// Ten years: a key that is to live longer has no end.
const MAX_DAYS: u32 = 3_650;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/admins", post(create).get(list)).route("/admins/{key}", delete(revoke))
}

#[derive(Debug, Deserialize)]
struct NewAdmin {
    name: String,
    role: String,
    #[serde(default)]
    expires_in_days: Option<u32>,
}

impl Fields for NewAdmin {
    const KNOWN: &'static [&'static str] = &["name", "role", "expires_in_days"];
    const REQUIRED: &'static [&'static str] = &["name", "role"];
}

#[derive(Debug, Serialize)]
struct AdminView {
    id: Uuid,
    name: String,
    role: &'static str,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl From<PlatformKeyRow> for AdminView {
    fn from(key: PlatformKeyRow) -> Self {
        Self {
            id: key.id.0,
            name: key.name,
            role: key.role.as_str(),
            created_at: key.created_at.into(),
            expires_at: key.expires_at.map(Timestamp::from),
            last_used_at: key.last_used_at.map(Timestamp::from),
            revoked_at: key.revoked_at.map(Timestamp::from),
        }
    }
}

async fn create(State(api): State<Arc<Api>>, Json(new): Json<NewAdmin>) -> Answer {
    let days = new.expires_in_days;
    Checks::default()
        .text("/name", &new.name, MAX_NAME)
        .that(
            days.is_none_or(|days| (1..=MAX_DAYS).contains(&days)),
            "/expires_in_days",
            &format!("must be from 1 to {MAX_DAYS}"),
        )
        .done()?;
    let role = new.role.parse::<PlatformRole>();
    let role = role.map_err(|error| ApiError::field("/role", Code::InvalidField, error.to_string()))?;
    let expires_at = days.map(|days| api.clock.now() + Duration::days(days.into()));
    let wanted = WantedPlatformKey { name: new.name, role, expires_at };
    let key = api.custody.create_platform_key(wanted, OPERATOR).await?;
    let secret = key.secret_text();
    let answer = json!({
        "id": key.id.0, "secret": secret.as_str(), "role": role.as_str(), "expires_at": expires_at.map(Timestamp::from),
    });
    Ok((StatusCode::CREATED, axum::Json(answer)))
}

async fn list(State(api): State<Arc<Api>>) -> Answer {
    let keys = platform_keys::list(&api.db).await?;
    ok(json!({ "admins": keys.into_iter().map(AdminView::from).collect::<Vec<_>>() }))
}

async fn revoke(State(api): State<Arc<Api>>, Path(key): Path<Uuid>) -> Result<StatusCode, ApiError> {
    api.custody.revoke_platform_key(PlatformKeyId(key), OPERATOR).await?;
    Ok(StatusCode::NO_CONTENT)
}
