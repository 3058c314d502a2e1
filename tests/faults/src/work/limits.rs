//! People whose permission is limited in time, and what a door must make of each.
//!
//! In: the true time at which their gallery is made. Out: the gallery, and for each of them whether the door may open. The
//! hub does not limit anybody in time yet; the gallery is the door's own.

use std::path::Path;

use anyhow::Result;
use edge_agent::gallery::Galleries;
use edge_store::DeviceKeys;
use serde::{Deserialize, Serialize};

use super::gallery;
use super::state::{People, open_galleries};

/// Shorter than a day on either side, so that a day is a jump over a limit; longer than any run.
const MARGIN_S: i64 = 6 * 3600;

/// Who comes to the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Visitor {
    /// May always come in.
    Unlimited,
    /// Might until six hours ago.
    Ended,
    /// May since six hours ago, and for six hours more.
    Current,
    /// May in six hours.
    NotYet,
}

impl Visitor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unlimited, Self::Ended, Self::Current, Self::NotYet];

    /// As which number the gallery has them.
    #[must_use]
    pub fn number(self) -> u64 {
        self as u64 + 1
    }

    /// Whether the door may open, by the true time.
    #[must_use]
    pub fn may_come_in(self) -> bool {
        matches!(self, Self::Unlimited | Self::Current)
    }

    fn limits(self, at: i64) -> (Option<i64>, Option<i64>) {
        match self {
            Self::Unlimited => (None, None),
            Self::Ended => (None, Some(at - MARGIN_S)),
            Self::Current => (Some(at - MARGIN_S), Some(at + MARGIN_S)),
            Self::NotYet => (Some(at + MARGIN_S), None),
        }
    }
}

/// Makes their gallery in `dir`, as of the true time `at` in Unix seconds.
pub fn make(dir: &Path, at: i64) -> Result<()> {
    let galleries = open(dir)?;
    let mut people = People::new();
    let mut records = Vec::new();
    for visitor in Visitor::ALL {
        let (from, until) = visitor.limits(at);
        records.extend(people.enrol_within(visitor.number(), from, until)?);
    }
    galleries.apply(gallery::id(), &records, people.root())?;
    Ok(())
}

/// Opens what [`make`] has made.
pub fn open(dir: &Path) -> Result<Galleries> {
    let keys = DeviceKeys::open(&dir.join("keys"), None)?;
    keys.set_gallery(gallery::id(), &gallery::keys())?;
    Ok(open_galleries(dir, &keys)?.0)
}
