//! The real line against its own tensors, replayed with nothing round them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use edge_agent::stages::identify::Identifier;
use edge_agent::stages::perceive::{Perceiver, Percept, Shot};
use face_core::liveness::LivenessPolicy;
use face_core::quality::QualityGate;
use face_core::{DIM, Embedder, Embedding, EyeModel, Frame, LandmarkModel, PersonId, TemplateId};
use face_index::{Engine, Snapshot};
use face_runtime::{ModelPack, Task};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{median, ms};

/// People in the gallery that every embedding is searched in.
const PEOPLE: u32 = 1000;

/// For every picture: the agent's own look (repetition, detector, tracking, landmarks, alignment, pose, quality, both
/// liveness crops, liveness window, shots), both eyes, an embedding, a search. Then the same calls bare.
pub(super) fn measure(pack: &ModelPack, frames: &[Frame]) -> Result<Value> {
    let gallery = gallery()?;
    let mut perceiver = Perceiver::new("clip".into(), QualityGate::matching(), LivenessPolicy::default());
    let mut identifier = Identifier::default();
    let (mut totals, mut floors) = (Vec::new(), Vec::new());
    let mut calls: Map<String, Value> = Map::new();
    let mut first = true;
    for frame in frames {
        let before = Task::ALL.map(|task| pack.usage(task).runs);
        let began = Instant::now();
        let Some(shot) = shot_of(pack, &mut perceiver, frame)? else { continue };
        let found = identifier.identify(&shot, pack.embed(&shot.image, &shot.points)?, &gallery, 1);
        std::hint::black_box(found);
        let total = began.elapsed();
        let runs: Vec<(Task, u64)> =
            Task::ALL.iter().zip(before).map(|(task, before)| (*task, pack.usage(*task).runs - before)).collect();
        let floor = runs.iter().map(|(task, runs)| replay(pack, *task, *runs)).sum();
        // The first picture warms caches and clocks up.
        if std::mem::take(&mut first) {
            continue;
        }
        totals.push(total);
        floors.push(floor);
        for (task, runs) in runs {
            let sum = calls.get(task.as_str()).and_then(Value::as_u64).unwrap_or(0) + runs;
            calls.insert(task.as_str().to_owned(), json!(sum));
        }
    }
    let pictures = totals.len();
    let (total, floor): (Duration, Duration) = (median(totals), median(floors));
    let overhead = ((total.as_secs_f64() / floor.as_secs_f64() - 1.0) * 1e4).round() / 1e4;
    Ok(json!({
        "overhead": overhead,
        "pictures": pictures,
        "calls": calls,
        "gallery": PEOPLE,
        "line_ms": ms(total),
        "bare_ms": ms(floor),
    }))
}

/// The agent's look at the frame, and a shot of the face whether or not one is due.
fn shot_of(pack: &ModelPack, perceiver: &mut Perceiver, frame: &Frame) -> Result<Option<Shot>> {
    let percepts = perceiver.look(pack, frame)?;
    let Some(face) = perceiver.tracks().first().copied() else { return Ok(None) };
    let due = percepts.into_iter().find_map(|percept| match percept {
        Percept::Shot(shot) => Some(shot),
        _ => None,
    });
    // The eyes need landmarks, which the look has found but keeps to itself: one more call, counted like the others.
    let landmarks = pack.landmarks(&frame.image, &face.rect)?;
    std::hint::black_box(pack.eyes(&frame.image, &landmarks)?);
    Ok(Some(due.unwrap_or_else(|| Shot {
        camera: Arc::from("clip"),
        track: face.id,
        image: frame.image.clone(),
        points: landmarks.five_points(),
        height_px: face.rect.height(),
        quality: 1.0,
        captured_at: frame.captured_at,
    })))
}

/// Runs the tensor that the last call left behind, as often as the call ran its model; the time inside `Session::run`.
fn replay(pack: &ModelPack, task: Task, runs: u64) -> Duration {
    let before = pack.usage(task).running;
    for _ in 0..runs {
        pack.pool(task).run(|_, _| Ok(()), |_| Ok(())).expect("ran a moment ago");
    }
    pack.usage(task).running - before
}

/// Directions spread over the sphere by a small generator: what is found in them does not matter, what it costs does.
fn gallery() -> Result<Snapshot> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut rows = Vec::new();
    for person in 0..PEOPLE {
        let raw: [f32; DIM] = std::array::from_fn(|_| next());
        let id = |kind: u128| Uuid::from_u128(kind << 64 | u128::from(person));
        rows.push((PersonId(id(1)), TemplateId(id(2)), Embedding::from_raw(raw)?));
    }
    Ok(Snapshot::build(rows, Engine::Auto)?)
}
