//! Orders and wishes that were captured on their way to a device and are delivered again: at once, after a second, an hour, a
//! month, to another device, after a restart. Played by seed on a clock of its own, with the agent's own rules for commands
//! and twins, the door's own state machine, and real seals.
//!
//! In: a seed and how many deliveries. Out: a [`Score`]. Deliberately absent: the broker and the hub, whose part the row's
//! other half plays for real; the months are why this half has its own clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_agent::sync::commands::{Commands, Deed, Step};
use edge_agent::twin::{Configure, Desired, Refusal, TwinDesk, TwinStore};
use face_core::MonoTime;
use face_core::door::{Door, DoorPolicy, Effect, Input, UnlockCause, step};
use gallery_log::{Purpose, SealContext, SealKey};
use uuid::Uuid;
use wire_contract::command::TimeAnswer;
use wire_contract::{
    Command, CommandDown, CommandId, CommandState, DeviceId, DownChannel, LinkKeys, LogLevel, Order, PersonId,
    RebootTarget, TenantId, Timestamp, Topic, TwinDown, TwinSettings, TwinVersion, V1,
};

use crate::rig::random::Random;

const TENANT: TenantId = TenantId(Uuid::from_u128(1));
/// The hub's clock, and the device's monotonic one, when the game begins.
const HUB_MS: i64 = 1_795_343_851_000;
const MONO_MS: u64 = 86_400_000;
/// Captured messages of a round, and deliveries of each round's end.
const CAPTURED: u64 = 8;
const AT_ONCE: u64 = 100;
/// How long a message lies between its capture and a delivery: mostly within a life, then far beyond any.
const WAITS_MS: [u64; 8] = [0, 0, 20, 1_000, 1_000, 9_000, 3_600_000, 30 * 86_400_000];

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Nothing.
    Nothing,
    /// The device forgets which commands it has seen, and when its run began.
    CommandsForgotten,
    /// The device forgets which desired state it has seen.
    TwinForgotten,
}

/// What deliveries did.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Deliveries of what was captured.
    pub replays: u64,
    /// Those that another device's seal turned down.
    pub turned_down: u64,
    /// Effects of first deliveries.
    pub first_effects: u64,
    /// Effects beyond.
    pub effects: u64,
    /// Doors that opened after the command's life.
    pub late: u64,
    /// Desired states that an older one took the place of.
    pub turned_back: u64,
    /// Starts of the agent.
    pub restarts: u64,
}

impl Score {
    /// Whether nothing happened that should not.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.effects == 0 && self.late == 0 && self.turned_back == 0
    }
}

/// Plays a game of about so many deliveries.
///
/// # Errors
/// When the lab itself fails: a folder, a seal.
pub fn play(seed: u64, replays: u64, wrong: Wrong) -> Result<Score> {
    let mut game = Game::new(seed, wrong)?;
    while game.score.replays < replays {
        let captured = game.capture()?;
        let wanted = AT_ONCE.min(replays - game.score.replays);
        game.replay(&captured, wanted)?;
    }
    Ok(game.score)
}

/// A message as it goes over the line.
#[derive(Clone)]
struct Captured {
    topic: String,
    payload: Vec<u8>,
}

struct Keys {
    device: DeviceId,
    down: SealKey,
}

impl Keys {
    fn new(number: u8) -> Self {
        let device = DeviceId(Uuid::from_u128(100 + u128::from(number)));
        let link = LinkKeys::derive(&[number; 32], device, 1);
        Self { device, down: SealKey::new(*link.expose_down()) }
    }

    fn topic(&self, channel: DownChannel) -> String {
        Topic::Down { tenant: TENANT, device: self.device, channel }.to_string()
    }

    fn context<'a>(&self, topic: &'a str) -> SealContext<'a> {
        SealContext::new(Purpose::MQTT_DOWN, gallery_log::TenantId(TENANT.0), self.device.0, 1).with_topic(topic)
    }

    fn seal(&self, channel: DownChannel, message: &impl serde::Serialize) -> Result<Captured> {
        let topic = self.topic(channel);
        let payload = self.down.seal(&self.context(&topic), &serde_json::to_vec(message)?)?;
        Ok(Captured { topic, payload })
    }
}

/// Counts what is put to use.
#[derive(Clone, Default)]
struct InUse(Arc<Mutex<Vec<TwinVersion>>>);

impl Configure for InUse {
    fn check(&self, _: &Desired) -> Result<(), Refusal> {
        Ok(())
    }

    fn apply(&mut self, desired: &Desired) -> Vec<String> {
        self.0.lock().expect("nobody panics with it").push(desired.version);
        Vec::new()
    }

    fn in_effect(&self) -> TwinSettings {
        TwinSettings::default()
    }
}

struct Game {
    random: Random,
    wrong: Wrong,
    now_ms: u64,
    named: u128,
    wished: u64,
    keys: Keys,
    other: Keys,
    dir: tempfile::TempDir,
    commands: Commands,
    desk: TwinDesk,
    in_use: InUse,
    door: Door,
    given: HashMap<CommandId, Command>,
    done: HashMap<CommandId, u64>,
    score: Score,
}

impl Game {
    fn new(seed: u64, wrong: Wrong) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (keys, in_use) = (Keys::new(1), InUse::default());
        let desk = desk(dir.path(), &keys, &in_use);
        let mut game = Self {
            random: Random::new(seed),
            wrong,
            now_ms: 0,
            named: u128::from(seed) << 64,
            wished: 0,
            keys,
            other: Keys::new(2),
            dir,
            commands: Commands::new(MonoTime::from_millis(MONO_MS)),
            desk,
            in_use,
            door: Door::locked(),
            given: HashMap::new(),
            done: HashMap::new(),
            score: Score::default(),
        };
        game.connect();
        Ok(game)
    }

    fn mono(&self) -> MonoTime {
        MonoTime::from_millis(MONO_MS + self.now_ms)
    }

    fn hub(&self) -> i64 {
        HUB_MS + i64::try_from(self.now_ms).unwrap_or(i64::MAX)
    }

    fn name(&mut self) -> Uuid {
        self.named += 1;
        Uuid::from_u128(self.named)
    }

    /// The hub's time is learned anew: the question, and its answer within the second.
    fn connect(&mut self) {
        let nonce = self.name();
        self.commands.connected(nonce, self.mono());
        self.now_ms += self.random.below(300);
        let answer = TimeAnswer { v: V1, nonce, at: Timestamp::from_unix_ms(self.hub()) };
        let steps = self.commands.on_time(answer, self.mono());
        self.carry_out(steps);
    }

    fn restart(&mut self) {
        self.score.restarts += 1;
        self.commands = Commands::new(self.mono());
        self.door = Door::locked();
        self.desk = desk(self.dir.path(), &self.keys, &self.in_use);
        self.connect();
    }

    /// Fresh orders and a fresh wish, each delivered once.
    fn capture(&mut self) -> Result<Vec<Captured>> {
        let mut captured = Vec::new();
        for _ in 0..CAPTURED {
            self.now_ms += 1 + self.random.below(500);
            let order = self.any_order();
            let life = if matches!(order, Order::Unlock { .. }) { 10_000 } else { 30_000 };
            let id = CommandId(self.name());
            let (issued_at, expires_at) =
                (Timestamp::from_unix_ms(self.hub()), Timestamp::from_unix_ms(self.hub() + life));
            let command = Command { v: V1, id, order, issued_at, expires_at };
            self.given.insert(id, command.clone());
            let message = self.keys.seal(DownChannel::Cmd, &CommandDown::Command(command))?;
            self.deliver(&message)?;
            captured.push(message);
        }
        self.wished += 1;
        let hold = 500 + u32::try_from(self.wished % 5_000)?;
        let settings = serde_json::json!({ "door": { "main": { "hold_ms": hold } } });
        let hash = TwinSettings::parse(&settings)?.hash();
        let desired = TwinVersion { epoch: 1, version: self.wished };
        let message = self.keys.seal(DownChannel::Twin, &TwinDown { v: V1, desired, hash, settings })?;
        self.deliver(&message)?;
        captured.push(message);
        self.score.first_effects = self.done.values().sum::<u64>() + self.wished;
        Ok(captured)
    }

    fn any_order(&mut self) -> Order {
        let door = "main".to_owned();
        match self.random.below(8) {
            0..3 => Order::Unlock { door, hold_ms: None },
            3 => Order::Refresh,
            4 => Order::LogLevel { level: LogLevel::Debug, for_s: Some(60) },
            5 => Order::CollectLogs { max_bytes: None },
            6 => Order::Enrol { door, person: PersonId(Uuid::from_u128(5)), within_s: 20 },
            _ => Order::Reboot { target: RebootTarget::Agent },
        }
    }

    fn replay(&mut self, captured: &[Captured], wanted: u64) -> Result<()> {
        let end = self.score.replays + wanted;
        while self.score.replays < end {
            let wait = WAITS_MS[usize::try_from(self.random.below(WAITS_MS.len() as u64))?];
            self.now_ms += wait;
            match self.random.below(100) {
                0..3 => self.restart(),
                3..12 => self.connect(),
                _ => {}
            }
            let message = &captured[usize::try_from(self.random.below(captured.len() as u64))?];
            for _ in 0..(1 + self.random.below(10)).min(end - self.score.replays) {
                self.score.replays += 1;
                let before = (self.effects(), self.applied());
                if self.random.chance(10) {
                    // To another device: on its topic, or as it was.
                    let topic = self.other.topic(DownChannel::Cmd);
                    let moved = if self.random.chance(50) { topic } else { message.topic.clone() };
                    let opened = self.other.down.open(&self.other.context(&moved), &message.payload).is_ok();
                    self.score.turned_down += u64::from(!opened);
                    self.score.effects += u64::from(opened);
                } else {
                    self.go_wrong();
                    self.deliver(message)?;
                }
                self.score.effects += self.effects() - before.0;
                self.score.turned_back += u64::from(self.applied() != before.1);
            }
        }
        Ok(())
    }

    fn go_wrong(&mut self) {
        match self.wrong {
            Wrong::Nothing => {}
            Wrong::CommandsForgotten => {
                self.commands = Commands::new(MonoTime::from_millis(0));
                self.connect();
            }
            Wrong::TwinForgotten => {
                if let Ok(dir) = tempfile::tempdir() {
                    self.desk = desk(dir.path(), &self.keys, &self.in_use);
                    self.dir = dir;
                }
            }
        }
    }

    fn effects(&self) -> u64 {
        self.done.values().sum()
    }

    /// How often settings were put to use, and which last.
    fn applied(&self) -> (usize, Option<TwinVersion>) {
        let in_use = self.in_use.0.lock().expect("nobody panics with it");
        (in_use.len(), in_use.last().copied())
    }

    /// A message on this device's line.
    fn deliver(&mut self, message: &Captured) -> Result<()> {
        let plain = self.keys.down.open(&self.keys.context(&message.topic), &message.payload)?;
        if message.topic == self.keys.topic(DownChannel::Twin) {
            let wish: TwinDown = serde_json::from_slice(&plain)?;
            self.desk.take(&wish);
            return Ok(());
        }
        let CommandDown::Command(command) = serde_json::from_slice(&plain)? else { return Ok(()) };
        let steps = self.commands.take(command, self.mono());
        self.carry_out(steps);
        Ok(())
    }

    fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Say(_) | Step::Record { .. } => {}
                Step::Open { order, .. } => self.open(order),
                Step::Enrol { order, .. } => {
                    let id = CommandId(order.command);
                    *self.done.entry(id).or_default() += 1;
                    self.commands.settled(id, CommandState::Succeeded, None);
                }
                Step::Do(id, Deed::Reboot { .. }) => {
                    *self.done.entry(id).or_default() += 1;
                    self.reboot(id);
                }
                Step::Do(id, _) => {
                    *self.done.entry(id).or_default() += 1;
                    self.commands.settled(id, CommandState::Succeeded, None);
                }
            }
        }
    }

    /// The order lies before the door for a moment, then the relay is asked.
    fn open(&mut self, order: face_core::door::DoorOrder) {
        let id = CommandId(order.command);
        self.now_ms += self.random.below(50);
        let policy = DoorPolicy { hold: Duration::from_millis(1), ..DoorPolicy::default() };
        let (door, effects) = step(std::mem::take(&mut self.door), Input::Ordered(order), self.mono(), &policy);
        let by_order = |effect: &&Effect| matches!(effect, Effect::Unlock(UnlockCause::Ordered { .. }));
        let opened = effects.iter().filter(by_order).count() as u64;
        // It stands open for a millisecond; the next order finds it shut.
        let after = self.mono() + Duration::from_millis(2);
        self.door = step(door, Input::Tick, after, &policy).0;
        self.now_ms += 2;
        *self.done.entry(id).or_default() += opened;
        let expired = self.given.get(&id).is_none_or(|command| self.hub() - 2 >= command.expires_at.unix_ms());
        self.score.late += opened * u64::from(expired);
        self.commands.settled(id, CommandState::Succeeded, None);
    }

    /// The agent goes, and comes back with the command in its journal.
    fn reboot(&mut self, id: CommandId) {
        self.now_ms += 2_000;
        self.score.restarts += 1;
        self.commands = Commands::new(self.mono());
        self.door = Door::locked();
        self.desk = desk(self.dir.path(), &self.keys, &self.in_use);
        self.commands.returned(id, Order::Reboot { target: RebootTarget::Agent }, self.mono());
        self.connect();
    }
}

fn desk(dir: &std::path::Path, keys: &Keys, in_use: &InUse) -> TwinDesk {
    let mut store = TwinStore::open(dir, keys.device.0);
    let applied = store.start();
    store.came_up();
    TwinDesk::new(store, Box::new(in_use.clone()), applied)
}

/// Plays games until the wrong device was caught, at most so many.
///
/// # Errors
/// As [`play`].
pub fn caught(wrong: Wrong, games: u64) -> Result<u64> {
    let mut caught = 0;
    for seed in 0..games {
        let score = play(seed, 200, wrong).with_context(|| format!("{wrong:?}, seed {seed}"))?;
        caught += score.effects + score.turned_back;
    }
    Ok(caught)
}
