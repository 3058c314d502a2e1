//! Which commands are carried out: each once, in time by the hub's clock, or not at all.
//!
//! In: commands and the hub's time as they come over the line, what became of orders, the monotonic time. Out: [`Step`]s.
//! The hub's time is learned anew on each connection, by a question with a nonce: the hub stamped its answer after it was
//! asked, so that `answer + time since the question` is never behind the hub's clock, and no command is carried out late.
//! A command given before this run of the agent began may have been carried out by the run before; it is refused. A
//! command that comes before the answer waits for it. Only a reboot has its last word in the run after the one that began it
//! ([`super::journal`]).
//!
//! Deliberately absent: sockets and doors (the driver's), who may give orders (the hub's).

use std::collections::HashMap;
use std::time::Duration;

use face_core::MonoTime;
use face_core::door::{DoorOrder, OrderOutcome};
use uuid::Uuid;
use wire_contract::command::{MAX_LOG_BYTES, TimeAnswer, TimeRequest, UNLOCK_LIFETIME_MS};
use wire_contract::{
    Code, Command, CommandId, CommandProgress, CommandState, LogLevel, Order, PersonId, RebootTarget, Timestamp, V1,
};

use crate::stages::decide::EnrolOrder;

/// A question without an answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// The hub's time is asked for anew: a quartz that is off by 100 in a million gains 0.36 s an hour.
const ANCHOR_AGE: Duration = Duration::from_secs(3600);
/// Commands that wait for the hub's time. An operator gives one or two; more is nobody's intention.
const WAITING: usize = 16;
/// How much longer than its life a command is remembered: the broker may deliver it again.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long a command that a restart carried out is remembered: longer than any life of one.
const RETURNED_REMEMBERED: Duration = Duration::from_secs(600);

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Tell the hub how far a command got.
    Say(CommandProgress),
    /// Hand an order to a door.
    Open {
        /// The door's id.
        door: String,
        /// The order.
        order: DoorOrder,
    },
    /// Wait at a door for a face of this person.
    Enrol {
        /// The door's id.
        door: String,
        /// Whom.
        person: PersonId,
        /// The order.
        order: EnrolOrder,
    },
    /// Do something that is no door's; then call [`Commands::settled`].
    Do(CommandId, Deed),
    /// Put the last word on record.
    Record {
        /// The command.
        command: CommandId,
        /// What was ordered.
        order: Order,
        /// What became of it.
        state: CommandState,
        /// Why.
        code: Option<Code>,
    },
}

/// What the agent does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Fetch keys, report galleries.
    Refresh,
    /// Begin or end the lock-down of a door, or of all.
    Lockdown {
        /// Which; all when absent.
        door: Option<String>,
        /// Begin or end.
        on: bool,
    },
    /// Begin anew.
    Reboot {
        /// What.
        target: RebootTarget,
    },
    /// Write more or less to the log.
    LogLevel {
        /// How much.
        level: LogLevel,
        /// For how long.
        lasting: Option<Duration>,
    },
    /// Send the last lines of the log.
    CollectLogs {
        /// At most so many bytes.
        max_bytes: u32,
    },
}

/// The commands of this run.
#[derive(Debug)]
pub struct Commands {
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

#[derive(Debug, Clone)]
struct Known {
    state: CommandState,
    code: Option<Code>,
    forget_at: MonoTime,
    /// What is being done; none once it has had its last word.
    order: Option<Order>,
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
    /// No commands yet; the run of the agent begins now.
    #[must_use]
    pub fn new(now: MonoTime) -> Self {
        Self { run_began: now, asked: None, anchor: None, waiting: Vec::new(), known: HashMap::new() }
    }

    /// A new connection: what was learned on the one before does not count.
    pub fn connected(&mut self, nonce: Uuid, now: MonoTime) -> TimeRequest {
        self.anchor = None;
        self.waiting.clear();
        self.ask(nonce, now)
    }

    /// A question that is due: the last one was not answered, or its answer has grown old.
    pub fn due(&mut self, nonce: Uuid, now: MonoTime) -> Option<TimeRequest> {
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
    pub fn on_time(&mut self, answer: TimeAnswer, now: MonoTime) -> Vec<Step> {
        let Some((_, asked_at)) = self.asked.filter(|(nonce, _)| *nonce == answer.nonce) else { return Vec::new() };
        self.asked = None;
        self.anchor = Some(Anchor { at: answer.at, asked_at });
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().flat_map(|command| self.take(command, now)).collect()
    }

    /// A command from the hub.
    pub fn take(&mut self, command: Command, now: MonoTime) -> Vec<Step> {
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
        let lifetime = command.expires_at.unix_ms() - command.issued_at.unix_ms();
        let too_long = matches!(command.order, Order::Unlock { .. }) && lifetime > UNLOCK_LIFETIME_MS;
        if too_long || !command.order.in_bounds() {
            return self.refuse(id, CommandState::Failed, Code::InvalidField, forget_at);
        }
        let step = match command.order.clone() {
            Order::Unlock { door, hold_ms } => {
                let hold = hold_ms.map(|hold| Duration::from_millis(hold.into()));
                Step::Open { door, order: DoorOrder { command: id.0, not_after: now + left, hold } }
            }
            Order::Enrol { door, person, within_s } => {
                let not_after = now + left.min(Duration::from_secs(within_s.into()));
                Step::Enrol { door, person, order: EnrolOrder { command: id.0, not_after } }
            }
            Order::Refresh => Step::Do(id, Deed::Refresh),
            Order::Lockdown { door, on } => Step::Do(id, Deed::Lockdown { door, on }),
            Order::Reboot { target } => Step::Do(id, Deed::Reboot { target }),
            Order::LogLevel { level, for_s } => {
                let lasting = for_s.map(|span| Duration::from_secs(span.into()));
                Step::Do(id, Deed::LogLevel { level, lasting })
            }
            Order::CollectLogs { max_bytes } => {
                Step::Do(id, Deed::CollectLogs { max_bytes: max_bytes.unwrap_or(MAX_LOG_BYTES) })
            }
            Order::Unknown => return self.refuse(id, CommandState::Failed, Code::CommandUnknown, forget_at),
        };
        self.begin(id, command.order, forget_at, step)
    }

    fn begin(&mut self, id: CommandId, order: Order, forget_at: MonoTime, step: Step) -> Vec<Step> {
        let order = Some(order);
        self.known.insert(id, Known { state: CommandState::Executing, code: None, forget_at, order });
        vec![say(id, CommandState::Accepted, None), say(id, CommandState::Executing, None), step]
    }

    /// A command that the run before began, and that is done by this run's being there: a reboot.
    pub fn returned(&mut self, id: CommandId, order: Order, now: MonoTime) -> Vec<Step> {
        let forget_at = now + RETURNED_REMEMBERED;
        self.known.insert(id, Known { state: CommandState::Executing, code: None, forget_at, order: Some(order) });
        self.settled(id, CommandState::Succeeded, None)
    }

    fn refuse(&mut self, id: CommandId, state: CommandState, code: Code, forget_at: MonoTime) -> Vec<Step> {
        self.known.insert(id, Known { state, code: Some(code), forget_at, order: None });
        vec![say(id, state, Some(code))]
    }

    /// What became of a command that was begun; none for one that is not, or that has had its last word.
    pub fn settled(&mut self, id: CommandId, state: CommandState, code: Option<Code>) -> Vec<Step> {
        let Some(known) = self.known.get_mut(&id).filter(|known| !known.state.is_last()) else { return Vec::new() };
        (known.state, known.code) = (state, code);
        // Asking to look again changes nothing that anybody would ask about afterwards.
        let kept = known.order.take().filter(|order| *order != Order::Refresh);
        let record = kept.map(|order| Step::Record { command: id, order, state, code });
        [say(id, state, code)].into_iter().chain(record).collect()
    }
}

fn say(id: CommandId, state: CommandState, code: Option<Code>) -> Step {
    Step::Say(CommandProgress { v: V1, id, state, code })
}

/// A door's word as the hub hears it.
#[must_use]
pub fn told(outcome: OrderOutcome) -> (CommandState, Option<Code>) {
    match outcome {
        OrderOutcome::Done => (CommandState::Succeeded, None),
        OrderOutcome::Late => (CommandState::Expired, Some(Code::CommandExpired)),
        OrderOutcome::Fault => (CommandState::Failed, Some(Code::Unavailable)),
        OrderOutcome::LockedDown => (CommandState::Failed, Some(Code::DoorLockedDown)),
    }
}

#[cfg(test)]
mod tests;
