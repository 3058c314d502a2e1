//! The templates in memory: 18 bits a component, in the two parts that a search reads at different times.
//!
//! In: templates of 512 f32. Out: the coarse part of every row (its highest 8 bits, 512 bytes), which a search scans,
//! and a row at its stored precision, which a search ranks. 1,164 bytes a template, 56.8 % of the f32 it came from.
//!
//! A component `v` of a row whose largest component is `m` becomes the integer `q = round(v / step)`, `step = m /
//! 130559`, and is kept as `q = 1024 · coarse + fine − 512`: `coarse` in −127..=127 and `fine` in 0..1024. Its stored
//! value is the f32 product `q · step`. Why the oracle's input is this value and not the f32 given:
//! docs/decisions/0005-templates-of-18-bits-in-memory.md.

use face_core::embedding::dot;
use face_core::{DIM, Embedding, Similarity};

/// Values of `fine` in one step of `coarse`.
const FINE_STEPS: i32 = 1024;

/// The largest `q`: 127 · 1024 + 511, so that its coarse part is 127.
const Q_MAX: i32 = 127 * FINE_STEPS + FINE_STEPS / 2 - 1;

/// Low 8 bits of `fine` for each component, then the 2 high bits, four components in a byte.
const FINE_BYTES: usize = DIM + DIM / 4;

/// The highest 8 bits of one row's components. Aligned to a cache line, and 8 lines long, so rows stay contiguous.
#[repr(C, align(64))]
#[derive(Clone)]
pub(crate) struct CoarseRow(pub(crate) [i8; DIM]);

/// The 10 bits below those.
#[repr(C, align(64))]
struct FineRow([u8; FINE_BYTES]);

/// The rows of a gallery, in its order.
#[derive(Default)]
pub(crate) struct Rows {
    coarse: Vec<CoarseRow>,
    fine: Vec<FineRow>,
    /// What one step of the coarse part is worth, a row.
    coarse_steps: Vec<f32>,
    /// At least the norm of what the coarse part leaves out of the stored row, a row.
    residuals: Vec<f32>,
    /// What a comparison with the row is docked.
    handicaps: Vec<f32>,
}

/// The template as a [`crate::Snapshot`] stores it, and as the oracle must be given it: 18 bits a component.
///
/// Each component moves by at most 1/261,118 of the largest, so a cosine by less than 9e-5 whatever the template, and
/// by about 4e-7 for a face.
#[must_use]
pub fn at_stored_precision(template: &Embedding) -> [f32; DIM] {
    let (steps, step) = quantise(template.as_slice());
    steps.map(|q| value(q, step))
}

/// The components in steps of the returned size.
fn quantise(values: &[f32; DIM]) -> ([i32; DIM], f32) {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let step = largest / Q_MAX as f32;
    // A template has norm 1, so `step` is at least 3e-7 and the quotient at most 130559.01, which rounds to 130559.
    (values.map(|value| (f64::from(value) / f64::from(step)).round() as i32), step)
}

/// The stored value of `q` steps: one rounding, the same on every processor.
fn value(q: i32, step: f32) -> f32 {
    q as f32 * step
}

impl Rows {
    pub(crate) fn with_capacity(n: usize) -> Self {
        Self {
            coarse: Vec::with_capacity(n),
            fine: Vec::with_capacity(n),
            coarse_steps: Vec::with_capacity(n),
            residuals: Vec::with_capacity(n),
            handicaps: Vec::with_capacity(n),
        }
    }

    pub(crate) fn push(&mut self, template: &Embedding) {
        let (steps, step) = quantise(template.as_slice());
        let coarse_step = step * FINE_STEPS as f32; // Exact: a power of two.
        let mut coarse = [0; DIM];
        let mut fine = [0; FINE_BYTES];
        let mut residual = 0.0_f64;
        for (at, q) in steps.into_iter().enumerate() {
            let above = (q + FINE_STEPS / 2).div_euclid(FINE_STEPS);
            let below = q + FINE_STEPS / 2 - above * FINE_STEPS;
            coarse[at] = i8::try_from(above).expect("|q| is at most Q_MAX");
            fine[at] = (below & 0xFF) as u8;
            fine[DIM + at % (DIM / 4)] |= ((below >> 8) as u8) << (2 * (at / (DIM / 4)));
            residual += (f64::from(value(q, step)) - f64::from(above) * f64::from(coarse_step)).powi(2);
        }
        self.coarse.push(CoarseRow(coarse));
        self.fine.push(FineRow(fine));
        self.coarse_steps.push(coarse_step);
        self.residuals.push((residual.sqrt() as f32).next_up());
        self.handicaps.push(template.handicap());
    }

    pub(crate) fn len(&self) -> usize {
        self.coarse.len()
    }

    /// Bytes held for the rows.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * (size_of::<CoarseRow>() + size_of::<FineRow>() + 3 * size_of::<f32>())
    }

    pub(crate) fn coarse(&self) -> &[CoarseRow] {
        &self.coarse
    }

    pub(crate) fn coarse_steps(&self) -> &[f32] {
        &self.coarse_steps
    }

    pub(crate) fn residuals(&self) -> &[f32] {
        &self.residuals
    }

    pub(crate) fn handicaps(&self) -> &[f32] {
        &self.handicaps
    }

    /// The oracle's own score of a row: of the template at its stored precision, docked.
    pub(crate) fn similarity(&self, probe: &Embedding, row: usize) -> Similarity {
        let cosine = dot(probe.as_slice(), &self.restore(row));
        Similarity::docked(cosine, probe.handicap(), self.handicaps[row])
    }

    /// Row `row` at its stored precision: the bits that [`at_stored_precision`] gave for it.
    pub(crate) fn restore(&self, row: usize) -> [f32; DIM] {
        let (CoarseRow(coarse), FineRow(fine)) = (&self.coarse[row], &self.fine[row]);
        let step = self.coarse_steps[row] / FINE_STEPS as f32;
        let (low, high) = fine.split_at(DIM);
        let mut values = [0.0; DIM];
        for (quarter, values) in values.chunks_exact_mut(DIM / 4).enumerate() {
            let from = quarter * (DIM / 4);
            let parts = coarse[from..].iter().zip(&low[from..]).zip(high);
            for (restored, ((coarse, low), high)) in values.iter_mut().zip(parts) {
                let fine = i32::from(*low) | (i32::from((high >> (2 * quarter)) & 3) << 8);
                *restored = value(i32::from(*coarse) * FINE_STEPS + fine - FINE_STEPS / 2, step);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template() -> impl Strategy<Value = Embedding> {
        // Some components far larger than the rest, so that small ones meet the ends of their range too.
        let component = prop_oneof![8 => -1.0_f32..1.0, 1 => -20.0_f32..20.0, 1 => Just(0.0)];
        let all = proptest::collection::vec(component, DIM);
        all.prop_filter_map("has a norm", |raw| Embedding::from_slice(&raw).ok())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_row_comes_back_as_the_stored_precision_says_bit_for_bit(template in template()) {
            let mut rows = Rows::default();
            rows.push(&template);
            let expected = at_stored_precision(&template).map(f32::to_bits);
            prop_assert_eq!(rows.restore(0).map(f32::to_bits), expected);
        }

        #[test]
        fn no_component_moves_by_more_than_half_a_step(template in template()) {
            let largest = template.as_slice().iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            // Half a step, and the roundings of the step and of the product.
            for (given, stored) in template.as_slice().iter().zip(at_stored_precision(&template)) {
                prop_assert!((given - stored).abs() <= largest * (1.0 / 261_118.0 + 2.0 * f32::EPSILON), "{} {}", given, stored);
            }
        }
    }

    #[test]
    fn both_ends_of_the_range_fit() {
        for sign in [1.0, -1.0] {
            let mut raw = [0.0; DIM];
            raw[511] = sign;
            let template = Embedding::from_raw(raw).unwrap();
            let mut rows = Rows::default();
            rows.push(&template);
            assert!((rows.restore(0)[511] - sign).abs() < 1e-6);
            assert_eq!(rows.coarse()[0].0[511], if sign > 0.0 { 127 } else { -127 });
        }
    }
}
