//! Signals of an intrusion: one detector each, over a sliding window, with bounded memory for each caller.
//!
//! In: what a caller did, the time, and the thresholds. Out: whether it is one too many; then nothing more until a window has
//! passed. What each of them is, and is not:
//! - a *burst*: so many wrong secrets for one key. Whoever guesses has 2^256 before them; it is a misconfigured program, or
//!   somebody who tries what they found.
//! - *travel*: one key from more networks (IPv4 /24, IPv6 /48) within some minutes than it plausibly moves through. There is no map here
//!   of which network is where: a key in many hands looks alike, and two networks of one city count as two.
//! - *probing*: so many different ids asked for in turn that are not there for this tenant. Whether another tenant has them is not asked.
//! - *scraping*: more people looked at within an hour than a share of all that there are.
//!
//! Deliberately absent: what follows, and where callers are kept (`watch`).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// Microseconds of whatever clock the detectors are kept by.
pub type Micros = u64;

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Wrong secrets for one key.
    AuthenticationBurst,
    /// One key from many networks.
    ImpossibleTravel,
    /// Many ids that are not there.
    CrossTenantProbing,
    /// Many people looked at.
    TemplateScraping,
}

impl Signal {
    /// All there are.
    pub const ALL: &[Self] =
        &[Self::AuthenticationBurst, Self::ImpossibleTravel, Self::CrossTenantProbing, Self::TemplateScraping];

    /// As audit, events and metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthenticationBurst => "authentication_burst",
            Self::ImpossibleTravel => "impossible_travel",
            Self::CrossTenantProbing => "cross_tenant_probing",
            Self::TemplateScraping => "template_scraping",
        }
    }

    /// For how long the caller's limits are tightened: never shorter than nothing more is told of them.
    #[must_use]
    pub fn tightens_for(self) -> Duration {
        match self {
            Self::TemplateScraping => SCRAPING_WINDOW,
            Self::CrossTenantProbing => PROBING_WINDOW.max(TIGHTENED),
            Self::AuthenticationBurst | Self::ImpossibleTravel => TIGHTENED,
        }
    }
}

/// What is one too many. 0 switches its detector off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Wrong secrets for one key in [`BURST_WINDOW`].
    pub refused: u32,
    /// Networks of one key in [`Thresholds::travel_window`] that are still plausible.
    pub networks: u32,
    /// For [`Thresholds::networks`].
    pub travel_window: Duration,
    /// Different ids that are not there, in [`PROBING_WINDOW`].
    pub probes: u32,
    /// People looked at in [`SCRAPING_WINDOW`] that are never too many.
    pub people: u32,
    /// The share of all people that may be looked at in it, if that is more.
    pub people_share: f64,
}

/// The window of a burst.
pub const BURST_WINDOW: Duration = Duration::from_secs(60);
/// The window of probing.
pub const PROBING_WINDOW: Duration = Duration::from_secs(600);
/// The window of scraping.
pub const SCRAPING_WINDOW: Duration = Duration::from_secs(3_600);
/// For how long a caller's limits are tightened after a signal, if it is not one that stays quiet for longer.
const TIGHTENED: Duration = Duration::from_secs(600);
/// How much of their limits such a caller has.
pub const TIGHTENED_SHARE: f64 = 0.125;
/// No threshold is higher: it bounds what is kept of a caller to some kilobytes.
pub const MAX_COUNT: u32 = 256;
/// Parts that the window of scraping moves by.
const SLOTS: usize = 12;

fn micros(time: Duration) -> Micros {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The last different things within a window.
#[derive(Clone, Debug, Default)]
pub struct Distinct {
    seen: VecDeque<(u64, Micros)>,
    quiet_until: Micros,
}

impl Distinct {
    /// Notes a thing, by its hash; how many different ones there were within the window, if that is `many` now for the first time
    /// in a window. What is kept never exceeds `many`.
    pub fn note(&mut self, thing: u64, now: Micros, window: Duration, many: u32) -> Option<u32> {
        let many = many.min(MAX_COUNT);
        let window = micros(window);
        if many == 0 || now < self.quiet_until {
            return None;
        }
        self.seen.retain(|(seen, at)| *seen != thing && now.saturating_sub(*at) < window);
        self.seen.push_back((thing, now));
        let count = u32::try_from(self.seen.len()).unwrap_or(u32::MAX);
        if count < many {
            return None;
        }
        self.seen = VecDeque::new();
        self.quiet_until = now.saturating_add(window);
        Some(count)
    }
}

/// How often something happened within a window.
#[derive(Clone, Debug, Default)]
pub struct Burst {
    each: Distinct,
    number: u64,
}

impl Burst {
    /// Notes that it happened; how often, if that is `many` now for the first time in a window.
    pub fn note(&mut self, now: Micros, window: Duration, many: u32) -> Option<u32> {
        self.number = self.number.wrapping_add(1);
        self.each.note(self.number, now, window, many)
    }
}

/// How many people a caller has looked at.
#[derive(Clone, Debug, Default)]
pub struct Scraping {
    slots: [u64; SLOTS],
    /// Since the beginning of the clock.
    slot: u64,
    asked_at: u64,
    quiet_until: Micros,
}

impl Scraping {
    /// Notes so many; how many within the window, if it is worth while to ask how many people there are: beyond `never`, and then
    /// each time that it is a quarter more.
    pub fn note(&mut self, people: u32, now: Micros, never: u32) -> Option<u64> {
        if never == 0 || now < self.quiet_until {
            return None;
        }
        self.move_to(now);
        let at = usize::try_from(self.slot % SLOTS as u64).unwrap_or_default();
        self.slots[at] = self.slots[at].saturating_add(people.into());
        let count: u64 = self.slots.iter().sum();
        if count <= u64::from(never) {
            self.asked_at = 0;
            return None;
        }
        if count < self.asked_at.saturating_add(self.asked_at / 4) {
            return None;
        }
        self.asked_at = count;
        Some(count)
    }

    /// It is too many: nothing more until a window has passed.
    pub fn fire(&mut self, now: Micros) {
        *self = Self { slot: self.slot, quiet_until: now.saturating_add(micros(SCRAPING_WINDOW)), ..Self::default() };
    }

    fn move_to(&mut self, now: Micros) {
        let slot = now / (micros(SCRAPING_WINDOW) / SLOTS as u64);
        let passed = slot.saturating_sub(self.slot).min(SLOTS as u64);
        for step in 1..=passed {
            let at = usize::try_from((slot - passed + step) % SLOTS as u64).unwrap_or_default();
            self.slots[at] = 0;
        }
        self.slot = self.slot.max(slot);
    }
}

/// Whether so many people looked at are too many of those that there are.
#[must_use]
pub fn is_scraping(looked_at: u64, people: u64, thresholds: &Thresholds) -> bool {
    let share = people as f64 * thresholds.people_share;
    thresholds.people_share > 0.0 && looked_at > u64::from(thresholds.people) && looked_at as f64 > share
}

/// The network of an address: /24 of IPv4, /48 of IPv6. Loopback is one.
#[must_use]
pub fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4) >> 8),
        // Beyond what an IPv4 network can be.
        IpAddr::V6(v6) => u64::try_from(u128::from(v6) >> 80).unwrap_or_default() | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Micros = 1_000_000;
    const MINUTE: Duration = Duration::from_secs(60);

    fn thresholds() -> Thresholds {
        Thresholds { refused: 10, networks: 4, travel_window: MINUTE, probes: 20, people: 100, people_share: 0.5 }
    }

    #[test]
    fn a_burst_is_told_once_in_a_window() {
        let mut burst = Burst::default();
        let fired: Vec<Micros> = (0..130).filter(|second| burst.note(second * SECOND, MINUTE, 10).is_some()).collect();
        // Ten at once, then quiet for a minute, and ten more.
        assert_eq!(fired, [9, 78]);
    }

    #[test]
    fn what_is_spread_over_time_is_no_burst() {
        let mut burst = Burst::default();
        assert!((0..1_000).all(|number| burst.note(number * 7 * SECOND, MINUTE, 10).is_none()));
    }

    #[test]
    fn the_same_thing_again_counts_once() {
        let mut distinct = Distinct::default();
        assert!((0..1_000).all(|second| distinct.note(second % 3, second * SECOND, MINUTE, 4).is_none()));
        assert_eq!(distinct.note(3, 1_000 * SECOND, MINUTE, 4), Some(4));
    }

    #[test]
    fn what_is_switched_off_tells_nothing() {
        let (mut distinct, mut scraping) = (Distinct::default(), Scraping::default());
        assert!((0..1_000).all(|thing| distinct.note(thing, 0, MINUTE, 0).is_none()));
        assert!((0..1_000).all(|_| scraping.note(1_000, 0, 0).is_none()));
    }

    #[test]
    fn people_looked_at_are_summed_over_an_hour_and_told_of_once() {
        let mut scraping = Scraping::default();
        assert_eq!(scraping.note(100, 0, 100), None);
        assert_eq!(scraping.note(1, SECOND, 100), Some(101));
        // Asked again when it is a quarter more.
        assert_eq!(scraping.note(1, 2 * SECOND, 100), None);
        assert_eq!(scraping.note(25, 3 * SECOND, 100), Some(127));
        scraping.fire(3 * SECOND);
        assert_eq!(scraping.note(100_000, 4 * SECOND, 100), None);
        assert_eq!(scraping.note(200, 3_700 * SECOND, 100), Some(200));
        // An hour later all of it has passed: with the two hundred of then these would be a quarter more.
        assert_eq!(scraping.note(60, 7_400 * SECOND, 100), None);
        assert_eq!(scraping.note(41, 7_401 * SECOND, 100), Some(101));
    }

    #[test]
    fn after_it_was_told_people_count_again_from_the_end_of_the_quiet_on() {
        let mut scraping = Scraping::default();
        scraping.fire(0);
        let quiet = micros(SCRAPING_WINDOW);
        assert_eq!(scraping.note(1_000, quiet - 1, 100), None);
        assert_eq!(scraping.note(101, quiet, 100), Some(101));
    }

    #[test]
    fn signals_have_names_of_their_own() {
        let names: std::collections::HashSet<_> = Signal::ALL.iter().map(|signal| signal.as_str()).collect();
        assert!(names.len() == Signal::ALL.len() && !names.contains(""));
    }

    #[test]
    fn a_share_of_all_people_is_too_many_and_a_few_never_are() {
        assert!(!is_scraping(100, 1, &thresholds()) && is_scraping(101, 1, &thresholds()));
        assert!(!is_scraping(5_000, 10_000, &thresholds()) && is_scraping(5_001, 10_000, &thresholds()));
        assert!(!is_scraping(10_000, 10_000, &Thresholds { people_share: 0.0, ..thresholds() }), "switched off");
    }

    #[test]
    fn nobody_has_their_limits_back_while_nothing_more_is_told_of_them() {
        assert!(Signal::TemplateScraping.tightens_for() >= SCRAPING_WINDOW);
        assert!(Signal::CrossTenantProbing.tightens_for() >= PROBING_WINDOW);
    }

    #[test]
    fn networks_are_told_apart_and_neighbours_are_not() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.254"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:1:ffff::2"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
        assert_ne!(of("::1"), of("0.0.0.1"));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_bounded_and_a_window_has_one_signal(
            steps in prop::collection::vec((0_u64..50, 0_u64..20), 1..400), many in 1_u32..12,
        ) {
            let (mut distinct, mut now, mut last) = (Distinct::default(), 0, None);
            for (thing, step) in steps {
                now += step * SECOND;
                if distinct.note(thing, now, MINUTE, many).is_some() {
                    prop_assert!(last.is_none_or(|last| now - last >= 60 * SECOND));
                    last = Some(now);
                }
                prop_assert!(distinct.seen.len() <= many as usize);
            }
        }
    }
}
