//! Desired configurations on their way to devices, and what devices make of them.
//!
//! In: announcements of committed wishes, `up/twin`. Out: `down/twin`, retained, so that a device that comes later has it at
//! once; rows of what was reported. A wish is published when it is made, for every device when a session at the broker
//! begins anew (which may have lost what it retained), and again to a device whose report shows that it has not seen the last
//! one, or that it uses another link key than that which the retained message was sealed under.

use std::collections::HashMap;

use tokio::sync::{mpsc, watch};
use wire_contract::envelope::EnvelopeError;
use wire_contract::{DownChannel, TwinDown, TwinUp, TwinVersion, V1};

use super::Publisher;
use super::outbox::Outbox;
use crate::domain::ids::{DeviceId, TenantId};
use crate::domain::message::{Incoming, Outgoing};
use crate::keys::{DeviceLinks, KeysError};
use crate::store::{StoreError, TenantTx, routes, twins};

/// What the task is told.
#[derive(Debug)]
pub(super) enum Input {
    /// A message on `up/twin`.
    Said(Incoming),
    /// Something is wished for a device.
    Wished(TenantId, DeviceId),
    /// Announcements may have been missed, or the broker forgotten what it kept.
    LookAtAll,
}

#[derive(Debug, thiserror::Error)]
enum TwinError {
    #[error("the device is not one of that tenant")]
    NotRegistered,
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("what the device says of its configuration is not valid")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The link epoch that each device's retained message was sealed under, as far as this process sent it.
type Sealed = HashMap<DeviceId, u32>;

/// Works until the queue closes.
pub(super) async fn run(
    publisher: Publisher,
    mut inbox: mpsc::Receiver<Input>,
    outbox: Outbox,
    mut connected: watch::Receiver<bool>,
) {
    let mut sealed = Sealed::new();
    loop {
        let input = tokio::select! {
            biased;
            Ok(()) = connected.changed() => if *connected.borrow_and_update() { Input::LookAtAll } else { continue },
            input = inbox.recv() => match input {
                Some(input) => input,
                None => return,
            },
        };
        let done = match input {
            Input::Said(message) => said(&publisher, &outbox, message, &mut sealed).await,
            Input::Wished(tenant, device) => publish(&publisher, &outbox, tenant, device, &mut sealed).await,
            Input::LookAtAll => look_at_all(&publisher, &outbox, &mut sealed).await,
        };
        match done {
            Ok(()) => {}
            // Retained messages of devices that were revoked or claimed anew stay at the broker; they mean nothing.
            Err(error @ (TwinError::NotRegistered | TwinError::Envelope(_))) => {
                tracing::debug!(%error, "a word on a configuration was ignored");
            }
            Err(error) => tracing::warn!(%error, "a configuration, or a word on one, was not dealt with"),
        }
    }
}

async fn look_at_all(publisher: &Publisher, outbox: &Outbox, sealed: &mut Sealed) -> Result<(), TwinError> {
    for tenant in routes::tenants(&publisher.db).await? {
        for device in publisher.db.tenant(tenant, |tx| Box::pin(twins::devices(tx))).await? {
            if let Err(error) = publish(publisher, outbox, tenant, device, sealed).await {
                tracing::warn!(%device, %error, "a configuration was not published");
            }
        }
    }
    Ok(())
}

async fn publish(
    publisher: &Publisher,
    outbox: &Outbox,
    tenant: TenantId,
    device: DeviceId,
    sealed: &mut Sealed,
) -> Result<(), TwinError> {
    let links = publisher.links.clone();
    let message =
        publisher.db.tenant(tenant, move |tx| Box::pin(async move { message(tx, &links, tenant, device).await }));
    if let Some((message, epoch)) = message.await? {
        sealed.insert(device, epoch);
        outbox.send(message).await;
    }
    Ok(())
}

/// The wish as its device reads it, and the link epoch that it is sealed under; none when nothing is wished, or the device
/// has no link yet.
async fn message(
    tx: &mut TenantTx,
    links: &DeviceLinks,
    tenant: TenantId,
    device: DeviceId,
) -> Result<Option<(Outgoing, u32)>, TwinError> {
    let Some(desired) = twins::desired(tx, device).await? else { return Ok(None) };
    let accepted = links.accepted(tx, device).await?;
    let Some(epoch) = links.epoch_in_use(&accepted) else { return Ok(None) };
    let version = TwinVersion { epoch: links.custody().keyring().hub_epoch(), version: desired.version };
    let word = TwinDown {
        v: V1,
        desired: version,
        hash: desired.settings.hash(),
        settings: serde_json::to_value(&desired.settings)?,
    };
    let message = links.seal(tenant, &accepted, DownChannel::Twin, &serde_json::to_vec(&word)?)?;
    Ok(Some((message, epoch)))
}

async fn said(publisher: &Publisher, outbox: &Outbox, message: Incoming, sealed: &mut Sealed) -> Result<(), TwinError> {
    let (tenant, device) = (message.tenant, message.device);
    if routes::tenant_of_device(&publisher.db, device).await? != Some(tenant) {
        return Err(TwinError::NotRegistered);
    }
    let (links, now) = (publisher.links.clone(), publisher.clock.now());
    let noted = publisher.db.tenant(tenant, move |tx| {
        Box::pin(async move {
            let accepted = links.accepted(tx, device).await?;
            let said: TwinUp = serde_json::from_slice(links.verify(&accepted, &message.topic(), &message.payload)?)?;
            twins::report(tx, device, &said, now).await?;
            let desired = twins::desired(tx, device).await?;
            let hub_epoch = links.custody().keyring().hub_epoch();
            let wanted = desired.map(|desired| TwinVersion { epoch: hub_epoch, version: desired.version });
            let owed = wanted.is_some_and(|wanted| said.seen.is_none_or(|seen| seen < wanted));
            tracing::info!(event = "twin_reported", %device, state = said.state.as_str(), owed);
            Ok::<_, TwinError>((owed, wanted.is_some(), links.epoch_in_use(&accepted)))
        })
    });
    let (owed, wished, epoch) = noted.await?;
    // The message that the broker keeps must be one that the device can open for as long as it lies there.
    let other_key = wished && epoch.is_some() && sealed.get(&device).copied() != epoch;
    if owed || other_key {
        publish(publisher, outbox, tenant, device, sealed).await?;
    }
    Ok(())
}
