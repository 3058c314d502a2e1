//! Is this a living person? Evidence of many frames of one track in, one verdict out. Fails closed.
//!
//! In: per frame the time, the pose, the passive model's score and the aligned face's [`Appearance`]. Out:
//! [`LivenessVerdict`]. Two checks must both pass: the mean passive score over frontal frames, and the face must
//! change as living faces do; a still photograph, however it is panned and zoomed, hardly changes once aligned.
//! Deliberately absent: blink, texture, challenges, infrared and depth, which widen this window later.

use std::time::Duration;

use crate::pose::HeadPose;
use crate::sample::GreyCrop;
use crate::time::MonoTime;

/// The aligned face, blurred and reduced to a unit vector, so that two of them are compared by a dot product.
#[derive(Clone, Debug, PartialEq)]
pub struct Appearance(Vec<f32>);

impl Appearance {
    /// Reduces an aligned crop; `None` when it is flat (nothing to compare).
    #[must_use]
    pub fn of(aligned: &GreyCrop) -> Option<Self> {
        todo!()
    }

    /// 1 − correlation of two faces, in [0, 2]: 0 for the same picture, whatever its brightness and contrast.
    #[must_use]
    pub fn change_to(&self, other: &Self) -> f32 {
        todo!()
    }
}

/// What one frame says about one track.
#[derive(Clone, Debug, PartialEq)]
pub struct LivenessEvidence {
    /// When the frame was captured.
    pub captured_at: MonoTime,
    /// The head's pose; a frame without one does not count as frontal.
    pub pose: Option<HeadPose>,
    /// The passive model's probability of life in [0, 1]; `None` when the model could not answer.
    pub passive: Option<f32>,
    /// The aligned face; `None` when it could not be aligned.
    pub appearance: Option<Appearance>,
}

/// When a track counts as alive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LivenessPolicy {
    /// Frontal frames that a verdict needs.
    pub min_frontal_frames: usize,
    /// Degrees from frontal up to which a frame counts as frontal.
    pub max_frontal_deviation_deg: f32,
    /// A mean passive score above this passes.
    pub pass_above: f32,
    /// A mean passive score below this is an attack; between the two the track is watched further.
    pub attack_below: f32,
    /// Median change of the appearance that a living face reaches.
    pub moving_change: f32,
    /// Median change below which a face is as still as a photograph.
    pub still_change: f32,
    /// How long a face may be as still as a photograph before it is taken for one.
    pub still_patience: Duration,
    /// How much of the past a verdict rests on.
    pub horizon: Duration,
}

impl Default for LivenessPolicy {
    fn default() -> Self {
        todo!()
    }
}

/// Why a track is taken for an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttackReason {
    /// The passive model sees a print or a screen.
    PassiveScore,
    /// The face did not change for so long that it must be a still picture.
    StillPicture,
}

/// Why a track is watched further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchReason {
    /// The face is too still: alive or a photograph, more time will tell.
    TooStill,
    /// The passive score lies between attack and pass.
    ScoreUndecided,
}

/// What the evidence so far amounts to. Only [`LivenessVerdict::Live`] may open a door.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LivenessVerdict {
    /// Not enough frames yet.
    Collecting {
        /// Frontal frames seen.
        frontal_frames: usize,
    },
    /// Alive.
    Live {
        /// Mean passive score.
        score: f32,
    },
    /// Undecided: keep watching.
    Watch {
        /// Why.
        reason: WatchReason,
        /// Mean passive score.
        score: f32,
    },
    /// Not a living person.
    Attack {
        /// Why.
        reason: AttackReason,
        /// Mean passive score.
        score: f32,
    },
    /// A required check cannot be made (no passive scores, no appearance): never alive.
    Unavailable,
}

impl LivenessVerdict {
    /// Whether a door may open on it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }
}

/// The recent evidence of one track. Make a new one for each track.
#[derive(Clone, Debug)]
pub struct LivenessWindow {
    policy: LivenessPolicy,
    frames: std::collections::VecDeque<LivenessEvidence>,
}

impl LivenessWindow {
    /// An empty window.
    #[must_use]
    pub fn new(policy: LivenessPolicy) -> Self {
        todo!()
    }

    /// Adds a frame's evidence, any camera rate; frames faster than 12 a second are thinned by time for the change
    /// check. A frame not newer than the last one (a repeated or replayed picture) is ignored.
    pub fn push(&mut self, evidence: LivenessEvidence) {
        todo!()
    }

    /// The verdict over the window as it stands.
    #[must_use]
    pub fn verdict(&self) -> LivenessVerdict {
        todo!()
    }

    /// Capture time of the newest evidence: what the freshness budget compares with. `None` for an empty window.
    #[must_use]
    pub fn newest_at(&self) -> Option<MonoTime> {
        todo!()
    }
}
