//! Commands: what an operator orders a device to do now, and how far it got.
//!
//! In and out: JSON on `down/cmd` (sealed) and `up/cmd` (in the envelope). A command lives in the hub's time, which a device
//! learns by asking: [`TimeRequest`] with a nonce, [`TimeAnswer`] with the same nonce. A device that has no answer of
//! this connection does not execute; one that is late by its upper bound of the hub's time says `expired`.
//! Progress goes one way: accepted → executing → succeeded, failed or expired. The last word may be repeated.
//! Deliberately absent: who may order what (the hub), and doing it (the agent).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::codes::Code;
use crate::encoding::V1;
use crate::ids::{CommandId, PersonId};
use crate::time::Timestamp;

/// An unlock that nobody carried out within this time must never be: whoever stood there has gone.
pub const UNLOCK_LIFETIME_MS: i64 = 10_000;
/// The longest a command may hold a door open: a delivery carried through; more is a rule's business.
pub const MAX_ORDERED_HOLD_MS: u32 = 60_000;

/// The longest that a log level which was ordered lasts: who looks for something looks within a day.
pub const MAX_LOG_LEVEL_S: u32 = 24 * 3600;
/// The most of its log that a device sends at once, in bytes: what the device keeps.
pub const MAX_LOG_BYTES: u32 = 512 * 1024;
/// The longest that a device waits at a door for somebody to enrol.
pub const MAX_ENROL_WITHIN_S: u32 = 120;

/// What is begun anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RebootTarget {
    /// The agent's program: a second or two, in which its doors take their fail state.
    Agent,
    /// The machine that it runs on, where the device's own configuration says how.
    Machine,
    /// Something that this program does not know.
    #[serde(other)]
    Unknown,
}

impl RebootTarget {
    /// The word in payloads and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Machine => "machine",
            Self::Unknown => "unknown",
        }
    }
}

/// How much the agent writes to its log. Of debug and trace only the agent's own parts: libraries may tell too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what happens.
    Info,
    /// And what is thought about it.
    Debug,
    /// Everything.
    Trace,
    /// Something that this program does not know.
    #[serde(other)]
    Unknown,
}

impl LogLevel {
    /// Every level that there is.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The word in payloads, in the API and in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
            Self::Unknown => "unknown",
        }
    }

    /// The level with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

/// What is to be done. An unknown kind is read as `Unknown` and answered with `failed`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Order {
    /// Open a door once.
    Unlock {
        /// The door's id in the agent's configuration.
        door: String,
        /// For how long, in ms, 1 to 60,000; as the door's configuration says when absent.
        hold_ms: Option<u32>,
    },
    /// Fetch keys and report the galleries now.
    Refresh,
    /// Shut a door to everybody but those whom its policy lets through, or end that. It outlives a restart.
    Lockdown {
        /// The door's id in the agent's configuration; every door of the device when absent.
        door: Option<String>,
        /// True to begin, false to end.
        on: bool,
    },
    /// Begin anew. `executing` is said before, `succeeded` when it is back.
    Reboot {
        /// What.
        target: RebootTarget,
    },
    /// Write more or less to the log.
    LogLevel {
        /// How much.
        level: LogLevel,
        /// For how many seconds, 1 to 86,400, then as configured again; until the next start when absent.
        for_s: Option<u32>,
    },
    /// Send the last lines of the log to the hub.
    CollectLogs {
        /// At most so many bytes, 1 to 524,288; all that is kept when absent.
        max_bytes: Option<u32>,
    },
    /// Make a template of the next good face at a door, and ask the hub to take it for this person.
    Enrol {
        /// The door's id in the agent's configuration.
        door: String,
        /// Whom.
        person: PersonId,
        /// How long to wait for a face, in seconds, 1 to 120.
        within_s: u32,
    },
    /// Something that this program does not know.
    #[serde(other)]
    Unknown,
}

impl Order {
    /// The kind's word in payloads.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unlock { .. } => "unlock",
            Self::Refresh => "refresh",
            Self::Lockdown { .. } => "lockdown",
            Self::Reboot { .. } => "reboot",
            Self::LogLevel { .. } => "log_level",
            Self::CollectLogs { .. } => "collect_logs",
            Self::Enrol { .. } => "enrol",
            Self::Unknown => "unknown",
        }
    }

    /// Whether every number is one that may be ordered; asked on both ends.
    #[must_use]
    pub fn in_bounds(&self) -> bool {
        let within = |found: u32, most: u32| (1..=most).contains(&found);
        match self {
            Self::Unlock { hold_ms, .. } => hold_ms.is_none_or(|hold| within(hold, MAX_ORDERED_HOLD_MS)),
            Self::LogLevel { level, for_s } => {
                *level != LogLevel::Unknown && for_s.is_none_or(|span| within(span, MAX_LOG_LEVEL_S))
            }
            Self::CollectLogs { max_bytes } => max_bytes.is_none_or(|bytes| within(bytes, MAX_LOG_BYTES)),
            Self::Enrol { within_s, .. } => within(*within_s, MAX_ENROL_WITHIN_S),
            Self::Reboot { target } => *target != RebootTarget::Unknown,
            Self::Refresh | Self::Lockdown { .. } | Self::Unknown => true,
        }
    }
}

/// A command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Command {
    /// Payload version.
    pub v: V1,
    /// Its name; the same name is executed once.
    pub id: CommandId,
    /// What is to be done.
    pub order: Order,
    /// When it was given, in the hub's time.
    pub issued_at: Timestamp,
    /// From when on it must not be executed any more, in the hub's time.
    pub expires_at: Timestamp,
}

/// The hub's time, for a device that asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TimeAnswer {
    /// Payload version.
    pub v: V1,
    /// From the request.
    pub nonce: Uuid,
    /// The hub's time when it answered.
    pub at: Timestamp,
}

/// `down/cmd`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CommandDown {
    /// Do this.
    Command(Command),
    /// What time it is.
    Time(TimeAnswer),
    /// Something that this program does not know.
    #[serde(other)]
    Unknown,
}

/// How far a command got.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// The device has it and may execute it.
    Accepted,
    /// It is being done.
    Executing,
    /// It was done.
    Succeeded,
    /// It could not be done; the code says why.
    Failed,
    /// It came too late and was not done.
    Expired,
}

impl CommandState {
    /// The word in payloads and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Executing => "executing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_last(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Expired)
    }
}

/// A device's word on a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CommandProgress {
    /// Payload version.
    pub v: V1,
    /// Which command.
    pub id: CommandId,
    /// How far it got.
    pub state: CommandState,
    /// Why, for `failed` and `expired`.
    pub code: Option<Code>,
}

/// A device asks for the hub's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TimeRequest {
    /// Payload version.
    pub v: V1,
    /// Fresh for each request: an old answer that is replayed fits none.
    pub nonce: Uuid,
}

/// `up/cmd`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CommandUp {
    /// How far a command got.
    Progress(CommandProgress),
    /// What time is it?
    Time(TimeRequest),
    /// Something that this program does not know.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PERSON: PersonId = PersonId(Uuid::from_u128(1));

    fn unlock(hold_ms: Option<u32>) -> Order {
        Order::Unlock { door: "front".into(), hold_ms }
    }

    fn log_level(for_s: Option<u32>) -> Order {
        Order::LogLevel { level: LogLevel::Debug, for_s }
    }

    fn enrol(within_s: u32) -> Order {
        Order::Enrol { door: "front".into(), person: PERSON, within_s }
    }

    fn every_order() -> [Order; 7] {
        [
            unlock(None),
            Order::Refresh,
            Order::Lockdown { door: None, on: true },
            Order::Reboot { target: RebootTarget::Machine },
            log_level(None),
            Order::CollectLogs { max_bytes: None },
            enrol(30),
        ]
    }

    #[test]
    fn numbers_may_be_ordered_from_one_to_their_most_and_no_further() {
        type Numbered = fn(u32) -> Order;
        let bounded: [(Numbered, u32); 4] = [
            (|ms| unlock(Some(ms)), 60_000),
            (|seconds| log_level(Some(seconds)), 86_400),
            (|bytes| Order::CollectLogs { max_bytes: Some(bytes) }, 524_288),
            (enrol, 120),
        ];
        for (order, most) in bounded {
            for (number, may_be) in [(0, false), (1, true), (most, true), (most + 1, false), (u32::MAX, false)] {
                assert_eq!(order(number).in_bounds(), may_be, "{:?}", order(number));
            }
        }
        assert!(every_order().iter().all(Order::in_bounds), "what may be left out may be left out");
    }

    #[test]
    fn what_this_program_does_not_know_cannot_be_ordered() {
        assert!(!Order::Reboot { target: RebootTarget::Unknown }.in_bounds());
        assert!(!Order::LogLevel { level: LogLevel::Unknown, for_s: None }.in_bounds());
        assert!(Order::Reboot { target: RebootTarget::Agent }.in_bounds());
    }

    /// What stands in `field` of a value's JSON; of a bare word, the word.
    fn word(value: impl Serialize, field: &str) -> String {
        let json = serde_json::to_value(value).unwrap();
        json.get(field).unwrap_or(&json).as_str().unwrap().to_owned()
    }

    #[test]
    fn the_words_are_those_of_the_payloads() {
        for order in every_order() {
            assert_eq!(order.kind(), word(&order, "kind"));
        }
        for target in [RebootTarget::Agent, RebootTarget::Machine, RebootTarget::Unknown] {
            assert_eq!(target.as_str(), word(target, ""));
        }
        for level in LogLevel::ALL {
            assert_eq!(level.as_str(), word(level, ""));
            assert_eq!(LogLevel::from_word(level.as_str()), Some(level));
        }
        for word in ["unknown", "Debug", "debug ", ""] {
            assert_eq!(LogLevel::from_word(word), None, "{word:?} is no level");
        }
        use CommandState::{Accepted, Executing, Expired, Failed, Succeeded};
        for state in [Accepted, Executing, Succeeded, Failed, Expired] {
            assert_eq!(state.as_str(), word(state, ""));
            assert_eq!(state.is_last(), state > Executing, "{state:?}");
        }
    }

    #[test]
    fn a_newer_hubs_words_are_read_as_unknown_and_not_as_others() {
        let order = |order: Value| serde_json::from_value::<Order>(order).unwrap();
        assert_eq!(order(json!({"kind": "sing"})), Order::Unknown);
        assert_eq!(Order::Unknown.kind(), "unknown");
        assert_eq!(
            order(json!({"kind": "reboot", "target": "universe"})),
            Order::Reboot { target: RebootTarget::Unknown }
        );
        let level = order(json!({"kind": "log_level", "level": "whisper", "for_s": null}));
        assert_eq!(level, Order::LogLevel { level: LogLevel::Unknown, for_s: None });
        assert_eq!(LogLevel::Unknown.as_str(), "unknown");
    }
}
