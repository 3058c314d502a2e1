//! What the durability rows have the stores do, and how they judge what is left afterwards.
//!
//! In: a state directory and a [`crate::rig::ledger::Ledger`]. The jobs run in `store-worker`, which is killed; the checks
//! run in the row, which reopens the same directory. Deliberately absent: the faults.

mod despite;
pub mod door;
pub mod gallery;
pub mod jobs;
pub mod limits;
pub mod outbox;
pub mod state;

use std::time::{Duration, SystemTime};

/// The lane of the gallery's versions; the writers of events have those below.
pub const GALLERY_LANE: usize = 12;
/// A store that refuses notes it here (begun), and each promise that it gives nevertheless (acked): the outbox.
pub const OUTBOX_REFUSED_LANE: usize = 9;
/// The same of the gallery.
pub const GALLERY_REFUSED_LANE: usize = 10;
/// How many threads record events at once.
pub const WRITERS: usize = 8;

/// A time that the stores are given: `seconds` after a day in 2026.
#[must_use]
pub fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
}
