//! Every task and channel of the agent, on one page.
//!
//! ```text
//!  camera thread ──frame slot (newest wins)──► perceive thread ──shots (8, full: dropped)──► identify thread
//!                                                    │                                            │
//!                                                    └────── door inputs (64, full: waits) ───────┤
//!                                                                                                 ▼
//!  gallery changes (watch) ────────────────────────────────────────────────────────────────► door task ──► relay
//!                                                                                                 │
//!                       record thread ◄──────── happenings (256, full: waits or is counted) ──────┘
//!                            │ outbox, fsynced
//!                            └──recorded (watch)──► sync ◄──► hub        control socket, door socket, watchdog beside it
//! ```
//!
//! Stop order: capture (perceive and identify end, doors run dry and lock), drain (record writes what was handed over),
//! flush (sync sends what it can and disconnects). Each step has a limit, together below the unit's `TimeoutStopSec`.

mod cameras;
mod desk;
mod doors;
mod live;
mod status;
mod stores;
mod watchdog;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use stores::{credentials_dir, open_clock, prepare_dirs};

use anyhow::{Context, Result, bail};
use edge_store::{ClockStore, DeviceKeys, Identity, Outbox};
use face_runtime::ModelPack;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::desk::Desk;
use self::live::Live;
use crate::clock::{Clock, SharedClock, SystemClock, keeper};
use crate::config::{Config, Sources};
use crate::control::{self, control_socket};
use crate::door::{Displays, bind_unix};
use crate::gallery::Galleries;
use crate::lockdown::Lockdowns;
use crate::logging::LogDesk;
use crate::models;
use crate::stages::decide::DoorInput;
use crate::stages::record::{Happening, Origin, Record, Recorder};
use crate::stages::{decide, identify, perceive, record};
use crate::sync::{self, Hands, Sync, SyncStatus};
use crate::twin::{Desired, TwinDesk, TwinStore};

/// Limits of the three steps of a stop.
const CAPTURE_LIMIT: Duration = Duration::from_secs(5);
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// What a task is, for the stop and for the name of one that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Perceive,
    Identify,
    Door,
    Record,
    Sync,
    Server,
}

/// What an agent is started with.
#[derive(Debug)]
pub struct Start {
    /// The configuration, with the hub's settings in it.
    pub config: Config,
    /// Where it came from.
    pub sources: Sources,
    /// What is kept of the twin; none without an identity.
    pub twin: Option<TwinStore>,
    /// The settings of the hub that are in the configuration.
    pub desired: Option<Desired>,
    /// The log.
    pub log: LogDesk,
}

/// What comes after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The end.
    Stop,
    /// Another one: an operator has ordered it.
    Restart,
}

/// Runs the agent until SIGTERM, SIGINT or an order to start anew.
///
/// # Errors
/// When something cannot be opened at the start, or a part ended by itself.
pub async fn run(start: Start) -> Result<After> {
    let Start { config, sources, twin, desired, log } = start;
    let began = SystemClock::default();
    let started_at = began.now();
    let mut signals = Signals::new()?;
    stores::prepare_dirs(&config.agent)?;
    // Sockets first: another agent that is running is found out before anything of its state is touched.
    let control = bind_unix(&control_socket(&config.agent.runtime_dir), 0o600)?;
    let stop_servers = CancellationToken::new();
    let desk = Arc::new(Desk::new(began.clone()));
    let answering = tokio::spawn(control::serve(control, Arc::clone(&desk) as _, stop_servers.clone()));
    let opening_models = tokio::task::spawn_blocking({
        let config = config.models.clone();
        move || models::open(&config)
    });
    let opening_stores = tokio::task::spawn_blocking({
        let config = config.clone();
        move || stores::open(&config)
    });
    let opened = opening_stores.await.context("opening the stores panicked")??;
    let clock: SharedClock = Arc::new(opened.clock.clone());
    let lease_ended = stores::enforce_lease(&config, &opened, &clock);
    let (mut sockets, relays) = (Vec::new(), doors::open_relays(&config, &clock)?);
    let pack = watchdog::waiting_for_models(opening_models).await.context("opening the models panicked")??;
    let live = Live::new(&config, sources, Arc::clone(&pack), log.clone());
    let lockdowns = Lockdowns::open(&config.agent.state_dir, config.doors.iter().map(|door| door.id.clone()));
    let mut agent = Agent::new(&config, opened, Arc::clone(&pack), clock, stop_servers);
    let mut house = House { live, lockdowns: Arc::new(lockdowns) };
    let (restart, mut restarts) = mpsc::channel(1);
    let (shots_in, shots_out) = crossbeam_channel::bounded(identify::SHOTS);
    let inputs = agent.doors(&config, relays, &mut house, &mut sockets)?;
    agent.identify(shots_out, &inputs);
    agent.cameras(&config, &shots_in, inputs, &house.live)?;
    drop(shots_in);
    agent.record();
    let hands = Hands {
        lockdowns: Some(Arc::clone(&house.lockdowns)),
        log,
        restart: Some(restart),
        reboot_command: config.agent.reboot_command.clone(),
    };
    let twin = twin.map(|mut store| {
        // Everything that the settings could break has been opened.
        store.came_up();
        TwinDesk::new(store, Box::new(house.live), desired)
    });
    agent.sync(&config, hands, twin);
    agent.servers(&config, &desk, answering, sockets, house.lockdowns);
    for (gallery, epoch) in lease_ended {
        let (code, at) = (wire_contract::Code::LeaseExpired, agent.clock.now());
        agent.recorder.record(Happening::GalleryRebuilt { gallery: gallery.0, epoch, code, at }).await;
    }
    agent.recorder.record(Happening::SystemStarted { at: agent.clock.now() }).await;
    let ready_ms = agent.clock.now().since(started_at).as_secs_f64() * 1e3;
    tracing::info!(
        event = "ready",
        ready_ms = ready_ms.round(),
        cameras = config.cameras.len(),
        doors = config.doors.len(),
        claimed = agent.identity.is_some(),
        "the agent is ready"
    );
    watchdog::ready();
    let ended = tokio::select! {
        name = signals.next() => {
            tracing::info!(event = "stopping", signal = name, "the agent stops");
            watchdog::stopping();
            Ok(After::Stop)
        }
        Some(()) = restarts.recv() => {
            tracing::info!(event = "restarting", "the agent stops, and starts anew");
            Ok(After::Restart)
        }
        ended = agent.part_ended() => Err(ended),
    };
    if ended.is_err() {
        watchdog::stopping();
    }
    agent.stop().await;
    match ended {
        Ok(after) => Ok(after),
        Err((part, None)) => bail!("the part {part:?} ended by itself"),
        Err((part, Some(error))) => Err(error).with_context(|| format!("the part {part:?} failed")),
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What of doors and cameras changes while the agent runs.
struct House {
    live: Live,
    lockdowns: Arc<Lockdowns>,
}

/// The running parts and what they share.
struct Agent {
    tasks: JoinSet<()>,
    parts: HashMap<Id, Part>,
    pack: Arc<ModelPack>,
    clock: SharedClock,
    identity: Option<Identity>,
    state_dir: PathBuf,
    keys: DeviceKeys,
    outbox: Arc<Outbox>,
    galleries: Arc<Galleries>,
    clock_keeping: Option<(SystemClock, ClockStore)>,
    recorder: Recorder,
    messages: Option<mpsc::Receiver<record::Message>>,
    recorded: watch::Sender<u64>,
    /// The doors that the hub may open, and what they answer.
    ordered: HashMap<String, mpsc::WeakSender<DoorInput>>,
    orders_told: (mpsc::Sender<decide::OrderTold>, Option<mpsc::Receiver<decide::OrderTold>>),
    /// What the displays beside the doors show.
    displays: Displays,
    origin: Origin,
    run: Uuid,
    link: watch::Sender<SyncStatus>,
    cameras: Vec<cameras::Running>,
    beats: Vec<watchdog::Beat>,
    stop_capture: CancellationToken,
    give_up: CancellationToken,
    stop_sync: CancellationToken,
    stop_servers: CancellationToken,
}

/// The inputs of the doors of each camera.
type DoorInputs = HashMap<Arc<str>, Vec<mpsc::Sender<DoorInput>>>;

impl Agent {
    fn new(
        config: &Config,
        opened: stores::Opened,
        pack: Arc<ModelPack>,
        clock: SharedClock,
        stop_servers: CancellationToken,
    ) -> Self {
        let (recorder, messages) = Recorder::channel();
        let origin = Origin {
            pack: models::pack_name(&pack),
            space_id: pack.manifest().space_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let clock_keeping = (opened.clock, opened.clock_store);
        for rebuilt in opened.rebuilt {
            recorder.try_record(Happening::GalleryRebuilt {
                gallery: rebuilt.gallery.0,
                epoch: rebuilt.epoch,
                code: wire_contract::Code::StoreDoubtful,
                at: clock.now(),
            });
        }
        if let Some(renewal) = opened.renewal {
            let (utc, count) = (clock.wall().utc, renewal.may_lack().unwrap_or(0));
            recorder.try_record(Happening::StreamRenewed { from: utc, until: utc, count, at: clock.now() });
        }
        let (told, tells) = mpsc::channel(decide::ORDERS_TOLD);
        Self {
            ordered: HashMap::new(),
            orders_told: (told, Some(tells)),
            displays: Displays::of(config.doors.iter().map(|door| door.id.as_str().into())),
            tasks: JoinSet::new(),
            parts: HashMap::new(),
            pack,
            clock,
            identity: opened.identity,
            state_dir: config.agent.state_dir.clone(),
            keys: opened.keys,
            outbox: opened.outbox,
            galleries: opened.galleries,
            clock_keeping: Some(clock_keeping),
            recorder,
            messages: Some(messages),
            recorded: watch::channel(0).0,
            origin,
            run: Uuid::new_v4(),
            link: watch::channel(SyncStatus::default()).0,
            cameras: Vec::new(),
            beats: Vec::new(),
            stop_capture: CancellationToken::new(),
            give_up: CancellationToken::new(),
            stop_sync: CancellationToken::new(),
            stop_servers,
        }
    }

    fn beat(&mut self, name: String) -> Arc<AtomicU64> {
        let turns = Arc::new(AtomicU64::new(0));
        self.beats.push(watchdog::Beat::new(name, Arc::clone(&turns)));
        turns
    }

    /// One task a door.
    fn doors(
        &mut self,
        config: &Config,
        relays: Vec<doors::Relay>,
        house: &mut House,
        sockets: &mut Vec<crate::door::Watch>,
    ) -> Result<DoorInputs> {
        let mut inputs: DoorInputs = HashMap::new();
        for relay in relays {
            let (sender, receiver) = mpsc::channel(decide::DOOR_INPUTS);
            self.ordered.insert(relay.config.id.clone(), sender.downgrade());
            let turns = self.beat(format!("door {}", relay.config.id));
            let camera: Arc<str> = relay.config.camera.as_str().into();
            let rules = doors::rules(config, &relay.config, &self.pack)?;
            let door = decide::Decide {
                door: relay.config.id.as_str().into(),
                camera: Arc::clone(&camera),
                lockdown: house.lockdowns.of(&relay.config.id).expect("every configured door has its lock-down"),
                rules: house.live.rules_of(&relay.config.id, rules.clone()),
                decider: decide::Decider::new(rules),
                actuator: Box::new(relay.actuator),
                fail: relay.config.fail,
                inputs: receiver,
                roster: self.galleries.roster(),
                gallery_changes: self.galleries.changes(),
                displays: self.displays.clone(),
                orders_told: self.orders_told.0.clone(),
                recorder: self.recorder.clone(),
                clock: Arc::clone(&self.clock),
                turns,
            };
            inputs.entry(camera).or_default().push(sender);
            sockets.push(relay.watch);
            self.spawn(Part::Door, async move {
                decide::run(door).await;
            });
        }
        Ok(inputs)
    }

    /// One thread that embeds and searches for all cameras.
    fn identify(&mut self, shots: crossbeam_channel::Receiver<perceive::Shot>, inputs: &DoorInputs) {
        let turns = self.beat("identify".to_owned());
        let identify = identify::Identify { shots, doors: inputs.clone(), roster: self.galleries.roster(), turns };
        let (pack, stop) = (Arc::clone(&self.pack), self.stop_capture.clone());
        self.thread(Part::Identify, move || {
            identify::run(&identify, &*pack, &stop);
        });
    }

    /// One thread a camera.
    fn cameras(
        &mut self,
        config: &Config,
        shots: &crossbeam_channel::Sender<perceive::Shot>,
        mut inputs: DoorInputs,
        live: &Live,
    ) -> Result<()> {
        for camera in &config.cameras {
            let doors = inputs.remove(camera.id.as_str()).unwrap_or_default();
            let outlets = perceive::Outlets { doors, shots: shots.clone(), recorder: self.recorder.clone() };
            let (running, perceive) = cameras::open(config, camera, outlets, live.cadence(), &self.clock)?;
            self.beats.push(watchdog::Beat::new(format!("camera {}", camera.id), running.turns()));
            self.cameras.push(running);
            let (pack, stop) = (Arc::clone(&self.pack), self.stop_capture.clone());
            self.thread(Part::Perceive, move || {
                perceive::run(perceive, &*pack, &stop);
            });
        }
        Ok(())
    }

    /// One thread that writes events.
    fn record(&mut self) {
        let turns = self.beat("record".to_owned());
        let recorder = self.recorder.clone();
        if let Some(beat) = self.beats.last_mut() {
            beat.may_rest(Box::new(move || recorder.idle()));
        }
        let source = self.identity.as_ref().map(|identity| {
            wire_contract::event::device_source(
                wire_contract::TenantId(identity.tenant),
                wire_contract::DeviceId(identity.device),
            )
        });
        if source.is_none() {
            tracing::warn!(
                event = "unclaimed",
                "this device has no identity: doors stay shut and nothing is recorded; run `edge-agent claim`"
            );
        }
        let record = Record {
            outbox: Arc::clone(&self.outbox),
            source,
            origin: self.origin.clone(),
            run: self.run,
            clock: Arc::clone(&self.clock),
            health: self.recorder.health(),
            recorded: self.recorded.clone(),
            turns,
            give_up: self.give_up.clone(),
        };
        let messages = self.messages.take().expect("the record thread is started once");
        self.thread(Part::Record, move || {
            record::run(&record, messages);
        });
    }

    /// The link to the hub, for a device that has one.
    fn sync(&mut self, config: &Config, hands: Hands, twin: Option<TwinDesk>) {
        let (Some(identity), Some(told)) = (self.identity.clone(), self.orders_told.1.take()) else { return };
        let orders = sync::Orders::new(std::mem::take(&mut self.ordered), told).with(hands);
        let orders = match twin {
            Some(twin) => orders.with_twin(twin),
            None => orders,
        };
        let sync = Sync {
            identity,
            state_dir: self.state_dir.clone(),
            keys: self.keys.clone(),
            outbox: Arc::clone(&self.outbox),
            galleries: Arc::clone(&self.galleries),
            recorded: self.recorded.subscribe(),
            recorder: self.recorder.clone(),
            orders,
            gallery_lease: config.sync.lease(),
            about: sync::About {
                boot: self.run,
                agent_version: self.origin.agent_version.clone(),
                pack: Some(self.origin.pack.clone()),
                space: Some(self.pack.manifest().space()),
            },
            clock: Arc::clone(&self.clock),
            turns: self.beat("sync".to_owned()),
            timing: sync::Timing::default(),
        };
        let (status, stop) = (self.link.clone(), self.stop_sync.clone());
        self.spawn(Part::Sync, sync::run(sync, status, stop));
    }

    /// Control socket, door sockets, what is known of the time, watchdog.
    fn servers(
        &mut self,
        config: &Config,
        desk: &Desk,
        answering: JoinHandle<()>,
        sockets: Vec<crate::door::Watch>,
        lockdowns: Arc<Lockdowns>,
    ) {
        let board = status::Board {
            started_at: self.clock.now(),
            clock: Arc::clone(&self.clock),
            outbox: Arc::clone(&self.outbox),
            roster: self.galleries.roster(),
            link: self.link.subscribe(),
            health: self.recorder.health(),
            origin: self.origin.clone(),
            models: models::providers_told(&self.pack),
            identity: self.identity.as_ref().map(|identity| (identity.tenant, identity.device)),
            pack: Arc::clone(&self.pack),
            cameras: self.cameras.clone(),
            doors: config.doors.iter().map(|door| door.id.clone()).collect(),
            lockdowns,
            displays: self.displays.clone(),
        };
        desk.take_over(board);
        self.spawn(Part::Server, async move {
            // It ends when it is told to; a panic of its own ends this part, and with it the agent.
            answering.await.expect("the control socket's server does not panic");
        });
        for watch in sockets {
            let stop = self.stop_servers.clone();
            self.spawn(Part::Server, async move {
                watch.serve(stop).await;
            });
        }
        if let Some((clock, store)) = self.clock_keeping.take() {
            self.spawn(Part::Server, keeper::run(clock, store, self.stop_servers.clone()));
        }
        let (beats, stop) = (std::mem::take(&mut self.beats), self.stop_servers.clone());
        self.spawn(Part::Server, async move {
            watchdog::run(beats, stop).await;
        });
    }

    /// Capture, drain, flush.
    async fn stop(mut self) {
        let doors = |part: Part| matches!(part, Part::Perceive | Part::Identify | Part::Door);
        self.stop_capture.cancel();
        self.wait_for(doors, CAPTURE_LIMIT, "capture and doors").await;
        self.recorder.close().await;
        let record = |part: Part| part == Part::Record;
        if !self.wait_for(record, DRAIN_LIMIT, "recording").await {
            self.give_up.cancel();
        }
        self.stop_sync.cancel();
        self.wait_for(|part| part == Part::Sync, FLUSH_LIMIT, "sync").await;
        self.stop_servers.cancel();
        self.wait_for(|_| true, Duration::from_secs(1), "servers").await;
        self.tasks.abort_all();
        tracing::info!(event = "stopped", "the agent has stopped");
    }

    fn spawn(&mut self, part: Part, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.parts.insert(id, part);
    }

    fn thread(&mut self, part: Part, work: impl FnOnce() + Send + 'static) {
        let id = self.tasks.spawn_blocking(work).id();
        self.parts.insert(id, part);
    }

    /// The next part that ends, and how if not in order. Never resolves while none does.
    async fn part_ended(&mut self) -> (Part, Option<JoinError>) {
        let Some(ended) = self.tasks.join_next_with_id().await else { return std::future::pending().await };
        let (id, error) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        (self.parts.remove(&id).unwrap_or(Part::Server), error)
    }

    /// Waits until no task of the wanted parts is left. False when time was up.
    async fn wait_for(&mut self, wanted: impl Fn(Part) -> bool, limit: Duration, what: &str) -> bool {
        let all_ended = async {
            while self.parts.values().any(|part| wanted(*part)) {
                if let (part, Some(error)) = self.part_ended().await {
                    tracing::error!(event = "part_failed", ?part, %error, "a part failed while stopping");
                }
            }
        };
        let in_time = tokio::time::timeout(limit, all_ended).await.is_ok();
        if !in_time {
            tracing::error!(event = "stop_limit", what, limit_s = limit.as_secs(), "did not end in time");
        }
        in_time
    }
}
