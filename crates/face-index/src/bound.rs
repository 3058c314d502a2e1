//! How far a coarse score can be from the oracle's: the proof that the first pass loses nobody.
//!
//! A stored row is `v = σ·h + ρ`: `h` its coarse integers, `σ` their step, `ρ` what they leave out. A probe is
//! `p = τ·c + π` likewise. The kernel computes `N = Σ hᵢcᵢ` in integers, without any error, so for the true product
//!
//! ```text
//! Σ pᵢvᵢ = στN + Σ πᵢ(σh)ᵢ + Σ pᵢρᵢ,   |Σ πᵢ(σh)ᵢ| ≤ |π|·(|v| + |ρ|),   |Σ pᵢρᵢ| ≤ |p|·|ρ|     (Cauchy-Schwarz)
//! ```
//!
//! so it lies within `(|p| + |π|)·|ρ| + |π|·|v|` of `στN`. `|ρ|` is the row's own, measured when it was stored, not
//! the worst that 8 bits allow (that is 1.7 times as much, and lets ten times as many rows through).
//!
//! What f32 adds: the oracle rounds each product and then at most 36 sums that it goes through (32 in its lane, 4 in
//! folding), so it is within 37u/(1 − 37u) · |p||v| < 2.22e-6 of the true product, u = 2⁻²⁴ (Higham, *Accuracy and
//! Stability of Numerical Algorithms*, §3.1). The score and the bound here take 8 roundings of numbers below 1.2,
//! together less than 6e-7. Docking the handicaps of probe and row takes two roundings in the oracle and two here, of
//! numbers below 1.5: less than 4e-7. [`ROUNDING`] covers all.

use face_core::clarity::docked_by;
use face_core::{DIM, Embedding};

/// The oracle's rounding and ours: 2.22e-6 + 6e-7 + 4e-7, and some room.
const ROUNDING: f32 = 4e-6;

/// The norm of a stored row is at most this: 1 ± 1e-4 (`Embedding`), and 9e-5 from storing it in 18 bits.
const NORM_MAX: f32 = 1.000_2;

/// The largest integer of a probe: its high part is then at most 127.
const C_MAX: f32 = 127.0 * 128.0;

/// A probe as integers of 15 bits, `128 · high + low`, and the two numbers that bound the error of its scores.
#[repr(C, align(64))]
pub(crate) struct Probe {
    /// The integers.
    pub(crate) whole: [i16; DIM],
    /// Their high parts, −127..=127.
    pub(crate) high: [i8; DIM],
    /// Their low parts, −64..=64.
    pub(crate) low: [i8; DIM],
    /// The sum of the integers.
    pub(crate) sum: i32,
    /// What one step is worth.
    step: f32,
    /// Error for each unit of a row's residual: |p| + |π|.
    per_residual: f32,
    /// Error whatever the row: |π|·|v| and rounding.
    always: f32,
    /// What a comparison with the probe is docked.
    handicap: f32,
}

impl Probe {
    pub(crate) fn new(probe: &Embedding) -> Self {
        let values = probe.as_slice();
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let step = largest / C_MAX;
        let whole = values.map(|value| (f64::from(value) / f64::from(step)).round() as i16);
        let high = whole.map(|c| ((c + 64) >> 7) as i8);
        let low = std::array::from_fn(|at| (whole[at] - i16::from(high[at]) * 128) as i8);
        let (mut norm, mut residual) = (0.0_f64, 0.0_f64);
        for (value, c) in values.iter().zip(whole) {
            norm += f64::from(*value).powi(2);
            residual += (f64::from(*value) - f64::from(step) * f64::from(c)).powi(2);
        }
        let (norm, residual) = (norm.sqrt(), residual.sqrt());
        Self {
            whole,
            high,
            low,
            sum: whole.iter().map(|c| i32::from(*c)).sum(),
            step,
            per_residual: ((norm + residual) as f32).next_up(),
            always: (residual as f32).next_up() * NORM_MAX + ROUNDING,
            handicap: probe.handicap(),
        }
    }

    /// Between which two scores the oracle's lies, before it is clamped to [−1, 1].
    ///
    /// `product` is the kernel's sum, `step`, `residual` and `handicap` are the row's.
    pub(crate) fn interval(&self, product: i32, step: f32, residual: f32, handicap: f32) -> (f32, f32) {
        let score = product as f32 * (step * self.step) - docked_by(self.handicap, handicap);
        let error = self.per_residual * residual + self.always;
        (score - error, score + error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;
    use crate::rows::{Rows, at_stored_precision};
    use face_core::embedding::dot;
    use proptest::prelude::*;

    fn unit(raw: [f32; DIM]) -> Embedding {
        Embedding::from_raw(raw).expect("has a norm")
    }

    /// The interval of the only row, and the oracle's score.
    fn judged(probe: &Embedding, template: &Embedding) -> ((f32, f32), f32) {
        let mut rows = Rows::default();
        rows.push(template);
        let coded = Probe::new(probe);
        let mut product = [0];
        Kernel::Portable.products(&coded, rows.coarse(), &mut product);
        let interval = coded.interval(product[0], rows.coarse_steps()[0], rows.residuals()[0], rows.handicaps()[0]);
        (
            interval,
            dot(probe.as_slice(), &at_stored_precision(template)) - docked_by(probe.handicap(), template.handicap()),
        )
    }

    fn expect_within(probe: &Embedding, template: &Embedding) {
        let ((low, high), score) = judged(probe, template);
        assert!(low <= score && score <= high, "{score} is outside {low}..={high}");
    }

    /// A template with one large component, which sets the step σ = `largest` / 127.5, and `others` in units of σ.
    fn in_steps(others: impl Fn(usize) -> f32) -> Embedding {
        let scale = 127.0 + 511.0 / 1024.0;
        unit(std::array::from_fn(|at| if at == 0 { scale } else { others(at) }))
    }

    /// A probe that is flat wherever the large component is not: its integers leave nothing out.
    fn flat() -> Embedding {
        unit(std::array::from_fn(|at| if at == 0 { 0.0 } else { 1.0 }))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_oracle_lies_within_the_interval(
            probe in proptest::collection::vec(-1.0_f32..1.0, DIM),
            template in proptest::collection::vec(-1.0_f32..1.0, DIM), handicaps in (-0.1_f32..0.1, -0.1_f32..0.1),
        ) {
            let (probe, template) = (Embedding::from_slice(&probe).unwrap(), Embedding::from_slice(&template).unwrap());
            let (probe, template) = (probe.with_handicap(handicaps.0), template.with_handicap(handicaps.1));
            expect_within(&probe, &template);
            expect_within(&probe, &probe);
        }
    }

    /// Fails when `residual` counts for less than it does: here what is left out points exactly along the probe.
    #[test]
    fn a_row_whose_residual_points_along_the_probe_stays_within() {
        for part in [0.498, -0.498] {
            let template = in_steps(|at| (at % 7) as f32 + part);
            let ((low, high), score) = judged(&flat(), &template);
            assert!(low <= score && score <= high, "{score} is outside {low}..={high}");
            let used = (score - f32::midpoint(low, high)).abs() / ((high - low) / 2.0);
            assert!(used > 0.99, "the case is meant to need the whole bound, it uses {used}");
        }
    }

    /// Fails when the probe's own residual does not count: here it points exactly along a row that leaves nothing out.
    #[test]
    fn a_probe_whose_residual_points_along_the_row_stays_within() {
        for part in [0.49, -0.49] {
            let probe = unit(std::array::from_fn(|at| if at == 0 { C_MAX } else { 40.0 + part }));
            let template = in_steps(|_| 80.0);
            let (_, score) = judged(&probe, &template);
            expect_within(&probe, &template);
            let coded = Probe::new(&probe);
            assert!(coded.always > 4.0 * ROUNDING && score > 0.0, "the residual is meant to matter: {}", coded.always);
        }
    }

    /// Fails when rounding does not count: the residual points along the probe exactly, in every component, so nothing
    /// but rounding is left between the oracle and the end of the interval.
    #[test]
    fn rounding_on_top_of_the_whole_residual_stays_within() {
        let probe = unit([1.0; DIM]);
        for shift in 0..500_u32 {
            let integer = |at: usize| ((at as u32 * 7919 + shift * 104_729) % 100) as f32;
            expect_within(&probe, &in_steps(|at| integer(at) + 511.0 / 1024.0));
        }
    }
}
