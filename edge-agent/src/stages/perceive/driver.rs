//! The thread that perceives: takes the newest frame, asks the core, hands on what it found.
//!
//! Channels: to each door of the camera, bounded; full means that deciding is behind, so this thread waits, and frames
//! are dropped and counted at the camera. To identify, bounded; full means that embedding is behind, so the shot is
//! dropped and counted: a better one follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge_capture::{CameraEvent, Happening as CameraHappening};
use face_core::{Frame, FrameSource};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Cadence, FaceModels, PerceiveConfig, Perceiver, Percept, Shot};
use crate::clock::SharedClock;
use crate::logging::chain;
use crate::stages::decide::DoorInput;
use crate::stages::record::{Happening, Recorder};

/// How long one wait for a frame lasts: the longest that a stop or the end of a track goes unnoticed.
const FRAME_WAIT: Duration = Duration::from_millis(100);

/// What a camera's thread has done, for `status` and the watchdog.
#[derive(Debug, Default)]
pub struct Counters {
    /// Turns of the loop: it lives as long as this grows.
    pub turns: Arc<AtomicU64>,
    /// Frames taken from the camera.
    pub frames: AtomicU64,
    /// Frames looked at.
    pub looks: AtomicU64,
    /// Time spent looking, in microseconds.
    pub look_us: AtomicU64,
    /// Shots dropped because identify was behind.
    pub shots_dropped: AtomicU64,
}

/// Where percepts go.
pub struct Outlets {
    /// The doors that this camera watches.
    pub doors: Vec<mpsc::Sender<DoorInput>>,
    /// Identify.
    pub shots: crossbeam_channel::Sender<Shot>,
    /// Record, for faces that appear.
    pub recorder: Recorder,
}

/// Everything a camera's thread owns.
pub struct Perceive<S> {
    /// The camera's id.
    pub camera: Arc<str>,
    /// Its frames.
    pub source: S,
    /// The core.
    pub perceiver: Perceiver,
    /// `[perceive]`, which may change.
    pub config: watch::Receiver<PerceiveConfig>,
    /// Where percepts go.
    pub outlets: Outlets,
    /// The clock.
    pub clock: SharedClock,
    /// What was done.
    pub counters: Arc<Counters>,
    /// What happens to the camera.
    pub events: crossbeam_channel::Receiver<CameraEvent>,
}

/// Perceives until `stop`.
pub fn run<S: FrameSource>(mut perceive: Perceive<S>, models: &impl FaceModels, stop: &CancellationToken) {
    let mut cadence = Cadence::new(*perceive.config.borrow_and_update());
    while !stop.is_cancelled() {
        perceive.counters.turns.fetch_add(1, Ordering::Relaxed);
        while let Ok(event) = perceive.events.try_recv() {
            perceive.camera_event(&event);
        }
        // Nobody to change it any more is as good as no change.
        if perceive.config.has_changed().unwrap_or(false) {
            cadence.set(*perceive.config.borrow_and_update());
        }
        match perceive.source.next_frame(FRAME_WAIT) {
            Ok(frame) => {
                perceive.counters.frames.fetch_add(1, Ordering::Relaxed);
                if cadence.due(frame.captured_at, perceive.perceiver.attention()) {
                    let began = perceive.clock.now();
                    perceive.look(models, &frame);
                    let cost = perceive.clock.now().since(began);
                    cadence.looked(frame.captured_at, cost);
                    perceive.counters.looks.fetch_add(1, Ordering::Relaxed);
                    let micros = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
                    perceive.counters.look_us.fetch_add(micros, Ordering::Relaxed);
                }
            }
            // Whether it stalled or ended, the source has waited; the camera's own events tell the rest.
            Err(_) => perceive.no_frame(),
        }
    }
}

impl<S: FrameSource> Perceive<S> {
    fn look(&mut self, models: &impl FaceModels, frame: &Frame) {
        match self.perceiver.look(models, frame) {
            Ok(percepts) => self.hand_on(percepts),
            Err(error) => {
                tracing::error!(event = "detector_failed", camera = %self.camera, error = chain(&error), "a frame could not be searched for faces");
                self.tell_doors(&DoorInput::DetectorFailed { at: frame.captured_at });
            }
        }
    }

    fn no_frame(&mut self) {
        let expired = self.perceiver.expire(self.clock.now());
        self.hand_on(expired);
    }

    /// Nothing seen before an interruption may count after it: neither at the doors nor here.
    fn interrupted(&mut self) {
        self.tell_doors(&DoorInput::CameraStalled);
        let left = self.perceiver.interrupted();
        self.hand_on(left);
    }

    fn camera_event(&mut self, event: &CameraEvent) {
        let (camera, at) = (Arc::clone(&self.camera), event.at);
        let happening = match &event.happening {
            CameraHappening::Playing | CameraHappening::Ended => {
                tracing::debug!(event = "camera_state", camera = %camera, state = ?event.happening, "the camera's state changed");
                return;
            }
            CameraHappening::Stalled { since } => {
                self.interrupted();
                let detail = "no frames for longer than its profile allows".to_owned();
                Happening::CameraStalled { camera, frame_age: Some(at.since(*since)), detail, at }
            }
            CameraHappening::Failed { reason } => {
                self.interrupted();
                Happening::CameraStalled { camera, frame_age: None, detail: reason.to_string(), at }
            }
            CameraHappening::Faulty { fault } => {
                if fault.is_old_picture() {
                    self.interrupted();
                }
                Happening::CameraStalled { camera, frame_age: None, detail: fault.to_string(), at }
            }
            CameraHappening::Recovered { after } => Happening::CameraRecovered { camera, outage: *after, at },
        };
        self.outlets.recorder.try_record(happening);
    }

    fn hand_on(&mut self, percepts: Vec<Percept>) {
        for percept in percepts {
            match percept {
                Percept::Appeared { track, at } => {
                    self.outlets.recorder.try_record(Happening::FaceAppeared {
                        camera: Arc::clone(&self.camera),
                        track,
                        at,
                    });
                }
                Percept::Face(report) => self.tell_doors(&DoorInput::Face(report)),
                Percept::Left { track } => self.tell_doors(&DoorInput::Left { track }),
                Percept::Shot(shot) => {
                    if self.outlets.shots.try_send(shot).is_err() {
                        self.counters.shots_dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    fn tell_doors(&self, input: &DoorInput) {
        for door in &self.outlets.doors {
            // An error means that the door has stopped: the agent is on its way out.
            let _ = door.blocking_send(input.clone());
        }
    }
}
