//! The connection on which batches come, and nothing else.
//!
//! A fleet that was cut off sends all that it has at once. What the hub cannot take in yet must wait somewhere: here it waits at
//! the broker, for a message is read only when `ingest` has room for it, and the broker sends no more than the line takes. So
//! nothing is dropped here, nothing is carried twice, and the hub holds a few megabytes. Status, reports and commands come on the
//! other connection ([`super::connection`]) and wait for none of it.
//!
//! While nothing is read nothing is said either, so a database that is away for longer than one and a half keep-alives ends the
//! session and what waited at the broker with it. The devices hear at the next one how far they are stored and send from there.
//!
//! Not by the receive maximum: Mosquitto 2.0.11 sends a window more with each acknowledgement, whatever is still under way.

use std::time::Duration;

use rumqttc::v5::Event;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet};
use tokio::sync::mpsc;
use wire_contract::UpChannel;

use super::connection::{Broker, SessionEnd, Subscribed, filter_of, refused};
use crate::domain::message::Incoming;
use crate::metrics::broker as measured;

/// Longer than on the other connection, which notices a dead broker for both, so that batches wait while a database starts again
/// or is taken over. Not for minutes: for as long the broker would go on giving a dead host's share of the batches to nobody.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Keeps a session until something about it is in doubt.
pub(super) async fn session(
    broker: &Broker,
    batches: &mpsc::Sender<Incoming>,
    subscribed: &Subscribed<'_>,
) -> SessionEnd {
    let (client, mut events) = broker.client(&format!("{}-batches", broker.client_id), KEEP_ALIVE);
    let filter = filter_of(broker, UpChannel::Evt);
    loop {
        let event = match tokio::time::timeout(2 * KEEP_ALIVE, events.poll()).await {
            Err(_) => return SessionEnd::Stuck,
            Ok(Err(error)) => return SessionEnd::Connection(Box::new(error)),
            Ok(Ok(event)) => event,
        };
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                let wanted = [Filter::new(filter.clone(), QoS::AtLeastOnce)];
                if client.try_subscribe_many(wanted).is_err() {
                    return SessionEnd::Stuck;
                }
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                if let Some(end) = refused(std::slice::from_ref(&filter), &ack) {
                    return end;
                }
                subscribed.one_more();
            }
            Event::Incoming(Packet::Publish(publish)) => {
                let topic = std::str::from_utf8(&publish.topic).ok();
                let message = topic.and_then(|topic| Incoming::on(topic, publish.payload.to_vec()));
                let Some(message) = message.filter(|message| message.channel == UpChannel::Evt) else {
                    tracing::warn!("a message on a topic that no device writes was ignored");
                    continue;
                };
                measured::received(message.channel.as_str());
                if batches.send(message).await.is_err() {
                    // Ingest has ended; the other tasks go on until the stop.
                    std::future::pending::<()>().await;
                }
            }
            Event::Incoming(Packet::Disconnect(disconnect)) => {
                return SessionEnd::Disconnected(format!("{:?}", disconnect.reason_code));
            }
            _ => {}
        }
    }
}
