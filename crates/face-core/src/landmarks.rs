//! Sixty-eight landmarks (iBUG order) and what follows from them: five points for alignment, eyes for blinks.
//!
//! In: the landmark model's output and the box it was cropped from. Out: points in pixels of the picture.
//! "Left" and "right" are as seen in the picture, not as the person has them.

use crate::geometry::{PixelRect, Point};

/// Number of landmarks.
pub const LANDMARKS: usize = 68;

/// Why the landmark model's output is not a set of landmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LandmarkError {
    /// Not 136 numbers.
    #[error("landmark output has {found} numbers, 136 are expected")]
    Length {
        /// Numbers found.
        found: usize,
    },
    /// NaN or infinity.
    #[error("landmark {index} is not finite")]
    NotFinite {
        /// Which landmark.
        index: usize,
    },
}

/// Sixty-eight finite points in pixels of the picture, in iBUG order.
#[derive(Clone, Debug, PartialEq)]
pub struct Landmarks68([Point; LANDMARKS]);

impl Landmarks68 {
    /// Takes the points as they are.
    ///
    /// # Errors
    /// When one is not finite.
    pub fn new(points: [Point; LANDMARKS]) -> Result<Self, LandmarkError> {
        match points.iter().position(|point| !point.is_finite()) {
            Some(index) => Err(LandmarkError::NotFinite { index }),
            None => Ok(Self(points)),
        }
    }

    /// Decodes `x0, y0, x1, y1, …` relative to the box that the model saw (0 to 1 inside it).
    ///
    /// # Errors
    /// When there are not 136 numbers or one is not finite.
    pub fn from_relative(output: &[f32], face: &PixelRect) -> Result<Self, LandmarkError> {
        if output.len() != LANDMARKS * 2 {
            return Err(LandmarkError::Length { found: output.len() });
        }
        let mut points = [Point::default(); LANDMARKS];
        for (point, pair) in points.iter_mut().zip(output.chunks_exact(2)) {
            *point = Point::new(face.x() + pair[0] * face.width(), face.y() + pair[1] * face.height());
        }
        Self::new(points)
    }

    /// All points.
    #[must_use]
    pub fn points(&self) -> &[Point; LANDMARKS] {
        &self.0
    }

    /// The five points that alignment uses: means of the eyes' lid points, nose tip, means of the mouth's corners.
    ///
    /// Four lid points and both corner points are averaged because single landmarks tremble.
    #[must_use]
    pub fn five_points(&self) -> FivePoints {
        let mean = |indices: &[usize]| Point::mean(&indices.iter().map(|i| self.0[*i]).collect::<Vec<_>>());
        FivePoints([mean(&[37, 38, 40, 41]), mean(&[43, 44, 46, 47]), self.0[30], mean(&[48, 60]), mean(&[54, 64])])
    }

    /// The six points round the eye nearer the left edge of the picture.
    #[must_use]
    pub fn left_eye(&self) -> Eye {
        Eye::new(&self.0, 36)
    }

    /// The six points round the eye nearer the right edge of the picture.
    #[must_use]
    pub fn right_eye(&self) -> Eye {
        Eye::new(&self.0, 42)
    }

    /// Mean of the eye aspect ratios of both eyes; see [`Eye::aspect_ratio`].
    #[must_use]
    pub fn eye_aspect_ratio(&self) -> f32 {
        (self.left_eye().aspect_ratio() + self.right_eye().aspect_ratio()) / 2.0
    }
}

/// The outline of one eye: corner, two upper lid points, corner, two lower lid points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eye([Point; 6]);

impl Eye {
    fn new(points: &[Point; LANDMARKS], first: usize) -> Self {
        let mut eye = [Point::default(); 6];
        eye.copy_from_slice(&points[first..first + 6]);
        Self(eye)
    }

    /// The outline.
    #[must_use]
    pub fn points(&self) -> &[Point; 6] {
        &self.0
    }

    /// Middle of the outline.
    #[must_use]
    pub fn center(&self) -> Point {
        Point::mean(&self.0)
    }

    /// Distance between the corners, in pixels.
    #[must_use]
    pub fn width_px(&self) -> f32 {
        self.0[0].distance(self.0[3])
    }

    /// Lid distance over eye width (Soukupová and Čech 2016): about 0.3 open, below 0.2 closed; 0 when the corners meet.
    ///
    /// Compare it with its own running median: the open value differs between people.
    #[must_use]
    pub fn aspect_ratio(&self) -> f32 {
        let lids = self.0[1].distance(self.0[5]) + self.0[2].distance(self.0[4]);
        let width = self.width_px();
        if width > f32::EPSILON { lids / (2.0 * width) } else { 0.0 }
    }
}

/// Left eye, right eye, nose tip, left and right mouth corner, in pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FivePoints(pub [Point; 5]);

impl FivePoints {
    /// Distance between the eyes, in pixels.
    #[must_use]
    pub fn eye_distance_px(&self) -> f32 {
        self.0[0].distance(self.0[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered() -> Landmarks68 {
        let mut points = [Point::default(); LANDMARKS];
        for (index, point) in points.iter_mut().enumerate() {
            *point = Point::new(index as f32, 100.0 + index as f32);
        }
        Landmarks68::new(points).unwrap()
    }

    #[test]
    fn five_points_are_the_documented_means() {
        let five = numbered().five_points().0;
        let xs: Vec<f32> = five.iter().map(|p| p.x).collect();
        assert_eq!(xs, [39.0, 45.0, 30.0, 54.0, 59.0]);
        assert_eq!(five[2].y, 130.0);
    }

    #[test]
    fn relative_output_is_placed_in_the_box() {
        let face = PixelRect::new(10.0, 20.0, 100.0, 200.0).unwrap();
        let landmarks = Landmarks68::from_relative(&[0.5; 136], &face).unwrap();
        assert_eq!(landmarks.points()[67], Point::new(60.0, 120.0));
        assert_eq!(Landmarks68::from_relative(&[0.5; 10], &face), Err(LandmarkError::Length { found: 10 }));
        let mut bad = [0.5; 136];
        bad[5] = f32::INFINITY;
        assert_eq!(Landmarks68::from_relative(&bad, &face), Err(LandmarkError::NotFinite { index: 2 }));
    }

    #[test]
    fn a_closed_eye_has_a_smaller_aspect_ratio_than_an_open_one() {
        let eye = |lid: f32| {
            let xs = [(0.0, 0.0), (1.0, -lid), (2.0, -lid), (3.0, 0.0), (2.0, lid), (1.0, lid)];
            Eye(xs.map(|(x, y)| Point::new(x, y)))
        };
        assert!((eye(0.45).aspect_ratio() - 0.3).abs() < 1e-6);
        assert!(eye(0.1).aspect_ratio() < 0.1);
        assert_eq!(Eye([Point::default(); 6]).aspect_ratio(), 0.0);
    }
}
