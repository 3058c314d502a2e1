//! The control socket: what only the operator of the machine may do, over HTTP on a Unix socket of mode 0600.
//!
//! In: requests of the command line. Out: JSON. Whoever may open the socket is the operator; there is no other check,
//! and no route here is reachable over the network. What administrators may do over the network too (`api::admin`) is the same code.

mod admins;
mod keys;
mod orders;
mod people;
mod sessions;
mod settings;
mod tenants;
mod users;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::anchors::{self, AnchorQuery};
use crate::audit::{self as audit_pages, AuditQuery};
use crate::body::{Fields, Json};
use crate::problem::ApiError;
use crate::state::Api;
use crate::tenant_life::existing;
use crate::{api_keys, consumers, devices, galleries, observe};
use hub_domain::ids::{AnchorId, ApiKeyId, ConsumerId, GalleryId, PersonId};
use hub_host::traces::Traces;

/// As audit entries name the command line's user.
const OPERATOR: &str = "operator";

/// Binds the socket where nobody else can open it, not even between its making and the change of its mode: it is made
/// in `private_dir` (0700) and moved to its place.
pub fn bind(private_dir: &Path, socket: &Path) -> io::Result<UnixListener> {
    let hidden: PathBuf = private_dir.join("control.new");
    match std::fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&hidden, socket)?;
    Ok(listener)
}

/// Serves the command line until `stop`.
pub async fn serve(listener: UnixListener, api: Arc<Api>, stop: CancellationToken) {
    // Not told in spans: there are no patterns of its routes that anybody knows.
    let observed = (api.clock.clone(), Traces::default());
    let routes = Router::new()
        .merge(tenants::routes())
        .merge(admins::routes())
        .merge(users::routes())
        .merge(orders::routes())
        .merge(people::routes())
        .merge(sessions::routes())
        .merge(settings::routes())
        .merge(keys::routes())
        .route("/tenants/{tenant}/api-keys", post(create_key).get(list_keys))
        .route("/tenants/{tenant}/api-keys/{key}", delete(revoke_key))
        .route("/tenants/{tenant}/api-keys/{key}/rotate", post(rotate_key))
        .route("/tenants/{tenant}/consumers", post(create_consumer).get(list_consumers))
        .route("/tenants/{tenant}/consumers/{consumer}", delete(delete_consumer))
        .route("/tenants/{tenant}/consumers/{consumer}/password", post(rotate_consumer))
        .route("/tenants/{tenant}/devices", get(list_devices))
        .route("/tenants/{tenant}/galleries", get(list_galleries))
        .route("/tenants/{tenant}/galleries/compact", post(compact_galleries))
        .route("/tenants/{tenant}/people/{person}/negative-anchors", post(add_anchor).get(list_anchors))
        .route("/tenants/{tenant}/people/{person}/negative-anchors/{anchor}", delete(remove_anchor))
        .route("/tenants/{tenant}/audit", get(list_audit))
        .route("/tenants/{tenant}/audit/export", get(export_audit))
        .layer(DefaultBodyLimit::max(api.settings.enrolment.max_photo_bytes))
        .route("/doctor", get(doctor))
        .layer(middleware::from_fn_with_state(observed, observe::observe))
        .with_state(api);
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(event = "control_socket_failed", %error, "the control socket ended");
    }
}

type Answer = Result<(StatusCode, axum::Json<Value>), ApiError>;

fn ok(value: Value) -> Answer {
    Ok((StatusCode::OK, axum::Json(value)))
}

async fn create_key(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(new): Json<api_keys::NewApiKey>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    Ok((StatusCode::CREATED, axum::Json(json!(api_keys::make(&api, tenant, new, None, OPERATOR).await?))))
}

async fn list_keys(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!({ "api_keys": api_keys::all(&api, tenant).await? }))
}

async fn rotate_key(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, key)): UrlPath<(Uuid, Uuid)>,
    Json(rotation): Json<api_keys::Rotation>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    let made = api_keys::renew(&api, tenant, ApiKeyId(key), &rotation, None, OPERATOR).await?;
    Ok((StatusCode::CREATED, axum::Json(json!(made))))
}

async fn revoke_key(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, key)): UrlPath<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    let tenant = existing(&api, tenant).await?;
    api.custody.revoke_api_key(tenant, ApiKeyId(key), None, OPERATOR).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn create_consumer(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(new): Json<consumers::NewConsumer>,
) -> Result<(StatusCode, axum::Json<consumers::CredentialView>), ApiError> {
    let tenant = existing(&api, tenant).await?;
    let made = consumers::make(&api, tenant, &new, OPERATOR).await?;
    Ok((StatusCode::CREATED, axum::Json(made.on_this_machine(&api))))
}

async fn list_consumers(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!({ "consumers": consumers::all(&api, tenant).await? }))
}

async fn rotate_consumer(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, consumer)): UrlPath<(Uuid, Uuid)>,
) -> Result<axum::Json<consumers::CredentialView>, ApiError> {
    let tenant = existing(&api, tenant).await?;
    let renewed = consumers::renew(&api, tenant, ConsumerId(consumer), OPERATOR).await?;
    Ok(axum::Json(renewed.on_this_machine(&api)))
}

async fn delete_consumer(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, consumer)): UrlPath<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    let tenant = existing(&api, tenant).await?;
    consumers::end(api, tenant, ConsumerId(consumer), String::from(OPERATOR)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_devices(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!({ "devices": devices::all(&api, tenant).await? }))
}

async fn list_galleries(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!({ "logs": galleries::list(&api, tenant).await? }))
}

#[derive(Debug, Deserialize)]
struct WhichGallery {
    #[serde(default)]
    gallery: Option<Uuid>,
}

impl Fields for WhichGallery {
    const KNOWN: &'static [&'static str] = &["gallery"];
    const REQUIRED: &'static [&'static str] = &[];
}

async fn compact_galleries(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(which): Json<WhichGallery>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    let only = which.gallery.map(GalleryId);
    ok(json!({ "logs": galleries::compact(&api, tenant, only, OPERATOR).await? }))
}

/// The body is the picture itself.
async fn add_anchor(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, person)): UrlPath<(Uuid, Uuid)>,
    Query(query): Query<AnchorQuery>,
    picture: Bytes,
) -> Answer {
    let (tenant, person) = (existing(&api, tenant).await?, PersonId(person));
    let place = anchors::enter(&api, tenant, person).await?;
    let view = anchors::add(&api, tenant, person, place, picture, query.confirm, OPERATOR).await?;
    Ok((StatusCode::CREATED, axum::Json(json!(view))))
}

async fn list_anchors(State(api): State<Arc<Api>>, UrlPath((tenant, person)): UrlPath<(Uuid, Uuid)>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!({ "negative_anchors": anchors::all(&api, tenant, PersonId(person), String::from(OPERATOR)).await? }))
}

async fn remove_anchor(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, person, anchor)): UrlPath<(Uuid, Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    let tenant = existing(&api, tenant).await?;
    api.custody.remove_anchor(tenant, PersonId(person), AnchorId(anchor), OPERATOR).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_audit(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Query(query): Query<AuditQuery>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    let looked = audit_pages::look(&api, tenant, &query, String::from(OPERATOR)).await?;
    ok(json!(looked.page))
}

async fn export_audit(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Query(query): Query<AuditQuery>,
) -> Result<Response, ApiError> {
    let tenant = existing(&api, tenant).await?;
    audit_pages::copy(api, tenant, &query, String::from(OPERATOR), None).await
}

async fn doctor(State(api): State<Arc<Api>>) -> Answer {
    ok(json!({ "components": api.components().await }))
}
