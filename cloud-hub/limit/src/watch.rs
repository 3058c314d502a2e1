//! What each caller did of late that may be a sign of an intrusion, in a bounded table.
//!
//! In: what callers do. Out: signals, once a window each, and whose limits are tightened. Each hub watches what comes to it. Should
//! there be more callers than room, of some the one that was heard of longest ago goes. Deliberately absent: what a signal is
//! (`domain::intrusion`), and what is told of it (`api::watch`).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::InForce;
use hub_domain::intrusion::{BURST_WINDOW, Burst, Distinct, Micros, PROBING_WINDOW, Scraping, Thresholds, is_scraping};

/// Callers that are watched at a time; each takes some kilobytes at most.
const MAX_CALLERS: usize = 10_000;
/// Of so many the one that was heard of longest ago goes when there is no room.
const SAMPLE: usize = 16;

#[derive(Default)]
struct Seen {
    refused: Burst,
    networks: Distinct,
    probes: Distinct,
    scraping: Scraping,
    tightened_until: Micros,
    at: Micros,
}

/// The callers of one hub: API keys, users and sessions, by their ids.
pub struct Watch {
    callers: Mutex<HashMap<Uuid, Seen>>,
    /// Seeded at random, so that nobody can look for two paths of one hash.
    hash: RandomState,
    began: Instant,
    in_force: Arc<InForce>,
}

impl Watch {
    /// Nobody has done anything yet.
    #[must_use]
    pub fn new(in_force: Arc<InForce>) -> Self {
        Self { callers: Mutex::default(), hash: RandomState::new(), began: Instant::now(), in_force }
    }

    /// What is one too many now.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        self.in_force.live().intrusion
    }

    /// Another wrong secret of a key; how many, if it is a burst.
    pub fn refused(&self, key: Uuid) -> Option<u32> {
        let many = self.thresholds().refused;
        self.with(key, |seen, now| seen.refused.note(now, BURST_WINDOW, many))
    }

    /// A caller came from a network; how many there were, if it is travel.
    pub fn came_from(&self, caller: Uuid, network: u64) -> Option<u32> {
        let Thresholds { networks, travel_window, .. } = self.thresholds();
        let many = if networks == 0 { 0 } else { networks.saturating_add(1) };
        self.with(caller, |seen, now| seen.networks.note(network, now, travel_window, many))
    }

    /// A caller asked for what is not there; how much of it, if it is probing.
    pub fn not_there(&self, caller: Uuid, path: &str) -> Option<u32> {
        let (many, thing) = (self.thresholds().probes, self.hash.hash_one(path));
        self.with(caller, |seen, now| seen.probes.note(thing, now, PROBING_WINDOW, many))
    }

    /// A caller looked at people; how many within the window, if it is worth while to ask how many there are.
    pub fn looked_at(&self, caller: Uuid, people: u32) -> Option<u64> {
        let never = self.thresholds().people;
        self.with(caller, |seen, now| seen.scraping.note(people, now, never))
    }

    /// Whether so many of all people are too many; if so, the caller is not told of again for a window.
    pub fn is_scraping(&self, caller: Uuid, looked_at: u64, people: u64) -> bool {
        let scraping = is_scraping(looked_at, people, &self.thresholds());
        if scraping {
            self.with(caller, |seen, now| seen.scraping.fire(now));
        }
        scraping
    }

    /// Tightens a caller's limits for so long.
    pub fn tighten(&self, caller: Uuid, time: Duration) {
        let for_so_long = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.with(caller, |seen, now| seen.tightened_until = now.saturating_add(for_so_long));
    }

    /// Whether a caller's limits are tightened.
    #[must_use]
    pub fn is_tightened(&self, caller: Uuid) -> bool {
        let now = self.now();
        self.callers.lock().get(&caller).is_some_and(|seen| seen.tightened_until > now)
    }

    /// Callers that are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.callers.lock().len()
    }

    fn with<T>(&self, caller: Uuid, act: impl FnOnce(&mut Seen, Micros) -> T) -> T {
        let now = self.now();
        let mut callers = self.callers.lock();
        if callers.len() >= MAX_CALLERS && !callers.contains_key(&caller) {
            let oldest = callers.iter().take(SAMPLE).min_by_key(|(_, seen)| seen.at.max(seen.tightened_until));
            let oldest = oldest.map(|(caller, _)| *caller);
            oldest.map(|oldest| callers.remove(&oldest));
        }
        let seen = callers.entry(caller).or_default();
        seen.at = now;
        act(seen, now)
    }

    fn now(&self) -> Micros {
        // Never 0: a caller of the first moment is none whose window is over.
        u64::try_from((self.began.elapsed() + Duration::from_secs(1)).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_domain::settings::Live;

    fn watch() -> Watch {
        let intrusion = Thresholds {
            refused: 3,
            networks: 2,
            travel_window: Duration::from_secs(600),
            probes: 3,
            people: 10,
            people_share: 0.5,
        };
        Watch::new(Arc::new(InForce::new(Live { refused_keys_per_minute: 30, intrusion })))
    }

    #[test]
    fn callers_are_watched_apart_and_tightened_for_a_while() {
        let (watch, one, other) = (watch(), Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!([1, 2, 3].map(|network| watch.came_from(one, network)), [None, None, Some(3)]);
        assert_eq!(watch.came_from(other, 4), None);
        watch.tighten(one, Duration::from_secs(600));
        assert!(watch.is_tightened(one) && !watch.is_tightened(other));
        let over = watch.now();
        watch.callers.lock().get_mut(&one).unwrap().tightened_until = over;
        assert!(!watch.is_tightened(one));
    }

    #[test]
    fn however_many_callers_there_are_the_table_is_bounded_and_the_tightened_stay_longest() {
        let watch = watch();
        let first = Uuid::from_u128(u128::MAX);
        watch.tighten(first, Duration::from_secs(600));
        for caller in 0..2 * MAX_CALLERS as u128 {
            watch.not_there(Uuid::from_u128(caller), "/x");
        }
        assert_eq!(watch.watched(), MAX_CALLERS);
        assert!(watch.is_tightened(first));
    }
}
