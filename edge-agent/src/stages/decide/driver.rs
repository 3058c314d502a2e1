//! The task of one door: asks the decider, moves the relay first, hands events on, wakes up in time.
//!
//! Owned: the decider, the relay, one timer. In: [`DoorInput`]s, gallery changes, the stop. Events wait here while the
//! disk is behind, so that a slow disk can never keep a door from locking; while they wait, recording counts as failing.
//! A relay that refuses an order is a fault of the door: nobody is let in, the refusal goes on record, and the order is
//! given again until the relay takes it. An edge that did not happen is never recorded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use face_core::door::{DenyReason, LockCause, OrderOutcome};
use face_core::{MonoTime, PersonId};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use uuid::{NoContext, Uuid};

use super::core::{Decider, Output, Rules, Surroundings};
use super::{DoorEvent, DoorInput, OrderTold, Told};
use crate::clock::SharedClock;
use crate::door::{ActuatorError, Displays, DoorActuator, FailMode, Order, RelayState};
use crate::gallery::{Roster, Standing};
use crate::logging::chain;
use crate::stages::record::{Happening, RecordHealth, Recorder};

/// Events of one door that may wait for room before recording counts as failing.
const BACKLOG: usize = 64;
/// Between two attempts to move a relay that refuses.
const RELAY_RETRY: Duration = Duration::from_millis(500);
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
    /// Whether the door is in lock-down.
    pub lockdown: watch::Receiver<bool>,
    /// What the door goes by, when that changes.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// What the display beside the door shows.
    pub displays: Displays,
    /// Where answers to an operator's orders go.
    pub orders_told: mpsc::Sender<OrderTold>,
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
    let mut stuck: Option<Stuck> = None;
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let (mut galleries, mut lockdown) = (decide.gallery_changes.clone(), decide.lockdown.clone());
    let mut rules = decide.rules.clone();
    // Before the first face: a lock-down outlives a restart.
    let begun = DoorInput::Lockdown { on: *lockdown.borrow_and_update() };
    let outputs = decide.ask(Some(begun), 0);
    decide.carry_out(outputs, &mut stuck, &mut wake_at, &mut waiting);
    loop {
        decide.turns.fetch_add(1, Ordering::Relaxed);
        let due_at = wake_at.into_iter().chain(stuck.map(|stuck| stuck.retry_at)).min();
        let pause = due_at.map_or(HEARTBEAT, |at| at.since(decide.clock.now()).min(HEARTBEAT));
        let outputs = tokio::select! {
            biased;
            Ok(()) = galleries.changed() => decide.ask(Some(DoorInput::GalleryChanged), waiting.len()),
            Ok(()) = lockdown.changed() => {
                let on = *lockdown.borrow_and_update();
                decide.ask(Some(DoorInput::Lockdown { on }), waiting.len())
            }
            Ok(()) = rules.changed() => {
                let ruled = DoorInput::Ruled(Arc::clone(&rules.borrow_and_update()));
                decide.ask(Some(ruled), waiting.len())
            }
            () = tokio::time::sleep(pause) => {
                decide.retry(&mut stuck, &mut wake_at, &mut waiting);
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
                    room.record(decide.happening(event));
                }
                Vec::new()
            }
            input = decide.inputs.recv() => match input {
                Some(input) => decide.ask(Some(input), waiting.len()),
                None => break,
            },
        };
        decide.carry_out(outputs, &mut stuck, &mut wake_at, &mut waiting);
    }
    decide.finish(waiting).await;
}

/// An event on its way to the record, with the time when it happened.
struct Waiting {
    event: DoorEvent,
    at: MonoTime,
}

/// A relay that refused its last order, or did lately.
#[derive(Clone, Copy)]
struct Stuck {
    retry_at: MonoTime,
    /// Whether the last order was refused: its edge is still to come.
    owes_edge: bool,
}

impl Decide {
    fn happening(&self, Waiting { event, at }: Waiting) -> Happening {
        Happening::Door { door: Arc::clone(&self.door), camera: Arc::clone(&self.camera), event, at }
    }

    /// Asks the decider; `None` means that time has passed. The time is taken here, at the relay call.
    fn ask(&mut self, input: Option<DoorInput>, backlog: usize) -> Vec<Output> {
        let mut around = self.around(backlog);
        let now = self.clock.now();
        match input {
            Some(input) => self.decider.handle(input, now, &mut around),
            None => self.decider.tick(now),
        }
    }

    fn around(&self, backlog: usize) -> Around {
        Around {
            roster: self.roster.load_full(),
            clock: Arc::clone(&self.clock),
            health: self.recorder.health(),
            backlog,
        }
    }

    fn carry_out(
        &mut self,
        outputs: Vec<Output>,
        stuck: &mut Option<Stuck>,
        wake_at: &mut Option<MonoTime>,
        waiting: &mut VecDeque<Waiting>,
    ) {
        let mut outputs = VecDeque::from(outputs);
        let mut moved_at = Some(self.clock.now());
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Relay { to, decision } => {
                    let moved = self.drive(to, decision);
                    let now = self.clock.now();
                    if let (Err(error), None) = (&moved, &stuck) {
                        tracing::error!(event = "relay_failed", alarm = true, door = %self.door, error = chain(error), "the relay did not take the order; it is given again");
                        outputs.extend(self.decider.relay_failed(now, &mut self.around(waiting.len())));
                    }
                    moved_at = moved.ok();
                    if moved_at.is_none() || stuck.is_some() {
                        *stuck = Some(Stuck { retry_at: now + RELAY_RETRY, owes_edge: moved_at.is_none() });
                    }
                }
                Output::WakeAt(at) => *wake_at = Some(wake_at.map_or(at, |earlier| earlier.min(at))),
                Output::Event(event) => waiting.extend(as_it_happened(event, moved_at)),
                Output::Answer(told) => self.answer(told, moved_at.is_some()),
                Output::Guide(show) => self.displays.show(&self.door, show),
            }
        }
    }

    /// Tells the operator. An order that the relay did not take was not carried out.
    fn answer(&self, told: OrderTold, moved: bool) {
        let outcome = match told.outcome {
            Told::Opened(_) if !moved => Told::Opened(OrderOutcome::Fault),
            outcome => outcome,
        };
        let command = told.command;
        if self.orders_told.try_send(OrderTold { command, outcome }).is_err() {
            tracing::warn!(event = "order_not_told", door = %self.door, %command, "nobody takes the answer to an order");
        }
    }

    /// Gives a relay that refused its order once more when it is time. What the relay should do is the decider's word of
    /// this moment.
    fn retry(&mut self, stuck: &mut Option<Stuck>, wake_at: &mut Option<MonoTime>, waiting: &mut VecDeque<Waiting>) {
        let Some(Stuck { retry_at, owes_edge }) = *stuck else { return };
        let now = self.clock.now();
        if now < retry_at {
            return;
        }
        let to = if self.decider.is_unlocked() { RelayState::Unlocked } else { RelayState::Locked };
        let Ok(at) = self.drive(to, None) else {
            *stuck = Some(Stuck { retry_at: now + RELAY_RETRY, owes_edge });
            return;
        };
        *stuck = None;
        tracing::info!(event = "relay_recovered", door = %self.door, "the relay takes orders again");
        if owes_edge {
            let event = match to {
                RelayState::Unlocked => DoorEvent::Unlocked { decision: None, person: None, command: None },
                RelayState::Locked => DoorEvent::Locked { cause: LockCause::Fault },
            };
            waiting.push_back(Waiting { event, at });
        }
        let outputs = self.decider.relay_recovered(now);
        self.carry_out(outputs, stuck, wake_at, waiting);
    }

    /// Moves the relay; the answer is when.
    fn drive(&mut self, to: RelayState, decision: Option<Uuid>) -> Result<MonoTime, ActuatorError> {
        let order = Order { at: self.clock.now(), utc: self.clock.wall().utc, decision };
        match to {
            RelayState::Unlocked => self.actuator.unlock(order)?,
            RelayState::Locked => self.actuator.lock(order)?,
        }
        Ok(order.at)
    }

    /// Drops the relay, which takes its fail state by that, and hands over what is left.
    async fn finish(self, mut waiting: VecDeque<Waiting>) {
        let last = match (self.actuator.state(), self.fail) {
            (RelayState::Unlocked, FailMode::Secure) => Some(DoorEvent::Locked { cause: LockCause::Fault }),
            (RelayState::Locked, FailMode::Safe) => {
                Some(DoorEvent::Unlocked { decision: None, person: None, command: None })
            }
            _ => None,
        };
        let at = self.clock.now();
        waiting.extend(last.map(|event| Waiting { event, at }));
        let happenings: Vec<Happening> = waiting.into_iter().map(|event| self.happening(event)).collect();
        let Self { actuator, recorder, .. } = self;
        drop(actuator);
        for happening in happenings {
            recorder.record(happening).await;
        }
    }
}

/// The event with its time, given when the relay took the order before it. When it did not, there was no edge, and who
/// was granted entry stands before a shut door.
fn as_it_happened(event: DoorEvent, moved_at: Option<MonoTime>) -> Option<Waiting> {
    let event = match event {
        DoorEvent::Granted(context) if moved_at.is_none() => {
            DoorEvent::Denied { context, reason: DenyReason::DoorFault }
        }
        event => event,
    };
    let at = match &event {
        DoorEvent::Granted(context) | DoorEvent::Denied { context, .. } => context.at,
        DoorEvent::Prompted { at, .. } => *at,
        DoorEvent::ChallengeEnded(end) => end.at,
        DoorEvent::Unlocked { .. } | DoorEvent::Locked { .. } => moved_at?,
    };
    Some(Waiting { event, at })
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

    fn is_among(&self, person: PersonId, ids: &[Uuid]) -> bool {
        self.roster.is_among(person, ids)
    }

    fn recording(&self) -> bool {
        self.health.recording() && self.backlog < BACKLOG
    }

    fn decision(&mut self) -> Uuid {
        decision_id(self.clock.wall().utc)
    }

    /// Of the operating system's randomness, which a version 4 id is made of.
    fn nonce(&mut self) -> u64 {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        high ^ low.rotate_left(32)
    }
}

fn decision_id(utc: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(utc.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, utc.nanosecond()))
}

#[cfg(test)]
mod tests;
