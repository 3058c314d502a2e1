//! What of a gallery's log is kept: rules as durations, turned into times.
//!
//! In: the settings, and now. Out: since when a device counts as live, and since when a record is too young to go. Pure; what
//! follows from it is `store::galleries::compaction`'s.

use time::OffsetDateTime;

use super::ids::GalleryId;

/// What stays in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepRule {
    /// Every record for so long.
    pub log: std::time::Duration,
    /// Everything that a device needs which was seen within this time; zero: however long it was away.
    pub device_lease: std::time::Duration,
}

/// The rule at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Devices seen since then are waited for; `None`: every claimed one, whenever it was seen.
    pub live_since: Option<OffsetDateTime>,
    /// Records written since then stay in any case.
    pub written_since: OffsetDateTime,
    /// Now: snapshots that have not ended are waited for.
    pub now: OffsetDateTime,
}

/// What a compaction did to a gallery's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// From where on the log is whole now.
    pub compacted_to: u64,
    /// Records that are gone.
    pub records: u64,
    /// Of these, dels, whose ids are kept.
    pub tombstones: u64,
    /// Whether more could be done at once.
    pub more: bool,
}

/// A gallery's log, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSize {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// Its last version.
    pub version: u64,
    /// From where on the log is whole.
    pub compacted_to: u64,
    /// Live entries.
    pub live: u64,
    /// Records in the log.
    pub records: u64,
    /// Ids whose dels are no longer in it.
    pub buried: u64,
    /// Snapshots on offer.
    pub snapshots: u64,
}

impl KeepRule {
    /// The rule at `now`.
    #[must_use]
    pub fn at(&self, now: OffsetDateTime) -> Keep {
        let before = |span: std::time::Duration| {
            let span = time::Duration::try_from(span).unwrap_or(time::Duration::MAX);
            now.checked_sub(span).unwrap_or(OffsetDateTime::UNIX_EPOCH)
        };
        Keep {
            live_since: (!self.device_lease.is_zero()).then(|| before(self.device_lease)),
            written_since: before(self.log),
            now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use time::macros::datetime;

    #[test]
    fn a_lease_of_nothing_waits_for_everybody() {
        let now = datetime!(2026-11-28 12:00 UTC);
        let day = Duration::from_secs(86_400);
        let keep = KeepRule { log: day, device_lease: 2 * day }.at(now);
        assert_eq!(keep.live_since, Some(datetime!(2026-11-26 12:00 UTC)));
        assert_eq!(keep.written_since, datetime!(2026-11-27 12:00 UTC));
        assert_eq!(KeepRule { log: day, device_lease: Duration::ZERO }.at(now).live_since, None);
        assert_eq!(
            KeepRule { log: Duration::MAX, device_lease: day }.at(now).written_since,
            OffsetDateTime::UNIX_EPOCH
        );
    }
}
