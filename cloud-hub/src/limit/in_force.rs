//! The settings in force: the file's, and what the newest version in the database lays over them.
//!
//! In: versions, as they are read. Out: what holds now, for whoever asks each time. A version that this program cannot take changes nothing.

use parking_lot::RwLock;

use crate::domain::settings::{Changes, Live, Wrong};

/// What holds on this hub.
pub struct InForce {
    file: Live,
    held: RwLock<Held>,
}

struct Held {
    live: Live,
    version: i32,
    changes: Changes,
}

impl InForce {
    /// The file's alone.
    #[must_use]
    pub fn new(file: Live) -> Self {
        Self { file, held: RwLock::new(Held { live: file, version: 0, changes: Changes::new() }) }
    }

    /// What holds.
    #[must_use]
    pub fn live(&self) -> Live {
        self.held.read().live
    }

    /// What the file says.
    #[must_use]
    pub fn file(&self) -> Live {
        self.file
    }

    /// The version that was looked at last, 0 for the file alone, and what lies over the file.
    #[must_use]
    pub fn version(&self) -> (i32, Changes) {
        let held = self.held.read();
        (held.version, held.changes.clone())
    }

    /// Takes a version; an older one than that which is held is left. If it is wrong, what held goes on.
    pub fn take(&self, version: i32, changes: &Changes) -> Result<(), Vec<Wrong>> {
        let taken = self.file.with(changes);
        let mut held = self.held.write();
        if version <= held.version {
            return Ok(());
        }
        held.version = version;
        let live = taken?;
        held.live = live;
        held.changes.clone_from(changes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::domain::intrusion::Thresholds;

    #[test]
    fn the_newest_version_that_can_be_taken_holds() {
        let intrusion = Thresholds {
            refused: 1,
            networks: 1,
            travel_window: Duration::from_secs(1),
            probes: 1,
            people: 1,
            people_share: 1.0,
        };
        let in_force = InForce::new(Live { refused_keys_per_minute: 30, intrusion });
        let of = |count: i32| Changes::from([(String::from("limits.refused_keys_per_minute"), json!(count))]);
        in_force.take(2, &of(5)).unwrap();
        in_force.take(1, &of(9)).unwrap();
        assert_eq!((in_force.live().refused_keys_per_minute, in_force.version()), (5, (2, of(5))));
        assert_eq!(in_force.take(3, &of(0)).unwrap_err().len(), 1);
        assert_eq!((in_force.live().refused_keys_per_minute, in_force.version()), (5, (3, of(5))));
        // Without any change the file's holds again.
        in_force.take(4, &Changes::new()).unwrap();
        assert_eq!(in_force.live(), in_force.file());
    }
}
