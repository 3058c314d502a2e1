//! A broken device, on purpose: it counts an event as delivered when the broker has taken it (PUBACK).
//!
//! In: a claimed device. Out: publishes with a real certificate and real authentication, and no outbox behind them. It is
//! the control of the rows that say that nothing is lost, and the hand that sends captured publishes again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_store::{Identity, Position, StreamId};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use uuid::Uuid;
use wire_contract::{BatchBuilder, DeviceId, Sequence, TenantId, Topic, UpChannel, envelope};

use crate::device::Device;
use crate::happening;

/// How long the broker may take for one acknowledgement.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that the hub's broker allows: nothing keeps a line alive that waits while a thousand others connect.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// A connection that believes the broker.
pub struct Trusting {
    client: AsyncClient,
    socket: EventLoop,
}

/// A publish as it goes over the line, to be sent as often as one likes.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Its topic.
    pub topic: String,
    /// Its payload, authenticated.
    pub payload: Vec<u8>,
    /// The ids of the events in it.
    pub ids: Vec<Uuid>,
}

/// A batch of `count` fresh events, made as the device would make it.
pub fn capture(device: &Device, stream: StreamId, first: u64, count: u64) -> Result<Captured> {
    let identity = &device.identity;
    let mut builder = BatchBuilder::new(wire_contract::StreamId(*stream.as_bytes()));
    let ids: Vec<Uuid> = (0..count).map(|_| happening::fresh_id()).collect();
    for (sequence, id) in (first..).zip(&ids) {
        let event = happening::encode(identity, device.run_id(), *id, Position { stream, sequence });
        let pushed = builder.push(Sequence(sequence), &event);
        anyhow::ensure!(matches!(pushed, wire_contract::batch::Push::Taken), "a batch of {count} does not fit");
    }
    let (_, _, json) = builder.finish().context("an empty batch")?;
    let (tenant, id) = (TenantId(identity.tenant), DeviceId(identity.device));
    let topic = Topic::Up { tenant, device: id, channel: UpChannel::Evt }.to_string();
    let payload = envelope::wrap_up(device.link()?.up(), &topic, &json);
    Ok(Captured { topic, payload, ids })
}

/// The identity's TLS: its root alone is trusted, its certificate is shown.
pub fn mutual_tls(identity: &Identity) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for root in identity.root() {
        roots.add(root)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_client_auth_cert(identity.chain(), identity.key()?)?)
}

impl Trusting {
    /// Connects as the device; `client_id` is what it calls itself, which the broker need not believe.
    pub async fn connect(identity: &Identity, client_id: &str) -> Result<Self> {
        let mut options = MqttOptions::new(client_id, identity.broker.host.clone(), identity.broker.port);
        let tls = TlsConfiguration::Rustls(Arc::new(mutual_tls(identity)?));
        options.set_transport(Transport::tls_with_config(tls)).set_clean_start(true);
        Self::open(options).await
    }

    /// Connects to the hub's own listener as the hub: what somebody could do who holds the broker.
    pub async fn connect_as_hub(port: u16, password: &str) -> Result<Self> {
        let mut options = MqttOptions::new(format!("replay-{}", Uuid::new_v4()), "127.0.0.1", port);
        options.set_credentials("hub", password).set_clean_start(true);
        Self::open(options).await
    }

    async fn open(mut options: MqttOptions) -> Result<Self> {
        options.set_keep_alive(KEEP_ALIVE).set_outgoing_inflight_upper_limit(100);
        let (client, mut socket) = AsyncClient::new(options, 64);
        let greeted = async {
            loop {
                if let Event::Incoming(Packet::ConnAck(_)) = socket.poll().await? {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(PATIENCE, greeted).await.context("no greeting from the broker")??;
        Ok(Self { client, socket })
    }

    /// Publishes and waits for as many acknowledgements. Returns how many publishes the broker accepted; the others it
    /// refused for want of the right.
    pub async fn publish(&mut self, batch: &[Captured]) -> Result<usize> {
        let (mut accepted, mut answered) = (0, 0);
        let mut waiting = batch.iter();
        let mut next = waiting.next();
        while answered < batch.len() {
            while let Some(captured) = next {
                let Captured { topic, payload, .. } = captured;
                if self.client.try_publish(topic.clone(), QoS::AtLeastOnce, false, payload.clone()).is_err() {
                    break;
                }
                next = waiting.next();
            }
            let polled = tokio::time::timeout(PATIENCE, self.socket.poll()).await.context("the broker is silent")??;
            if let Event::Incoming(Packet::PubAck(ack)) = polled {
                answered += 1;
                match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => accepted += 1,
                    PubAckReason::NotAuthorized => {}
                    other => bail!("the broker answered {other:?}"),
                }
            }
        }
        Ok(accepted)
    }
}
