//! What a door asks of the person before it, for a display beside the door.
//!
//! In and out: the JSON that the agent's control socket answers to `guidance` with, and the prompts of liveness events. Sides are
//! the person's own, left being their left hand: who shows it need not know how the camera stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::Code;
use crate::texts::{Language, text};

/// A movement that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Turn the head to the own left, and back.
    TurnLeft,
    /// Turn the head to the own right, and back.
    TurnRight,
    /// Nod, and look up again.
    Nod,
    /// Shut both eyes and open them.
    Blink,
}

impl Prompt {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TurnLeft, Self::TurnRight, Self::Nod, Self::Blink];

    /// The id of its text.
    #[must_use]
    pub const fn text_id(self) -> &'static str {
        match self {
            Self::TurnLeft => "prompt.turn_left",
            Self::TurnRight => "prompt.turn_right",
            Self::Nod => "prompt.nod",
            Self::Blink => "prompt.blink",
        }
    }

    /// Its text.
    #[must_use]
    pub fn text(self, language: Language) -> &'static str {
        text(self.text_id(), language).unwrap_or_default()
    }
}

/// One door's guidance at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DoorGuidance {
    /// The door's id in the agent's configuration.
    pub door: String,
    /// What to show.
    #[serde(flatten)]
    pub show: Show,
}

/// What to show.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Show {
    /// Nothing is asked.
    Idle,
    /// This is to be done now.
    Prompt {
        /// What.
        prompt: Prompt,
        /// Which step it is, from 1.
        step: u32,
        /// How many there are.
        steps: u32,
        /// How long the person has for it once they look into the camera.
        within_ms: u64,
    },
    /// All was done as asked.
    Passed,
    /// It was not.
    Failed {
        /// Why.
        code: Code,
    },
}
