//! How much an aligned face has changed beyond what moving a flat picture can explain.
//!
//! In: two aligned grey crops. Out: a share in [0, 1]. Moving, turning, zooming, slightly tilting or relighting a
//! photograph changes its aligned crop only by what landmark noise leaves of a small affine motion and of
//! brightness and contrast. These are fitted by least squares and taken out; what is left is the change of a face
//! that has depth and muscles. Plain correlation without the fit separates worse (figures in [`super::LivenessPolicy`]).

use nalgebra::{SMatrix, SVector};

use crate::sample::GreyCrop;

/// Pixels of the aligned crop per value: landmarks tremble by about one such pixel, so finer detail is noise.
const BLOCK_PX: usize = 4;
/// Rows of the 28 × 28 reduced crop that show the face: from the brows to the chin.
const ROWS: std::ops::Range<usize> = 6..27;
/// Columns that show the face and no background, whose parallax would look like life.
const COLUMNS: std::ops::Range<usize> = 4..24;
const HEIGHT: usize = ROWS.end - ROWS.start;
const WIDTH: usize = COLUMNS.end - COLUMNS.start;
/// Unknowns of the fit: offset, contrast, and six of an affine motion.
const UNKNOWNS: usize = 8;
/// A face with a smaller standard deviation (in luma steps) has nothing to compare: a black or blown-out crop.
const MIN_DEVIATION: f32 = 2.0;

/// The aligned face, averaged over 4 × 4 pixels and blurred once more.
#[derive(Clone, PartialEq)]
pub struct Appearance(Box<[[f32; WIDTH]; HEIGHT]>);

impl std::fmt::Debug for Appearance {
    /// No pixels: even 20 × 21 of them are a face.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Appearance(_)")
    }
}

impl Appearance {
    /// Reduces an aligned crop ([`crate::sample::aligned_grey`]); `None` when it is too small or flat.
    #[must_use]
    pub fn of(aligned: &GreyCrop) -> Option<Self> {
        let reduced = aligned.shrunk(BLOCK_PX)?;
        if reduced.height() <= ROWS.end || reduced.width() <= COLUMNS.end {
            return None;
        }
        let stride = reduced.width();
        let at = |y: usize, x: usize| f32::from(reduced.luma()[y * stride + x]);
        let mut values = Box::new([[0.0; WIDTH]; HEIGHT]);
        for (row, y) in values.iter_mut().zip(ROWS) {
            for (value, x) in row.iter_mut().zip(COLUMNS) {
                let line = |y: usize| (at(y, x - 1) + 2.0 * at(y, x) + at(y, x + 1)) / 4.0;
                *value = (line(y - 1) + 2.0 * line(y) + line(y + 1)) / 4.0;
            }
        }
        let look = Self(values);
        (look.deviation() >= MIN_DEVIATION).then_some(look)
    }

    /// The share of `later`'s variance, in [0, 1], that no small affine motion, brightness or contrast makes of `self`.
    #[must_use]
    pub fn change_to(&self, later: &Self) -> f32 {
        let mut normal = SMatrix::<f64, UNKNOWNS, UNKNOWNS>::zeros();
        let mut right = SVector::<f64, UNKNOWNS>::zeros();
        let (mut sum, mut squares, mut n) = (0.0f64, 0.0f64, 0.0f64);
        self.for_each_equation(later, |terms, value| {
            normal.syger(1.0, terms, terms, 1.0);
            right.axpy(value, terms, 1.0);
            sum += value;
            squares += value * value;
            n += 1.0;
        });
        let variance = squares - sum * sum / n;
        // A little of the diagonal keeps the fit solvable when a term is absent, as the slope of a plain face is.
        let ridge = normal.trace() * 1e-9;
        for index in 0..UNKNOWNS {
            normal[(index, index)] += ridge;
        }
        let Some(fit) = nalgebra::linalg::Cholesky::new(normal).map(|factors| factors.solve(&right)) else {
            return 1.0;
        };
        let mut left_over = 0.0;
        self.for_each_equation(later, |terms, value| left_over += (value - terms.dot(&fit)).powi(2));
        if variance > 0.0 { (left_over / variance).clamp(0.0, 1.0) as f32 } else { 1.0 }
    }

    /// One equation per inner pixel: the later value as a combination of the earlier picture and its slopes.
    fn for_each_equation(&self, later: &Self, mut take: impl FnMut(&SVector<f64, UNKNOWNS>, f64)) {
        for y in 1..HEIGHT - 1 {
            for x in 1..WIDTH - 1 {
                // Slopes of the mean of both pictures make the fit as good one way as the other.
                let mean = |y: usize, x: usize| f64::from(self.0[y][x] + later.0[y][x]) / 2.0;
                let slope_x = (mean(y, x + 1) - mean(y, x - 1)) / 2.0;
                let slope_y = (mean(y + 1, x) - mean(y - 1, x)) / 2.0;
                let across = x as f64 / (WIDTH - 1) as f64 * 2.0 - 1.0;
                let down = y as f64 / (HEIGHT - 1) as f64 * 2.0 - 1.0;
                let terms = SVector::from([
                    1.0,
                    f64::from(self.0[y][x]) / 128.0,
                    slope_x,
                    slope_y,
                    across * slope_x,
                    down * slope_x,
                    across * slope_y,
                    down * slope_y,
                ]);
                take(&terms, f64::from(later.0[y][x]));
            }
        }
    }

    fn deviation(&self) -> f32 {
        let n = (WIDTH * HEIGHT) as f32;
        let mean = self.0.iter().flatten().sum::<f32>() / n;
        (self.0.iter().flatten().map(|value| (value - mean).powi(2)).sum::<f32>() / n).sqrt()
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
        assert!(still.change_to(&still) < 1e-6);
        assert!(still.change_to(&look(1.5, -1.0, 1.02, 0.0)) < 0.003);
        let relit = GreyCrop::new(112, 112, pattern(0.0, 0.0, 1.0, 0.0).luma().iter().map(|v| v / 2 + 30).collect());
        assert!(still.change_to(&Appearance::of(&relit.unwrap()).unwrap()) < 0.003);
    }

    #[test]
    fn an_opened_mouth_is_a_change() {
        let change = look(0.0, 0.0, 1.0, 0.0).change_to(&look(1.0, 0.5, 1.01, 0.6));
        assert!(change > 0.02, "{change}");
    }

    #[test]
    fn a_flat_or_tiny_crop_has_no_appearance() {
        assert!(Appearance::of(&GreyCrop::new(112, 112, vec![80; 112 * 112]).unwrap()).is_none());
        assert!(Appearance::of(&GreyCrop::new(8, 8, (0..64).collect()).unwrap()).is_none());
    }
}
