//! Which commands are carried out: each once, in time by the hub's clock, or not at all.
//!
//! In: commands and the hub's time as they come over the line, what became of orders, the monotonic time. Out: [`Step`]s.
//! The hub's time is learned anew on each connection, by a question with a nonce: the hub stamped its answer after it was
//! asked, so that `answer + time since the question` is never behind the hub's clock, and no command is carried out late.
//! A command given before this run of the agent began may have been carried out by the run before; it is refused. A
//! command that comes before the answer waits for it.
//!
//! Deliberately absent: sockets and doors (the driver's), who may give orders (the hub's).

use std::collections::HashMap;
use std::time::Duration;

use face_core::MonoTime;
use face_core::door::{DoorOrder, OrderOutcome};
use uuid::Uuid;
use wire_contract::command::{MAX_ORDERED_HOLD_MS, TimeAnswer, TimeRequest, UNLOCK_LIFETIME_MS};
use wire_contract::{Code, Command, CommandId, CommandProgress, CommandState, Order, Timestamp, V1};

/// A question without an answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// The hub's time is asked for anew: a quartz that is off by 100 in a million gains 0.36 s an hour.
const ANCHOR_AGE: Duration = Duration::from_secs(3600);
/// Commands that wait for the hub's time. An operator gives one or two; more is nobody's intention.
const WAITING: usize = 16;
/// How much longer than its life a command is remembered: the broker may deliver it again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Tell the hub how far a command got.
    Say(CommandProgress),
    /// Hand an order to a door.
    Open {
        /// The door's id.
        door: String,
        /// The order.
        order: DoorOrder,
    },
    /// Fetch keys, report galleries; then call [`Commands::settled`].
    Refresh(CommandId),
}

/// The commands of this run.
#[derive(Debug)]
pub(super) struct Commands {
    run_began: MonoTime,
    asked: Option<(Uuid, MonoTime)>,
    anchor: Option<Anchor>,
    waiting: Vec<Command>,
    known: HashMap<CommandId, Known>,
}

/// The hub's time, never behind it.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    at: Timestamp,
    asked_at: MonoTime,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    state: CommandState,
    code: Option<Code>,
    forget_at: MonoTime,
}

impl Anchor {
    /// The hub's time at `now`, or a little more.
    fn hub_ms(&self, now: MonoTime) -> i64 {
        self.at.unix_ms() + millis(now.since(self.asked_at)) - millis(self.asked_at.since(now))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Commands {
    pub(super) fn new(now: MonoTime) -> Self {
        Self { run_began: now, asked: None, anchor: None, waiting: Vec::new(), known: HashMap::new() }
    }

    /// A new connection: what was learned on the one before does not count.
    pub(super) fn connected(&mut self, nonce: Uuid, now: MonoTime) -> TimeRequest {
        self.anchor = None;
        self.waiting.clear();
        self.ask(nonce, now)
    }

    /// A question that is due: the last one was not answered, or its answer has grown old.
    pub(super) fn due(&mut self, nonce: Uuid, now: MonoTime) -> Option<TimeRequest> {
        self.known.retain(|_, known| now < known.forget_at);
        let age = |at: MonoTime| now.since(at);
        let unanswered = self.asked.is_some_and(|(_, at)| age(at) >= ASK_AGAIN);
        let old = self.asked.is_none() && self.anchor.is_some_and(|anchor| age(anchor.asked_at) >= ANCHOR_AGE);
        (unanswered || old).then(|| self.ask(nonce, now))
    }

    fn ask(&mut self, nonce: Uuid, now: MonoTime) -> TimeRequest {
        self.asked = Some((nonce, now));
        TimeRequest { v: V1, nonce }
    }

    /// When the question was asked that has this nonce, if it is the last one and unanswered.
    pub(super) fn asked_at(&self, nonce: Uuid) -> Option<MonoTime> {
        self.asked.filter(|(asked, _)| *asked == nonce).map(|(_, at)| at)
    }

    /// The hub's answer. One to another question is old, or somebody else's.
    pub(super) fn on_time(&mut self, answer: TimeAnswer, now: MonoTime) -> Vec<Step> {
        let Some((_, asked_at)) = self.asked.filter(|(nonce, _)| *nonce == answer.nonce) else { return Vec::new() };
        self.asked = None;
        self.anchor = Some(Anchor { at: answer.at, asked_at });
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().flat_map(|command| self.take(command, now)).collect()
    }

    /// A command from the hub.
    pub(super) fn take(&mut self, command: Command, now: MonoTime) -> Vec<Step> {
        let id = command.id;
        if let Some(known) = self.known.get(&id) {
            return vec![say(id, known.state, known.code)];
        }
        let Some(anchor) = self.anchor else {
            if self.waiting.len() < WAITING && self.waiting.iter().all(|waiting| waiting.id != id) {
                self.waiting.push(command);
            }
            return Vec::new();
        };
        let (hub_now, run_began) = (anchor.hub_ms(now), anchor.hub_ms(self.run_began));
        let left = command.expires_at.unix_ms() - hub_now;
        let forget_at = now + Duration::from_millis(u64::try_from(left).unwrap_or(0)) + REMEMBERED;
        if left <= 0 || command.issued_at.unix_ms() < run_began {
            return self.refuse(id, CommandState::Expired, Code::CommandExpired, forget_at);
        }
        let left = Duration::from_millis(left.unsigned_abs());
        match command.order {
            Order::Unlock { door, hold_ms } => {
                let lifetime = command.expires_at.unix_ms() - command.issued_at.unix_ms();
                let hold_ok = hold_ms.is_none_or(|hold| (1..=MAX_ORDERED_HOLD_MS).contains(&hold));
                if lifetime > UNLOCK_LIFETIME_MS || !hold_ok {
                    return self.refuse(id, CommandState::Failed, Code::InvalidField, forget_at);
                }
                let hold = hold_ms.map(|hold| Duration::from_millis(hold.into()));
                let order = DoorOrder { command: id.0, not_after: now + left, hold };
                self.begin(id, forget_at, Step::Open { door, order })
            }
            Order::Refresh => self.begin(id, forget_at, Step::Refresh(id)),
            Order::Unknown => self.refuse(id, CommandState::Failed, Code::CommandUnknown, forget_at),
        }
    }

    fn begin(&mut self, id: CommandId, forget_at: MonoTime, step: Step) -> Vec<Step> {
        self.known.insert(id, Known { state: CommandState::Executing, code: None, forget_at });
        vec![say(id, CommandState::Accepted, None), say(id, CommandState::Executing, None), step]
    }

    fn refuse(&mut self, id: CommandId, state: CommandState, code: Code, forget_at: MonoTime) -> Vec<Step> {
        self.known.insert(id, Known { state, code: Some(code), forget_at });
        vec![say(id, state, Some(code))]
    }

    /// What became of a command that was begun; none for one that is not, or that has had its last word.
    pub(super) fn settled(&mut self, id: CommandId, state: CommandState, code: Option<Code>) -> Option<Step> {
        let known = self.known.get_mut(&id).filter(|known| !known.state.is_last())?;
        (known.state, known.code) = (state, code);
        Some(say(id, state, code))
    }
}

fn say(id: CommandId, state: CommandState, code: Option<Code>) -> Step {
    Step::Say(CommandProgress { v: V1, id, state, code })
}

/// A door's word as the hub hears it.
pub(super) fn told(outcome: OrderOutcome) -> (CommandState, Option<Code>) {
    match outcome {
        OrderOutcome::Done => (CommandState::Succeeded, None),
        OrderOutcome::Late => (CommandState::Expired, Some(Code::CommandExpired)),
        OrderOutcome::Fault => (CommandState::Failed, Some(Code::Unavailable)),
    }
}

#[cfg(test)]
mod tests;
