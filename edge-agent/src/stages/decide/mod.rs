//! One door's decisions: who is there, alive, known, permitted and fresh enough, and what the relay does about it.
//!
//! In: [`DoorInput`]s of the door's camera and of the gallery. Out: relay movements and [`DoorEvent`]s, in the order in
//! which they are to be carried out. The core ([`Decider`]) is pure; [`driver`] owns it, the relay and the timer. The
//! door itself is face-core's state machine: only its step can ask for an unlock.
//! Deliberately absent: sockets, files, how events are written (record).

mod context;
mod core;
mod driver;

use face_core::door::{DenyReason, DoorOrder, OrderOutcome};
use face_core::liveness::{ChallengeRule, Demand, LivenessPolicy, Method};
use face_core::{Embedding, MonoTime, PersonId, TrackId};
use face_runtime::FalseAcceptRate;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use wire_contract::guidance::Prompt;

use crate::config::values;
use crate::stages::identify::Identified;
use crate::stages::perceive::FaceReport;

pub use context::{AccessContext, Identity, LivenessSeen};
pub use core::{Decider, LivenessRules, Output, Rules, Surroundings};
pub use driver::{Decide, run};

/// Inputs that may wait for one door: about half a second of a crowd. Full means that deciding is behind; perceive and
/// identify wait, and frames are dropped at the camera.
pub const DOOR_INPUTS: usize = 64;

/// One `[[policy]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// Its name.
    #[serde(deserialize_with = "values::id")]
    pub id: String,
    /// False accept rate that the threshold is taken for.
    pub far: FalseAcceptRate,
    /// Lead over the second-best person, in [0, 1].
    #[serde(deserialize_with = "values::share")]
    pub margin: f32,
    /// How much liveness must be proved.
    pub liveness: LivenessRule,
    /// Methods that must pass beside those of the level.
    #[serde(deserialize_with = "required_methods")]
    pub liveness_requires: Vec<Method>,
    /// Whether a challenge is asked for where the passive model is uncertain.
    pub challenge_uncertain: bool,
    /// The freshness budget.
    #[serde(deserialize_with = "values::duration")]
    pub freshness: Duration,
    /// Lowest height of a face in the frame, in pixels.
    pub min_face_px: u16,
    /// Who is let through a lock-down: ids of people or of groups, as the hub has them.
    pub lockdown_lets: Vec<uuid::Uuid>,
    /// What happens while events cannot be recorded.
    pub unrecorded: UnrecordedRule,
}

/// How much liveness must be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LivenessRule {
    /// Not asked for: a door behind a guard.
    Off,
    /// The passive model alone: a door that somebody watches.
    Basic,
    /// The passive model and a sign of life that no flat picture gives. Once called `required`.
    #[serde(alias = "required")]
    Standard,
    /// As standard, over twice the frames, and a random challenge must be answered: the door needs a display that shows
    /// its guidance.
    Strict,
}

impl PolicyConfig {
    /// What must be found before a face counts as alive; none where liveness is off.
    #[must_use]
    pub fn demand(&self) -> Option<Demand> {
        let level = match self.liveness {
            LivenessRule::Off => return None,
            LivenessRule::Basic => Demand::basic(),
            LivenessRule::Standard => Demand::standard(),
            LivenessRule::Strict => {
                let strict = Demand::strict();
                Demand { required: strict.required.with(Method::Challenge), ..strict }
            }
        };
        let required = self.liveness_requires.iter().fold(level.required, |set, method| set.with(*method));
        Some(Demand { required, ..level })
    }

    /// Whether its doors ask for a challenge.
    #[must_use]
    pub fn challenge(&self) -> ChallengeRule {
        match self.demand() {
            None => ChallengeRule::Never,
            Some(demand) if demand.required.has(Method::Challenge) => ChallengeRule::Always,
            Some(_) if self.challenge_uncertain => {
                ChallengeRule::WhenUncertain { from: LivenessPolicy::default().uncertain_from }
            }
            Some(_) => ChallengeRule::Never,
        }
    }
}

/// What a policy may require by name. The others are part of every level, or nothing at a door can run them yet.
const REQUIRABLE: [Method; 5] = [Method::Blink, Method::Head, Method::Depth, Method::Infrared, Method::Challenge];

fn required_methods<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Method>, D::Error> {
    let named = |name: &String| REQUIRABLE.into_iter().find(|method| method.name() == name);
    let names = Vec::<String>::deserialize(deserializer)?;
    names
        .iter()
        .map(|name| {
            named(name).ok_or_else(|| {
                let valid = REQUIRABLE.map(Method::name).join(", ");
                serde::de::Error::custom(format!("{name:?} cannot be required; valid here: {valid}"))
            })
        })
        .collect()
}

/// What happens while events cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnrecordedRule {
    /// Nobody gets in.
    Deny,
    /// The door keeps working.
    Allow,
}

/// What a door is told.
#[derive(Debug, Clone, PartialEq)]
pub enum DoorInput {
    /// What a frame says about one face.
    Face(FaceReport),
    /// A face is gone.
    Left {
        /// Its track.
        track: TrackId,
    },
    /// What the gallery says about one face.
    Identified(Identified),
    /// A face could not be embedded.
    EmbedderFailed {
        /// Its track.
        track: TrackId,
    },
    /// A frame could not be searched for faces.
    DetectorFailed {
        /// Its capture time.
        at: MonoTime,
    },
    /// An operator opens the door.
    Ordered(DoorOrder),
    /// A lock-down begins or ends.
    Lockdown {
        /// Whether it lasts from now on.
        on: bool,
    },
    /// An operator waits for a face to enrol.
    Enrol(EnrolOrder),
    /// The rules have changed.
    Ruled(Arc<Rules>),
    /// There is a new gallery snapshot.
    GalleryChanged,
    /// The camera gives no frames any more.
    CameraStalled,
}

/// An operator's order to take a face for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnrolOrder {
    /// The command.
    pub command: uuid::Uuid,
    /// After this time no face is taken.
    pub not_after: MonoTime,
}

/// A face that was taken for somebody.
#[derive(Clone, PartialEq)]
pub struct TakenFace {
    /// Unit vector.
    pub embedding: Embedding,
    /// Quality of the shot, in [0, 1].
    pub quality: f32,
}

impl std::fmt::Debug for TakenFace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TakenFace(quality {})", self.quality)
    }
}

/// What a door says of an operator's order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderTold {
    /// The command.
    pub command: uuid::Uuid,
    /// What became of it.
    pub outcome: Told,
}

/// What became of an order at a door.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Of one to open.
    Opened(OrderOutcome),
    /// Of one to take a face: here it is.
    Taken(Box<TakenFace>),
    /// Of one to take a face: nobody came in time whose face is good enough, or the camera stopped.
    NobodyCame,
}

/// Answers that may wait for the line to the hub. An operator gives orders one at a time; what finds no room is not told,
/// and the hub shows the command as unanswered.
pub const ORDERS_TOLD: usize = 16;

/// How a challenge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChallengeEnd {
    /// Whose track.
    pub track: TrackId,
    /// Why it was not passed; none when it was.
    pub reason: Option<DenyReason>,
    /// Steps that were answered.
    pub answered: usize,
    /// How long it took; none when the face left, or another took its place.
    pub took: Option<Duration>,
    /// When.
    pub at: MonoTime,
}

/// What goes on record about a door.
#[derive(Debug, Clone, PartialEq)]
pub enum DoorEvent {
    /// Somebody was let in.
    Granted(AccessContext),
    /// Somebody was refused.
    Denied {
        /// What was known.
        context: AccessContext,
        /// Why.
        reason: DenyReason,
    },
    /// The relay opened.
    Unlocked {
        /// By which decision; none when the agent opened it by itself (fail safe).
        decision: Option<uuid::Uuid>,
        /// For whom.
        person: Option<PersonId>,
        /// By which command of an operator.
        command: Option<uuid::Uuid>,
    },
    /// Somebody is asked to move.
    Prompted {
        /// Whose track.
        track: TrackId,
        /// What is asked.
        prompt: Prompt,
        /// Which step it is, from 1.
        step: u32,
        /// When.
        at: MonoTime,
    },
    /// A challenge is over.
    ChallengeEnded(ChallengeEnd),
    /// The relay shut.
    Locked {
        /// Why.
        cause: face_core::door::LockCause,
    },
}
