//! The settings in force: the file's, and what the newest version in the database lays over them.
//!
//! In: versions, as they are read. Out: what holds now, for whoever asks each time. A version that this program cannot take changes nothing.

use parking_lot::RwLock;

use hub_domain::settings::{Changes, Live, Wrong};

/// What holds on this hub.
pub struct InForce {
    file: Live,
    held: RwLock<Held>,
}

struct Held {
    live: Live,
    version: i32,
    changes: Changes,
    /// The newest that was offered, whether it could be taken or not.
    offered: i32,
}

impl InForce {
    /// The file's alone.
    #[must_use]
    pub fn new(file: Live) -> Self {
        Self { file, held: RwLock::new(Held { live: file, version: 0, changes: Changes::new(), offered: 0 }) }
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

    /// The version that holds, 0 for the file alone, and what lies over the file.
    #[must_use]
    pub fn version(&self) -> (i32, Changes) {
        let held = self.held.read();
        (held.version, held.changes.clone())
    }

    /// Takes a version, and says whether it is another one; one that is no newer than all that were offered is left. If it is wrong, what
    /// held goes on, and whoever offers it first is told.
    pub fn take(&self, version: i32, changes: &Changes) -> Result<bool, Vec<Wrong>> {
        let taken = self.file.with(changes);
        let mut held = self.held.write();
        if version <= held.offered {
            return Ok(false);
        }
        held.offered = version;
        let live = taken?;
        *held = Held { live, version, changes: changes.clone(), offered: version };
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use hub_domain::intrusion::Thresholds;

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
        assert_eq!(in_force.take(2, &of(5)), Ok(true));
        assert_eq!(in_force.take(1, &of(9)), Ok(false));
        assert_eq!((in_force.live().refused_keys_per_minute, in_force.version()), (5, (2, of(5))));
        assert_eq!(in_force.take(3, &of(0)).unwrap_err().len(), 1);
        // What holds is told, not what could not be taken; and that is told once.
        assert_eq!((in_force.live().refused_keys_per_minute, in_force.version()), (5, (2, of(5))));
        assert_eq!(in_force.take(3, &of(0)), Ok(false));
        // Without any change the file's holds again.
        in_force.take(4, &Changes::new()).unwrap();
        assert_eq!(in_force.live(), in_force.file());
    }
}
