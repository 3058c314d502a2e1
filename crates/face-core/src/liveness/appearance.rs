//! How much an aligned face has changed beyond what moving a flat picture can explain.
//!
//! In: two aligned grey crops. Out: a share in [0, 1], or nothing when the two cannot be laid over each other. A flat
//! picture that is moved, turned, tilted, zoomed or relit changes its aligned crop by a homography (what is left of the
//! motion after alignment, and what landmarks tremble) and by an even or sloping change of light. Both are fitted and
//! taken out by Gauss-Newton steps; what is left is the change of a face that has depth and muscles. An affine motion and
//! an even light alone leave 0.02 to 0.04 of a photograph tilted by 25°, as much as of a living face (figures in
//! [`super::LivenessPolicy`]).

use nalgebra::{Matrix3, SMatrix, SVector, Vector3};

use crate::sample::GreyCrop;

/// Pixels of the aligned crop per value: landmarks tremble by about one such pixel, so finer detail is noise.
const BLOCK_PX: usize = 4;
/// Side of the reduced crop.
const SIDE: usize = 28;
/// Rows of the reduced crop that show the face, from the brows to the chin, less one at each edge for slopes.
const ROWS: std::ops::Range<usize> = 7..26;
/// Columns that show the face and no background, whose parallax would look like life.
const COLUMNS: std::ops::Range<usize> = 5..23;
/// Centre of both, and half their width: coordinates of the fit run from -1 to 1.
const CENTER: (f32, f32) = (13.5, 16.0);
const HALF: f32 = 9.5;
/// The corners of the rectangle show hair and background: squared radius of what is compared.
const RADIUS_SQUARED: f32 = 1.15;
/// Unknowns of the fit: offset, contrast, two slopes of light, and eight of a homography.
const UNKNOWNS: usize = 12;
const OF_LIGHT: usize = 4;
/// Steps until a photograph is laid over itself: after three, further ones change its residual by less than a tenth.
const STEPS: usize = 3;
/// A homography that moves the face by more than half its width has lost it.
const MAX_MOTION: f32 = 0.5;
/// A face with a smaller standard deviation (in luma steps) has nothing to compare: a black or blown-out crop.
const MIN_DEVIATION: f32 = 2.0;

/// The aligned face, averaged over 4 × 4 pixels and blurred once more.
#[derive(Clone, PartialEq)]
pub struct Appearance(Box<[[f32; SIDE]; SIDE]>);

impl std::fmt::Debug for Appearance {
    /// No pixels: even 28 × 28 of them are a face.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Appearance(_)")
    }
}

/// How one appearance differs from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The share of the variance of the plainer of both that the fit leaves over, in [0, 1].
    pub residual: f32,
    /// How much the fit had to turn, stretch and shear (Frobenius norm); 0.1 for a picture tilted by 25°.
    pub distortion: f32,
}

impl Change {
    /// The residual in units of what a flat picture leaves that was distorted as much and moved by `moved` eye distances
    /// ([`super::FaceShape::moved_since`]): blur, resampling and compression grow with both. About 1 for the 95th percentile
    /// of 52 panned and tilted stills (870 comparisons 0.7 s apart: residuals up to 0.005 panned and 0.018 tilted).
    #[must_use]
    pub fn excess(&self, moved: f32) -> f32 {
        self.residual / (0.0025 + 0.06 * self.distortion + 0.006 * moved.clamp(0.0, 1.0))
    }
}

/// Value and slopes of a picture at one place, slopes per unit of the fit's coordinates.
#[derive(Clone, Copy)]
struct Point {
    value: f32,
    slope_x: f32,
    slope_y: f32,
}

type Terms = SVector<f64, UNKNOWNS>;

impl Appearance {
    /// Reduces an aligned crop ([`crate::sample::aligned_grey`]); `None` when it is too small or flat.
    #[must_use]
    pub fn of(aligned: &GreyCrop) -> Option<Self> {
        let reduced = aligned.shrunk(BLOCK_PX)?;
        if reduced.height() < SIDE || reduced.width() < SIDE {
            return None;
        }
        let (luma, stride) = (reduced.luma(), reduced.width());
        let at = |y: usize, x: usize| f32::from(luma[y.min(SIDE - 1) * stride + x.min(SIDE - 1)]);
        let mut values = Box::new([[0.0; SIDE]; SIDE]);
        for (y, row) in values.iter_mut().enumerate() {
            for (x, value) in row.iter_mut().enumerate() {
                let line = |y: usize| (at(y, x.saturating_sub(1)) + 2.0 * at(y, x) + at(y, x + 1)) / 4.0;
                *value = (line(y.saturating_sub(1)) + 2.0 * line(y) + line(y + 1)) / 4.0;
            }
        }
        let look = Self(values);
        (look.variance().sqrt() >= MIN_DEVIATION).then_some(look)
    }

    /// What no homography and no change of light makes of `self`; `None` when `later` cannot be laid over it.
    #[must_use]
    pub fn change_to(&self, later: &Self) -> Option<Change> {
        let mut motion = Matrix3::identity();
        for _ in 0..STEPS {
            let step = self.fit(later, &motion)?.0;
            let q = |index: usize| step[OF_LIGHT + index] as f32;
            let by = Matrix3::new(1.0 + q(2), q(3), q(0), q(4), 1.0 + q(5), q(1), q(6), q(7), 1.0);
            motion *= by;
            motion /= motion[(2, 2)];
            // What is no number has lost the face too.
            let found = (motion - Matrix3::identity()).amax() <= MAX_MOTION;
            if !found {
                return None;
            }
        }
        let (_, left_over) = self.fit(later, &motion)?;
        let variance = self.variance().min(later.variance()).max(MIN_DEVIATION * MIN_DEVIATION);
        let flat = motion - Matrix3::identity();
        let distortion = flat.fixed_view::<2, 2>(0, 0).norm();
        Some(Change { residual: (left_over / variance).clamp(0.0, 1.0), distortion })
    }

    /// One least-squares fit of `later`, moved by `motion`, to this picture: the unknowns and the mean squared residual.
    fn fit(&self, later: &Self, motion: &Matrix3<f32>) -> Option<(Terms, f32)> {
        let mut normal = SMatrix::<f64, UNKNOWNS, UNKNOWNS>::zeros();
        let mut right = Terms::zeros();
        let (mut squares, mut n) = (0.0f64, 0.0f64);
        for (terms, value) in self.equations(later, motion) {
            normal.syger(1.0, &terms, &terms, 1.0);
            right.axpy(value, &terms, 1.0);
            squares += value * value;
            n += 1.0;
        }
        // A little of the diagonal keeps the fit solvable when a term is absent, as the slope of a plain face is.
        for index in 0..UNKNOWNS {
            normal[(index, index)] = normal[(index, index)] * (1.0 + 1e-8) + 1e-9;
        }
        let solution = nalgebra::linalg::Cholesky::new(normal)?.solve(&right);
        // The residual of a least-squares fit follows from its right side.
        let left_over = (squares - solution.dot(&right)).max(0.0) / n;
        Some((solution, left_over as f32))
    }

    /// One equation a compared pixel: the later value as a combination of light and motion of the earlier picture.
    fn equations<'a>(&'a self, later: &'a Self, motion: &'a Matrix3<f32>) -> impl Iterator<Item = (Terms, f64)> + 'a {
        ROWS.flat_map(|y| COLUMNS.map(move |x| (x, y))).filter_map(move |(x, y)| {
            let (u, v) = ((x as f32 - CENTER.0) / HALF, (y as f32 - CENTER.1) / HALF);
            if u * u + (v / 1.05).powi(2) >= RADIUS_SQUARED {
                return None;
            }
            let to = motion * Vector3::new(u, v, 1.0);
            let (earlier, moved) = (self.point(x as f32, y as f32), {
                later.point(to.x / to.z * HALF + CENTER.0, to.y / to.z * HALF + CENTER.1)
            });
            // Slopes of the mean of both pictures make the fit as good one way as the other.
            let (gx, gy) = ((earlier.slope_x + moved.slope_x) / 2.0, (earlier.slope_y + moved.slope_y) / 2.0);
            let turn = u * gx + v * gy;
            let terms =
                [1.0, earlier.value / 128.0, u, v, -gx, -gy, -u * gx, -v * gx, -u * gy, -v * gy, u * turn, v * turn];
            Some((Terms::from(terms.map(f64::from)), f64::from(moved.value)))
        })
    }

    /// The picture at a place between its values; what lies outside repeats the edge.
    fn point(&self, x: f32, y: f32) -> Point {
        let half_slope = HALF / 2.0;
        Point {
            value: self.value(x, y),
            slope_x: (self.value(x + 1.0, y) - self.value(x - 1.0, y)) * half_slope,
            slope_y: (self.value(x, y + 1.0) - self.value(x, y - 1.0)) * half_slope,
        }
    }

    fn value(&self, x: f32, y: f32) -> f32 {
        let last = (SIDE - 1) as f32;
        // `max` first: of a value that is no number it makes the other one.
        let (x, y) = (x.max(0.0).min(last), y.max(0.0).min(last));
        let (left, top) = ((x as usize).min(SIDE - 2), (y as usize).min(SIDE - 2));
        let (fx, fy) = (x - left as f32, y - top as f32);
        let line = |row: &[f32; SIDE]| row[left] + (row[left + 1] - row[left]) * fx;
        let (upper, lower) = (line(&self.0[top]), line(&self.0[top + 1]));
        upper + (lower - upper) * fy
    }

    fn variance(&self) -> f32 {
        let values = ROWS.flat_map(|y| COLUMNS.map(move |x| self.0[y][x]));
        let (n, sum, squares) =
            values.fold((0.0f32, 0.0, 0.0), |(n, sum, squares), value| (n + 1.0, sum + value, squares + value * value));
        (squares / n - (sum / n).powi(2)).max(0.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A face-like pattern, moved by (`dx`, `dy`) pixels, zoomed, and with its lower part opened by `mouth` (0 to 1).
    pub(crate) fn pattern(dx: f32, dy: f32, zoom: f32, mouth: f32) -> GreyCrop {
        let blob =
            |x: f32, y: f32, cx: f32, cy: f32, r: f32| (-((x - cx).powi(2) + (y - cy).powi(2)) / (2.0 * r * r)).exp();
        let luma = (0..112 * 112).map(|index| {
            let (px, py) = ((index % 112) as f32, (index / 112) as f32);
            let (x, y) = ((px - 56.0) / zoom + 56.0 - dx, (py - 56.0) / zoom + 56.0 - dy);
            let eyes = blob(x, y, 38.0, 52.0, 7.0) + blob(x, y, 74.0, 52.0, 7.0);
            let lips = blob(x, y, 56.0, 92.0, 6.0 + 6.0 * mouth) * (0.6 + mouth) + 0.5 * blob(x, y, 56.0, 72.0, 6.0);
            (190.0 - 0.4 * px - 90.0 * eyes - 70.0 * lips).clamp(0.0, 255.0) as u8
        });
        GreyCrop::new(112, 112, luma.collect()).unwrap()
    }

    fn look(dx: f32, dy: f32, zoom: f32, mouth: f32) -> Appearance {
        Appearance::of(&pattern(dx, dy, zoom, mouth)).unwrap()
    }

    #[test]
    fn a_moved_zoomed_and_relit_picture_has_hardly_changed() {
        let still = look(0.0, 0.0, 1.0, 0.0);
        assert!(still.change_to(&still).unwrap().residual < 1e-4);
        assert!(still.change_to(&look(1.5, -1.0, 1.02, 0.0)).unwrap().residual < 0.003);
        let relit = GreyCrop::new(112, 112, pattern(0.0, 0.0, 1.0, 0.0).luma().iter().map(|v| v / 2 + 30).collect());
        assert!(still.change_to(&Appearance::of(&relit.unwrap()).unwrap()).unwrap().residual < 0.003);
    }

    #[test]
    fn a_tilted_picture_lit_from_the_side_has_hardly_changed() {
        // A homography that foreshortens the right half by 8 %, and light that falls off across the face.
        let still = pattern(0.0, 0.0, 1.0, 0.0);
        let tilted = (0..112 * 112).map(|index| {
            let (px, py) = ((index % 112) as f32, (index / 112) as f32);
            let depth = 1.0 + 0.0008 * (px - 56.0);
            let (x, y) = ((px - 56.0) / depth + 56.0, (py - 56.0) / depth + 56.0);
            let at = |x: f32, y: f32| {
                f32::from(still.luma()[(y.clamp(0.0, 111.0) as usize) * 112 + x.clamp(0.0, 111.0) as usize])
            };
            (at(x, y) * 0.9 + px * 0.15).clamp(0.0, 255.0) as u8
        });
        let tilted = Appearance::of(&GreyCrop::new(112, 112, tilted.collect()).unwrap()).unwrap();
        let change = look(0.0, 0.0, 1.0, 0.0).change_to(&tilted).unwrap().residual;
        assert!(change < 0.004, "{change}");
    }

    #[test]
    fn an_opened_mouth_is_a_change() {
        let change = look(0.0, 0.0, 1.0, 0.0).change_to(&look(1.0, 0.5, 1.01, 0.6)).unwrap().residual;
        assert!(change > 0.02, "{change}");
    }

    #[test]
    fn slopes_are_those_of_the_picture_a_unit_of_the_fit_apart() {
        let mut values = Box::new([[0.0; SIDE]; SIDE]);
        for (y, row) in values.iter_mut().enumerate() {
            for (x, value) in row.iter_mut().enumerate() {
                *value = 3.0 * x as f32 - 5.0 * y as f32;
            }
        }
        let Point { value, slope_x, slope_y } = Appearance(values).point(10.0, 12.5);
        assert!((value - (30.0 - 62.5)).abs() < 1e-4 && (slope_x - 3.0 * HALF).abs() < 1e-3, "{value} {slope_x}");
        assert!((slope_y + 5.0 * HALF).abs() < 1e-3, "{slope_y}");
    }

    #[test]
    fn smoothing_leaves_an_even_slope_as_it_is() {
        let slope = |right: usize, down: usize| {
            let luma = (0..112 * 112).map(|index| (index % 112 * right + index / 112 * down) as u8);
            Appearance::of(&GreyCrop::new(112, 112, luma.collect()).unwrap()).unwrap()
        };
        // The mean of a block of four is a pixel and a half behind its first, and a whole number above it.
        for (look, right, down) in [(slope(2, 0), 8.0, 0.0), (slope(0, 2), 0.0, 8.0), (slope(1, 1), 4.0, 4.0)] {
            let wanted = |x: f32, y: f32| 3.0 + right * x + down * y;
            for (x, y) in [(1.0, 1.0), (10.0, 4.0), (20.0, 26.0)] {
                assert!((look.value(x, y) - wanted(x, y)).abs() <= 1.0, "{x} {y}: {}", look.value(x, y));
            }
        }
    }

    #[test]
    fn a_flat_or_tiny_crop_has_no_appearance() {
        assert!(Appearance::of(&GreyCrop::new(112, 112, vec![80; 112 * 112]).unwrap()).is_none());
        assert!(Appearance::of(&GreyCrop::new(8, 8, (0..64).collect()).unwrap()).is_none());
    }
}
