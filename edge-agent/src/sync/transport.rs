//! One MQTT connection at a time: the only file that knows the MQTT client.
//!
//! In: [`Will`] and payloads with a [`Parcel`] mark. Out: [`LineEvent`]s on a bounded channel. A [`Line`] lives for one
//! connection: when it is lost, it is dropped whole and the driver opens a new one, so that nothing that the client
//! library queued for a dead session can ever be sent on a new one; the outbox repeats what is still owed.
//!
//! What is set against the client library's pitfalls: MQTT 5, because a refused publish is acknowledged and only the
//! reason code says so; the reason is read from the PUBACK itself, by the order of packet ids; no more than twenty
//! packets on their way; packet sizes bound in both directions, since one that is too large would end every connection;
//! the session is kept (`clean_start = false`), but never counted upon; the loop that polls the socket does nothing else
//! and is never cancelled half-way; a line on which nothing moves for two keep-alives is torn down from outside.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use edge_store::Identity;
use parking_lot::Mutex;
use rumqttc::TlsConfiguration;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::mqttbytes::{Error as PacketError, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{Outgoing, Transport};
use rustls::AlertDescription;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wire_contract::{DeviceId, MAX_PAYLOAD_BYTES, TenantId, topic};

use super::Timing;
use super::tls::{self, Now, TlsError};
use crate::clock::SharedClock;

/// Topic, packet id and properties come on top of the payload; ours have less than 300 bytes of them.
const PACKET_OVERHEAD: usize = 1024;
/// What this device tells the broker that it takes: more than the hub's broker lets in (80 KiB). Were it less, messages that
/// nobody takes would fill the broker's window for this device, and it would hear nothing any more (Mosquitto 2.0.11).
const MAX_PACKET_BYTES: u32 = 96 * 1024;
/// Packets on their way, both directions. Far below the 65,535 at which the client's packet ids would collide.
const IN_FLIGHT: u16 = 20;
/// Requests that wait for the socket: never full, since the driver sends at most four batches, a status and a report.
const REQUESTS: usize = 32;
/// Events that wait for the driver. Full means that the disk is behind: reading from the socket stops, the broker waits.
const EVENTS: usize = 64;
/// How long the broker keeps what it could not deliver. An hour bridges a reboot; after a longer absence the state
/// report and the outbox begin anew anyway.
const SESSION_EXPIRY_SECONDS: u32 = 3600;
/// The client library refuses less.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long after one and a half of a silent client's keep-alive Mosquitto may need to notice: it looks every six seconds, and
/// counts whole seconds (2.0.11, `keepalive.c`).
const BROKER_NOTICES_AFTER: Duration = Duration::from_secs(7);

/// What a publish is, for the log and for the driver's accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parcel {
    /// A batch of events.
    Events,
    /// State of the galleries.
    Report,
    /// A word on a command, or the question for the hub's time.
    Command,
    /// How the device is set up.
    Twin,
    /// Online.
    Status,
    /// The last word before a stop.
    Farewell,
}

/// What the broker says when this connection dies.
#[derive(Debug, Clone)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

/// What happens on a line.
#[derive(Debug)]
pub(super) enum LineEvent {
    /// Connected and subscribed: publishing makes sense now.
    Ready {
        /// Whether the broker still had our session; nothing depends on it but the log.
        session_present: bool,
        /// The largest payload that the broker takes.
        max_payload: usize,
    },
    /// A message for this device.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload, sealed.
        payload: Vec<u8>,
    },
    /// The broker has a parcel. For events this says nothing about the hub.
    Taken(Parcel),
    /// The broker has a batch of events and nobody to give it to: the hub is away.
    Unheard,
    /// The broker refused a parcel, in its own words.
    Refused(Parcel, String),
    /// The connection is over; the line is of no use any more.
    Lost(LineError),
}

/// Why a connection ended or never began.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// Network, TLS or protocol.
    // The client library's messages contain those of their causes, so the chain ends here.
    #[error("connection to the broker: {0}")]
    Connection(Box<ConnectionError>),
    /// The broker ended the handshake over the certificate that this device showed.
    #[error(
        "the broker refuses this device's certificate ({alert}); check the clock, then claim the device again: edge-agent claim"
    )]
    CertificateRefused {
        /// The TLS alert, in the library's words.
        alert: String,
    },
    /// The broker does not let this device read its own topics.
    #[error("the broker refuses the subscription ({reason}); the hub has not written this device's access lines")]
    SubscriptionRefused {
        /// The broker's word.
        reason: String,
    },
    /// The broker does not let this device say that it is there.
    #[error("the broker refuses this device's status ({reason}); the hub has not written this device's access lines")]
    StatusRefused {
        /// The broker's word.
        reason: String,
    },
    /// Nothing moved for two keep-alives although something was owed.
    #[error("nothing moved for {0:?}; the connection is torn down")]
    Stalled(Duration),
    /// The configuration of TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A request was not taken, because the socket does not keep up.
    #[error("the connection does not keep up")]
    Congested,
}

impl From<ConnectionError> for LineError {
    /// Tells a refused certificate from the rest: with TLS 1.3 it arrives as an alert after the handshake, in whatever
    /// the client was about to read.
    fn from(error: ConnectionError) -> Self {
        match certificate_alert(&error) {
            Some(alert) => Self::CertificateRefused { alert: format!("{alert:?}") },
            None => Self::Connection(Box::new(error)),
        }
    }
}

fn certificate_alert(error: &ConnectionError) -> Option<AlertDescription> {
    let io = match error {
        ConnectionError::Io(io)
        | ConnectionError::Tls(rumqttc::TlsError::Io(io))
        | ConnectionError::MqttState(StateError::Io(io) | StateError::Deserialization(PacketError::Io(io))) => io,
        _ => return None,
    };
    match io.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate),
        ) => Some(*alert),
        _ => None,
    }
}

/// Opens lines. The real one is [`Mqtt`]; tests of the driver hold the other end themselves.
pub(super) trait Connect: Send {
    /// Begins to connect; what becomes of it comes as events.
    fn connect(&mut self, identity: &Identity, will: Will) -> Result<Line, LineError>;
}

/// One publish on its way to the line.
#[derive(Debug)]
pub(super) struct Shipment {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
    pub(super) parcel: Parcel,
}

/// The driver's end of one connection. Dropping it ends the connection without a farewell: the will speaks.
#[derive(Debug)]
pub(super) struct Line {
    shipments: mpsc::Sender<Shipment>,
    pub(super) events: mpsc::Receiver<LineEvent>,
    tasks: Vec<JoinHandle<()>>,
}

impl Line {
    /// A line whose other end is held by `tasks`.
    pub(super) fn new(
        shipments: mpsc::Sender<Shipment>,
        events: mpsc::Receiver<LineEvent>,
        tasks: Vec<JoinHandle<()>>,
    ) -> Self {
        Self { shipments, events, tasks }
    }

    /// Publishes with QoS 1. Fails only when the line is lost or congested; both mean a new line.
    pub(super) fn publish(&self, shipment: Shipment) -> Result<(), LineError> {
        self.shipments.try_send(shipment).map_err(|_| LineError::Congested)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Connects to the identity's broker.
pub(super) struct Mqtt {
    timing: Timing,
    clock: SharedClock,
}

impl Mqtt {
    pub(super) fn new(timing: Timing, clock: SharedClock) -> Self {
        Self { timing, clock }
    }

    fn options(&self, identity: &Identity, will: Will) -> Result<MqttOptions, TlsError> {
        let Identity { broker, device, .. } = identity;
        let mut options = MqttOptions::new(device.to_string(), broker.host.clone(), broker.port);
        let tls = tls::mutual(identity, Now::Of(SharedClock::clone(&self.clock)))?;
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = Some(SESSION_EXPIRY_SECONDS);
        properties.receive_maximum = Some(IN_FLIGHT);
        properties.max_packet_size = Some(MAX_PACKET_BYTES);
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))))
            .set_keep_alive(asked_of_the_broker(self.timing.keep_alive))
            .set_connection_timeout(self.timing.connect_timeout.as_secs().max(1))
            .set_clean_start(false)
            .set_outgoing_inflight_upper_limit(IN_FLIGHT)
            .set_connect_properties(properties)
            .set_last_will(LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, true, None));
        Ok(options)
    }
}

/// The keep-alive of the connection, by which a device that fell silent is gone after one and a half of `promised`, whatever the
/// broker's own slowness takes of that: 5 s of 10. Below 10 s the promise cannot be kept, and the shortest is asked for.
fn asked_of_the_broker(promised: Duration) -> Duration {
    let slowness = BROKER_NOTICES_AFTER * 2 / 3;
    Duration::from_secs(promised.saturating_sub(slowness).as_secs()).max(SHORTEST_KEEP_ALIVE)
}

impl Connect for Mqtt {
    fn connect(&mut self, identity: &Identity, will: Will) -> Result<Line, LineError> {
        let options = self.options(identity, will)?;
        let stall_after = self.timing.keep_alive * 2;
        let filter = topic::device_filter(TenantId(identity.tenant), DeviceId(identity.device));
        Ok(open(options, filter, stall_after))
    }
}

/// Starts the two tasks of a line: one that publishes, one that polls the socket.
fn open(options: MqttOptions, filter: String, stall_after: Duration) -> Line {
    let (client, socket) = AsyncClient::new(options, REQUESTS);
    let (shipments, waiting) = mpsc::channel(REQUESTS);
    let (events, received) = mpsc::channel(EVENTS);
    let accounts = Arc::new(Mutex::new(Accounts::default()));
    let pump = Pump { client: client.clone(), filter, accounts: Arc::clone(&accounts), events, stall_after };
    let tasks = vec![tokio::spawn(ship(client, waiting, accounts)), tokio::spawn(pump.run(socket))];
    Line::new(shipments, received, tasks)
}

/// Which parcel has which packet id. The client gives packet ids in the order of publishing and tells them in that
/// order, so a queue is enough to pair them.
#[derive(Debug, Default)]
struct Accounts {
    published: VecDeque<Parcel>,
    by_packet: HashMap<u16, Parcel>,
    /// Packets that the broker has not acknowledged, and since when that number has not become smaller.
    idle_since: Option<tokio::time::Instant>,
}

impl Accounts {
    fn owed(&self) -> usize {
        self.published.len() + self.by_packet.len()
    }
}

async fn ship(client: AsyncClient, mut waiting: mpsc::Receiver<Shipment>, accounts: Arc<Mutex<Accounts>>) {
    while let Some(shipment) = waiting.recv().await {
        let Shipment { topic, payload, retain, parcel } = shipment;
        {
            let mut accounts = accounts.lock();
            accounts.published.push_back(parcel);
            accounts.idle_since.get_or_insert_with(tokio::time::Instant::now);
        }
        // This is the only task that publishes, so the queue has the order of the requests.
        if client.publish(topic, QoS::AtLeastOnce, retain, payload).await.is_err() {
            return;
        }
        if parcel == Parcel::Farewell && client.disconnect().await.is_err() {
            return;
        }
    }
}

/// The task that polls the socket and does nothing else.
struct Pump {
    client: AsyncClient,
    filter: String,
    accounts: Arc<Mutex<Accounts>>,
    events: mpsc::Sender<LineEvent>,
    stall_after: Duration,
}

/// What the CONNACK said.
struct Greeting {
    session_present: bool,
    max_payload: usize,
}

impl Pump {
    async fn run(self, mut socket: EventLoop) {
        let lost = self.poll(&mut socket).await;
        // The driver may be gone already; then nobody needs to know.
        let _ = self.events.send(LineEvent::Lost(lost)).await;
    }

    async fn poll(&self, socket: &mut EventLoop) -> LineError {
        let mut greeting = None;
        loop {
            // What is owed has been owed for a while already: the client's own pings must not put the end of the wait off.
            let owed_for = self.accounts.lock().idle_since.map_or(Duration::ZERO, |since| since.elapsed());
            // The timeout cancels a poll, which is safe only because the socket is dropped then.
            let Ok(polled) = tokio::time::timeout(self.stall_after.saturating_sub(owed_for), socket.poll()).await
            else {
                return LineError::Stalled(self.stall_after);
            };
            let event = match polled {
                Ok(event) => event,
                Err(error) => return LineError::from(error),
            };
            if let Err(error) = self.handle(event, &mut greeting).await {
                return error;
            }
            let idle = self.accounts.lock().idle_since;
            if idle.is_some_and(|since| since.elapsed() >= self.stall_after) {
                return LineError::Stalled(self.stall_after);
            }
        }
    }

    async fn handle(&self, event: Event, greeting: &mut Option<Greeting>) -> Result<(), LineError> {
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => {
                let limit = connack.properties.and_then(|properties| properties.max_packet_size);
                let limit = limit.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
                let max_payload = limit.saturating_sub(PACKET_OVERHEAD).min(MAX_PAYLOAD_BYTES);
                *greeting = Some(Greeting { session_present: connack.session_present, max_payload });
                let subscribed = self.client.try_subscribe(self.filter.clone(), QoS::AtLeastOnce);
                return subscribed.map_err(|_| LineError::Congested);
            }
            Event::Incoming(Packet::SubAck(suback)) => {
                let refused = suback.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                if let Some(code) = refused {
                    return Err(LineError::SubscriptionRefused { reason: format!("{code:?}") });
                }
                if let Some(Greeting { session_present, max_payload }) = greeting.take() {
                    self.tell(LineEvent::Ready { session_present, max_payload }).await;
                }
            }
            Event::Incoming(Packet::Publish(publish)) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                self.tell(LineEvent::Message { topic, payload: publish.payload.to_vec() }).await;
            }
            Event::Incoming(Packet::PubAck(puback)) => self.settle(puback.pkid, puback.reason).await,
            Event::Outgoing(Outgoing::Publish(packet)) => {
                let mut accounts = self.accounts.lock();
                if let Some(parcel) = accounts.published.pop_front() {
                    accounts.by_packet.insert(packet, parcel);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn settle(&self, packet: u16, reason: PubAckReason) {
        let parcel = {
            let mut accounts = self.accounts.lock();
            let parcel = accounts.by_packet.remove(&packet);
            accounts.idle_since = (accounts.owed() > 0).then(tokio::time::Instant::now);
            parcel
        };
        let Some(parcel) = parcel else { return };
        self.tell(match (reason, parcel) {
            (PubAckReason::NoMatchingSubscribers, Parcel::Events) => LineEvent::Unheard,
            (PubAckReason::Success | PubAckReason::NoMatchingSubscribers, _) => LineEvent::Taken(parcel),
            _ => LineEvent::Refused(parcel, format!("{reason:?}")),
        })
        .await;
    }

    async fn tell(&self, event: LineEvent) {
        // A driver that is gone has dropped the line; the next poll ends with this task.
        let _ = self.events.send(event).await;
    }
}

#[cfg(test)]
mod tests;
