//! Every picture against every other: true accepts, false accepts, thresholds, and how sure they are.
//!
//! In: one template a picture (none where it gave none) and who is who. Out: [`Verification`]. A genuine pair of which a
//! picture gave no template counts as refused; such an impostor pair is left out, so that it cannot dilute the false
//! accepts. Pairs of which nobody said who is on them are left out. No I/O, no clock.

use face_core::Embedding;

use super::against::{AtRates, Difference};
use super::bootstrap::{interval, replicates};
use super::people::People;
use super::rates::{FALSE_ACCEPT_RATES, Rate, accepted, equal_error_rate, share, threshold_at};

/// A score of two pictures of one person; minus infinity when one gave no template.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Genuine {
    score: f32,
    person: u32,
}

/// A score of two people.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Impostor {
    score: f32,
    people: [u32; 2],
}

/// All scores, the highest first.
#[derive(Debug)]
pub(crate) struct Scores {
    genuine: Vec<Genuine>,
    impostors: Vec<Impostor>,
    n_lost_genuine: usize,
    n_lost_impostors: usize,
    n_people: usize,
}

/// What can be said of one false accept rate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OperatingPoint {
    pub(crate) rate: Rate,
    /// None when there are too few impostor pairs for this rate.
    pub(crate) found: Option<Found>,
}

/// Figures at a supported rate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) threshold: f32,
    pub(crate) threshold_interval: Option<(f64, f64)>,
    /// Share of the genuine pairs that are accepted.
    pub(crate) true_accepts: Option<f64>,
    pub(crate) true_accepts_interval: Option<(f64, f64)>,
}

/// The result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verification {
    /// Genuine pairs, those without a template included.
    pub(crate) n_genuine: usize,
    /// Impostor pairs with two templates.
    pub(crate) n_impostor: usize,
    pub(crate) n_lost_genuine: usize,
    pub(crate) n_lost_impostor: usize,
    pub(crate) n_people: usize,
    pub(crate) equal_error_rate: Option<f64>,
    pub(crate) points: Vec<OperatingPoint>,
    /// Replicates that the intervals come from.
    pub(crate) n_replicates: usize,
}

impl Scores {
    /// Compares every two pictures whose people are known. Cost: 12 bytes and some 60 ns a pair.
    pub(crate) fn all_against_all(templates: &[Option<&Embedding>], people: &People) -> Self {
        let mut scores = Self {
            genuine: Vec::new(),
            impostors: Vec::new(),
            n_lost_genuine: 0,
            n_lost_impostors: 0,
            n_people: people.len(),
        };
        for (a, first) in templates.iter().enumerate() {
            for (b, second) in templates.iter().enumerate().skip(a + 1) {
                let Some(same) = people.same(a, b) else { continue };
                let score = first.zip(*second).map(|(first, second)| first.similarity(second).value());
                scores.add(score, same, [people.of(a), people.of(b)]);
            }
        }
        scores.genuine.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        scores.impostors.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        scores
    }

    fn add(&mut self, score: Option<f32>, same: bool, people: [u32; 2]) {
        match (score, same) {
            (Some(score), true) => self.genuine.push(Genuine { score, person: people[0] }),
            (None, true) => {
                self.n_lost_genuine += 1;
                self.genuine.push(Genuine { score: f32::NEG_INFINITY, person: people[0] });
            }
            (Some(score), false) => self.impostors.push(Impostor { score, people }),
            (None, false) => self.n_lost_impostors += 1,
        }
    }

    /// Share of the genuine and of the impostor pairs that a threshold accepts.
    pub(crate) fn accepted_at(&self, threshold: f32) -> (Option<f64>, Option<f64>) {
        let genuine = self.genuine.partition_point(|pair| pair.score >= threshold);
        let impostors = self.impostors.partition_point(|pair| pair.score >= threshold);
        (share(genuine, self.genuine.len()), share(impostors, self.impostors.len()))
    }

    /// The impostors' scores, the highest first.
    pub(crate) fn impostors(&self) -> Vec<f32> {
        self.impostors.iter().map(|pair| pair.score).collect()
    }

    /// All figures, with intervals from a bootstrap of people.
    pub(crate) fn verification(&self, seed: u64, threads: usize) -> Verification {
        let genuine: Vec<f32> = self.genuine.iter().map(|pair| pair.score).collect();
        let impostors: Vec<f32> = self.impostors.iter().map(|pair| pair.score).collect();
        let supported: Vec<Rate> =
            FALSE_ACCEPT_RATES.into_iter().filter(|rate| rate.is_supported_by(impostors.len())).collect();
        let n_replicates = if supported.is_empty() { 0 } else { n_replicates(impostors.len()) };
        let drawn = replicates(n_replicates, threads, seed, |random| {
            self.replicate(&random.resample(self.n_people), &supported)
        });
        let drawn: Vec<Vec<(f32, Option<f64>)>> = drawn.into_iter().flatten().collect();
        let points = FALSE_ACCEPT_RATES.into_iter().map(|rate| {
            let found = supported.iter().position(|other| *other == rate).map(|index| {
                let threshold =
                    threshold_at(rate.value, impostors.len() as u64, impostors.iter().map(|score| (*score, 1)));
                Found {
                    threshold,
                    threshold_interval: interval(drawn.iter().map(|draw| f64::from(draw[index].0)).collect()),
                    true_accepts: share(accepted(&genuine, threshold), genuine.len()),
                    true_accepts_interval: interval(drawn.iter().filter_map(|draw| draw[index].1).collect()),
                }
            });
            OperatingPoint { rate, found }
        });
        let both = !genuine.is_empty() && !impostors.is_empty();
        Verification {
            n_genuine: genuine.len(),
            n_impostor: impostors.len(),
            n_lost_genuine: self.n_lost_genuine,
            n_lost_impostor: self.n_lost_impostors,
            n_people: self.n_people,
            equal_error_rate: both.then(|| equal_error_rate(&genuine, &impostors)),
            points: points.collect(),
            n_replicates,
        }
    }

    /// The same figures of another pipeline on the same pictures beside these: the same people are drawn for both.
    pub(crate) fn against(&self, plain: &Self, seed: u64, threads: usize) -> AtRates {
        let fewest = self.impostors.len().min(plain.impostors.len());
        let supported: Vec<Rate> = FALSE_ACCEPT_RATES.into_iter().filter(|rate| rate.is_supported_by(fewest)).collect();
        let both =
            |weights: &[u64]| Some((self.replicate(weights, &supported)?, plain.replicate(weights, &supported)?));
        // Twice the pairs of one pipeline, so half the replicates.
        let n = if supported.is_empty() { 0 } else { n_replicates(2 * fewest) };
        let drawn = replicates(n, threads, seed, |random| both(&random.resample(self.n_people)));
        let drawn: Vec<_> = drawn.into_iter().flatten().collect();
        let once = both(&vec![1; self.n_people]);
        let difference = |rate: &Rate| {
            let index = supported.iter().position(|other| other == rate)?;
            let (ours, plain) = once.as_ref()?;
            let changes = drawn.iter().filter_map(|(ours, plain)| Some(ours[index].1? - plain[index].1?));
            Some(Difference { plain: plain[index].1?, ours: ours[index].1?, interval: interval(changes.collect()) })
        };
        FALSE_ACCEPT_RATES.iter().map(|rate| (*rate, difference(rate))).collect()
    }

    /// Threshold and true accepts of each rate when person *p* counts `weights[p]` times; none when no impostor pair is
    /// left. A person drawn twice is no impostor of itself.
    fn replicate(&self, weights: &[u64], rates: &[Rate]) -> Option<Vec<(f32, Option<f64>)>> {
        let weight = |pair: &Impostor| weights[pair.people[0] as usize] * weights[pair.people[1] as usize];
        let total: u64 = self.impostors.iter().map(weight).sum();
        if total == 0 {
            return None;
        }
        let point = |rate: &Rate| {
            let threshold =
                threshold_at(rate.value, total, self.impostors.iter().map(|pair| (pair.score, weight(pair))));
            (threshold, self.weighted_true_accepts(weights, threshold))
        };
        Some(rates.iter().map(point).collect())
    }

    fn weighted_true_accepts(&self, weights: &[u64], threshold: f32) -> Option<f64> {
        let sum = |pairs: &[Genuine]| pairs.iter().map(|pair| weights[pair.person as usize]).sum::<u64>();
        let all = sum(&self.genuine);
        let accepted = self.genuine.partition_point(|pair| pair.score >= threshold);
        (all > 0).then(|| sum(&self.genuine[..accepted]) as f64 / all as f64)
    }
}

/// As many replicates as keep the work to a few seconds: 95 % need some hundreds, and more than a thousand tell no more.
fn n_replicates(n_pairs: usize) -> usize {
    const PAIRS_IN_ALL: usize = 2_000_000_000;
    (PAIRS_IN_ALL / n_pairs.max(1)).clamp(100, 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use face_core::DIM;
    use proptest::prelude::*;

    /// A unit vector between the axes 0 and `axis`, whose cosine with axis 0 is `cosine`.
    fn at(axis: usize, cosine: f32) -> Embedding {
        let mut raw = [0.0; DIM];
        raw[0] = cosine;
        raw[axis] = (1.0 - cosine * cosine).sqrt();
        Embedding::from_raw(raw).unwrap()
    }

    fn scores(genuine: &[f32], impostors: &[f32], n_people: u32) -> Scores {
        let mut scores = Scores {
            genuine: Vec::new(),
            impostors: Vec::new(),
            n_lost_genuine: 0,
            n_lost_impostors: 0,
            n_people: n_people as usize,
        };
        for (index, score) in (0u32..).zip(genuine) {
            scores.add(Some(*score), true, [index % n_people; 2]);
        }
        for (index, score) in (0u32..).zip(impostors) {
            let a = index % n_people;
            scores.add(Some(*score), false, [a, (a + 1 + index / n_people % (n_people - 1)) % n_people]);
        }
        scores.genuine.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        scores.impostors.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        scores
    }

    #[test]
    fn every_two_pictures_are_compared_once_and_lost_ones_counted() {
        let (ann, ann_too, ben) = (at(1, 1.0), at(1, 0.8), at(2, 0.1));
        let people = People::labelled(&[0, 0, 1, 1], &[]).unwrap();
        let scores = Scores::all_against_all(&[Some(&ann), Some(&ann_too), Some(&ben), None], &people);
        let found = scores.verification(1, 1);
        // Ann-Ann and Ben-(nothing); Ann-Ben twice, and twice with nothing.
        assert_eq!((found.n_genuine, found.n_lost_genuine), (2, 1));
        assert_eq!((found.n_impostor, found.n_lost_impostor), (2, 2));
        assert_eq!(scores.accepted_at(0.5), (Some(0.5), Some(0.0)));
        assert_eq!(found.equal_error_rate, Some(0.5));
        assert!(found.points.iter().all(|point| point.found.is_none()), "two impostor pairs say nothing of 1e-1");
    }

    #[test]
    fn a_known_case_has_the_known_answer() {
        // 30 impostor pairs support 1e-1 alone: three may pass, so the threshold is just above the fourth.
        let impostors: Vec<f32> = (0..30u8).map(|step| f32::from(step) / 100.0).collect();
        let scores = scores(&[0.9, 0.8, 0.27, 0.26], &impostors, 6);
        let found = scores.verification(1, 2);
        let [tenth, rest @ ..] = found.points.as_slice() else { panic!("no points") };
        let point = tenth.found.as_ref().unwrap();
        assert_eq!(point.threshold, 0.26f32.next_up());
        assert_eq!(point.true_accepts, Some(0.75));
        assert!(rest.iter().all(|point| point.found.is_none()));
        let (low, high) = point.threshold_interval.unwrap();
        assert!(low <= f64::from(point.threshold) && f64::from(point.threshold) <= high, "{low} {high}");
    }

    #[test]
    fn the_figures_depend_on_the_seed_alone() {
        let impostors: Vec<f32> = (0..400u16).map(|step| f32::from(step * 7 % 400) / 500.0).collect();
        let scores = scores(&[0.9, 0.8, 0.7, 0.6], &impostors, 12);
        assert_eq!(scores.verification(3, 1), scores.verification(3, 4));
    }

    #[test]
    fn against_itself_nothing_changes_and_against_a_worse_one_it_does() {
        let impostors: Vec<f32> = (0..400u16).map(|step| f32::from(step * 7 % 400) / 500.0).collect();
        let good = scores(&[0.95, 0.9, 0.85, 0.8], &impostors, 4);
        let poor = scores(&[0.95, 0.9, 0.1, f32::NEG_INFINITY], &impostors, 4);
        let of = |ours: &Scores, plain: &Scores| ours.against(plain, 3, 2)[1].1.unwrap();
        let same = of(&good, &good);
        assert_eq!((same.change(), same.interval), (0.0, Some((0.0, 0.0))));
        let better = of(&good, &poor);
        assert_eq!((better.ours, better.plain), (1.0, 0.5));
        let (low, high) = better.interval.unwrap();
        assert!(low <= 0.5 && 0.5 <= high && low >= 0.0, "{low} {high}");
        assert!(good.against(&poor, 3, 2)[2].1.is_none(), "400 impostor pairs say nothing of 1e-3");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn thresholds_and_true_accepts_are_monotone(
            genuine in proptest::collection::vec(-1.0f32..1.0, 1..50), impostors in proptest::collection::vec(-1.0f32..1.0, 300..400),
        ) {
            let found = scores(&genuine, &impostors, 9).verification(1, 1);
            let found: Vec<Found> = found.points.into_iter().filter_map(|point| point.found).collect();
            prop_assert_eq!(found.len(), 2);
            // The rates fall: thresholds rise, true accepts fall, and so do their intervals.
            prop_assert!(found[0].threshold <= found[1].threshold);
            prop_assert!(found[0].true_accepts >= found[1].true_accepts);
            prop_assert!(found[0].threshold_interval.unwrap().0 <= found[1].threshold_interval.unwrap().0);
        }
    }
}
