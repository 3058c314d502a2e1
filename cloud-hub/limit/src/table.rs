//! Buckets in this process: one number each, in a bounded table.
//!
//! What is kept of a bucket is a hash of its name and the time until which its requests are worked off: 17 bytes. A bucket that
//! is as good as new says the same as one that is not there, so it may go when room is needed. Should all be in use, the one
//! that is nearest to being as good as new goes: its owner gains the least.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};

use parking_lot::Mutex;

use super::{Asked, Bucket};
use hub_domain::limit::{Micros, Standing, ask};

/// Buckets at most. The table of a million takes some 36 MiB.
pub(super) const MAX_BUCKETS: usize = 1 << 20;
/// Parts with a lock each, so that two tenants seldom wait for each other.
const PARTS: usize = 64;
/// Of so many buckets the one nearest to being as good as new goes when all are in use.
const SAMPLE: usize = 16;
/// A part is looked through for buckets that are as good as new at most so often.
const SWEEP_EVERY: Micros = 1_000_000;

/// Its keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are written as numbers");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[derive(Default)]
struct Part {
    until: HashMap<u64, Micros, BuildHasherDefault<AsItIs>>,
    swept: Micros,
}

/// A bounded table of buckets.
pub(super) struct Table {
    parts: Box<[Mutex<Part>]>,
    /// Seeded at random, so that nobody can look for two names of one hash.
    hash: RandomState,
    max_in_part: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self::with_room(MAX_BUCKETS)
    }

    fn with_room(buckets: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, hash: RandomState::new(), max_in_part: buckets.div_ceil(PARTS) }
    }

    /// Takes one request out of every bucket, or out of none if one of them has no room.
    pub(super) fn take(&self, owner: u128, asked: &[Asked], now: Micros) -> Vec<Standing> {
        let mut part = self.part(owner).lock();
        let answers: Vec<_> = asked
            .iter()
            .map(|asked| {
                let key = self.key(owner, asked.bucket);
                (key, ask(part.until.get(&key).copied(), now, asked.rate))
            })
            .collect();
        if answers.iter().all(|(_, (standing, _))| standing.admits) {
            for (key, (_, after)) in &answers {
                if !part.until.contains_key(key) {
                    part.make_room(now, self.max_in_part);
                }
                part.until.insert(*key, *after);
            }
        }
        answers.into_iter().map(|(_, (standing, _))| standing).collect()
    }

    /// What a bucket would say.
    pub(super) fn look(&self, owner: u128, asked: Asked, now: Micros) -> Standing {
        let key = self.key(owner, asked.bucket);
        let until = self.part(owner).lock().until.get(&key).copied();
        ask(until, now, asked.rate).0
    }

    fn part(&self, owner: u128) -> &Mutex<Part> {
        let index = usize::try_from(self.hash.hash_one(owner) % PARTS as u64).unwrap_or_default();
        &self.parts[index]
    }

    fn key(&self, owner: u128, bucket: Bucket) -> u64 {
        self.hash.hash_one((owner, bucket))
    }

    /// Buckets in use.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().until.len()).sum()
    }
}

impl Part {
    /// Makes room for one more.
    fn make_room(&mut self, now: Micros, max: usize) {
        if self.until.len() < max {
            return;
        }
        if now.saturating_sub(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() >= max {
            let nearest = self.until.iter().take(SAMPLE).min_by_key(|(_, until)| **until).map(|(key, _)| *key);
            nearest.map(|key| self.until.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use hub_domain::limit::{Class, Rate, Span};

    const SECOND: Micros = 1_000_000;

    fn read(count: u32, burst: u32) -> Asked {
        Asked { bucket: Bucket::Class(Class::Read), rate: Rate::new(count, Duration::from_secs(1), burst) }
    }

    fn admits(table: &Table, owner: u128, asked: Asked, now: Micros) -> bool {
        table.take(owner, &[asked], now)[0].admits
    }

    #[test]
    fn owners_and_buckets_are_counted_apart() {
        let table = Table::new();
        let (one, other) = (read(1, 1), Asked { bucket: Bucket::Span(Span::Hour), ..read(1, 1) });
        assert!(admits(&table, 1, one, 0) && !admits(&table, 1, one, 0));
        assert!(admits(&table, 2, one, 0) && admits(&table, 1, other, 0));
    }

    #[test]
    fn a_request_is_counted_in_all_buckets_or_in_none() {
        let table = Table::new();
        let (wide, narrow) = (read(1, 3), Asked { bucket: Bucket::Span(Span::Day), ..read(1, 1) });
        assert!(table.take(1, &[wide, narrow], 0).iter().all(|standing| standing.admits));
        for _ in 0..10 {
            let refused = table.take(1, &[wide, narrow], 0);
            assert!(refused[0].admits && !refused[1].admits);
        }
        // Two are left of the three: the refused ones took nothing.
        assert!(admits(&table, 1, wide, 0) && admits(&table, 1, wide, 0) && !admits(&table, 1, wide, 0));
    }

    #[test]
    fn looking_takes_nothing() {
        let table = Table::new();
        for _ in 0..5 {
            assert!(table.look(1, read(1, 1), 0).admits);
        }
        assert!(admits(&table, 1, read(1, 1), 0) && !table.look(1, read(1, 1), 0).admits);
    }

    #[test]
    fn what_is_as_good_as_new_goes_first_and_the_table_stays_bounded() {
        let table = Table::with_room(640);
        // Used up for a long time, and as good as new after a second.
        let (busy, idle) = (Rate::new(1, Duration::from_secs(1_000), 1), Rate::new(1, Duration::from_secs(1), 1));
        for owner in 0..64 {
            assert!(admits(&table, owner, Asked { rate: busy, ..read(1, 1) }, 0));
        }
        let mut now = 0;
        for owner in 1_000..100_000_u128 {
            now += SECOND / 100;
            admits(&table, owner, Asked { rate: idle, ..read(1, 1) }, now);
        }
        assert!(table.len() <= 640, "{}", table.len());
        let still = (0..64).filter(|owner| !admits(&table, *owner, Asked { rate: busy, ..read(1, 1) }, now)).count();
        assert_eq!(still, 64, "of the busy ones");
    }

    /// Fault matrix S8: a million keys in less than 100 MB, each admitted what its rate says to within 1 %.
    #[test]
    fn a_million_keys_fit_and_are_counted_to_within_a_hundredth() {
        let table = Table::new();
        let owners = 1_000_000_u128;
        let asked = read(10, 20);
        for owner in 0..owners {
            assert!(admits(&table, owner, asked, 0));
        }
        assert!(table.len() > 999_000 - 30_000, "{} of a million are kept", table.len());
        let capacity: usize = table.parts.iter().map(|part| part.lock().until.capacity()).sum();
        // hashbrown keeps eight places for seven entries, of 16 bytes and one of control.
        let bytes = capacity * 8 / 7 * 17;
        assert!(bytes < 100_000_000, "{bytes} bytes");
        // One of them asks every millisecond for a hundred seconds: 20 at once, and ten a second.
        let count = (1..=100_000_u64).filter(|ms| admits(&table, 77, asked, ms * 1_000)).count();
        assert!((1_009..=1_030).contains(&count), "{count} of 1,019 or 1,020");
    }
}
