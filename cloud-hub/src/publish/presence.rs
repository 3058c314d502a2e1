//! Which devices are there, as they (or the broker, by their last will) say on `up/status`.

use serde_json::json;
use tokio::sync::mpsc;
use wire_contract::Status;
use wire_contract::envelope::EnvelopeError;
use wire_contract::status::Presence as Said;

use super::Publisher;
use crate::domain::message::Incoming;
use crate::keys::KeysError;
use crate::store::{StoreError, devices, routes};

#[derive(Debug, thiserror::Error)]
enum PresenceError {
    #[error("the device is not one of that tenant")]
    NotRegistered,
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("status is not valid")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Notes presence until the queue closes.
pub(super) async fn run(publisher: Publisher, mut inbox: mpsc::Receiver<Incoming>) {
    while let Some(message) = inbox.recv().await {
        let device = message.device;
        match note(&publisher, message).await {
            Ok(()) => {}
            // Retained messages of devices that were revoked or claimed anew stay at the broker; they mean nothing.
            Err(error @ (PresenceError::NotRegistered | PresenceError::Envelope(_))) => {
                tracing::debug!(%device, %error, "status ignored");
            }
            Err(error) => tracing::warn!(%device, %error, "status not noted"),
        }
    }
}

async fn note(publisher: &Publisher, message: Incoming) -> Result<(), PresenceError> {
    if routes::tenant_of_device(&publisher.db, message.device).await? != Some(message.tenant) {
        return Err(PresenceError::NotRegistered);
    }
    let (links, now) = (publisher.links.clone(), publisher.clock.now());
    publisher
        .db
        .tenant(message.tenant, move |tx| {
            Box::pin(async move {
                let accepted = links.accepted(tx, message.device).await?;
                let status: Status =
                    serde_json::from_slice(links.verify(&accepted, &message.topic(), &message.payload)?)?;
                let boot = status.boot.to_string();
                let presence = devices::Presence {
                    online: status.state == Said::Online,
                    boot_id: &boot,
                    connection_epoch: status.connection_epoch,
                    versions: json!({
                        "agent": status.agent_version, "pack": status.pack, "space_id": status.space_id,
                    }),
                };
                devices::present(tx, message.device, &presence, now).await?;
                Ok(())
            })
        })
        .await
}
