//! Whether this device is there: the status it publishes, the will it leaves with the broker, the counter of connections.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use face_core::Space;
use uuid::Uuid;
use wire_contract::status::{Presence, Status};
use wire_contract::{Timestamp, V1};

use crate::logging::chain;

const FILE: &str = "connection-epoch";

/// What a status says of the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// This run of the agent.
    pub boot: Uuid,
    /// The agent's version.
    pub agent_version: String,
    /// The model pack, name and version; none when no models are loaded.
    pub pack: Option<String>,
    /// The embedding space, and how its templates are compared; none when no models are loaded.
    pub space: Option<Space>,
}

impl About {
    /// The status of one connection. The last will is the same with [`Presence::Offline`].
    pub(super) fn status(&self, state: Presence, connection_epoch: u64, since: Timestamp) -> Status {
        Status {
            v: V1,
            state,
            boot: self.boot,
            connection_epoch,
            since,
            agent_version: self.agent_version.clone(),
            pack: self.pack.clone(),
            space_id: self.space.as_ref().map(|space| space.id.clone()),
        }
    }
}

/// Counts the connections over the device's whole life, in a file of its own: the hub tells by it which of two statuses
/// is the newer, whatever the clocks say.
#[derive(Debug)]
pub(super) struct ConnectionCounter {
    path: PathBuf,
    last: Option<u64>,
}

impl ConnectionCounter {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE), last: None }
    }

    /// The next connection's number, on disk before it is used.
    ///
    /// A file that is damaged continues from `now` in Unix seconds, which no counter reaches. A disk that refuses is
    /// logged and counted on in memory: presence must not keep a door from its hub.
    pub(super) fn next(&mut self, now: Timestamp) -> u64 {
        let last = self.last.unwrap_or_else(|| self.read(now));
        let next = last.saturating_add(1);
        if let Err(error) = write_durably(&self.path, &next.to_string()) {
            tracing::warn!(event = "connection_counter_not_written", path = %self.path.display(), error = chain(&error), "counting on in memory");
        }
        self.last = Some(next);
        next
    }

    fn read(&self, now: Timestamp) -> u64 {
        let damaged = || u64::try_from(now.unix_seconds()).unwrap_or(0);
        match fs::read_to_string(&self.path) {
            Ok(text) => text.trim().parse().unwrap_or_else(|_| damaged()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(_) => damaged(),
        }
    }
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_over_restarts_and_over_a_damaged_file() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_unix_ms(1_795_343_851_000);
        let mut counter = ConnectionCounter::new(dir.path());
        assert_eq!([counter.next(now), counter.next(now)], [1, 2]);
        assert_eq!(ConnectionCounter::new(dir.path()).next(now), 3);
        fs::write(dir.path().join(FILE), "\0\0").unwrap();
        assert_eq!(ConnectionCounter::new(dir.path()).next(now), 1_795_343_852);
        assert_eq!(ConnectionCounter::new(dir.path()).next(now), 1_795_343_853);
    }

    #[test]
    fn a_disk_that_refuses_does_not_stop_the_count() {
        let mut counter = ConnectionCounter::new(Path::new("/proc/nowhere"));
        let now = Timestamp::from_unix_ms(0);
        assert_eq!([counter.next(now), counter.next(now)], [1, 2]);
    }
}
