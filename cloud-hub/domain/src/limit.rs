//! How many requests in what time: the generic cell rate algorithm, what each tier may ask, and how limits give way to load.
//!
//! In: what was asked before (one number a bucket), the time, and a rate. Out: yes or no, how much is left, and how long to wait.
//! Within any time `t` a bucket admits no more than `burst + t / interval` requests. Deliberately absent: where the numbers are
//! kept (`limit`), and what a route costs (`api::limits`).

use std::time::Duration;

use super::tenant::Tier;

/// Microseconds of whatever clock the buckets are kept by.
pub type Micros = u64;

/// How often something may happen: `burst` times at once, and once more every `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once, at least 1.
    pub burst: u32,
    /// Microseconds until there is room for one more, at least 1.
    pub interval: Micros,
}

impl Rate {
    /// So many in `time`, and `burst` of them at once.
    #[must_use]
    pub fn new(count: u32, time: Duration, burst: u32) -> Self {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Rounded up: rather a little less than a little more.
        Self { burst: burst.max(1), interval: micros.div_ceil(u64::from(count.max(1))).max(1) }
    }

    /// The same with `share` of its room, which lies above 0 and at most at 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count, and a count of a share"
    )]
    pub fn tightened(self, share: f64) -> Self {
        Self {
            burst: ((f64::from(self.burst) * share) as u32).max(1),
            interval: (self.interval as f64 / share).ceil() as Micros,
        }
    }

    /// How long an empty bucket takes to be as good as new.
    #[must_use]
    pub fn whole(self) -> Micros {
        self.interval.saturating_mul(u64::from(self.burst))
    }
}

/// What a bucket says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether there is room.
    pub admits: bool,
    /// How many more at once, this one counted if it is admitted.
    pub remaining: u32,
    /// Until there is room for one more; 0 if there is.
    pub wait: Micros,
    /// Until the bucket is as good as new.
    pub reset: Micros,
}

/// Asks a bucket. `until` is when what was admitted so far will have been worked off (`None`: nothing was); the answer's second
/// half is that of afterwards, if the request is admitted.
#[must_use]
pub fn ask(until: Option<Micros>, now: Micros, rate: Rate) -> (Standing, Micros) {
    // A clock that was put back, or a rate that was looser before, shuts nobody out for longer than a whole bucket.
    let until = until.unwrap_or(now).clamp(now, now.saturating_add(rate.whole()));
    let after = until.saturating_add(rate.interval);
    let room = now.saturating_add(rate.whole());
    let admits = after <= room;
    let kept = if admits { after } else { until };
    let standing = Standing {
        admits,
        remaining: u32::try_from((room - kept) / rate.interval).unwrap_or(u32::MAX),
        wait: if admits { 0 } else { after - room },
        reset: kept - now,
    };
    (standing, after)
}

/// Kinds of requests that are limited apart from each other, so that one kind never uses up another's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks.
    Read,
    /// Changes something.
    Write,
    /// Has photographs or templates worked on.
    Biometric,
    /// Opens or locks doors. It counts toward nothing else, and gives way to no load: a door is not to stay shut over a quota.
    Command,
}

impl Class {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Read, Self::Write, Self::Biometric, Self::Command];

    /// As headers and documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Biometric => "biometric",
            Self::Command => "command",
        }
    }

    /// What a tenant of this tier may ask.
    #[must_use]
    pub fn rate(self, tier: Tier) -> Rate {
        let (a_second, burst) = match (tier, self) {
            (Tier::Basic, Self::Read) => (20, 100),
            (Tier::Basic, Self::Write) => (10, 50),
            (Tier::Basic, Self::Biometric) => (5, 25),
            (Tier::Basic, Self::Command) => (5, 20),
            (Tier::Professional, Self::Read) => (100, 500),
            (Tier::Professional, Self::Write | Self::Biometric) => (50, 250),
            (Tier::Professional, Self::Command) => (25, 100),
            // Enough to keep a hub busy; it protects the hub from a loop gone wild, not the operator from a customer.
            (Tier::Enterprise, _) => (5_000, 10_000),
        };
        Rate::new(a_second, Duration::from_secs(1), burst)
    }
}

/// How long an allowance lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// By the hour.
    Hour,
    /// By the day.
    Day,
}

impl Span {
    /// As headers and documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Its length.
    #[must_use]
    pub const fn time(self) -> Duration {
        match self {
            Self::Hour => Duration::from_secs(3_600),
            Self::Day => Duration::from_secs(86_400),
        }
    }

    /// So many in this span, spread over it; a tenth of them, ten at least, may come at once.
    #[must_use]
    pub fn rate(self, count: u32) -> Rate {
        Rate::new(count, self.time(), (count / 10).max(10).min(count))
    }

    fn of_tier(self, tier: Tier) -> Option<u32> {
        match (tier, self) {
            (Tier::Basic, Self::Hour) => Some(10_000),
            (Tier::Basic, Self::Day) => Some(100_000),
            (Tier::Professional, Self::Hour) => Some(100_000),
            (Tier::Professional, Self::Day) => Some(1_000_000),
            (Tier::Enterprise, _) => None,
        }
    }
}

/// Where a tenant's allowance differs from its tier's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests an hour.
    pub per_hour: Option<u32>,
    /// Requests a day.
    pub per_day: Option<u32>,
}

impl Allowance {
    /// How many requests a tenant may ask in a span; `None`: as many as it likes.
    #[must_use]
    pub fn of(self, tier: Tier, span: Span) -> Option<u32> {
        let own = match span {
            Span::Hour => self.per_hour,
            Span::Day => self.per_day,
        };
        own.or_else(|| span.of_tier(tier))
    }
}

/// How far limits are tightened because the hub has more to do than it can: halved by every second in which it had to turn
/// somebody away, and let out again by a tenth in every second in which it had not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pressure(f64);

/// However much there is to do, an eighth of every limit is left.
const TIGHTEST: f64 = 0.125;

impl Default for Pressure {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Pressure {
    /// The share of every limit that is left, in [0.125, 1].
    #[must_use]
    pub fn share(self) -> f64 {
        self.0
    }

    /// After a second in which somebody was turned away, or nobody was.
    #[must_use]
    pub fn after_a_second(self, turned_away: bool) -> Self {
        Self(if turned_away { (self.0 / 2.0).max(TIGHTEST) } else { (self.0 * 1.1).min(1.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Micros = 1_000_000;

    /// How many of the requests at `times` are admitted.
    fn admitted(rate: Rate, times: impl IntoIterator<Item = Micros>) -> u64 {
        let mut until = None;
        let mut count = 0;
        for now in times {
            let (standing, after) = ask(until, now, rate);
            if standing.admits {
                until = Some(after);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn the_burst_at_once_and_then_one_every_interval() {
        let rate = Rate::new(10, Duration::from_secs(1), 5);
        let mut until = None;
        for left in (0..5).rev() {
            let (standing, after) = ask(until, 7, rate);
            assert!(standing.admits);
            assert_eq!((standing.remaining, standing.wait), (left, 0));
            until = Some(after);
        }
        let (refused, _) = ask(until, 7, rate);
        assert!(!refused.admits);
        assert_eq!((refused.remaining, refused.wait, refused.reset), (0, SECOND / 10, SECOND / 2));
        assert!(!ask(until, 7 + refused.wait - 1, rate).0.admits && ask(until, 7 + refused.wait, rate).0.admits);
    }

    #[test]
    fn whoever_asks_all_the_time_gets_the_rate() {
        let rate = Rate::new(100, Duration::from_secs(1), 20);
        let count = admitted(rate, (0..100 * SECOND).step_by(777));
        assert!((10_000..=10_020).contains(&count), "{count}");
    }

    #[test]
    fn a_clock_that_was_put_back_shuts_nobody_out_for_long() {
        let rate = Rate::new(1, Duration::from_secs(1), 3);
        let (standing, _) = ask(Some(1_000_000 * SECOND), 5, rate);
        assert_eq!((standing.admits, standing.wait), (false, SECOND));
    }

    #[test]
    fn a_tightened_rate_admits_its_share() {
        let rate = Rate::new(1_000, Duration::from_secs(1), 100);
        let tight = rate.tightened(0.25);
        assert_eq!((tight.burst, tight.interval), (25, 4_000));
        assert_eq!(rate.tightened(1.0), rate);
        assert_eq!(Rate::new(1, Duration::from_secs(1), 1).tightened(0.125).burst, 1);
    }

    #[test]
    fn pressure_halves_at_once_and_goes_slowly() {
        let mut pressure = Pressure::default();
        for share in [0.5, 0.25, 0.125, 0.125] {
            pressure = pressure.after_a_second(true);
            assert!((pressure.share() - share).abs() < 1e-9);
        }
        let mut seconds = 0;
        while pressure.share() < 1.0 {
            pressure = pressure.after_a_second(false);
            seconds += 1;
        }
        assert!((15..=30).contains(&seconds), "{seconds}");
    }

    #[test]
    fn what_is_said_of_the_tenant_wins_over_its_tier() {
        let own = Allowance { per_hour: Some(7), per_day: None };
        assert_eq!(own.of(Tier::Basic, Span::Hour), Some(7));
        assert_eq!(own.of(Tier::Basic, Span::Day), Some(100_000));
        assert_eq!(Allowance::default().of(Tier::Enterprise, Span::Day), None);
        for span in [Span::Hour, Span::Day] {
            for pair in Tier::ALL.windows(2) {
                let of = |tier| span.of_tier(tier).unwrap_or(u32::MAX);
                assert!(of(pair[0]) < of(pair[1]), "{span:?} of {pair:?}");
            }
        }
    }

    #[test]
    fn a_higher_tier_may_ask_more_of_everything_and_none_can_burst_for_longer_than_it_rests() {
        for class in Class::ALL.iter().copied() {
            for pair in Tier::ALL.windows(2) {
                let (lower, higher) = (class.rate(pair[0]), class.rate(pair[1]));
                assert!(lower.burst < higher.burst && lower.interval > higher.interval, "{class:?} of {pair:?}");
            }
            for tier in Tier::ALL.iter().copied() {
                let rate = class.rate(tier);
                assert!(rate.whole() <= 5 * SECOND, "{class:?} of {tier:?} is as good as new within five seconds");
            }
        }
        let basic = Class::Read.rate(Tier::Basic);
        assert_eq!((basic.burst, basic.interval), (100, SECOND / 20));
        let names: std::collections::BTreeSet<&str> = Class::ALL.iter().map(|class| class.as_str()).collect();
        assert_eq!(names, ["biometric", "command", "read", "write"].into());
    }

    #[test]
    fn an_allowance_is_spread_over_its_own_span() {
        for (span, name, seconds) in [(Span::Hour, "hour", 3_600), (Span::Day, "day", 86_400)] {
            assert_eq!((span.as_str(), span.time().as_secs()), (name, seconds));
            let rate = span.rate(1_000);
            assert_eq!((rate.burst, rate.interval * 1_000), (100, seconds * SECOND));
        }
    }

    #[test]
    fn a_small_allowance_can_be_used_at_once() {
        assert_eq!(Span::Hour.rate(4).burst, 4);
        assert_eq!(Span::Hour.rate(20).burst, 10);
        assert_eq!(Span::Hour.rate(10_000).burst, 1_000);
    }

    proptest! {
        /// Never more than the burst and what time gave back, within any window.
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            count in 1_u32..500,
            seconds in 1_u64..100,
            burst in 1_u32..50,
            gaps in prop::collection::vec(0_u64..3 * SECOND, 1..400),
        ) {
            let rate = Rate::new(count, Duration::from_secs(seconds), burst);
            let mut now = 12;
            let mut admitted_at = Vec::new();
            let mut until = None;
            for gap in gaps {
                now += gap;
                let (standing, after) = ask(until, now, rate);
                prop_assert_eq!(standing.admits, standing.wait == 0);
                if standing.admits {
                    until = Some(after);
                    admitted_at.push(now);
                }
            }
            for (first, start) in admitted_at.iter().enumerate() {
                for (last, end) in admitted_at.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (end - start) / rate.interval;
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }

        /// Whoever waits as long as they are told is admitted.
        #[test]
        fn whoever_waits_as_told_is_admitted(count in 1_u32..1_000, burst in 1_u32..100, used in 0.0..1.0) {
            let rate = Rate::new(count, Duration::from_secs(1), burst);
            let until = Some(3 + (rate.whole() as f64 * used) as Micros);
            let (standing, _) = ask(until, 3, rate);
            prop_assert!(ask(until, 3 + standing.wait, rate).0.admits);
        }
    }
}
