//! The known question that every model is asked before it may decide anything, and how its answer is judged.
//!
//! In: a seed and the input's shape. Out: a tensor of noise that is the same on every machine, and a comparison of
//! the outputs with the values in the manifest. It catches what a hash cannot: a broken build of ONNX Runtime, a
//! provider that computes something else, or memory that flips bits. The tolerance is wide enough for the rounding
//! of other processors and GPUs, and narrow enough that another model of the same shape fails.
//!
//! The pixels come from SplitMix64 (Steele, Lea, Flood 2014): pixel `i`, in NCHW order, is the top byte of the
//! `i`-th output for the seed. Integers only, so nothing depends on rounding until the model's own `(x - mean) / scale`.

use crate::manifest::{InputSpec, ModelFile, WarmUpAnswer};

/// The answer of a model to its warm-up question is not the manifest's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("output {output}: {what} is {found}, expected {expected} (tolerance {tolerance})")]
pub struct WrongAnswer {
    /// Name of the output.
    pub output: String,
    /// Which figure differs: `rms` or `sample <i>`.
    pub what: String,
    /// What the model gave.
    pub found: f32,
    /// What the manifest says.
    pub expected: f32,
    /// Largest allowed difference.
    pub tolerance: f32,
}

/// Fills `tensor` (NCHW, as long as the input) with the question for `seed`.
pub fn fill_question(input: &InputSpec, seed: u64, tensor: &mut [f32]) {
    let plane_len = input.width() * input.height();
    let mut state = seed;
    for (plane, values) in tensor.chunks_exact_mut(plane_len).enumerate() {
        let (mean, scale) = (input.mean[plane], input.scale[plane]);
        for value in values {
            *value = (f32::from(next_byte(&mut state)) - mean) / scale;
        }
    }
}

/// One step of SplitMix64; the top byte of its output.
fn next_byte(state: &mut u64) -> u8 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)).to_be_bytes()[0]
}

/// Compares one output of `file` with the manifest's answer for it.
///
/// # Errors
/// [`WrongAnswer`] for the first figure that is too far off. An output that the manifest has no answer for is a
/// wrong answer too.
pub fn check_answer(file: &ModelFile, output: &str, values: &[f32]) -> Result<(), WrongAnswer> {
    let Some(answer) = file.warm_up.answers.iter().find(|answer| answer.output == output) else {
        let nan = f32::NAN;
        return Err(WrongAnswer {
            output: output.to_owned(),
            what: "answer".to_owned(),
            found: nan,
            expected: nan,
            tolerance: 0.0,
        });
    };
    let tolerance = file.warm_up.tolerance * answer.rms;
    let judge = |what: String, found: f32, expected: f32| {
        // Written so that NaN fails.
        if (found - expected).abs() <= tolerance {
            Ok(())
        } else {
            Err(WrongAnswer { output: output.to_owned(), what, found, expected, tolerance })
        }
    };
    judge("rms".to_owned(), root_mean_square(values), answer.rms)?;
    for (index, (found, expected)) in samples(values, answer.samples.len()).zip(&answer.samples).enumerate() {
        judge(format!("sample {index}"), found, *expected)?;
    }
    Ok(())
}

/// Writes down what a model answers, to be put into a manifest by hand after the model has been judged otherwise.
#[must_use]
pub fn describe_answer(output: &str, values: &[f32], n_samples: usize) -> WarmUpAnswer {
    let n_samples = n_samples.min(values.len());
    WarmUpAnswer {
        output: output.to_owned(),
        rms: root_mean_square(values),
        samples: samples(values, n_samples).collect(),
    }
}

fn root_mean_square(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    #[expect(clippy::cast_possible_truncation, reason = "a tolerance is applied to the result")]
    let rms = (sum / values.len().max(1) as f64).sqrt() as f32;
    rms
}

/// `count` values at evenly spaced positions, the first at 0.
fn samples(values: &[f32], count: usize) -> impl Iterator<Item = f32> + '_ {
    (0..count).map(move |index| values[index * values.len() / count])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_the_same_on_every_machine() {
        // The first outputs of SplitMix64 for seed 1234567 are published with its reference code:
        // 6457827717110365317, 3203168211198807973, 9817491932198370423.
        let mut state = 1_234_567;
        let bytes = [next_byte(&mut state), next_byte(&mut state), next_byte(&mut state)];
        let top = |value: u64| value.to_be_bytes()[0];
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(bytes, published.map(top));
    }

    #[test]
    fn samples_start_at_zero_and_are_evenly_spaced() {
        let values: Vec<f32> = (0..10_u8).map(f32::from).collect();
        assert_eq!(samples(&values, 4).collect::<Vec<_>>(), [0.0, 2.0, 5.0, 7.0]);
    }
}
