//! Measures whether a track's probe should be the mean of its best shots: `shots IMAGES [CLIP...]`.
//!
//! Pictures named `Person_0001.jpg`: of everybody with four or more, the first is the template and the next three are the shots of
//! one visit. Clips: the shots that the door's own perceiving takes, each clip's first good one being a template. Out: for
//! each way to make a probe of the shots, how many owners and strangers pass, and how genuine scores move. Which way the
//! door goes and why: docs/measurements/accuracy.md.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for a terminal")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use edge_agent::eval::template::template;
use edge_agent::stages::perceive::{Perceiver, Percept};
use face_core::liveness::LivenessPolicy;
use face_core::quality::QualityGate;
use face_core::{DIM, Embedder, Embedding, Frame, MonoTime};
use face_runtime::{ModelPack, PackOptions, Runtime};

/// Shots of one visit.
const SHOTS: usize = 3;

#[derive(Clone)]
struct Shot {
    embedding: Embedding,
    quality: f32,
}

/// The probes that a way to make them searches with, one after the other, for one visit.
type Way = (&'static str, fn(&[Shot]) -> Vec<Embedding>);

const WAYS: [Way; 6] = [
    ("first shot alone", |shots| vec![shots[0].embedding.clone()]),
    ("best shot alone", |shots| vec![best(shots).embedding.clone()]),
    ("each shot (the door)", |shots| shots.iter().map(|shot| shot.embedding.clone()).collect()),
    ("mean of all", |shots| vec![mean(shots, |_| 1.0)]),
    ("mean by quality", |shots| vec![mean(shots, |quality| quality)]),
    ("running mean by quality", |shots| (1..=shots.len()).map(|n| mean(&shots[..n], |quality| quality)).collect()),
];

fn best(shots: &[Shot]) -> &Shot {
    shots.iter().max_by(|a, b| a.quality.total_cmp(&b.quality)).unwrap()
}

fn mean(shots: &[Shot], weight: fn(f32) -> f32) -> Embedding {
    let mut sum = [0.0_f32; DIM];
    for shot in shots {
        for (sum, component) in sum.iter_mut().zip(shot.embedding.as_slice()) {
            *sum += weight(shot.quality) * component;
        }
    }
    Embedding::from_raw(sum).unwrap()
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let images = arguments.next().context("usage: shots IMAGES [CLIP...]")?;
    let parts = std::env::var("LINTEL_PARTS").unwrap_or_else(|_| "/var/cache/lintel/parts".to_owned());
    let parts = Path::new(&parts);
    let runtime = Runtime::load(&parts.join("onnxruntime/libonnxruntime.so"))?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/faceplugin/manifest.toml");
    let options = PackOptions { sessions: 2, intra_threads: 1, ..PackOptions::default() };
    let pack = ModelPack::open(&runtime, &manifest, &parts.join("models/faceplugin"), &options)?;
    pictures(&pack, &images)?;
    clips(&pack, &arguments.collect::<Vec<_>>())
}

fn pictures(pack: &ModelPack, images: &Path) -> Result<()> {
    let mut of_person: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(images)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if let Some((person, _)) = stem.rsplit_once('_') {
            of_person.entry(person.to_owned()).or_default().push(path);
        }
    }
    of_person.values_mut().for_each(|paths| paths.sort());
    let wanted: Vec<Vec<PathBuf>> = of_person.into_values().filter(|paths| paths.len() > SHOTS).collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(paths) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let taken: Vec<Shot> =
                        paths.iter().filter_map(|path| shot_of(pack, path)).take(SHOTS + 1).collect();
                    if taken.len() == SHOTS + 1 {
                        done.lock().unwrap().push(taken);
                    }
                }
            });
        }
    });
    let visits = done.into_inner().unwrap();
    println!(
        "{} people with a template and {SHOTS} shots; {} visits of strangers",
        visits.len(),
        visits.len() * (visits.len() - 1)
    );
    for (name, way) in WAYS {
        let (mut genuine, mut strangers) = (Vec::new(), Vec::new());
        for (visitor, visit) in visits.iter().enumerate() {
            let probes = way(&visit[1..]);
            for (owner, other) in visits.iter().enumerate() {
                // The door opens when one of its searches does.
                let score =
                    probes.iter().map(|probe| probe.similarity(&other[0].embedding).value()).fold(-1.0, f32::max);
                if owner == visitor { genuine.push(score) } else { strangers.push(score) }
            }
        }
        tell(name, genuine, strangers);
    }
    Ok(())
}

fn shot_of(pack: &ModelPack, path: &Path) -> Option<Shot> {
    let made = template(pack, &std::fs::read(path).ok()?, &QualityGate::matching()).ok()?;
    Some(Shot { embedding: made.embedding, quality: made.examined.quality.overall() })
}

fn tell(name: &str, mut genuine: Vec<f32>, mut strangers: Vec<f32>) {
    genuine.sort_by(f32::total_cmp);
    strangers.sort_by(|a, b| b.total_cmp(a));
    let share =
        |scores: &[f32], from: f32| scores.iter().filter(|score| **score >= from).count() as f64 / scores.len() as f64;
    let at = |far: f64| strangers[(far * strangers.len() as f64) as usize];
    println!(
        "{name:<24} genuine median {:.3}, lowest tenth {:.3}; strangers median {:.3}, highest 1e-3 {:.3}, 1e-4 {:.3}; \
         TAR at FAR 1e-3 {:.2} %, 1e-4 {:.2} %; at 0.442: TAR {:.2} %, FAR {:.1e}; at 0.535: TAR {:.2} %, FAR {:.1e}",
        genuine[genuine.len() / 2],
        genuine[genuine.len() / 10],
        strangers[strangers.len() / 2],
        at(1e-3),
        at(1e-4),
        100.0 * share(&genuine, at(1e-3)),
        100.0 * share(&genuine, at(1e-4)),
        100.0 * share(&genuine, 0.442),
        share(&strangers, 0.442),
        100.0 * share(&genuine, 0.535),
        share(&strangers, 0.535),
    );
}

/// The shots of each clip against the first shot of every other: neighbouring shots of one visit are much alike.
fn clips(pack: &ModelPack, paths: &[PathBuf]) -> Result<()> {
    let visits = paths.iter().map(|path| shots_of(pack, path)).collect::<Result<Vec<_>>>()?;
    for (path, shots) in paths.iter().zip(&visits) {
        println!("{}: {} shots", path.display(), shots.len());
        for (other_path, other) in paths.iter().zip(&visits).filter(|(other, _)| *other != path) {
            let Some(template) = other.first() else { continue };
            let scores = |probes: Vec<Embedding>| -> Vec<f32> {
                probes.iter().map(|probe| probe.similarity(&template.embedding).value()).collect()
            };
            let single = scores(shots.iter().map(|shot| shot.embedding.clone()).collect());
            let window = |n: usize| &shots[(n + 1).saturating_sub(SHOTS)..=n];
            let averaged = scores((0..shots.len()).map(|n| mean(window(n), |quality| quality)).collect());
            let of = |scores: &[f32]| {
                let mean = scores.iter().sum::<f32>() / scores.len().max(1) as f32;
                (mean, scores.iter().copied().fold(1.0, f32::min), scores.iter().copied().fold(-1.0, f32::max))
            };
            let name = other_path.file_name().unwrap_or_default().to_string_lossy();
            println!(
                "  to {name}: single mean/low/high {:.3?}, mean of the last {SHOTS} {:.3?}",
                of(&single),
                of(&averaged)
            );
        }
    }
    Ok(())
}

fn shots_of(pack: &ModelPack, path: &Path) -> Result<Vec<Shot>> {
    let mut perceiver = Perceiver::new("clip".into(), QualityGate::matching(), LivenessPolicy::default());
    let mut shots = Vec::new();
    for (sequence, picture) in (1..).zip(edge_capture::Clip::open(path, (640, 480), 15)?) {
        let picture = picture?;
        let captured_at = MonoTime::from_millis(1_000 + u64::try_from(picture.at.as_millis())?);
        let frame = Frame { image: picture.image, captured_at, sequence };
        for percept in perceiver.look(pack, &frame)? {
            if let Percept::Shot(shot) = percept {
                shots.push(Shot { embedding: pack.embed(&shot.image, &shot.points)?, quality: shot.quality });
            }
        }
    }
    Ok(shots)
}
