//! How many of the listed pairs are judged rightly, with a threshold that comes from other pairs than those judged.
//!
//! In: listed pairs with score and fold. Out: [`Accuracy`]. A pair of which a picture gave no template counts as judged
//! wrongly, whichever it is: leaving it out or calling it "not the same" would flatter. No I/O, no clock.

use super::rates::share;

/// A listed pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Judged {
    /// None when a picture gave no template.
    pub(crate) score: Option<f32>,
    pub(crate) same: bool,
    pub(crate) fold: Option<usize>,
}

/// Share of the listed pairs that are judged rightly.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Accuracy {
    /// Mean over the folds; the share of all pairs where there are no folds.
    pub(crate) mean: f64,
    /// Standard deviation over the folds (n − 1); none without folds.
    pub(crate) std: Option<f64>,
    /// The threshold of each fold, or the single one that suits these very pairs best.
    pub(crate) thresholds: Vec<f32>,
}

/// k-fold where the list has folds, else with the best single threshold, which is optimistic.
///
/// None when there is no pair, or a threshold has no pair to be learnt from.
pub(crate) fn accuracy(pairs: &[Judged]) -> Option<Accuracy> {
    let Some(n_folds) = pairs.iter().filter_map(|pair| pair.fold).max().map(|last| last + 1) else {
        let threshold = best_threshold(pairs.iter())?;
        let mean = share(n_right(pairs.iter(), threshold), pairs.len())?;
        return Some(Accuracy { mean, std: None, thresholds: vec![threshold] });
    };
    let (mut shares, mut thresholds) = (Vec::new(), Vec::new());
    for fold in 0..n_folds {
        let threshold = best_threshold(pairs.iter().filter(|pair| pair.fold != Some(fold)))?;
        let within = || pairs.iter().filter(|pair| pair.fold == Some(fold));
        shares.push(share(n_right(within(), threshold), within().count())?);
        thresholds.push(threshold);
    }
    let n = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / n;
    let std = (shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    Some(Accuracy { mean, std: Some(std), thresholds })
}

/// Which of the pairs are judged rightly, each by the threshold that [`accuracy`] judges it by.
pub(crate) fn rights(pairs: &[Judged]) -> Option<Vec<bool>> {
    let found = accuracy(pairs)?;
    let threshold = |pair: &Judged| found.thresholds[pair.fold.filter(|_| found.std.is_some()).unwrap_or(0)];
    Some(pairs.iter().map(|pair| n_right(std::iter::once(pair), threshold(pair)) == 1).collect())
}

/// Pairs judged rightly at a threshold; pairs without a score never are.
pub(crate) fn n_right<'a>(pairs: impl Iterator<Item = &'a Judged>, threshold: f32) -> usize {
    pairs.filter(|pair| pair.score.is_some_and(|score| (score >= threshold) == pair.same)).count()
}

/// The threshold with which most pairs are judged rightly; of several equally good cuts the middle one, and within it
/// the middle between its two scores.
fn best_threshold<'a>(pairs: impl Iterator<Item = &'a Judged>) -> Option<f32> {
    let mut scored: Vec<(f32, bool)> = pairs.filter_map(|pair| Some((pair.score?, pair.same))).collect();
    scored.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    // Cut `n` rejects the first `n`. With none rejected, the genuine ones are right.
    let mut right = scored.iter().filter(|(_, same)| *same).count();
    let mut best: Vec<(usize, usize)> = vec![(0, right)];
    for (index, (score, same)) in scored.iter().enumerate() {
        if *same {
            right -= 1;
        } else {
            right += 1;
        }
        let splits_a_tie = scored.get(index + 1).is_some_and(|next| next.0 == *score);
        let record = best[0].1;
        if !splits_a_tie && right >= record {
            if right > record {
                best.clear();
            }
            best.push((index + 1, right));
        }
    }
    let cut = best[best.len() / 2].0;
    match (cut.checked_sub(1).map(|below| scored[below].0), scored.get(cut).map(|above| above.0)) {
        (Some(below), Some(above)) => {
            let middle = f32::midpoint(below, above);
            Some(if middle > below { middle } else { above })
        }
        (None, Some(above)) => Some(above),
        (Some(below), None) => Some(below.next_up()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(score: f32, same: bool, fold: Option<usize>) -> Judged {
        Judged { score: Some(score), same, fold }
    }

    #[test]
    fn without_folds_the_best_single_threshold_judges_its_own_pairs() {
        let pairs =
            [judged(0.9, true, None), judged(0.6, true, None), judged(0.4, false, None), judged(0.7, false, None)];
        let found = accuracy(&pairs).unwrap();
        assert_eq!((found.mean, found.std), (0.75, None));
        assert_eq!(accuracy(&[]), None);
    }

    #[test]
    fn the_threshold_of_a_fold_comes_from_the_others() {
        // Fold 0 alone would take a threshold of 0.3; fold 1 teaches 0.7, by which fold 0 loses its genuine pair.
        let pairs = [
            judged(0.4, true, Some(0)),
            judged(0.2, false, Some(0)),
            judged(0.9, true, Some(1)),
            judged(0.5, false, Some(1)),
        ];
        let found = accuracy(&pairs).unwrap();
        assert_eq!(found.thresholds, [f32::midpoint(0.5, 0.9), f32::midpoint(0.2, 0.4)]);
        // Fold 0: the impostor right, the genuine one not. Fold 1 at 0.3: the genuine one right, the impostor not.
        assert_eq!(found.mean, 0.5);
        assert_eq!(found.std, Some(0.0));
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let pairs = [
            judged(0.9, true, Some(0)),
            judged(0.1, false, Some(0)),
            judged(0.9, true, Some(1)),
            Judged { score: None, same: false, fold: Some(1) },
        ];
        let found = accuracy(&pairs).unwrap();
        assert_eq!(found.mean, 0.75);
        assert!((found.std.unwrap() - 0.125f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_pair_without_a_score_is_wrong_whichever_it_is() {
        for same in [true, false] {
            let lost = Judged { score: None, same, fold: None };
            let found = accuracy(&[judged(0.9, true, None), judged(0.1, false, None), lost, lost]).unwrap();
            assert_eq!(found.mean, 0.5);
        }
    }

    proptest! {
        #[test]
        fn no_threshold_judges_better_than_the_best(
            pairs in proptest::collection::vec((-10i8..10, proptest::bool::ANY), 1..60), other in -1.1f32..1.1,
        ) {
            let pairs: Vec<Judged> = pairs.into_iter().map(|(step, same)| judged(f32::from(step) / 10.0, same, None)).collect();
            let best = best_threshold(pairs.iter()).unwrap();
            prop_assert!(n_right(pairs.iter(), best) >= n_right(pairs.iter(), other));
        }
    }
}
