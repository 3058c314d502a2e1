//! The hub's MQTT 5 connections, built anew whenever anything about one of them is in doubt: this one for everything but batches,
//! which come on their own ([`super::batches`]). Both end together, so that what is announced at a new connection (how far each
//! stream is committed) finds the other one listening.
//!
//! What rumqttc 0.25 leaves to its users, and what is done about it here:
//! a lost session can leave its in-flight window full for ever (rumqtt #1014, #1056): client and event loop are thrown
//! away after every error, and nothing depends on what was in flight; a refused publish is only a warning there
//! (`v5/state.rs`, before it releases a packet id collision): the reason is read from the PUBACK, and at most
//! [`WINDOW`] publishes are under way, so that no packet id can collide; `publish` returning `Ok` means "queued": a
//! receipt is given at the PUBACK only; packets above 10 KiB end the connection by default: the size is set.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ring::hmac;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Filter, Packet, PubAckReason, SubAck, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{Outgoing as Sent, TlsConfiguration, Transport};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use wire_contract::{UpChannel, topic};

use super::outbox::{Parcel, Receipt};
use super::{Inboxes, Publisher, batches, commands, twins};
use crate::domain::message::{Incoming, Wish};
use crate::metrics::broker::{self as measured, Acknowledged};

/// Publishes under way at once. Below the broker's receive maximum (20 at the embedded one).
const WINDOW: usize = 16;
/// Short, so that a dead broker is noticed within two of them.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A publish that is not acknowledged in this time means that the session is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(20);
/// A connection that is not made in this time is tried again.
const CONNECT_TIMEOUT_S: u64 = 5;
/// More than the broker takes (80 KiB), which is more than the largest payload with topic and properties. Were it less, any
/// device could silence the hub: Mosquitto 2.0.11 keeps a message that its receiver does not take, and counts it as under
/// way, until the window is full of such.
const MAX_PACKET_BYTES: u32 = 96 * 1024;
/// A hub that does not lead by then connects as one that follows.
const LEADERSHIP_WITHIN: Duration = Duration::from_secs(1);
/// First and longest pause between attempts; it doubles in between. Short, because doors wait for their acks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// The channels that every hub reads at present on this connection.
const CHANNELS: [UpChannel; 3] = [UpChannel::Status, UpChannel::Cmd, UpChannel::Twin];
/// The channel that the leader reads: who sends records must know what has come of the ones before.
const LEADERS: UpChannel = UpChannel::Gallery;

/// Where the broker is and how the hub logs in.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// TCP port of the listener that is the hub's own.
    pub port: u16,
    /// The hub's client id; unique among replicas.
    pub client_id: String,
    /// User name and password, where the listener asks for them.
    pub credentials: Option<(String, String)>,
    /// Mutual TLS, where the listener is not on loopback.
    pub tls: Option<BrokerTls>,
}

/// A TLS configuration with the hub's client certificate.
#[derive(Clone)]
pub struct BrokerTls(pub Arc<rustls::ClientConfig>);

impl std::fmt::Debug for BrokerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BrokerTls(***)")
    }
}

impl Broker {
    /// The share group of this hub's replicas: the same for all who have the password of the hub's listener, and nothing that
    /// a device could guess, for whoever joins the group takes messages away from it. Without a password, as with a broker
    /// that knows the hub by its certificate, the name is known and the broker's own access list must refuse the group.
    fn share(&self) -> String {
        let Some((_, password)) = &self.credentials else { return String::from("hub") };
        let key = hmac::Key::new(hmac::HMAC_SHA256, password.as_bytes());
        let tag = hmac::sign(&key, b"lintel.share.v1");
        format!("hub-{}", hex::encode(&tag.as_ref()[..16]))
    }

    /// A client of its own for this broker.
    pub(super) fn client(&self, client_id: &str, keep_alive: Duration) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(client_id, &self.host, self.port);
        options.set_keep_alive(keep_alive);
        // A new session each time: what the old one held is sent again by those who know.
        options.set_clean_start(true);
        let mut properties = ConnectProperties::new();
        properties.max_packet_size = Some(MAX_PACKET_BYTES);
        options.set_connect_properties(properties);
        options.set_connection_timeout(CONNECT_TIMEOUT_S);
        if let Some((user, password)) = &self.credentials {
            options.set_credentials(user, password);
        }
        if let Some(BrokerTls(tls)) = &self.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
        }
        AsyncClient::new(options, 2 * WINDOW)
    }
}

/// Counts the connections that are subscribed; with the second the hub is connected.
pub(super) struct Subscribed<'a> {
    connections: AtomicU8,
    connected: &'a watch::Sender<bool>,
}

impl Subscribed<'_> {
    pub(super) fn one_more(&self) {
        if self.connections.fetch_add(1, Ordering::AcqRel) + 1 == 2 {
            self.connected.send_replace(true);
            tracing::info!("connected to the broker");
        }
    }
}

/// The filter under which the hub reads a channel.
pub(super) fn filter_of(broker: &Broker, wanted: UpChannel) -> String {
    let filters = topic::hub_filters(&broker.share()).into_iter().zip(UpChannel::ALL);
    let mut found = filters.filter(|(_, channel)| **channel == wanted).map(|(filter, _)| filter);
    found.next().expect("each channel has a filter")
}

/// Why the session must end, if the broker refused one of these.
pub(super) fn refused(filters: &[String], ack: &SubAck) -> Option<SessionEnd> {
    let (filter, reason) = filters.iter().zip(&ack.return_codes).find(|(_, code)| !subscribed(code))?;
    Some(SessionEnd::NotSubscribed { filter: filter.clone(), reason: *reason })
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    #[error("connection to the broker: {0}")]
    Connection(#[from] Box<ConnectionError>),
    #[error("the broker refused the subscription to {filter}: {reason:?}; check the hub's access lines")]
    NotSubscribed { filter: String, reason: SubscribeReasonCode },
    #[error("the broker does not acknowledge; its session is given up")]
    Stuck,
    #[error("the broker ended the session: {0}")]
    Disconnected(String),
}

/// What a session tells of itself, and what it is told.
pub(super) struct Line {
    /// Whether the hub is connected and subscribed.
    pub(super) connected: watch::Sender<bool>,
    /// Whether this hub leads.
    pub(super) leads: watch::Receiver<bool>,
    /// Whether the session has what a leader reads.
    pub(super) served: watch::Sender<bool>,
}

/// Publishes that the broker has not acknowledged, in the order in which they went out.
#[derive(Default)]
struct Unacknowledged {
    /// Handed to the client, not yet on the wire.
    queued: VecDeque<Waiting>,
    /// On the wire, by packet id.
    sent: HashMap<u16, Waiting>,
}

struct Waiting {
    since: Instant,
    topic: String,
    receipt: Option<oneshot::Sender<Receipt>>,
    /// Frees its place in the window when dropped.
    _place: tokio::sync::OwnedSemaphorePermit,
}

/// Keeps a session until the task is aborted.
pub(super) async fn run(publisher: Publisher, parcels: mpsc::Receiver<Parcel>, inboxes: Inboxes, line: Line) {
    let parcels = Arc::new(tokio::sync::Mutex::new(parcels));
    let mut pause = PAUSES.0;
    let hears_homes = !publisher.home.unlock.is_empty();
    // Who leads asks for everything at once, so that no report falls between two subscriptions.
    let mut leads = line.leads.clone();
    drop(tokio::time::timeout(LEADERSHIP_WITHIN, leads.wait_for(|leads| *leads)).await);
    loop {
        let subscribed = Subscribed { connections: AtomicU8::new(0), connected: &line.connected };
        let end = tokio::select! {
            end = session(&publisher.broker, &parcels, &inboxes, &line, &subscribed, hears_homes) => end,
            end = batches::session(&publisher.broker, &inboxes.batches, &subscribed) => end,
        };
        line.served.send_replace(false);
        measured::session_ended();
        // A session that worked starts the pauses anew.
        pause = if line.connected.send_replace(false) { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
        tracing::warn!(error = %end, pause_ms = pause.as_millis(), "broker session ended; connecting again");
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

async fn session(
    broker: &Broker,
    parcels: &Arc<tokio::sync::Mutex<mpsc::Receiver<Parcel>>>,
    inboxes: &Inboxes,
    line: &Line,
    connected: &Subscribed<'_>,
    hears_homes: bool,
) -> SessionEnd {
    let (client, mut events) = broker.client(&broker.client_id, KEEP_ALIVE);
    let waiting = Arc::new(Mutex::new(Unacknowledged::default()));
    let (leaders, leads) = (filter_of(broker, LEADERS), *line.leads.borrow());
    let mut filters: Vec<String> = CHANNELS.iter().map(|channel| filter_of(broker, *channel)).collect();
    if leads {
        filters.push(leaders.clone());
    }
    if hears_homes {
        filters.push(topic::home_orders_filter(&broker.share()));
    }
    // Both are dropped with the session, and with the first whatever it had taken from the queue.
    let mut sender: Option<Guard> = None;
    let mut _follower: Option<Guard> = None;
    loop {
        let event = match tokio::time::timeout(2 * KEEP_ALIVE, events.poll()).await {
            Err(_) => return SessionEnd::Stuck,
            Ok(Err(error)) => return SessionEnd::Connection(Box::new(error)),
            Ok(Ok(event)) => event,
        };
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                let wanted = filters.iter().map(|filter| Filter::new(filter.clone(), QoS::AtLeastOnce));
                if client.try_subscribe_many(wanted).is_err() {
                    return SessionEnd::Stuck;
                }
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                if let Some(end) = refused(&filters, &ack) {
                    return end;
                }
                if sender.is_some() {
                    // Of what a leader reads; whether it still leads is for `leadership::at_work`.
                    line.served.send_replace(true);
                    continue;
                }
                let task = send(client.clone(), Arc::clone(parcels), Arc::clone(&waiting));
                sender = Some(Guard(tokio::spawn(task)));
                filters = vec![leaders.clone()];
                line.served.send_replace(leads);
                let task =
                    follow_leadership(client.clone(), leaders.clone(), leads, line.leads.clone(), line.served.clone());
                _follower = Some(Guard(tokio::spawn(task)));
                connected.one_more();
            }
            Event::Incoming(Packet::Publish(publish)) => deliver(&publish.topic, &publish.payload, inboxes),
            Event::Outgoing(Sent::Publish(id)) => {
                let mut waiting = waiting.lock();
                if let Some(parcel) = waiting.queued.pop_front() {
                    measured::published();
                    waiting.sent.insert(id, parcel);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => acknowledged(&waiting, ack.pkid, ack.reason),
            Event::Incoming(Packet::Disconnect(disconnect)) => {
                return SessionEnd::Disconnected(format!("{:?}", disconnect.reason_code));
            }
            _ => {}
        }
        if is_stuck(&waiting.lock()) {
            return SessionEnd::Stuck;
        }
    }
}

/// Aborts the task when the session ends.
struct Guard(tokio::task::JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks for what a leader reads while this hub leads, and gives it back when it does not: a member of the group that
/// does nothing with what it gets would take it from the one who needs it.
async fn follow_leadership(
    client: AsyncClient,
    filter: String,
    mut asked: bool,
    mut leads: watch::Receiver<bool>,
    served: watch::Sender<bool>,
) {
    loop {
        let now = *leads.borrow_and_update();
        if now != asked {
            let done = if now {
                client.subscribe(filter.clone(), QoS::AtLeastOnce).await
            } else {
                served.send_replace(false);
                client.unsubscribe(filter.clone()).await
            };
            if done.is_err() {
                return;
            }
            asked = now;
        }
        if leads.changed().await.is_err() {
            return;
        }
    }
}

fn subscribed(code: &SubscribeReasonCode) -> bool {
    matches!(code, SubscribeReasonCode::Success(_))
}

fn is_stuck(waiting: &Unacknowledged) -> bool {
    waiting.queued.iter().chain(waiting.sent.values()).any(|parcel| parcel.since.elapsed() > STUCK_AFTER)
}

fn acknowledged(waiting: &Mutex<Unacknowledged>, id: u16, reason: PubAckReason) {
    let Some(parcel) = waiting.lock().sent.remove(&id) else { return };
    let said = match reason {
        PubAckReason::Success => Receipt::Taken,
        // The normal answer to an evtack for a device that is away.
        PubAckReason::NoMatchingSubscribers => Receipt::ForNobody,
        _ => {
            tracing::error!(topic = %parcel.topic, ?reason, "the broker refused a message; check the hub's access lines");
            Receipt::Refused
        }
    };
    measured::acknowledged(match said {
        Receipt::Taken => Acknowledged::Taken,
        Receipt::ForNobody => Acknowledged::ForNobody,
        Receipt::Refused => Acknowledged::Refused,
    });
    if let Some(receipt) = parcel.receipt {
        let _ = receipt.send(said);
    }
}

/// Takes messages from the queue whenever the window has room.
async fn send(
    client: AsyncClient,
    parcels: Arc<tokio::sync::Mutex<mpsc::Receiver<Parcel>>>,
    waiting: Arc<Mutex<Unacknowledged>>,
) {
    let window = Arc::new(Semaphore::new(WINDOW));
    let mut parcels = parcels.lock().await;
    loop {
        let place = Arc::clone(&window).acquire_owned().await.expect("the window is never closed");
        let Some(Parcel { message, receipt }) = parcels.recv().await else { return };
        measured::outbox(parcels.len());
        let (topic, retain) = (message.topic.to_string(), message.topic.kept_by_the_broker());
        waiting.lock().queued.push_back(Waiting {
            since: Instant::now(),
            topic: topic.clone(),
            receipt,
            _place: place,
        });
        // The client's own queue has room for two windows, so this waits for nothing but the session's end.
        if client.publish(topic, QoS::AtLeastOnce, retain, message.payload).await.is_err() {
            return;
        }
    }
}

/// Hands a message to who deals with it. Never waits: the connection must go on being served.
fn deliver(topic: &[u8], payload: &[u8], inboxes: &Inboxes) {
    let topic = std::str::from_utf8(topic).unwrap_or_default();
    if let Some(wish) = Wish::on(topic, payload) {
        measured::received(measured::HOME_ASSISTANT);
        if inboxes.commands.try_send(commands::Input::Wished(wish)).is_err() {
            measured::dropped(measured::HOME_ASSISTANT);
            tracing::warn!(%topic, "the hub is behind; a word of a Home Assistant was dropped");
        }
        return;
    }
    let Some(message) = Incoming::on(topic, payload.to_vec()) else {
        tracing::warn!("a message on a topic that no device writes was ignored");
        return;
    };
    let (channel, device) = (message.channel, message.device);
    measured::received(channel.as_str());
    let full = match channel {
        UpChannel::Gallery => inboxes.reports.try_send(message).is_err(),
        UpChannel::Cmd => inboxes.commands.try_send(commands::Input::Said(message)).is_err(),
        UpChannel::Status => inboxes.presence.try_send(message).is_err(),
        UpChannel::Twin => inboxes.twins.try_send(twins::Input::Said(message)).is_err(),
        _ => false,
    };
    if full {
        measured::dropped(channel.as_str());
        tracing::warn!(%channel, %device, "the hub is behind; a message was dropped");
    }
}
