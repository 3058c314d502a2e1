//! Commands to devices: given once, moved on by what devices say, kept as a record.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::{CommandState, LogLevel, RebootTarget};

use super::database::COMMAND_CHANNEL;
use super::{StoreError, TenantTx};
use hub_domain::command::{Command, Kind, Progress, advances};
use hub_domain::ids::{CommandId, DeviceId, DoorId, PersonId, TemplateId};

/// How many commands of a device are listed.
pub const LISTED: i64 = 100;

#[derive(FromRow)]
struct Row {
    id: Uuid,
    device_id: Uuid,
    door_id: Option<Uuid>,
    kind: String,
    hold_ms: Option<i32>,
    args: Value,
    actor: String,
    issued_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    state: String,
    code: Option<String>,
    changed_at: OffsetDateTime,
}

const COLUMNS: &str =
    "id, device_id, door_id, kind, hold_ms, args, actor, issued_at, expires_at, state, code, changed_at";

/// What a kind needs beside door and hold, as it is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Args {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<RebootTarget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    level: Option<LogLevel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    for_s: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    person: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within_s: Option<u32>,
}

impl Args {
    fn of(kind: Kind) -> Self {
        let none = Self::default();
        match kind {
            Kind::Unlock { .. } | Kind::Refresh => none,
            Kind::Lockdown { on, .. } => Self { on: Some(on), ..none },
            Kind::Reboot { target } => Self { target: Some(target), ..none },
            Kind::LogLevel { level, for_s } => Self { level: Some(level), for_s, ..none },
            Kind::CollectLogs { max_bytes } => Self { max_bytes, ..none },
            Kind::Enrol { person, within_s, .. } => Self { person: Some(person.0), within_s: Some(within_s), ..none },
        }
    }

    fn kind(self, name: &str, door: Option<DoorId>, hold_ms: Option<u32>) -> Option<Kind> {
        Some(match name {
            "unlock" => Kind::Unlock { door: door?, hold_ms },
            "refresh" => Kind::Refresh,
            "lockdown" => Kind::Lockdown { door, on: self.on? },
            "reboot" => Kind::Reboot { target: self.target? },
            "log_level" => Kind::LogLevel { level: self.level?, for_s: self.for_s },
            "collect_logs" => Kind::CollectLogs { max_bytes: self.max_bytes },
            "enrol" => Kind::Enrol { door: door?, person: PersonId(self.person?), within_s: self.within_s? },
            _ => return None,
        })
    }
}

/// What a command needs beside door and hold, for whoever shows it.
#[must_use]
pub fn args_of(kind: Kind) -> Value {
    serde_json::to_value(Args::of(kind)).expect("arguments are a plain struct")
}

impl TryFrom<Row> for Command {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let unreadable = |what| StoreError::Unreadable { what, reason: "unknown name" };
        let args: Args = serde_json::from_value(row.args).map_err(|_| unreadable("command.args"))?;
        let hold_ms = row.hold_ms.and_then(|ms| u32::try_from(ms).ok());
        let kind = args.kind(&row.kind, row.door_id.map(DoorId), hold_ms).ok_or_else(|| unreadable("command.kind"))?;
        Ok(Self {
            id: CommandId(row.id),
            device: DeviceId(row.device_id),
            kind,
            actor: row.actor,
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            progress: progress(&row.state).ok_or_else(|| unreadable("command.state"))?,
            code: row.code,
            changed_at: row.changed_at,
        })
    }
}

fn progress(name: &str) -> Option<Progress> {
    use CommandState::{Accepted, Executing, Expired, Failed, Succeeded};
    if name == "issued" {
        return Some(Progress::Issued);
    }
    let states = [Accepted, Executing, Succeeded, Failed, Expired];
    states.into_iter().find(|state| state.as_str() == name).map(Progress::Said)
}

/// Writes a command and announces it at the commit.
pub async fn create(tx: &mut TenantTx, command: &Command) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let hold_ms = match command.kind {
        Kind::Unlock { hold_ms, .. } => hold_ms,
        _ => None,
    };
    sqlx::query(
        "INSERT INTO command
             (tenant_id, id, device_id, door_id, kind, hold_ms, actor, issued_at, expires_at, changed_at, args)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8, $10)",
    )
    .bind(tenant)
    .bind(command.id.0)
    .bind(command.device.0)
    .bind(command.kind.door().map(|door| door.0))
    .bind(command.kind.name())
    .bind(hold_ms.and_then(|ms| i32::try_from(ms).ok()))
    .bind(&command.actor)
    .bind(command.issued_at)
    .bind(command.expires_at)
    .bind(args_of(command.kind))
    .execute(tx.conn())
    .await?;
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(COMMAND_CHANNEL)
        .bind(format!("{tenant}/{}", command.id))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// One command.
pub async fn get(tx: &mut TenantTx, id: CommandId) -> Result<Command, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<Row> =
        sqlx::query_as(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM command WHERE tenant_id = $1 AND id = $2")))
            .bind(tenant)
            .bind(id.0)
            .fetch_optional(tx.conn())
            .await?;
    row.ok_or(StoreError::NotFound { what: "command", id: id.0 })?.try_into()
}

/// The last [`LISTED`] commands of a device, the newest first.
pub async fn of_device(tx: &mut TenantTx, device: DeviceId) -> Result<Vec<Command>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM command WHERE tenant_id = $1 AND device_id = $2 ORDER BY id DESC LIMIT {LISTED}"
    )))
    .bind(tenant)
    .bind(device.0)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Command::try_from).collect()
}

/// The last [`LISTED`] commands of a tenant, the newest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Command>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM command WHERE tenant_id = $1 ORDER BY id DESC LIMIT {LISTED}"
    )))
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Command::try_from).collect()
}

/// The command, locked until the transaction ends, and the template that an enrolment by it has made already.
pub async fn lock(tx: &mut TenantTx, id: CommandId) -> Result<(Command, Option<TemplateId>), StoreError> {
    let tenant = tx.tenant_uuid();
    let answer: Option<Option<Value>> =
        sqlx::query_scalar("SELECT answer FROM command WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE")
            .bind(tenant)
            .bind(id.0)
            .fetch_optional(tx.conn())
            .await?;
    let answer = answer.ok_or(StoreError::NotFound { what: "command", id: id.0 })?;
    let template = answer.and_then(|answer| answer["template"].as_str()?.parse().ok()).map(TemplateId);
    Ok((get(tx, id).await?, template))
}

/// Notes the template that an enrolment by this command made.
pub async fn answered(tx: &mut TenantTx, id: CommandId, template: TemplateId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE command SET answer = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(json!({ "template": template.0 }))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Keeps the log that a device sent for a command; false when it has sent one already.
pub async fn keep_log(
    tx: &mut TenantTx,
    command: &Command,
    lines: &[u8],
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "INSERT INTO device_log (tenant_id, command_id, device_id, lines, collected_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(command.id.0)
    .bind(command.device.0)
    .bind(lines)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The log that a device sent for a command.
pub async fn log(tx: &mut TenantTx, id: CommandId) -> Result<Vec<u8>, StoreError> {
    let tenant = tx.tenant_uuid();
    let lines: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT lines FROM device_log WHERE tenant_id = $1 AND command_id = $2")
            .bind(tenant)
            .bind(id.0)
            .fetch_optional(tx.conn())
            .await?;
    lines.ok_or(StoreError::NotFound { what: "log of this command", id: id.0 })
}

/// The commands that nothing was heard of and that may still be carried out at `now`: what a lost session owes.
pub async fn unheard(tx: &mut TenantTx, now: OffsetDateTime) -> Result<Vec<Command>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM command WHERE tenant_id = $1 AND state = 'issued' AND expires_at > $2 ORDER BY id"
    )))
    .bind(tenant)
    .bind(now)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Command::try_from).collect()
}

/// Notes a device's word on one of its own commands; whether it was news.
pub async fn advance(
    tx: &mut TenantTx,
    device: DeviceId,
    id: CommandId,
    said: CommandState,
    code: Option<&str>,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let state: Option<String> = sqlx::query_scalar(
        "SELECT state FROM command WHERE tenant_id = $1 AND id = $2 AND device_id = $3 FOR NO KEY UPDATE",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(device.0)
    .fetch_optional(tx.conn())
    .await?;
    let state = state.ok_or(StoreError::NotFound { what: "command", id: id.0 })?;
    let present = progress(&state).ok_or(StoreError::Unreadable { what: "command.state", reason: "unknown name" })?;
    if !advances(present, said) {
        return Ok(false);
    }
    sqlx::query("UPDATE command SET state = $3, code = $4, changed_at = $5 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(said.as_str())
        .bind(code)
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(true)
}
