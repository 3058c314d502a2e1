//! The hub's side of the broker against a real Mosquitto and Postgres, with devices that speak mutual TLS.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock to wait for others"
)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud_hub::domain::ids::{DeviceId, GalleryId, PersonId};
use cloud_hub::embedded::mosquitto::{BrokerCertificates, EmbeddedMosquitto, MosquittoOptions};
use cloud_hub::ingest::{self, Ingest};
use cloud_hub::keys::{Custody, DeviceLinks};
use cloud_hub::pki::{DeviceRequest, Pki};
use cloud_hub::publish::{Broker, Publisher, Seams, access_lines, end_session};
use cloud_hub::store::devices;
use gallery_log::{Digest, DigestKey, Kind, Log, Op, Purpose, Record, RecordId, Root, SealContext, SealKey};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sqlx::{Executor as _, Row as _};
use support::{Place, TestHub, skipped};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire_contract::event::{ClockQuality, FaceAppearedData, Meta};
use wire_contract::gallery::{GalleryCondition, GalleryState, RecordKind, RecordOp};
use wire_contract::status::{Presence, Status};
use wire_contract::{
    Batch, CloudEvent, DownChannel, EventData, EventId, EvtAck, GalleryDown, GalleryUp, Hash32, LinkKeys, Sequence,
    StreamId, Timestamp, Topic, UpChannel, V1, Verdict, envelope, topic,
};

/// Longer than anything here should take, shorter than a tester's patience.
const PATIENCE: Duration = Duration::from_secs(10);
const STREAM: StreamId = StreamId([7; 16]);

/// Hub, broker and the joint that the wiring makes between `publish` and `ingest`.
struct Line {
    hub: TestHub,
    place: Place,
    pki: Pki,
    mosquitto: EmbeddedMosquitto,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    connected: watch::Receiver<bool>,
}

impl Line {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let hub = TestHub::start().await;
        let place = hub.place().await;
        let pki = Pki::load_or_make(&hub.dir.path().join("pki"), hub.clock.now()).unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let server = pki.server("broker", &names, hub.clock.now()).unwrap();
        let certificates = BrokerCertificates {
            server_chain_pem: server.chain_pem,
            server_key_pem: server.key_pem.to_string(),
            client_ca_pem: pki.client_ca_pem(),
            client_crl_pem: None,
        };
        let access = access_lines(&hub.db).await.unwrap();
        let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let options = MosquittoOptions::for_data_dir(hub.dir.path(), listen, certificates, access).unwrap();
        let mosquitto = start_mosquitto(&options).await;
        let mut line = Self { hub, place, pki, mosquitto, running: None };
        line.start_hub().await;
        line
    }

    fn broker(&self) -> Broker {
        let hub = self.mosquitto.hub();
        Broker {
            host: hub.address.ip().to_string(),
            port: hub.address.port(),
            client_id: "hub-test".to_owned(),
            credentials: Some((hub.username.clone(), hub.password.clone())),
            tls: None,
        }
    }

    /// A client on the hub's listener.
    fn broker_client(&self, client_id: &str) -> (AsyncClient, rumqttc::v5::EventLoop) {
        let broker = self.broker();
        let mut options = MqttOptions::new(client_id, broker.host, broker.port);
        let (user, password) = broker.credentials.unwrap();
        options.set_credentials(user, password);
        options.set_keep_alive(Duration::from_secs(5));
        AsyncClient::new(options, 8)
    }

    async fn start_hub(&mut self) {
        let publisher = Publisher {
            db: self.hub.db.clone(),
            links: self.hub.links.clone(),
            clock: self.hub.clock.clone(),
            broker: self.broker(),
        };
        let (batches, batch_inbox) = mpsc::channel(64);
        let (ack_outbox, acks) = mpsc::channel(64);
        let (connected, watching) = watch::channel(false);
        let ingest = Ingest::new(self.hub.db.clone(), self.hub.links.clone(), self.hub.clock.clone());
        tokio::spawn(ingest::run(ingest, batch_inbox, ack_outbox));
        let stop = CancellationToken::new();
        let task = tokio::spawn(publisher.run(Seams { batches, acks, connected }, stop.clone()));
        let mut running = Running { stop, task, connected: watching };
        tokio::time::timeout(PATIENCE, running.connected.wait_for(|up| *up)).await.expect("the hub connects").unwrap();
        self.running = Some(running);
    }

    async fn stop_hub(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.cancel();
        running.task.await.unwrap();
    }

    fn gallery(&self) -> GalleryId {
        self.place.link.galleries[0].gallery
    }

    /// Connects as the place's device.
    async fn device(&self) -> Device {
        Device::connect(self, &self.place).await
    }

    async fn event_count(&self, kind: &'static str) -> i64 {
        let mut superuser = self.hub.superuser().await;
        sqlx::query_scalar("SELECT count(*) FROM event WHERE type = $1")
            .bind(kind)
            .fetch_one(&mut superuser)
            .await
            .unwrap()
    }

    async fn equal(&self) -> bool {
        let (tenant, device) = (self.place.tenant, self.place.device);
        self.hub.db.tenant(tenant, move |tx| Box::pin(devices::galleries(tx, device))).await.unwrap()[0].equal()
    }

    async fn wait_equal(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.equal().await {
            assert!(Instant::now() < deadline, "the hub's row says equal in the end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Tests beside this one take ports too: a port that was free may be taken when Mosquitto binds it.
async fn start_mosquitto(options: &MosquittoOptions) -> EmbeddedMosquitto {
    for _ in 0..5 {
        if let Ok(mosquitto) = EmbeddedMosquitto::start(options.clone()).await {
            return mosquitto;
        }
    }
    EmbeddedMosquitto::start(options.clone()).await.unwrap()
}

/// A connection to the devices' listener under a certificate of this name.
fn options(line: &Line, device: DeviceId) -> MqttOptions {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let request = DeviceRequest::parse(&csr).unwrap();
    let issued = line.pki.issue_device(request, device, line.hub.clock.now()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(line.pki.root_der().to_vec())).unwrap();
    let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let tls = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
        .unwrap();
    let address = line.mosquitto.device_address();
    let mut options = MqttOptions::new(device.to_string(), address.ip().to_string(), address.port());
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
    options.set_keep_alive(Duration::from_secs(5));
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(100_000);
    options.set_connect_properties(properties);
    options
}

/// A device: its connection, its link keys, and a gallery kept by gallery-log's own rules.
struct Device {
    place_tenant: Uuid,
    id: DeviceId,
    keys: LinkKeys,
    client: AsyncClient,
    incoming: mpsc::Receiver<(String, Vec<u8>)>,
    reasons: mpsc::Receiver<PubAckReason>,
    ended: watch::Receiver<bool>,
    gdk: DigestKey,
    log: Log,
    bodies: BTreeMap<RecordId, (Kind, Vec<u8>)>,
}

impl Device {
    async fn connect(line: &Line, place: &Place) -> Self {
        let (client, mut events) = AsyncClient::new(options(line, place.device), 64);
        let (message, incoming) = mpsc::channel(4096);
        let (reason, reasons) = mpsc::channel(4096);
        let (end, ended) = watch::channel(false);
        let (up, mut is_up) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        let _ = message.send((topic, publish.payload.to_vec())).await;
                    }
                    Ok(Event::Incoming(Packet::PubAck(ack))) => drop(reason.send(ack.reason).await),
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(up.send(true)),
                    Ok(_) => {}
                    Err(_) => {
                        let _ = end.send(true);
                        return;
                    }
                }
            }
        });
        let (tenant, device) = (wire_contract::TenantId(place.tenant.0), wire_contract::DeviceId(place.device.0));
        client.subscribe(topic::device_filter(tenant, device), QoS::AtLeastOnce).await.unwrap();
        tokio::time::timeout(PATIENCE, is_up.wait_for(|up| *up)).await.expect("the device connects").unwrap();
        let held = &place.link.galleries[0];
        let keys = LinkKeys::derive(&place.link.link_key, device, place.link.link_epoch);
        Self {
            place_tenant: place.tenant.0,
            id: place.device,
            keys,
            client,
            incoming,
            reasons,
            ended,
            gdk: DigestKey::new(*held.gdk),
            log: Log::new(gallery_log::GalleryId(held.gallery.0), held.epoch),
            bodies: BTreeMap::new(),
        }
    }

    fn up(&self, channel: UpChannel) -> String {
        let (tenant, device) = (wire_contract::TenantId(self.place_tenant), wire_contract::DeviceId(self.id.0));
        Topic::Up { tenant, device, channel }.to_string()
    }

    async fn say(&self, channel: UpChannel, json: &[u8]) {
        let topic = self.up(channel);
        let payload = envelope::wrap_up(self.keys.up(), &topic, json);
        self.client.publish(topic, QoS::AtLeastOnce, channel.retained(), payload).await.unwrap();
    }

    async fn report(&mut self) {
        let root = self.log.root();
        self.report_as(self.log.version(), root).await;
    }

    async fn report_as(&self, version: u64, root: Root) {
        let state = GalleryState {
            gallery: wire_contract::GalleryId(self.log.gallery().0),
            epoch: self.log.epoch(),
            version,
            root: Hash32(root.0),
            condition: GalleryCondition::Ready,
        };
        let report = GalleryUp::State { v: V1, galleries: vec![state] };
        self.say(UpChannel::Gallery, &serde_json::to_vec(&report).unwrap()).await;
    }

    /// The next message, opened.
    async fn next(&mut self) -> (DownChannel, Vec<u8>) {
        let received = tokio::time::timeout(PATIENCE, self.incoming.recv()).await.expect("a message in time");
        self.open(received.unwrap())
    }

    fn open(&self, (topic, payload): (String, Vec<u8>)) -> (DownChannel, Vec<u8>) {
        let Ok(Topic::Down { channel, .. }) = topic.parse() else { panic!("{topic}") };
        let tenant = gallery_log::TenantId(self.place_tenant);
        let context =
            SealContext::new(Purpose::MQTT_DOWN, tenant, self.id.0, u64::from(self.keys.epoch())).with_topic(&topic);
        let plain = SealKey::new(*self.keys.expose_down()).open(&context, &payload).unwrap();
        (channel, plain.to_vec())
    }

    async fn next_gallery(&mut self) -> GalleryDown {
        loop {
            let (channel, plain) = self.next().await;
            if channel == DownChannel::Gallery {
                return serde_json::from_slice(&plain).unwrap();
            }
            assert_eq!(channel, DownChannel::Evtack);
        }
    }

    async fn next_ack(&mut self) -> EvtAck {
        loop {
            let (channel, plain) = self.next().await;
            if channel == DownChannel::Evtack {
                return serde_json::from_slice(&plain).unwrap();
            }
        }
    }

    /// Applies the next message as an edge does: by the log's rules, with the root checked after it.
    async fn follow(&mut self) -> usize {
        let GalleryDown::Records(message) = self.next_gallery().await else { panic!("records") };
        message.check().unwrap();
        let mut applied = 0;
        for wire in message.records {
            if wire.version <= self.log.version() {
                continue;
            }
            let record = Record {
                gallery: self.log.gallery(),
                epoch: message.epoch,
                version: wire.version,
                op: if wire.op == RecordOp::Put { Op::Put } else { Op::Del },
                kind: match wire.kind {
                    RecordKind::Person => Kind::Person,
                    RecordKind::Template => Kind::Template,
                    RecordKind::Credential => Kind::Credential,
                    RecordKind::Rule => Kind::Rule,
                },
                id: RecordId(wire.id),
                rev: wire.rev,
                body: wire.body.0,
            };
            self.log.apply(&record, &self.gdk).unwrap();
            match record.op {
                Op::Put => self.bodies.insert(record.id, (record.kind, record.body)),
                Op::Del => self.bodies.remove(&record.id),
            };
            applied += 1;
        }
        self.log.verify_root(Root(message.root.0)).unwrap();
        applied
    }

    async fn follow_to(&mut self, version: u64) -> usize {
        let mut messages = 0;
        while self.log.version() < version {
            self.follow().await;
            messages += 1;
        }
        messages
    }

    fn holds(&self, person: PersonId) -> bool {
        self.bodies.contains_key(&RecordId(person.0))
    }
}

fn batch(range: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let event = |sequence| {
        let meta = Meta {
            id: EventId(Uuid::from_u128(u128::from(sequence) + 1_000)),
            source: "/test".to_owned(),
            subject: None,
            time: Timestamp::from_unix_ms(1_700_000_000_000),
            stream: STREAM,
            sequence: Sequence(sequence),
            boot: Uuid::from_u128(1),
            monotonic_ms: sequence,
            clock_quality: ClockQuality::Synchronised,
        };
        CloudEvent::new(meta, &EventData::FaceAppeared(FaceAppearedData { camera: "c".to_owned(), track: sequence }))
    };
    Batch { v: V1, stream: STREAM, events: range.map(event).collect() }.encode().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_filled_follows_changes_and_loses_the_deleted_at_once() {
    if skipped("a_device_is_filled_follows_changes_and_loses_the_deleted_at_once") {
        return;
    }
    let line = Line::start().await;
    let tenant = line.place.tenant;
    let mut people = Vec::new();
    for n in 0..40 {
        let person = line.hub.person(tenant, &format!("p{n}")).await;
        line.hub.enrol(tenant, person, n).await;
        people.push(person);
    }
    let mut device = line.device().await;
    device.report().await;
    let messages = device.follow_to(80).await;
    assert!(messages >= 2, "40 templates do not fit one message of 64 KiB, found {messages}");
    device.report().await;
    line.wait_equal().await;

    // A new person arrives without any report in between.
    let late = line.hub.person(tenant, "late").await;
    device.follow_to(81).await;
    assert!(device.holds(late));

    let mut slowest = Duration::ZERO;
    for person in people.iter().take(10) {
        let version = device.log.version();
        line.hub.custody.delete_person(tenant, *person, "test").await.unwrap();
        let answered = Instant::now();
        device.follow_to(version + 2).await;
        slowest = slowest.max(answered.elapsed());
        assert!(!device.holds(*person));
    }
    println!("slowest of ten deletions, from the hub's answer to the device: {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "deletions must reach doors well within two seconds, took {slowest:?}");
    device.report().await;
    line.wait_equal().await;
    assert_eq!(line.event_count("lintel.tamper.gallery_diverged.v1").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_joins_after_an_erasure_gets_stand_ins_and_ends_equal() {
    if skipped("a_device_that_joins_after_an_erasure_gets_stand_ins_and_ends_equal") {
        return;
    }
    let line = Line::start().await;
    let tenant = line.place.tenant;
    let early = line.hub.person(tenant, "early").await;
    line.hub.enrol(tenant, early, 500).await;
    let mut others = Vec::new();
    // More than two messages between the erased person's records and their dels.
    for n in 0..50 {
        let person = line.hub.person(tenant, &format!("p{n}")).await;
        line.hub.enrol(tenant, person, n).await;
        others.push(person);
    }
    line.hub.custody.delete_person(tenant, early, "test").await.unwrap();
    let mut device = line.device().await;
    device.report().await;
    // `follow` checks the root after every message, also where the erased person is still live.
    let messages = device.follow_to(104).await;
    assert!(messages >= 3, "the erased person must be live at the end of a message; found {messages} messages");
    assert!(!device.holds(early));
    assert!(others.iter().all(|person| device.holds(*person)));
    device.report().await;
    line.wait_equal().await;
    assert_eq!(line.event_count("lintel.tamper.gallery_diverged.v1").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_when_the_hubs_session_ended_goes_out_again() {
    if skipped("what_was_under_way_when_the_hubs_session_ended_goes_out_again") {
        return;
    }
    let line = Line::start().await;
    let tenant = line.place.tenant;
    let witness = line.hub.device(tenant, line.place.site).await;
    let link = line.hub.custody.link(tenant, witness).await.unwrap();
    let keys = LinkKeys::derive(&link.link_key, wire_contract::DeviceId(witness.0), link.link_epoch);
    let witness = Place { tenant, site: line.place.site, device: witness, link, keys };
    let access = access_lines(&line.hub.db).await.unwrap();
    line.mosquitto.access().replace(&access).unwrap();
    let mut witness = Device::connect(&line, &witness).await;
    let mut device = line.device().await;
    device.report().await;
    witness.report().await;
    line.wait_equal().await;
    // Nobody reads what the hub sends now; the broker takes it all the same.
    device.client.disconnect().await.unwrap();
    device.ended.wait_for(|ended| *ended).await.unwrap();
    line.hub.person(tenant, "one").await;
    witness.follow_to(1).await;
    let person = line.hub.person(tenant, "two").await;
    // The devices have turns: when the witness has the second record, the other one's first is gone.
    witness.follow_to(2).await;
    let mut device = line.device().await;
    // Somebody takes over the hub's session: it comes back, and the device, which says nothing, lacks nothing.
    let (_, mut events) = line.broker_client("hub-test");
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::ConnAck(_))) {}
    drop(events);
    device.follow_to(2).await;
    assert!(device.holds(person));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_a_link_holds_up_none_of_those_that_are_told_together() {
    if skipped("a_device_without_a_link_holds_up_none_of_those_that_are_told_together") {
        return;
    }
    let line = Line::start().await;
    let (tenant, site) = (line.place.tenant, line.place.site);
    let mut places = Vec::new();
    for _ in 0..3 {
        let device = line.hub.device(tenant, site).await;
        let link = line.hub.custody.link(tenant, device).await.unwrap();
        let keys = LinkKeys::derive(&link.link_key, wire_contract::DeviceId(device.0), link.link_epoch);
        places.push(Place { tenant, site, device, link, keys });
    }
    line.mosquitto.access().replace(&access_lines(&line.hub.db).await.unwrap()).unwrap();
    let mut all = Vec::new();
    for place in &places {
        let mut device = Device::connect(&line, place).await;
        device.report().await;
        all.push(device);
    }
    let first = line.hub.person(tenant, "first").await;
    for device in &mut all {
        device.follow_to(1).await;
        assert!(device.holds(first));
    }
    // All of them stand at version 1 now; the hub cannot seal anything for one of them any more.
    let mut superuser = line.hub.superuser().await;
    let delete = sqlx::query("DELETE FROM device_link WHERE device_id = $1").bind(places[1].device.0);
    assert_eq!(delete.execute(&mut superuser).await.unwrap().rows_affected(), 1);
    let second = line.hub.person(tenant, "second").await;
    for device in [0, 2] {
        all[device].follow_to(2).await;
        assert!(all[device].holds(second));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_whose_key_is_gone_holds_up_no_device() {
    if skipped("a_person_whose_key_is_gone_holds_up_no_device") {
        return;
    }
    let mut line = Line::start().await;
    let tenant = line.place.tenant;
    let without = support::keys_without_people(&line.hub);
    let lost = line.hub.person(tenant, "lost").await;
    line.hub.enrol(tenant, lost, 1).await;
    // The hub comes back with the key store of a backup that is older than the person.
    line.stop_hub().await;
    line.hub.custody = Custody::new(line.hub.db.clone(), without, line.hub.clock.clone());
    line.hub.links = DeviceLinks::new(line.hub.custody.clone());
    line.start_hub().await;
    let other = line.hub.person(tenant, "other").await;
    line.hub.enrol(tenant, other, 2).await;
    let mut device = line.device().await;
    device.report().await;
    // `follow` checks the root after every message.
    device.follow_to(4).await;
    assert!(device.holds(other));
    line.hub.custody.delete_person(tenant, other, "test").await.unwrap();
    device.follow_to(6).await;
    assert!(!device.holds(other));
    device.report().await;
    line.hub.custody.delete_person(tenant, lost, "test").await.unwrap();
    device.follow_to(8).await;
    device.report().await;
    line.wait_equal().await;
    assert_eq!(line.event_count("lintel.tamper.gallery_diverged.v1").await, 0, "a stand-in is no divergence");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gallery_with_another_root_is_rebuilt_and_told() {
    if skipped("a_gallery_with_another_root_is_rebuilt_and_told") {
        return;
    }
    let line = Line::start().await;
    let person = line.hub.person(line.place.tenant, "p").await;
    let mut device = line.device().await;
    device.report_as(1, Root([9; 32])).await;
    let GalleryDown::Rebuild(order) = device.next_gallery().await else { panic!("an order to rebuild") };
    assert_eq!((order.gallery.0, order.epoch), (line.gallery().0, 1));
    // It throws its gallery away and begins again.
    let empty = Digest::new(device.log.gallery(), 1).root();
    device.report_as(0, empty).await;
    device.follow_to(1).await;
    assert!(device.holds(person));
    // A version that the hub does not have is no better.
    device.report_as(7, Root([9; 32])).await;
    assert!(matches!(device.next_gallery().await, GalleryDown::Rebuild(_)));
    assert_eq!(line.event_count("lintel.tamper.gallery_diverged.v1").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_in_acks_go_out_and_a_restarted_hub_tells_what_it_has() {
    if skipped("events_come_in_acks_go_out_and_a_restarted_hub_tells_what_it_has") {
        return;
    }
    let mut line = Line::start().await;
    let mut device = line.device().await;
    let consumer = consume(&line).await;
    device.say(UpChannel::Evt, &batch(1..=5)).await;
    let ack = device.next_ack().await;
    assert_eq!((ack.stream, ack.through, ack.verdict), (STREAM, Sequence(5), Verdict::Ok));
    device.say(UpChannel::Evt, &batch(3..=8)).await;
    assert_eq!(device.next_ack().await.through, Sequence(8));
    device.say(UpChannel::Evt, &batch(10..=11)).await;
    assert_eq!(device.next_ack().await.verdict, Verdict::Rewind);

    // Consumers get each event once, in order, on the class's topic.
    let mut seen = Vec::new();
    let mut consumer = consumer;
    while seen.len() < 8 {
        let (topic, payload) =
            tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("an event in time").unwrap();
        assert!(topic.ends_with("/_feed/face"), "{topic}");
        let event: CloudEvent = serde_json::from_slice(&payload).unwrap();
        seen.push(event.sequence.unwrap().0);
    }
    assert_eq!(seen, (1..=8).collect::<Vec<_>>());

    // Meanwhile a gallery was reported; the restarted hub goes on from there without waiting for another report.
    device.report().await;
    line.wait_equal().await;
    line.stop_hub().await;
    let person = line.hub.person(line.place.tenant, "made while nobody published").await;
    line.start_hub().await;
    device.follow_to(1).await;
    assert!(device.holds(person));
    line.stop_hub().await;
    line.start_hub().await;
    let ack = device.next_ack().await;
    assert_eq!((ack.stream, ack.through, ack.verdict), (STREAM, Sequence(8), Verdict::Ok), "told without being asked");
}

/// A consumer that may read the tenant's feed and nothing else.
async fn consume(line: &Line) -> mpsc::Receiver<(String, Vec<u8>)> {
    let id = DeviceId(Uuid::new_v4());
    let consumer = topic::acl::consumer(&id.to_string(), wire_contract::TenantId(line.place.tenant.0));
    let access = access_lines(&line.hub.db).await.unwrap();
    line.mosquitto.access().replace(&format!("{access}\n{consumer}")).unwrap();
    let (client, mut events) = AsyncClient::new(options(line, id), 8);
    let (sender, receiver) = mpsc::channel(256);
    let (up, mut is_up) = watch::channel(false);
    let filter = topic::feed_filter(wire_contract::TenantId(line.place.tenant.0), None);
    client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    tokio::spawn(async move {
        let _keep = client;
        while let Ok(event) = events.poll().await {
            match event {
                Event::Incoming(Packet::Publish(publish)) => {
                    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                    let _ = sender.send((topic, publish.payload.to_vec())).await;
                }
                Event::Incoming(Packet::SubAck(_)) => drop(up.send(true)),
                _ => {}
            }
        }
    });
    tokio::time::timeout(PATIENCE, is_up.wait_for(|up| *up)).await.unwrap().unwrap();
    receiver
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_may_write_its_own_topics_only_and_a_revoked_one_is_cut_off() {
    if skipped("a_device_may_write_its_own_topics_only_and_a_revoked_one_is_cut_off") {
        return;
    }
    let line = Line::start().await;
    let mut device = line.device().await;
    let foreign = Topic::Up {
        tenant: wire_contract::TenantId(line.place.tenant.0),
        device: wire_contract::DeviceId(Uuid::new_v4()),
        channel: UpChannel::Evt,
    };
    device.client.publish(foreign.to_string(), QoS::AtLeastOnce, false, "x").await.unwrap();
    assert_eq!(device.reasons.recv().await, Some(PubAckReason::NotAuthorized));
    let status = Status {
        v: V1,
        state: Presence::Online,
        boot: Uuid::from_u128(1),
        connection_epoch: 1,
        since: Timestamp::from_unix_ms(0),
        agent_version: "1".to_owned(),
        pack: None,
        space_id: None,
    };
    device.say(UpChannel::Status, &serde_json::to_vec(&status).unwrap()).await;
    let mut superuser = line.hub.superuser().await;
    let deadline = Instant::now() + PATIENCE;
    while !superuser.fetch_one("SELECT online FROM device").await.unwrap().get::<bool, _>(0) {
        assert!(Instant::now() < deadline, "presence is noted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (tenant, id) = (line.place.tenant, line.place.device);
    line.hub.db.tenant(tenant, move |tx| Box::pin(devices::revoke(tx, id))).await.unwrap();
    let access = access_lines(&line.hub.db).await.unwrap();
    assert!(!access.contains(&id.to_string()));
    line.mosquitto.access().replace(&access).unwrap();
    end_session(&line.broker(), id).await;
    let gone = tokio::time::timeout(Duration::from_secs(5), device.ended.wait_for(|ended| *ended)).await;
    assert!(gone.is_ok(), "the live session ends within 5 s");
}
