//! The driver with the test holding the other end of the line, and the whole of sync with a real broker and HTTPS.

mod commands;
mod hub_keys;
mod rekeying;
mod renewal;
mod snapshots;
mod telling;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge_store::Position;
use face_core::MonoTime;
use gallery_log::{Purpose, SealContext, SealKey, TenantId};
use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;
use wire_contract::event::{ClockQuality as EventClock, CloudEvent, FaceAppearedData, Meta};
use wire_contract::gallery::GalleryUp;
use wire_contract::status::{Presence, Status};
use wire_contract::topic::acl;
use wire_contract::{
    Batch, DeviceId, DownChannel, EventData, EventId, EvtAck, GalleryDown, LinkKeys, Sequence, StreamId, Topic,
    UpChannel, V1, Verdict, envelope,
};

use super::driver::Driver;
use super::testkit::{
    Broker, DEVICE, Device, GALLERY, HttpsHub, HubGallery, Pki, TENANT, link_answer_for, link_key, mosquitto_or_skip,
};
use super::transport::{Connect, Line, LineError, LineEvent, Parcel, Shipment, Will};
use super::*;
use crate::clock::{Clock, ClockQuality, WallTime};
use crate::stages::record::Message;

const PATIENCE: Duration = Duration::from_secs(20);

/// A valid event for this position, as the record stage would write it.
pub(super) fn event_json(position: Position) -> Vec<u8> {
    let data = EventData::FaceAppeared(FaceAppearedData { camera: "front".into(), track: position.sequence });
    let meta = Meta {
        id: EventId(Uuid::from_u128(u128::from(position.sequence) << 64)),
        source: "/test".into(),
        subject: None,
        time: testkit::now(),
        stream: StreamId(*position.stream.as_bytes()),
        sequence: Sequence(position.sequence),
        boot: Uuid::nil(),
        monotonic_ms: 1,
        clock_quality: EventClock::Holdover,
    };
    serde_json::to_vec(&CloudEvent::new(meta, &data)).unwrap()
}

/// A clock that goes forward when the test says so.
#[derive(Default)]
struct HandClock(AtomicU64);

impl HandClock {
    fn forward(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> MonoTime {
        MonoTime::from_millis(1_000_000 + self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> WallTime {
        let ms = testkit::now().unix_ms() + i64::try_from(self.0.load(Ordering::SeqCst)).unwrap();
        let utc = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
        WallTime { utc, quality: ClockQuality::Holdover }
    }
}

/// The far end of a line.
struct Far {
    will: Will,
    shipments: mpsc::Receiver<Shipment>,
    events: mpsc::Sender<LineEvent>,
}

struct ByHand(mpsc::Sender<Far>);

impl Connect for ByHand {
    fn connect(&mut self, _: &Identity, will: Will) -> Result<Line, LineError> {
        let (shipments, received) = mpsc::channel(32);
        let (events, waiting) = mpsc::channel(64);
        self.0.try_send(Far { will, shipments: received, events }).unwrap();
        Ok(Line::new(shipments, waiting, Vec::new()))
    }
}

/// What both ends of the wire know.
fn keys(epoch: u32) -> LinkKeys {
    LinkKeys::derive(&link_key(epoch), DeviceId(DEVICE), epoch)
}

fn down(channel: DownChannel) -> String {
    Topic::Down { tenant: wire_contract::TenantId(TENANT), device: DeviceId(DEVICE), channel }.to_string()
}

fn sealed(channel: DownChannel, payload: &impl serde::Serialize) -> (String, Vec<u8>) {
    let topic = down(channel);
    let context = SealContext::new(Purpose::MQTT_DOWN, TenantId(TENANT), DEVICE, 1).with_topic(&topic);
    let key = SealKey::new(*keys(1).expose_down());
    let bytes = key.seal(&context, &serde_json::to_vec(payload).unwrap()).unwrap();
    (topic, bytes)
}

fn verified(topic: &str, bytes: &[u8]) -> Vec<u8> {
    envelope::parse_up(bytes).unwrap().verify(keys(1).up(), topic).unwrap().to_vec()
}

struct Rig {
    device: Device,
    clock: Arc<HandClock>,
    recorded: watch::Sender<u64>,
    status: watch::Receiver<SyncStatus>,
    stop: CancellationToken,
    lines: mpsc::Receiver<Far>,
    happenings: mpsc::Receiver<Message>,
    task: tokio::task::JoinHandle<()>,
}

fn inputs(device: &Device, clock: SharedClock, recorded: watch::Receiver<u64>, recorder: Recorder) -> Sync {
    Sync {
        identity: device.identity.clone(),
        state_dir: device.dir.path().to_owned(),
        keys: device.keys.clone(),
        outbox: Arc::clone(&device.outbox),
        galleries: Arc::clone(&device.galleries),
        recorded,
        recorder,
        orders: Orders::none(),
        gallery_lease: None,
        about: About { boot: Uuid::from_u128(9), agent_version: "0.1.0".into(), pack: None, space: None },
        clock,
        turns: Arc::default(),
        timing: Timing { backoff_first: Duration::from_millis(10), ..Timing::default() },
    }
}

impl Rig {
    fn start(device: Device) -> Self {
        Self::start_with(device, Orders::none())
    }

    fn start_with(device: Device, orders: Orders) -> Self {
        Self::start_as(device, orders, None)
    }

    fn start_leased(device: Device, lease: Duration) -> Self {
        Self::start_as(device, Orders::none(), Some(lease))
    }

    fn start_as(device: Device, orders: Orders, gallery_lease: Option<Duration>) -> Self {
        let clock = Arc::new(HandClock::default());
        let (recorded, watching) = watch::channel(0);
        let (status, shown) = watch::channel(SyncStatus::default());
        let (recorder, happenings) = Recorder::channel();
        let (far, lines) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let shared: SharedClock = Arc::<HandClock>::clone(&clock);
        let sync = Sync { orders, gallery_lease, ..inputs(&device, shared, watching, recorder) };
        let task = tokio::spawn(Driver::new(sync, status, ByHand(far)).run(stop.clone()));
        Self { device, clock, recorded, status: shown, stop, lines, happenings, task }
    }

    /// The next line that the driver opens, made ready.
    async fn line(&mut self) -> Far {
        let far = self.opened().await;
        let ready = LineEvent::Ready { session_present: false, max_payload: wire_contract::MAX_PAYLOAD_BYTES };
        far.events.send(ready).await.unwrap();
        far
    }

    async fn opened(&mut self) -> Far {
        loop {
            // Waits between attempts are in the clock's time.
            self.clock.forward(Duration::from_millis(50));
            match tokio::time::timeout(Duration::from_millis(100), self.lines.recv()).await {
                Ok(far) => return far.expect("the driver lives"),
                Err(_) => assert!(!self.task.is_finished()),
            }
        }
    }

    fn record(&self, n: usize) {
        self.recorded.send_replace(self.device.append(n));
    }

    async fn pending_becomes(&self, expected: u64) {
        eventually("pending", || self.device.outbox.stats().unwrap().pending == expected).await;
    }
}

/// Waits until something is so, looking every few milliseconds.
async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let seen = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, seen).await.is_ok(), "never: {what}");
}

impl Far {
    /// The next shipment of this kind; others are passed over.
    async fn shipment(&mut self, parcel: Parcel) -> Shipment {
        let found = async {
            loop {
                let shipment = self.shipments.recv().await.expect("the line lives");
                if shipment.parcel == parcel {
                    return shipment;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {parcel:?}"))
    }

    async fn batch(&mut self) -> Batch {
        let shipment = self.shipment(Parcel::Events).await;
        Batch::decode(&verified(&shipment.topic, &shipment.payload)).unwrap()
    }

    async fn status(&mut self) -> Status {
        let shipment = self.shipment(Parcel::Status).await;
        serde_json::from_slice(&verified(&shipment.topic, &shipment.payload)).unwrap()
    }

    async fn say(&self, (topic, payload): (String, Vec<u8>)) {
        self.events.send(LineEvent::Message { topic, payload }).await.unwrap();
    }

    async fn ack(&self, stream: StreamId, through: u64, verdict: Verdict) {
        self.ack_of(1, stream, through, verdict).await;
    }

    async fn ack_of(&self, hub_epoch: u32, stream: StreamId, through: u64, verdict: Verdict) {
        let ack = EvtAck { v: V1, hub_epoch, stream, through: Sequence(through), verdict };
        self.say(sealed(DownChannel::Evtack, &ack)).await;
    }
}

fn span(batch: &Batch) -> (u64, u64) {
    let (first, last) = batch.range().unwrap();
    (first.0, last.0)
}

#[tokio::test]
async fn an_event_leaves_the_outbox_on_the_hubs_sealed_word_and_on_nothing_else() {
    let mut rig = Rig::start(Device::new().linked());
    rig.record(3);
    let mut far = rig.line().await;
    let batch = far.batch().await;
    assert_eq!(span(&batch), (1, 3));
    far.events.send(LineEvent::Taken(Parcel::Events)).await.unwrap();

    let ack = EvtAck { v: V1, hub_epoch: 1, stream: batch.stream, through: Sequence(3), verdict: Verdict::Ok };
    let plain = serde_json::to_vec(&ack).unwrap();
    far.say((down(DownChannel::Evtack), plain)).await;
    let (_, for_gallery) = sealed(DownChannel::Gallery, &ack);
    far.say((down(DownChannel::Evtack), for_gallery)).await;
    far.ack(StreamId([9; 16]), 3, Verdict::Ok).await;
    // The driver takes events in order: once it has answered this rewind, it has seen all of the above.
    far.ack(batch.stream, 0, Verdict::Rewind).await;
    assert_eq!(span(&far.batch().await), (1, 3));
    assert_eq!(rig.device.outbox.stats().unwrap().pending, 3, "a broker's word, a forgery or another stream freed it");

    far.ack(batch.stream, 2, Verdict::Ok).await;
    rig.pending_becomes(1).await;
    far.ack(batch.stream, 3, Verdict::Ok).await;
    rig.pending_becomes(0).await;
    assert!(rig.status.borrow().last_acknowledged_at.is_some());
}

#[tokio::test]
async fn new_events_go_out_at_once_and_a_silent_hub_gets_them_again() {
    let mut rig = Rig::start(Device::new().linked());
    let mut far = rig.line().await;
    rig.record(2);
    let first = far.batch().await;
    assert_eq!(span(&first), (1, 2));
    far.ack(first.stream, 2, Verdict::Ok).await;
    rig.record(1);
    assert_eq!(span(&far.batch().await), (3, 3));
    rig.record(1);
    assert_eq!(span(&far.batch().await), (4, 4));
    rig.clock.forward(Duration::from_secs(10));
    assert_eq!(span(&far.batch().await), (3, 4));
}

#[tokio::test]
async fn a_hub_that_comes_back_after_the_device_gets_what_it_missed_at_once() {
    let mut rig = Rig::start(Device::new().linked());
    rig.record(3);
    let mut far = rig.line().await;
    let batch = far.batch().await;
    far.events.send(LineEvent::Unheard).await.unwrap();
    // The clock stands still: only the announcement can be the cause.
    far.ack(batch.stream, 0, Verdict::Ok).await;
    assert_eq!(span(&far.batch().await), (1, 3));
    far.ack(batch.stream, 0, Verdict::Ok).await;
    assert_eq!(span(&far.batch().await), (1, 3), "without the broker's word too");
}

#[tokio::test]
async fn what_an_earlier_run_left_goes_out_without_a_new_event() {
    let device = Device::new().linked();
    device.append(5);
    let mut rig = Rig::start(device);
    assert_eq!(span(&rig.line().await.batch().await), (1, 5));
}

#[tokio::test]
async fn a_new_line_goes_on_after_what_is_acknowledged() {
    let mut rig = Rig::start(Device::new().linked());
    rig.record(2);
    let mut far = rig.line().await;
    let stream = far.batch().await.stream;
    far.ack(stream, 1, Verdict::Ok).await;
    rig.pending_becomes(1).await;
    far.events.send(LineEvent::Lost(LineError::Congested)).await.unwrap();
    rig.record(1);
    let mut far = rig.line().await;
    assert_eq!(span(&far.batch().await), (2, 3));
}

#[tokio::test]
async fn a_status_that_the_broker_refuses_is_said_again_on_a_new_line() {
    let mut rig = Rig::start(Device::new().linked());
    let mut far = rig.line().await;
    let first = far.status().await;
    far.events.send(LineEvent::Refused(Parcel::Status, "NotAuthorized".into())).await.unwrap();
    eventually("told", || !rig.status.borrow().connected).await;
    assert!(rig.status.borrow().last_error.as_ref().is_some_and(|error| error.contains("access lines")));
    let second = rig.line().await.status().await;
    assert_eq!(second.connection_epoch, first.connection_epoch + 1);
}

#[tokio::test]
async fn long_backlogs_go_out_in_batches_of_128_the_first_alone_and_then_four_at_a_time() {
    let device = Device::new().linked();
    device.append(700);
    let mut rig = Rig::start(device);
    let mut far = rig.line().await;
    assert_eq!(span(&far.batch().await), (1, 128));
    let stream = StreamId(*rig.device.outbox.stats().unwrap().stream.as_bytes());
    far.ack(stream, 128, Verdict::Ok).await;
    let mut spans = Vec::new();
    for _ in 0..4 {
        spans.push(span(&far.batch().await));
    }
    assert_eq!(spans, [(129, 256), (257, 384), (385, 512), (513, 640)]);
    far.ack(stream, 256, Verdict::Ok).await;
    assert_eq!(span(&far.batch().await), (641, 700));
}

#[tokio::test]
async fn a_conflict_begins_a_new_stream() {
    let mut rig = Rig::start(Device::new().linked());
    rig.record(2);
    let mut far = rig.line().await;
    let before = far.batch().await.stream;
    far.ack(before, 1, Verdict::Conflict).await;
    let gap = tokio::time::timeout(PATIENCE, rig.happenings.recv()).await.expect("the gap in time");
    use crate::stages::record::Happening;
    assert!(matches!(gap, Some(Message::Happened(Happening::StreamRenewed { count: 2, .. }))), "{gap:?}");
    eventually("another stream", || rig.device.outbox.stats().unwrap().stream.as_bytes() != &before.0).await;
    rig.record(1);
    let batch = far.batch().await;
    assert_eq!(span(&batch), (1, 1));
    assert_ne!(batch.stream, before);
    far.ack(before, 2, Verdict::Conflict).await;
    far.ack(batch.stream, 9, Verdict::Ok).await;
    let ahead = batch.stream;
    eventually("acknowledged ahead", || rig.device.outbox.stats().unwrap().stream.as_bytes() != &ahead.0).await;
}

#[tokio::test]
async fn a_restored_hub_gets_what_it_lost_and_an_older_one_is_not_believed() {
    let mut rig = Rig::start(Device::new().linked());
    rig.record(4);
    let mut far = rig.line().await;
    let stream = far.batch().await.stream;
    far.ack_of(5, stream, 4, Verdict::Ok).await;
    rig.pending_becomes(0).await;
    far.ack_of(6, stream, 1, Verdict::Ok).await;
    assert_eq!(span(&far.batch().await), (2, 4));
    far.ack_of(5, stream, 4, Verdict::Ok).await;
    far.ack_of(6, stream, 2, Verdict::Ok).await;
    rig.pending_becomes(2).await;
}

#[tokio::test]
async fn the_hub_hears_where_the_galleries_stand_and_records_move_them() {
    let (mut rig, mut hub) = (Rig::start(Device::new().linked()), HubGallery::new(1));
    let mut far = rig.line().await;
    let versions = |shipment: &Shipment| {
        let report = serde_json::from_slice(&verified(&shipment.topic, &shipment.payload)).unwrap();
        let GalleryUp::State { galleries, .. } = report else { panic!("not a state") };
        galleries.iter().map(|state| (state.gallery.0, state.version)).collect::<Vec<_>>()
    };
    assert_eq!(versions(&far.shipment(Parcel::Report).await), [(GALLERY.0, 0)]);
    hub.enrol(1);
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Records(hub.message(1)))).await;
    eventually("applied", || rig.device.galleries.roster().load().lines()[0].version == 2).await;
    rig.clock.forward(Duration::from_secs(1));
    assert_eq!(versions(&far.shipment(Parcel::Report).await), [(GALLERY.0, 2)]);
    rig.clock.forward(Duration::from_secs(60));
    assert_eq!(versions(&far.shipment(Parcel::Report).await), [(GALLERY.0, 2)]);

    let mut lie = hub.message(1);
    hub.enrol(2);
    lie.from = 3;
    lie.records = hub.message(3).records;
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Records(lie))).await;
    let hashes = |shipment: &Shipment| {
        let report = serde_json::from_slice(&verified(&shipment.topic, &shipment.payload)).unwrap();
        let GalleryUp::Hashes(hashes) = report else { panic!("not hashes") };
        hashes
    };
    // Without the time's going on: they do not wait for the next report.
    let said = hashes(&far.shipment(Parcel::Report).await);
    rig.clock.forward(Duration::from_secs(1));
    assert_eq!(versions(&far.shipment(Parcel::Report).await), [(GALLERY.0, 2)]);
    assert_eq!(hashes(&far.shipment(Parcel::Report).await), said, "and again with each report");
    for part in hub.answer(&said) {
        far.say(sealed(DownChannel::Gallery, &GalleryDown::Buckets(part))).await;
    }
    let Some(Message::Happened(happening)) = rig.happenings.recv().await else { panic!("nothing on record") };
    use crate::stages::record::Happening;
    assert!(matches!(happening, Happening::GalleryHealed { version: 4, .. }), "{happening:?}");
    rig.clock.forward(Duration::from_secs(1));
    assert_eq!(versions(&far.shipment(Parcel::Report).await), [(GALLERY.0, 4)]);
}

#[tokio::test]
async fn an_older_epoch_is_put_on_record_once() {
    let mut rig = Rig::start(Device::new().linked());
    let mut far = rig.line().await;
    far.shipment(Parcel::Report).await;
    let mut older = HubGallery::new(0);
    older.enrol(1);
    for _ in 0..3 {
        far.say(sealed(DownChannel::Gallery, &GalleryDown::Records(older.message(1)))).await;
    }
    // Messages are dealt with in turn: when this one is, all three were.
    let mut hub = HubGallery::new(1);
    hub.enrol(1);
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Records(hub.message(1)))).await;
    eventually("applied", || rig.device.galleries.roster().load().lines()[0].version == 2).await;
    use crate::stages::record::Happening;
    let Some(Message::Happened(happening)) = rig.happenings.recv().await else { panic!("nothing on record") };
    assert!(matches!(happening, Happening::OlderEpochOffered { offered: 0, held: 1, .. }), "{happening:?}");
    assert!(rig.happenings.try_recv().is_err(), "whoever repeats it fills no outbox");
}

#[tokio::test]
async fn presence_counts_connections_and_the_last_word_is_offline() {
    let mut rig = Rig::start(Device::new().linked());
    let said = |topic: &str, payload: &[u8]| -> (Presence, u64) {
        let status: Status = serde_json::from_slice(&verified(topic, payload)).unwrap();
        (status.state, status.connection_epoch)
    };
    let mut far = rig.line().await;
    assert_eq!(said(&far.will.topic, &far.will.payload), (Presence::Offline, 1));
    let online = far.shipment(Parcel::Status).await;
    assert!(online.retain);
    assert_eq!(said(&online.topic, &online.payload), (Presence::Online, 1));
    assert!(rig.status.borrow().connected);
    far.events.send(LineEvent::Lost(LineError::Congested)).await.unwrap();
    let mut far = rig.line().await;
    assert_eq!(said(&far.will.topic, &far.will.payload), (Presence::Offline, 2));
    far.shipment(Parcel::Status).await;
    rig.stop.cancel();
    let farewell = far.shipment(Parcel::Farewell).await;
    assert_eq!(said(&farewell.topic, &farewell.payload), (Presence::Offline, 2));
    far.events.send(LineEvent::Taken(Parcel::Farewell)).await.unwrap();
    tokio::time::timeout(PATIENCE, rig.task).await.expect("it stops").unwrap();
}

/// The hub of the long test: commits what follows, answers under the link key, on the broker's inner listener.
#[derive(Default)]
struct SmallHub {
    committed: Mutex<u64>,
    stream: Mutex<Option<StreamId>>,
    batches: AtomicU64,
    statuses: Mutex<Vec<Presence>>,
}

impl SmallHub {
    async fn serve(self: Arc<Self>, port: u16, gallery: Arc<HubGallery>) {
        let mut options = MqttOptions::new("hub", "127.0.0.1", port);
        let mut properties = ConnectProperties::new();
        properties.max_packet_size = Some(100_000);
        options.set_connect_properties(properties);
        let (client, mut socket) = AsyncClient::new(options, 100);
        loop {
            match socket.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    for filter in wire_contract::topic::hub_filters("hub") {
                        client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    let stream = *self.stream.lock();
                    if let Some((topic, payload)) = stream.map(|stream| self.word(stream, Verdict::Ok)) {
                        client.try_publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
                    }
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                    for (topic, payload) in self.answer(&topic, &publish.payload, &gallery) {
                        client.try_publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
                    }
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn word(&self, stream: StreamId, verdict: Verdict) -> (String, Vec<u8>) {
        let through = Sequence(*self.committed.lock());
        sealed(DownChannel::Evtack, &EvtAck { v: V1, hub_epoch: 1, stream, through, verdict })
    }

    fn answer(&self, topic: &str, bytes: &[u8], gallery: &HubGallery) -> Vec<(String, Vec<u8>)> {
        let Ok(Topic::Up { channel, .. }) = topic.parse() else { panic!("{topic}") };
        let payload = verified(topic, bytes);
        match channel {
            UpChannel::Evt => {
                let batch = Batch::decode(&payload).unwrap();
                let (first, last) = span(&batch);
                self.batches.fetch_add(1, Ordering::SeqCst);
                *self.stream.lock() = Some(batch.stream);
                let committed = *self.committed.lock();
                let follows = first <= committed + 1;
                if follows {
                    *self.committed.lock() = last.max(committed);
                }
                vec![self.word(batch.stream, if follows { Verdict::Ok } else { Verdict::Rewind })]
            }
            UpChannel::Gallery => {
                let GalleryUp::State { galleries, .. } = serde_json::from_slice(&payload).unwrap() else {
                    panic!("not a state")
                };
                let behind = galleries.iter().find(|state| state.version < gallery.version());
                let messages = behind.map(|state| gallery.messages(state.version + 1)).unwrap_or_default();
                messages.into_iter().map(|run| sealed(DownChannel::Gallery, &GalleryDown::Records(run))).collect()
            }
            UpChannel::Status => {
                let status: Status = serde_json::from_slice(&payload).unwrap();
                self.statuses.lock().push(status.state);
                Vec::new()
            }
            // The question for the hub's time: this hub gives no commands.
            UpChannel::Cmd => Vec::new(),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_real_broker_the_link_is_fetched_people_arrive_and_no_event_is_lost_over_its_restart() {
    let name = "with_a_real_broker_the_link_is_fetched_people_arrive_and_no_event_is_lost_over_its_restart";
    if !mosquitto_or_skip(name) {
        return;
    }
    let pki = Pki::new();
    let mut broker = Broker::start(&pki, &acl::device(wire_contract::TenantId(TENANT), DeviceId(DEVICE)));
    let https = HttpsHub::start(&pki, true, |asked| {
        if asked.line.starts_with("POST /v1/time ") {
            assert!(!asked.with_certificate, "whoever asks for the time is nobody");
            return (200, asked.hub_time(testkit::now()));
        }
        assert!(asked.line.starts_with("GET /v1/device/link?"), "{}", asked.line);
        assert!(asked.with_certificate, "the link is given to a device with its certificate only");
        (200, serde_json::to_value(link_answer_for(asked.nonce(), 1, &[(GALLERY, 1)])).unwrap())
    })
    .await;
    let mut gallery = HubGallery::new(1);
    (1..=40).for_each(|person| gallery.enrol(person));
    let hub = Arc::new(SmallHub::default());
    let serving = tokio::spawn(Arc::clone(&hub).serve(broker.hub_port, Arc::new(gallery)));

    let device = Device::of(&pki, &https.url, broker.device_port);
    let (recorded, watching) = watch::channel(device.append(300));
    let (status, shown) = watch::channel(SyncStatus::default());
    let (recorder, _happenings) = Recorder::channel();
    let clock: SharedClock = Arc::new(crate::clock::SystemClock::default());
    let stop = CancellationToken::new();
    let mut inputs = inputs(&device, clock, watching, recorder);
    // Whichever of device and hub is back first, nothing waits for a time-out.
    inputs.timing.evtack_timeout = Duration::from_secs(3600);
    let sync = tokio::spawn(run(inputs, status, stop.clone()));

    eventually("everything is acknowledged", || device.outbox.stats().unwrap().pending == 0).await;
    eventually("forty people", || device.galleries.roster().load().lines().iter().any(|l| l.people == 40)).await;
    assert_eq!(shown.borrow().link_epoch, Some(1));

    broker.kill();
    eventually("the loss is noticed", || !shown.borrow().connected).await;
    recorded.send_replace(device.append(100));
    broker.restart();
    eventually("everything is acknowledged again", || device.outbox.stats().unwrap().pending == 0).await;
    assert_eq!(*hub.committed.lock(), 400);

    stop.cancel();
    tokio::time::timeout(PATIENCE, sync).await.expect("it stops").unwrap();
    eventually("offline is said", || hub.statuses.lock().last() == Some(&Presence::Offline)).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_refuses_the_link_is_asked_again_and_named_in_the_status() {
    let pki = Pki::new();
    let https = HttpsHub::start(&pki, true, |_| {
        (403, serde_json::to_value(wire_contract::Problem::of(wire_contract::Code::DeviceRevoked)).unwrap())
    })
    .await;
    let device = Device::of(&pki, &https.url, 1);
    let (_recorded, watching) = watch::channel(0);
    let (status, shown) = watch::channel(SyncStatus::default());
    let (recorder, _happenings) = Recorder::channel();
    let clock: SharedClock = Arc::new(crate::clock::SystemClock::default());
    let stop = CancellationToken::new();
    let sync = tokio::spawn(run(inputs(&device, clock, watching, recorder), status, stop.clone()));
    let named = || shown.borrow().last_error.as_ref().is_some_and(|text| text.contains("device_revoked"));
    eventually("the refusal is named", named).await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, sync).await.expect("it stops").unwrap();
}
