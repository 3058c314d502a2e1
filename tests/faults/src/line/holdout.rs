//! A device that is told to go and does not want to. It keeps its session, publishes without pause, asks the hub over HTTPS
//! on a connection that it made before and on new ones, and connects again and again, resuming every TLS session that it was
//! ever given.
//!
//! In: a claimed device. Out: for each of its [`Means`], how often it worked, when last, and how often it was refused since.
//! Deliberately absent: a judgement, which is the row's.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use edge_store::{Identity, StreamId};
use fleet_sim::device::{Device, SPACE_ID};
use fleet_sim::trusting::{Captured, capture, mutual_tls};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::task::JoinHandle;
use wire_contract::{DeviceId, DownChannel, TenantId, Topic};

use crate::lab::now;

/// Between two publishes.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// Between two attempts to connect, or to call the hub: often enough to fall into every gap that lasts.
const TRY_EVERY: Duration = Duration::from_millis(150);
/// How long the broker is asked to keep the session, with what it queues, for a device that is away.
const KEPT_FOR_S: u32 = 3600;
/// TLS sessions that are kept for resumption, at broker and hub each.
const SESSIONS: usize = 64;

/// What a device can do with an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// The session that it has is served: something came back on it.
    Session,
    /// A new session is granted.
    Connecting,
    /// A publish is accepted by the broker.
    Publishing,
    /// Something is delivered to it.
    Hearing,
    /// The hub answers its device call.
    Calling,
}

/// How one of the means fares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// How often it worked.
    pub worked: u64,
    /// When it last did.
    pub last: Option<Instant>,
    /// How often it was refused since.
    pub refused_since: u64,
}

/// All means.
#[derive(Debug, Default)]
struct Marks([Mark; Means::ALL.len()]);

/// What a holdout's tasks share.
#[derive(Clone)]
struct Shared {
    identity: Arc<Identity>,
    marks: Arc<Mutex<Marks>>,
}

/// A device that holds on. Dropping it ends its connections.
pub struct Holdout {
    shared: Shared,
    stream: StreamId,
    at_broker: Arc<Tickets>,
    at_hub: Arc<Tickets>,
    tasks: Vec<JoinHandle<()>>,
}

impl Means {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Session, Self::Connecting, Self::Publishing, Self::Hearing, Self::Calling];
}

impl Holdout {
    /// Begins to hold on with the device of a folder; needs a runtime.
    pub fn start(dir: &Path) -> Result<Self> {
        let device = Device::open(dir, SPACE_ID, None)?;
        let stream = device.outbox.stats()?.stream;
        let shared = Shared { identity: Arc::new(device.identity.clone()), marks: Arc::default() };
        let (at_broker, at_hub) = (Arc::new(Tickets::new()), Arc::new(Tickets::new()));
        let tls = with_tickets(&shared.identity, &at_broker)?;
        let mut tasks = vec![tokio::spawn(hold_on(shared.clone(), tls, device, stream))];
        for kept in [true, false] {
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(with_tickets(&shared.identity, &at_hub)?)
                .no_proxy()
                .timeout(Duration::from_secs(5));
            let client = if kept { client } else { client.pool_max_idle_per_host(0) };
            tasks.push(tokio::spawn(call(shared.clone(), client.build().context("an HTTPS client")?)));
        }
        Ok(Self { shared, stream, at_broker, at_hub, tasks })
    }

    /// How one of its means fares.
    #[must_use]
    pub fn mark(&self, means: Means) -> Mark {
        self.shared.marks().0[means as usize]
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The stream that it writes.
    #[must_use]
    pub fn stream(&self) -> String {
        self.stream.to_string()
    }

    /// The topic on which it hears acknowledgements.
    #[must_use]
    pub fn down(&self) -> String {
        self.shared.down(DownChannel::Evtack)
    }

    /// TLS sessions that broker and hub gave it to resume.
    #[must_use]
    pub fn tickets(&self) -> (u64, u64) {
        (self.at_broker.given.load(Ordering::SeqCst), self.at_hub.given.load(Ordering::SeqCst))
    }

    /// Handshakes in which it showed one of them to the hub.
    #[must_use]
    pub fn shown_to_hub(&self) -> u64 {
        self.at_hub.shown.load(Ordering::SeqCst)
    }
}

impl Drop for Holdout {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().expect("no holder of this lock panics")
    }

    fn worked(&self, means: Means) {
        let mark = &mut self.marks().0[means as usize];
        *mark = Mark { worked: mark.worked + 1, last: Some(now()), refused_since: 0 };
    }

    fn refused(&self, means: Means) {
        self.marks().0[means as usize].refused_since += 1;
    }

    fn down(&self, channel: DownChannel) -> String {
        let (tenant, device) = (TenantId(self.identity.tenant), DeviceId(self.identity.device));
        Topic::Down { tenant, device, channel }.to_string()
    }
}

/// Connects whenever it is not connected. Each event is made once; a new session begins with the oldest again, as the
/// broker may have lost them.
async fn hold_on(shared: Shared, tls: rustls::ClientConfig, device: Device, stream: StreamId) {
    let (tls, made) = (Arc::new(tls), Arc::new(Mutex::new(Made { device, stream, captured: Vec::new() })));
    loop {
        let name = shared.identity.device.to_string();
        let mut options = MqttOptions::new(name, shared.identity.broker.host.clone(), shared.identity.broker.port);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(&tls))));
        let properties = ConnectProperties { session_expiry_interval: Some(KEPT_FOR_S), ..ConnectProperties::new() };
        options.set_clean_start(false).set_connect_properties(properties).set_keep_alive(Duration::from_secs(5));
        let (client, socket) = AsyncClient::new(options, 64);
        if !session(&shared, client, socket, &made).await {
            shared.refused(Means::Connecting);
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// The events of a device, in their order.
struct Made {
    device: Device,
    stream: StreamId,
    captured: Vec<Captured>,
}

impl Made {
    fn at(&mut self, index: usize) -> Result<Captured> {
        while self.captured.len() <= index {
            let sequence = self.captured.len() as u64 + 1;
            self.captured.push(capture(&self.device, self.stream, sequence, 1)?);
        }
        Ok(self.captured[index].clone())
    }
}

/// One session to its end; false when it was never granted.
async fn session(shared: &Shared, client: AsyncClient, mut socket: EventLoop, made: &Arc<Mutex<Made>>) -> bool {
    let mut speaking: Option<Speaking> = None;
    while let Ok(event) = socket.poll().await {
        let Event::Incoming(packet) = event else { continue };
        match packet {
            Packet::ConnAck(_) => {
                shared.worked(Means::Connecting);
                let down = DownChannel::ALL.iter().map(|channel| shared.down(*channel));
                for filter in down {
                    let _full = client.try_subscribe(filter, QoS::AtLeastOnce);
                }
                speaking = Some(Speaking(tokio::spawn(speak(client.clone(), Arc::clone(made)))));
            }
            Packet::PubAck(ack)
                if matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) =>
            {
                shared.worked(Means::Publishing);
            }
            Packet::PubAck(_) => shared.refused(Means::Publishing),
            Packet::Publish(_) => shared.worked(Means::Hearing),
            Packet::Disconnect(_) => break,
            _ => {}
        }
        if speaking.is_some() {
            shared.worked(Means::Session);
        }
    }
    speaking.is_some()
}

/// Ends with the session.
struct Speaking(JoinHandle<()>);

impl Drop for Speaking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn speak(client: AsyncClient, made: Arc<Mutex<Made>>) {
    for index in 0.. {
        let next = made.lock().expect("no holder of this lock panics").at(index);
        let Ok(Captured { topic, payload, .. }) = next else { return };
        if client.publish(topic, QoS::AtLeastOnce, false, payload).await.is_err() {
            return;
        }
        tokio::time::sleep(PUBLISH_EVERY).await;
    }
}

/// Calls the hub without end. A hub that does not answer refuses nothing.
async fn call(shared: Shared, client: reqwest::Client) {
    let url = format!("{}{}", shared.identity.hub_url.trim_end_matches('/'), wire_contract::paths::DEVICE_LINK);
    loop {
        if let Ok(answer) = client.get(&url).send().await {
            if answer.status().is_success() {
                shared.worked(Means::Calling);
            } else if answer.json::<Value>().await.is_ok_and(|problem| problem["code"] == "device_revoked") {
                shared.refused(Means::Calling);
            }
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

fn with_tickets(identity: &Identity, tickets: &Arc<Tickets>) -> Result<rustls::ClientConfig> {
    let mut tls = mutual_tls(identity)?;
    tls.resumption = Resumption::store(Arc::<Tickets>::clone(tickets));
    Ok(tls)
}

/// The TLS sessions that a server gave, counted.
#[derive(Debug)]
struct Tickets {
    store: ClientSessionMemoryCache,
    given: AtomicU64,
    shown: AtomicU64,
}

impl Tickets {
    fn new() -> Self {
        Self { store: ClientSessionMemoryCache::new(SESSIONS), given: AtomicU64::new(0), shown: AtomicU64::new(0) }
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.store.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.store.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.store.set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.store.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.store.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.given.fetch_add(1, Ordering::SeqCst);
        self.store.insert_tls13_ticket(server, ticket);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self.store.take_tls13_ticket(server);
        self.shown.fetch_add(u64::from(ticket.is_some()), Ordering::SeqCst);
        ticket
    }
}
