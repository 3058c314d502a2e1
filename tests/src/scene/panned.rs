//! The attack that costs nothing: a photograph held before the camera, moved, turned a little and brought nearer.

use std::f32::consts::TAU;
use std::path::Path;

use anyhow::{Context, Result};
use image::{Rgb, RgbImage};

use super::clip::{FPS, Noise, write_clip};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;

/// Writes a clip of `seconds` in which the photograph pans, zooms and rolls, with sensor noise on top.
pub fn panned_photograph(photograph: &Path, path: &Path, seconds: u32) -> Result<()> {
    let photograph = image::open(photograph).with_context(|| format!("photograph {}", photograph.display()))?.to_rgb8();
    let count = seconds * FPS;
    write_clip(path, (0..count).map(|index| view(&photograph, index as f32 / FPS as f32, index)))
}

/// The photograph as the camera sees it at `time` seconds.
fn view(photograph: &RgbImage, time: f32, seed: u32) -> RgbImage {
    let (width, height) = (photograph.width() as f32, photograph.height() as f32);
    let whole = (WIDTH as f32 / width).min(HEIGHT as f32 / height);
    let scale = whole * (1.0 + 0.12 * (time * TAU / 5.0).sin());
    let roll = 0.05 * (time * TAU / 7.0).sin();
    let (dx, dy) = (40.0 * (time * TAU / 4.0).sin(), 18.0 * (time * TAU / 3.0).cos());
    let (sin, cos) = roll.sin_cos();
    let mut noise = Noise::new(seed);
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let (u, v) = (x as f32 - WIDTH as f32 / 2.0 - dx, y as f32 - HEIGHT as f32 / 2.0 - dy);
        let from_x = (u * cos + v * sin) / scale + width / 2.0;
        let from_y = (v * cos - u * sin) / scale + height / 2.0;
        let colour = bilinear(photograph, from_x, from_y).unwrap_or([70.0; 3]);
        Rgb(colour.map(|value| (value + noise.next()).clamp(0.0, 255.0) as u8))
    })
}

fn bilinear(picture: &RgbImage, x: f32, y: f32) -> Option<[f32; 3]> {
    if x < 0.0 || y < 0.0 || x >= picture.width() as f32 - 1.0 || y >= picture.height() as f32 - 1.0 {
        return None;
    }
    let (left, top) = (x as u32, y as u32);
    let (fx, fy) = (x.fract(), y.fract());
    let at = |dx: u32, dy: u32, channel: usize| f32::from(picture.get_pixel(left + dx, top + dy)[channel]);
    Some([0, 1, 2].map(|channel| {
        let upper = at(0, 0, channel) * (1.0 - fx) + at(1, 0, channel) * fx;
        let lower = at(0, 1, channel) * (1.0 - fx) + at(1, 1, channel) * fx;
        upper * (1.0 - fy) + lower * fy
    }))
}
