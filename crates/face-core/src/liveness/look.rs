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
