//! What a single picture can tell: that it shows an attack, never that it shows a living person.
//!
//! In: the passive scores of one frame. Out: the method that calls it an attack, or nothing. Deliberately absent: `live`.

use super::{LivenessPolicy, Method};
use crate::models::PassiveScores;

/// The method by which a single picture is an attack; `None` when it may be a living person, which one moment cannot prove.
///
/// One crop that is sure suffices: cut-outs and tablets betray themselves in the crop of the face's own shape alone (0.03,
/// against 0.96 and 0.98 in the square one). Of the frames of five evenly lit live clips 0 to 5 % score as low in either
/// crop; of a strongly backlit one 49 % do, so that a still picture taken against a window may be called an attack.
/// Measured in docs/measurements/liveness-2026-11-22.md.
#[must_use]
pub fn judge_still(scores: PassiveScores, policy: &LivenessPolicy) -> Option<Method> {
    let scores = scores.checked()?;
    (scores.boxed.min(scores.square) < policy.still_attack_below).then_some(Method::Passive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(boxed: f32, square: f32) -> Option<Method> {
        judge_still(PassiveScores { boxed, square }, &LivenessPolicy::default())
    }

    #[test]
    fn one_crop_that_is_sure_is_enough_and_none_proves_life() {
        assert_eq!(judged(0.03, 0.98), Some(Method::Passive));
        assert_eq!(judged(0.9, 0.0), Some(Method::Passive));
        assert_eq!(judged(0.68, 0.89), None);
        assert_eq!(judged(f32::NAN, 0.0), None, "what was not measured accuses nobody");
    }
}
