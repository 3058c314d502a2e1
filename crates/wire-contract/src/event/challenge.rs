//! A challenge at a door: what somebody is asked to do, and how it ended.
//!
//! In and out: the `data` of the events of these names. The movements of an attempt are told one by one, each when it is asked
//! for: whoever reads the feed learns no step before the person does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Reason;
use crate::guidance::Prompt;

/// Somebody is asked to move. The device raises it, for each step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LivenessPromptedData {
    /// The door's id in the agent's configuration.
    pub door: String,
    /// The camera's id there.
    pub camera: String,
    /// The face's track, counted since the agent started.
    pub track: u64,
    /// What is to be done, as the person sees it.
    pub prompt: Prompt,
    /// Which step it is, from 1.
    pub step: u32,
    /// How many there are.
    pub steps: u32,
    /// How long the person has for it once they look into the camera.
    pub within_ms: u64,
}

/// An attempt is over. The device raises it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LivenessChallengeEndedData {
    /// The door's id in the agent's configuration.
    pub door: String,
    /// The camera's id there.
    pub camera: String,
    /// The face's track.
    pub track: u64,
    /// Whether every movement came as it was asked for.
    pub passed: bool,
    /// Why not; `null` when it was passed.
    pub reason: Option<Reason>,
    /// Steps that were answered.
    pub answered: u32,
    /// How many there were.
    pub steps: u32,
    /// How long it took; `null` when the face left or another took its place.
    pub took_ms: Option<u64>,
}
