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
use crate::ids::CommandId;
use crate::time::Timestamp;

/// An unlock that nobody carried out within this time must never be: whoever stood there has gone.
pub const UNLOCK_LIFETIME_MS: i64 = 10_000;
/// The longest a command may hold a door open: a delivery carried through; more is a rule's business.
pub const MAX_ORDERED_HOLD_MS: u32 = 60_000;

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
    /// Something that this program does not know.
    #[serde(other)]
    Unknown,
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
