//! What was known about a face when a decision about it was made: the "why" and "why not" of an event.

use std::time::Duration;

use face_core::identify::{Identification, OpenSetPolicy};
use face_core::liveness::LivenessVerdict;
use face_core::{MonoTime, PersonId, TrackId};
use uuid::Uuid;

/// How the identity was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Identity {
    /// The best person; none in an empty gallery.
    pub person: Option<PersonId>,
    /// Their score.
    pub score: Option<f32>,
    /// What it had to reach.
    pub threshold: f32,
    /// Lead over the second-best person, when one was measured.
    pub margin: Option<f32>,
    /// Similarity of the negative anchor that turned them down: what the score had to exceed.
    pub anchor: Option<f32>,
    /// Quality of the shot, in [0, 1].
    pub quality: f32,
}

impl Identity {
    pub(super) fn of(found: &Identification, policy: &OpenSetPolicy, quality: f32) -> Self {
        let anchor = match *found {
            Identification::NotThem { anchor, .. } => Some(anchor.value()),
            _ => None,
        };
        let (person, score, margin) = match *found {
            Identification::Known { person, score, margin } => (Some(person), Some(score.value()), margin),
            Identification::Unknown { best } => {
                (best.map(|(person, _)| person), best.map(|(_, score)| score.value()), None)
            }
            Identification::Ambiguous { person, score, margin, .. } => {
                (Some(person), Some(score.value()), Some(margin))
            }
            Identification::NotThem { person, score, .. } => (Some(person), Some(score.value()), None),
        };
        Self { person, score, threshold: policy.threshold.value(), margin, anchor, quality }
    }
}

/// What liveness had come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LivenessSeen {
    /// The verdict.
    pub verdict: LivenessVerdict,
    /// The mean passive score that passes.
    pub threshold: f32,
}

/// Everything that an access event says.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessContext {
    /// Names the decision.
    pub decision: Uuid,
    /// The track; none when the decision concerns no face in particular.
    pub track: Option<TrackId>,
    /// When it was made.
    pub at: MonoTime,
    /// The person let in, or the best candidate.
    pub person: Option<PersonId>,
    /// How the identity was found, when a search was made.
    pub identity: Option<Identity>,
    /// What liveness had come to, when the face was watched.
    pub liveness: Option<LivenessSeen>,
    /// Age of the newest contributing frame.
    pub frame_age: Option<Duration>,
    /// Time since the track's first frame.
    pub since_arrival: Option<Duration>,
}
