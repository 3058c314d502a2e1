//! Against a real Mosquitto with mutual TLS 1.3, and against a socket that misbehaves.

use edge_store::Broker as BrokerAddress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wire_contract::topic::acl;

use super::*;
use crate::sync::testkit::{Broker, DEVICE, Pki, TENANT, mosquitto_or_skip};

/// Far beyond what a healthy machine needs; a test that waits for it fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn will() -> Will {
    Will { topic: up("status"), payload: b"gone".to_vec() }
}

fn up(channel: &str) -> String {
    format!("lintel/v1/{TENANT}/{DEVICE}/up/{channel}")
}

fn down(channel: &str) -> String {
    format!("lintel/v1/{TENANT}/{DEVICE}/down/{channel}")
}

fn access_lines() -> String {
    acl::device(TenantId(TENANT), DeviceId(DEVICE))
}

/// A device of this authority, before the broker at this port.
struct Caller {
    mqtt: Mqtt,
    identity: Identity,
}

impl Caller {
    fn connect(&mut self, will: Will) -> Result<Line, LineError> {
        self.mqtt.connect(&self.identity, will)
    }
}

fn mqtt(pki: &Pki, port: u16) -> Caller {
    Caller {
        mqtt: Mqtt::new(Timing::default(), Arc::new(crate::clock::SystemClock::default())),
        identity: pki.identity("https://127.0.0.1:1/", port),
    }
}

async fn next(line: &mut Line) -> LineEvent {
    tokio::time::timeout(PATIENCE, line.events.recv()).await.expect("an event in time").expect("the line lives")
}

/// Connects, trying again while the broker is still starting.
async fn ready(connector: &mut Caller) -> Line {
    let give_up = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut line = connector.connect(will()).unwrap();
        match next(&mut line).await {
            LineEvent::Ready { .. } => return line,
            LineEvent::Lost(error) if tokio::time::Instant::now() < give_up => {
                tracing::debug!(%error, "not yet");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The test's hub: subscribed to everything that devices say.
async fn hub(port: u16) -> (AsyncClient, mpsc::Receiver<(String, Vec<u8>, bool)>) {
    let mut options = MqttOptions::new("hub", "127.0.0.1", port);
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(100_000);
    options.set_connect_properties(properties);
    let (client, mut socket) = AsyncClient::new(options, 10);
    let (sender, receiver) = mpsc::channel(100);
    let (subscribed, waiting) = tokio::sync::oneshot::channel();
    let mut subscribed = Some(subscribed);
    client.subscribe("lintel/v1/+/+/up/#", QoS::AtLeastOnce).await.unwrap();
    tokio::spawn(async move {
        loop {
            match socket.poll().await {
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    let _ = subscribed.take().map(|sender| sender.send(()));
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                    if sender.send((topic, publish.payload.to_vec(), publish.retain)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    tokio::time::timeout(PATIENCE, waiting).await.expect("the hub subscribes in time").unwrap();
    (client, receiver)
}

fn shipment(channel: &str, payload: Vec<u8>, parcel: Parcel) -> Shipment {
    Shipment { topic: up(channel), payload, retain: false, parcel }
}

#[test]
fn a_silent_device_is_gone_after_one_and_a_half_of_what_was_promised() {
    for promised in (10..=120).map(Duration::from_secs) {
        let asked = asked_of_the_broker(promised);
        assert!(asked * 3 / 2 + BROKER_NOTICES_AFTER <= promised * 3 / 2, "{asked:?} of {promised:?}");
        assert!(asked >= SHORTEST_KEEP_ALIVE, "the client library would refuse {asked:?}");
    }
    assert_eq!(asked_of_the_broker(Duration::from_secs(1)), SHORTEST_KEEP_ALIVE);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_over_mutual_tls_and_the_will_speaks_when_the_line_dies() {
    if !mosquitto_or_skip("messages_go_both_ways_over_mutual_tls_and_the_will_speaks_when_the_line_dies") {
        return;
    }
    let pki = Pki::new();
    let broker = Broker::start(&pki, &access_lines());
    let mut line = ready(&mut mqtt(&pki, broker.device_port)).await;
    let (client, mut heard) = hub(broker.hub_port).await;

    let large = vec![7; MAX_PAYLOAD_BYTES];
    line.publish(shipment("evt", large.clone(), Parcel::Events)).unwrap();
    assert!(matches!(next(&mut line).await, LineEvent::Taken(Parcel::Events)));
    assert_eq!(heard.recv().await.unwrap(), (up("evt"), large.clone(), false));

    client.publish(down("evtack"), QoS::AtLeastOnce, false, large.clone()).await.unwrap();
    let LineEvent::Message { topic, payload } = next(&mut line).await else { panic!("no message") };
    assert_eq!((topic, payload), (down("evtack"), large));

    drop(line);
    assert_eq!(heard.recv().await.unwrap(), (up("status"), b"gone".to_vec(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farewell_is_taken_and_leaves_no_will() {
    if !mosquitto_or_skip("a_farewell_is_taken_and_leaves_no_will") {
        return;
    }
    let pki = Pki::new();
    let broker = Broker::start(&pki, &access_lines());
    let mut line = ready(&mut mqtt(&pki, broker.device_port)).await;
    let (_client, mut heard) = hub(broker.hub_port).await;
    line.publish(shipment("status", b"bye".to_vec(), Parcel::Farewell)).unwrap();
    assert!(matches!(next(&mut line).await, LineEvent::Taken(Parcel::Farewell) | LineEvent::Lost(_)));
    assert_eq!(heard.recv().await.unwrap().1, b"bye");
    drop(line);
    let next_line = ready(&mut mqtt(&pki, broker.device_port)).await;
    next_line.publish(shipment("evt", b"again".to_vec(), Parcel::Events)).unwrap();
    assert_eq!(heard.recv().await.unwrap().1, b"again", "no will in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_publish_is_told_by_its_reason() {
    if !mosquitto_or_skip("a_refused_publish_is_told_by_its_reason") {
        return;
    }
    let pki = Pki::new();
    let only_read = access_lines().replace("topic write", "#topic write");
    let broker = Broker::start(&pki, &only_read);
    let mut line = ready(&mut mqtt(&pki, broker.device_port)).await;
    line.publish(shipment("evt", b"x".to_vec(), Parcel::Events)).unwrap();
    let LineEvent::Refused(Parcel::Events, reason) = next(&mut line).await else { panic!("not refused") };
    assert_eq!(reason, "NotAuthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_another_root_is_not_spoken_to() {
    if !mosquitto_or_skip("a_broker_of_another_root_is_not_spoken_to") {
        return;
    }
    let (ours, theirs) = (Pki::new(), Pki::new());
    let broker = Broker::start(&theirs, &access_lines());
    // The broker is up once a device of its own gets through.
    drop(ready(&mut mqtt(&theirs, broker.device_port)).await);
    let mut line = mqtt(&ours, broker.device_port).connect(will()).unwrap();
    let LineEvent::Lost(error) = next(&mut line).await else { panic!("spoke to a stranger") };
    let text = crate::logging::chain(&error);
    assert!(text.contains("certificate"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_certificate_is_told_with_what_to_do() {
    if !mosquitto_or_skip("a_refused_certificate_is_told_with_what_to_do") {
        return;
    }
    let (pki, foreign) = (Pki::new(), Pki::new());
    let broker = Broker::start(&pki, &access_lines());
    drop(ready(&mut mqtt(&pki, broker.device_port)).await);
    // The right root, so that the broker is believed; a key and certificate that its authority never signed.
    let (ours, theirs) = (pki.identity("https://127.0.0.1:1/", 1), foreign.identity("https://127.0.0.1:1/", 1));
    let identity = Identity { root_pem: ours.root_pem, ..theirs };
    let identity = Identity { broker: BrokerAddress { port: broker.device_port, ..identity.broker }, ..identity };
    let mut line = Mqtt::new(Timing::default(), Arc::new(crate::clock::SystemClock::default()))
        .connect(&identity, will())
        .unwrap();
    let LineEvent::Lost(error) = next(&mut line).await else { panic!("a stranger was let in") };
    assert!(matches!(error, LineError::CertificateRefused { .. }), "{error:?}");
    assert!(error.to_string().contains("edge-agent claim"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_is_noticed_and_a_new_line_goes_through() {
    if !mosquitto_or_skip("a_broker_that_dies_is_noticed_and_a_new_line_goes_through") {
        return;
    }
    let pki = Pki::new();
    let mut broker = Broker::start(&pki, &access_lines());
    let mut connector = mqtt(&pki, broker.device_port);
    let mut line = ready(&mut connector).await;
    broker.kill();
    assert!(matches!(next(&mut line).await, LineEvent::Lost(LineError::Connection(_))));
    broker.restart();
    let mut line = ready(&mut connector).await;
    line.publish(shipment("evt", b"x".to_vec(), Parcel::Events)).unwrap();
    assert!(matches!(next(&mut line).await, LineEvent::Unheard), "there is no hub");
}

/// A broker that greets and grants the subscription, then says `chatter` again and again and acknowledges nothing.
async fn mute_broker(chatter: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut read = [0; 4096];
        let _ = socket.read(&mut read).await.unwrap();
        socket.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
        let _ = socket.read(&mut read).await.unwrap();
        socket.write_all(&[0x90, 4, 0, 1, 0, 1]).await.unwrap();
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if socket.write_all(chatter).await.is_err() {
                return;
            }
        }
    });
    port
}

async fn stalls(chatter: &'static [u8], publish: bool) {
    let port = mute_broker(chatter).await;
    let stall_after = Duration::from_millis(300);
    let options = MqttOptions::new("device", "127.0.0.1", port);
    let mut line = open(options, "x/down/+".to_owned(), stall_after);
    assert!(matches!(next(&mut line).await, LineEvent::Ready { .. }));
    if publish {
        line.publish(shipment("evt", b"x".to_vec(), Parcel::Events)).unwrap();
    }
    loop {
        match next(&mut line).await {
            LineEvent::Message { .. } => {}
            LineEvent::Lost(LineError::Stalled(after)) => return assert_eq!(after, stall_after),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_silent_line_is_torn_down() {
    stalls(&[], false).await;
}

#[tokio::test]
async fn a_line_that_acknowledges_nothing_is_torn_down_however_much_it_chatters() {
    // PUBLISH, QoS 0, topic "t", no properties, payload "x".
    stalls(&[0x30, 5, 0, 1, b't', 0, b'x'], true).await;
}
