//! The open-set decision: who is it, or nobody we know, or too close to call.
//!
//! In: ranked rows of a gallery (several templates per person) and a policy. Out: [`Identification`]. The threshold of
//! the policy depends on the gallery's size ([`ThresholdLadder`]).
//! Deliberately absent: the search (`face-index`) and how a ladder follows from a FAR (the model pack's manifest).

use crate::embedding::Similarity;
use crate::gallery::{PersonId, Ranked};

/// When a score counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenSetPolicy {
    /// The lowest similarity that may be a known person; it comes from the manifest, addressed by FAR.
    pub threshold: Similarity,
    /// How far the best person must be above the second-best one. Two enrolled people who look alike, or one
    /// person enrolled twice under two names, must not be told apart by chance.
    pub margin: f32,
}

/// The threshold for each size of a gallery.
///
/// A stranger is compared with every template: what one comparison confuses once in ten thousand times, a gallery of a
/// hundred confuses once in a hundred. So that a stranger's chance stays the one that was promised, the threshold rises
/// with the gallery. Invariant: at least one step, sizes and thresholds rise from step to step.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdLadder(Vec<ThresholdStep>);

/// One step of a ladder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdStep {
    /// The largest gallery, in templates, that the threshold keeps the promise for.
    pub up_to: usize,
    /// The threshold.
    pub threshold: Similarity,
}

/// Why steps are no ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    /// There are none.
    #[error("a threshold ladder needs at least one step")]
    Empty,
    /// A larger gallery would get the same or a laxer threshold, or the steps are out of order.
    #[error("step {index} of a threshold ladder must be for a larger gallery and stricter than the step before it")]
    NotRising {
        /// Which step.
        index: usize,
    },
}

impl ThresholdLadder {
    /// Checks that the steps rise.
    ///
    /// # Errors
    /// When there is no step, or one does not rise above the one before it.
    pub fn new(steps: Vec<ThresholdStep>) -> Result<Self, LadderError> {
        if steps.is_empty() {
            return Err(LadderError::Empty);
        }
        let rises = |pair: &[ThresholdStep]| pair[0].up_to < pair[1].up_to && pair[0].threshold < pair[1].threshold;
        match steps.windows(2).position(|pair| !rises(pair)) {
            Some(before) => Err(LadderError::NotRising { index: before + 1 }),
            None => Ok(Self(steps)),
        }
    }

    /// The threshold for a gallery of `n_templates`: that of the smallest step that is large enough, since nothing is
    /// interpolated. None for a gallery larger than any that was calibrated.
    #[must_use]
    pub fn at(&self, n_templates: usize) -> Option<Similarity> {
        self.0.iter().find(|step| n_templates <= step.up_to).map(|step| step.threshold)
    }

    /// The steps, the smallest gallery first.
    #[must_use]
    pub fn steps(&self) -> &[ThresholdStep] {
        &self.0
    }
}

/// When a score counts, for galleries of any size.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSetRules {
    /// The lowest similarity that may be a known person, by the size of the gallery.
    pub ladder: ThresholdLadder,
    /// As [`OpenSetPolicy::margin`].
    pub margin: f32,
}

impl OpenSetRules {
    /// The policy for a gallery of `n_templates`. One larger than any that was calibrated knows nobody: a promise that
    /// was never measured is not made.
    #[must_use]
    pub fn for_gallery(&self, n_templates: usize) -> OpenSetPolicy {
        let threshold = self.ladder.at(n_templates).unwrap_or(Similarity::UNREACHABLE);
        OpenSetPolicy { threshold, margin: self.margin }
    }
}

/// What the policy makes of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Identification {
    /// The best person is over the threshold, and over the second-best by the margin.
    Known {
        /// Who it is.
        person: PersonId,
        /// Their best template's similarity.
        score: Similarity,
        /// Distance to the second-best person; `None` when the gallery holds one person only.
        margin: Option<f32>,
    },
    /// Nobody is over the threshold.
    Unknown {
        /// The nearest person and their similarity; `None` for an empty gallery.
        best: Option<(PersonId, Similarity)>,
    },
    /// Over the threshold, but the second-best person is too close.
    Ambiguous {
        /// The nearest person.
        person: PersonId,
        /// Their similarity.
        score: Similarity,
        /// The second-best person.
        rival: PersonId,
        /// Distance between the two, below the policy's margin.
        margin: f32,
    },
    /// It would have been this person, but the probe is at least as near to somebody who is on record as not being them.
    NotThem {
        /// The nearest person.
        person: PersonId,
        /// Their similarity.
        score: Similarity,
        /// The similarity of the negative anchor, at least `score`.
        anchor: Similarity,
    },
}

/// Decides who the rows speak for. The rows may come in any order; each person counts by their best template.
///
/// Pass [`crate::gallery::Gallery::candidates`], which makes sure that the second-best person is among them.
#[must_use]
pub fn identify(ranked: &[Ranked], policy: &OpenSetPolicy) -> Identification {
    let Some(best) = best_where(ranked, |_| true) else {
        return Identification::Unknown { best: None };
    };
    let (person, score) = (best.person, best.similarity);
    if score < policy.threshold {
        return Identification::Unknown { best: Some((person, score)) };
    }
    let Some(second) = best_where(ranked, |row| row.person != person) else {
        return Identification::Known { person, score, margin: None };
    };
    let margin = score.above(second.similarity);
    if margin < policy.margin {
        return Identification::Ambiguous { person, score, rival: second.person, margin };
    }
    Identification::Known { person, score, margin: Some(margin) }
}

/// As [`identify`], with negative anchors: pictures of which somebody said "this is not that person".
///
/// `anchors` holds, for a row `(person, similarity)`, how alike the probe is to a picture that is known not to be that
/// person: somebody whom the door once mistook for them. Who is nearer to such a picture than to the person's own
/// templates is not them; at equal distance too, since the doubt was put on record by a human being. An anchor of one person
/// says nothing about another, so that whom it shows may well be enrolled under their own name.
#[must_use]
pub fn identify_with_anchors(ranked: &[Ranked], anchors: &[Ranked], policy: &OpenSetPolicy) -> Identification {
    let found = identify(ranked, policy);
    let Identification::Known { person, score, .. } = found else { return found };
    match best_where(anchors, |row| row.person == person) {
        Some(nearest) if nearest.similarity >= score => {
            Identification::NotThem { person, score, anchor: nearest.similarity }
        }
        _ => found,
    }
}

/// The first of the most similar rows that `wanted` accepts.
fn best_where(ranked: &[Ranked], wanted: impl Fn(&Ranked) -> bool) -> Option<&Ranked> {
    ranked.iter().filter(|row| wanted(row)).fold(None, |best: Option<&Ranked>, row| match best {
        Some(best) if best.similarity >= row.similarity => Some(best),
        _ => Some(row),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery::TemplateId;
    use proptest::prelude::*;
    use uuid::Uuid;

    const ANNA: u128 = 1;
    const BEN: u128 = 2;

    fn row(person: u128, cosine: f32) -> Ranked {
        Ranked {
            person: PersonId(Uuid::from_u128(person)),
            template: TemplateId(Uuid::from_u128(7)),
            similarity: Similarity::new(cosine),
        }
    }

    fn policy(threshold: f32, margin: f32) -> OpenSetPolicy {
        OpenSetPolicy { threshold: Similarity::new(threshold), margin }
    }

    #[test]
    fn a_clear_best_person_is_known() {
        let found = identify(&[row(ANNA, 0.7), row(ANNA, 0.69), row(BEN, 0.2)], &policy(0.442, 0.05));
        let Identification::Known { person, margin, .. } = found else { panic!("{found:?}") };
        assert_eq!(person, PersonId(Uuid::from_u128(ANNA)));
        assert!((margin.unwrap() - 0.5).abs() < 1e-6);
    }

    #[test]
    fn two_close_people_are_ambiguous() {
        let found = identify(&[row(ANNA, 0.60), row(BEN, 0.57)], &policy(0.442, 0.05));
        assert!(matches!(found, Identification::Ambiguous { .. }), "{found:?}");
    }

    #[test]
    fn two_templates_of_one_person_are_no_rivals() {
        let found = identify(&[row(ANNA, 0.60), row(ANNA, 0.59)], &policy(0.442, 0.05));
        assert!(matches!(found, Identification::Known { margin: None, .. }), "{found:?}");
    }

    #[test]
    fn nobody_over_the_threshold_is_unknown_with_the_nearest_named() {
        let found = identify(&[row(BEN, 0.30), row(ANNA, 0.44)], &policy(0.442, 0.05));
        let best = Some((PersonId(Uuid::from_u128(ANNA)), Similarity::new(0.44)));
        assert_eq!(found, Identification::Unknown { best });
        assert_eq!(identify(&[], &policy(0.442, 0.05)), Identification::Unknown { best: None });
    }

    #[test]
    fn who_is_nearer_to_a_negative_anchor_of_the_person_is_not_them() {
        let rows = [row(ANNA, 0.70), row(BEN, 0.2)];
        let with = |anchors: &[Ranked]| identify_with_anchors(&rows, anchors, &policy(0.442, 0.05));
        let known = identify(&rows, &policy(0.442, 0.05));
        assert_eq!(with(&[]), known);
        assert_eq!(with(&[row(ANNA, 0.69)]), known, "nearer to Anna than to the picture that is not her");
        assert_eq!(with(&[row(BEN, 0.9)]), known, "an anchor of Ben says nothing about Anna");
        let (person, score) = (PersonId(Uuid::from_u128(ANNA)), Similarity::new(0.70));
        for (anchors, nearest) in [(vec![row(ANNA, 0.70)], 0.70), (vec![row(ANNA, 0.1), row(ANNA, 0.95)], 0.95)] {
            let anchor = Similarity::new(nearest);
            assert_eq!(with(&anchors), Identification::NotThem { person, score, anchor }, "{anchors:?}");
        }
    }

    fn ladder(steps: &[(usize, f32)]) -> Result<ThresholdLadder, LadderError> {
        let step =
            |(up_to, cosine): &(usize, f32)| ThresholdStep { up_to: *up_to, threshold: Similarity::new(*cosine) };
        ThresholdLadder::new(steps.iter().map(step).collect())
    }

    #[test]
    fn the_threshold_is_that_of_the_next_larger_gallery_and_beyond_the_last_nobody_is_known() {
        let rules = OpenSetRules { ladder: ladder(&[(1, 0.4), (10, 0.5), (100, 0.6)]).unwrap(), margin: 0.05 };
        let at = |n| rules.for_gallery(n).threshold.value();
        assert_eq!([0, 1, 2, 10, 11, 100].map(at), [0.4, 0.4, 0.5, 0.5, 0.6, 0.6]);
        assert_eq!(rules.ladder.at(101), None);
        let same_picture = identify(&[row(ANNA, 1.0)], &rules.for_gallery(101));
        assert!(matches!(same_picture, Identification::Unknown { .. }), "{same_picture:?}");
    }

    #[test]
    fn a_ladder_that_does_not_rise_is_refused() {
        assert_eq!(ladder(&[]), Err(LadderError::Empty));
        for steps in [[(1, 0.4), (10, 0.4)], [(10, 0.4), (10, 0.5)], [(10, 0.5), (1, 0.6)], [(1, 0.5), (10, 0.4)]] {
            assert_eq!(ladder(&steps), Err(LadderError::NotRising { index: 1 }), "{steps:?}");
        }
    }

    proptest! {
        #[test]
        fn an_anchor_never_makes_anyone_known(
            rows in proptest::collection::vec((0u128..4, -1.0f32..1.0), 0..12),
            anchors in proptest::collection::vec((0u128..4, -1.0f32..1.0), 0..6), threshold in -1.0f32..1.0,
        ) {
            let of = |rows: Vec<(u128, f32)>| rows.into_iter().map(|(person, cosine)| row(person, cosine)).collect::<Vec<_>>();
            let (rows, anchors) = (of(rows), of(anchors));
            let (before, after) = (identify(&rows, &policy(threshold, 0.05)), identify_with_anchors(&rows, &anchors, &policy(threshold, 0.05)));
            let opens = |found: &Identification| matches!(found, Identification::Known { .. });
            prop_assert!(after == before || (opens(&before) && !opens(&after)));
        }

        #[test]
        fn a_larger_gallery_never_has_a_laxer_threshold(
            sizes in proptest::collection::btree_set(1usize..100_000, 1..9), start in -0.9f32..0.5,
            rises in proptest::collection::vec(0.001f32..0.05, 9), a in 0usize..200_000, b in 0usize..200_000,
        ) {
            let mut cosine = start;
            let steps: Vec<(usize, f32)> = sizes.into_iter().zip(rises).map(|(size, rise)| { cosine += rise; (size, cosine) }).collect();
            let rules = OpenSetRules { ladder: ladder(&steps).unwrap(), margin: 0.05 };
            prop_assert!(rules.for_gallery(a.min(b)).threshold <= rules.for_gallery(a.max(b)).threshold);
        }

        #[test]
        fn a_higher_threshold_or_margin_never_makes_anyone_known(
            rows in proptest::collection::vec((0u128..4, -1.0f32..1.0), 0..12),
            threshold in -1.0f32..1.0, margin in 0.0f32..0.5, harder in 0.0f32..0.5, wider in 0.0f32..0.5,
        ) {
            let rows: Vec<Ranked> = rows.into_iter().map(|(person, cosine)| row(person, cosine)).collect();
            let strict = identify(&rows, &policy(threshold + harder, margin + wider));
            if let Identification::Known { person, score, .. } = strict {
                let lax = identify(&rows, &policy(threshold, margin));
                let same = matches!(lax, Identification::Known { person: p, score: s, .. } if p == person && s == score);
                prop_assert!(same);
            }
        }

        #[test]
        fn the_order_of_distinct_rows_does_not_matter(
            mut rows in proptest::collection::vec((0u128..4, -1.0f32..1.0), 0..12),
        ) {
            let forward: Vec<Ranked> = rows.iter().map(|(person, cosine)| row(*person, *cosine)).collect();
            rows.reverse();
            let backward: Vec<Ranked> = rows.iter().map(|(person, cosine)| row(*person, *cosine)).collect();
            let distinct = forward.iter().enumerate().all(|(i, a)| forward[..i].iter().all(|b| a.similarity != b.similarity));
            prop_assume!(distinct);
            prop_assert_eq!(identify(&forward, &policy(0.1, 0.05)), identify(&backward, &policy(0.1, 0.05)));
        }
    }
}
