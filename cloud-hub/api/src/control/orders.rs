//! What devices are told: how they should be set up, and commands.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, OPERATOR, existing, ok};
use crate::body::{Fields, Json};
use crate::commands::{Giver, NewCommand};
use crate::problem::ApiError;
use crate::state::Api;
use crate::{commands, twins};
use hub_domain::command::Command;
use hub_domain::ids::{CommandId, DeviceId, DoorId};
use hub_store::{commands as store_commands, devices as store_devices};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/tenants/{tenant}/devices/{device}/twin", get(show_twin).put(set_twin))
        .route("/tenants/{tenant}/devices/{device}/commands", post(order_device).get(list_commands_of_device))
        .route("/tenants/{tenant}/doors/{door}/commands", post(order_door))
        .route("/tenants/{tenant}/commands", get(list_commands))
        .route("/tenants/{tenant}/commands/{command}", get(show_command))
        .route("/tenants/{tenant}/commands/{command}/logs", get(show_logs))
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
