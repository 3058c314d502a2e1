//! Doors: what opens them, and how anybody on this machine can watch one.
//!
//! In: orders of the decide stage. Out: a relay that moves, or an error. [`DoorActuator`] is the border; the simulated
//! door behind it shows its relay edges on a Unix socket. Deliberately absent: any decision. An actuator does what it
//! is told at once and never by itself, except that it takes its fail state when it is dropped.

mod guidance;
mod relay_line;
mod simulated;
mod socket;

use std::path::PathBuf;
use std::time::Duration;

use face_core::MonoTime;
use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::config::values;

pub use guidance::Displays;
pub use simulated::{SimulatedDoor, Watch};
pub use socket::{SocketError, bind_unix, socket_path};

/// One `[[door]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorConfig {
    /// Names the door in events and in its socket's file name.
    #[serde(deserialize_with = "values::id")]
    pub id: String,
    /// The camera that watches who stands before it.
    pub camera: String,
    /// What moves the door.
    pub actuator: ActuatorKind,
    /// How long one grant keeps it open.
    #[serde(deserialize_with = "values::duration")]
    pub hold: Duration,
    /// How soon after relocking the same person, still in view, opens it again.
    #[serde(deserialize_with = "values::duration")]
    pub regrant: Duration,
    /// Which `[[policy]]` decides.
    pub policy: String,
    /// What the relay does when the agent stops.
    pub fail: FailMode,
}

/// What moves a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActuatorKind {
    /// No hardware: the edges appear on the door's socket.
    Simulated,
}

/// What a relay does when nothing drives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// Stays locked.
    Secure,
    /// Unlocks, for an escape route.
    Safe,
}

/// Whether the relay holds the door shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayState {
    /// Shut.
    Locked,
    /// Open.
    Unlocked,
}

/// One order to a relay: when it was given and by which decision. A relock has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Monotonic time of the relay call.
    pub at: MonoTime,
    /// The same in UTC.
    pub utc: OffsetDateTime,
    /// The decision that ordered it.
    pub decision: Option<Uuid>,
}

/// A relay that could not be moved. The door keeps its last state.
#[derive(Debug, thiserror::Error)]
pub enum ActuatorError {
    /// The hardware did not take the order.
    #[error("door {door}: the relay did not move")]
    Relay {
        /// The door's id.
        door: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Something that locks and unlocks one door. Calls return within a millisecond.
pub trait DoorActuator: Send {
    /// Opens.
    ///
    /// # Errors
    /// [`ActuatorError`] when the relay did not move.
    fn unlock(&mut self, order: Order) -> Result<(), ActuatorError>;

    /// Shuts.
    ///
    /// # Errors
    /// [`ActuatorError`] when the relay did not move.
    fn lock(&mut self, order: Order) -> Result<(), ActuatorError>;

    /// What the relay does now.
    fn state(&self) -> RelayState;
}

/// The socket on which the edges of a door appear.
#[must_use]
pub fn door_socket(runtime_dir: &std::path::Path, door: &str) -> PathBuf {
    socket_path(runtime_dir, &format!("door-{door}"))
}
