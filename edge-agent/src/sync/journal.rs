//! A reboot that is under way: written down before the agent goes, told by the one that comes back.
//!
//! In: the command that orders it. Out: the same, once, in the next run. Written before anything ends, so that a power cut
//! in between counts as the reboot that it is. A file that is damaged is worth nothing: the hub shows the command as unanswered.

use std::path::Path;

use edge_store::{StateFile, StateFileError};
use serde::{Deserialize, Serialize};
use wire_contract::{CommandId, Order};

use crate::logging::chain;

const FILE: &str = "reboot.state";

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    command: CommandId,
    order: Order,
}

/// The reboot under way, if there is one.
#[derive(Debug, Clone)]
pub(super) struct Journal(StateFile);

impl Journal {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self(StateFile::new(state_dir, FILE))
    }

    pub(super) fn begin(&self, command: CommandId, order: &Order) -> Result<(), StateFileError> {
        self.0.write(&Entry { command, order: order.clone() })
    }

    /// What the run before left; it stays until [`Journal::end`].
    pub(super) fn left(&self) -> Option<(CommandId, Order)> {
        match self.0.read::<Entry>() {
            Ok(entry) => entry.map(|entry| (entry.command, entry.order)),
            Err(error) => {
                tracing::error!(
                    event = "reboot_journal_unreadable",
                    error = chain(&error),
                    "the command that it is about is left unanswered"
                );
                self.end();
                None
            }
        }
    }

    pub(super) fn end(&self) {
        if let Err(error) = self.0.remove() {
            tracing::error!(
                event = "reboot_journal_not_removed",
                error = chain(&error),
                "the next start tells of it once more"
            );
        }
    }
}
