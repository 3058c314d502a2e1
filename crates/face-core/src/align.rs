//! Where a face goes in the embedder's crop: the least-squares similarity from five points to the ArcFace template.
//!
//! In: [`FivePoints`]. Out: [`Alignment`], both directions of the transform. Deliberately absent: pixels
//! (see [`crate::sample`]) and affine or 3-point fits, which cost 7 points of accuracy with this embedder.

use crate::geometry::{Point, Similarity2d};
use crate::landmarks::FivePoints;

/// Width and height of the embedder's crop in pixels.
pub const ALIGNED_SIDE_PX: u32 = 112;

/// Where the five points of a frontal face lie in the 112 × 112 crop (ArcFace, arXiv:1801.07698; insightface's values).
pub const ARCFACE_TEMPLATE: [Point; 5] = [
    Point::new(38.2946, 51.6963),
    Point::new(73.5318, 51.5014),
    Point::new(56.0252, 71.7366),
    Point::new(41.5493, 92.3655),
    Point::new(70.7299, 92.2041),
];

/// Where the detector's box lies in the aligned crop, in its pixels: left, top, right, bottom. The landmark model learned
/// from such boxes, so this is what it should see of a face that has been turned upright and brought to one size.
///
/// The median over the 2,545 faces of `lfw-dev`, `orl-dev` and `deepface`; by themselves they give (14, 4, 97, 124),
/// (15, 7, 97, 121) and (15, 6, 95, 119).
pub const FACE_IN_CROP: [f32; 4] = [14.0, 5.0, 97.0, 124.0];

/// Why points determine no similarity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlignError {
    /// The two lists differ in length or have fewer than two points.
    #[error("similarity fit needs two lists of equal length, two points at least, got {from} and {to}")]
    Counts {
        /// Points of the first list.
        from: usize,
        /// Points of the second list.
        to: usize,
    },
    /// All points coincide or one is not finite: there is no scale.
    #[error("facial points coincide or are not finite, no alignment exists")]
    Degenerate,
}

/// The transform between a picture and its aligned crop, both ways.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alignment {
    /// Picture to crop.
    pub to_crop: Similarity2d,
    /// Crop to picture: what a warp needs for each of its target pixels.
    pub to_picture: Similarity2d,
    /// Root mean square distance in crop pixels between the moved points and the template.
    pub residual_px: f32,
}

impl Alignment {
    /// Fits the five points to the template.
    ///
    /// # Errors
    /// When the points coincide or are not finite.
    pub fn fit(points: &FivePoints) -> Result<Self, AlignError> {
        let to_crop = least_squares_similarity(&points.0, &ARCFACE_TEMPLATE)?;
        let to_picture = to_crop.inverse().ok_or(AlignError::Degenerate)?;
        let squares: f32 =
            points.0.iter().zip(&ARCFACE_TEMPLATE).map(|(p, t)| to_crop.apply(*p).distance(*t).powi(2)).sum();
        Ok(Self { to_crop, to_picture, residual_px: (squares / 5.0).sqrt() })
    }
}

/// The similarity without reflection that moves `from` nearest to `to` in the least-squares sense.
///
/// In the plane Umeyama's solution (1991) has a closed form: with both centred and read as complex numbers,
/// rotation and scale are `Σ conj(from)·to / Σ |from|²`. Sums run in f64.
///
/// # Errors
/// When the lists do not match or determine no transform.
pub fn least_squares_similarity(from: &[Point], to: &[Point]) -> Result<Similarity2d, AlignError> {
    if from.len() != to.len() || from.len() < 2 {
        return Err(AlignError::Counts { from: from.len(), to: to.len() });
    }
    let (from_x, from_y) = center(from);
    let (to_x, to_y) = center(to);
    let (mut real, mut imaginary, mut spread) = (0.0f64, 0.0f64, 0.0f64);
    for (source, target) in from.iter().zip(to) {
        let (x, y) = (f64::from(source.x) - from_x, f64::from(source.y) - from_y);
        let (u, v) = (f64::from(target.x) - to_x, f64::from(target.y) - to_y);
        real += x * u + y * v;
        imaginary += x * v - y * u;
        spread += x * x + y * y;
    }
    let (a, b) = (real / spread, imaginary / spread);
    let fit = Similarity2d {
        a: a as f32,
        b: b as f32,
        tx: (to_x - a * from_x + b * from_y) as f32,
        ty: (to_y - b * from_x - a * from_y) as f32,
    };
    // A spread of zero gives NaN; a scale of zero has no inverse, so it is no alignment either.
    if fit.tx.is_finite() && fit.ty.is_finite() && fit.inverse().is_some() {
        Ok(fit)
    } else {
        Err(AlignError::Degenerate)
    }
}

fn center(points: &[Point]) -> (f64, f64) {
    let n = points.len() as f64;
    let x = points.iter().map(|p| f64::from(p.x)).sum::<f64>() / n;
    let y = points.iter().map(|p| f64::from(p.y)).sum::<f64>() / n;
    (x, y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_synthetic_similarity_is_recovered_exactly(
            scale in 0.1f32..8.0, angle in -3.1f32..3.1, tx in -500.0f32..500.0, ty in -500.0f32..500.0,
        ) {
            let truth = Similarity2d::from_parts(scale, angle, tx, ty);
            let moved: Vec<Point> = ARCFACE_TEMPLATE.iter().map(|p| truth.apply(*p)).collect();
            let fit = Alignment::fit(&FivePoints(moved.clone().try_into().unwrap())).unwrap();
            prop_assert!(fit.residual_px < 1e-2, "residual {}", fit.residual_px);
            for (template, picture) in ARCFACE_TEMPLATE.iter().zip(&moved) {
                prop_assert!(fit.to_crop.apply(*picture).distance(*template) < 1e-2);
                prop_assert!(fit.to_picture.apply(*template).distance(*picture) < 1e-2 * scale.max(1.0));
            }
        }

        #[test]
        fn no_nearby_similarity_fits_noisy_points_better(
            noise in proptest::collection::vec(-6.0f32..6.0, 10),
            nudge in proptest::array::uniform4(-0.02f32..0.02),
        ) {
            let mut points = ARCFACE_TEMPLATE;
            for (point, pair) in points.iter_mut().zip(noise.chunks(2)) {
                point.x += pair[0];
                point.y += pair[1];
            }
            let cost = |s: &Similarity2d| -> f64 {
                points.iter().zip(&ARCFACE_TEMPLATE).map(|(p, t)| f64::from(s.apply(*p).distance(*t)).powi(2)).sum()
            };
            let fit = least_squares_similarity(&points, &ARCFACE_TEMPLATE).unwrap();
            let other = Similarity2d {
                a: fit.a + nudge[0], b: fit.b + nudge[1], tx: fit.tx + nudge[2], ty: fit.ty + nudge[3],
            };
            prop_assert!(cost(&fit) <= cost(&other) + 1e-3);
        }
    }

    #[test]
    fn a_mirrored_face_is_never_fitted_by_a_reflection() {
        let mirrored = ARCFACE_TEMPLATE.map(|p| Point::new(-p.x, p.y));
        let fit = Alignment::fit(&FivePoints(mirrored)).unwrap();
        assert!(fit.residual_px > 5.0, "a reflection would fit exactly, the residual is {}", fit.residual_px);
    }

    #[test]
    fn coinciding_or_broken_points_have_no_alignment() {
        assert_eq!(Alignment::fit(&FivePoints([Point::new(3.0, 3.0); 5])), Err(AlignError::Degenerate));
        let mut points = ARCFACE_TEMPLATE;
        points[1].x = f32::NAN;
        assert_eq!(Alignment::fit(&FivePoints(points)), Err(AlignError::Degenerate));
        assert_eq!(least_squares_similarity(&points[..1], &points[..1]), Err(AlignError::Counts { from: 1, to: 1 }));
    }
}
