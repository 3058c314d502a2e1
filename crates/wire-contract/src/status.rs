//! Whether a device is there: on `up/status`, retained, and as the last will, so that the broker says it when it cannot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::encoding::V1;
use crate::time::Timestamp;

/// Online or offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Connected.
    Online,
    /// Disconnected: said by the device when it stops in order, by the broker as the last will otherwise.
    Offline,
}

/// The status of a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Payload version.
    pub v: V1,
    /// Online or offline.
    pub state: Presence,
    /// The run of the agent that says it.
    pub boot: Uuid,
    /// Counts the connections of this device over its whole life. A status of a lower epoch than the last one seen is
    /// old news: the will of a dead connection may come after the next one is up.
    pub connection_epoch: u64,
    /// When this connection was begun, by the device's clock. The will carries the same time: a will has no clock.
    pub since: Timestamp,
    /// The agent's version.
    pub agent_version: String,
    /// The model pack in use, and its embedding space; `null` when no models are loaded.
    pub pack: Option<String>,
    /// The embedding space of that pack.
    pub space_id: Option<String>,
}
