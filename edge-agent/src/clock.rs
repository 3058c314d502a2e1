//! The one place that asks what time it is.
//!
//! Out: [`Clock`], injected everywhere else; [`SystemClock`], the real one. Monotonic time is the kernel's
//! `CLOCK_MONOTONIC`, so that its numbers mean the same to capture (V4L2 and GStreamer stamp frames with it), to a
//! restarted agent and to whoever watches a door's socket on this machine. Deliberately absent: sleeping, timers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use face_core::MonoTime;
use time::OffsetDateTime;

/// How far wall time can be trusted; recorded with every event.
pub use wire_contract::event::ClockQuality;

/// No clock that shows less than this is right: 2026-11-01, before this program was built.
const BUILD_FLOOR: i64 = 1_793_491_200;

/// Wall time in UTC with its quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// UTC.
    pub utc: OffsetDateTime,
    /// Whether to believe it.
    pub quality: ClockQuality,
}

/// What time it is. Tests give their own.
pub trait Clock: Send + Sync {
    /// Monotonic time; never goes back within one boot.
    fn now(&self) -> MonoTime;
    /// Wall time; may jump.
    fn wall(&self) -> WallTime;
}

/// A clock shared by all parts.
pub type SharedClock = Arc<dyn Clock>;

/// How far an undisciplined wall clock may part from the monotonic one before it has been set by somebody: two seconds, for
/// a leap second and two readings, and a thousandth of the time that has passed, ten times what a bad crystal drifts.
const APART: (Duration, u32) = (Duration::from_secs(2), 1000);

/// Judges wall time by what was seen of it before. A clock that nobody disciplines and that jumps while the program runs was
/// set by a fault or by a hand: an expired permission must not come back by it.
#[derive(Debug, Clone)]
pub struct Judge {
    floor: i64,
    /// Wall time that was believed, and when; the rest follows by monotonic time.
    believed: Option<(MonoTime, OffsetDateTime)>,
}

impl Judge {
    /// No time before `floor` (Unix seconds) is believed.
    #[must_use]
    pub fn new(floor: i64) -> Self {
        Self { floor, believed: None }
    }

    /// Whether to believe that it is `utc`. `synchronised` is the kernel's word that its clock is disciplined, which it takes
    /// back when somebody sets the clock.
    pub fn judge(&mut self, now: MonoTime, utc: OffsetDateTime, synchronised: bool) -> ClockQuality {
        if utc.unix_timestamp() < self.floor {
            return ClockQuality::Untrusted;
        }
        if synchronised {
            self.believed = Some((now, utc));
            return ClockQuality::Synchronised;
        }
        let (since, believed) = *self.believed.get_or_insert((now, utc));
        let passed = now.since(since);
        let apart = (utc - (believed + passed)).unsigned_abs();
        if apart <= APART.0 + passed / APART.1 { ClockQuality::Holdover } else { ClockQuality::Untrusted }
    }
}

/// The kernel's clocks. A clone shares what was seen.
#[derive(Debug, Clone)]
pub struct SystemClock {
    judge: Arc<Mutex<Judge>>,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::not_before(BUILD_FLOOR)
    }
}

impl SystemClock {
    /// A clock that knows that it is later than `unix_seconds`, for example the signed time of the device's claim.
    #[must_use]
    pub fn not_before(unix_seconds: i64) -> Self {
        Self { judge: Arc::new(Mutex::new(Judge::new(BUILD_FLOOR.max(unix_seconds)))) }
    }

    /// UTC without a judgement of it, for log lines.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the program's one clock")]
    pub fn utc() -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> MonoTime {
        let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `spec` is a valid, writable timespec; CLOCK_MONOTONIC exists on every Linux.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut spec) };
        assert_eq!(result, 0, "CLOCK_MONOTONIC is always readable");
        let seconds = u64::try_from(spec.tv_sec).expect("monotonic time is not negative");
        let nanos = u64::try_from(spec.tv_nsec).expect("nanoseconds are not negative");
        MonoTime::from_nanos(seconds * 1_000_000_000 + nanos)
    }

    fn wall(&self) -> WallTime {
        let mut judge = self.judge.lock().expect("no holder of this lock panics");
        // Read inside the lock: what another thread read before must not be judged after this.
        let (synchronised, now, utc) = (kernel_clock_synchronised(), self.now(), Self::utc());
        WallTime { utc, quality: judge.judge(now, utc, synchronised) }
    }
}

/// Asks the kernel whether its clock is disciplined (`adjtimex`, reading only).
fn kernel_clock_synchronised() -> bool {
    // SAFETY: timex is plain data, for which all zeroes is a valid value; modes = 0 means "only read".
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a valid, writable timex.
    let code = unsafe { libc::adjtimex(&raw mut state) };
    code >= 0 && code != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}

/// RFC 3339 in UTC with milliseconds, the form of every time that leaves the agent.
#[must_use]
pub fn rfc3339_ms(utc: OffsetDateTime) -> String {
    let utc = utc.to_offset(time::UtcOffset::UTC);
    let date = utc.date();
    let (hour, minute, second, milli) = utc.to_hms_milli();
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        let time = time::macros::datetime!(2026-11-22 12:34:56.789_999 +07:00);
        assert_eq!(rfc3339_ms(time), "2026-11-22T05:34:56.789Z");
    }

    #[test]
    fn monotonic_time_does_not_go_back() {
        let clock = SystemClock::default();
        let first = clock.now();
        assert!(clock.now() >= first);
    }

    const YEAR: i64 = 365 * 86_400;

    fn at(seconds: i64) -> (MonoTime, OffsetDateTime) {
        let mono = MonoTime::from_millis(u64::try_from(seconds).unwrap() * 1000);
        (mono, OffsetDateTime::from_unix_timestamp(BUILD_FLOOR + YEAR + seconds).unwrap())
    }

    #[test]
    fn a_clock_that_jumps_is_not_believed_until_it_is_disciplined_or_back() {
        for jump in [-YEAR / 2, -86_400, -60, 60, 86_400, 10 * YEAR] {
            let mut judge = Judge::new(BUILD_FLOOR);
            let (now, utc) = at(0);
            assert_eq!(judge.judge(now, utc, false), ClockQuality::Holdover);
            for seconds in [10, 100, 3600] {
                let (now, utc) = at(seconds);
                let jumped = utc + time::Duration::seconds(jump);
                assert_eq!(judge.judge(now, jumped, false), ClockQuality::Untrusted, "{jump} s, after {seconds} s");
                assert_eq!(judge.judge(now, utc, false), ClockQuality::Holdover, "back at its own time");
            }
            let (now, utc) = at(4000);
            let set = utc + time::Duration::seconds(jump);
            assert_eq!(judge.judge(now, set, true), ClockQuality::Synchronised, "the network's time is believed");
            let (now, utc) = at(4010);
            assert_eq!(judge.judge(now, utc + time::Duration::seconds(jump), false), ClockQuality::Holdover);
            assert_eq!(judge.judge(now, utc, false), ClockQuality::Untrusted);
        }
    }

    #[test]
    fn drift_and_leap_seconds_are_no_jumps() {
        let mut judge = Judge::new(BUILD_FLOOR);
        for hours in 0..24 * 30 {
            let (now, utc) = at(hours * 3600);
            // A bad crystal, 100 parts in a million, and a second that was inserted.
            let wrong = time::Duration::milliseconds(hours * 360) - time::Duration::seconds(i64::from(hours > 5));
            assert_eq!(judge.judge(now, utc + wrong, false), ClockQuality::Holdover, "after {hours} h");
        }
    }

    #[test]
    fn a_clock_below_its_floor_is_not_trusted() {
        assert_eq!(SystemClock::not_before(i64::MAX).wall().quality, ClockQuality::Untrusted);
        assert_ne!(SystemClock::default().wall().quality, ClockQuality::Untrusted);
    }
}
