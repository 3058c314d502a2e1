//! A door with everything behind it but the camera: the agent's own decider, relay driver, record thread and outbox, on a
//! disk that the row fills.
//!
//! A visit is what perceive and identify would say of a known face; it is over when the relay has opened and shut again.
//! Deliberately absent: models (the face is given) and the network (the hub acknowledges at once).

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use edge_agent::clock::{SharedClock, SystemClock};
use edge_agent::door::{ActuatorError, Displays, DoorActuator, FailMode, Order, RelayState};
use edge_agent::gallery::Galleries;
use edge_agent::stages::decide::{Decide, Decider, DoorInput, Rules, run as run_door};
use edge_agent::stages::identify::Identified;
use edge_agent::stages::perceive::FaceReport;
use edge_agent::stages::record::{Happening, Message, Origin, Record, Recorder, run as run_record};
use edge_store::{DeviceKeys, Outbox, OutboxOptions, Priority};
use face_core::door::DoorPolicy;
use face_core::identify::OpenSetRules;
use face_core::liveness::Findings;
use face_core::{Embedding, Gallery as _, Similarity, ThresholdLadder, ThresholdStep, TrackId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::gallery;
use super::state::{People, SPACE, face, open_galleries};
use crate::lab::now;

/// How long the door stays open: as short as lets a row have many visits.
const HOLD: Duration = Duration::from_millis(10);
/// A relay that has not moved by then has missed the visit.
pub const MISSED: Duration = Duration::from_millis(500);
/// Room on the disk below which only access events are taken, bytes.
pub const LOW_SPACE: u64 = 4 << 20;

/// When the relay moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// At once, as in the product.
    First,
    /// When the opening is on disk: the broken variant.
    AfterTheRecord,
}

/// A door at work, with whoever its galleries know.
pub struct Door {
    inputs: mpsc::Sender<DoorInput>,
    moves: Receiver<(RelayState, Instant)>,
    galleries: Galleries,
    clock: SharedClock,
    visits: u64,
    runtime: tokio::runtime::Runtime,
}

/// A door with an outbox on a disk of its own.
pub struct Site {
    door: Door,
    recorder: Recorder,
    outbox: Arc<Outbox>,
    record_thread: Option<JoinHandle<()>>,
    give_up: CancellationToken,
}

/// What the outbox has told since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Entries granted.
    pub granted: u64,
    /// Openings and shuttings of the relay.
    pub moves: u64,
    /// Faces seen: what may be shed.
    pub faces: u64,
    /// Events that gap events say are missing.
    pub missing: u64,
    /// Gap events.
    pub gaps: u64,
}

/// A relay that says when it moved.
struct Notebook {
    moves: SyncSender<(RelayState, Instant)>,
    state: RelayState,
    first_record: Option<Arc<Outbox>>,
}

impl Notebook {
    fn move_to(&mut self, to: RelayState) {
        if let Some(outbox) = &self.first_record {
            let deadline = now() + 2 * MISSED;
            let at = SystemTime::from(SystemClock::utc());
            while outbox.append(at, Priority::MustKeep, |_| b"{}".to_vec()).is_err() && now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.state = to;
        // Nobody listens any more when the row has ended.
        let _ = self.moves.try_send((to, now()));
    }
}

impl DoorActuator for Notebook {
    fn unlock(&mut self, _: Order) -> Result<(), ActuatorError> {
        self.move_to(RelayState::Unlocked);
        Ok(())
    }

    fn lock(&mut self, _: Order) -> Result<(), ActuatorError> {
        self.move_to(RelayState::Locked);
        Ok(())
    }

    fn state(&self) -> RelayState {
        self.state
    }
}

impl Door {
    /// A door over these galleries that goes by this clock. With `first_record` its relay moves when the opening is on disk.
    pub fn open(
        galleries: Galleries,
        clock: SharedClock,
        recorder: Recorder,
        first_record: Option<Arc<Outbox>>,
    ) -> Result<Self> {
        let (inputs, inputs_at_door) = mpsc::channel(edge_agent::stages::decide::DOOR_INPUTS);
        // Two moves a visit, read after each: more than enough.
        let (said, moves) = sync_channel(64);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.spawn(run_door(Decide {
            door: "main".into(),
            camera: "front".into(),
            decider: Decider::new(rules()?),
            actuator: Box::new(Notebook { moves: said, state: RelayState::Locked, first_record }),
            fail: FailMode::Secure,
            inputs: inputs_at_door,
            roster: galleries.roster(),
            gallery_changes: galleries.changes(),
            displays: Displays::of(["main".into()]),
            // Nobody gives this door orders, or other rules.
            lockdown: watch::channel(false).1,
            rules: watch::channel(Arc::new(rules()?)).1,
            orders_told: mpsc::channel(1).0,
            recorder,
            clock: Arc::clone(&clock),
            turns: Arc::default(),
        }));
        Ok(Self { inputs, moves, galleries, clock, visits: 0, runtime })
    }

    /// Person `number` comes to the door and goes again; how long it took from being known to the open door. `None` when the
    /// relay did not move in time.
    pub fn visit(&mut self, number: u64) -> Result<Option<Duration>> {
        self.visits += 1;
        let (report, found) = self.sighting(TrackId(self.visits), number)?;
        while self.moves.try_recv().is_ok() {}
        self.inputs.blocking_send(DoorInput::Face(report))?;
        let begun = now();
        self.inputs.blocking_send(DoorInput::Identified(found))?;
        let opened = match self.moves.recv_timeout(MISSED) {
            Ok((RelayState::Unlocked, at)) => Some(at.duration_since(begun)),
            _ => None,
        };
        self.inputs.blocking_send(DoorInput::Left { track: TrackId(self.visits) })?;
        // Shut again, or the next visit would not open anything.
        if opened.is_some() {
            let shut = self.moves.recv_timeout(4 * MISSED).context("the door did not shut")?;
            ensure!(shut.0 == RelayState::Locked, "the door opened twice");
        }
        Ok(opened)
    }

    fn sighting(&self, track: TrackId, number: u64) -> Result<(FaceReport, Identified)> {
        let (at, roster) = (self.clock.now(), self.galleries.roster().load_full());
        let probe = Embedding::from_slice(&face(number))?;
        let report = FaceReport {
            track,
            captured_at: at,
            first_seen: at,
            height_px: 120.0,
            liveness: Findings::over(12),
            liveness_at: Some(at),
            vouched_shots: vec![at],
            doubtful_shots: Vec::new(),
            look: None,
            reasons: Vec::new(),
            models_answered: true,
        };
        let found = Identified {
            track,
            shot_at: at,
            quality: 0.9,
            height_px: 120.0,
            generation: roster.generation(),
            n_templates: roster.snapshot().len(),
            ranked: roster.snapshot().candidates(&probe),
            embedding: Arc::new(probe),
            anchors: Vec::new(),
            same_face: true,
        };
        Ok((report, found))
    }
}

impl Site {
    /// A door whose state lies in `dir`, with one person in its gallery.
    pub fn open(dir: &Path, relay: Relay) -> Result<Self> {
        let keys = DeviceKeys::open(&dir.join("keys"), None)?;
        keys.set_gallery(gallery::id(), &gallery::keys())?;
        let (galleries, _) = open_galleries(dir, &keys)?;
        let mut people = People::new();
        let records = people.enrol(1)?;
        galleries.apply(gallery::id(), &records, people.root())?;
        let clock: SharedClock = Arc::new(SystemClock::default());
        let options =
            OutboxOptions { low_space_bytes: LOW_SPACE, retention: Duration::ZERO, ..OutboxOptions::default() };
        let at = SystemTime::from(clock.wall().utc);
        let outbox = Arc::new(Outbox::open(&dir.join("outbox"), &keys.outbox()?, options, at)?.0);
        let (recorder, messages) = Recorder::channel();
        let give_up = CancellationToken::new();
        let record_thread = start_recording(&outbox, &recorder, messages, &clock, &give_up);
        let first_record = (relay == Relay::AfterTheRecord).then(|| Arc::clone(&outbox));
        let door = Door::open(galleries, clock, recorder.clone(), first_record)?;
        Ok(Self { door, recorder, outbox, record_thread: Some(record_thread), give_up })
    }

    /// The person comes to the door and goes again: see [`Door::visit`].
    pub fn visit(&mut self) -> Result<Option<Duration>> {
        self.door.visit(1)
    }

    /// A face appears before the camera: an event that may be shed.
    pub fn face_appears(&self) {
        let at = self.door.clock.now();
        self.recorder.try_record(Happening::FaceAppeared { camera: "front".into(), track: TrackId(0), at });
    }

    /// Waits until everything handed over is written or shed; false when that takes longer than `patience`.
    #[must_use]
    pub fn settled(&self, patience: Duration) -> bool {
        let begun = now();
        while now().duration_since(begun) < patience {
            if self.recorder.idle() && self.recorder.health().recording() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether the record thread says that it can write.
    #[must_use]
    pub fn recording(&self) -> bool {
        self.recorder.health().recording()
    }

    /// Reads what is pending, as the hub gets it, and acknowledges it.
    pub fn deliver(&self) -> Result<Told> {
        let mut told = Told::default();
        let stats = self.outbox.stats()?;
        let mut after = stats.acknowledged_through;
        loop {
            let entries = self.outbox.pending(after, 500, 1 << 20)?;
            let Some(last) = entries.last() else { break };
            ensure!(entries[0].sequence == after + 1, "the outbox has a hole after {after}");
            after = last.sequence;
            for entry in &entries {
                let event: serde_json::Value = serde_json::from_slice(&entry.event)?;
                match event["type"].as_str().unwrap_or("") {
                    "lintel.access.granted.v1" => told.granted += 1,
                    "lintel.door.unlocked.v1" | "lintel.door.locked.v1" => told.moves += 1,
                    "lintel.face.appeared.v1" => told.faces += 1,
                    "lintel.system.gap.v1" => {
                        told.gaps += 1;
                        told.missing += event["data"]["count"].as_u64().unwrap_or(0);
                    }
                    _ => {}
                }
            }
        }
        self.outbox.acknowledge(stats.stream, after, SystemTime::from(self.door.clock.wall().utc))?;
        Ok(told)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The record thread may still be at a disk that refuses.
        self.give_up.cancel();
        self.door.runtime.block_on(self.recorder.close());
        if let Some(thread) = self.record_thread.take() {
            let _ = thread.join();
        }
    }
}

fn start_recording(
    outbox: &Arc<Outbox>,
    recorder: &Recorder,
    messages: mpsc::Receiver<Message>,
    clock: &SharedClock,
    give_up: &CancellationToken,
) -> JoinHandle<()> {
    let record = Record {
        outbox: Arc::clone(outbox),
        source: Some("/tenants/a/devices/b".to_owned()),
        origin: Origin { pack: "p".into(), space_id: SPACE.into(), agent_version: "0".into() },
        run: Uuid::from_u128(3),
        clock: Arc::clone(clock),
        health: recorder.health(),
        recorded: watch::channel(0).0,
        turns: Arc::default(),
        give_up: give_up.clone(),
    };
    std::thread::spawn(move || run_record(&record, messages))
}

/// A door without a liveness check (there are no pictures) that goes on while nothing can be recorded.
fn rules() -> Result<Rules> {
    let step = ThresholdStep { up_to: 100, threshold: Similarity::new(0.442) };
    Ok(Rules {
        door: DoorPolicy { hold: HOLD, regrant: Duration::ZERO, ..Default::default() },
        open_set: OpenSetRules { ladder: ThresholdLadder::new(vec![step])?, margin: 0.05 },
        liveness: None,
        min_face_px: 80.0,
        deny_unrecorded: false,
        lockdown_lets: Vec::new(),
    })
}
