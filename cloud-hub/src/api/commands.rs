//! Commands: a door opened from afar, a device asked to look again, and how far each got.
//!
//! In: an API key and what is to be done. Out: `202` with the command; its state follows at `GET /v1/commands/{id}`. An
//! unlock lives ten seconds: it is carried out in them or never. Asked twice with one `id`, there is one command.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire_contract::command::MAX_ORDERED_HOLD_MS;
use wire_contract::{Code, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::page::Page;
use super::problem::ApiError;
use super::state::Api;
use crate::domain::command::{Command, Kind};
use crate::domain::ids::{CommandId, DeviceId, DoorId};
use crate::store::orders::{self, NewOrder, NotGiven};
use crate::store::{commands, devices};

#[derive(Debug, Deserialize)]
pub(super) struct Unlock {
    #[serde(default)]
    id: Option<Uuid>,
    #[serde(default)]
    hold_ms: Option<u32>,
}

impl Fields for Unlock {
    const KNOWN: &'static [&'static str] = &["id", "hold_ms"];
    const REQUIRED: &'static [&'static str] = &[];
}

#[derive(Debug, Deserialize)]
pub(super) struct NewCommand {
    #[serde(default)]
    id: Option<Uuid>,
    kind: String,
}

impl Fields for NewCommand {
    const KNOWN: &'static [&'static str] = &["id", "kind"];
    const REQUIRED: &'static [&'static str] = &["kind"];
}

/// A command as its owner sees it.
#[derive(Debug, Serialize)]
pub(super) struct CommandView {
    id: Uuid,
    device_id: Uuid,
    door_id: Option<Uuid>,
    kind: &'static str,
    hold_ms: Option<u32>,
    state: &'static str,
    code: Option<String>,
    actor: String,
    issued_at: Timestamp,
    expires_at: Timestamp,
    changed_at: Timestamp,
}

fn view(api: &Api, command: Command) -> CommandView {
    let (door_id, hold_ms) = match command.kind {
        Kind::Unlock { door, hold_ms } => (Some(door.0), hold_ms),
        Kind::Refresh => (None, None),
    };
    CommandView {
        id: command.id.0,
        device_id: command.device.0,
        door_id,
        kind: command.kind.name(),
        hold_ms,
        state: command.state_told(api.clock.now()),
        code: command.code,
        actor: command.actor,
        issued_at: command.issued_at.into(),
        expires_at: command.expires_at.into(),
        changed_at: command.changed_at.into(),
    }
}

/// `POST /v1/doors/{id}/unlock`
pub(super) async fn unlock(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(door): Path<Uuid>,
    Json(unlock): Json<Unlock>,
) -> Result<(StatusCode, axum::Json<CommandView>), ApiError> {
    let held = unlock.hold_ms.is_none_or(|hold| (1..=MAX_ORDERED_HOLD_MS).contains(&hold));
    let mut checks = Checks::default();
    checks.that(held, "/hold_ms", &format!("must be from 1 to {MAX_ORDERED_HOLD_MS}")).done()?;
    let kind = Kind::Unlock { door: DoorId(door), hold_ms: unlock.hold_ms };
    give(&api, &caller, unlock.id, None, kind).await
}

/// `POST /v1/devices/{id}/commands`
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(device): Path<Uuid>,
    Json(new): Json<NewCommand>,
) -> Result<(StatusCode, axum::Json<CommandView>), ApiError> {
    let mut checks = Checks::default();
    checks
        .that(new.kind == "refresh", "/kind", "must be refresh; a door is unlocked at /v1/doors/{id}/unlock")
        .done()?;
    give(&api, &caller, new.id, Some(DeviceId(device)), Kind::Refresh).await
}

/// `GET /v1/commands/{id}`
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<CommandView>, ApiError> {
    let command = api.db.tenant(caller.tenant, move |tx| Box::pin(commands::get(tx, CommandId(id)))).await?;
    Ok(axum::Json(view(&api, command)))
}

/// `GET /v1/devices/{id}/commands`: the last hundred, the newest first.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(device): Path<Uuid>,
) -> Result<axum::Json<Page<CommandView>>, ApiError> {
    let found = api.db.tenant(caller.tenant, move |tx| {
        Box::pin(async move {
            devices::get(tx, DeviceId(device)).await?;
            commands::of_device(tx, DeviceId(device)).await
        })
    });
    Ok(axum::Json(Page::whole(found.await?.into_iter().map(|command| view(&api, command)).collect())))
}

/// Writes the command with its audit entry. The publisher hears of it at the commit.
async fn give(
    api: &Arc<Api>,
    caller: &Caller,
    id: Option<Uuid>,
    device: Option<DeviceId>,
    kind: Kind,
) -> Result<(StatusCode, axum::Json<CommandView>), ApiError> {
    let id = CommandId(id.unwrap_or_else(|| api.clock.new_id()));
    let order = NewOrder { id, kind, device, actor: caller.actor(), now: api.clock.now() };
    let command = api.db.tenant(caller.tenant, move |tx| Box::pin(orders::give(tx, order))).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(view(api, command))))
}

impl From<NotGiven> for ApiError {
    fn from(why: NotGiven) -> Self {
        match why {
            NotGiven::IdTaken | NotGiven::NoDevice => Self::because(Code::Conflict, why.to_string()),
            NotGiven::Unknown => Self::of(Code::NotFound),
            NotGiven::Offline => Self::of(Code::DeviceOffline),
            NotGiven::Store(error) => error.into(),
        }
    }
}
