//! How clearly the feature model saw a face, and what a comparison with it is docked for that.
//!
//! In: the length of the model's raw output, a [`ClarityScale`] from the pack's manifest. Out: a [`Clarity`] in [0, 1] and a
//! *handicap* in units of cosine. A blurred, covered or turned face gives a short vector. Two pictures of one person are less
//! alike the dimmer they are; two strangers are not more alike. So one threshold for all refuses the dim and indulges the
//! clear. Docking a score by the handicap (below zero for a dim face) of the dimmer side moves the threshold to where the two
//! kinds of pairs part: figures in docs/measurements/accuracy.md, why this form in docs/decisions/0011 and 0023.
//!
//! The length as a measure of quality: MagFace, arXiv:2103.06627. Quality beside the score, calibrated: the quality measure
//! functions of speaker recognition (Mandasari et al. 2013, doi:10.1109/TASL.2013.2279332).
//! Deliberately absent: the figures (the manifest's), the comparison ([`crate::Embedding::similarity`]).

/// How clearly a face was seen: 0 dim, 1 clear. Finite and within [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Clarity(f32);

impl Clarity {
    /// A clarity that docks nothing and gives nothing.
    pub const NEUTRAL: Self = Self(0.5);

    /// Clamps to [0, 1]. What is no number counts as the clearest: nobody is indulged by damage.
    #[must_use]
    pub fn new(clarity: f32) -> Self {
        if clarity.is_nan() { Self(1.0) } else { Self(clarity.clamp(0.0, 1.0)) }
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f32 {
        self.0
    }
}

/// From the length of a feature model's output to clarity and handicap. Invariant: `0 < dim_norm < clear_norm`, finite, and
/// `weight` in [0, [`MAX_WEIGHT`]].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClarityScale {
    dim_norm: f32,
    clear_norm: f32,
    weight: f32,
}

/// The largest weight accepted, in cosine. Two faces of full clarity score this much below their cosine; from a third of the
/// way between strangers and friends on, clarity would decide and not the face.
pub const MAX_WEIGHT: f32 = 0.2;

/// The space that templates live in, and how those of it are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// Its name; templates of different spaces never meet.
    pub id: String,
    /// The scale of its clarity, if it has one.
    pub clarity: Option<ClarityScale>,
}

impl Space {
    /// A space in which every face counts alike.
    #[must_use]
    pub fn plain(id: &str) -> Self {
        Self { id: id.to_owned(), clarity: None }
    }

    /// What a stored template is docked whose record says this of its quality.
    #[must_use]
    pub fn handicap(&self, quality: f32) -> f32 {
        self.clarity.map_or(0.0, |scale| scale.handicap(Clarity::new(quality)))
    }

    /// What the record of a template says of its quality: the clarity behind its handicap; `otherwise` in a space without.
    #[must_use]
    pub fn quality(&self, handicap: f32, otherwise: f32) -> f32 {
        self.clarity.map_or(otherwise, |scale| scale.clarity_behind(handicap).value())
    }
}

/// The most that a comparison may be given, in cosine, however dim a face is. Two pictures spoilt in the same way (dark,
/// blurred, covered) are alike for that alone; and a dark stranger must keep the promise before a clear template: at 0.442 ten in
/// a hundred thousand, where twice as many come without a limit (docs/measurements/accuracy.md).
pub const MAX_INDULGENCE: f32 = 0.038;

/// What a comparison of two faces with these handicaps is docked, in cosine: the lesser of both for each side. What one picture
/// does not show, the other cannot make up for.
#[must_use]
pub fn docked_by(first: f32, second: f32) -> f32 {
    (2.0 * first.min(second)).max(-MAX_INDULGENCE)
}

/// Why figures are no scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// The lengths are not finite, not above zero, or in the wrong order.
    #[error("dim_norm must be above zero and below clear_norm")]
    Norms,
    /// The weight is out of range.
    #[error("weight must be between 0 and {MAX_WEIGHT}")]
    Weight,
}

impl ClarityScale {
    /// `dim_norm` and shorter is clarity 0, `clear_norm` and longer is 1, even steps of the logarithm between; `weight` is
    /// the difference between their handicaps, in cosine.
    ///
    /// # Errors
    /// [`ScaleError`].
    pub fn new(dim_norm: f32, clear_norm: f32, weight: f32) -> Result<Self, ScaleError> {
        if !(dim_norm > 0.0 && dim_norm < clear_norm && clear_norm.is_finite()) {
            return Err(ScaleError::Norms);
        }
        if !(0.0..=MAX_WEIGHT).contains(&weight) {
            return Err(ScaleError::Weight);
        }
        Ok(Self { dim_norm, clear_norm, weight })
    }

    /// The clarity of an output of this length.
    #[must_use]
    pub fn clarity(&self, norm: f32) -> Clarity {
        let [dim, clear, norm] = [self.dim_norm, self.clear_norm, norm].map(|length| f64::from(length).ln());
        Clarity::new(((norm - dim) / (clear - dim)) as f32)
    }

    /// What a comparison with such a face is docked for its side, in cosine: half the weight at most, either way.
    #[must_use]
    pub fn handicap(&self, clarity: Clarity) -> f32 {
        self.weight * (clarity.0 - Clarity::NEUTRAL.0)
    }

    /// The clarity behind a handicap of this scale; neutral where clarity weighs nothing.
    #[must_use]
    pub fn clarity_behind(&self, handicap: f32) -> Clarity {
        if self.weight > 0.0 { Clarity::new(handicap / self.weight + Clarity::NEUTRAL.0) } else { Clarity::NEUTRAL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_and_the_middle_are_where_they_should_be() {
        let scale = ClarityScale::new(2.0, 8.0, 0.1).unwrap();
        let clarity = |norm| scale.clarity(norm).value();
        assert_eq!([0.0, 1.0, 2.0, 8.0, 1e30].map(clarity), [0.0, 0.0, 0.0, 1.0, 1.0]);
        assert!((clarity(4.0) - 0.5).abs() < 1e-6, "even steps of the logarithm");
        assert_eq!([0.0, 0.5, 1.0].map(|c| scale.handicap(Clarity::new(c))), [-0.05, 0.0, 0.05]);
    }

    #[test]
    fn two_dim_faces_are_given_no_more_than_the_most() {
        assert_eq!(docked_by(-0.045, -0.045), -MAX_INDULGENCE);
        assert_eq!(docked_by(-0.01, -0.01), -0.02);
        assert_eq!(docked_by(0.045, 0.045), 0.09);
    }

    #[test]
    fn the_dimmer_face_decides_however_clear_the_other_is() {
        for clearer in [-0.01, 0.0, 0.045, MAX_WEIGHT / 2.0] {
            assert_eq!(docked_by(-0.01, clearer), -0.02, "{clearer}");
            assert_eq!(docked_by(clearer, -0.01), -0.02, "{clearer}");
        }
    }

    #[test]
    fn what_is_no_number_indulges_nobody() {
        let scale = ClarityScale::new(2.0, 8.0, 0.1).unwrap();
        for norm in [f32::NAN, -3.0] {
            assert_eq!(scale.clarity(norm).value(), 1.0, "{norm}");
        }
        assert_eq!(Clarity::new(f32::NAN).value(), 1.0);
    }

    #[test]
    fn figures_that_are_no_scale_are_refused() {
        for (dim, clear) in [(0.0, 1.0), (-1.0, 1.0), (2.0, 2.0), (3.0, 2.0), (f32::NAN, 2.0), (1.0, f32::INFINITY)] {
            assert_eq!(ClarityScale::new(dim, clear, 0.1), Err(ScaleError::Norms), "{dim} {clear}");
        }
        for weight in [-0.01, 0.21, f32::NAN] {
            assert_eq!(ClarityScale::new(1.0, 2.0, weight), Err(ScaleError::Weight), "{weight}");
        }
    }

    #[test]
    fn a_plain_space_docks_nothing_and_keeps_the_quality_it_is_given() {
        let space = Space::plain("space");
        assert_eq!([0.0, 0.9].map(|quality| space.handicap(quality)), [0.0, 0.0]);
        assert_eq!(space.quality(0.03, 0.8), 0.8);
        let scaled = Space { clarity: Some(ClarityScale::new(1.0, 2.0, 0.1).unwrap()), ..space };
        assert_eq!((scaled.handicap(1.0), scaled.handicap(0.0), scaled.quality(0.05, 0.8)), (0.05, -0.05, 1.0));
    }

    proptest! {
        #[test]
        fn a_clearer_face_is_never_docked_less(
            dim in 0.1f32..10.0, times in 1.01f32..10.0, weight in 0.0f32..=MAX_WEIGHT, a in 0.0f32..200.0, b in 0.0f32..200.0,
        ) {
            let scale = ClarityScale::new(dim, dim * times, weight).unwrap();
            let handicap = |norm| scale.handicap(scale.clarity(norm));
            prop_assert!(handicap(a.min(b)) <= handicap(a.max(b)));
            prop_assert!(handicap(a).abs() <= weight / 2.0);
        }

        #[test]
        fn the_clarity_comes_back_from_its_handicap(clarity in 0.0f32..=1.0, weight in 0.01f32..=MAX_WEIGHT) {
            let scale = ClarityScale::new(1.0, 2.0, weight).unwrap();
            let back = scale.clarity_behind(scale.handicap(Clarity::new(clarity)));
            prop_assert!((back.value() - clarity).abs() < 1e-5);
        }
    }
}
