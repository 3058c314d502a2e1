//! What one picture of a face gives to the window beside models: how it is lit, and what tells its pixels from others.
//!
//! In: a whole picture, and the face in it. Out: numbers. The edge and the hub measure alike.

use std::hash::{DefaultHasher, Hasher};

use crate::frame::RgbImage;
use crate::geometry::PixelRect;
use crate::sample::GreyCrop;

/// Every such pixel of every such row makes the mean of a picture.
const GLOW_STEP: usize = 8;

/// Mean luma of the aligned face over that of the picture; `None` in darkness.
#[must_use]
pub fn glow(aligned: &GreyCrop, image: &RgbImage) -> Option<f32> {
    let face = mean(aligned.luma().chunks_exact(aligned.width()).skip(24).flat_map(|row| &row[16..96]).copied())?;
    let rows = (0..image.height()).step_by(GLOW_STEP).map(|y| image.row(y));
    let lumas = rows.flat_map(|row| row.chunks_exact(3).step_by(GLOW_STEP).map(luma));
    mean(lumas).filter(|picture| *picture >= 1.0).map(|picture| face / picture)
}

/// Tells the face's own pixels apart, every fourth row of them; `None` when the face is outside the picture.
#[must_use]
pub fn digest(image: &RgbImage, face: &PixelRect) -> Option<u64> {
    let within = |value: f32, end: u32| value.clamp(0.0, end as f32) as usize;
    let (left, right) = (within(face.x(), image.width()), within(face.right(), image.width()));
    let (top, bottom) = (within(face.y(), image.height()), within(face.bottom(), image.height()));
    if left >= right || top >= bottom {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    for y in (top..bottom).step_by(4) {
        hasher.write(&image.row(y as u32)[left * 3..right * 3]);
    }
    Some(hasher.finish())
}

fn luma(pixel: &[u8]) -> u8 {
    ((u32::from(pixel[0]) * 77 + u32::from(pixel[1]) * 150 + u32::from(pixel[2]) * 29) >> 8) as u8
}

fn mean(values: impl Iterator<Item = u8>) -> Option<f32> {
    let (n, sum) = values.fold((0u32, 0u64), |(n, sum), value| (n + 1, sum + u64::from(value)));
    (n > 0).then(|| (sum as f64 / f64::from(n)) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(of: impl Fn(u32, u32) -> [u8; 3]) -> RgbImage {
        RgbImage::from_vec(64, 64, (0..64 * 64).flat_map(|i| of(i % 64, i / 64)).collect()).unwrap()
    }

    #[test]
    fn a_face_glows_by_how_much_brighter_it_is_than_the_picture() {
        let face = GreyCrop::new(112, 112, vec![150; 112 * 112]).unwrap();
        let close = |found: Option<f32>, wanted: f32| (found.unwrap() - wanted).abs() < 0.02;
        assert!(close(glow(&face, &picture(|_, _| [50; 3])), 3.0));
        assert!(close(glow(&face, &picture(|x, _| [if x % 16 < 8 { 50 } else { 100 }; 3])), 2.0));
        // Green counts most, and blue least.
        assert!(close(glow(&face, &picture(|_, _| [200, 0, 0])), 150.0 / 60.0));
        assert!(close(glow(&face, &picture(|_, _| [0, 200, 0])), 150.0 / 117.0));
        assert!(close(glow(&face, &picture(|_, _| [0, 0, 200])), 150.0 / 22.0));
        assert_eq!(glow(&face, &picture(|_, _| [0; 3])), None, "in darkness");
    }

    #[test]
    fn hair_and_what_is_beside_the_face_do_not_glow() {
        let only_face = |index: usize| if index / 112 >= 24 && (16..96).contains(&(index % 112)) { 100 } else { 255 };
        let face = GreyCrop::new(112, 112, (0..112 * 112).map(only_face).collect()).unwrap();
        assert_eq!(glow(&face, &picture(|_, _| [100; 3])), Some(1.0));
    }

    #[test]
    fn pixels_of_the_face_alone_are_told_apart() {
        let face = PixelRect::new(16.0, 16.0, 20.0, 20.0).unwrap();
        let plain = digest(&picture(|_, _| [9; 3]), &face).unwrap();
        assert_eq!(
            digest(&picture(|x, y| [if x < 16 || y < 16 || x > 35 || y > 35 { 7 } else { 9 }; 3]), &face),
            Some(plain)
        );
        assert_ne!(digest(&picture(|x, y| [9, 9, if (x, y) == (35, 32) { 8 } else { 9 }]), &face), Some(plain));
        let outside = PixelRect::new(200.0, 16.0, 20.0, 20.0).unwrap();
        assert_eq!(digest(&picture(|_, _| [9; 3]), &outside), None);
        let half = PixelRect::new(-10.0, 50.0, 20.0, 40.0).unwrap();
        assert!(digest(&picture(|_, _| [9; 3]), &half).is_some());
    }
}
