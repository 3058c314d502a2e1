//! At each connection: an evtack for every stream that the hub knows, so that devices send at once what they still owe.

use std::time::Duration;

use tokio::sync::watch;
use wire_contract::{DownChannel, EvtAck, Sequence, V1, Verdict};

use super::Publisher;
use super::outbox::Outbox;
use crate::domain::ids::TenantId;
use crate::domain::message::Outgoing;
use crate::keys::KeysError;
use crate::store::{routes, streams};

/// Pause before another attempt when the database was away.
const RETRY: Duration = Duration::from_secs(1);

/// Announces at each new connection.
pub(super) async fn run(publisher: Publisher, outbox: Outbox, mut connected: watch::Receiver<bool>) {
    loop {
        if connected.wait_for(|connected| *connected).await.is_err() {
            // The sender lives in the publisher, which aborts this task; wait for that.
            std::future::pending::<()>().await;
        }
        while let Err(error) = announce(&publisher, &outbox).await {
            tracing::warn!(%error, "could not announce what is committed; trying again");
            tokio::time::sleep(RETRY).await;
        }
        // Not "until it is false": a session may have ended and come back while the old one was still announced to.
        if connected.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn announce(publisher: &Publisher, outbox: &Outbox) -> Result<(), KeysError> {
    for tenant in routes::tenants(&publisher.db).await? {
        for ack in acks(publisher, tenant).await? {
            outbox.send(ack).await;
        }
    }
    Ok(())
}

async fn acks(publisher: &Publisher, tenant: TenantId) -> Result<Vec<Outgoing>, KeysError> {
    let links = publisher.links.clone();
    publisher
        .db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                let hub_epoch = links.custody().keyring().hub_epoch();
                let mut acks = Vec::new();
                for stream in streams::all(tx).await? {
                    // The column's check makes it 32 hex digits; another text names no device's stream.
                    let Ok(id) = stream.stream.parse() else { continue };
                    let accepted = links.accepted(tx, stream.device).await?;
                    let verdict = if stream.conflicted { Verdict::Conflict } else { Verdict::Ok };
                    let ack = EvtAck { v: V1, hub_epoch, stream: id, through: Sequence(stream.committed), verdict };
                    let json = serde_json::to_vec(&ack).expect("an acknowledgement is a plain struct");
                    acks.push(links.seal(tenant, &accepted, DownChannel::Evtack, &json)?);
                }
                Ok(acks)
            })
        })
        .await
}
