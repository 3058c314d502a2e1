//! How much time each stage spends outside ONNX Runtime.
//!
//! `cargo run --release -p face-runtime --example stage_floor -- [--json] [--runs N] [--threads N] [IMAGE]`
//!
//! Each stage is called on a picture with one face; right after it, the tensor that the call left in its session is run
//! again, bare: no drawing, no decoding. Both are timed in turns in the same process, and the medians are compared.
//! The floor is the time inside `Session::run`; the overhead is everything else that Lintel does for the stage.
//! A fixed, printed list of calls makes up the "line": what one frame with one face costs when every model runs.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use face_core::align::Alignment;
use face_core::quality::{Quality, QualityInput};
use face_core::sample::aligned_grey;
use face_core::{DIM, Detector, Embedder, EyeModel, LandmarkModel, LivenessModel, PoseModel, RgbImage};
use face_runtime::{ModelPack, PackOptions, Provider, Task};
use serde_json::{Map, Value, json};

#[path = "../tests/support/mod.rs"]
mod support;

/// What is asked for on the command line.
struct Arguments {
    json: bool,
    runs: usize,
    threads: usize,
    image: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut parsed = Arguments { json: false, runs: 60, threads: 1, image: None };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut number = || given.next().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
        match argument.as_str() {
            "--json" => parsed.json = true,
            "--runs" => parsed.runs = number().ok_or("--runs needs a number above zero")?,
            "--threads" => parsed.threads = number().ok_or("--threads needs a number above zero")?,
            path if !path.starts_with('-') => parsed.image = Some(PathBuf::from(path)),
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(parsed)
}

/// A demonstration picture in the middle of a grey frame of 640x480, as a door camera gives it.
fn default_frame(parts: &std::path::Path) -> RgbImage {
    let image = support::demo_picture(parts, "obama.jpg");
    let bytes: Vec<u8> = (0..image.height()).flat_map(|y| image.row(y).to_vec()).collect();
    let full = image::RgbImage::from_raw(image.width(), image.height(), bytes).expect("a picture");
    let width = (image.width() * 480 / image.height()).min(640);
    let portrait = image::imageops::resize(&full, width, 480, image::imageops::FilterType::Triangle);
    let mut frame = image::RgbImage::from_pixel(640, 480, image::Rgb([110; 3]));
    image::imageops::replace(&mut frame, &portrait, i64::from((640 - width) / 2), 0);
    RgbImage::from_vec(640, 480, frame.into_raw()).expect("a picture")
}

/// One stage: its model (none for pure arithmetic) and how to call it.
struct Stage<'a> {
    name: &'static str,
    task: Option<Task>,
    call: Box<dyn Fn() + 'a>,
}

impl<'a> Stage<'a> {
    fn of(task: Task, call: impl Fn() + 'a) -> Self {
        Stage { name: task.as_str(), task: Some(task), call: Box::new(call) }
    }
}

/// Medians over all rounds.
struct Measured {
    name: &'static str,
    calls: u64,
    total: Duration,
    floor: Duration,
}

fn measure(pack: &ModelPack, stages: &[Stage<'_>], rounds: usize) -> Vec<Measured> {
    let mut samples: Vec<(Vec<Duration>, Vec<Duration>, u64)> = stages.iter().map(|_| (vec![], vec![], 0)).collect();
    // The first rounds only warm caches and clocks up.
    for round in 0..rounds + 5 {
        for (stage, (totals, floors, calls)) in stages.iter().zip(&mut samples) {
            let runs_before = stage.task.map_or(0, |task| pack.usage(task).runs);
            let started = Instant::now();
            (stage.call)();
            let total = started.elapsed();
            *calls = stage.task.map_or(0, |task| pack.usage(task).runs) - runs_before;
            let floor = stage.task.map_or(Duration::ZERO, |task| replay(pack, task, *calls));
            if round >= 5 {
                totals.push(total);
                floors.push(floor);
            }
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let named = stages.iter().zip(samples);
    named
        .map(|(stage, (totals, floors, calls))| Measured {
            name: stage.name,
            calls,
            total: median(totals),
            floor: median(floors),
        })
        .collect()
}

/// Runs the tensor that the last call left behind, as often as the call ran its model.
fn replay(pack: &ModelPack, task: Task, calls: u64) -> Duration {
    let before = pack.usage(task).running;
    for _ in 0..calls {
        pack.pool(task).run(|_, _| Ok(()), |_| Ok(())).expect("ran a moment ago");
    }
    pack.usage(task).running - before
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn overhead(total: Duration, floor: Duration) -> Option<f64> {
    (!floor.is_zero()).then(|| ((total.as_secs_f64() / floor.as_secs_f64() - 1.0) * 1e4).round() / 1e4)
}

fn report(measured: &[Measured], as_json: bool, frame: &RgbImage, threads: usize, build: &str) {
    let total: Duration = measured.iter().map(|stage| stage.total).sum();
    let floor: Duration = measured.iter().map(|stage| stage.floor).sum();
    if as_json {
        let row = |total, floor, calls| json!({"calls": calls, "total_ms": milliseconds(total), "floor_ms": milliseconds(floor), "overhead": overhead(total, floor)});
        let stages: Map<String, Value> =
            measured.iter().map(|stage| (stage.name.to_owned(), row(stage.total, stage.floor, stage.calls))).collect();
        let calls: u64 = measured.iter().map(|stage| stage.calls).sum();
        let line = row(total, floor, calls);
        let frame = format!("{}x{}", frame.width(), frame.height());
        println!(
            "{}",
            json!({"frame": frame, "intra_threads": threads, "onnxruntime": build, "stages": stages, "line": line})
        );
        return;
    }
    println!("{:<10} {:>5} {:>10} {:>10} {:>9}", "stage", "calls", "total ms", "floor ms", "overhead");
    let show = |name: &str, calls: u64, total, floor| {
        let share = overhead(total, floor).map_or_else(String::new, |share| format!("{:.1} %", share * 100.0));
        println!("{name:<10} {calls:>5} {:>10.3} {:>10.3} {share:>9}", milliseconds(total), milliseconds(floor));
    };
    for stage in measured {
        show(stage.name, stage.calls, stage.total, stage.floor);
    }
    show("line", measured.iter().map(|stage| stage.calls).sum(), total, floor);
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let parts = support::parts("stage_floor").ok_or("the installed parts are missing, run scripts/setup")?;
    let runtime = support::runtime(&parts);
    let options =
        PackOptions { intra_threads: arguments.threads, providers: vec![Provider::Cpu], ..PackOptions::default() };
    let pack = ModelPack::open(&runtime, &support::manifest_path(), &parts.join("models/faceplugin"), &options)?;
    let image = arguments.image.as_deref().map_or_else(|| default_frame(&parts), support::picture);

    let faces = pack.detect(&image)?;
    let face = faces.first().ok_or("the picture has no face")?.rect;
    let landmarks = pack.landmarks(&image, &face)?;
    let points = landmarks.five_points();
    let pose = pack.pose(&image, &face)?;
    let ran = "ran a moment ago";
    let stages = [
        Stage::of(Task::Detect, || assert!(!pack.detect(&image).expect(ran).is_empty())),
        Stage::of(Task::Landmark, || assert_eq!(pack.landmarks(&image, &face).expect(ran), landmarks)),
        Stage::of(Task::Pose, || assert_eq!(pack.pose(&image, &face).expect(ran), pose)),
        Stage::of(Task::Liveness, || assert!(pack.live_score(&image, &face).expect(ran) >= 0.0)),
        Stage::of(Task::Eye, || assert!(pack.eyes(&image, &landmarks).expect(ran).left_closed >= 0.0)),
        Stage::of(
            Task::Feature,
            Box::new(|| assert_eq!(pack.embed(&image, &points).expect(ran).as_slice().len(), DIM)),
        ),
        Stage { name: "quality", task: None, call: Box::new(|| measure_quality(&image, &points, &face, pose)) },
    ];
    let measured = measure(&pack, &stages, arguments.runs);
    report(&measured, arguments.json, &image, arguments.threads, runtime.build_info());
    Ok(())
}

fn measure_quality(
    image: &RgbImage,
    points: &face_core::FivePoints,
    face: &face_core::PixelRect,
    pose: face_core::HeadPose,
) {
    let alignment = Alignment::fit(points).expect("embedded before");
    let aligned = aligned_grey(image, &alignment);
    let picture = (image.width(), image.height());
    std::hint::black_box(Quality::measure(&QualityInput { aligned: &aligned, face, picture, pose: Some(pose) }));
}
