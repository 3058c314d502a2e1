//! What to believe of the wall clock, and what time it is while it cannot be believed.
//!
//! In: the monotonic time, what the wall clock shows, the kernel's word on it, the hub's authenticated time. Out: a
//! [`WallTime`]. Three sources prove a time: the kernel (its clock is disciplined by a time service), the hub (its time,
//! signed or sealed for a question of ours), and a proof of either kind from earlier in this boot, carried on by
//! monotonic time. A wall clock that nobody disciplines proves nothing, whatever it shows: it may have come out of a dead
//! battery, or a hand may have set it so that an ended permission opens again.
//!
//! Below all of this lies the floor: what is known to be past. It rises with the hub's time and with the time that
//! passes, and with nothing else; a time service that was wrong once must not close a door for ever.
//! Deliberately absent: reading clocks, files.

use std::time::Duration;

use face_core::MonoTime;
use time::OffsetDateTime;

use super::{ClockQuality, WallTime};

/// How long a proven time is carried on without another: as long as a gallery is kept without the hub. A bad crystal, 100
/// parts in a million off, is four minutes wrong by then.
pub const HOLDOVER: Duration = Duration::from_secs(30 * 86_400);
/// How long the hub's answer may take to be believed: half of it is how wrong the time may be.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How far the hub's time may lie below what was known to be past: a hub whose own clock was corrected by a little is no
/// other hub.
pub const FLOOR_SLACK: Duration = Duration::from_secs(60);
/// The floor rises a thousandth more slowly than monotonic time, ten times what a bad crystal gains: it must never
/// overtake the hub.
const FLOOR_LAG: u32 = 1000;

/// A time that was proven, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The time.
    pub utc: OffsetDateTime,
    /// The monotonic time at which it was so.
    pub seen: MonoTime,
}

/// Why the hub's time is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeRefused {
    /// The answer took so long that it says little.
    #[error("the answer took {took:?}, at most {ANSWER_LIMIT:?} are allowed")]
    Slow {
        /// How long it took.
        took: Duration,
    },
    /// It is known to be later.
    #[error(
        "the hub says {said}, but {past} is known to be past; if the hub's clock was wrong before, claim this device again"
    )]
    BelowFloor {
        /// What the hub said.
        said: OffsetDateTime,
        /// What is known to be past.
        past: OffsetDateTime,
    },
}

/// Judges wall time by what was proven before.
#[derive(Debug, Clone)]
pub struct Judge {
    floor: Proof,
    proof: Option<Proof>,
    /// Whether the kernel's word that its clock is disciplined counts.
    believes_kernel: bool,
}

impl Judge {
    /// No time before `floor` is believed. Nothing is proven yet.
    #[must_use]
    pub fn new(floor: OffsetDateTime, now: MonoTime) -> Self {
        Self { floor: Proof { utc: floor, seen: now }, proof: None, believes_kernel: true }
    }

    /// Goes on with what was proven earlier in this boot.
    #[must_use]
    pub fn resume(mut self, proof: Option<Proof>) -> Self {
        self.proof = proof;
        self
    }

    /// Takes no notice of the kernel's word: for networks whose time service anybody could be.
    #[must_use]
    pub fn without_kernel(mut self) -> Self {
        self.believes_kernel = false;
        self
    }

    /// A time that is certainly past.
    #[must_use]
    pub fn known_past(&self, now: MonoTime) -> OffsetDateTime {
        let passed = now.since(self.floor.seen);
        later(self.floor.utc, passed - passed / FLOOR_LAG)
    }

    /// What was proven last, to be carried on by the next run in this boot.
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        self.proof
    }

    /// What time it is, when the wall clock shows `shown`. `synchronised` is the kernel's word that its clock is
    /// disciplined, which it takes back when somebody sets the clock.
    pub fn judge(&mut self, now: MonoTime, shown: OffsetDateTime, synchronised: bool) -> WallTime {
        let past = self.known_past(now);
        if synchronised && self.believes_kernel && shown >= past {
            self.proof = Some(Proof { utc: shown, seen: now });
            return WallTime { utc: shown, quality: ClockQuality::Synchronised };
        }
        match self.proof {
            Some(proof) if now.since(proof.seen) <= HOLDOVER => {
                let utc = later(proof.utc, now.since(proof.seen)).max(past);
                WallTime { utc, quality: ClockQuality::Holdover }
            }
            _ => WallTime { utc: shown.max(past), quality: ClockQuality::Untrusted },
        }
    }

    /// Takes the hub's authenticated time `at`, asked for at `asked` and answered now.
    ///
    /// # Errors
    /// When the answer came late, or lies before what is known to be past.
    pub fn told(&mut self, at: OffsetDateTime, asked: MonoTime, now: MonoTime) -> Result<(), TimeRefused> {
        let (took, past) = (now.since(asked), self.known_past(now));
        if took > ANSWER_LIMIT {
            return Err(TimeRefused::Slow { took });
        }
        if later(at, FLOOR_SLACK) < past {
            return Err(TimeRefused::BelowFloor { said: at, past });
        }
        self.floor = Proof { utc: at.max(past), seen: now };
        // It was so at some moment between question and answer.
        self.proof = Some(Proof { utc: later(at, took / 2), seen: now });
        Ok(())
    }
}

fn later(time: OffsetDateTime, by: Duration) -> OffsetDateTime {
    let by = time::Duration::try_from(by).unwrap_or(time::Duration::MAX);
    time.saturating_add(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: OffsetDateTime = time::macros::datetime!(2026-11-01 00:00 UTC);
    const START: OffsetDateTime = time::macros::datetime!(2027-03-01 12:00 UTC);
    const DAY: i64 = 86_400;
    const YEAR: i64 = 365 * DAY;

    fn mono(seconds: i64) -> MonoTime {
        MonoTime::from_millis(u64::try_from(seconds).unwrap() * 1000 + 5_000_000)
    }

    /// The true time, `seconds` after the start.
    fn at(seconds: i64) -> OffsetDateTime {
        START + time::Duration::seconds(seconds)
    }

    fn wrong(seconds: i64, by: i64) -> OffsetDateTime {
        at(seconds).saturating_add(time::Duration::seconds(by))
    }

    fn judge() -> Judge {
        Judge::new(FLOOR, mono(0))
    }

    const JUMPS: [i64; 7] = [-10 * YEAR, -DAY, -60, 60, DAY, 10 * YEAR, -57 * YEAR];

    #[test]
    fn a_clock_at_boot_is_not_believed_however_right_it_looks() {
        for jump in [0].into_iter().chain(JUMPS) {
            let mut judge = judge();
            let wall = judge.judge(mono(1), wrong(1, jump), false);
            assert_eq!(wall.quality, ClockQuality::Untrusted, "{jump}");
            assert!(wall.utc >= FLOOR);
        }
    }

    #[test]
    fn a_jump_after_a_proof_changes_nothing() {
        for by_kernel in [true, false] {
            for jump in JUMPS {
                let mut judge = judge();
                if by_kernel {
                    assert_eq!(judge.judge(mono(1), at(1), true).quality, ClockQuality::Synchronised);
                } else {
                    judge.told(at(1), mono(1), mono(1)).unwrap();
                }
                for seconds in [2, 100, 3600, 20 * DAY] {
                    let wall = judge.judge(mono(seconds), wrong(seconds, jump), false);
                    assert_eq!(
                        wall,
                        WallTime { utc: at(seconds), quality: ClockQuality::Holdover },
                        "{jump} {seconds}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_proof_ends_after_thirty_days_and_the_hub_or_the_kernel_renews_it() {
        let mut judge = judge();
        judge.told(at(0), mono(0), mono(0)).unwrap();
        assert_eq!(judge.judge(mono(30 * DAY), at(0), false).quality, ClockQuality::Holdover);
        assert_eq!(judge.judge(mono(30 * DAY + 1), at(0), false).quality, ClockQuality::Untrusted);
        judge.told(at(31 * DAY), mono(31 * DAY), mono(31 * DAY)).unwrap();
        assert_eq!(judge.judge(mono(60 * DAY), at(0), false).utc, at(60 * DAY));
        assert_eq!(judge.judge(mono(62 * DAY), at(62 * DAY), true).quality, ClockQuality::Synchronised);
        assert_eq!(judge.judge(mono(90 * DAY), at(0), false).quality, ClockQuality::Holdover);
    }

    #[test]
    fn a_disciplined_clock_below_the_floor_is_not_believed() {
        let mut judge = judge();
        assert_eq!(judge.judge(mono(1), wrong(1, -YEAR), true).quality, ClockQuality::Untrusted);
        judge.told(at(1), mono(1), mono(1)).unwrap();
        let wall = judge.judge(mono(2), wrong(2, -DAY), true);
        assert_eq!(wall, WallTime { utc: at(2), quality: ClockQuality::Holdover }, "the hub's word is the better one");
    }

    #[test]
    fn the_kernels_word_counts_for_nothing_where_it_is_not_wanted() {
        let mut judge = judge().without_kernel();
        assert_eq!(judge.judge(mono(1), at(1), true).quality, ClockQuality::Untrusted);
        judge.told(at(2), mono(2), mono(2)).unwrap();
        assert_eq!(judge.judge(mono(3), wrong(3, 10 * YEAR), true).utc, at(3));
    }

    #[test]
    fn the_hubs_time_is_refused_below_the_floor_and_after_a_long_wait() {
        let mut judge = judge();
        judge.told(at(0), mono(0), mono(0)).unwrap();
        let before = judge.clone();
        let back = judge.told(wrong(3600, -DAY), mono(3600), mono(3600));
        assert!(matches!(back, Err(TimeRefused::BelowFloor { .. })));
        let slow = judge.told(at(3600), mono(3600 - 16), mono(3600));
        assert_eq!(slow, Err(TimeRefused::Slow { took: Duration::from_secs(16) }));
        assert_eq!(judge.proof(), before.proof(), "nothing was taken");
        judge.told(wrong(3600, -30), mono(3600), mono(3600)).unwrap();
        assert!(judge.known_past(mono(3600)) > at(3590), "the floor does not go back with it");
    }

    #[test]
    fn the_floor_rises_with_time_but_never_overtakes_the_hub() {
        let mut judge = judge();
        judge.told(at(0), mono(0), mono(0)).unwrap();
        for days in 1..365 {
            // A crystal that is 100 parts in a million fast: monotonic time runs ahead of the hub's.
            let run = days * DAY + days * DAY / 10_000;
            assert!(judge.known_past(mono(run)) > at(days * DAY - 9 * 3600), "it rises");
            assert!(judge.clone().told(at(days * DAY), mono(run), mono(run)).is_ok(), "after {days} days");
        }
    }

    #[test]
    fn a_slow_answer_is_taken_in_the_middle() {
        let mut judge = judge();
        judge.told(at(5), mono(0), mono(10)).unwrap();
        assert_eq!(judge.judge(mono(10), at(10), false).utc, at(10));
    }

    #[test]
    fn a_leap_second_of_a_disciplined_clock_is_followed() {
        let mut judge = judge();
        assert_eq!(judge.judge(mono(1), at(1), true).utc, at(1));
        assert_eq!(judge.judge(mono(2), at(1), true).utc, at(1));
        assert_eq!(judge.judge(mono(10), at(50), false).utc, at(9));
    }
}
