//! What the real template adds to the plain one, each on the demonstration pictures with the real models: it leans less
//! with the detector's box, and depends less on which way round the face is.

mod support;

use face_core::align::Alignment;
use face_core::sample::{ColourOrder, TensorFormat, warp, warp_averaged};
use face_core::{Detection, Detector, Embedder, Embedding, FivePoints, LandmarkModel, PixelRect, Point, RgbImage};
use face_runtime::plain::embed_plainly;
use face_runtime::{ModelPack, Task, examine_face};
use support::{demo_picture, pack, parts};

const PICTURES: [&str; 4] = ["obama.jpg", "obama2.jpg", "biden.jpg", "astronaut.png"];

/// The largest face, and its five points.
fn face(pack: &ModelPack, image: &RgbImage) -> (Detection, FivePoints) {
    let faces = pack.detect(image).expect("runs");
    let largest = faces.into_iter().max_by(|a, b| a.rect.area().total_cmp(&b.rect.area())).expect("a face");
    let points = pack.landmarks(image, &largest.rect).expect("runs").five_points();
    (largest, points)
}

fn mirrored(image: &RgbImage) -> RgbImage {
    let rows =
        (0..image.height()).flat_map(|y| image.row(y).chunks_exact(3).rev().flatten().copied().collect::<Vec<_>>());
    RgbImage::from_vec(image.width(), image.height(), rows.collect()).expect("the same size")
}

/// The points of a face in the mirror image: left and right change places.
fn mirrored_points(points: &FivePoints, width: u32) -> FivePoints {
    let turn = |point: Point| Point::new(width as f32 - 1.0 - point.x, point.y);
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = points.0.map(turn);
    FivePoints([right_eye, left_eye, nose, right_mouth, left_mouth])
}

/// Without the handicaps: how near the vectors are, not how much a match of such clear faces is worth.
fn cosine(first: &Embedding, second: &Embedding) -> f32 {
    first.clone().with_handicap(0.0).similarity(&second.clone().with_handicap(0.0)).value()
}

#[test]
fn a_face_and_its_mirror_image_have_nearly_one_template() {
    let Some(parts) = parts("a_face_and_its_mirror_image_have_nearly_one_template") else { return };
    let pack = pack(&parts);
    for name in PICTURES {
        let image = demo_picture(&parts, name);
        let (_, points) = face(&pack, &image);
        let (turned, turned_points) = (mirrored(&image), mirrored_points(&points, image.width()));
        let plain = embed_plainly(&pack, &image, &points).expect("runs");
        let plain = plain.similarity(&embed_plainly(&pack, &turned, &turned_points).expect("runs")).value();
        let real = pack.embed(&image, &points).expect("runs");
        let real = cosine(&real, &pack.embed(&turned, &turned_points).expect("runs"));
        println!("{name}: mirror image at {real:.4}, plainly {plain:.4}");
        // 0.994 to 0.996; two upright views, aligned apart as these are, reach 0.982 to 0.988.
        assert!(real > 0.991 && real > plain, "{name}: {real} against {plain}");
    }
}

/// The detector's box moves, and with it the landmarks; the template moves less than a plain one does.
#[test]
fn a_template_does_not_lean_with_the_detectors_box() {
    let Some(parts) = parts("a_template_does_not_lean_with_the_detectors_box") else { return };
    let pack = pack(&parts);
    let (mut plain, mut real, mut n) = (0.0, 0.0, 0.0);
    for name in PICTURES {
        let image = demo_picture(&parts, name);
        let (detection, points) = face(&pack, &image);
        let rect = detection.rect;
        let here = pack.embed(&image, &points).expect("runs");
        let plain_here = embed_plainly(&pack, &image, &points).expect("runs");
        for (dx, dy, scale) in
            [(0.08, 0.0, 1.0), (-0.08, 0.0, 1.0), (0.0, 0.08, 1.0), (0.0, -0.08, 1.0), (0.0, 0.0, 1.15)]
        {
            let (x, y) = (rect.x() + dx * rect.width(), rect.y() + dy * rect.height());
            let moved = PixelRect::new(x, y, rect.width(), rect.height()).expect("a box").scaled(scale);
            let points = pack.landmarks(&image, &moved).expect("runs").five_points();
            real += 1.0 - cosine(&here, &pack.embed(&image, &points).expect("runs"));
            plain += 1.0 - plain_here.similarity(&embed_plainly(&pack, &image, &points).expect("runs")).value();
            n += 1.0;
        }
    }
    println!("a moved box costs {:.4} of the similarity, plainly {:.4}", real / n, plain / n);
    assert!(real < 0.6 * plain, "{} against {}", real / n, plain / n);
}

/// The picture turned about the middle of the face by so many degrees, and where the points have gone.
fn turned(image: &RgbImage, points: &FivePoints, degrees: f32) -> (RgbImage, FivePoints) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let middle = Point::mean(&points.0);
    let turn = |point: Point, sin: f32| {
        let (x, y) = (point.x - middle.x, point.y - middle.y);
        Point::new(middle.x + cos * x - sin * y, middle.y + sin * x + cos * y)
    };
    let (width, height) = (image.width(), image.height());
    let value = |from: Point, plane: usize| {
        let (x, y) = (from.x.clamp(0.0, width as f32 - 1.001), from.y.clamp(0.0, height as f32 - 1.001));
        let (left, fx, fy) = (x as usize, x.fract(), y.fract());
        let line = |y: f32| {
            let row = image.row(y as u32);
            let at = |x: usize| f32::from(row[x * 3 + plane]);
            at(left) + (at(left + 1) - at(left)) * fx
        };
        (line(y) + (line(y + 1.0) - line(y)) * fy).round() as u8
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| Point::new(x as f32, y as f32)));
    let bytes = pixels.flat_map(|to| [0, 1, 2].map(|plane| value(turn(to, -sin), plane))).collect();
    let picture = RgbImage::from_vec(width, height, bytes).expect("the same size");
    (picture, FivePoints(points.0.map(|point| turn(point, sin))))
}

/// A head leaned towards a shoulder is the same head: it is turned upright, both for the second look and for the model.
#[test]
fn a_head_leaned_towards_a_shoulder_keeps_its_template() {
    let Some(parts) = parts("a_head_leaned_towards_a_shoulder_keeps_its_template") else { return };
    let pack = pack(&parts);
    for (name, degrees) in [("obama.jpg", -30.0), ("astronaut.png", 30.0)] {
        let image = demo_picture(&parts, name);
        let (_, points) = face(&pack, &image);
        let upright = pack.embed(&image, &points).expect("runs");
        let (leaned, points) = turned(&image, &points, degrees);
        let alike = cosine(&upright, &pack.embed(&leaned, &points).expect("runs"));
        println!("{name}: leaned by {degrees} degrees at {alike:.4}");
        // 0.999 and more; not turned back, below 0.1.
        assert!(alike > 0.98, "{name}, {degrees} degrees: {alike}");
    }
}

/// The same face with a fifth of the light: `lfw-dev`'s pictures fall from a clarity of 0.55 to 0.12 by that.
#[test]
fn a_dim_picture_of_a_face_is_docked_less_and_the_plain_one_not_at_all() {
    let Some(parts) = parts("a_dim_picture_of_a_face_is_docked_less_and_the_plain_one_not_at_all") else { return };
    let pack = pack(&parts);
    let image = demo_picture(&parts, "obama.jpg");
    let bytes = (0..image.height()).flat_map(|y| image.row(y).iter().map(|value| value / 5).collect::<Vec<u8>>());
    let dim = RgbImage::from_vec(image.width(), image.height(), bytes.collect()).expect("the same size");
    let (_, points) = face(&pack, &image);
    let handicap = |image| pack.embed(image, &points).expect("runs").handicap();
    println!("docked {:.4}, with a fifth of the light {:.4}", handicap(&image), handicap(&dim));
    assert!(handicap(&dim) + 0.01 < handicap(&image));
    assert_eq!(embed_plainly(&pack, &image, &points).expect("runs").handicap(), 0.0);
}

#[test]
fn a_template_costs_two_landmark_runs_and_two_feature_runs() {
    let Some(parts) = parts("a_template_costs_two_landmark_runs_and_two_feature_runs") else { return };
    let pack = pack(&parts);
    let image = demo_picture(&parts, "obama.jpg");
    let detection = pack.detect(&image).expect("runs")[0];
    let runs = || [Task::Landmark, Task::Pose, Task::Feature].map(|task| pack.usage(task).runs);
    let before = runs();
    let examined = examine_face(&pack, &image, &detection).expect("runs");
    pack.embed(&image, &examined.points).expect("runs");
    let real = runs();
    assert_eq!(std::array::from_fn(|task| real[task] - before[task]), [2, 1, 2]);
    let examined = examine_face(&pack, &image, &detection).expect("runs");
    embed_plainly(&pack, &image, &examined.points).expect("runs");
    let plain = runs();
    assert_eq!(std::array::from_fn(|task| plain[task] - real[task]), [1, 1, 1]);
}

/// A large face is averaged into its crop: what the crop keeps does not depend on where its points fall.
#[test]
fn the_crop_of_a_large_face_does_not_depend_on_half_a_pixel() {
    let Some(parts) = parts("the_crop_of_a_large_face_does_not_depend_on_half_a_pixel") else { return };
    let pack = pack(&parts);
    let image = demo_picture(&parts, "obama.jpg");
    let (_, points) = face(&pack, &image);
    let format = TensorFormat { order: ColourOrder::Rgb, mean: [0.0; 3], scale: [1.0; 3] };
    let crops = |shift: f32| {
        let moved = FivePoints(points.0.map(|point| Point::new(point.x + shift, point.y + shift)));
        let to_picture = Alignment::fit(&moved).expect("a face").to_picture;
        assert!(to_picture.scale() > 1.5, "the demonstration face is no longer large: {}", to_picture.scale());
        let (mut read, mut averaged) = (vec![0.0; 3 * 112 * 112], vec![0.0; 3 * 112 * 112]);
        warp(&image, &to_picture, (112, 112), &format, &mut read).expect("fits");
        warp_averaged(&image, &to_picture, (112, 112), &format, &mut averaged).expect("fits");
        [read, averaged]
    };
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32;
    let (here, there) = (crops(0.0), crops(0.5));
    let [read, averaged] = [0, 1].map(|kind| apart(&here[kind], &there[kind]));
    println!("half a pixel changes the crop by {averaged:.3}, read at single points by {read:.3}");
    assert!(averaged < 0.8 * read, "{averaged} against {read}");
}
