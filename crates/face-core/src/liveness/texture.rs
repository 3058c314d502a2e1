//! Uniform local binary patterns of the skin: print and screen have another grain than a face.
//!
//! In: an aligned grey crop. Out: the share of patterns that are not uniform (Ojala et al. 2002: more than two changes from
//! dark to bright round a pixel), in [0, 1]. On the twelve presentations of the test data this separates nothing: living
//! faces 0.06 to 0.14, replays 0.04 to 0.08, prints and masks 0.08 to 0.17, noise alone 0.20. It is measured and reported,
//! and no level asks for it.

use super::findings::{Check, CheckState};
use crate::sample::GreyCrop;

/// Neighbours of a pixel, once round.
const AROUND: [(usize, usize); 8] = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)];
/// Rows and columns of the 112 × 112 crop that are skin.
const ROWS: std::ops::Range<usize> = 24..104;
const COLUMNS: std::ops::Range<usize> = 18..94;
/// What all living faces of the test data lie within; only what is far outside would fail.
const LIVING: std::ops::RangeInclusive<f32> = 0.03..=0.25;

/// The share of patterns that are not uniform; `None` for a crop that is too small.
#[must_use]
pub fn not_uniform(aligned: &GreyCrop) -> Option<f32> {
    let (luma, stride) = (aligned.luma(), aligned.width());
    if aligned.width() < COLUMNS.end + 2 || aligned.height() < ROWS.end + 2 {
        return None;
    }
    let (mut n, mut wild) = (0u32, 0u32);
    for y in ROWS {
        for x in COLUMNS {
            let at = |dy: usize, dx: usize| luma[(y + dy) * stride + x + dx];
            let middle = at(1, 1);
            let pattern = AROUND.iter().fold(0u8, |bits, (dy, dx)| bits << 1 | u8::from(at(*dy, *dx) >= middle));
            n += 1;
            wild += u32::from((pattern ^ pattern.rotate_left(1)).count_ones() > 2);
        }
    }
    Some(wild as f32 / n as f32)
}

/// What a mean share over `n` frames amounts to.
pub(super) fn check(shares: impl Iterator<Item = f32>, enough: usize) -> Check {
    let (n, sum) = shares.fold((0usize, 0.0f32), |(n, sum), share| (n + 1, sum + share));
    if n == 0 {
        return Check::UNAVAILABLE;
    }
    let mean = sum / n as f32;
    let state = match LIVING.contains(&mean) {
        _ if n < enough => CheckState::Undecided,
        true => CheckState::Pass,
        false => CheckState::Fail,
    };
    Check::measured(state, mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(luma: impl Fn(usize, usize) -> u8) -> GreyCrop {
        GreyCrop::new(112, 112, (0..112 * 112).map(|index| luma(index % 112, index / 112)).collect()).unwrap()
    }

    #[test]
    fn a_smooth_slope_is_uniform_and_noise_is_not() {
        assert_eq!(not_uniform(&crop(|x, _| x as u8)), Some(0.0));
        let noise = |x: usize, y: usize| (x.wrapping_mul(2_654_435_761).wrapping_add(y * 40_503) >> 7) as u8;
        let share = not_uniform(&crop(noise)).unwrap();
        assert!(share > 0.15, "{share}");
        assert_eq!(not_uniform(&GreyCrop::new(8, 8, vec![0; 64]).unwrap()), None);
    }

    #[test]
    fn a_mean_over_enough_frames_decides() {
        let state = |share: f32, n: usize| check(std::iter::repeat_n(share, n), 10).state;
        assert_eq!(state(0.1, 9), CheckState::Undecided);
        assert_eq!(state(0.1, 10), CheckState::Pass);
        assert_eq!(state(0.5, 10), CheckState::Fail);
        assert_eq!(check(std::iter::empty(), 10), Check::UNAVAILABLE);
    }
}
