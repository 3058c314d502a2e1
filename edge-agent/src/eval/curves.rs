//! What a report draws: how scores lie, which errors each threshold makes, what turning poor pictures away would save.
//!
//! In: scores, the highest first, and the quality of the pictures behind them. Out: [`Curves`]. Pure. A genuine pair without
//! a template counts as refused, as everywhere in `eval`; it has no score, so that no bin of the histogram holds it.

use super::rates::share;

/// Width of a bin of the histogram, in cosine.
const BIN: f32 = 0.02;
/// Points of a curve: more cannot be told apart on a page.
const POINTS: usize = 240;
/// Shares of the genuine pairs that are turned away for their quality, in steps of this.
const REJECT_STEP: f64 = 0.01;
/// Beyond half, too few pairs are left to say anything of.
const MOST_REJECTED: f64 = 0.5;

/// Everything drawn of a verification.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curves {
    pub(crate) histogram: Histogram,
    /// From lax to strict.
    pub(crate) errors: Vec<Errors>,
    /// Share of the genuine pairs turned away for their quality, and share of the others that is refused.
    pub(crate) rejects: Vec<(f64, f64)>,
    /// The threshold of `rejects`.
    pub(crate) reject_threshold: f32,
}

/// How many pairs score how much, each kind as a share of its own pairs with two templates.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram {
    /// Lower end of the first bin.
    pub(crate) from: f32,
    pub(crate) bin: f32,
    pub(crate) genuine: Vec<f64>,
    pub(crate) impostors: Vec<f64>,
}

/// The two errors at one threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Errors {
    pub(crate) false_accepts: f64,
    pub(crate) false_rejects: f64,
}

/// A genuine pair: its score, if both pictures gave a template, and the quality of the worse picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GenuinePair {
    pub(crate) score: Option<f32>,
    pub(crate) quality: f32,
}

/// Draws the curves. `impostors` are sorted, the highest first; `reject_threshold` is that of the error-versus-reject curve.
pub(crate) fn curves(genuine: &[GenuinePair], impostors: &[f32], reject_threshold: f32) -> Curves {
    let mut scores: Vec<f32> = genuine.iter().map(|pair| pair.score.unwrap_or(f32::NEG_INFINITY)).collect();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    Curves {
        histogram: histogram(&scores, impostors),
        errors: errors(&scores, impostors),
        rejects: rejects(genuine, reject_threshold),
        reject_threshold,
    }
}

fn histogram(genuine: &[f32], impostors: &[f32]) -> Histogram {
    let bins = (2.0 / BIN).round() as usize;
    let count = |scores: &[f32]| {
        let mut counts = vec![0usize; bins];
        let finite: Vec<f32> = scores.iter().copied().filter(|score| score.is_finite()).collect();
        for score in &finite {
            let bin = ((score + 1.0) / BIN).floor().max(0.0) as usize;
            counts[bin.min(bins - 1)] += 1;
        }
        counts.into_iter().map(|n| share(n, finite.len()).unwrap_or(0.0)).collect()
    };
    Histogram { from: -1.0, bin: BIN, genuine: count(genuine), impostors: count(impostors) }
}

/// Thresholds at the impostors' own scores, evenly spaced in the logarithm of the false accept rate: so that the strict end,
/// where doors work, is drawn as finely as the rest.
fn errors(genuine: &[f32], impostors: &[f32]) -> Vec<Errors> {
    if genuine.is_empty() || impostors.is_empty() {
        return Vec::new();
    }
    let n = impostors.len() as f64;
    let mut ranks: Vec<usize> = (0..POINTS)
        .map(|point| (n.powf(1.0 - point as f64 / (POINTS - 1) as f64).round() as usize).clamp(1, impostors.len()))
        .collect();
    ranks.dedup();
    let at = |rank: &usize| {
        let threshold = impostors[rank - 1];
        let accepted = |scores: &[f32]| scores.partition_point(|score| *score >= threshold) as f64;
        Errors { false_accepts: accepted(impostors) / n, false_rejects: 1.0 - accepted(genuine) / genuine.len() as f64 }
    };
    ranks.iter().map(at).collect()
}

/// The error-versus-reject curve (ISO/IEC 29794-1): the pairs with the worst pictures go first. A curve that falls says that
/// the quality measure finds the pictures that would be refused.
fn rejects(genuine: &[GenuinePair], threshold: f32) -> Vec<(f64, f64)> {
    let mut pairs = genuine.to_vec();
    pairs.sort_by(|a, b| a.quality.total_cmp(&b.quality));
    let refused = |pair: &GenuinePair| pair.score.is_none_or(|score| score < threshold);
    let steps = (MOST_REJECTED / REJECT_STEP).round() as usize;
    (0..=steps)
        .filter_map(|step| {
            let away = step as f64 * REJECT_STEP;
            let left = &pairs[(away * pairs.len() as f64).floor() as usize..];
            Some((away, share(left.iter().filter(|pair| refused(pair)).count(), left.len())?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(score: f32, quality: f32) -> GenuinePair {
        GenuinePair { score: Some(score), quality }
    }

    #[test]
    fn a_known_case_is_drawn_as_it_is() {
        let genuine = [pair(0.9, 0.9), pair(0.3, 0.1), GenuinePair { score: None, quality: 0.0 }, pair(0.8, 0.8)];
        let drawn = curves(&genuine, &[0.35, 0.1, 0.0, -0.2], 0.4);
        // Laxest first: every impostor in; then only the best of them, and the genuine pairs above it.
        let (lax, strict) = (drawn.errors[0], drawn.errors[drawn.errors.len() - 1]);
        assert_eq!((lax.false_accepts, lax.false_rejects), (1.0, 0.25));
        assert_eq!((strict.false_accepts, strict.false_rejects), (0.25, 0.5));
        // Turned away: the lost pair first, then the poor one that is refused.
        assert_eq!(drawn.rejects[0], (0.0, 0.5));
        assert_eq!(drawn.rejects[25].1, 1.0 / 3.0);
        assert_eq!(drawn.rejects[50], (0.5, 0.0));
        let bin = |score: f32| ((score + 1.0) / BIN) as usize;
        assert!((drawn.histogram.genuine[bin(0.9)] - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(drawn.histogram.genuine.len(), 100);
    }

    #[test]
    fn nothing_to_draw_is_no_panic() {
        let drawn = curves(&[], &[], 0.4);
        assert!(drawn.errors.is_empty() && drawn.rejects.is_empty());
        assert!(drawn.histogram.genuine.iter().all(|share| *share == 0.0));
    }

    proptest! {
        #[test]
        fn shares_add_up_and_errors_trade_off(
            genuine in proptest::collection::vec((-1.0f32..=1.0, 0.0f32..1.0), 1..60),
            mut impostors in proptest::collection::vec(-1.0f32..=1.0, 1..200),
        ) {
            impostors.sort_unstable_by(|a, b| b.total_cmp(a));
            let genuine: Vec<GenuinePair> = genuine.into_iter().map(|(score, quality)| pair(score, quality)).collect();
            let drawn = curves(&genuine, &impostors, 0.3);
            prop_assert!((drawn.histogram.genuine.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!((drawn.histogram.impostors.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            for pair in drawn.errors.windows(2) {
                prop_assert!(pair[1].false_accepts <= pair[0].false_accepts);
                prop_assert!(pair[1].false_rejects >= pair[0].false_rejects);
            }
        }
    }
}
