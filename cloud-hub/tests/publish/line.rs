//! Hub and broker joined as the wiring joins them, and devices that follow the log by its own rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud_hub::domain::ids::{DeviceId, GalleryId, PersonId};
use cloud_hub::embedded::mosquitto::{BrokerCertificates, EmbeddedMosquitto, MosquittoOptions};
use cloud_hub::ingest::{self, Ingest};
use cloud_hub::pki::{DeviceRequest, Pki};
use cloud_hub::publish::{Broker, HomeSettings, Publisher, Seams, access_lines};
use cloud_hub::store::devices;
use gallery_log::{DigestKey, Kind, Log, Op, Purpose, Record, RecordId, Root, SealContext, SealKey};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire_contract::gallery::{GalleryCondition, GalleryRecord, GalleryState, RecordKind, RecordOp};
use wire_contract::{
    DownChannel, EvtAck, GalleryDown, GalleryUp, Hash32, LinkKeys, StreamId, Topic, UpChannel, V1, envelope, topic,
};

use crate::support::{Place, TestHub};

/// Longer than anything here should take, shorter than a tester's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const STREAM: StreamId = StreamId([7; 16]);

/// Hub, broker and the joint that the wiring makes between `publish` and `ingest`.
pub(crate) struct Line {
    pub(crate) hub: TestHub,
    pub(crate) place: Place,
    pub(crate) pki: Pki,
    pub(crate) mosquitto: EmbeddedMosquitto,
    /// See [`Publisher::snapshot_from`].
    pub(crate) snapshot_from: u64,
    /// See [`Publisher::said_within`].
    pub(crate) said_within: Duration,
    /// Of the hubs that are started from now on.
    pub(crate) home: HomeSettings,
    running: Option<Running>,
}

/// A hub's publisher and ingest.
pub(crate) struct Running {
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    connected: watch::Receiver<bool>,
}

impl Running {
    /// Everything of it ends where it stands.
    pub(crate) async fn kill(self) {
        for task in self.tasks {
            task.abort();
            drop(task.await);
        }
    }
}

impl Line {
    pub(crate) async fn start() -> Self {
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
        let snapshot_from = cloud_hub::publish::SNAPSHOT_FROM;
        let said_within = cloud_hub::publish::SAID_WITHIN;
        let home = HomeSettings::default();
        let mut line = Self { hub, place, pki, mosquitto, snapshot_from, said_within, home, running: None };
        line.start_hub().await;
        line
    }

    pub(crate) fn broker(&self) -> Broker {
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
    pub(crate) fn broker_client(&self, client_id: &str) -> (AsyncClient, rumqttc::v5::EventLoop) {
        let broker = self.broker();
        let mut options = MqttOptions::new(client_id, broker.host, broker.port);
        let (user, password) = broker.credentials.unwrap();
        options.set_credentials(user, password);
        options.set_keep_alive(Duration::from_secs(5));
        AsyncClient::new(options, 8)
    }

    pub(crate) async fn start_hub(&mut self) {
        self.running = Some(self.start_replica("hub-test").await);
    }

    /// One more hub on the same broker and database.
    pub(crate) async fn start_replica(&self, client_id: &str) -> Running {
        let publisher = Publisher {
            db: self.hub.db.clone(),
            links: self.hub.links.clone(),
            clock: self.hub.clock.clone(),
            broker: Broker { client_id: client_id.to_owned(), ..self.broker() },
            snapshot_from: self.snapshot_from,
            said_within: self.said_within,
            home: self.home.clone(),
        };
        let (batches, batch_inbox) = mpsc::channel(64);
        let (ack_outbox, acks) = mpsc::channel(64);
        let (connected, watching) = watch::channel(false);
        let ingest = Ingest::new(self.hub.db.clone(), self.hub.links.clone(), self.hub.clock.clone());
        let ingest = tokio::spawn(ingest::run(ingest, batch_inbox, ack_outbox));
        let stop = CancellationToken::new();
        let task = tokio::spawn(publisher.run(Seams { batches, acks, connected }, stop.clone()));
        let mut running = Running { stop, tasks: vec![task, ingest], connected: watching };
        tokio::time::timeout(PATIENCE, running.connected.wait_for(|up| *up)).await.expect("the hub connects").unwrap();
        running
    }

    pub(crate) async fn stop_hub(&mut self) {
        let mut running = self.running.take().unwrap();
        running.stop.cancel();
        running.tasks.remove(0).await.unwrap();
    }

    /// Ends the hub without a goodbye.
    pub(crate) async fn kill_hub(&mut self) {
        self.running.take().unwrap().kill().await;
    }

    pub(crate) fn gallery(&self) -> GalleryId {
        self.place.link.galleries[0].gallery
    }

    /// Connects as the place's device.
    pub(crate) async fn device(&self) -> Device {
        Device::connect(self, &self.place).await
    }

    /// A further device at the same site.
    pub(crate) async fn another_device(&self) -> Device {
        let Place { tenant, site, .. } = self.place;
        let device = self.hub.device(tenant, site).await;
        let link = self.hub.custody.link(tenant, device).await.unwrap();
        let keys = LinkKeys::derive(&link.link_key, wire_contract::DeviceId(device.0), link.link_epoch);
        let access = access_lines(&self.hub.db).await.unwrap();
        self.mosquitto.access().replace(&access).unwrap();
        Device::connect(self, &Place { tenant, site, device, link, keys }).await
    }

    pub(crate) async fn event_count(&self, kind: &'static str) -> i64 {
        let mut superuser = self.hub.superuser().await;
        sqlx::query_scalar("SELECT count(*) FROM event WHERE type = $1")
            .bind(kind)
            .fetch_one(&mut superuser)
            .await
            .unwrap()
    }

    /// What a person sees of the device's gallery.
    pub(crate) async fn held(&self) -> devices::DeviceGallery {
        let (tenant, device) = (self.place.tenant, self.place.device);
        self.hub.db.tenant(tenant, move |tx| Box::pin(devices::galleries(tx, device))).await.unwrap().remove(0)
    }

    /// Waits until a query for one truth value says so.
    pub(crate) async fn wait_for(&self, query: &str) {
        let (begun, mut rows) = (Instant::now(), self.hub.superuser().await);
        while !sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(query)).fetch_one(&mut rows).await.unwrap() {
            assert!(begun.elapsed() < PATIENCE, "{query}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn equal(&self) -> bool {
        self.held().await.equal()
    }

    pub(crate) async fn wait_equal(&self) {
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
pub(crate) fn options(line: &Line, device: DeviceId) -> MqttOptions {
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
pub(crate) struct Device {
    pub(crate) place_tenant: Uuid,
    pub(crate) id: DeviceId,
    pub(crate) keys: LinkKeys,
    pub(crate) client: AsyncClient,
    pub(crate) incoming: mpsc::Receiver<(String, Vec<u8>)>,
    pub(crate) reasons: mpsc::Receiver<PubAckReason>,
    pub(crate) ended: watch::Receiver<bool>,
    pub(crate) gdk: DigestKey,
    pub(crate) log: Log,
    pub(crate) bodies: BTreeMap<RecordId, (Kind, Vec<u8>)>,
}

impl Device {
    pub(crate) async fn connect(line: &Line, place: &Place) -> Self {
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

    pub(crate) fn up(&self, channel: UpChannel) -> String {
        let (tenant, device) = (wire_contract::TenantId(self.place_tenant), wire_contract::DeviceId(self.id.0));
        Topic::Up { tenant, device, channel }.to_string()
    }

    pub(crate) async fn say(&self, channel: UpChannel, json: &[u8]) {
        let topic = self.up(channel);
        let payload = envelope::wrap_up(self.keys.up(), &topic, json);
        self.client.publish(topic, QoS::AtLeastOnce, channel.retained(), payload).await.unwrap();
    }

    pub(crate) async fn report(&mut self) {
        let root = self.log.root();
        self.report_as(self.log.version(), root).await;
    }

    pub(crate) async fn report_as(&self, version: u64, root: Root) {
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
    pub(crate) async fn next(&mut self) -> (DownChannel, Vec<u8>) {
        let received = tokio::time::timeout(PATIENCE, self.incoming.recv()).await.expect("a message in time");
        self.open(received.unwrap())
    }

    pub(crate) fn open(&self, (topic, payload): (String, Vec<u8>)) -> (DownChannel, Vec<u8>) {
        let Ok(Topic::Down { channel, .. }) = topic.parse() else { panic!("{topic}") };
        let tenant = gallery_log::TenantId(self.place_tenant);
        let context =
            SealContext::new(Purpose::MQTT_DOWN, tenant, self.id.0, u64::from(self.keys.epoch())).with_topic(&topic);
        let plain = SealKey::new(*self.keys.expose_down()).open(&context, &payload).unwrap();
        (channel, plain.to_vec())
    }

    pub(crate) async fn next_gallery(&mut self) -> GalleryDown {
        loop {
            let (channel, plain) = self.next().await;
            if channel == DownChannel::Gallery {
                return serde_json::from_slice(&plain).unwrap();
            }
            assert_eq!(channel, DownChannel::Evtack);
        }
    }

    pub(crate) async fn next_ack(&mut self) -> EvtAck {
        loop {
            let (channel, plain) = self.next().await;
            if channel == DownChannel::Evtack {
                return serde_json::from_slice(&plain).unwrap();
            }
        }
    }

    /// A record of the wire as the log has it.
    pub(crate) fn record(&self, wire: GalleryRecord) -> Record {
        Record {
            gallery: self.log.gallery(),
            epoch: self.log.epoch(),
            version: wire.version,
            op: if wire.op == RecordOp::Put { Op::Put } else { Op::Del },
            kind: match wire.kind {
                RecordKind::Person => Kind::Person,
                RecordKind::Template => Kind::Template,
                RecordKind::Credential => Kind::Credential,
                RecordKind::Rule => Kind::Rule,
                RecordKind::Anchor => Kind::Anchor,
            },
            id: RecordId(wire.id),
            rev: wire.rev,
            body: wire.body.0,
        }
    }

    /// Applies the next message as an edge does: by the log's rules, with the root checked after it.
    pub(crate) async fn follow(&mut self) -> usize {
        let GalleryDown::Records(message) = self.next_gallery().await else { panic!("records") };
        message.check().unwrap();
        let mut applied = 0;
        for wire in message.records {
            if wire.version <= self.log.version() {
                continue;
            }
            let record = self.record(wire);
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

    pub(crate) async fn follow_to(&mut self, version: u64) -> usize {
        let mut messages = 0;
        while self.log.version() < version {
            self.follow().await;
            messages += 1;
        }
        messages
    }

    pub(crate) fn holds(&self, person: PersonId) -> bool {
        self.bodies.contains_key(&RecordId(person.0))
    }
}
