//! Whether somebody who is being enrolled is enrolled already, under another id.
//!
//! In: who of the others is nearest, with how many they were compared, and the model pack's thresholds by gallery size. Out: a
//! duplicate or none. A search over many finds a stranger's lookalike more often than one comparison does, so that the
//! threshold rises with the number of templates, as at a door.

use face_core::{Similarity, ThresholdLadder};

use super::ids::PersonId;

/// Somebody else who looks the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplicate {
    /// Who.
    pub person: PersonId,
    /// How alike.
    pub score: f32,
    /// From where on two people are taken to be one.
    pub threshold: f32,
    /// How many templates of others were compared: the threshold depends on it.
    pub compared: usize,
}

/// The nearest of the others, if they are near enough. `nearest` is the best of `compared` templates of other people.
///
/// A tenant larger than any gallery that was calibrated is judged by the largest: what is only probably a duplicate is shown
/// to the operator, whose word decides; a door that knows nobody there would be of no use here.
#[must_use]
pub fn find(nearest: Option<(PersonId, f32)>, compared: usize, ladder: &ThresholdLadder) -> Option<Duplicate> {
    let (person, score) = nearest?;
    let largest = ladder.steps().last().map_or(Similarity::UNREACHABLE, |step| step.threshold);
    let threshold = ladder.at(compared.max(1)).unwrap_or(largest).value();
    (score >= threshold).then_some(Duplicate { person, score, threshold, compared })
}

#[cfg(test)]
mod tests {
    use face_core::ThresholdStep;
    use uuid::Uuid;

    use super::*;

    fn ladder() -> ThresholdLadder {
        let step = |up_to, cosine| ThresholdStep { up_to, threshold: Similarity::new(cosine) };
        ThresholdLadder::new(vec![step(1, 0.442), step(100, 0.535), step(1_000, 0.585)]).unwrap()
    }

    fn found(score: f32, compared: usize) -> Option<f32> {
        find(Some((PersonId(Uuid::from_u128(7)), score)), compared, &ladder()).map(|duplicate| duplicate.threshold)
    }

    #[test]
    fn what_one_comparison_calls_a_duplicate_is_none_among_many() {
        assert_eq!(found(0.50, 1), Some(0.442));
        assert_eq!(found(0.50, 2), None);
        assert_eq!(found(0.54, 100), Some(0.535));
        assert_eq!(found(0.54, 101), None);
        assert_eq!(found(0.585, 1_000), Some(0.585), "at the threshold it is one");
    }

    #[test]
    fn beyond_the_largest_calibrated_gallery_the_strictest_threshold_is_kept() {
        assert_eq!(found(0.59, 1_000_000), Some(0.585));
        assert_eq!(found(0.58, 1_000_000), None);
    }

    #[test]
    fn the_first_person_of_a_tenant_is_nobodys_duplicate() {
        assert_eq!(find(None, 0, &ladder()), None);
    }
}
