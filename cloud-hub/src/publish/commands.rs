//! Commands on their way to devices, what devices say of them, and the hub's time for those who ask.
//!
//! In: announcements of committed commands, `up/cmd`. Out: `down/cmd`, rows of how far each command got, audit entries.
//! A command is sent once, and once more to all that were not heard of when a session at the broker begins anew; a device
//! executes an id once, and none after its life, so that sending twice does no harm.

use serde_json::json;
use tokio::sync::{mpsc, watch};
use wire_contract::command::TimeAnswer;
use wire_contract::envelope::EnvelopeError;
use wire_contract::{CommandDown, CommandProgress, CommandUp, DownChannel, V1, home};

use super::Publisher;
use super::outbox::Outbox;
use crate::domain::command::{Command, Kind};
use crate::domain::ids::{CommandId, DeviceId, TenantId};
use crate::domain::message::{Incoming, Outgoing, Wish};
use crate::keys::{DeviceLinks, KeysError};
use crate::store::orders::{self, NewOrder, NotGiven};
use crate::store::{StoreError, TenantTx, audit, commands, places, routes};

/// What the task is told.
#[derive(Debug)]
pub(super) enum Input {
    /// A message on `up/cmd`.
    Said(Incoming),
    /// A Home Assistant wants a door open.
    Wished(Wish),
    /// A command was given.
    Given(TenantId, CommandId),
    /// Announcements may have been missed.
    LookAtAll,
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("the device is not one of that tenant")]
    NotRegistered,
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("what the device says of a command is not valid")]
    Malformed(#[from] serde_json::Error),
    #[error("a Home Assistant said what it may not, or does not mean a door that it was told of")]
    NotAllowed,
    #[error("a Home Assistant wants a door open: {0}")]
    NotGiven(#[from] NotGiven),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Works until the queue closes.
pub(super) async fn run(
    publisher: Publisher,
    mut inbox: mpsc::Receiver<Input>,
    outbox: Outbox,
    mut works: watch::Receiver<bool>,
) {
    loop {
        let input = tokio::select! {
            biased;
            // Also seen when the session ended and came back in between. The sender outlives this task.
            Ok(()) = works.changed() => if *works.borrow_and_update() { Input::LookAtAll } else { continue },
            input = inbox.recv() => match input {
                Some(input) => input,
                None => return,
            },
        };
        let done = match input {
            Input::Said(message) => said(&publisher, &outbox, message).await,
            Input::Wished(wish) => wished(&publisher, wish).await,
            // Another hub sends them; this one looks at all that were not heard of when it begins to.
            Input::Given(..) | Input::LookAtAll if !*works.borrow() => Ok(()),
            Input::Given(tenant, id) => given(&publisher, &outbox, tenant, id).await,
            Input::LookAtAll => look_at_all(&publisher, &outbox).await,
        };
        match done {
            Ok(()) => {}
            Err(error @ (CommandError::Keys(_) | CommandError::Store(_))) => {
                tracing::error!(%error, "a command, or a word on one, was not dealt with");
            }
            Err(error) => tracing::warn!(%error, "a word on a command was refused"),
        }
    }
}

/// Orders what a Home Assistant wants, if it may: by the same way, with the same audit, as anybody else's order.
async fn wished(publisher: &Publisher, wish: Wish) -> Result<(), CommandError> {
    if !publisher.home.unlock.contains(&wish.tenant) || wish.word != home::UNLOCK.as_bytes() {
        return Err(CommandError::NotAllowed);
    }
    let order = NewOrder {
        id: CommandId(publisher.clock.new_id()),
        kind: Kind::Unlock { door: wish.door, hold_ms: None },
        device: Some(wish.device),
        actor: String::from("home_assistant"),
        now: publisher.clock.now(),
    };
    publisher.db.tenant(wish.tenant, move |tx| Box::pin(orders::give(tx, order))).await?;
    Ok(())
}

async fn given(publisher: &Publisher, outbox: &Outbox, tenant: TenantId, id: CommandId) -> Result<(), CommandError> {
    let links = publisher.links.clone();
    let message = publisher.db.tenant(tenant, move |tx| {
        Box::pin(async move {
            let command = commands::get(tx, id).await?;
            message(tx, &links, tenant, &command).await
        })
    });
    outbox.send(message.await?).await;
    Ok(())
}

async fn look_at_all(publisher: &Publisher, outbox: &Outbox) -> Result<(), CommandError> {
    for tenant in routes::tenants(&publisher.db).await? {
        let (links, now) = (publisher.links.clone(), publisher.clock.now());
        let messages = publisher.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let mut messages = Vec::new();
                for command in commands::unheard(tx, now).await? {
                    messages.push(message(tx, &links, tenant, &command).await?);
                }
                Ok::<_, CommandError>(messages)
            })
        });
        for message in messages.await? {
            outbox.send(message).await;
        }
    }
    Ok(())
}

/// The command as its device reads it.
async fn message(
    tx: &mut TenantTx,
    links: &DeviceLinks,
    tenant: TenantId,
    command: &Command,
) -> Result<Outgoing, CommandError> {
    let door = match command.kind.door() {
        None => None,
        Some(door) => {
            let door = places::doors(tx, Some(command.device)).await?.into_iter().find(|known| known.id == door);
            let door = door.and_then(|door| door.local_id);
            Some(door.ok_or(StoreError::NotFound { what: "door of command", id: command.id.0 })?)
        }
    };
    let order = command.kind.order(door);
    let word = CommandDown::Command(wire_contract::Command {
        v: V1,
        id: wire_contract::CommandId(command.id.0),
        order,
        issued_at: command.issued_at.into(),
        expires_at: command.expires_at.into(),
    });
    seal(tx, links, tenant, command.device, &word).await
}

async fn seal(
    tx: &mut TenantTx,
    links: &DeviceLinks,
    tenant: TenantId,
    device: DeviceId,
    word: &CommandDown,
) -> Result<Outgoing, CommandError> {
    let accepted = links.accepted(tx, device).await?;
    let json = serde_json::to_vec(word).expect("a command is a plain struct");
    Ok(links.seal(tenant, &accepted, DownChannel::Cmd, &json)?)
}

async fn said(publisher: &Publisher, outbox: &Outbox, message: Incoming) -> Result<(), CommandError> {
    if routes::tenant_of_device(&publisher.db, message.device).await? != Some(message.tenant) {
        return Err(CommandError::NotRegistered);
    }
    let (links, clock, tenant) = (publisher.links.clone(), publisher.clock.clone(), message.tenant);
    let answer = publisher.db.tenant(tenant, move |tx| {
        Box::pin(async move {
            let accepted = links.accepted(tx, message.device).await?;
            match serde_json::from_slice(links.verify(&accepted, &message.topic(), &message.payload)?)? {
                CommandUp::Time(request) => {
                    let answer = TimeAnswer { v: V1, nonce: request.nonce, at: clock.now().into() };
                    seal(tx, &links, tenant, message.device, &CommandDown::Time(answer)).await.map(Some)
                }
                CommandUp::Progress(progress) => {
                    note(tx, message.device, progress, clock.now()).await?;
                    Ok(None)
                }
                CommandUp::Unknown => Ok(None),
            }
        })
    });
    if let Some(answer) = answer.await? {
        outbox.send(answer).await;
    }
    Ok(())
}

/// Moves the command on, and says so in the audit when it was the last word.
async fn note(
    tx: &mut TenantTx,
    device: DeviceId,
    progress: CommandProgress,
    now: time::OffsetDateTime,
) -> Result<(), CommandError> {
    let (id, code) = (CommandId(progress.id.0), progress.code.map(|code| code.as_str()));
    let news = commands::advance(tx, device, id, progress.state, code, now).await?;
    tracing::info!(event = "command_progress", %device, command = %id, state = progress.state.as_str(), news);
    if news && progress.state.is_last() {
        let entry = audit::Entry {
            actor: &format!("device:{device}"),
            action: audit::Action::CommandSettled,
            object_kind: "command",
            object_id: Some(id.0),
            detail: json!({ "state": progress.state.as_str(), "code": code }),
        };
        audit::write(tx, entry).await?;
    }
    Ok(())
}
