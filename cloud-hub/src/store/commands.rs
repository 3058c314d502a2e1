//! Commands to devices: given once, moved on by what devices say, kept as a record.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::CommandState;

use super::database::COMMAND_CHANNEL;
use super::{StoreError, TenantTx};
use crate::domain::command::{Command, Kind, Progress, advances};
use crate::domain::ids::{CommandId, DeviceId, DoorId};

/// How many commands of a device are listed.
pub const LISTED: i64 = 100;

#[derive(FromRow)]
struct Row {
    id: Uuid,
    device_id: Uuid,
    door_id: Option<Uuid>,
    kind: String,
    hold_ms: Option<i32>,
    actor: String,
    issued_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    state: String,
    code: Option<String>,
    changed_at: OffsetDateTime,
}

const COLUMNS: &str = "id, device_id, door_id, kind, hold_ms, actor, issued_at, expires_at, state, code, changed_at";

impl TryFrom<Row> for Command {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let unreadable = |what| StoreError::Unreadable { what, reason: "unknown name" };
        let kind = match (row.kind.as_str(), row.door_id) {
            ("unlock", Some(door)) => {
                Kind::Unlock { door: DoorId(door), hold_ms: row.hold_ms.and_then(|ms| u32::try_from(ms).ok()) }
            }
            ("refresh", None) => Kind::Refresh,
            _ => return Err(unreadable("command.kind")),
        };
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
    let (door, hold_ms) = match command.kind {
        Kind::Unlock { door, hold_ms } => (Some(door.0), hold_ms),
        Kind::Refresh => (None, None),
    };
    sqlx::query(
        "INSERT INTO command (tenant_id, id, device_id, door_id, kind, hold_ms, actor, issued_at, expires_at, changed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8)",
    )
    .bind(tenant)
    .bind(command.id.0)
    .bind(command.device.0)
    .bind(door)
    .bind(command.kind.name())
    .bind(hold_ms.and_then(|ms| i32::try_from(ms).ok()))
    .bind(&command.actor)
    .bind(command.issued_at)
    .bind(command.expires_at)
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
