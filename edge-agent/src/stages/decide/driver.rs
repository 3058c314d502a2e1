//! The task of one door: asks the decider, moves the relay first, hands events on, wakes up in time.
//!
//! Owned: the decider, the relay, one timer. In: [`DoorInput`]s, gallery changes, the stop. Events wait here while the
//! disk is behind, so that a slow disk can never keep a door from locking; while they wait, recording counts as failing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use face_core::door::LockCause;
use face_core::{MonoTime, PersonId};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use uuid::{NoContext, Uuid};

use super::core::{Decider, Output, Surroundings};
use super::{DoorEvent, DoorInput};
use crate::clock::SharedClock;
use crate::door::{DoorActuator, FailMode, Order, RelayState};
use crate::gallery::{Roster, Standing};
use crate::logging::chain;
use crate::stages::record::{Happening, RecordHealth, Recorder};

/// Events of one door that may wait for room before recording counts as failing.
const BACKLOG: usize = 64;
/// The longest sleep: the watchdog sees the task turn at least this often.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What a door's task owns.
pub struct Decide {
    /// The door's id.
    pub door: Arc<str>,
    /// Its camera's id.
    pub camera: Arc<str>,
    /// The core.
    pub decider: Decider,
    /// The relay.
    pub actuator: Box<dyn DoorActuator>,
    /// What the relay does when the agent stops.
    pub fail: FailMode,
    /// What the stages say.
    pub inputs: mpsc::Receiver<DoorInput>,
    /// The gallery that is current.
    pub roster: Arc<ArcSwap<Roster>>,
    /// Changes with each new roster.
    pub gallery_changes: watch::Receiver<u64>,
    /// Where events go.
    pub recorder: Recorder,
    /// The clock.
    pub clock: SharedClock,
    /// Turns of the loop, for the watchdog.
    pub turns: Arc<AtomicU64>,
}

/// Works the door until every sender of inputs is gone; then the relay takes its fail state and the last events are
/// handed on.
pub async fn run(mut decide: Decide) {
    let mut wake_at: Option<MonoTime> = None;
    let mut waiting: VecDeque<DoorEvent> = VecDeque::new();
    let mut galleries = decide.gallery_changes.clone();
    loop {
        decide.turns.fetch_add(1, Ordering::Relaxed);
        let pause = wake_at.map_or(HEARTBEAT, |at| at.since(decide.clock.now()).min(HEARTBEAT));
        let outputs = tokio::select! {
            biased;
            Ok(()) = galleries.changed() => decide.ask(Some(DoorInput::GalleryChanged), waiting.len()),
            () = tokio::time::sleep(pause) => {
                let due = wake_at.is_some_and(|at| at <= decide.clock.now());
                if due {
                    wake_at = None;
                    decide.ask(None, waiting.len())
                } else {
                    Vec::new()
                }
            }
            Some(room) = decide.recorder.reserve(), if !waiting.is_empty() => {
                if let Some(event) = waiting.pop_front() {
                    room.record(happening(&decide, event));
                }
                Vec::new()
            }
            input = decide.inputs.recv() => match input {
                Some(input) => decide.ask(Some(input), waiting.len()),
                None => break,
            },
        };
        decide.carry_out(outputs, &mut wake_at, &mut waiting);
    }
    decide.finish(waiting).await;
}

fn happening(decide: &Decide, event: DoorEvent) -> Happening {
    let at = match &event {
        DoorEvent::Granted(context) | DoorEvent::Denied { context, .. } => context.at,
        DoorEvent::Unlocked { .. } | DoorEvent::Locked { .. } => decide.clock.now(),
    };
    Happening::Door { door: Arc::clone(&decide.door), camera: Arc::clone(&decide.camera), event, at }
}

impl Decide {
    /// Asks the decider; `None` means that time has passed. The time is taken here, at the relay call.
    fn ask(&mut self, input: Option<DoorInput>, backlog: usize) -> Vec<Output> {
        let mut around = Around {
            roster: self.roster.load_full(),
            clock: Arc::clone(&self.clock),
            health: self.recorder.health(),
            backlog,
        };
        let now = self.clock.now();
        match input {
            Some(input) => self.decider.handle(input, now, &mut around),
            None => self.decider.tick(now),
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>, wake_at: &mut Option<MonoTime>, waiting: &mut VecDeque<DoorEvent>) {
        for output in outputs {
            match output {
                Output::Relay { to, decision } => self.drive(to, decision),
                Output::WakeAt(at) => *wake_at = Some(wake_at.map_or(at, |earlier| earlier.min(at))),
                Output::Event(event) => waiting.push_back(event),
            }
        }
    }

    fn drive(&mut self, to: RelayState, decision: Option<Uuid>) {
        let order = Order { at: self.clock.now(), utc: self.clock.wall().utc, decision };
        let moved = match to {
            RelayState::Unlocked => self.actuator.unlock(order),
            RelayState::Locked => self.actuator.lock(order),
        };
        if let Err(error) = moved {
            tracing::error!(event = "relay_failed", alarm = true, door = %self.door, error = chain(&error), "the relay did not take the order");
        }
    }

    /// Drops the relay, which takes its fail state by that, and hands over what is left.
    async fn finish(self, mut waiting: VecDeque<DoorEvent>) {
        let happenings: Vec<Happening> = {
            let before = self.actuator.state();
            match (before, self.fail) {
                (RelayState::Unlocked, FailMode::Secure) => {
                    waiting.push_back(DoorEvent::Locked { cause: LockCause::Fault });
                }
                (RelayState::Locked, FailMode::Safe) => {
                    waiting.push_back(DoorEvent::Unlocked { decision: None, person: None });
                }
                _ => {}
            }
            waiting.into_iter().map(|event| happening(&self, event)).collect()
        };
        let Self { actuator, recorder, .. } = self;
        drop(actuator);
        for happening in happenings {
            recorder.record(happening).await;
        }
    }
}

/// What is true at the moment of the call.
struct Around {
    roster: Arc<Roster>,
    clock: SharedClock,
    health: Arc<RecordHealth>,
    backlog: usize,
}

impl Surroundings for Around {
    fn gallery_ready(&self) -> bool {
        self.roster.ready()
    }

    fn generation(&self) -> u64 {
        self.roster.generation()
    }

    fn standing(&self, person: PersonId) -> Standing {
        self.roster.standing(person, self.clock.wall())
    }

    fn recording(&self) -> bool {
        self.health.recording() && self.backlog < BACKLOG
    }

    fn decision(&mut self) -> Uuid {
        decision_id(self.clock.wall().utc)
    }
}

fn decision_id(utc: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(utc.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, utc.nanosecond()))
}

#[cfg(test)]
mod tests;
