//! From approximate scores to a set of rows that surely contains the exact top `k`.
//!
//! A kernel's dot product and the oracle's differ in the order of summation only. For unit vectors of `n` = 512
//! components each is within `n·u / (1 − n·u)` of the true value, `u` = 2⁻²⁴ (Higham, *Accuracy and Stability of
//! Numerical Algorithms*, §3.1, with Cauchy–Schwarz: Σ|aᵢbᵢ| ≤ |a||b| ≤ 1), so within 3.06e-5, and two of them within
//! 6.12e-5 of each other. Let A be the `k`-th best approximate score: at least `k` rows have an exact score of A −
//! 6.12e-5 or more, so a row of the exact top `k` has an approximate score of at least A − 2 · 6.12e-5.

/// Twice the largest difference between a kernel's score and the oracle's, with room for norms of 1 ± 1e-4.
pub(crate) const MARGIN: f32 = 1.3e-4;

/// Collects the rows whose approximate score may belong to the top `k`.
pub(crate) struct Candidates {
    k: usize,
    /// Rows below this score cannot be in the top `k`.
    floor: f32,
    /// When this many are held, the floor is raised and those below it are dropped.
    limit: usize,
    held: Vec<(f32, usize)>,
}

impl Candidates {
    /// An empty set for the top `k` (at least 1).
    pub(crate) fn new(k: usize) -> Self {
        let limit = Self::limit_for(k);
        Self { k, floor: f32::NEG_INFINITY, limit, held: Vec::with_capacity(limit.min(4096)) }
    }

    /// Room for a few rounds between prunings, each of which costs time linear in what is held.
    fn limit_for(n_kept: usize) -> usize {
        n_kept.saturating_mul(2).saturating_add(256)
    }

    /// Offers the scores of consecutive rows, the first of which is row `first`.
    pub(crate) fn offer(&mut self, first: usize, scores: &[f32]) {
        for (offset, &score) in scores.iter().enumerate() {
            if score >= self.floor {
                self.held.push((score, first + offset));
                if self.held.len() >= self.limit {
                    self.prune();
                }
            }
        }
    }

    fn prune(&mut self) {
        if self.held.len() > self.k {
            let kth = self.k - 1;
            self.held.select_nth_unstable_by(kth, |a, b| b.0.total_cmp(&a.0));
            let floor = self.held[kth].0 - MARGIN;
            self.floor = self.floor.max(floor);
            self.held.retain(|(score, _)| *score >= floor);
        }
        // Rows that tie with the k-th all stay, however many; then the next pruning waits until twice as many are held.
        self.limit = Self::limit_for(self.held.len());
    }

    /// The rows, in gallery order.
    pub(crate) fn into_rows(mut self) -> Vec<usize> {
        self.prune();
        let mut rows: Vec<usize> = self.held.into_iter().map(|(_, row)| row).collect();
        rows.sort_unstable();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_just_within_the_margin_is_kept_and_one_beyond_it_is_dropped() {
        let mut candidates = Candidates::new(1);
        candidates.offer(0, &[0.5, 0.5 - MARGIN * 0.9, 0.5 - MARGIN * 1.1]);
        assert_eq!(candidates.into_rows(), [0, 1]);
    }

    #[test]
    fn a_thousand_ties_all_stay() {
        let mut candidates = Candidates::new(3);
        candidates.offer(0, &[0.25; 1000]);
        assert_eq!(candidates.into_rows().len(), 1000);
    }

    #[test]
    fn rising_scores_keep_the_set_small() {
        let mut candidates = Candidates::new(5);
        for row in 0..=u16::MAX {
            candidates.offer(usize::from(row), &[f32::from(row) / 65_536.0]);
            assert!(candidates.held.len() <= Candidates::limit_for(64), "row {row} holds {}", candidates.held.len());
        }
        let rows = candidates.into_rows();
        assert!(rows.ends_with(&[65_533, 65_534, 65_535]));
    }
}
