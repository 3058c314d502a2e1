use std::sync::atomic::AtomicBool;
use std::time::Duration;

use face_core::door::DoorOrder;
use face_core::identify::OpenSetRules;
use face_core::liveness::{ChallengeRule, Check, CheckState, Demand, Findings, Method};
use face_core::{Embedding, Similarity, TrackId};
use gallery_log::{Body, DigestKey, GalleryId, Kind, Log, Op, PersonBody, Record, RecordId, TemplateBody};
use parking_lot::Mutex;

use super::super::core::LivenessRules;
use super::*;
use crate::clock::SystemClock;
use crate::gallery::Galleries;
use crate::stages::decide::EnrolOrder;
use crate::stages::identify::Identified;
use crate::stages::perceive::FaceReport;
use crate::stages::record::Message;

const TRACK: TrackId = TrackId(1);
const PERSON: Uuid = Uuid::from_u128(1);

/// A relay that writes down what it is told, and refuses it when the test says so.
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Vec<RelayState>>>, Arc<AtomicBool>);

impl Notebook {
    fn move_to(&self, to: RelayState) -> Result<(), ActuatorError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(ActuatorError::Relay { door: "main".into(), source: std::io::Error::other("no current") });
        }
        self.0.lock().push(to);
        Ok(())
    }
}

impl DoorActuator for Notebook {
    fn unlock(&mut self, _: Order) -> Result<(), ActuatorError> {
        self.move_to(RelayState::Unlocked)
    }

    fn lock(&mut self, _: Order) -> Result<(), ActuatorError> {
        self.move_to(RelayState::Locked)
    }

    fn state(&self) -> RelayState {
        self.0.lock().last().copied().unwrap_or(RelayState::Locked)
    }
}

/// A door task with a gallery of one person; nobody reads its events unless the test does.
struct Site {
    inputs: mpsc::Sender<DoorInput>,
    lockdown: watch::Sender<bool>,
    rules: watch::Sender<Arc<Rules>>,
    told: mpsc::Receiver<OrderTold>,
    messages: mpsc::Receiver<Message>,
    recorder: Recorder,
    relay: Notebook,
    galleries: Galleries,
    log: Log,
    keys: edge_store::GalleryKeys,
    clock: SystemClock,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn site(hold: Duration) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let device = edge_store::DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
    let gallery = GalleryId(Uuid::from_u128(100));
    let keys = edge_store::GalleryKeys { epoch: 1, digest: DigestKey::new([4; 32]), credential: Default::default() };
    device.set_gallery(gallery, &keys).unwrap();
    let (galleries, _) =
        Galleries::open(&dir.path().join("galleries"), device, &face_core::Space::plain("space")).unwrap();
    let mut log = Log::new(gallery, 1);
    let mut embedding = Box::new([0.0; 512]);
    embedding[0] = 1.0;
    let template = TemplateBody { person: PERSON, space_id: "space".into(), quality: 1.0, embedding };
    let bodies = [
        (
            Kind::Person,
            PERSON,
            Body::Person(PersonBody::new(gallery_log::body::PersonState::Active, None, None, vec![])),
        ),
        (Kind::Template, Uuid::from_u128(2), Body::Template(template)),
    ];
    for (kind, id, body) in bodies {
        let (version, body) = (log.version() + 1, body.encode().unwrap());
        let record = Record { gallery, epoch: 1, version, op: Op::Put, kind, id: RecordId(id), rev: 1, body };
        log.apply(&record, &keys.digest).unwrap();
        galleries.apply(gallery, &[record], log.root()).unwrap();
    }
    let (recorder, messages) = Recorder::channel();
    let (sender, inputs) = mpsc::channel(super::super::DOOR_INPUTS);
    let relay = Notebook::default();
    let step = face_core::ThresholdStep { up_to: 100, threshold: Similarity::new(0.442) };
    let ladder = face_core::ThresholdLadder::new(vec![step]).unwrap();
    let rules = Rules {
        door: face_core::door::DoorPolicy { hold, ..Default::default() },
        open_set: OpenSetRules { ladder, margin: 0.05 },
        liveness: Some(LivenessRules {
            demand: Demand::standard(),
            pass_above: 0.5,
            horizon: Duration::from_secs(5),
            challenge: ChallengeRule::Never,
        }),
        min_face_px: 80.0,
        deny_unrecorded: true,
        lockdown_lets: Vec::new(),
    };
    let (lockdown, rules_told) = (watch::Sender::new(false), watch::Sender::new(Arc::new(rules.clone())));
    let (orders_told, told) = mpsc::channel(super::super::ORDERS_TOLD);
    let decide = Decide {
        door: "main".into(),
        camera: "front".into(),
        decider: Decider::new(rules),
        actuator: Box::new(relay.clone()),
        fail: FailMode::Secure,
        inputs,
        roster: galleries.roster(),
        gallery_changes: galleries.changes(),
        lockdown: lockdown.subscribe(),
        rules: rules_told.subscribe(),
        displays: Displays::of(["main".into()]),
        orders_told,
        recorder: recorder.clone(),
        clock: Arc::new(SystemClock::default()),
        turns: Arc::default(),
    };
    let task = tokio::spawn(run(decide));
    let clock = SystemClock::default();
    Site {
        inputs: sender,
        lockdown,
        rules: rules_told,
        told,
        messages,
        recorder,
        relay,
        galleries,
        log,
        keys,
        clock,
        task,
        _dir: dir,
    }
}

impl Site {
    async fn person_stands_there(&self) {
        use crate::clock::Clock;
        let now = self.clock.now();
        let mut raw = [0.0; 512];
        raw[0] = 1.0;
        let probe = Embedding::from_raw(raw).unwrap();
        let roster = self.galleries.roster().load_full();
        let found = Identified {
            track: TRACK,
            shot_at: now,
            quality: 0.9,
            height_px: 120.0,
            generation: roster.generation(),
            n_templates: face_core::Gallery::len(roster.snapshot()),
            ranked: face_core::Gallery::candidates(roster.snapshot(), &probe),
            embedding: Arc::new(probe),
            anchors: Vec::new(),
            same_face: true,
        };
        let report = FaceReport {
            track: TRACK,
            captured_at: now,
            first_seen: now,
            height_px: 120.0,
            liveness: Findings::over(12)
                .with(Method::Passive, Check::measured(CheckState::Pass, 0.9))
                .with(Method::Temporal, Check::measured(CheckState::Pass, 0.02)),
            liveness_at: Some(now),
            vouched_shots: vec![now],
            doubtful_shots: Vec::new(),
            look: None,
            reasons: Vec::new(),
            models_answered: true,
        };
        self.inputs.send(DoorInput::Face(report)).await.unwrap();
        self.inputs.send(DoorInput::Identified(found)).await.unwrap();
    }

    fn delete_the_person(&mut self) {
        let (gallery, version) = (self.log.gallery(), self.log.version() + 1);
        let id = RecordId(PERSON);
        let record =
            Record { gallery, epoch: 1, version, op: Op::Del, kind: Kind::Person, id, rev: 2, body: Vec::new() };
        self.log.apply(&record, &self.keys.digest).unwrap();
        self.galleries.apply(gallery, &[record], self.log.root()).unwrap();
    }

    /// The next event of the door, in a word, with its time.
    async fn event(&mut self) -> (&'static str, MonoTime) {
        let next = async {
            loop {
                match self.messages.recv().await {
                    Some(Message::Happened(Happening::Door { event, at, .. })) => return (word(&event), at),
                    Some(_) => {}
                    None => panic!("the door is gone"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), next).await.expect("an event in time")
    }

    async fn moved(&self, expected: &[RelayState]) {
        let wait = async {
            while *self.relay.0.lock() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(5), wait).await;
        assert!(in_time.is_ok(), "expected {expected:?}, found {:?}", self.relay.0.lock());
    }
}

fn word(event: &DoorEvent) -> &'static str {
    match event {
        DoorEvent::Granted(_) => "granted",
        DoorEvent::Denied { reason: DenyReason::DoorFault, .. } => "fault",
        DoorEvent::Denied { reason: DenyReason::LockedDown, .. } => "locked down",
        DoorEvent::Denied { .. } => "denied",
        DoorEvent::Unlocked { .. } => "unlocked",
        DoorEvent::Locked { .. } => "locked",
        DoorEvent::Prompted { .. } => "prompted",
        DoorEvent::ChallengeEnded(_) => "challenge ended",
    }
}

#[tokio::test]
async fn the_door_opens_and_locks_again_by_itself() {
    let site = site(Duration::from_millis(100));
    site.person_stands_there().await;
    site.moved(&[RelayState::Unlocked, RelayState::Locked]).await;
}

#[tokio::test]
async fn a_deletion_locks_the_open_door_without_any_frame() {
    let mut site = site(Duration::from_secs(60));
    site.person_stands_there().await;
    site.moved(&[RelayState::Unlocked]).await;
    site.delete_the_person();
    site.moved(&[RelayState::Unlocked, RelayState::Locked]).await;
    site.person_stands_there().await;
    tokio::task::yield_now().await;
    site.moved(&[RelayState::Unlocked, RelayState::Locked]).await;
}

#[tokio::test]
async fn a_record_thread_that_hangs_cannot_keep_a_door_open() {
    let site = site(Duration::from_millis(50));
    // Nobody reads the channel: fill it to the brim.
    for _ in 0..2 * crate::stages::record::HAPPENINGS {
        site.recorder.try_record(Happening::SystemStarted { at: MonoTime::START });
    }
    assert!(site.recorder.health().shed() > 0, "the channel is not full");
    site.person_stands_there().await;
    site.moved(&[RelayState::Unlocked, RelayState::Locked]).await;
}

#[tokio::test]
async fn stopping_hands_over_every_event_in_order() {
    let site = site(Duration::from_secs(60));
    site.person_stands_there().await;
    site.moved(&[RelayState::Unlocked]).await;
    let Site { inputs, mut messages, recorder, task, .. } = site;
    drop((inputs, recorder));
    task.await.unwrap();
    let mut told = Vec::new();
    while let Some(Message::Happened(Happening::Door { event, .. })) = messages.recv().await {
        told.push(word(&event));
    }
    assert_eq!(told, ["unlocked", "granted", "locked"]);
}

#[tokio::test]
async fn an_edge_is_told_with_the_time_of_the_relay_however_long_the_disk_takes() {
    use crate::clock::Clock;
    let mut site = site(Duration::from_secs(60));
    for _ in 0..2 * crate::stages::record::HAPPENINGS {
        site.recorder.try_record(Happening::SystemStarted { at: MonoTime::START });
    }
    site.person_stands_there().await;
    site.moved(&[RelayState::Unlocked]).await;
    let moved_by = site.clock.now();
    let (event, at) = site.event().await;
    assert_eq!(event, "unlocked");
    assert!(at <= moved_by, "told as of {at:?}, but it had moved by {moved_by:?}");
}

#[tokio::test]
async fn a_relay_that_refuses_to_open_is_told_and_nobody_counts_as_let_in() {
    let mut site = site(Duration::from_secs(60));
    site.relay.1.store(true, Ordering::Relaxed);
    site.person_stands_there().await;
    assert_eq!([site.event().await.0, site.event().await.0], ["fault", "fault"], "the person's, and the door's own");
    assert!(site.relay.0.lock().is_empty());
    site.relay.1.store(false, Ordering::Relaxed);
    assert_eq!(site.event().await.0, "locked", "the first order that the relay takes again");
    site.person_stands_there().await;
    assert_eq!([site.event().await.0, site.event().await.0], ["unlocked", "granted"]);
    site.moved(&[RelayState::Locked, RelayState::Unlocked]).await;
}

#[tokio::test]
async fn a_relay_that_refuses_to_lock_is_told_and_ordered_until_it_does() {
    let mut site = site(Duration::from_secs(60));
    site.person_stands_there().await;
    assert_eq!([site.event().await.0, site.event().await.0], ["unlocked", "granted"]);
    site.relay.1.store(true, Ordering::Relaxed);
    site.delete_the_person();
    assert_eq!(site.event().await.0, "fault", "no edge is told that did not happen");
    site.relay.1.store(false, Ordering::Relaxed);
    assert_eq!(site.event().await.0, "locked");
    site.moved(&[RelayState::Unlocked, RelayState::Locked]).await;
}

#[tokio::test]
async fn an_order_opens_the_door_and_is_answered_and_a_relay_that_refuses_it_too() {
    use crate::clock::Clock;
    let mut site = site(Duration::from_secs(60));
    let order = |command: u128, not_after| DoorOrder {
        command: Uuid::from_u128(command),
        not_after,
        hold: Some(Duration::from_millis(50)),
    };
    let soon = site.clock.now() + Duration::from_secs(60);
    site.inputs.send(DoorInput::Ordered(order(1, soon))).await.unwrap();
    assert_eq!(
        site.told.recv().await.unwrap(),
        OrderTold { command: Uuid::from_u128(1), outcome: Told::Opened(OrderOutcome::Done) }
    );
    assert_eq!([site.event().await.0, site.event().await.0], ["unlocked", "locked"]);
    site.inputs.send(DoorInput::Ordered(order(2, site.clock.now()))).await.unwrap();
    assert_eq!(site.told.recv().await.unwrap().outcome, Told::Opened(OrderOutcome::Late));
    site.relay.1.store(true, Ordering::Relaxed);
    site.inputs.send(DoorInput::Ordered(order(3, soon))).await.unwrap();
    assert_eq!(site.told.recv().await.unwrap().outcome, Told::Opened(OrderOutcome::Fault));
    site.moved(&[RelayState::Unlocked, RelayState::Locked]).await;
}

#[tokio::test]
async fn a_lock_down_of_before_the_start_holds_and_one_that_begins_shuts_an_open_door() {
    let mut site = site(Duration::from_secs(60));
    site.person_stands_there().await;
    assert_eq!([site.event().await.0, site.event().await.0], ["unlocked", "granted"]);
    site.lockdown.send_replace(true);
    assert_eq!(site.event().await.0, "locked");
    site.person_stands_there().await;
    assert_eq!(site.event().await.0, "locked down");
    let order = DoorOrder { command: Uuid::from_u128(7), not_after: MonoTime::from_nanos(u64::MAX), hold: None };
    site.inputs.send(DoorInput::Ordered(order)).await.unwrap();
    assert_eq!(site.told.recv().await.unwrap().outcome, Told::Opened(OrderOutcome::LockedDown));
    site.moved(&[RelayState::Unlocked, RelayState::Locked]).await;
    site.lockdown.send_replace(false);
    site.person_stands_there().await;
    assert_eq!([site.event().await.0, site.event().await.0], ["unlocked", "granted"]);
}

#[tokio::test]
async fn new_rules_count_from_the_next_face_on() {
    let mut site = site(Duration::from_secs(60));
    let mut rules = Rules::clone(&site.rules.borrow());
    rules.min_face_px = 500.0;
    site.rules.send_replace(Arc::new(rules.clone()));
    // The watch is asked before the inputs.
    site.person_stands_there().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    site.moved(&[]).await;
    rules.min_face_px = 80.0;
    site.rules.send_replace(Arc::new(rules));
    site.person_stands_there().await;
    assert_eq!([site.event().await.0, site.event().await.0], ["unlocked", "granted"]);
}

#[tokio::test]
async fn the_next_good_living_face_is_taken_for_whoever_is_to_be_enrolled() {
    let mut site = site(Duration::from_secs(60));
    let soon = crate::clock::Clock::now(&site.clock) + Duration::from_secs(60);
    let order = EnrolOrder { command: Uuid::from_u128(5), not_after: soon };
    site.inputs.send(DoorInput::Enrol(order)).await.unwrap();
    site.person_stands_there().await;
    let OrderTold { command, outcome: Told::Taken(face) } = site.told.recv().await.unwrap() else { panic!("no face") };
    assert_eq!((command, face.quality), (Uuid::from_u128(5), 0.9));
    assert!((face.embedding.as_slice()[0] - 1.0).abs() < 1e-6);
    // One order, one face; the next waits in vain.
    let now = crate::clock::Clock::now(&site.clock);
    let short = EnrolOrder { command: Uuid::from_u128(6), not_after: now + Duration::from_millis(30) };
    site.inputs.send(DoorInput::Enrol(short)).await.unwrap();
    assert_eq!(site.told.recv().await.unwrap(), OrderTold { command: short.command, outcome: Told::NobodyCame });
}
