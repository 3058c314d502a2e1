//! Consumers of the feed at the broker: made with a password that is shown once, listed, given another one, removed.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::topic::feed_filter;
use wire_contract::{Code, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::openapi::{texts, wire};
use super::page::Page;
use super::problem::ApiError;
use super::sites::MAX_NAME;
use super::state::Api;
use hub_domain::ids::{ConsumerId, TenantId};
use hub_keys::Password;
use hub_store::consumers;

/// A consumer to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewConsumer {
    #[schema(value_type = texts::Name)]
    name: String,
    /// Whether it also reads what is said for Home Assistants.
    #[serde(default)]
    home_assistant: bool,
}

impl Fields for NewConsumer {
    const KNOWN: &'static [&'static str] = &["name", "home_assistant"];
    const REQUIRED: &'static [&'static str] = &["name"];
}

/// A consumer as its owner sees it at any time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Consumer)]
pub(super) struct ConsumerView {
    id: Uuid,
    name: String,
    /// At the broker; the client id there is the same.
    username: String,
    /// Whether it also reads what is said for Home Assistants.
    home_assistant: bool,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    rotated_at: Option<Timestamp>,
}

/// All that a client needs to connect, in the one answer that has the password.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConsumerCredential)]
pub(super) struct CredentialView {
    #[serde(flatten)]
    consumer: ConsumerView,
    password: String,
    host: String,
    port: u16,
    /// The only authority to believe there, PEM.
    ca_pem: String,
    /// The filter of all that it may read.
    topic: String,
    /// The same authority as a file, for who is on the hub's machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    ca_file: Option<String>,
    /// A command line that reads the feed, ready to be typed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    command: Option<String>,
}

impl CredentialView {
    /// With what only helps on the hub's own machine.
    pub(super) fn on_this_machine(mut self, api: &Api) -> Self {
        let ca_file = api.pki.root_path().display().to_string();
        let (user, password, topic) = (&self.consumer.username, &self.password, &self.topic);
        self.command = Some(format!(
            "mosquitto_sub -V 5 -h {} -p {} --cafile {ca_file} -u {user} -P {password} -i {user} -c -x 86400 -q 1 -t '{topic}'",
            self.host, self.port,
        ));
        self.ca_file = Some(ca_file);
        self
    }
}

impl From<consumers::Consumer> for ConsumerView {
    fn from(consumer: consumers::Consumer) -> Self {
        Self {
            id: consumer.id.0,
            username: consumer.id.user_name(),
            name: consumer.name,
            home_assistant: consumer.home_assistant,
            created_at: consumer.created_at.into(),
            rotated_at: consumer.rotated_at.map(Timestamp::from),
        }
    }
}

/// Where consumers connect; an error that says what to do where they cannot.
fn listener(api: &Api) -> Result<(String, u16), ApiError> {
    api.settings.consumers.clone().ok_or_else(|| {
        ApiError::because(
            Code::Conflict,
            "this hub has no listener for consumers: set embedded.consumer_listen (with a broker of your own the three \
             broker.consumer_… settings) and start it again",
        )
    })
}

/// The answer with the password, once the broker knows it.
async fn credential(
    api: &Api,
    tenant: TenantId,
    id: ConsumerId,
    password: Password,
    (host, port): (String, u16),
) -> Result<CredentialView, ApiError> {
    api.broker.refresh_consumers().await.map_err(|error| ApiError::internal(&error))?;
    let consumer = api.db.tenant(tenant, move |tx| Box::pin(consumers::get(tx, id))).await?;
    Ok(CredentialView {
        consumer: consumer.into(),
        password: password.to_string(),
        host,
        port,
        ca_pem: api.pki.root_pem().to_owned(),
        topic: feed_filter(wire_contract::TenantId(tenant.0), None),
        ca_file: None,
        command: None,
    })
}

/// Makes one; the command line's way is the same.
pub(super) async fn make(
    api: &Api,
    tenant: TenantId,
    new: &NewConsumer,
    actor: &str,
) -> Result<CredentialView, ApiError> {
    Checks::default().text("/name", &new.name, MAX_NAME).done()?;
    let place = listener(api)?;
    if new.home_assistant && !api.settings.home_assistant.contains(&tenant) {
        let missing = "nothing is said for Home Assistants here: add the tenant's id to home_assistant.tenants and start the hub again";
        return Err(ApiError::because(Code::Conflict, missing));
    }
    let (id, password) = api.custody.create_consumer(tenant, &new.name, new.home_assistant, actor).await?;
    credential(api, tenant, id, password, place).await
}

/// Gives one another password; sessions under the one before are ended.
pub(super) async fn renew(
    api: &Api,
    tenant: TenantId,
    id: ConsumerId,
    actor: &str,
) -> Result<CredentialView, ApiError> {
    let place = listener(api)?;
    let password = api.custody.rotate_consumer(tenant, id, actor).await?;
    credential(api, tenant, id, password, place).await
}

/// Those that were not removed.
pub(super) async fn all(api: &Api, tenant: TenantId) -> Result<Vec<ConsumerView>, ApiError> {
    let found = api.db.tenant(tenant, |tx| Box::pin(consumers::list(tx))).await?;
    Ok(found.into_iter().map(ConsumerView::from).collect())
}

/// Removes one, its sessions and what waits for it.
pub(super) async fn end(api: Arc<Api>, tenant: TenantId, id: ConsumerId, actor: String) -> Result<(), ApiError> {
    // A task of its own: a client that goes away must not leave a removed consumer at the broker.
    let ended = tokio::spawn(async move {
        api.custody.remove_consumer(tenant, id, &actor).await?;
        api.broker.refresh_consumers().await.map_err(|error| ApiError::internal(&error))?;
        api.broker.end_consumer(id).await;
        Ok(())
    })
    .await;
    ended.map_err(|error| ApiError::internal(&error))?
}

/// `POST /v1/consumers`
#[utoipa::path(
    post, path = "/v1/consumers", operation_id = "create_consumer", tag = "consumers",
    summary = "Make a consumer",
    description = "The answer has the password, which is shown this once, and all else that a client needs to connect.",
    request_body = NewConsumer,
    responses(
        (status = 201, description = "The consumer with its password", body = CredentialView),
        (status = 409, description = "`conflict`: this hub has no listener for consumers, or says nothing for Home Assistants; `detail` says what to set. Or another consumer has this name."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewConsumer>,
) -> Result<(StatusCode, axum::Json<CredentialView>), ApiError> {
    let made = make(&api, caller.tenant, &new, &caller.actor()).await?;
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// `GET /v1/consumers`
#[utoipa::path(
    get, path = "/v1/consumers", operation_id = "list_consumers", tag = "consumers",
    summary = "All consumers",
    description = "Those that were not removed.",
    responses(
        (status = 200, description = "All of them, in one page", body = Page<ConsumerView>),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<axum::Json<Page<ConsumerView>>, ApiError> {
    Ok(axum::Json(Page::whole(all(&api, caller.tenant).await?)))
}

/// `POST /v1/consumers/{id}/password`
#[utoipa::path(
    post, path = "/v1/consumers/{id}/password", operation_id = "rotate_consumer_password", tag = "consumers",
    summary = "Another password",
    description = "Sessions under the one before end.",
    params(("id" = Uuid, Path, description = "The consumer")),
    responses(
        (status = 200, description = "The consumer with its password", body = CredentialView),
        (status = 409, description = "`conflict`: this hub has no listener for consumers."),
    ),
)]
pub(super) async fn rotate(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<CredentialView>, ApiError> {
    Ok(axum::Json(renew(&api, caller.tenant, ConsumerId(id), &caller.actor()).await?))
}

/// `DELETE /v1/consumers/{id}`
#[utoipa::path(
    delete, path = "/v1/consumers/{id}", operation_id = "delete_consumer", tag = "consumers",
    summary = "Remove a consumer",
    description = "Its sessions end, and what waits for it is thrown away.",
    params(("id" = Uuid, Path, description = "The consumer")),
    responses(
        (status = 204, description = "It is gone"),
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    end(api, caller.tenant, ConsumerId(id), caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}
