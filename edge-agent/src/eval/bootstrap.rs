//! How much a figure would change with other people: resampling whole people, not pairs.
//!
//! Pairs share pictures and pictures share people, so that an interval from independent pairs would be far too narrow.
//! In: a seed and a number of people. Out: how often each counts in a replicate, and the 95 % interval of what was
//! computed from the replicates. The same seed gives the same figures on every machine. No I/O, no clock.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and the same everywhere for ever, which no generator of `rand` promises.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Streams of one seed that have nothing to do with each other.
    pub(crate) fn stream(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xA076_1D64_78BD_642F));
        random.0 = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`, which is at least 1. The bias, below n / 2^64, cannot be seen.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let wide = u128::from(self.next()) * n as u128;
        usize::try_from(wide >> 64).expect("below n")
    }

    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }

    /// How often each of `n` is drawn when `n` are drawn with replacement.
    pub(crate) fn resample(&mut self, n: usize) -> Vec<u64> {
        let mut weights = vec![0; n];
        for _ in 0..n {
            weights[self.below(n)] += 1;
        }
        weights
    }
}

/// The middle 95 % of the replicates, as lowest and highest; none of nothing.
pub(crate) fn interval(mut replicates: Vec<f64>) -> Option<(f64, f64)> {
    replicates.sort_unstable_by(f64::total_cmp);
    let last = replicates.len().checked_sub(1)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of an index")]
    let at = |share: f64| (share * last as f64).round() as usize;
    Some((replicates[at(0.025)], replicates[at(0.975)]))
}

/// Computes `n` replicates on `threads` threads; each has its own stream of `seed`, so that their number changes nothing.
pub(crate) fn replicates<T: Send>(
    n: usize,
    threads: usize,
    seed: u64,
    replicate: impl Fn(&mut Random) -> T + Sync,
) -> Vec<T> {
    let chunk = n.div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..n)
            .step_by(chunk)
            .map(|from| {
                let replicate = &replicate;
                scope.spawn(move || {
                    let streams = from..(from + chunk).min(n);
                    streams.map(|stream| replicate(&mut Random::stream(seed, stream as u64))).collect::<Vec<T>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a replicate is arithmetic only")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_draws_and_another_one_does_not() {
        let draws = |seed, stream| {
            let mut random = Random::stream(seed, stream);
            (0..20).map(|_| random.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, 0), draws(1, 0));
        assert_ne!(draws(1, 0), draws(2, 0));
        assert_ne!(draws(1, 0), draws(1, 1));
    }

    #[test]
    fn a_resample_has_as_many_as_there_are_and_draws_evenly() {
        let mut random = Random::stream(7, 0);
        let mut totals = [0; 10];
        for _ in 0..2_000 {
            let weights = random.resample(10);
            assert_eq!(weights.iter().sum::<u64>(), 10);
            for (total, weight) in totals.iter_mut().zip(weights) {
                *total += weight;
            }
        }
        // 2,000 expected of each; the standard deviation is 42.
        assert!(totals.iter().all(|total| (1_800..2_200).contains(total)), "{totals:?}");
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let draw = |threads| replicates(23, threads, 5, |random| random.below(1 << 30));
        assert_eq!(draw(1), draw(4));
        assert_eq!(draw(1).len(), 23);
    }

    #[test]
    fn the_interval_is_the_middle_of_the_replicates() {
        assert_eq!(interval((0..=1_000).map(f64::from).collect()), Some((25.0, 975.0)));
        assert_eq!(interval(vec![3.0]), Some((3.0, 3.0)));
        assert_eq!(interval(Vec::new()), None);
    }
}
