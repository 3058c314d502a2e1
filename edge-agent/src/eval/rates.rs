//! Thresholds for a rate of errors, and how far a count of trials supports one.
//!
//! In: scores with weights, the highest first. Out: thresholds, shares, the equal error rate. A pair or probe is
//! accepted when its score is at or above the threshold, as at the door. Deliberately absent: pictures, I/O, clock.

/// A rate and how it is written in results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
}

const fn rate(name: &'static str, value: f64) -> Rate {
    Rate { name, value }
}

/// The false accept rates that a verification is reported at.
pub(crate) const FALSE_ACCEPT_RATES: [Rate; 6] = [
    rate("1e-1", 1e-1),
    rate("1e-2", 1e-2),
    rate("1e-3", 1e-3),
    rate("1e-4", 1e-4),
    rate("1e-5", 1e-5),
    rate("1e-6", 1e-6),
];

/// The false positive identification rates that an identification is reported at.
pub(crate) const FALSE_POSITIVE_RATES: [Rate; 3] = [rate("1e-2", 1e-2), rate("3e-3", 3e-3), rate("1e-3", 1e-3)];

/// The rule of three: where none of `n` trials is an error, the rate is below `3 / n` with 95 % confidence, so that `n`
/// trials can speak of no rate below that.
const RULE_OF_THREE: f64 = 3.0;

impl Rate {
    /// Trials that are needed to speak of this rate.
    pub(crate) fn trials_needed(self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 3e6, positive")]
        let needed = (RULE_OF_THREE / self.value - 1e-6).ceil() as u64;
        needed
    }

    pub(crate) fn is_supported_by(self, n_trials: usize) -> bool {
        n_trials as u64 >= self.trials_needed()
    }
}

/// The lowest threshold at which at most `rate` of the weight is accepted.
///
/// `sorted` gives scores, the highest first, with their weights; `total` is the weight of all. Equal scores are
/// accepted together or not at all. Where everything may be accepted the answer is −1, the lowest cosine.
pub(crate) fn threshold_at(rate: f64, total: u64, sorted: impl Iterator<Item = (f32, u64)>) -> f32 {
    // A share of a whole number, such as a tenth of 30, must not fail by the last bit of the product.
    let allowed = rate * total as f64 * (1.0 + 1e-12);
    let mut accepted = 0;
    for (score, weight) in sorted {
        accepted += weight;
        if accepted as f64 > allowed {
            return score.next_up();
        }
    }
    -1.0
}

/// How many of the scores, the highest first, a threshold accepts.
pub(crate) fn accepted(sorted: &[f32], threshold: f32) -> usize {
    sorted.partition_point(|score| *score >= threshold)
}

/// `part` of `whole` in [0, 1]; none of nothing.
pub(crate) fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The equal error rate: the least that the greater of the two errors can be. Both lists the highest first, neither empty.
///
/// Whatever the threshold, one error is at least this and the other at most this.
pub(crate) fn equal_error_rate(genuine: &[f32], impostors: &[f32]) -> f64 {
    let (mut g, mut i) = (0, 0);
    // A threshold above everything: all genuine ones are rejected.
    let mut least: f64 = 1.0;
    while g < genuine.len() || i < impostors.len() {
        let next = |scores: &[f32], at: usize| scores.get(at).copied().unwrap_or(f32::NEG_INFINITY);
        let threshold = next(genuine, g).max(next(impostors, i));
        while g < genuine.len() && genuine[g] >= threshold {
            g += 1;
        }
        while i < impostors.len() && impostors[i] >= threshold {
            i += 1;
        }
        let false_rejects = 1.0 - g as f64 / genuine.len() as f64;
        let false_accepts = i as f64 / impostors.len() as f64;
        least = least.min(false_rejects.max(false_accepts));
        if false_accepts >= false_rejects {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn threshold(rate: f64, scores: &[f32]) -> f32 {
        threshold_at(rate, scores.len() as u64, scores.iter().map(|score| (*score, 1)))
    }

    fn descending(mut scores: Vec<f32>) -> Vec<f32> {
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        scores
    }

    fn scores(most: usize) -> impl Strategy<Value = Vec<f32>> {
        // Few distinct values, so that ties are common.
        proptest::collection::vec((-20i8..20).prop_map(|step| f32::from(step) / 20.0), 1..most).prop_map(descending)
    }

    #[test]
    fn the_rule_of_three_says_how_many_trials_a_rate_needs() {
        let needed: Vec<u64> = FALSE_ACCEPT_RATES.iter().map(|rate| rate.trials_needed()).collect();
        assert_eq!(needed, [30, 300, 3_000, 30_000, 300_000, 3_000_000]);
        assert_eq!(FALSE_POSITIVE_RATES.map(Rate::trials_needed), [300, 1_000, 3_000]);
        assert!(FALSE_ACCEPT_RATES[0].is_supported_by(30) && !FALSE_ACCEPT_RATES[0].is_supported_by(29));
    }

    #[test]
    fn a_threshold_lies_just_above_the_first_score_that_is_too_many() {
        let impostors = [0.9, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, -0.1, -0.2];
        assert_eq!(threshold(0.05, &impostors), 0.9f32.next_up());
        assert_eq!(threshold(0.1, &impostors), 0.5f32.next_up());
        assert_eq!(threshold(0.2, &impostors), 0.5f32.next_up(), "ties are accepted together or not at all");
        assert_eq!(threshold(0.3, &impostors), 0.4f32.next_up());
        assert_eq!(threshold(1.0, &impostors), -1.0);
        // The second row counts twice.
        let weighted = [(0.9, 1), (0.8, 2), (0.7, 7)];
        assert_eq!(threshold_at(0.1, 10, weighted.into_iter()), 0.8f32.next_up());
        assert_eq!(threshold_at(0.3, 10, weighted.into_iter()), 0.7f32.next_up());
    }

    #[test]
    fn the_equal_error_rate_of_known_cases() {
        assert_eq!(equal_error_rate(&[0.9, 0.8], &[0.2, 0.1]), 0.0);
        assert_eq!(equal_error_rate(&[0.2, 0.1], &[0.9, 0.8]), 1.0);
        // One of four genuine below one of four impostors: no threshold avoids both.
        assert_eq!(equal_error_rate(&[0.9, 0.8, 0.7, 0.3], &[0.5, 0.2, 0.1, 0.0]), 0.25);
        assert_eq!(equal_error_rate(&[0.5], &[0.5]), 1.0, "who scores alike is accepted alike");
        // A genuine pair whose picture gave no template can be accepted at no threshold.
        assert_eq!(equal_error_rate(&[0.9, f32::NEG_INFINITY], &[0.1, 0.0]), 0.5);
    }

    proptest! {
        #[test]
        fn a_laxer_rate_never_has_a_stricter_threshold(scores in scores(200), a in 0.0f64..1.0, b in 0.0f64..1.0) {
            let (strict, lax) = (a.min(b), a.max(b));
            prop_assert!(threshold(strict, &scores) >= threshold(lax, &scores));
        }

        #[test]
        fn a_threshold_keeps_its_rate_and_the_next_lower_one_does_not(scores in scores(200), rate in 0.0f64..0.99) {
            let found = threshold(rate, &scores);
            let n = scores.len() as f64;
            prop_assert!(accepted(&scores, found) as f64 <= rate * n + 1e-9);
            prop_assert!(accepted(&scores, found.next_down()) as f64 > rate * n - 1e-9);
        }

        #[test]
        fn fewer_are_accepted_above(scores in scores(100), a in -1.0f32..1.0, b in -1.0f32..1.0) {
            prop_assert!(accepted(&scores, a.max(b)) <= accepted(&scores, a.min(b)));
        }

        #[test]
        fn the_equal_error_rate_lies_between_the_two_errors(genuine in scores(80), impostors in scores(80), at in -1.1f32..1.1) {
            let rate = equal_error_rate(&genuine, &impostors);
            let false_accepts = accepted(&impostors, at) as f64 / impostors.len() as f64;
            let false_rejects = 1.0 - accepted(&genuine, at) as f64 / genuine.len() as f64;
            prop_assert!(false_accepts.min(false_rejects) <= rate + 1e-12);
            prop_assert!(rate <= false_accepts.max(false_rejects) + 1e-12);
        }
    }
}
