//! Covered faces, painted on the demonstration pictures: a mask and dark glasses pass neither gate, clear glasses and bare
//! faces are not refused for them.

mod support;

use std::path::Path;

use face_core::align::Alignment;
use face_core::quality::{QualityGate, QualityReason};
use face_core::{Detector, FivePoints, LandmarkModel, Point, RgbImage};
use face_runtime::{ExaminedFace, ModelPack, examine_face};
use support::{demo_picture, pack, parts};

const PICTURES: [&str; 4] = ["obama.jpg", "obama2.jpg", "biden.jpg", "astronaut.png"];

/// What is painted, in pixels of the aligned crop; `None` leaves the picture's own pixel.
type Paint = fn(Point) -> Option<[u8; 3]>;

/// Two dark lenses and the bridge between them.
fn dark_glasses(p: Point) -> Option<[u8; 3]> {
    let lens = |x: f32| ((p.x - x) / 16.0).powi(2) + ((p.y - 53.0) / 10.0).powi(2) < 1.0;
    let bridge = (p.y - 49.0).abs() < 2.0 && p.x > 38.0 && p.x < 74.0;
    (lens(38.0) || lens(74.0) || bridge).then_some([18, 18, 20])
}

/// Rims alone, as thick as those of reading glasses.
fn clear_glasses(p: Point) -> Option<[u8; 3]> {
    let at = |x: f32| (((p.x - x) / 15.0).powi(2) + ((p.y - 53.0) / 11.0).powi(2)).sqrt();
    let rim = |x: f32| (0.93..1.07).contains(&at(x));
    (rim(38.0) || rim(74.0)).then_some([40, 32, 30])
}

/// A surgical mask: from the bridge of the nose down, smooth and light.
fn mask(p: Point) -> Option<[u8; 3]> {
    let width = 44.0 - (p.y - 66.0).max(0.0) * 0.25;
    (p.y > 66.0 && p.y < 116.0 && (p.x - 56.0).abs() < width).then_some([196, 206, 212])
}

fn nothing(_: Point) -> Option<[u8; 3]> {
    None
}

fn painted(image: &RgbImage, points: &FivePoints, paint: Paint) -> RgbImage {
    let to_crop = Alignment::fit(points).expect("a face").to_crop;
    let mut bytes = Vec::with_capacity(image.width() as usize * image.height() as usize * 3);
    for y in 0..image.height() {
        for (x, pixel) in image.row(y).chunks_exact(3).enumerate() {
            let colour = paint(to_crop.apply(Point::new(x as f32, y as f32)));
            bytes.extend(colour.unwrap_or([pixel[0], pixel[1], pixel[2]]));
        }
    }
    RgbImage::from_vec(image.width(), image.height(), bytes).expect("the same size")
}

/// The painted face, examined in the box of the bare one: whether the detector still sees it is another question.
fn examined(pack: &ModelPack, parts: &Path, name: &str, paint: Paint) -> ExaminedFace {
    let image = demo_picture(parts, name);
    let faces = pack.detect(&image).expect("runs");
    let face = faces.into_iter().max_by(|a, b| a.rect.area().total_cmp(&b.rect.area())).expect("a face");
    let points = pack.landmarks(&image, &face.rect).expect("runs").five_points();
    examine_face(pack, &painted(&image, &points, paint), &face).expect("runs")
}

fn occluded(face: &ExaminedFace, gate: &QualityGate) -> bool {
    gate.reasons(&face.quality).contains(&QualityReason::Occluded)
}

#[test]
fn a_mask_and_dark_glasses_pass_neither_gate() {
    let Some(parts) = parts("a_mask_and_dark_glasses_pass_neither_gate") else { return };
    let pack = pack(&parts);
    for name in PICTURES {
        for (what, paint) in [("mask", mask as Paint), ("dark glasses", dark_glasses)] {
            let face = examined(&pack, &parts, name, paint);
            println!("{name}, {what}: visibility {:.3} {:?}", face.quality.visibility, face.quality.measures);
            assert!(occluded(&face, &QualityGate::matching()), "{name}, {what}: {:?}", face.quality);
            assert!(occluded(&face, &QualityGate::enrol()), "{name}, {what}: {:?}", face.quality);
        }
    }
}

#[test]
fn bare_faces_and_clear_glasses_are_not_called_covered() {
    let Some(parts) = parts("bare_faces_and_clear_glasses_are_not_called_covered") else { return };
    let pack = pack(&parts);
    for name in PICTURES {
        for (what, paint) in [("bare", nothing as Paint), ("clear glasses", clear_glasses)] {
            let face = examined(&pack, &parts, name, paint);
            println!("{name}, {what}: visibility {:.3}", face.quality.visibility);
            assert!(!occluded(&face, &QualityGate::matching()), "{name}, {what}: {:?}", face.quality);
        }
    }
}
