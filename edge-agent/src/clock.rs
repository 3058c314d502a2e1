//! The one place that asks what time it is.
//!
//! Out: [`Clock`], injected everywhere else; [`SystemClock`], the real one. Monotonic time is the kernel's
//! `CLOCK_MONOTONIC`, so that its numbers mean the same to capture (V4L2 and GStreamer stamp frames with it), to a
//! restarted agent and to whoever watches a door's socket on this machine. Deliberately absent: sleeping, timers.

use std::sync::Arc;

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

/// The kernel's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    floor: i64,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { floor: BUILD_FLOOR }
    }
}

impl SystemClock {
    /// A clock that knows that it is later than `unix_seconds`, for example the signed time of the device's claim.
    #[must_use]
    pub fn not_before(unix_seconds: i64) -> Self {
        Self { floor: BUILD_FLOOR.max(unix_seconds) }
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
        let utc = Self::utc();
        let quality = match kernel_clock_synchronised() {
            _ if utc.unix_timestamp() < self.floor => ClockQuality::Untrusted,
            true => ClockQuality::Synchronised,
            false => ClockQuality::Holdover,
        };
        WallTime { utc, quality }
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

    #[test]
    fn a_clock_below_its_floor_is_not_trusted() {
        assert_eq!(SystemClock::not_before(i64::MAX).wall().quality, ClockQuality::Untrusted);
        assert_ne!(SystemClock::default().wall().quality, ClockQuality::Untrusted);
    }
}
