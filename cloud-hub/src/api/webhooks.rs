//! Webhook endpoints: made with a secret that is shown once, listed, deleted.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;
use uuid::Uuid;
use wire_contract::{Code, EventClass, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::page::Page;
use super::problem::ApiError;
use super::state::Api;
use crate::domain::ids::EndpointId;
use crate::outbound::signature::secret_text;
use crate::store::{audit, webhooks};

/// Longer URLs are refused by many servers.
const MAX_URL: usize = 2_000;

#[derive(Debug, Deserialize)]
pub(super) struct NewWebhook {
    url: String,
    #[serde(default)]
    classes: Option<Vec<String>>,
}

impl Fields for NewWebhook {
    const KNOWN: &'static [&'static str] = &["url", "classes"];
    const REQUIRED: &'static [&'static str] = &["url"];
}

#[derive(Debug, Serialize)]
pub(super) struct WebhookView {
    id: Uuid,
    url: String,
    /// `null` is all.
    classes: Option<Vec<String>>,
    /// In the answer that made it, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    created_at: Timestamp,
}

/// `POST /v1/webhooks`
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewWebhook>,
) -> Result<(StatusCode, axum::Json<WebhookView>), ApiError> {
    let known = |class: &String| EventClass::from_word(class).is_some();
    Checks::default()
        .text("/url", &new.url, MAX_URL)
        .that(
            new.classes.as_ref().is_none_or(|classes| !classes.is_empty() && classes.iter().all(known)),
            "/classes",
            "must name classes of events; leave it away for all",
        )
        .done()?;
    let url = Url::parse(&new.url).map_err(|error| ApiError::field("/url", Code::InvalidField, error.to_string()))?;
    api.settings
        .webhook_policy
        .check_url(&url)
        .map_err(|error| ApiError::field("/url", Code::AddressNotAllowed, error.to_string()))?;
    let id = EndpointId(api.clock.new_id());
    let secret =
        api.custody.create_webhook(caller.tenant, id, url.as_str(), new.classes.clone(), &caller.actor()).await?;
    let view = WebhookView {
        id: id.0,
        url: url.into(),
        classes: new.classes,
        secret: Some(secret_text(secret.as_slice())),
        created_at: api.clock.now().into(),
    };
    Ok((StatusCode::CREATED, axum::Json(view)))
}

/// `GET /v1/webhooks`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<axum::Json<Page<WebhookView>>, ApiError> {
    let endpoints = api.db.tenant(caller.tenant, |tx| Box::pin(webhooks::list(tx))).await?;
    let view = |endpoint: webhooks::Endpoint| WebhookView {
        id: endpoint.id.0,
        url: endpoint.url,
        classes: endpoint.classes,
        secret: None,
        created_at: endpoint.created_at.into(),
    };
    Ok(axum::Json(Page::whole(endpoints.into_iter().map(view).collect())))
}

/// `DELETE /v1/webhooks/{id}`
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    let (id, now, actor) = (EndpointId(id), api.clock.now(), caller.actor());
    api.db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                webhooks::delete(tx, id, now).await?;
                let entry = audit::Entry {
                    actor: &actor,
                    action: audit::Action::WebhookDelete,
                    object_kind: "webhook",
                    object_id: Some(id.0),
                    detail: json!({}),
                };
                Ok::<_, ApiError>(audit::write(tx, entry).await?)
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
