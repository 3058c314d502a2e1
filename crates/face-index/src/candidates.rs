//! From intervals of scores to a set of rows that surely contains the exact top `k`.
//!
//! In: for each row two numbers that the oracle's score, before clamping, lies between ([`crate::bound`]). Let F be
//! the `k`-th best of the lower ones: at least `k` rows score F or more, so a row that scores less than F is not among
//! the top `k`, and a row whose upper number is below F scores less. Clamping to [−1, 1] makes ties beyond both ends,
//! which gallery order decides: F counts as 1 when it is more, and when it is −1 or less nothing may be dropped.

/// One row, and what is known of its score.
#[derive(Clone, Copy)]
struct Held {
    low: f32,
    high: f32,
    row: usize,
}

/// Collects the rows that may belong to the top `k`.
pub(crate) struct Candidates {
    k: usize,
    /// Rows that cannot score this much cannot be in the top `k`.
    floor: f32,
    /// When this many are held, the floor is raised and those below it are dropped.
    limit: usize,
    held: Vec<Held>,
}

/// What the `k`-th best lower score means for the rest.
pub(crate) fn floor_of(kth: f32) -> f32 {
    if kth <= -1.0 { f32::NEG_INFINITY } else { kth.min(1.0) }
}

impl Candidates {
    /// An empty set for the top `k` (at least 1).
    pub(crate) fn new(k: usize) -> Self {
        let limit = Self::limit_for(k);
        Self { k, floor: f32::NEG_INFINITY, limit, held: Vec::with_capacity(limit.min(4096)) }
    }

    /// Room for a few rounds between prunings, each of which costs time linear in what is held.
    fn limit_for(n_kept: usize) -> usize {
        n_kept.saturating_mul(2).saturating_add(64)
    }

    /// What a row must be able to score to be kept.
    pub(crate) fn floor(&self) -> f32 {
        self.floor
    }

    /// Offers a row whose score lies between `low` and `high`.
    pub(crate) fn offer(&mut self, row: usize, low: f32, high: f32) {
        if high >= self.floor {
            self.held.push(Held { low, high, row });
            if self.held.len() >= self.limit {
                self.prune();
            }
        }
    }

    /// Takes over the rows of another part of the gallery.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.held.extend(other.held);
        self.prune();
    }

    fn prune(&mut self) {
        if self.held.len() > self.k {
            let kth = self.k - 1;
            self.held.select_nth_unstable_by(kth, |a, b| b.low.total_cmp(&a.low));
            let floor = self.floor.max(floor_of(self.held[kth].low));
            self.floor = floor;
            self.held.retain(|held| held.high >= floor);
        }
        // Rows that tie with the k-th all stay, however many; then the next pruning waits until twice as many are held.
        self.limit = Self::limit_for(self.held.len());
    }

    /// The rows, in gallery order.
    pub(crate) fn into_rows(mut self) -> Vec<usize> {
        self.prune();
        let mut rows: Vec<usize> = self.held.into_iter().map(|held| held.row).collect();
        rows.sort_unstable();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(k: usize, scores: &[f32], error: f32) -> Vec<usize> {
        let mut candidates = Candidates::new(k);
        for (row, score) in scores.iter().enumerate() {
            candidates.offer(row, score - error, score + error);
        }
        candidates.into_rows()
    }

    #[test]
    fn a_row_that_just_reaches_the_best_is_kept_and_one_beyond_it_is_dropped() {
        assert_eq!(rows(1, &[0.5, 0.5 - 0.019, 0.5 - 0.021], 0.01), [0, 1]);
    }

    #[test]
    fn a_thousand_ties_all_stay() {
        assert_eq!(rows(3, &[0.25; 1000], 0.0).len(), 1000);
    }

    #[test]
    fn rows_that_clamping_makes_equal_all_stay() {
        assert_eq!(rows(1, &[1.000_01, 1.000_1, 0.9], 1e-6), [0, 1]);
        assert_eq!(rows(2, &[0.5, -1.000_1, -1.000_01], 1e-6), [0, 1, 2]);
    }

    #[test]
    fn what_two_parts_hold_together_is_what_the_whole_would() {
        let (mut first, mut second) = (Candidates::new(2), Candidates::new(2));
        for (row, score) in [0.1, 0.7, 0.3].into_iter().enumerate() {
            first.offer(row, score, score);
            second.offer(row + 3, score + 0.1, score + 0.1);
        }
        first.absorb(second);
        assert_eq!(first.into_rows(), [1, 4]);
    }

    #[test]
    fn rising_scores_keep_the_set_small() {
        let mut candidates = Candidates::new(5);
        for row in 0..=u16::MAX {
            let score = f32::from(row) / 65_536.0;
            candidates.offer(usize::from(row), score - 1e-4, score + 1e-4);
            assert!(candidates.held.len() <= Candidates::limit_for(64), "row {row} holds {}", candidates.held.len());
        }
        assert!(candidates.into_rows().ends_with(&[65_533, 65_534, 65_535]));
    }
}
