//! The control socket: what only the operator of the machine may do, over HTTP on a Unix socket of mode 0600.
//!
//! In: requests of the command line. Out: JSON. Whoever may open the socket is the operator; there is no other check,
//! and no route here is reachable over the network.

mod people;

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
use wire_contract::Code;

use crate::api::anchors::{self, AnchorQuery};
use crate::api::audit::{self as audit_pages, AuditQuery};
use crate::api::body::{Checks, Fields, Json};
use crate::api::commands::{Giver, NewCommand};
use crate::api::problem::ApiError;
use crate::api::sites::MAX_NAME;
use crate::api::state::Api;
use crate::api::{
    agreements, api_keys, commands, consumers, deletion, devices, galleries, login, observe, tenants, token_keys,
    twins, users,
};
use crate::domain::command::Command;
use crate::domain::ids::{
    AnchorId, ApiKeyId, CommandId, ConsumerId, DeviceId, DoorId, GalleryId, PersonId, TenantId, UserId,
};
use crate::domain::permission::{Grant, Role};
use crate::domain::tenant::Tier;
use crate::keys::WantedApiKey;
use crate::store::{audit, commands as store_commands, devices as store_devices, routes, tenants as store_tenants};

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
    let clock = api.clock.clone();
    let routes = Router::new()
        .route("/tenants", post(create_tenant).get(list_tenants))
        .route("/tenants/{tenant}", get(show_tenant).patch(agree_with_tenant))
        .route("/tenants/{tenant}/deletion", get(show_deletion).post(delete_tenant))
        .route("/tenants/{tenant}/suspend", post(suspend_tenant))
        .route("/tenants/{tenant}/resume", post(resume_tenant))
        .route("/tenants/{tenant}/api-keys", post(create_key).get(list_keys))
        .route("/tenants/{tenant}/api-keys/{key}", delete(revoke_key))
        .route("/tenants/{tenant}/api-keys/{key}/rotate", post(rotate_key))
        .route("/tenants/{tenant}/users", post(create_user).get(list_users))
        .route("/tenants/{tenant}/users/{user}", delete(delete_user))
        .route("/tenants/{tenant}/users/{user}/password", post(reset_user))
        .route("/tenants/{tenant}/users/{user}/totp", delete(take_totp))
        .route("/tenants/{tenant}/consumers", post(create_consumer).get(list_consumers))
        .route("/tenants/{tenant}/consumers/{consumer}", delete(delete_consumer))
        .route("/tenants/{tenant}/consumers/{consumer}/password", post(rotate_consumer))
        .route("/tenants/{tenant}/devices", get(list_devices))
        .route("/tenants/{tenant}/galleries", get(list_galleries))
        .route("/tenants/{tenant}/galleries/compact", post(compact_galleries))
        .route("/tenants/{tenant}/devices/{device}/twin", get(show_twin).put(set_twin))
        .route("/tenants/{tenant}/devices/{device}/commands", post(order_device).get(list_commands_of_device))
        .route("/tenants/{tenant}/doors/{door}/commands", post(order_door))
        .route("/tenants/{tenant}/commands", get(list_commands))
        .route("/tenants/{tenant}/commands/{command}", get(show_command))
        .route("/tenants/{tenant}/commands/{command}/logs", get(show_logs))
        .route("/tenants/{tenant}/people/{person}/negative-anchors", post(add_anchor).get(list_anchors))
        .route("/tenants/{tenant}/people/{person}/negative-anchors/{anchor}", delete(remove_anchor))
        .route("/tenants/{tenant}/audit", get(list_audit))
        .route("/tenants/{tenant}/audit/export", get(export_audit))
        .merge(people::routes())
        .layer(DefaultBodyLimit::max(api.settings.enrolment.max_photo_bytes))
        .route("/doctor", get(doctor))
        .route("/keys", get(show_keys))
        .route("/keys/jwt", post(rotate_token_key))
        .layer(middleware::from_fn_with_state(clock, observe::observe))
        .with_state(api);
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(event = "control_socket_failed", %error, "the control socket ended");
    }
}

#[derive(Debug, Deserialize)]
struct NewTenant {
    name: String,
    #[serde(default)]
    tier: Option<String>,
}

impl Fields for NewTenant {
    const KNOWN: &'static [&'static str] = &["name", "tier"];
    const REQUIRED: &'static [&'static str] = &["name"];
}

type Answer = Result<(StatusCode, axum::Json<Value>), ApiError>;

fn ok(value: Value) -> Answer {
    Ok((StatusCode::OK, axum::Json(value)))
}

async fn create_tenant(State(api): State<Arc<Api>>, Json(new): Json<NewTenant>) -> Answer {
    Checks::default().text("/name", &new.name, MAX_NAME).done()?;
    let tier = new.tier.as_deref().map_or(Ok(Tier::Enterprise), agreements::tier)?;
    let tenant = api.custody.create_tenant(&new.name, tier, OPERATOR).await?;
    let grant = Grant::all_of(Role::Owner);
    let key = api.custody.create_api_key(tenant, WantedApiKey::of("first key", grant), OPERATOR).await?;
    let secret = key.secret_text();
    let answer = json!({
        "tenant": { "id": tenant.0, "name": new.name, "tier": tier.as_str() },
        "api_key": { "id": key.id.0, "secret": secret.as_str() },
    });
    Ok((StatusCode::CREATED, axum::Json(answer)))
}

async fn list_tenants(State(api): State<Arc<Api>>) -> Answer {
    let mut all = Vec::new();
    for tenant in routes::tenants_with_rows(&api.db).await? {
        match shown(&api, tenant).await {
            Ok(tenant) => all.push(tenant),
            // It went since the list was made.
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    ok(json!({ "tenants": all }))
}

async fn show_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    ok(shown(&api, TenantId(tenant)).await?)
}

/// A tenant, or how far its end is.
async fn shown(api: &Api, tenant: TenantId) -> Result<Value, ApiError> {
    if deletion::has_begun(api, tenant).await? {
        return Ok(json!(deletion::show(api, tenant).await?));
    }
    Ok(json!(tenants::show(api, tenant).await?))
}

async fn show_deletion(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    ok(json!(deletion::show(&api, TenantId(tenant)).await?))
}

async fn delete_tenant(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(order): Json<deletion::Order>,
) -> Answer {
    let tenant = TenantId(tenant);
    deletion::order(Arc::clone(&api), tenant, order, OPERATOR).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!(deletion::show(&api, tenant).await?))))
}

async fn agree_with_tenant(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(new): Json<agreements::Changes>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    agreements::change(&api, tenant, &new, OPERATOR).await?;
    ok(json!(tenants::show(&api, tenant).await?))
}

async fn suspend_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    serve_tenant(&api, tenant, false).await
}

async fn resume_tenant(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    serve_tenant(&api, tenant, true).await
}

/// Its keys are refused or let in again. Doors go on as they were: nobody is locked in or out over a bill.
async fn serve_tenant(api: &Api, tenant: Uuid, serve: bool) -> Answer {
    let tenant = existing(api, tenant).await?;
    let since = (!serve).then(|| api.clock.now());
    let action = if serve { audit::Action::TenantResume } else { audit::Action::TenantSuspend };
    api.db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                if store_tenants::suspend(tx, since).await? {
                    audit::write(tx, of_tenant(tenant, action, json!({}))).await?;
                }
                Ok::<_, ApiError>(())
            })
        })
        .await?;
    api.custody.forget_keys(tenant);
    ok(json!(tenants::show(api, tenant).await?))
}

fn of_tenant(tenant: TenantId, action: audit::Action, detail: Value) -> audit::Entry<'static> {
    audit::Entry { actor: OPERATOR, action, object_kind: "tenant", object_id: Some(tenant.0), detail }
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
    api.custody.revoke_api_key(tenant, ApiKeyId(key), OPERATOR).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn create_user(
    State(api): State<Arc<Api>>,
    UrlPath(tenant): UrlPath<Uuid>,
    Json(new): Json<users::NewUser>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    Ok((StatusCode::CREATED, axum::Json(json!(users::make(&api, tenant, new, None, OPERATOR).await?))))
}

async fn list_users(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!({ "users": users::all(&api, tenant).await? }))
}

async fn delete_user(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, user)): UrlPath<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    let tenant = existing(&api, tenant).await?;
    api.custody.delete_user(tenant, UserId(user), None, OPERATOR).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn take_totp(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, user)): UrlPath<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    let tenant = existing(&api, tenant).await?;
    if api.custody.take_totp(tenant, UserId(user), None, OPERATOR).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::because(Code::Conflict, "this user has no second factor"))
}

/// A password that the operator typed in, or none: then the user is invited to choose one.
#[derive(Deserialize)]
struct Reset {
    #[serde(default)]
    password: Option<String>,
}

impl Fields for Reset {
    const KNOWN: &'static [&'static str] = &["password"];
    const REQUIRED: &'static [&'static str] = &[];
}

async fn reset_user(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, user)): UrlPath<(Uuid, Uuid)>,
    Json(reset): Json<Reset>,
) -> Answer {
    let (tenant, user) = (existing(&api, tenant).await?, UserId(user));
    if let Some(password) = reset.password {
        let password = login::new_password("/password", password)?;
        api.custody.set_password(tenant, user, password, OPERATOR).await?;
        return ok(json!({ "id": user.0, "password": "set" }));
    }
    let invited = api.custody.invite_user(tenant, user, None, OPERATOR).await?;
    ok(json!(users::InvitedView::from(&invited)))
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

async fn show_twin(State(api): State<Arc<Api>>, UrlPath((tenant, device)): UrlPath<(Uuid, Uuid)>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!(twins::show(&api, tenant, DeviceId(device)).await?))
}

/// Settings as a whole, and which version they are a change of.
#[derive(Debug, Deserialize)]
struct NewTwin {
    settings: Value,
    #[serde(default)]
    version: Option<u64>,
}

impl Fields for NewTwin {
    const KNOWN: &'static [&'static str] = &["settings", "version"];
    const REQUIRED: &'static [&'static str] = &["settings"];
}

async fn set_twin(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, device)): UrlPath<(Uuid, Uuid)>,
    Json(new): Json<NewTwin>,
) -> Answer {
    let giver = operator(&api, tenant).await?;
    ok(json!(twins::wish(&api, giver, DeviceId(device), new.version, &new.settings).await?))
}

async fn order_device(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, device)): UrlPath<(Uuid, Uuid)>,
    Json(new): Json<NewCommand>,
) -> Answer {
    let giver = operator(&api, tenant).await?;
    let command = commands::order(&api, giver, Some(DeviceId(device)), None, &new).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!(commands::view(&api, command)))))
}

async fn order_door(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, door)): UrlPath<(Uuid, Uuid)>,
    Json(new): Json<NewCommand>,
) -> Answer {
    let giver = operator(&api, tenant).await?;
    let command = commands::order(&api, giver, None, Some(DoorId(door)), &new).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!(commands::view(&api, command)))))
}

async fn list_commands(State(api): State<Arc<Api>>, UrlPath(tenant): UrlPath<Uuid>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    let found = api.db.tenant(tenant, |tx| Box::pin(store_commands::list(tx))).await?;
    listed(&api, found)
}

async fn list_commands_of_device(
    State(api): State<Arc<Api>>,
    UrlPath((tenant, device)): UrlPath<(Uuid, Uuid)>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    let found = api.db.tenant(tenant, move |tx| {
        Box::pin(async move {
            store_devices::get(tx, DeviceId(device)).await?;
            store_commands::of_device(tx, DeviceId(device)).await
        })
    });
    listed(&api, found.await?)
}

fn listed(api: &Api, found: Vec<Command>) -> Answer {
    ok(json!({ "commands": found.into_iter().map(|command| commands::view(api, command)).collect::<Vec<_>>() }))
}

async fn show_command(State(api): State<Arc<Api>>, UrlPath((tenant, command)): UrlPath<(Uuid, Uuid)>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    let found = api.db.tenant(tenant, move |tx| Box::pin(store_commands::get(tx, CommandId(command)))).await?;
    ok(json!(commands::view(&api, found)))
}

async fn show_logs(State(api): State<Arc<Api>>, UrlPath((tenant, command)): UrlPath<(Uuid, Uuid)>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    let lines = api.db.tenant(tenant, move |tx| Box::pin(store_commands::log(tx, CommandId(command)))).await?;
    ok(json!({ "lines": String::from_utf8_lossy(&lines) }))
}

/// The command line's user, as whoever gives orders in a tenant.
async fn operator(api: &Api, tenant: Uuid) -> Result<Giver, ApiError> {
    Ok(Giver { tenant: existing(api, tenant).await?, actor: OPERATOR.to_owned() })
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

async fn show_keys(State(api): State<Arc<Api>>) -> Answer {
    ok(token_keys::show(&api).await?)
}

async fn rotate_token_key(State(api): State<Arc<Api>>, Json(rotation): Json<token_keys::Rotation>) -> Answer {
    ok(token_keys::rotate(&api, &rotation, OPERATOR).await?)
}

async fn doctor(State(api): State<Arc<Api>>) -> Answer {
    ok(json!({ "components": api.components().await }))
}

/// The tenant, if there is one: an unknown id must not look like a tenant without devices.
async fn existing(api: &Api, tenant: Uuid) -> Result<TenantId, ApiError> {
    let tenant = TenantId(tenant);
    if deletion::has_begun(api, tenant).await? {
        return Err(ApiError::because(
            Code::Conflict,
            "this tenant is being deleted, or was: `cloud-hub tenants show` says how far it is",
        ));
    }
    api.db.tenant(tenant, |tx| Box::pin(store_tenants::get(tx))).await?;
    Ok(tenant)
}
