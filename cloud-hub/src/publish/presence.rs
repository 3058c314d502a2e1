//! Which devices are there, as they (or the broker, by their last will) say on `up/status`.
//!
//! A broker that ends with what it kept knows no last will any more. So whoever has not said that it is there some time after a new
//! session at the broker is gone: the broker tells a new session of every status that it keeps, and devices that had to connect
//! again say theirs.

use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use wire_contract::Status;
use wire_contract::envelope::EnvelopeError;
use wire_contract::status::Presence as Said;

use super::Publisher;
use crate::domain::message::Incoming;
use crate::keys::KeysError;
use crate::store::{StoreError, devices, routes};

/// How long devices may take to say that they are there, once the hub is connected: three of the agent's longest pauses between two
/// attempts.
pub const SAID_WITHIN: Duration = Duration::from_secs(30);
/// Pause before another attempt when the database was away.
const RETRY: Duration = Duration::from_secs(1);

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

/// Ends the presence of those who were there before a session at the broker ended and have not been heard of in the next.
pub(super) async fn end(publisher: Publisher, mut connected: watch::Receiver<bool>) {
    let mut unheard_since = publisher.clock.now();
    loop {
        if connected.wait_for(|connected| *connected).await.is_err() {
            // The sender lives in the publisher, which aborts this task; wait for that.
            std::future::pending::<()>().await;
        }
        let ended = async { drop(connected.wait_for(|connected| !*connected).await) };
        tokio::pin!(ended);
        tokio::select! {
            // Who is there is for the next session to find out.
            () = &mut ended => {}
            () = end_all(&publisher, unheard_since) => ended.await,
        }
        unheard_since = publisher.clock.now();
    }
}

async fn end_all(publisher: &Publisher, unheard_since: OffsetDateTime) {
    tokio::time::sleep(publisher.said_within).await;
    while let Err(error) = try_end_all(publisher, unheard_since).await {
        tracing::warn!(%error, "could not note which devices are gone; trying again");
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_end_all(publisher: &Publisher, unheard_since: OffsetDateTime) -> Result<(), StoreError> {
    for tenant in routes::tenants(&publisher.db).await? {
        let gone = publisher.db.tenant(tenant, move |tx| Box::pin(devices::end_presence(tx, unheard_since))).await?;
        if gone > 0 {
            tracing::warn!(%tenant, devices = gone, "devices did not come back to the broker; they are offline");
        }
    }
    Ok(())
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
