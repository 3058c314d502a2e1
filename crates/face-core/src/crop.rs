//! Which part of the picture each model looks at, as rectangles.
//!
//! In: a face's box and the size of its picture. Out: [`PixelRect`]s for [`crate::sample`]. Deliberately absent: pixels.

use crate::geometry::PixelRect;
use crate::landmarks::Eye;

/// Side of the liveness model's crops, relative to the face's box.
pub const LIVENESS_FACTOR: f32 = 2.7;

/// The pose model's crop: the box with a quarter of its size added on each side.
pub const POSE_FACTOR: f32 = 1.5;

/// Side of an eye's crop, relative to the eye's width.
pub const EYE_FACTOR: f32 = 1.6;

/// The two crops whose mean score separates live from attack best: the box 2.7 times as large, and a square of the
/// same height, each shifted (never padded) so that it stays inside a picture of `width` × `height`.
///
/// Padding would show the model a straight dark edge, which it has learned to read as the rim of a screen or print.
#[must_use]
pub fn liveness_crops(face: &PixelRect, width: u32, height: u32) -> [PixelRect; 2] {
    let side = face.width().max(face.height()) * LIVENESS_FACTOR;
    [
        shifted_inside(face, face.width() * LIVENESS_FACTOR, face.height() * LIVENESS_FACTOR, width, height),
        shifted_inside(face, side, side, width, height),
    ]
}

/// What the pose model sees; it may protrude beyond the picture.
#[must_use]
pub fn pose_crop(face: &PixelRect) -> PixelRect {
    face.scaled(POSE_FACTOR)
}

/// A square round an eye; `None` when the eye's corners coincide.
#[must_use]
pub fn eye_crop(eye: &Eye) -> Option<PixelRect> {
    let (center, side) = (eye.center(), eye.width_px() * EYE_FACTOR);
    PixelRect::new(center.x - side / 2.0, center.y - side / 2.0, side, side).ok()
}

/// A rectangle of the wished size round the face's centre, shrunk (keeping its shape) to fit into the picture and
/// then shifted until it is inside.
fn shifted_inside(face: &PixelRect, wish_width: f32, wish_height: f32, width: u32, height: u32) -> PixelRect {
    let (width, height) = (width as f32, height as f32);
    let shrink = (width / wish_width).min(height / wish_height).min(1.0);
    let (crop_width, crop_height) = (wish_width * shrink, wish_height * shrink);
    let center = face.center();
    let x = (center.x - crop_width / 2.0).clamp(0.0, (width - crop_width).max(0.0));
    let y = (center.y - crop_height / 2.0).clamp(0.0, (height - crop_height).max(0.0));
    PixelRect::new(x, y, crop_width, crop_height).expect("a positive share of a valid box inside a picture is a box")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn liveness_crops_lie_inside_the_picture_and_keep_their_shape(
            x in -100.0f32..700.0, y in -100.0f32..500.0, w in 4.0f32..900.0, h in 4.0f32..900.0,
            width in 16u32..1920, height in 16u32..1080,
        ) {
            let face = PixelRect::new(x, y, w, h).unwrap();
            for (crop, aspect) in liveness_crops(&face, width, height).iter().zip([w / h, 1.0]) {
                prop_assert!(crop.x() >= 0.0 && crop.y() >= 0.0);
                prop_assert!(crop.right() <= width as f32 * 1.0001 && crop.bottom() <= height as f32 * 1.0001);
                prop_assert!((crop.width() / crop.height() / aspect - 1.0).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn a_face_at_the_edge_shifts_its_crop_instead_of_padding_it() {
        let face = PixelRect::new(0.0, 0.0, 100.0, 100.0).unwrap();
        let [crop, _] = liveness_crops(&face, 640, 480);
        assert_eq!((crop.x(), crop.y()), (0.0, 0.0));
        assert!((crop.width() - 270.0).abs() < 1e-3);
    }
}
