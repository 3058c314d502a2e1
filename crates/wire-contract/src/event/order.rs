//! What became of an operator's command, as the device puts it on record.
//!
//! In and out: the `data` of the event of this name. It reaches the hub by the outbox, whatever became of `up/cmd`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Reason;
use crate::command::{CommandState, Order};
use crate::ids::CommandId;

/// A device had the last word on a command that it had begun.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CommandSettledData {
    /// Which command.
    pub command: CommandId,
    /// What was ordered.
    pub order: Order,
    /// `succeeded`, `failed` or `expired`.
    pub state: CommandState,
    /// Why, when it did not succeed.
    pub reason: Option<Reason>,
}
