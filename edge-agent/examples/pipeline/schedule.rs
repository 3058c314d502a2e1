//! The agent's schedule against a loop that runs every model on every picture of the same clip.

use std::time::Duration;

use anyhow::{Context, Result};
use edge_agent::stages::identify::Identifier;
use edge_agent::stages::perceive::{Cadence, PerceiveConfig, Perceiver, Percept};
use face_core::liveness::LivenessPolicy;
use face_core::quality::QualityGate;
use face_core::{Embedder, Frame};
use face_index::{Engine, Snapshot};
use face_runtime::{ModelPack, Task};
use serde_json::{Map, Value, json};

use super::{ms, peer, ratio};

/// The agent's defaults (`defaults.toml`).
const CONFIG: PerceiveConfig = PerceiveConfig {
    idle_interval: Duration::from_millis(200),
    track_interval: Duration::from_millis(80),
    settled_interval: Duration::from_millis(160),
};

/// Processor time of both, without decoding. One thread a model call, so that this thread's time is all of it.
pub(super) fn measure(pack: &ModelPack, frames: &[Frame]) -> Result<Value> {
    let (scheduled, calls) = counted(pack, || scheduled(pack, frames))?;
    let (every, every_calls) = counted(pack, || {
        for frame in frames {
            std::hint::black_box(peer::every_model(pack, &frame.image)?);
        }
        Ok(())
    })?;
    let seconds = frames[frames.len() - 1].captured_at.since(frames[0].captured_at).as_secs_f64();
    let share = |time: Duration| (time.as_secs_f64() / seconds * 1e3).round() / 1e3;
    Ok(json!({
        "speedup": ratio(every, scheduled),
        "clip_seconds": seconds,
        "pictures": frames.len(),
        "scheduled_ms": ms(scheduled),
        "every_model_every_picture_ms": ms(every),
        "scheduled_cores": share(scheduled),
        "every_model_every_picture_cores": share(every),
        "calls": calls,
        "every_calls": every_calls,
    }))
}

/// What the agent's threads do with the frames, one after another.
fn scheduled(pack: &ModelPack, frames: &[Frame]) -> Result<()> {
    let gallery = Snapshot::build(Vec::new(), Engine::Auto)?;
    let mut cadence = Cadence::new(CONFIG);
    let mut perceiver = Perceiver::new("clip".into(), QualityGate::matching(), LivenessPolicy::default());
    let mut identifier = Identifier::default();
    for frame in frames {
        if !cadence.due(frame.captured_at, perceiver.attention()) {
            continue;
        }
        // The time that a look takes only matters on a machine that is too slow.
        cadence.looked(frame.captured_at, Duration::ZERO);
        for percept in perceiver.look(pack, frame)? {
            if let Percept::Shot(shot) = percept {
                let embedding = pack.embed(&shot.image, &shot.points)?;
                std::hint::black_box(identifier.identify(&shot, embedding, &gallery, 1));
            }
        }
    }
    Ok(())
}

/// This thread's processor time of some work, and the calls that it made.
fn counted(pack: &ModelPack, work: impl FnOnce() -> Result<()>) -> Result<(Duration, Map<String, Value>)> {
    let before = Task::ALL.map(|task| pack.usage(task).runs);
    let began = thread_time()?;
    work()?;
    let took = thread_time()?.saturating_sub(began);
    let calls = Task::ALL.iter().zip(before);
    let calls = calls.map(|(task, before)| (task.as_str().to_owned(), json!(pack.usage(*task).runs - before)));
    Ok((took, calls.collect()))
}

/// Processor time of this thread; unlike the clock on the wall it does not count what others do on the machine.
fn thread_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("the kernel counts no thread times")?;
    let first = text.split_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(first.parse().context("an odd schedstat")?))
}
