//! A monotonic instant, as a plain number that anyone can make up in a test.
//!
//! The programs have one injected clock each; this crate never reads one. Deliberately absent: wall time, time
//! zones and leap seconds (events get their wall time where they are recorded).

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds since an arbitrary start (usually the boot of the machine), never running backwards.
///
/// Two values are comparable only when they come from the same clock; within one program that is always so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The start of the clock.
    pub const START: Self = Self(0);

    /// The instant `nanos` nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `millis` milliseconds after the start, saturating at the end of time (584 years).
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the start.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time that has passed since `earlier`; zero when `earlier` is in fact later.
    ///
    /// Where the difference between "no time" and "the future" matters, compare the two instants first, as
    /// the door does.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `span` before this one, or the start of the clock if there is none.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos_of(span)))
    }
}

impl Add<Duration> for MonoTime {
    type Output = Self;

    /// Saturates at the end of time, so that an absurd configured duration cannot panic in a door's step.
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(span)))
    }
}

fn nanos_of(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_saturates_when_the_other_is_later() {
        let early = MonoTime::from_millis(5);
        let late = MonoTime::from_millis(12);
        assert_eq!(late.since(early), Duration::from_millis(7));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn adding_and_subtracting_saturate_at_both_ends() {
        assert_eq!(MonoTime::from_nanos(u64::MAX) + Duration::from_secs(1), MonoTime::from_nanos(u64::MAX));
        assert_eq!(MonoTime::START + Duration::MAX, MonoTime::from_nanos(u64::MAX));
        assert_eq!(MonoTime::from_millis(3).before(Duration::from_secs(1)), MonoTime::START);
        assert_eq!((MonoTime::from_millis(3) + Duration::from_millis(4)).as_millis(), 7);
    }
}
