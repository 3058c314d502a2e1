//! A camera from its configuration: capture opened, the perceive thread's belongings put together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use edge_capture::{CameraConfig, CameraHandle, CameraMonitor};
use face_core::liveness::{Demand, LivenessPolicy};
use face_core::quality::QualityGate;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock::SharedClock;
use crate::config::Config;
use crate::stages::perceive::{Counters, Outlets, Perceive, PerceiveConfig, Perceiver};

/// What is seen of a running camera from outside its thread.
#[derive(Clone)]
pub(super) struct Running {
    id: String,
    monitor: CameraMonitor,
    counters: Arc<Counters>,
}

/// Opens a camera. The thread that takes the answer's second half starts at once to look.
pub(super) fn open(
    config: &Config,
    camera: &CameraConfig,
    outlets: Outlets,
    cadence: watch::Receiver<PerceiveConfig>,
    clock: &SharedClock,
) -> Result<(Running, Perceive<CameraHandle>)> {
    let mono = SharedClock::clone(clock);
    let source = edge_capture::open(camera.clone(), Arc::new(move || mono.now()))?;
    let (monitor, events) = (source.monitor(), source.events());
    let counters = Arc::new(Counters::default());
    let id: Arc<str> = camera.id.as_str().into();
    let perceive = Perceive {
        camera: Arc::clone(&id),
        source,
        perceiver: Perceiver::new(id, gate(config, &camera.id), LivenessPolicy::default())
            .serving(demands(config, &camera.id)),
        config: cadence,
        outlets,
        clock: SharedClock::clone(clock),
        counters: Arc::clone(&counters),
        events,
    };
    Ok((Running { id: camera.id.clone(), monitor, counters }, perceive))
}

/// The gate of the least demanding door that the camera watches: a stricter door asks for its own size in its rules.
fn gate(config: &Config, camera: &str) -> QualityGate {
    let doors = config.doors.iter().filter(|door| door.camera == camera);
    let lowest = doors.filter_map(|door| config.policy(&door.policy)).map(|policy| policy.min_face_px).min();
    let gate = QualityGate::matching();
    QualityGate { min_face_height_px: lowest.map_or(gate.min_face_height_px, f32::from), ..gate }
}

/// What the doors that the camera watches ask for before a face counts as alive; nothing where liveness is off.
fn demands(config: &Config, camera: &str) -> Vec<Demand> {
    let doors = config.doors.iter().filter(|door| door.camera == camera);
    doors.filter_map(|door| config.policy(&door.policy)?.demand()).collect()
}

impl Running {
    /// One more for each turn of its thread.
    pub(super) fn turns(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.counters.turns)
    }

    /// For `status`.
    pub(super) fn told(&self) -> Value {
        let stats = self.monitor.stats();
        let state = self.monitor.state().to_string();
        let looks = self.counters.looks.load(Ordering::Relaxed);
        let mean_us = self.counters.look_us.load(Ordering::Relaxed).checked_div(looks);
        json!({
            "camera": self.id,
            "state": state,
            "frames": stats.frames,
            "dropped": stats.dropped,
            "restarts": stats.restarts,
            "looks": looks,
            "look_mean_us": mean_us,
            "shots_dropped": self.counters.shots_dropped.load(Ordering::Relaxed),
        })
    }
}
