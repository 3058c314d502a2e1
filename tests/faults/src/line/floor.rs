//! What the broker alone can do: the same devices with the same TLS publish, and a subscriber that does nothing counts.
//!
//! In: claimed devices that nobody else runs now, the hub's broker. Out: how many messages were delivered, and how long they took
//! from the first publish to the last delivery. The topic is one that devices may write and that the hub does not read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use edge_store::Identity;
use fleet_sim::trusting::{Captured, Trusting};
use futures::{StreamExt as _, TryStreamExt as _};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Site;
use crate::lab::now;

/// After this long without one, no more messages come.
const PATIENCE: Duration = Duration::from_secs(10);
/// The hub's own limit for one packet, and then some.
const MAX_PACKET: u32 = 128 * 1024;
/// As many as the hub lets the broker send it at once.
const IN_FLIGHT: u16 = 100;

/// Published and not yet heard, of all devices together: in messages, and in bytes.
const UNDER_WAY: usize = 800;
const BYTES_UNDER_WAY: usize = 16 << 20;
/// Devices that connect at once. A handshake costs the broker milliseconds.
const CONNECTING: usize = 16;
/// Messages that a device publishes before it waits for the broker; as many as an agent has under way.
const FEW: usize = 4;

/// What every device publishes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Messages of each device.
    pub messages: usize,
    /// Bytes of each message.
    pub bytes: usize,
}

/// What the broker delivered.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// Messages that the subscriber got.
    pub heard: usize,
    /// Messages that the broker took from a device and did not deliver. With five hundred devices and more these are 795 of
    /// 50,000 or 100,000, nearly all that were under way at one moment (`docs/measurements/faults-line.md`); a rate is that of
    /// what was heard.
    pub missing: usize,
    /// From the first publish to the last delivery.
    pub took: Duration,
}

/// Lets every device publish, and counts at the subscriber.
pub fn broker_alone(site: &Site, folders: &[PathBuf], shape: Shape) -> Result<Delivered> {
    let (port, password) = site.broker_as_hub()?;
    let identities: Vec<Identity> = folders
        .iter()
        .map(|folder| Identity::load(folder)?.with_context(|| format!("{} is not claimed", folder.display())))
        .collect::<Result<_>>()?;
    site.block_on(async {
        let lines = identities.iter().map(|identity| async move {
            let topic = format!("lintel/v1/{}/{}/up/floor", identity.tenant, identity.device);
            let one = Captured { topic, payload: vec![0x20; shape.bytes], ids: Vec::new() };
            let line = Trusting::connect(identity, &identity.device.to_string()).await?;
            anyhow::Ok((line, vec![one; shape.messages]))
        });
        let lines: Vec<_> = futures::stream::iter(lines).buffer_unordered(CONNECTING).try_collect().await?;
        let mut subscriber = subscribe(port, &password).await?;
        let (begun, expected) = (now(), identities.len() * shape.messages);
        let mut publishing = JoinSet::new();
        // The broker drops what its queue for a subscriber has no room for: no more is under way than it may hold.
        let room = Arc::new(Semaphore::new(UNDER_WAY.min(BYTES_UNDER_WAY / shape.bytes.max(1)).max(FEW)));
        for (mut line, batch) in lines {
            let room = Arc::clone(&room);
            publishing.spawn(async move {
                let mut taken = 0;
                for few in batch.chunks(FEW) {
                    room.acquire_many(few.len().try_into()?).await?.forget();
                    taken += line.publish(few).await?;
                }
                anyhow::Ok((line, taken, batch.len()))
            });
        }
        // A publisher that fails would leave the subscriber waiting: its error is the answer then. Connections stay open
        // until the subscriber has everything.
        let (delivered, _open) =
            tokio::try_join!(count(&mut subscriber, expected, &room, begun), all_taken(&mut publishing))?;
        Ok(delivered)
    })
}

async fn all_taken(publishing: &mut JoinSet<Result<(Trusting, usize, usize)>>) -> Result<Vec<Trusting>> {
    let mut lines = Vec::new();
    while let Some(published) = publishing.join_next().await {
        let (line, taken, sent) = published??;
        ensure!(taken == sent, "the broker took {taken} of {sent} messages");
        lines.push(line);
    }
    Ok(lines)
}

async fn subscribe(port: u16, password: &str) -> Result<EventLoop> {
    let mut options = MqttOptions::new(format!("floor-{}", Uuid::new_v4()), "127.0.0.1", port);
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(MAX_PACKET);
    properties.receive_maximum = Some(IN_FLIGHT);
    options.set_credentials("hub", password).set_clean_start(true).set_connect_properties(properties);
    let (client, mut socket) = AsyncClient::new(options, 16);
    client.subscribe("lintel/v1/+/+/up/floor", QoS::AtLeastOnce).await?;
    let subscribed = async {
        while !matches!(socket.poll().await?, Event::Incoming(Packet::SubAck(_))) {}
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(10), subscribed).await.context("no answer from the broker")??;
    Ok(socket)
}

async fn count(socket: &mut EventLoop, expected: usize, room: &Semaphore, begun: Instant) -> Result<Delivered> {
    let (mut heard, mut took) = (0, Duration::ZERO);
    while heard < expected {
        let Ok(polled) = tokio::time::timeout(PATIENCE, next_publish(socket)).await else { break };
        polled?;
        heard += 1;
        took = begun.elapsed();
        room.add_permits(1);
    }
    Ok(Delivered { heard, missing: expected - heard, took })
}

async fn next_publish(socket: &mut EventLoop) -> Result<()> {
    while !matches!(socket.poll().await?, Event::Incoming(Packet::Publish(_))) {}
    Ok(())
}
