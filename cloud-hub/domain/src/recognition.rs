//! What follows from scores: whether it is them, who it is, and if not, why not.
//!
//! In: ranked templates, negative anchors, and the thresholds that the tenant has chosen by FAR. Out: a decision, and for every
//! refusal the stage that refused, its code, and the score with what it had to reach. Deliberately absent: pictures, searching.

use face_core::gallery::PersonId;
use face_core::liveness::{LivenessPolicy, judge_still};
use face_core::{Identification, OpenSetPolicy, PassiveScores, Similarity};
use wire_contract::Code;

/// Why somebody was not recognised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WhyNot {
    /// The stage and the hint follow from it.
    pub code: Code,
    /// What was reached, in [-1, 1].
    pub score: Option<f32>,
    /// What had to be reached.
    pub threshold: Option<f32>,
}

/// What a still photograph says of life. It never says that somebody lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StillLife {
    /// How alive the less alive of both crops looks, in [0, 1]: what the verdict goes by.
    pub score: f32,
    /// Whether it is plainly an attack.
    pub attack: bool,
}

impl StillLife {
    /// What the passive model's scores of a photograph say.
    #[must_use]
    pub fn of(scores: PassiveScores) -> Self {
        let attack = judge_still(scores, &LivenessPolicy::default()).is_some();
        Self { score: scores.boxed.min(scores.square), attack }
    }

    /// Why a face is refused before anybody is looked for in it, if it is.
    #[must_use]
    pub fn refusal(self) -> Option<WhyNot> {
        let threshold = Some(LivenessPolicy::default().still_attack_below);
        self.attack.then_some(WhyNot { code: Code::LivenessFailed, score: Some(self.score), threshold })
    }
}

/// Whether it is the person who it is said to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verified {
    /// The best score; none if the person has no template in this space.
    pub score: Option<f32>,
    /// What it had to reach.
    pub threshold: f32,
    /// Nothing if it is them.
    pub why_not: Option<WhyNot>,
}

/// Compares the best of a person's templates, and the nearest of the pictures that are known not to be them.
#[must_use]
pub fn verify(best: Option<f32>, anchor: Option<f32>, threshold: Similarity) -> Verified {
    let threshold = threshold.value();
    let why = |code, score| Some(WhyNot { code, score, threshold: Some(threshold) });
    let why_not = match (best, anchor) {
        (None, _) => why(Code::Unknown, None),
        (Some(score), _) if score < threshold => why(Code::Unknown, Some(score)),
        (Some(score), Some(anchor)) if anchor >= score => {
            Some(WhyNot { code: Code::NotThisPerson, score: Some(score), threshold: Some(anchor) })
        }
        _ => None,
    };
    Verified { score: best, threshold, why_not }
}

impl Verified {
    /// The same, unless there is a reason that comes before every comparison.
    #[must_use]
    pub fn unless(self, why_not: Option<WhyNot>) -> Self {
        Self { why_not: why_not.or(self.why_not), ..self }
    }
}

/// Who it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Identified {
    /// Who, if it is known.
    pub person: Option<PersonId>,
    /// The best score in the gallery; none in an empty one.
    pub score: Option<f32>,
    /// What it had to reach.
    pub threshold: f32,
    /// How far the second-best person is below; none if there is none, or nobody was near enough.
    pub margin: Option<f32>,
    /// Nothing if it is known who it is.
    pub why_not: Option<WhyNot>,
}

impl Identified {
    /// The same, unless there is a reason that comes before every comparison: then it is nobody.
    #[must_use]
    pub fn unless(self, why_not: Option<WhyNot>) -> Self {
        if why_not.is_some() { Self { person: None, why_not, ..self } } else { self }
    }
}

/// Says what an identification means under its policy.
#[must_use]
pub fn identified(found: Identification, policy: &OpenSetPolicy) -> Identified {
    let threshold = policy.threshold.value();
    let nobody = |score: Option<Similarity>, margin, why: WhyNot| Identified {
        person: None,
        score: score.map(Similarity::value),
        threshold,
        margin,
        why_not: Some(why),
    };
    match found {
        Identification::Known { person, score, margin } => {
            Identified { person: Some(person), score: Some(score.value()), threshold, margin, why_not: None }
        }
        Identification::Unknown { best } => {
            let score = best.map(|(_, score)| score);
            let why = WhyNot { code: Code::Unknown, score: score.map(Similarity::value), threshold: Some(threshold) };
            nobody(score, None, why)
        }
        Identification::Ambiguous { score, margin, .. } => {
            let why = WhyNot { code: Code::Ambiguous, score: Some(margin), threshold: Some(policy.margin) };
            nobody(Some(score), Some(margin), why)
        }
        Identification::NotThem { score, anchor, .. } => {
            let why = WhyNot { code: Code::NotThisPerson, score: Some(score.value()), threshold: Some(anchor.value()) };
            nobody(Some(score), None, why)
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn code(best: Option<f32>, anchor: Option<f32>) -> Option<Code> {
        verify(best, anchor, Similarity::new(0.5)).why_not.map(|why| why.code)
    }

    #[test]
    fn it_is_them_from_the_threshold_on_unless_a_picture_that_is_not_them_is_as_near() {
        assert_eq!(code(Some(0.5), None), None);
        assert_eq!(code(Some(0.8), Some(0.79)), None);
        assert_eq!(code(Some(0.8), Some(0.8)), Some(Code::NotThisPerson));
        assert_eq!(code(Some(0.499), None), Some(Code::Unknown));
        assert_eq!(code(None, None), Some(Code::Unknown));
        let why = verify(Some(0.4), None, Similarity::new(0.5)).why_not.unwrap();
        assert_eq!((why.score, why.threshold), (Some(0.4), Some(0.5)));
    }

    #[test]
    fn an_attack_is_nobody_however_alike() {
        let attack = WhyNot { code: Code::LivenessFailed, score: Some(0.01), threshold: Some(0.1) };
        let policy = OpenSetPolicy { threshold: Similarity::new(0.5), margin: 0.05 };
        let (person, score) = (PersonId(Uuid::nil()), Similarity::new(0.9));
        let known = identified(Identification::Known { person, score, margin: None }, &policy);
        assert_eq!(known.unless(None), known);
        let refused = known.unless(Some(attack));
        assert_eq!((refused.person, refused.why_not), (None, Some(attack)));
        let verified = verify(Some(0.9), None, Similarity::new(0.5));
        assert_eq!(verified.unless(None).why_not, None);
        assert_eq!(verified.unless(Some(attack)).why_not, Some(attack));
    }

    #[test]
    fn every_refusal_says_what_was_reached_and_what_had_to_be() {
        let policy = OpenSetPolicy { threshold: Similarity::new(0.5), margin: 0.05 };
        let (person, score) = (PersonId(Uuid::nil()), Similarity::new(0.7));
        let known = identified(Identification::Known { person, score, margin: Some(0.2) }, &policy);
        assert_eq!((known.person, known.why_not), (Some(person), None));
        let unknown = identified(Identification::Unknown { best: Some((person, Similarity::new(0.3))) }, &policy);
        let why = unknown.why_not.unwrap();
        assert_eq!((unknown.person, why.code, why.score, why.threshold), (None, Code::Unknown, Some(0.3), Some(0.5)));
        let close = Identification::Ambiguous { person, score, rival: person, margin: 0.02 };
        let why = identified(close, &policy).why_not.unwrap();
        assert_eq!((why.code, why.score, why.threshold), (Code::Ambiguous, Some(0.02), Some(0.05)));
        let not_them = Identification::NotThem { person, score, anchor: Similarity::new(0.75) };
        let why = identified(not_them, &policy).why_not.unwrap();
        assert_eq!((why.code, why.threshold), (Code::NotThisPerson, Some(0.75)));
    }
}
