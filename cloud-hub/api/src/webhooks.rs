//! Webhook endpoints: made with a secret that is shown once, listed, deleted.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::{Code, EventClass, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::openapi::{texts, wire, words};
use super::page::Page;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::EndpointId;
use hub_host::outbound::signature::secret_text;
use hub_store::{audit, webhooks};

/// Longer URLs are refused by many servers.
pub(super) const MAX_URL: usize = 2_000;

/// A webhook to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhook {
    #[schema(value_type = texts::WebhookUrl)]
    url: String,
    /// Only these; all without it.
    #[serde(default)]
    #[schema(value_type = Option<Vec<words::EventClass>>, min_items = 1)]
    classes: Option<Vec<String>>,
}

impl Fields for NewWebhook {
    const KNOWN: &'static [&'static str] = &["url", "classes"];
    const REQUIRED: &'static [&'static str] = &["url"];
}

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(super) struct WebhookView {
    id: Uuid,
    url: String,
    /// `null` is all.
    #[schema(value_type = Option<Vec<words::EventClass>>, required)]
    classes: Option<Vec<String>>,
    /// In the answer that made it, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<String>,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
}

/// `POST /v1/webhooks`
#[utoipa::path(
    post, path = "/v1/webhooks", operation_id = "create_webhook", tag = "webhooks",
    summary = "Make a webhook",
    description = "The answer has the secret that its messages are signed with, which is shown this once.",
    request_body = NewWebhook,
    responses(
        (status = 201, description = "The webhook, with `secret`", body = WebhookView),
        (status = 422, description = "`address_not_allowed`: the hub sends nothing there."),
    ),
)]
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
#[utoipa::path(
    get, path = "/v1/webhooks", operation_id = "list_webhooks", tag = "webhooks",
    summary = "All webhooks",
    description = "Without their secrets.",
    responses(
        (status = 200, description = "All of them, in one page", body = Page<WebhookView>),
    ),
)]
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
#[utoipa::path(
    delete, path = "/v1/webhooks/{id}", operation_id = "delete_webhook", tag = "webhooks",
    summary = "Remove a webhook",
    description = "What it was not sent yet is not sent any more.",
    params(("id" = Uuid, Path, description = "The webhook")),
    responses(
        (status = 204, description = "It is gone"),
    ),
)]
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
