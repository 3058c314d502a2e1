//! Depth and infrared, where a camera gives such a plane beside the picture.
//!
//! In: the plane's values within the face's box, and five points in the plane's own pixels. Out: figures for a [`Check`].
//! Pure geometry and light, with the limits of physics and not of measurement: no such camera was at hand, so both are
//! proved on made planes only, and no level asks for them. A door that requires one and has no plane lets nobody in.

use super::findings::{Check, CheckState};
use crate::geometry::{PixelRect, Point};

/// A plane of one value a pixel, rows top-down.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// Width in pixels.
    pub width: usize,
    /// The values; 0 or less, or not finite: not known.
    pub values: &'a [f32],
}

/// Depth values of a face that are known, of all: fewer are no measurement.
const MIN_KNOWN: f32 = 0.6;
/// A grid of so many samples a side.
const GRID: usize = 24;
/// Root mean square distance of a face from the best plane, in millimetres: a nose stands out by 15 to 25 mm and the cheeks
/// fall back, which makes 6 to 12; a bent photograph makes 2 to 4, a sensor's noise at 1 m about 2.
const SOLID_MM: f32 = 5.0;
const FLAT_MM: f32 = 3.0;
/// Mean infrared reflection of skin under the camera's own lamp, of full scale: skin reflects half of 850 nm, a screen
/// is dark.
const BRIGHT: f32 = 0.15;
const DARK: f32 = 0.05;
/// Relative deviation within the face: eyes, nostrils and hair absorb; a print's ink mostly does not.
const VARIED: f32 = 0.12;

/// The relief of a face: root mean square distance in millimetres from the best plane through its depths, in millimetres
/// too; `None` when too few depths are known.
#[must_use]
pub fn relief_mm(depth: &Plane<'_>, face: &PixelRect) -> Option<f32> {
    let known: Vec<(f32, f32, f32)> = samples(depth, face).filter(|(_, _, value)| *value > 0.0).collect();
    if (known.len() as f32) < MIN_KNOWN * (GRID * GRID) as f32 {
        return None;
    }
    let mut normal = nalgebra::Matrix3::<f64>::zeros();
    let mut right = nalgebra::Vector3::<f64>::zeros();
    for (u, v, value) in &known {
        let terms = nalgebra::Vector3::new(f64::from(*u), f64::from(*v), 1.0);
        normal += terms * terms.transpose();
        right += terms * f64::from(*value);
    }
    let plane = nalgebra::linalg::Cholesky::new(normal)?.solve(&right);
    let distance = |(u, v, value): &(f32, f32, f32)| {
        f64::from(*value) - (plane[0] * f64::from(*u) + plane[1] * f64::from(*v) + plane[2])
    };
    let mean = known.iter().map(|sample| distance(sample).powi(2)).sum::<f64>() / known.len() as f64;
    Some(mean.sqrt() as f32)
}

/// Mean infrared reflection of a face, in [0, 1], and its relative deviation; `None` when the face is outside the plane.
#[must_use]
pub fn reflection(infrared: &Plane<'_>, face: &PixelRect) -> Option<(f32, f32)> {
    let values: Vec<f32> = samples(infrared, face).map(|(_, _, value)| value).collect();
    if (values.len() as f32) < MIN_KNOWN * (GRID * GRID) as f32 {
        return None;
    }
    let n = values.len() as f32;
    let mean = values.iter().sum::<f32>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / n;
    Some((mean, variance.sqrt() / mean.max(1e-3)))
}

/// What a relief amounts to.
#[must_use]
pub fn judge_relief(relief_mm: Option<f32>) -> Check {
    let Some(relief) = relief_mm else { return Check::UNAVAILABLE };
    let state = match relief {
        relief if relief >= SOLID_MM => CheckState::Pass,
        relief if relief < FLAT_MM => CheckState::Fail,
        _ => CheckState::Undecided,
    };
    Check::measured(state, relief)
}

/// What a reflection amounts to.
#[must_use]
pub fn judge_reflection(reflection: Option<(f32, f32)>) -> Check {
    let Some((mean, deviation)) = reflection.filter(|(_, deviation)| deviation.is_finite()) else {
        return Check::UNAVAILABLE;
    };
    let state = match mean {
        mean if mean < DARK => CheckState::Fail,
        mean if mean >= BRIGHT && deviation >= VARIED => CheckState::Pass,
        _ => CheckState::Undecided,
    };
    Check::measured(state, mean)
}

/// Finite values on a grid over the inner four fifths of the face, with coordinates from -1 to 1.
fn samples<'a>(plane: &Plane<'a>, face: &PixelRect) -> impl Iterator<Item = (f32, f32, f32)> + 'a {
    let (center, half) = (face.center(), Point::new(face.width() * 0.4, face.height() * 0.4));
    let (width, values) = (plane.width, plane.values);
    (0..GRID * GRID).filter_map(move |index| {
        let along = |step: usize| (step as f32 + 0.5) / GRID as f32 * 2.0 - 1.0;
        let (u, v) = (along(index % GRID), along(index / GRID));
        let (x, y) = (center.x + u * half.x, center.y + v * half.y);
        if x < 0.0 || y < 0.0 || x >= width as f32 {
            return None;
        }
        let value = *values.get(y as usize * width + x as usize)?;
        value.is_finite().then_some((u, v, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 100;

    fn plane(value: impl Fn(f32, f32) -> f32) -> Vec<f32> {
        let along = |step: usize| step as f32 / SIDE as f32 * 2.0 - 1.0;
        (0..SIDE * SIDE).map(|index| value(along(index % SIDE), along(index / SIDE))).collect()
    }

    fn face() -> PixelRect {
        PixelRect::new(10.0, 10.0, 80.0, 80.0).unwrap()
    }

    fn depth(value: impl Fn(f32, f32) -> f32) -> CheckState {
        let values = plane(value);
        judge_relief(relief_mm(&Plane { width: SIDE, values: &values }, &face())).state
    }

    #[test]
    fn a_head_has_relief_and_a_tilted_or_bent_picture_has_none() {
        // Cheeks that fall back 40 mm at the sides, and a nose of 20 mm.
        let head = |u: f32, v: f32| 600.0 + 40.0 * u * u - 20.0 * (-(u * u + v * v) * 30.0).exp();
        assert_eq!(depth(head), CheckState::Pass);
        assert_eq!(depth(|u, v| 600.0 + 90.0 * u - 40.0 * v), CheckState::Fail, "tilted");
        assert_eq!(depth(|u, _| 600.0 + 8.0 * u * u), CheckState::Fail, "bent");
        assert_eq!(depth(|u, v| if u + v > -0.4 { 0.0 } else { head(u, v) }), CheckState::Unavailable, "holes");
    }

    #[test]
    fn skin_reflects_and_a_screen_is_dark() {
        let infrared = |value: &dyn Fn(f32, f32) -> f32| {
            let values = plane(value);
            judge_reflection(reflection(&Plane { width: SIDE, values: &values }, &face())).state
        };
        assert_eq!(infrared(&|u, v| if v.abs() < 0.2 && u.abs() > 0.2 { 0.2 } else { 0.5 }), CheckState::Pass);
        assert_eq!(infrared(&|_, _| 0.01), CheckState::Fail);
        assert_eq!(infrared(&|_, _| 0.5), CheckState::Undecided, "as even as paper");
        assert_eq!(judge_reflection(None), Check::UNAVAILABLE);
    }

    #[test]
    fn a_plane_that_is_too_small_or_not_a_number_measures_nothing() {
        let values = vec![f32::NAN; SIDE * SIDE];
        assert_eq!(relief_mm(&Plane { width: SIDE, values: &values }, &face()), None);
        assert_eq!(reflection(&Plane { width: SIDE, values: &values[..50] }, &face()), None);
    }
}
