//! The one place that asks what time it is.
//!
//! Out: [`Clock`], injected everywhere else; [`SystemClock`], the real one, which believes wall time only as far as it was
//! proven ([`judge`]) and is kept over restarts by [`keeper`]. Monotonic time is the kernel's
//! `CLOCK_MONOTONIC`, so that its numbers mean the same to capture (V4L2 and GStreamer stamp frames with it), to a
//! restarted agent and to whoever watches a door's socket on this machine. Deliberately absent: sleeping, timers.

pub mod judge;
pub mod keeper;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_store::{ClockMark, ProvenTime};
use face_core::MonoTime;
use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::judge::TimeRefused;
use self::judge::{Judge, Proof};

/// How far wall time can be trusted; recorded with every event.
pub use wire_contract::event::ClockQuality;

/// No clock that shows less than this is right: 2026-11-01, before this program was built.
const BUILD_FLOOR: i64 = 1_793_491_200;
/// A time service and a hub that are further apart than this do not mean the same time.
const DISAGREEMENT: Duration = Duration::from_secs(30);

/// Wall time in UTC with its quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// UTC.
    pub utc: OffsetDateTime,
    /// Whether to believe it.
    pub quality: ClockQuality,
}

impl WallTime {
    /// The time, if it can be believed. Whatever is limited in time must be refused without it.
    #[must_use]
    pub fn trusted(&self) -> Option<OffsetDateTime> {
        (self.quality != ClockQuality::Untrusted).then_some(self.utc)
    }
}

/// What time it is. Tests give their own.
pub trait Clock: Send + Sync {
    /// Monotonic time; never goes back within one boot.
    fn now(&self) -> MonoTime;
    /// Wall time; may jump while it is not trusted.
    fn wall(&self) -> WallTime;
    /// A time that is certainly past, over restarts and boots: it rises with the hub's time and with the time that this
    /// device runs. Whatever ends after a span (a lease) has ended when this says so, trusted clock or not.
    fn known_past(&self) -> OffsetDateTime {
        self.wall().trusted().unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
    /// Takes the hub's authenticated time, asked for at `asked` and answered now. A clock that was given, as tests do,
    /// needs none.
    ///
    /// # Errors
    /// When the answer took long, or lies before what is known to be past.
    fn hub_said(&self, _at: OffsetDateTime, _asked: MonoTime) -> Result<(), TimeRefused> {
        Ok(())
    }
}

/// A clock shared by all parts.
pub type SharedClock = Arc<dyn Clock>;

/// `[clock]`: what the wall clock is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockConfig {
    /// Whether a clock that the kernel calls synchronised is believed.
    pub time_service: TimeService,
}

/// What the kernel's word on its clock counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeService {
    /// A synchronised clock is right.
    Believed,
    /// Only the hub's time is right: for networks in which anybody could play the time service.
    Ignored,
}

/// The kernel's clocks, judged. A clone shares what was seen.
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
        Self::judging(Judge::new(floor_of(unix_seconds.saturating_mul(1000)), monotonic()))
    }

    /// The agent's clock: goes on from what an earlier run wrote down, as far as it still holds.
    #[must_use]
    pub fn resumed(config: ClockConfig, unix_seconds: i64, mark: Option<&ClockMark>) -> Self {
        let known = mark.map_or(0, |mark| mark.floor_ms).max(unix_seconds.saturating_mul(1000));
        let judge = Judge::new(floor_of(known), monotonic()).resume(mark.and_then(proof_of));
        Self::judging(match config.time_service {
            TimeService::Believed => judge,
            TimeService::Ignored => judge.without_kernel(),
        })
    }

    fn judging(judge: Judge) -> Self {
        Self { judge: Arc::new(Mutex::new(judge)) }
    }

    /// What the next run should know.
    #[must_use]
    pub fn mark(&self) -> ClockMark {
        let judge = self.judge.lock().expect("no holder of this lock panics");
        let proven = judge.proof().zip(boot()).map(|(proof, boot)| ProvenTime {
            boot,
            utc_ms: unix_ms(proof.utc),
            mono_ns: proof.seen.as_nanos(),
        });
        ClockMark { floor_ms: unix_ms(judge.known_past(monotonic())), proven }
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
        monotonic()
    }

    fn wall(&self) -> WallTime {
        let mut judge = self.judge.lock().expect("no holder of this lock panics");
        // Read inside the lock: what another thread read before must not be judged after this.
        judge.judge(monotonic(), Self::utc(), kernel_clock_synchronised())
    }

    fn known_past(&self) -> OffsetDateTime {
        self.judge.lock().expect("no holder of this lock panics").known_past(monotonic())
    }

    fn hub_said(&self, at: OffsetDateTime, asked: MonoTime) -> Result<(), TimeRefused> {
        let before = self.wall();
        self.judge.lock().expect("no holder of this lock panics").told(at, asked, monotonic())?;
        let apart = (before.utc - at).unsigned_abs();
        match before.quality {
            ClockQuality::Synchronised if apart > DISAGREEMENT => {
                tracing::warn!(
                    event = "clocks_disagree",
                    apart_s = apart.as_secs(),
                    "the time service and the hub do not agree on the time; one of them is wrong"
                );
            }
            ClockQuality::Untrusted => {
                tracing::info!(
                    event = "clock_trusted",
                    utc = rfc3339_ms(at),
                    wrong_by_s = apart.as_secs(),
                    "the hub has told the time; time-limited permissions count again"
                );
            }
            _ => {}
        }
        Ok(())
    }
}

fn monotonic() -> MonoTime {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `spec` is a valid, writable timespec; CLOCK_MONOTONIC exists on every Linux.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut spec) };
    assert_eq!(result, 0, "CLOCK_MONOTONIC is always readable");
    let seconds = u64::try_from(spec.tv_sec).expect("monotonic time is not negative");
    let nanos = u64::try_from(spec.tv_nsec).expect("nanoseconds are not negative");
    MonoTime::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// This boot, by the kernel's own name for it: monotonic time means the same only within it.
fn boot() -> Option<Uuid> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok()
}

/// What was proven in this boot; a proof of another boot, or of a moment that has not come yet, proves nothing.
fn proof_of(mark: &ClockMark) -> Option<Proof> {
    let proven = mark.proven.as_ref().filter(|proven| Some(proven.boot) == boot())?;
    let seen = MonoTime::from_nanos(proven.mono_ns);
    (seen <= monotonic()).then(|| Proof { utc: utc_of(proven.utc_ms), seen })
}

fn floor_of(known_ms: i64) -> OffsetDateTime {
    utc_of(known_ms.max(BUILD_FLOOR * 1000))
}

fn unix_ms(utc: OffsetDateTime) -> i64 {
    wire_contract::Timestamp::from(utc).unix_ms()
}

fn utc_of(ms: i64) -> OffsetDateTime {
    wire_contract::Timestamp::from_unix_ms(ms).to_offset_date_time()
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

    fn believing(time_service: TimeService, unix_seconds: i64, mark: Option<&ClockMark>) -> SystemClock {
        SystemClock::resumed(ClockConfig { time_service }, unix_seconds, mark)
    }

    #[test]
    fn a_clock_below_its_floor_is_not_trusted() {
        let clock = SystemClock::not_before(4_000_000_000);
        let wall = clock.wall();
        assert_eq!((wall.quality, wall.trusted()), (ClockQuality::Untrusted, None));
        assert!(wall.utc.unix_timestamp() >= 4_000_000_000, "it is at least as late as is known");
    }

    #[test]
    fn what_the_hub_said_outlives_this_run_but_not_this_boot() {
        let clock = believing(TimeService::Ignored, 0, None);
        assert_eq!(clock.wall().trusted(), None, "nothing is proven at the start");
        let said = SystemClock::utc() + time::Duration::days(3);
        clock.hub_said(said, clock.now()).unwrap();
        let near = |utc: OffsetDateTime| (utc - said).unsigned_abs() < Duration::from_secs(60);
        assert!(clock.wall().trusted().is_some_and(near));

        let mark = clock.mark();
        let next = believing(TimeService::Ignored, 0, Some(&mark));
        assert!(next.wall().trusted().is_some_and(near), "the same boot: monotonic time has gone on");
        let another =
            ClockMark { proven: mark.proven.map(|proven| ProvenTime { boot: Uuid::nil(), ..proven }), ..mark };
        let booted = believing(TimeService::Ignored, 0, Some(&another));
        assert_eq!(booted.wall().trusted(), None, "after a boot the clock proves nothing");
        assert!(near(booted.known_past()), "but the floor is kept");
        let back = booted.hub_said(said - time::Duration::days(1), booted.now());
        assert!(matches!(back, Err(TimeRefused::BelowFloor { .. })));
    }

    #[test]
    fn a_proof_from_the_future_of_this_boot_is_none() {
        let clock = believing(TimeService::Ignored, 0, None);
        clock.hub_said(SystemClock::utc(), clock.now()).unwrap();
        let mark = clock.mark();
        let ahead = ClockMark { proven: mark.proven.map(|proven| ProvenTime { mono_ns: u64::MAX, ..proven }), ..mark };
        assert_eq!(believing(TimeService::Ignored, 0, Some(&ahead)).wall().trusted(), None);
    }
}
