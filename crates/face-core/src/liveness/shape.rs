//! What the landmarks of one frame say for liveness: where the face is, how open its eyes are, where its nose stands.
//!
//! In: 68 landmarks. Out: [`FaceShape`]. No pixels, no time.

use crate::geometry::Point;
use crate::landmarks::Landmarks68;

/// Measures of one face's landmarks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaceShape {
    /// Middle between the eyes, in pixels of the picture.
    pub center: Point,
    /// Distance between the eyes, in pixels.
    pub eye_distance_px: f32,
    /// Mean aspect ratio of the eyes; about 0.3 open ([`crate::landmarks::Eye::aspect_ratio`]).
    pub eye_aspect_ratio: f32,
    /// How far the nose tip stands towards the right eye rather than the left: its coordinate along the eyes, in the affine
    /// frame of both eyes and the mouth. Moving, turning and tilting a flat picture leaves it as it is; turning a head does
    /// not, since a nose stands before the plane of eyes and mouth.
    pub nose: f32,
}

impl FaceShape {
    /// Measures landmarks; `None` when eyes and mouth lie on one line.
    #[must_use]
    pub fn of(landmarks: &Landmarks68) -> Option<Self> {
        let [left, right, nose, mouth_left, mouth_right] = landmarks.five_points().0;
        let center = Point::mean(&[left, right]);
        let mouth = Point::mean(&[mouth_left, mouth_right]);
        // Along the eyes, and from the eyes to the mouth.
        let (across, down) = ((right.x - left.x, right.y - left.y), (mouth.x - center.x, mouth.y - center.y));
        let area = across.0 * down.1 - across.1 * down.0;
        let eye_distance_px = left.distance(right);
        if area.abs() < 1e-3 || eye_distance_px < 1.0 {
            return None;
        }
        let (x, y) = (nose.x - center.x, nose.y - center.y);
        let nose = 2.0 * (x * down.1 - y * down.0) / area;
        Some(Self { center, eye_distance_px, eye_aspect_ratio: landmarks.eye_aspect_ratio(), nose })
    }

    /// How far the face has moved from `earlier`, in eye distances; coming nearer by a tenth counts as a quarter.
    #[must_use]
    pub fn moved_since(&self, earlier: &Self) -> f32 {
        let unit = self.eye_distance_px.min(earlier.eye_distance_px);
        let nearer = (self.eye_distance_px / earlier.eye_distance_px).ln().abs();
        (self.center.distance(earlier.center) / unit).max(nearer * 2.5)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::landmarks::LANDMARKS;
    use proptest::prelude::*;

    /// Landmarks of which only the eyes, the nose tip and the mouth's corners matter; `open` is the lids' distance.
    pub(crate) fn face(nose: (f32, f32), open: f32) -> Landmarks68 {
        let mut points = [Point::new(0.0, 0.0); LANDMARKS];
        for (first, x) in [(36, 30.0), (42, 70.0)] {
            let lid = open * 5.0;
            let eye = [(-10.0, 0.0), (-4.0, -lid), (4.0, -lid), (10.0, 0.0), (4.0, lid), (-4.0, lid)];
            for (index, (dx, dy)) in eye.into_iter().enumerate() {
                points[first + index] = Point::new(x + dx, 50.0 + dy);
            }
        }
        points[30] = Point::new(nose.0, nose.1);
        for (index, x) in [(48, 38.0), (60, 38.0), (54, 62.0), (64, 62.0)] {
            points[index] = Point::new(x, 92.0);
        }
        Landmarks68::new(points).unwrap()
    }

    fn moved(landmarks: &Landmarks68, by: impl Fn(Point) -> Point) -> Landmarks68 {
        Landmarks68::new(landmarks.points().map(by)).unwrap()
    }

    proptest! {
        #[test]
        fn no_affine_motion_of_a_flat_picture_moves_its_nose(
            a in 0.6f32..1.5, b in -0.4f32..0.4, c in -0.4f32..0.4, d in 0.6f32..1.5, x in -50.0f32..50.0,
        ) {
            let still = face((53.0, 71.0), 1.0);
            let tilted = moved(&still, |p| Point::new(a * p.x + b * p.y + x, c * p.x + d * p.y - x));
            let (before, after) = (FaceShape::of(&still).unwrap().nose, FaceShape::of(&tilted).unwrap().nose);
            prop_assert!((before - after).abs() < 1e-3, "{before} {after}");
        }
    }

    #[test]
    fn a_turned_head_moves_its_nose() {
        let frontal = FaceShape::of(&face((50.0, 70.0), 1.0)).unwrap();
        let turned = FaceShape::of(&face((58.0, 70.0), 1.0)).unwrap();
        assert!(frontal.nose.abs() < 1e-6);
        assert!((turned.nose - 0.4).abs() < 1e-5, "{}", turned.nose);
    }

    #[test]
    fn motion_is_measured_in_eye_distances() {
        let still = FaceShape::of(&face((50.0, 70.0), 1.0)).unwrap();
        let aside = FaceShape::of(&moved(&face((50.0, 70.0), 1.0), |p| Point::new(p.x + 20.0, p.y))).unwrap();
        let nearer = FaceShape::of(&moved(&face((50.0, 70.0), 1.0), |p| Point::new(p.x * 1.2, p.y * 1.2))).unwrap();
        assert_eq!(still.moved_since(&still), 0.0);
        assert!((aside.moved_since(&still) - 0.5).abs() < 1e-5);
        assert!(nearer.moved_since(&still) > 0.4);
        let collapsed = moved(&face((50.0, 70.0), 1.0), |_| Point::new(1.0, 1.0));
        assert_eq!(FaceShape::of(&collapsed), None);
    }
}
