//! From frames to faces: detect, track, landmarks, pose, quality, liveness evidence, best shots.
//!
//! In: the newest frame of one camera. Out: [`Percept`]s: who appeared and left, what each frame says about each face,
//! and the pictures worth an embedding. One thread a camera ([`driver`]); models answer through face-core's traits.
//! Deliberately absent: who the face is (identify) and what follows from it (decide).

mod cadence;
mod core;
mod driver;
mod face;
mod repeat;

use std::sync::Arc;
use std::time::Duration;

use face_core::liveness::{ChallengeLook, Findings};
use face_core::quality::QualityReason;
use face_core::{Detector, EyeModel, FivePoints, LandmarkModel, LivenessModel, MonoTime, PoseModel, RgbImage, TrackId};
use serde::Deserialize;

use crate::config::values;

pub use cadence::Cadence;
pub use core::Perceiver;
pub use driver::{Counters, Outlets, Perceive, run};

/// `[perceive]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerceiveConfig {
    /// Time between looks while nobody is there.
    #[serde(deserialize_with = "values::duration")]
    pub idle_interval: Duration,
    /// Time between looks while somebody is and is not found alive yet.
    #[serde(deserialize_with = "values::duration")]
    pub track_interval: Duration,
    /// Time between looks while everybody who is there was found alive a second ago and stands still.
    #[serde(deserialize_with = "values::duration")]
    pub settled_interval: Duration,
}

/// How closely a camera must be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Nobody is tracked.
    Nobody,
    /// Somebody is, and waits for an answer or moves.
    Undecided,
    /// Whoever is tracked has been found alive and stands where they stood: only a change is worth noticing.
    Settled,
}

/// The models that perceiving needs.
pub trait FaceModels: Detector + LandmarkModel + PoseModel + LivenessModel + EyeModel {}

impl<T: Detector + LandmarkModel + PoseModel + LivenessModel + EyeModel> FaceModels for T {}

/// What one look at a frame found out.
#[derive(Debug, Clone)]
pub enum Percept {
    /// A face that was not there before.
    Appeared {
        /// Its track.
        track: TrackId,
        /// Capture time of its first frame.
        at: MonoTime,
    },
    /// What this frame says about one face.
    Face(FaceReport),
    /// A picture worth an embedding.
    Shot(Shot),
    /// A face that is gone.
    Left {
        /// Its track, never used again.
        track: TrackId,
    },
}

/// What one frame says about one tracked face.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceReport {
    /// The track.
    pub track: TrackId,
    /// Capture time of this frame.
    pub captured_at: MonoTime,
    /// Capture time of the track's first frame.
    pub first_seen: MonoTime,
    /// Height of the face in this frame, in pixels. Each door that the camera watches asks for its own.
    pub height_px: f32,
    /// What each liveness method finds so far; each door judges it by its own demand.
    pub liveness: Findings,
    /// Capture time of the newest liveness evidence.
    pub liveness_at: Option<MonoTime>,
    /// Capture times of the recent shots that looked alive themselves. Only these may be let in on: else somebody could
    /// show a photograph for the identity and the own face for the life.
    pub vouched_shots: Vec<MonoTime>,
    /// Capture times of the recent shots that looked neither alive nor dead. They count where a challenge was answered
    /// that stands in for the passive model.
    pub doubtful_shots: Vec<MonoTime>,
    /// What this frame shows to a challenge; none when it is too poor for another reason than movement.
    pub look: Option<ChallengeLook>,
    /// Why this frame is not good enough to recognise the face by; empty when it is.
    pub reasons: Vec<QualityReason>,
    /// False when a model could not answer for this frame.
    pub models_answered: bool,
}

/// A picture of a tracked face that is good enough to recognise it by.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The camera's id.
    pub camera: Arc<str>,
    /// The track.
    pub track: TrackId,
    /// The whole frame.
    pub image: RgbImage,
    /// What the face is aligned by.
    pub points: FivePoints,
    /// Height of the face, in pixels.
    pub height_px: f32,
    /// Quality in [0, 1].
    pub quality: f32,
    /// Capture time of the frame.
    pub captured_at: MonoTime,
}
