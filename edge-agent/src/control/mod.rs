//! The control socket: what the command line asks of the running agent.
//!
//! One JSON line each way over `<runtime_dir>/control.sock`, mode 0600. In: [`Ask`]. Out: a JSON object, or a code and a
//! message. Everything here only reads: nothing on this socket opens a door, changes a gallery or empties an outbox.

mod client;
mod server;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use client::{ControlError, ask};
pub use server::{Answer, serve};

use crate::door::socket_path;

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// How the agent is: uptime, cameras, doors, link.
    Status,
    /// The outbox's counters.
    OutboxStatus,
    /// The events that are still kept, acknowledged ones included, a page at a time.
    OutboxList {
        /// The last sequence of the page before; 0 for the first one.
        after: u64,
    },
    /// Version, root and size of each gallery.
    GalleryStatus,
    /// What the displays beside the doors show; waits a while for a change after the one named.
    Guidance {
        /// The number of the answer before; 0 for the first one, which waits for nothing.
        after: u64,
    },
}

/// One request line.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    v: u32,
    #[serde(flatten)]
    ask: Ask,
}

/// One answer line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Response {
    Ok(Value),
    Error { code: String, message: String },
}

/// `<runtime_dir>/control.sock`.
#[must_use]
pub fn control_socket(runtime_dir: &Path) -> PathBuf {
    socket_path(runtime_dir, "control")
}
