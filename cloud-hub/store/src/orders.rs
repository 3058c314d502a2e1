//! Giving an order: the command's row, its audit entry, and the announcement, in one transaction, whoever gives it.

use serde_json::json;
use time::OffsetDateTime;

use super::devices::DeviceState;
use super::{StoreError, TenantTx, audit, commands, devices, people, places};
use hub_domain::command::{Command, Kind, Progress};
use hub_domain::ids::{CommandId, DeviceId};

/// Something to be done.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// Asked twice with one id, there is one command.
    pub id: CommandId,
    /// What.
    pub kind: Kind,
    /// By whom, unless the door says it.
    pub device: Option<DeviceId>,
    /// Who wants it, as audit entries name them.
    pub actor: String,
    /// When its life begins.
    pub now: OffsetDateTime,
}

/// Why nothing was ordered.
#[derive(Debug, thiserror::Error)]
pub enum NotGiven {
    /// Another command has this id.
    #[error("another command has this id")]
    IdTaken,
    /// There is no such door or device.
    #[error("there is no such door or device")]
    Unknown,
    /// Nobody could do it.
    #[error("no device drives this door")]
    NoDevice,
    /// Who could do it is not connected, and would be too late.
    #[error("the device is not connected")]
    Offline,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the command with its audit entry. The publisher hears of it at the commit.
pub async fn give(tx: &mut TenantTx, order: NewOrder) -> Result<Command, NotGiven> {
    let NewOrder { id, kind, device, actor, now } = order;
    if let Some(given) = given_before(tx, id, kind, device).await? {
        return Ok(given);
    }
    let device = who_carries_out(tx, kind, device).await?;
    if let Kind::Enrol { person, .. } = kind {
        people::get(tx, person).await?;
    }
    let command = Command {
        id,
        device,
        kind,
        actor,
        issued_at: now,
        expires_at: now + kind.lifetime(),
        progress: Progress::Issued,
        code: None,
        changed_at: now,
    };
    commands::create(tx, &command).await?;
    let entry = audit::Entry {
        actor: &command.actor,
        action: audit::Action::CommandGive,
        object_kind: "command",
        object_id: Some(id.0),
        detail: json!({
            "kind": kind.name(), "device": device.to_string(), "door": kind.door().map(|door| door.0),
            "args": commands::args_of(kind),
        }),
    };
    audit::write(tx, entry).await?;
    Ok(command)
}

/// The command that has this id already, if it is the same one.
async fn given_before(
    tx: &mut TenantTx,
    id: CommandId,
    kind: Kind,
    device: Option<DeviceId>,
) -> Result<Option<Command>, NotGiven> {
    match commands::get(tx, id).await {
        Ok(given) if given.kind == kind && device.is_none_or(|device| device == given.device) => Ok(Some(given)),
        Ok(_) => Err(NotGiven::IdTaken),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The device that must do it: connected, or it could not do it in time.
async fn who_carries_out(tx: &mut TenantTx, kind: Kind, device: Option<DeviceId>) -> Result<DeviceId, NotGiven> {
    let device = match (kind.door(), device) {
        (Some(door), named) => {
            let door = places::doors(tx, None).await?.into_iter().find(|known| known.id == door);
            let driver = door.ok_or(NotGiven::Unknown)?.device_id.ok_or(NotGiven::NoDevice)?;
            if named.is_some_and(|named| named != driver) {
                return Err(NotGiven::Unknown);
            }
            driver
        }
        (None, Some(device)) => device,
        (None, None) => return Err(NotGiven::Unknown),
    };
    let found = devices::get(tx, device).await?;
    if found.state != DeviceState::Claimed || !found.online {
        return Err(NotGiven::Offline);
    }
    Ok(device)
}
