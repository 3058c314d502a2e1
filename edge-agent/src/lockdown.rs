//! Which doors are in lock-down: kept on disk, told to the doors.
//!
//! In: an operator's order. Out: one watch a door. A lock-down that begins reaches the door before the disk, one that ends
//! reaches the disk first: whatever breaks in between, a door is rather shut than open. A file that is damaged means that
//! every door is in lock-down, until an operator says otherwise.
//! Deliberately absent: what a lock-down does at a door (face-core), who may order one (the hub).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use edge_store::{StateFile, StateFileError};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::logging::chain;

const FILE: &str = "lockdown.state";

/// Why an order could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum LockdownError {
    /// The door does not exist here.
    #[error("there is no door {door:?} on this device")]
    NoSuchDoor {
        /// What was asked for.
        door: String,
    },
    /// It could not be written down.
    #[error("the lock-down could not be written down")]
    File(#[from] StateFileError),
}

/// The lock-downs of this device's doors.
#[derive(Debug)]
pub struct Lockdowns {
    file: StateFile,
    doors: BTreeMap<String, watch::Sender<bool>>,
    /// As the file has them, doors included that the configuration does not name at present.
    written: Mutex<BTreeSet<String>>,
}

impl Lockdowns {
    /// The lock-downs as they were when the agent stopped.
    #[must_use]
    pub fn open(state_dir: &Path, doors: impl IntoIterator<Item = String>) -> Self {
        let file = StateFile::new(state_dir, FILE);
        let (written, all) = match file.read::<BTreeSet<String>>() {
            Ok(written) => (written.unwrap_or_default(), false),
            Err(error) => {
                tracing::error!(
                    event = "lockdown_unreadable",
                    alarm = true,
                    error = chain(&error),
                    "every door is in lock-down until an operator ends it"
                );
                (BTreeSet::new(), true)
            }
        };
        let doors: BTreeMap<_, _> =
            doors.into_iter().map(|id| (id.clone(), watch::Sender::new(all || written.contains(&id)))).collect();
        let written = if all { doors.keys().cloned().collect() } else { written };
        Self { file, doors, written: Mutex::new(written) }
    }

    /// What a door goes by.
    #[must_use]
    pub fn of(&self, door: &str) -> Option<watch::Receiver<bool>> {
        self.doors.get(door).map(watch::Sender::subscribe)
    }

    /// The doors in lock-down.
    #[must_use]
    pub fn active(&self) -> Vec<String> {
        self.doors.iter().filter(|(_, on)| *on.borrow()).map(|(id, _)| id.clone()).collect()
    }

    /// Begins or ends the lock-down of a door, or of all. Blocking: it writes and fsyncs.
    ///
    /// # Errors
    /// A door that does not exist: nothing was changed. A file that could not be written: a lock-down that was to begin is in
    /// force, and would not outlive a restart; one that was to end is still in force.
    pub fn set(&self, door: Option<&str>, on: bool) -> Result<(), LockdownError> {
        if let Some(door) = door.filter(|door| !self.doors.contains_key(*door)) {
            return Err(LockdownError::NoSuchDoor { door: door.to_owned() });
        }
        let meant: Vec<&String> = self.doors.keys().filter(|id| door.is_none_or(|door| door == *id)).collect();
        let mut written = self.written.lock();
        let mut next = written.clone();
        for id in &meant {
            if on {
                next.insert((*id).clone())
            } else {
                next.remove(*id)
            };
        }
        if on {
            self.tell(&meant, true);
        }
        self.file.write(&next)?;
        *written = next;
        drop(written);
        if !on {
            self.tell(&meant, false);
        }
        Ok(())
    }

    fn tell(&self, doors: &[&String], on: bool) {
        for door in doors {
            self.doors[*door].send_replace(on);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Lockdowns {
        Lockdowns::open(dir, ["main".to_owned(), "side".to_owned()])
    }

    #[test]
    fn a_lock_down_outlives_a_restart_and_so_does_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let lockdowns = open(dir.path());
        let main = lockdowns.of("main").unwrap();
        lockdowns.set(Some("main"), true).unwrap();
        assert!(*main.borrow());
        assert_eq!(open(dir.path()).active(), ["main"]);
        lockdowns.set(None, true).unwrap();
        assert_eq!(open(dir.path()).active(), ["main", "side"]);
        open(dir.path()).set(Some("side"), false).unwrap();
        assert_eq!(open(dir.path()).active(), ["main"]);
        assert!(matches!(lockdowns.set(Some("cellar"), true), Err(LockdownError::NoSuchDoor { .. })));
    }

    #[test]
    fn a_damaged_file_means_that_every_door_is_locked_down() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).set(Some("main"), false).unwrap();
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let lockdowns = open(dir.path());
        assert_eq!(lockdowns.active(), ["main", "side"]);
        lockdowns.set(Some("side"), false).unwrap();
        assert_eq!(open(dir.path()).active(), ["main"], "ended where an operator said so, and nowhere else");
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_doors_rather_shut() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let lockdowns = open(&gone);
        assert!(lockdowns.set(Some("main"), true).is_err());
        assert_eq!(lockdowns.active(), ["main"], "in force, and said to be not written down");
        assert!(lockdowns.set(Some("main"), false).is_err());
        assert_eq!(lockdowns.active(), ["main"]);
    }
}
