//! Negative anchors: pictures of somebody whom a door took for a person, and who is not that person.
//!
//! In: how much a picture resembles the person, and how many anchors there are. Out: whether it may become one. What a
//! door makes of it is face-core's `identify_with_anchors`. Deliberately absent: pictures, keys, the log.

/// Anchors of one person. Each is somebody who looks like them at this site, so there are never many; and each costs every
/// edge of the site 2 KiB.
pub const MOST: u32 = 16;

/// A picture this much like the person's own templates is probably of the person, whom it would keep out. Above 0.535 no pair
/// of strangers of `lfw-dev` scores but mislabelled ones, and 70 % of single genuine pictures score above 0.635
/// (docs/measurements/accuracy.md, "Thresholds by gallery size").
pub const PROBABLY_THEM: f32 = 0.7;

/// Why a picture does not become an anchor.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Objection {
    /// See [`MOST`].
    #[error("the person has {MOST} negative anchors, which is as many as anyone may have")]
    TooMany,
    /// See [`PROBABLY_THEM`].
    #[error("the picture resembles the person with {score}, as pictures of one person do from {PROBABLY_THEM}")]
    ProbablyThem {
        /// The similarity to the nearest of the person's templates.
        score: f32,
    },
}

/// Whether a picture may become an anchor. `score` is its similarity to the nearest of the person's templates (none without
/// a template), `confirmed` the operator's word that it shows somebody else all the same.
pub fn judge(anchors: u32, score: Option<f32>, confirmed: bool) -> Result<(), Objection> {
    if anchors >= MOST {
        return Err(Objection::TooMany);
    }
    match score {
        Some(score) if score >= PROBABLY_THEM && !confirmed => Err(Objection::ProbablyThem { score }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_persons_own_picture_needs_a_confirmation_and_the_number_is_bounded() {
        assert_eq!(judge(0, Some(0.62), false), Ok(()));
        assert_eq!(judge(0, None, false), Ok(()));
        assert_eq!(judge(0, Some(0.7), false), Err(Objection::ProbablyThem { score: 0.7 }));
        assert_eq!(judge(0, Some(0.9), true), Ok(()), "twins exist");
        assert_eq!(judge(MOST - 1, None, false), Ok(()));
        assert_eq!(judge(MOST, None, true), Err(Objection::TooMany), "no confirmation makes room");
    }
}
