//! One face as a point on the unit sphere, and how alike two of them are.
//!
//! In: the embedder's raw output. Out: [`Embedding`], the only form the rest of the code accepts, and [`Similarity`]: the
//! cosine of two, less twice the lesser handicap ([`crate::clarity`]; none where the pack has no scale for it).
//! No I/O, no clock. The indexes in `face-index` are tested against the exact [`rank`] below.

use std::cmp::Ordering;
use std::fmt;

use crate::clarity::{ClarityScale, docked_by};

/// Components of an embedding.
pub const DIM: usize = 512;

/// Bytes of a stored template: [`DIM`] × f32, little endian.
pub const TEMPLATE_BYTES: usize = DIM * 4;

/// A norm below this is not a direction. A black crop can give such an output.
const MIN_NORM: f32 = 1e-6;

/// How far from 1 the norm of stored bytes may be: rounding of 512 squares stays below 1e-5, damage does not.
const UNIT_TOLERANCE: f32 = 1e-4;

/// A finite vector of unit L2 norm, and the handicap of the face behind it. Invariant: made only by the constructors here;
/// the handicap is finite and at most [`MAX_HANDICAP`] either way.
#[derive(Clone, PartialEq)]
pub struct Embedding {
    components: [f32; DIM],
    handicap: f32,
}

/// The largest handicap, in cosine: half of the largest weight of a scale.
pub const MAX_HANDICAP: f32 = crate::clarity::MAX_WEIGHT / 2.0;

/// Why numbers are not an embedding.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EmbeddingError {
    /// NaN or infinity.
    #[error("embedding component {index} is not finite")]
    NotFinite {
        /// Position of the first such component.
        index: usize,
    },
    /// The norm is too small (or too large for f32) to give a direction.
    #[error("embedding norm {norm} cannot be normalised")]
    Degenerate {
        /// The norm found.
        norm: f32,
    },
    /// Not 512 components.
    #[error("embedding has {found} components, {DIM} are expected")]
    Components {
        /// Components found.
        found: usize,
    },
    /// Not 2,048 bytes.
    #[error("stored template has {found} bytes, {TEMPLATE_BYTES} are expected")]
    Bytes {
        /// Bytes found.
        found: usize,
    },
    /// Stored bytes whose norm is not 1: they were not written by [`Embedding::to_le_bytes`].
    #[error("stored template has norm {norm}, 1 is expected")]
    NotUnit {
        /// The norm found.
        norm: f32,
    },
    /// The mean of nothing.
    #[error("no embeddings to average")]
    Empty,
}

impl Embedding {
    /// Normalises the embedder's output (`[512]` f32, any scale) to unit length. No handicap.
    ///
    /// # Errors
    /// On NaN or infinity, and on a norm below 1e-6, which a black crop can give.
    pub fn from_raw(raw: [f32; DIM]) -> Result<Self, EmbeddingError> {
        Ok(Self::normalised(raw)?.0)
    }

    /// The embedding and the norm that was there.
    fn normalised(mut raw: [f32; DIM]) -> Result<(Self, f32), EmbeddingError> {
        check_finite(&raw)?;
        // In f64, so that huge components overflow nothing and tiny ones lose nothing.
        let norm = raw.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        if norm < f64::from(MIN_NORM) {
            return Err(EmbeddingError::Degenerate { norm: norm as f32 });
        }
        for component in &mut raw {
            *component = (f64::from(*component) / norm) as f32;
        }
        Ok((Self { components: raw, handicap: 0.0 }, norm as f32))
    }

    /// As [`Embedding::from_raw`], for a tensor's slice.
    ///
    /// # Errors
    /// Also when there are not 512 components.
    pub fn from_slice(raw: &[f32]) -> Result<Self, EmbeddingError> {
        let raw: [f32; DIM] = raw.try_into().map_err(|_| EmbeddingError::Components { found: raw.len() })?;
        Self::from_raw(raw)
    }

    /// A feature model's output as it came, with the handicap that its length gives on the pack's scale.
    ///
    /// # Errors
    /// As [`Embedding::from_slice`].
    pub fn from_output(raw: &[f32], scale: &ClarityScale) -> Result<Self, EmbeddingError> {
        let raw: [f32; DIM] = raw.try_into().map_err(|_| EmbeddingError::Components { found: raw.len() })?;
        let (embedding, norm) = Self::normalised(raw)?;
        Ok(embedding.with_handicap(scale.handicap(scale.clarity(norm))))
    }

    /// The same face with this handicap, for a stored template whose clarity stands beside it. Clamped to
    /// [`MAX_HANDICAP`]; what is no number is the largest, so that damage indulges nobody.
    #[must_use]
    pub fn with_handicap(self, handicap: f32) -> Self {
        let handicap = if handicap.is_nan() { MAX_HANDICAP } else { handicap.clamp(-MAX_HANDICAP, MAX_HANDICAP) };
        Self { handicap, ..self }
    }

    /// What a comparison with this face is docked for its side, in cosine, unless the other is dimmer; below zero it is given.
    #[must_use]
    pub fn handicap(&self) -> f32 {
        self.handicap
    }

    /// Reads what [`Embedding::to_le_bytes`] wrote, bit for bit, without normalising again. No handicap.
    ///
    /// # Errors
    /// When the length is wrong, a component is not finite, or the norm is not 1: damaged or foreign bytes.
    pub fn from_le_bytes(bytes: &[u8]) -> Result<Self, EmbeddingError> {
        if bytes.len() != TEMPLATE_BYTES {
            return Err(EmbeddingError::Bytes { found: bytes.len() });
        }
        let mut components = [0.0; DIM];
        for (component, chunk) in components.iter_mut().zip(bytes.chunks_exact(4)) {
            *component = f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        check_finite(&components)?;
        let norm = components.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
        if (norm - 1.0).abs() > UNIT_TOLERANCE {
            return Err(EmbeddingError::NotUnit { norm });
        }
        Ok(Self { components, handicap: 0.0 })
    }

    /// The 512 components as little-endian f32: the form that gallery records carry. The clarity travels beside them.
    #[must_use]
    pub fn to_le_bytes(&self) -> [u8; TEMPLATE_BYTES] {
        let mut bytes = [0; TEMPLATE_BYTES];
        for (chunk, component) in bytes.chunks_exact_mut(4).zip(&self.components) {
            chunk.copy_from_slice(&component.to_le_bytes());
        }
        bytes
    }

    /// The components, of unit norm.
    #[must_use]
    pub fn as_slice(&self) -> &[f32; DIM] {
        &self.components
    }

    /// How alike two faces are: the cosine of the angle between them, less what the handicaps dock it by ([`docked_by`]). Rises with the cosine, and is
    /// the same either way round.
    #[must_use]
    pub fn similarity(&self, other: &Self) -> Similarity {
        Similarity::docked(dot(&self.components, &other.components), self.handicap, other.handicap)
    }

    /// The normalised mean of several embeddings of one person; its handicap is the mean of theirs.
    ///
    /// Averaging three enrolment photographs cuts the false rejections at cosine 0.50 from 10 % to 2.7 %.
    ///
    /// # Errors
    /// When there are none, or they cancel each other.
    pub fn mean(embeddings: &[Self]) -> Result<Self, EmbeddingError> {
        if embeddings.is_empty() {
            return Err(EmbeddingError::Empty);
        }
        let mut sum = [0.0f32; DIM];
        for embedding in embeddings {
            for (total, component) in sum.iter_mut().zip(&embedding.components) {
                *total += component;
            }
        }
        // Dividing first makes the smallest norm that is accepted independent of how many there are.
        let n = embeddings.len() as f32;
        let handicap = embeddings.iter().map(|embedding| embedding.handicap).sum::<f32>() / n;
        Ok(Self::from_raw(sum.map(|total| total / n))?.with_handicap(handicap))
    }
}

impl fmt::Debug for Embedding {
    /// No components: an embedding is biometric data and has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedding([_; {DIM}])")
    }
}

/// How alike two faces are, in [−1, 1]: a cosine, docked by handicaps where there are any; never NaN.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Similarity(f32);

impl Similarity {
    /// Clamps rounding beyond ±1. A NaN, which no two embeddings can give, becomes −1: as unlike as possible.
    #[must_use]
    pub fn new(cosine: f32) -> Self {
        if cosine.is_nan() { Self(-1.0) } else { Self(cosine.clamp(-1.0, 1.0)) }
    }

    /// A cosine less what both handicaps dock it by, in this order of roundings, so that every search gives the same bits.
    #[must_use]
    pub fn docked(cosine: f32, first: f32, second: f32) -> Self {
        Self::new(cosine - docked_by(first, second))
    }

    /// As a threshold: above every cosine, so that nothing reaches it, not even the same picture.
    pub const UNREACHABLE: Self = Self(2.0);

    /// The number in [−1, 1]; 2 for [`Similarity::UNREACHABLE`] alone.
    #[must_use]
    pub fn value(self) -> f32 {
        self.0
    }

    /// How much better this is than `other`, in [−2, 2].
    #[must_use]
    pub fn above(self, other: Self) -> f32 {
        self.0 - other.0
    }
}

/// Returns `(gallery index, similarity in [-1, 1])` for the `k` best rows, best first; ties keep gallery order.
///
/// This is the plain f32 oracle that every search kernel must agree with. Cost: one pass over the gallery and a sort.
/// Metric: ArcFace, arXiv:1801.07698.
#[must_use]
pub fn rank(probe: &Embedding, gallery: &[Embedding], k: usize) -> Vec<(usize, f32)> {
    let mut rows: Vec<(usize, f32)> =
        gallery.iter().enumerate().map(|(index, row)| (index, probe.similarity(row).value())).collect();
    // The sort is stable, so equal scores stay in gallery order.
    rows.sort_by(|first, second| second.1.partial_cmp(&first.1).unwrap_or(Ordering::Equal));
    rows.truncate(k);
    rows
}

/// The dot product of the oracle: sixteen running sums (component *i* goes to sum *i* mod 16), folded by halves.
///
/// The order of additions is fixed by this text, not by the compiler, so that the same rows give the same bits on
/// every machine; sixteen lanes let it use whatever vector registers there are.
#[must_use]
pub fn dot(first: &[f32; DIM], second: &[f32; DIM]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    for (a, b) in first.chunks_exact(LANES).zip(second.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

fn check_finite(components: &[f32; DIM]) -> Result<(), EmbeddingError> {
    match components.iter().position(|component| !component.is_finite()) {
        Some(index) => Err(EmbeddingError::NotFinite { index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw() -> impl Strategy<Value = [f32; DIM]> {
        proptest::collection::vec(-10.0f32..10.0, DIM).prop_map(|v| v.try_into().unwrap())
    }

    fn axis(index: usize) -> Embedding {
        let mut raw = [0.0; DIM];
        raw[index] = 3.0;
        Embedding::from_raw(raw).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_embedding_has_unit_norm(raw in raw()) {
            let embedding = Embedding::from_raw(raw).unwrap();
            let norm: f64 = embedding.as_slice().iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            prop_assert!((norm - 1.0).abs() < 1e-6);
            prop_assert!((embedding.similarity(&embedding).value() - 1.0).abs() < 1e-5);
        }

        #[test]
        fn stored_bytes_come_back_bit_for_bit(raw in raw()) {
            let embedding = Embedding::from_raw(raw).unwrap();
            prop_assert_eq!(Embedding::from_le_bytes(&embedding.to_le_bytes()).unwrap(), embedding);
        }

        #[test]
        fn the_dot_product_agrees_with_double_precision(first in raw(), second in raw()) {
            let (first, second) = (Embedding::from_raw(first).unwrap(), Embedding::from_raw(second).unwrap());
            let exact: f64 = first.as_slice().iter().zip(second.as_slice()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            prop_assert!((f64::from(first.similarity(&second).value()) - exact).abs() < 1e-6);
        }

        #[test]
        fn a_docked_similarity_is_symmetric_rises_with_the_cosine_and_falls_with_the_handicap(
            first in raw(), second in raw(), a in -0.2f32..0.2, b in -0.2f32..0.2, less in -1.0f32..1.0, more in -1.0f32..1.0,
        ) {
            let (first, second) = (Embedding::from_raw(first).unwrap(), Embedding::from_raw(second).unwrap());
            let bare = first.similarity(&second);
            let (first, second) = (first.with_handicap(a), second.with_handicap(b));
            prop_assert!(first.handicap().abs() <= MAX_HANDICAP && second.handicap().abs() <= MAX_HANDICAP);
            let docked = first.similarity(&second);
            prop_assert_eq!(docked, second.similarity(&first));
            prop_assert!((-1.0..=1.0).contains(&docked.value()));
            prop_assert!((docked.above(bare) + docked_by(first.handicap(), second.handicap())).abs() < 1e-5);
            prop_assert!(Similarity::docked(less.min(more), a, b) <= Similarity::docked(less.max(more), a, b));
        }

        #[test]
        fn ties_keep_gallery_order(picks in proptest::collection::vec(0usize..3, 1..40), k in 0usize..50) {
            let gallery: Vec<Embedding> = picks.iter().map(|pick| axis(*pick)).collect();
            let ranked = rank(&axis(0), &gallery, k);
            prop_assert_eq!(ranked.len(), k.min(gallery.len()));
            for pair in ranked.windows(2) {
                prop_assert!(pair[0].1 > pair[1].1 || (pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0));
            }
        }
    }

    #[test]
    fn nan_and_zero_are_refused() {
        let mut bad = [1.0; DIM];
        bad[7] = f32::NAN;
        assert_eq!(Embedding::from_raw(bad), Err(EmbeddingError::NotFinite { index: 7 }));
        assert_eq!(Embedding::from_raw([0.0; DIM]), Err(EmbeddingError::Degenerate { norm: 0.0 }));
        assert!(Embedding::from_raw([f32::MAX; DIM]).is_ok());
        assert_eq!(Embedding::from_slice(&[1.0; 3]), Err(EmbeddingError::Components { found: 3 }));
    }

    #[test]
    fn a_longer_output_of_the_model_has_the_larger_handicap_and_the_mean_has_the_mean_one() {
        let scale = ClarityScale::new(1.0, 16.0, 0.1).unwrap();
        let seen = |norm: f32| {
            let mut raw = [0.0; DIM];
            raw[3] = norm;
            Embedding::from_output(&raw, &scale).unwrap()
        };
        assert_eq!(seen(4.0).handicap(), 0.0);
        assert_eq!([seen(0.5), seen(100.0)].map(|face| face.handicap()), [-0.05, 0.05]);
        assert_eq!(Embedding::mean(&[seen(0.5), seen(0.5), seen(4.0)]).unwrap().handicap(), -0.1 / 3.0);
        assert_eq!(seen(7.0).as_slice(), axis(3).as_slice(), "the direction is the same");
        assert_eq!(axis(3).with_handicap(f32::NAN).handicap(), MAX_HANDICAP);
    }

    #[test]
    fn damaged_templates_are_refused() {
        let mut bytes = axis(0).to_le_bytes();
        assert!(matches!(Embedding::from_le_bytes(&bytes[1..]), Err(EmbeddingError::Bytes { found: 2047 })));
        bytes[3] ^= 0x01;
        assert!(matches!(Embedding::from_le_bytes(&bytes), Err(EmbeddingError::NotUnit { .. })));
    }

    #[test]
    fn the_mean_lies_between_and_opposites_have_none() {
        let mean = Embedding::mean(&[axis(0), axis(1)]).unwrap();
        assert!((mean.similarity(&axis(0)).value() - std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-6);
        assert_eq!(Embedding::mean(&[]), Err(EmbeddingError::Empty));
        let mut raw = [0.0; DIM];
        raw[0] = -1.0;
        let opposite = Embedding::from_raw(raw).unwrap();
        assert!(matches!(Embedding::mean(&[axis(0), opposite]), Err(EmbeddingError::Degenerate { .. })));
    }

    #[test]
    fn debug_output_shows_no_components() {
        assert_eq!(format!("{:?}", axis(0)), "Embedding([_; 512])");
    }
}
