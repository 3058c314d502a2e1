//! Commands: a door opened or locked down from afar, a device told to do something now, and how far each got.
//!
//! In: an API key and what is to be done. Out: `202` with the command; its state follows at `GET /v1/commands/{id}`. An
//! unlock lives ten seconds: it is carried out in them or never. Asked twice with one `id`, there is one command.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::command::{MAX_ENROL_WITHIN_S, MAX_LOG_BYTES, MAX_LOG_LEVEL_S, MAX_ORDERED_HOLD_MS};
use wire_contract::{Code, LogLevel, RebootTarget, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::openapi::{kinds, wire, words};
use super::page::Page;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::command::{Command, Kind};
use hub_domain::ids::{CommandId, DeviceId, DoorId, PersonId, TenantId};
use hub_store::orders::{self, NewOrder, NotGiven};
use hub_store::{commands, devices};

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

/// A command to a device or a door. Which of the fields it takes depends on its kind.
#[derive(Debug, Deserialize)]
pub(super) struct NewCommand {
    #[serde(default)]
    id: Option<Uuid>,
    kind: String,
    #[serde(default)]
    hold_ms: Option<u32>,
    #[serde(default)]
    on: Option<bool>,
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    for_s: Option<u32>,
    #[serde(default)]
    max_bytes: Option<u32>,
    #[serde(default)]
    person_id: Option<Uuid>,
    #[serde(default)]
    within_s: Option<u32>,
}

impl Fields for NewCommand {
    const KNOWN: &'static [&'static str] =
        &["id", "kind", "hold_ms", "on", "target", "level", "for_s", "max_bytes", "person_id", "within_s"];
    const REQUIRED: &'static [&'static str] = &["kind"];
}

/// Kinds of commands that a device takes, and those that a door does.
pub(super) const OF_DEVICES: [&str; 5] = ["refresh", "lockdown", "reboot", "log_level", "collect_logs"];
pub(super) const OF_DOORS: [&str; 3] = ["unlock", "lockdown", "enrol"];
/// How long a device waits for a face when nobody says.
pub(super) const ENROL_WITHIN_S: u32 = 30;

impl NewCommand {
    /// What is ordered, of a door if one is given; every mistake at once.
    fn kind(&self, door: Option<DoorId>) -> Result<Kind, ApiError> {
        let mut checks = Checks::default();
        let kinds: &[&str] = if door.is_some() { &OF_DOORS } else { &OF_DEVICES };
        checks
            .that(kinds.contains(&self.kind.as_str()), "/kind", &format!("must be one of {}", kinds.join(", ")))
            .done()?;
        let taken: &[&str] = match self.kind.as_str() {
            "unlock" => &["hold_ms"],
            "lockdown" => &["on"],
            "reboot" => &["target"],
            "log_level" => &["level", "for_s"],
            "collect_logs" => &["max_bytes"],
            "enrol" => &["person_id", "within_s"],
            _ => &[],
        };
        let present = [
            ("hold_ms", self.hold_ms.is_some()),
            ("on", self.on.is_some()),
            ("target", self.target.is_some()),
            ("level", self.level.is_some()),
            ("for_s", self.for_s.is_some()),
            ("max_bytes", self.max_bytes.is_some()),
            ("person_id", self.person_id.is_some()),
            ("within_s", self.within_s.is_some()),
        ];
        for (field, _) in present.iter().filter(|(field, there)| *there && !taken.contains(field)) {
            checks.that(false, &format!("/{field}"), &format!("is no field of {}", self.kind));
        }
        let target = match self.target.as_deref() {
            None | Some("agent") => Some(RebootTarget::Agent),
            Some("machine") => Some(RebootTarget::Machine),
            Some(_) => None,
        };
        let level = self.level.as_deref().and_then(LogLevel::from_word);
        checks
            .that(target.is_some(), "/target", "must be agent or machine")
            .that(self.kind != "log_level" || level.is_some(), "/level", "must be error, warn, info, debug or trace")
            .that(self.kind != "lockdown" || self.on.is_some(), "/on", "must be true to begin, false to end")
            .that(self.kind != "enrol" || self.person_id.is_some(), "/person_id", "must name whom to enrol")
            .done()?;
        let kind = match (self.kind.as_str(), door) {
            ("unlock", Some(door)) => Kind::Unlock { door, hold_ms: self.hold_ms },
            ("enrol", Some(door)) => Kind::Enrol {
                door,
                person: PersonId(self.person_id.unwrap_or_default()),
                within_s: self.within_s.unwrap_or(ENROL_WITHIN_S),
            },
            ("lockdown", door) => Kind::Lockdown { door, on: self.on.unwrap_or(true) },
            ("reboot", _) => Kind::Reboot { target: target.unwrap_or(RebootTarget::Agent) },
            ("log_level", _) => Kind::LogLevel { level: level.unwrap_or(LogLevel::Info), for_s: self.for_s },
            ("collect_logs", _) => Kind::CollectLogs { max_bytes: self.max_bytes },
            _ => Kind::Refresh,
        };
        in_bounds(&kind)?;
        Ok(kind)
    }
}

/// The bounds are those of the wire: a device would refuse what lies outside.
fn in_bounds(kind: &Kind) -> Result<(), ApiError> {
    let (field, most) = match kind {
        Kind::Unlock { .. } => ("/hold_ms", MAX_ORDERED_HOLD_MS),
        Kind::LogLevel { .. } => ("/for_s", MAX_LOG_LEVEL_S),
        Kind::CollectLogs { .. } => ("/max_bytes", MAX_LOG_BYTES),
        _ => ("/within_s", MAX_ENROL_WITHIN_S),
    };
    Checks::default().that(kind.order(None).in_bounds(), field, &format!("must be from 1 to {most}")).done()
}

/// A command as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Command)]
pub(super) struct CommandView {
    id: Uuid,
    device_id: Uuid,
    #[schema(required)]
    door_id: Option<Uuid>,
    #[schema(value_type = words::CommandKind)]
    kind: &'static str,
    #[schema(required)]
    hold_ms: Option<u32>,
    /// The other fields of its kind.
    #[schema(value_type = Object)]
    args: Value,
    #[schema(value_type = words::CommandState)]
    state: &'static str,
    /// Why it failed.
    #[schema(value_type = Option<wire::Code>, required)]
    code: Option<String>,
    /// Who gave it.
    actor: String,
    #[schema(value_type = wire::Timestamp)]
    issued_at: Timestamp,
    #[schema(value_type = wire::Timestamp)]
    expires_at: Timestamp,
    #[schema(value_type = wire::Timestamp)]
    changed_at: Timestamp,
}

pub(super) fn view(api: &Api, command: Command) -> CommandView {
    let hold_ms = match command.kind {
        Kind::Unlock { hold_ms, .. } => hold_ms,
        _ => None,
    };
    CommandView {
        id: command.id.0,
        device_id: command.device.0,
        door_id: command.kind.door().map(|door| door.0),
        kind: command.kind.name(),
        hold_ms,
        args: commands::args_of(command.kind),
        state: command.state_told(api.clock.now()),
        code: command.code,
        actor: command.actor,
        issued_at: command.issued_at.into(),
        expires_at: command.expires_at.into(),
        changed_at: command.changed_at.into(),
    }
}

/// `POST /v1/doors/{id}/unlock`
#[utoipa::path(
    post, path = "/v1/doors/{id}/unlock", operation_id = "unlock_door", tag = "commands",
    summary = "Open a door",
    description = "Carried out within ten seconds or never. Asked twice with one `id`, there is one command.",
    params(("id" = Uuid, Path, description = "The door")),
    request_body = kinds::NewUnlock,
    responses(
        (status = 202, description = "Its state follows at `GET /v1/commands/{id}`", body = CommandView),
        (status = 409, description = "`conflict`: the id names another command, or the door has no device. `device_offline`: the device is not connected."),
    ),
)]
pub(super) async fn unlock(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(door): Path<Uuid>,
    Json(unlock): Json<Unlock>,
) -> Result<(StatusCode, axum::Json<CommandView>), ApiError> {
    let kind = Kind::Unlock { door: DoorId(door), hold_ms: unlock.hold_ms };
    in_bounds(&kind)?;
    accepted(&api, give(&api, caller.into(), unlock.id, None, kind).await?)
}

/// `POST /v1/devices/{id}/commands`
#[utoipa::path(
    post, path = "/v1/devices/{id}/commands", operation_id = "create_device_command", tag = "commands",
    summary = "Tell a device to do something",
    params(("id" = Uuid, Path, description = "The device")),
    request_body = kinds::NewDeviceCommand,
    responses(
        (status = 202, description = "Its state follows at `GET /v1/commands/{id}`", body = CommandView),
        (status = 409, description = "`conflict`: the id names another command, or the door has no device. `device_offline`: the device is not connected."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(device): Path<Uuid>,
    Json(new): Json<NewCommand>,
) -> Result<(StatusCode, axum::Json<CommandView>), ApiError> {
    accepted(&api, order(&api, caller.into(), Some(DeviceId(device)), None, &new).await?)
}

/// `POST /v1/doors/{id}/commands`
#[utoipa::path(
    post, path = "/v1/doors/{id}/commands", operation_id = "create_door_command", tag = "commands",
    summary = "Tell a door to do something",
    params(("id" = Uuid, Path, description = "The door")),
    request_body = kinds::NewDoorCommand,
    responses(
        (status = 202, description = "Its state follows at `GET /v1/commands/{id}`", body = CommandView),
        (status = 409, description = "`conflict`: the id names another command, or the door has no device. `device_offline`: the device is not connected."),
    ),
)]
pub(super) async fn create_at_door(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(door): Path<Uuid>,
    Json(new): Json<NewCommand>,
) -> Result<(StatusCode, axum::Json<CommandView>), ApiError> {
    accepted(&api, order(&api, caller.into(), None, Some(DoorId(door)), &new).await?)
}

/// Who gives a command, and for whom.
pub(super) struct Giver {
    pub(super) tenant: TenantId,
    pub(super) actor: String,
}

impl From<Caller> for Giver {
    fn from(caller: Caller) -> Self {
        Self { tenant: caller.tenant, actor: caller.actor() }
    }
}

/// Gives a command that was described in fields.
pub(super) async fn order(
    api: &Arc<Api>,
    giver: Giver,
    device: Option<DeviceId>,
    door: Option<DoorId>,
    new: &NewCommand,
) -> Result<Command, ApiError> {
    give(api, giver, new.id, device, new.kind(door)?).await
}

fn accepted(api: &Arc<Api>, command: Command) -> Result<(StatusCode, axum::Json<CommandView>), ApiError> {
    Ok((StatusCode::ACCEPTED, axum::Json(view(api, command))))
}

/// `GET /v1/commands/{id}/logs`: JSON lines, as the device sent them.
#[utoipa::path(
    get, path = "/v1/commands/{id}/logs", operation_id = "get_command_logs", tag = "commands",
    summary = "What `collect_logs` collected",
    description = "Lines of JSON, as the device sent them.",
    params(("id" = Uuid, Path, description = "The command")),
    responses(
        (status = 200, description = "The lines", body = String, content_type = "application/x-ndjson"),
    ),
)]
pub(super) async fn logs(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<impl IntoResponse, ApiError> {
    let lines = api.db.tenant(caller.tenant, move |tx| Box::pin(commands::log(tx, CommandId(id)))).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], lines))
}

/// `GET /v1/commands/{id}`
#[utoipa::path(
    get, path = "/v1/commands/{id}", operation_id = "get_command", tag = "commands",
    summary = "One command",
    description = "With how far it got.",
    params(("id" = Uuid, Path, description = "The command")),
    responses(
        (status = 200, description = "The command", body = CommandView),
    ),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<CommandView>, ApiError> {
    let command = api.db.tenant(caller.tenant, move |tx| Box::pin(commands::get(tx, CommandId(id)))).await?;
    Ok(axum::Json(view(&api, command)))
}

/// `GET /v1/devices/{id}/commands`: the last hundred, the newest first.
#[utoipa::path(
    get, path = "/v1/devices/{id}/commands", operation_id = "list_device_commands", tag = "commands",
    summary = "The last hundred commands to a device",
    description = "The newest first.",
    params(("id" = Uuid, Path, description = "The device")),
    responses(
        (status = 200, description = "They, in one page", body = Page<CommandView>),
    ),
)]
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
    Giver { tenant, actor }: Giver,
    id: Option<Uuid>,
    device: Option<DeviceId>,
    kind: Kind,
) -> Result<Command, ApiError> {
    let id = CommandId(id.unwrap_or_else(|| api.clock.new_id()));
    let order = NewOrder { id, kind, device, actor, now: api.clock.now() };
    Ok(api.db.tenant(tenant, move |tx| Box::pin(orders::give(tx, order))).await?)
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
