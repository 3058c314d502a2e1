//! Points, rectangles and the one transform that face work needs, all in pixels of the picture they were found in.
//!
//! Convention: the centre of the top-left pixel is at (0, 0) for points (as landmark models and OpenCV have it),
//! rectangles are half-open spans `[x, x + width)`. Deliberately absent: rotation of rectangles, reflection.

/// A position in a picture: x to the right, y down, in pixels; may lie outside the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Pixels to the right of the left edge.
    pub x: f32,
    /// Pixels below the top edge.
    pub y: f32,
}

impl Point {
    /// The point at (`x`, `y`).
    #[must_use]
    pub const fn new(x: f32, y: f32) -> Self {
        Self { x, y }
    }

    /// Euclidean distance in pixels.
    #[must_use]
    pub fn distance(self, other: Self) -> f32 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    /// The centre of several points; the origin for none.
    #[must_use]
    pub fn mean(points: &[Self]) -> Self {
        if points.is_empty() {
            return Self::default();
        }
        let n = points.len() as f32;
        let x = points.iter().map(|p| p.x).sum::<f32>() / n;
        let y = points.iter().map(|p| p.y).sum::<f32>() / n;
        Self { x, y }
    }

    /// Whether both coordinates are finite.
    #[must_use]
    pub fn is_finite(self) -> bool {
        self.x.is_finite() && self.y.is_finite()
    }
}

/// Why numbers are not a rectangle.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("rectangle at ({x}, {y}) of {width}x{height}: all four must be finite and the sides above zero")]
pub struct RectError {
    /// Left edge as given.
    pub x: f32,
    /// Top edge as given.
    pub y: f32,
    /// Width as given.
    pub width: f32,
    /// Height as given.
    pub height: f32,
}

/// A rectangle in pixels of its picture; it may protrude beyond the picture.
///
/// Invariant: finite, both sides above zero, so that areas and ratios never divide by zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelRect {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

impl PixelRect {
    /// The rectangle with the given top-left corner and size.
    ///
    /// # Errors
    /// When a number is not finite or a side is not above zero.
    pub fn new(x: f32, y: f32, width: f32, height: f32) -> Result<Self, RectError> {
        let finite = x.is_finite() && y.is_finite() && (x + width).is_finite() && (y + height).is_finite();
        let area = width * height;
        // An area that underflows to zero or overflows would break IoU just as a zero side does.
        if finite && width > 0.0 && height > 0.0 && area.is_normal() {
            Ok(Self { x, y, width, height })
        } else {
            Err(RectError { x, y, width, height })
        }
    }

    /// The rectangle between two corners.
    ///
    /// # Errors
    /// As [`PixelRect::new`]; also when the corners are swapped.
    pub fn from_corners(left: f32, top: f32, right: f32, bottom: f32) -> Result<Self, RectError> {
        Self::new(left, top, right - left, bottom - top)
    }

    /// Left edge.
    #[must_use]
    pub fn x(&self) -> f32 {
        self.x
    }

    /// Top edge.
    #[must_use]
    pub fn y(&self) -> f32 {
        self.y
    }

    /// Width, above zero.
    #[must_use]
    pub fn width(&self) -> f32 {
        self.width
    }

    /// Height, above zero.
    #[must_use]
    pub fn height(&self) -> f32 {
        self.height
    }

    /// Right edge (exclusive).
    #[must_use]
    pub fn right(&self) -> f32 {
        self.x + self.width
    }

    /// Bottom edge (exclusive).
    #[must_use]
    pub fn bottom(&self) -> f32 {
        self.y + self.height
    }

    /// The middle.
    #[must_use]
    pub fn center(&self) -> Point {
        Point::new(self.x + self.width / 2.0, self.y + self.height / 2.0)
    }

    /// Square pixels, above zero.
    #[must_use]
    pub fn area(&self) -> f32 {
        self.width * self.height
    }

    /// Intersection over union, in [0, 1] and symmetric; 0 for rectangles that do not meet.
    #[must_use]
    pub fn iou(&self, other: &Self) -> f32 {
        let width = self.right().min(other.right()) - self.x.max(other.x);
        let height = self.bottom().min(other.bottom()) - self.y.max(other.y);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        // Rounding can make the overlap of equal rectangles exceed their area by one ulp.
        let overlap = (width * height).min(self.area()).min(other.area());
        (overlap / (self.area() + other.area() - overlap)).clamp(0.0, 1.0)
    }

    /// The same centre with both sides multiplied by `factor` (finite, above zero).
    #[must_use]
    pub fn scaled(&self, factor: f32) -> Self {
        let center = self.center();
        let (width, height) = (self.width * factor, self.height * factor);
        Self { x: center.x - width / 2.0, y: center.y - height / 2.0, width, height }
    }

    /// The part inside a picture of the given size; `None` when nothing of it is inside.
    #[must_use]
    pub fn clamped_to(&self, width: u32, height: u32) -> Option<Self> {
        Self::from_corners(
            self.x.max(0.0),
            self.y.max(0.0),
            self.right().min(width as f32),
            self.bottom().min(height as f32),
        )
        .ok()
    }

    /// The share of this rectangle, in [0, 1], that lies inside a picture of the given size.
    #[must_use]
    pub fn share_inside(&self, width: u32, height: u32) -> f32 {
        self.clamped_to(width, height).map_or(0.0, |inside| (inside.area() / self.area()).min(1.0))
    }
}

/// Rotation, uniform scale and translation: `x' = a·x − b·y + tx`, `y' = b·x + a·y + ty`. Never a reflection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity2d {
    /// Scale times cosine of the angle.
    pub a: f32,
    /// Scale times sine of the angle (clockwise on the screen, as y points down).
    pub b: f32,
    /// Shift to the right, in pixels of the target.
    pub tx: f32,
    /// Shift down, in pixels of the target.
    pub ty: f32,
}

impl Similarity2d {
    /// The transform that moves nothing.
    pub const IDENTITY: Self = Self { a: 1.0, b: 0.0, tx: 0.0, ty: 0.0 };

    /// Builds the transform from its scale (above zero), angle in radians and shift in pixels.
    #[must_use]
    pub fn from_parts(scale: f32, angle_rad: f32, tx: f32, ty: f32) -> Self {
        Self { a: scale * angle_rad.cos(), b: scale * angle_rad.sin(), tx, ty }
    }

    /// Where `point` goes.
    #[must_use]
    pub fn apply(&self, point: Point) -> Point {
        Point::new(self.a * point.x - self.b * point.y + self.tx, self.b * point.x + self.a * point.y + self.ty)
    }

    /// Target pixels per source pixel.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.a.hypot(self.b)
    }

    /// The angle in radians, in (−π, π].
    #[must_use]
    pub fn angle_rad(&self) -> f32 {
        self.b.atan2(self.a)
    }

    /// The transform back; `None` when the scale is zero or not finite.
    #[must_use]
    pub fn inverse(&self) -> Option<Self> {
        let square = self.a * self.a + self.b * self.b;
        if !square.is_normal() {
            return None;
        }
        let (a, b) = (self.a / square, -self.b / square);
        Some(Self { a, b, tx: -(a * self.tx - b * self.ty), ty: -(b * self.tx + a * self.ty) })
    }

    /// The transform that applies `self` first and `next` after it.
    #[must_use]
    pub fn then(&self, next: &Self) -> Self {
        let moved = next.apply(Point::new(self.tx, self.ty));
        Self { a: next.a * self.a - next.b * self.b, b: next.b * self.a + next.a * self.b, tx: moved.x, ty: moved.y }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rects() -> impl Strategy<Value = PixelRect> {
        (-500.0f32..500.0, -500.0f32..500.0, 0.01f32..400.0, 0.01f32..400.0)
            .prop_map(|(x, y, w, h)| PixelRect::new(x, y, w, h).unwrap())
    }

    #[test]
    fn a_scaled_rectangle_keeps_its_centre() {
        let rect = PixelRect::new(10.0, 40.0, 20.0, 8.0).unwrap();
        assert_eq!(rect.scaled(1.5), PixelRect::new(5.0, 38.0, 30.0, 12.0).unwrap());
        assert_eq!(rect.scaled(0.5), PixelRect::new(15.0, 42.0, 10.0, 4.0).unwrap());
    }

    proptest! {
        #[test]
        fn iou_is_symmetric_and_within_zero_and_one(first in rects(), second in rects()) {
            let iou = first.iou(&second);
            prop_assert!((0.0..=1.0).contains(&iou));
            prop_assert_eq!(iou, second.iou(&first));
        }

        #[test]
        fn iou_with_itself_is_one(rect in rects()) {
            // A narrow rectangle far from the origin loses digits of its own width when its right edge is formed.
            prop_assert!((rect.iou(&rect) - 1.0).abs() < 0.02);
        }

        #[test]
        fn a_similarity_and_its_inverse_cancel(
            scale in 0.05f32..20.0, angle in -3.1f32..3.1, tx in -300.0f32..300.0, ty in -300.0f32..300.0,
            x in -300.0f32..300.0, y in -300.0f32..300.0,
        ) {
            let there = Similarity2d::from_parts(scale, angle, tx, ty);
            let back = there.inverse().unwrap();
            let point = Point::new(x, y);
            let round = there.then(&back).apply(point);
            prop_assert!(round.distance(point) < 0.05, "{round:?} is not {point:?}");
            prop_assert!(back.apply(there.apply(point)).distance(point) < 0.05);
        }
    }

    #[test]
    fn rectangles_without_area_cannot_be_made() {
        for (x, y, w, h) in [
            (0.0, 0.0, 0.0, 1.0),
            (0.0, 0.0, 1.0, -1.0),
            (f32::NAN, 0.0, 1.0, 1.0),
            (0.0, 0.0, f32::INFINITY, 1.0),
            (f32::MAX, 0.0, f32::MAX, 1.0),
            (0.0, 0.0, 1e-30, 1e-30),
        ] {
            assert!(PixelRect::new(x, y, w, h).is_err());
        }
    }

    #[test]
    fn half_overlapping_squares_have_an_iou_of_one_third() {
        let first = PixelRect::new(0.0, 0.0, 2.0, 2.0).unwrap();
        let second = PixelRect::new(1.0, 0.0, 2.0, 2.0).unwrap();
        assert!((first.iou(&second) - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn the_share_inside_counts_only_the_picture() {
        let rect = PixelRect::new(-5.0, 0.0, 10.0, 10.0).unwrap();
        assert!((rect.share_inside(100, 100) - 0.5).abs() < 1e-6);
        assert_eq!(rect.clamped_to(100, 100).unwrap().x(), 0.0);
        assert!(PixelRect::new(200.0, 0.0, 10.0, 10.0).unwrap().clamped_to(100, 100).is_none());
    }
}
