//! When to tell the hub where the galleries stand: on connect, after changes (at most one a second), every 60 s.

use std::time::Duration;

use face_core::MonoTime;

/// At most one report in this time (protocol.md).
const SPACING: Duration = Duration::from_secs(1);

/// The pace of reports on one connection.
#[derive(Debug, Clone)]
pub(super) struct Reports {
    interval: Duration,
    last: Option<MonoTime>,
    due: Option<MonoTime>,
    held_until: Option<MonoTime>,
}

impl Reports {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, last: None, due: None, held_until: None }
    }

    /// The line is up: report at once.
    pub(super) fn connected(&mut self, now: MonoTime) {
        self.last = None;
        self.due = Some(now);
        self.held_until = None;
    }

    /// Something changed.
    pub(super) fn changed(&mut self, now: MonoTime) {
        let spaced = self.last.map_or(now, |last| now.max(last + SPACING));
        let earliest = self.held_until.map_or(spaced, |until| spaced.max(until));
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Something is to be said again, but not before `at`.
    pub(super) fn again(&mut self, at: MonoTime) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// A gallery was thrown away, which is reported at `until`. That it is empty now is a change as well, before or after
    /// this call, and must not make the report any earlier.
    pub(super) fn hold(&mut self, until: MonoTime) {
        self.held_until = Some(until);
        self.due = Some(self.last.map_or(until, |last| until.max(last + SPACING)));
    }

    /// Whether to report now. If so, the next one is an interval away.
    pub(super) fn take(&mut self, now: MonoTime) -> bool {
        let periodic = self.last.is_some_and(|last| now.since(last) >= self.interval);
        if !periodic && self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.last = Some(now);
        self.due = None;
        self.held_until = None;
        true
    }
}

/// How long to wait before a gallery that was just thrown away is asked for again: at once the first time; then 1, 2, 4
/// … 60 s while the hub's records keep leading to the same doubt, so that a broken log does not keep both ends busy.
#[derive(Debug, Clone, Default)]
pub(super) struct RebuildPace {
    in_a_row: u32,
    last: Option<MonoTime>,
}

impl RebuildPace {
    const LONGEST: Duration = Duration::from_secs(60);
    /// A gallery that stood for this long was good.
    const GOOD: Duration = Duration::from_secs(120);

    pub(super) fn thrown_away(&mut self, now: MonoTime) -> MonoTime {
        if self.last.is_some_and(|last| now.since(last) >= Self::GOOD) {
            self.in_a_row = 0;
        }
        self.last = Some(now);
        let wait = match self.in_a_row {
            0 => Duration::ZERO,
            n => Duration::from_secs(1 << (n - 1).min(6)).min(Self::LONGEST),
        };
        self.in_a_row += 1;
        now + wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_millis(ms)
    }

    #[test]
    fn changes_are_reported_at_most_once_a_second() {
        let mut reports = Reports::new(Duration::from_secs(60));
        assert!(!reports.take(at(0)));
        reports.connected(at(0));
        assert!(reports.take(at(0)));
        for ms in [10, 200, 900] {
            reports.changed(at(ms));
            assert!(!reports.take(at(ms)));
        }
        assert!(reports.take(at(1_000)));
        assert!(!reports.take(at(2_500)), "nothing changed");
        reports.changed(at(2_500));
        assert!(reports.take(at(2_500)));
    }

    #[test]
    fn what_is_held_is_not_reported_earlier_by_another_change() {
        let mut reports = Reports::new(Duration::from_secs(60));
        reports.connected(at(0));
        assert!(reports.take(at(0)));
        reports.changed(at(2_000));
        reports.hold(at(6_000));
        reports.changed(at(2_010));
        assert!(!reports.take(at(2_020)) && !reports.take(at(5_999)));
        assert!(reports.take(at(6_000)));
        reports.changed(at(7_500));
        assert!(reports.take(at(7_500)), "the hold ends with the report");
    }

    #[test]
    fn what_is_to_be_said_again_waits_for_its_time_unless_something_changes() {
        let mut reports = Reports::new(Duration::from_secs(60));
        reports.connected(at(0));
        assert!(reports.take(at(0)));
        reports.again(at(5_000));
        assert!(!reports.take(at(4_999)) && reports.take(at(5_000)));
        reports.again(at(10_000));
        reports.changed(at(7_000));
        assert!(reports.take(at(7_000)), "a change does not wait for it");
    }

    #[test]
    fn a_minute_without_changes_is_reported_too() {
        let mut reports = Reports::new(Duration::from_secs(60));
        reports.connected(at(0));
        assert!(reports.take(at(0)));
        assert!(!reports.take(at(59_999)));
        assert!(reports.take(at(60_000)));
        assert!(!reports.take(at(60_250)));
    }

    #[test]
    fn a_gallery_thrown_away_again_and_again_is_asked_for_ever_more_slowly() {
        let mut pace = RebuildPace::default();
        let waits: Vec<u64> = (0..9).map(|_| pace.thrown_away(at(0)).as_millis() / 1000).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pace.thrown_away(at(120_000)), at(120_000));
    }
}
