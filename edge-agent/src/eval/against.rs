//! Two pipelines on the same pictures: by how much one is better, and how sure that is.
//!
//! In: what each made of the same list, compared person by person in the same draws, so that what both find hard cancels.
//! Out: [`Difference`]s. Deliberately absent: running the models; the other pipeline is `face_runtime::plain`.

use super::accuracy::{Judged, rights};
use super::bootstrap::{interval, replicates};
use super::lists::Pair;
use super::people::People;
use super::rates::Rate;
use super::verification::Verification;
use super::{Lost, Seen};

/// Replicates of a comparison that costs little.
const REPLICATES: usize = 1_000;

/// One figure of both pipelines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Difference {
    /// What the plain pipeline gives.
    pub(crate) plain: f64,
    /// What the door's pipeline gives.
    pub(crate) ours: f64,
    /// 95 % interval of `ours − plain`; none where nothing could be resampled.
    pub(crate) interval: Option<(f64, f64)>,
}

impl Difference {
    /// Above zero when the door's pipeline gives more.
    pub(crate) fn change(&self) -> f64 {
        self.ours - self.plain
    }
}

/// A difference at each rate that both pipelines have trials enough for.
pub(crate) type AtRates = Vec<(Rate, Option<Difference>)>;

/// The plain pipeline beside the door's own, over pairs.
#[derive(Debug)]
pub(crate) struct AgainstPairs {
    pub(crate) lost: Vec<Lost>,
    pub(crate) calls: Vec<(face_runtime::Task, u64)>,
    pub(crate) n_faces: usize,
    pub(crate) all: Verification,
    pub(crate) accuracy: Option<Difference>,
    pub(crate) true_accepts: AtRates,
}

/// The plain pipeline beside the door's own, over galleries.
#[derive(Debug)]
pub(crate) struct AgainstIdentify {
    pub(crate) seen: Seen,
    /// Misses at each size, in the order of the report's sizes.
    pub(crate) misses: Vec<AtRates>,
}

/// Listed pairs judged rightly by both pipelines, each with its own thresholds from the other folds.
///
/// A pair counts as often as its people are drawn; the thresholds are not learnt anew in each draw.
pub(crate) fn accuracy_difference(
    pairs: &[Pair],
    people: &People,
    ours: &[Judged],
    plain: &[Judged],
    draw: (u64, usize),
) -> Option<Difference> {
    let (ours, plain) = (rights(ours)?, rights(plain)?);
    let share = |right: &[bool], weights: &[u64]| {
        let weight = |pair: &Pair| {
            let [a, b] = pair.pictures.map(|picture| people.of(picture) as usize);
            if a == b { weights[a] } else { weights[a] * weights[b] }
        };
        let all: u64 = pairs.iter().map(weight).sum();
        let right: u64 = pairs.iter().zip(right).filter(|(_, right)| **right).map(|(pair, _)| weight(pair)).sum();
        (all > 0).then(|| right as f64 / all as f64)
    };
    let (seed, threads) = draw;
    let drawn = replicates(REPLICATES, threads, seed, |random| {
        let weights = random.resample(people.len());
        Some(share(&ours, &weights)? - share(&plain, &weights)?)
    });
    let once = vec![1; people.len()];
    Some(Difference {
        plain: share(&plain, &once)?,
        ours: share(&ours, &once)?,
        interval: interval(drawn.into_iter().flatten().collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(scores: &[f32]) -> Vec<Judged> {
        let judge = |(index, score): (usize, &f32)| Judged { score: Some(*score), same: index % 2 == 0, fold: None };
        scores.iter().enumerate().map(judge).collect()
    }

    #[test]
    fn a_pipeline_is_no_better_than_itself_and_better_than_one_that_errs() {
        // Pictures 0 to 15 are of eight people, two each: a genuine pair and one with the next person in turn.
        let labels: Vec<usize> = (0..16).map(|picture| picture / 2).collect();
        let people = People::labelled(&labels, &[]).unwrap();
        let pair = |index: usize| {
            let (a, same) = (index / 2 * 2, index.is_multiple_of(2));
            let b = if same { a + 1 } else { (a + 2) % 16 };
            Pair { line: index + 2, pictures: [a, b], same, fold: None }
        };
        let pairs: Vec<Pair> = (0..16).map(pair).collect();
        let good = judged(&[0.9, 0.1].repeat(8));
        let mut poor = good.clone();
        poor[0].score = None;
        poor[3].score = None;
        let same = accuracy_difference(&pairs, &people, &good, &good, (1, 2)).unwrap();
        assert_eq!((same.change(), same.interval), (0.0, Some((0.0, 0.0))));
        let better = accuracy_difference(&pairs, &people, &good, &poor, (1, 2)).unwrap();
        assert_eq!((better.ours, better.plain), (1.0, 14.0 / 16.0));
        let (low, high) = better.interval.unwrap();
        assert!(low >= 0.0 && high > better.change(), "{low} {high}");
        let worse = accuracy_difference(&pairs, &people, &poor, &good, (1, 2)).unwrap();
        assert_eq!((worse.change(), worse.interval), (-better.change(), Some((-high, -low))));
    }
}
