//! What tensors hold, by small drawn pictures.

use super::*;
use crate::align::ARCFACE_TEMPLATE;
use crate::landmarks::FivePoints;
use proptest::prelude::*;
use std::sync::Arc;

const RAW: TensorFormat = TensorFormat { order: ColourOrder::Rgb, mean: [0.0; 3], scale: [1.0; 3] };

/// A picture whose red grows to the right, whose green grows downwards and whose blue is 7.
fn ramp(width: u32, height: u32, padding: usize) -> RgbImage {
    let stride = width as usize * 3 + padding;
    let mut data = vec![255; stride * height as usize];
    for y in 0..height as usize {
        for x in 0..width as usize {
            data[y * stride + x * 3..y * stride + x * 3 + 3].copy_from_slice(&[x as u8, y as u8, 7]);
        }
    }
    RgbImage::new(width, height, stride, Arc::new(data)).unwrap()
}

#[test]
fn halving_averages_four_pixels() {
    let letterbox = Letterbox::new((8, 8), (4, 4), 1.0);
    let mut out = [0.0; 48];
    Sampler::new().letterbox(&ramp(8, 8, 0), &letterbox, &RAW, &mut out).unwrap();
    // Columns 0 and 1 average to 0.5, which rounds to 0 or 1; the next pair is two higher.
    assert!((out[1] - out[0] - 2.0).abs() < 1e-6);
    assert!((out[0] - 0.5).abs() <= 0.5);
    assert!((out[16 + 4] - out[16] - 2.0).abs() < 1e-6);
    assert_eq!(out[32..], [7.0; 16]);
}

#[test]
fn the_letterbox_pads_with_zero_and_centres() {
    let letterbox = Letterbox::new((8, 4), (8, 8), 1.0);
    let format = TensorFormat { order: ColourOrder::Rgb, mean: [127.0; 3], scale: [128.0; 3] };
    let mut out = [9.0; 192];
    Sampler::new().letterbox(&ramp(8, 4, 0), &letterbox, &format, &mut out).unwrap();
    assert_eq!(out[..16], [0.0; 16]);
    assert_eq!(out[48..64], [0.0; 16]);
    assert!((out[16] - (0.0 - 127.0) / 128.0).abs() < 1e-6);
    assert!((out[128 + 16] - (7.0 - 127.0) / 128.0).abs() < 1e-6);
}

#[test]
fn bgr_swaps_the_outer_planes() {
    let image = RgbImage::from_vec(1, 1, vec![10, 20, 30]).unwrap();
    let rect = PixelRect::new(0.0, 0.0, 1.0, 1.0).unwrap();
    let format = TensorFormat { order: ColourOrder::Bgr, ..RAW };
    let mut out = [0.0; 3];
    Sampler::new().crop(&image, &rect, (1, 1), &format, &mut out).unwrap();
    assert_eq!(out, [30.0, 20.0, 10.0]);
    let mut out = [0.0; 3];
    warp(&image, &Similarity2d::IDENTITY, (1, 1), &format, &mut out).unwrap();
    assert_eq!(out, [30.0, 20.0, 10.0]);
}

#[test]
fn a_protruding_crop_repeats_the_edge() {
    let rect = PixelRect::new(-4.0, -4.0, 8.0, 8.0).unwrap();
    let mut out = [0.0; 192];
    Sampler::new().crop(&ramp(20, 20, 0), &rect, (8, 8), &RAW, &mut out).unwrap();
    assert_eq!(out[..8], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
    let far = PixelRect::new(500.0, 500.0, 8.0, 8.0).unwrap();
    Sampler::new().crop(&ramp(20, 20, 0), &far, (8, 8), &RAW, &mut out).unwrap();
    assert_eq!(out[..64], [19.0; 64]);
}

#[test]
fn absurd_targets_and_crops_are_refused() {
    let image = ramp(20, 20, 0);
    let mut sampler = Sampler::new();
    let rect = PixelRect::new(-5e4, 0.0, 1e5, 10.0).unwrap();
    let refused = sampler.crop(&image, &rect, (4, 4), &RAW, &mut [0.0; 48]);
    assert!(matches!(refused, Err(SampleError::Crop { .. })));
    let face = PixelRect::new(0.0, 0.0, 10.0, 10.0).unwrap();
    let short = sampler.crop(&image, &face, (4, 4), &RAW, &mut [0.0; 47]);
    assert_eq!(short, Err(SampleError::Length { expected: 48, found: 47 }));
    assert!(matches!(sampler.crop(&image, &face, (0, 4), &RAW, &mut []), Err(SampleError::Target { .. })));
}

#[test]
fn the_warp_reads_between_pixels_and_is_black_outside() {
    let shift = Similarity2d { tx: 2.5, ty: 1.0, ..Similarity2d::IDENTITY };
    let mut out = [0.0; 12];
    warp(&ramp(20, 20, 5), &shift, (2, 2), &RAW, &mut out).unwrap();
    assert_eq!(out, [2.5, 3.5, 2.5, 3.5, 1.0, 1.0, 2.0, 2.0, 7.0, 7.0, 7.0, 7.0]);
    let away = Similarity2d { tx: -500.0, ..Similarity2d::IDENTITY };
    warp(&ramp(20, 20, 5), &away, (2, 2), &RAW, &mut out).unwrap();
    assert_eq!(out, [0.0; 12]);
}

#[test]
fn the_aligned_crop_shows_the_same_at_any_size_of_the_face() {
    let crop_at = |scale: f32| {
        let side = (112.0 * scale) as u32;
        let pattern = |v: u32| ((v as f32 / scale * 0.12).sin() * 100.0 + 128.0) as u8;
        let data = (0..side * side).flat_map(|i| [pattern(i % side), pattern(i / side), 128]).collect();
        let image = RgbImage::from_vec(side, side, data).unwrap();
        let points = FivePoints(ARCFACE_TEMPLATE.map(|p| Point::new(p.x * scale, p.y * scale)));
        aligned_grey(&image, &Alignment::fit(&points).unwrap())
    };
    let (small, large) = (crop_at(1.0), crop_at(6.0));
    let worst = (5..107)
        .flat_map(|y| (5..107).map(move |x| y * 112 + x))
        .map(|i| i16::from(small.luma()[i]).abs_diff(i16::from(large.luma()[i])));
    assert!(worst.max().unwrap() <= 6);
}

#[test]
fn shrinking_a_grey_crop_averages_blocks() {
    let crop = GreyCrop::new(3, 2, vec![0, 10, 99, 20, 30, 99]).unwrap();
    assert_eq!(crop.shrunk(2).unwrap().luma(), &[15]);
    assert!(crop.shrunk(4).is_none() && crop.shrunk(0).is_none());
    assert!(GreyCrop::new(3, 2, vec![0; 5]).is_err());
}

#[test]
fn a_crop_wider_than_the_picture_repeats_both_edges_in_every_row() {
    let rect = PixelRect::new(-2.0, -1.0, 8.0, 6.0).unwrap();
    let mut out = [0.0; 3 * 48];
    Sampler::new().crop(&ramp(4, 4, 0), &rect, (8, 6), &RAW, &mut out).unwrap();
    for row in out[..48].chunks(8) {
        assert_eq!(row, [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 3.0, 3.0]);
    }
    let column = |x: usize| out[48..96].iter().skip(x).step_by(8).copied().collect::<Vec<_>>();
    assert_eq!([column(0), column(7)], [[0.0, 0.0, 1.0, 2.0, 3.0, 3.0]; 2].map(|c| c.to_vec()));
}

#[test]
fn a_box_is_for_whole_pixels_along_both_axes() {
    assert!(matches!(filter_for(2.0, 3.0), FilterType::Box));
    assert!(matches!(filter_for(2.0, 1.5), FilterType::Hamming));
    assert!(matches!(filter_for(1.5, 2.0), FilterType::Hamming));
    assert!(matches!(filter_for(2.0, 0.5), FilterType::Bilinear));
    assert!(matches!(filter_for(0.5, 2.0), FilterType::Bilinear));
}

#[test]
fn a_wide_warp_lays_row_under_row() {
    let shift = Similarity2d { tx: 1.0, ty: 2.0, ..Similarity2d::IDENTITY };
    let mut out = [0.0; 3 * 6];
    warp(&ramp(20, 20, 5), &shift, (3, 2), &RAW, &mut out).unwrap();
    assert_eq!(out[..6], [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    assert_eq!(out[6..12], [2.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
}

/// Luma of a picture that grows by this much to the right and by this much downwards.
fn grey_ramp(right: f32, down: f32) -> RgbImage {
    let at = |x: u32, y: u32| (x as f32 * right + y as f32 * down) as u8;
    RgbImage::from_vec(40, 40, (0..1_600).flat_map(|i| [at(i % 40, i / 40); 3]).collect()).unwrap()
}

#[test]
fn a_grey_part_is_read_at_the_middles_of_its_pixels() {
    const AS_IT_IS: GreyFormat = GreyFormat { mean: 0.0, scale: 1.0 };
    // Twice as wide as high, so that a target pixel is 2 by 1 of the picture's.
    let part = PixelRect::new(4.0, 10.0, 8.0, 2.0).unwrap();
    let read = |image: &RgbImage, format: &GreyFormat| {
        let mut out = [0.0; 8];
        warp_grey(image, &Similarity2d::IDENTITY, &part, (4, 2), format, &mut out).unwrap();
        out
    };
    let close = |found: [f32; 8], wanted: [f32; 8]| found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-3);
    // Columns 4 and 5 are the first target pixel, 6 and 7 the next; rows are 10 and 11.
    assert!(close(read(&grey_ramp(2.0, 0.0), &AS_IT_IS), [9.0, 13.0, 17.0, 21.0, 9.0, 13.0, 17.0, 21.0]));
    assert!(close(read(&grey_ramp(0.0, 3.0), &AS_IT_IS), [30.0, 30.0, 30.0, 30.0, 33.0, 33.0, 33.0, 33.0]));
    let scaled = read(&grey_ramp(0.0, 3.0), &GreyFormat { mean: 10.0, scale: 4.0 });
    assert!(close(scaled, [5.0, 5.0, 5.0, 5.0, 5.75, 5.75, 5.75, 5.75]));
}

#[test]
fn a_grey_part_of_many_pixels_is_their_mean() {
    // Stripes of one column: a reading between two of them would be anything from black to white.
    let stripes = RgbImage::from_vec(40, 40, (0..1_600u32).flat_map(|i| [(i % 2 * 200) as u8; 3]).collect()).unwrap();
    let part = PixelRect::new(8.0, 8.0, 24.0, 24.0).unwrap();
    let mut out = [0.0; 4];
    let format = GreyFormat { mean: 0.0, scale: 1.0 };
    warp_grey(&stripes, &Similarity2d::IDENTITY, &part, (2, 2), &format, &mut out).unwrap();
    for value in out {
        assert!((value - 100.0).abs() < 1.0, "{out:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_padded_buffer_gives_the_same_tensor_as_a_packed_one(
        width in 2u32..60, height in 2u32..60, padding in 1usize..7,
        x in -20.0f32..60.0, y in -20.0f32..60.0, w in 1.0f32..80.0, h in 1.0f32..80.0,
    ) {
        let rect = PixelRect::new(x, y, w, h).unwrap();
        let (mut packed, mut padded) = ([0.0; 3 * 64], [0.0; 3 * 64]);
        let mut sampler = Sampler::new();
        sampler.crop(&ramp(width, height, 0), &rect, (8, 8), &RAW, &mut packed).unwrap();
        sampler.crop(&ramp(width, height, padding), &rect, (8, 8), &RAW, &mut padded).unwrap();
        // A view that ends at the crop's edge lets the resizer's window see one pixel less there.
        for (a, b) in packed.iter().zip(&padded) {
            prop_assert!((a - b).abs() <= 2.0, "{a} against {b}");
        }
    }
}
