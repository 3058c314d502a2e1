//! Is this a living person? Evidence of many frames of one track in, one verdict out. Fails closed.
//!
//! In: per frame the time, the pose, the passive model's scores and the aligned face's [`Appearance`]
//! ([`LivenessEvidence`]). The [`LivenessWindow`] makes [`Findings`] of them, one [`Check`] a [`Method`]; [`judge`] fuses
//! these into a [`LivenessVerdict`] by what a door demands ([`Demand`]). Thresholds are the camera's and stand in
//! [`LivenessPolicy`]; which methods must pass is the door's.
//!
//! A still photograph, however it is panned, tilted and zoomed, hardly changes once aligned, and shows no sign of life. A
//! replayed video of a moving person shows all of them; only the passive model and a random challenge stand against it.
//! Deliberately absent: models, pixels of whole frames, clocks.

mod appearance;
mod blink;
mod challenge;
mod findings;
mod fusion;
mod head;
mod injection;
mod interview;
mod look;
pub mod planes;
mod shape;
mod still;
pub mod texture;
mod window;

use std::time::Duration;

use crate::models::PassiveScores;
use crate::pose::HeadPose;
use crate::time::MonoTime;

pub use appearance::{Appearance, Change};
pub use blink::EyeLook;
pub use challenge::{Challenge, ChallengeLook, Failure, Movement, STEP_LIMIT, STEPS};
pub use findings::{Check, CheckState, Findings, Method};
pub use fusion::{Demand, LivenessVerdict, Methods, judge};
pub use interview::{ChallengeRule, Interview, MAX_FAILURES, Turn};
pub use look::{digest, glow};
pub use shape::FaceShape;
pub use still::judge_still;
pub use window::LivenessWindow;

/// What one frame says about one track.
#[derive(Clone, Debug, PartialEq)]
pub struct LivenessEvidence {
    /// When the frame was captured.
    pub captured_at: MonoTime,
    /// The head's pose; a frame without one does not count as frontal.
    pub pose: Option<HeadPose>,
    /// The passive model's scores; `None` when the model could not answer.
    pub passive: Option<PassiveScores>,
    /// The aligned face; `None` when it could not be aligned, or is cut by the picture's edge.
    pub appearance: Option<Appearance>,
    /// The landmarks' measures.
    pub shape: Option<FaceShape>,
    /// The eyes; `None` when the model could not answer.
    pub eyes: Option<EyeLook>,
    /// How much brighter the face is than the whole picture, as a ratio of mean lumas.
    pub glow: Option<f32>,
    /// Share of skin patterns that are not uniform ([`texture::not_uniform`]).
    pub texture: Option<f32>,
    /// A digest of the face's own pixels, as the camera gave them.
    pub face_digest: Option<u64>,
    /// Relief of the face ([`planes::relief_mm`]); `None` without a depth plane.
    pub relief_mm: Option<f32>,
    /// Reflection of the face ([`planes::reflection`]); `None` without an infrared plane.
    pub reflection: Option<(f32, f32)>,
}

impl LivenessEvidence {
    /// A frame of which nothing is known but its time.
    #[must_use]
    pub fn at(captured_at: MonoTime) -> Self {
        Self {
            captured_at,
            pose: None,
            passive: None,
            appearance: None,
            shape: None,
            eyes: None,
            glow: None,
            texture: None,
            face_digest: None,
            relief_mm: None,
            reflection: None,
        }
    }
}

/// The thresholds of the checks. Where each comes from: docs/measurements/liveness-2026-11-22.md.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LivenessPolicy {
    /// Frontal frames that the means need.
    pub min_frontal_frames: usize,
    /// Degrees from frontal up to which a frame counts as frontal.
    pub max_frontal_deviation_deg: f32,
    /// A mean passive score above this passes, if
    pub pass_above: f32,
    /// the mean of each crop is above this.
    pub both_above: f32,
    /// The same as `pass_above` for a face that outshines its picture, as a screen does.
    pub glowing_pass_above: f32,
    /// A mean passive score below this is an attack, whatever the light.
    pub attack_below: f32,
    /// The same for a face that outshines its picture, as a screen does.
    pub glowing_attack_below: f32,
    /// A face this much brighter than the whole picture outshines it.
    pub glowing_above: f32,
    /// A face this dark against the whole picture is backlit: the passive model accuses nobody then.
    pub backlit_below: f32,
    /// A mean passive score from here up to `pass_above` is uncertain: a door may ask for a challenge.
    pub uncertain_from: f32,
    /// A single picture of which a crop scores below this is an attack.
    pub still_attack_below: f32,
    /// Ranked change, in units of what a flat picture makes ([`Change::excess`]), that a living face reaches.
    pub moving_change: f32,
    /// Ranked change below which a face is as still as a photograph.
    pub still_change: f32,
    /// How long a face may be as still as a photograph before it is taken for one.
    pub still_patience: Duration,
    /// How much of the past a verdict rests on; not shorter than `still_patience`.
    pub horizon: Duration,
}

impl LivenessPolicy {
    /// The mean passive score above which a face of this brightness against its picture passes.
    #[must_use]
    pub fn pass_above(&self, glow: Option<f32>) -> f32 {
        match glow {
            Some(glow) if glow > self.glowing_above => self.glowing_pass_above,
            _ => self.pass_above,
        }
    }

    /// The mean passive score below which a face of this brightness against its picture is an attack; `None` when the
    /// light forbids to say so.
    #[must_use]
    pub fn attack_below(&self, glow: Option<f32>) -> Option<f32> {
        match glow {
            Some(glow) if glow < self.backlit_below => None,
            Some(glow) if glow > self.glowing_above => Some(self.glowing_attack_below),
            _ => Some(self.attack_below),
        }
    }
}

impl Default for LivenessPolicy {
    /// **Passive.** One frame is weak (about 4 % APCER, 17 % BPCER), so that at least eight frontal ones are averaged, two
    /// thirds of a second. Means of both crops over all frontal frames: live clips 0.63 (dark), 0.84, 0.93, 0.96, 1.00, and
    /// strongly backlit 0.15; phone replays 0.00, 0.00, 0.20; panned press photographs 0.00 to 1.00, which is why a sign of
    /// life is asked for. The crop of the face's own shape alone: dark live clip 0.32, a tablet and a cut-out 0.06 and
    /// 0.03. Frames turned by more than 30° score erratically and are left out.
    ///
    /// **Light.** Face luma against the picture's: live 0.55 to 1.0, backlit 0.71, prints 0.8 to 1.2, phone and tablet
    /// screens 1.4 to 2.1. The backlit clip scores as low as 0.03 over a second, as replays do, and one replay as high as 0.51,
    /// as live clips do; light tells them apart, and a screen cannot help shining.
    ///
    /// **Change.** Third highest excess of a second of comparisons, and its trade-off against time: see the measurement.
    fn default() -> Self {
        Self {
            min_frontal_frames: 8,
            max_frontal_deviation_deg: 30.0,
            pass_above: 0.5,
            both_above: 0.2,
            glowing_pass_above: 0.75,
            attack_below: 0.05,
            glowing_attack_below: 0.25,
            glowing_above: 1.3,
            backlit_below: 0.75,
            uncertain_from: 0.25,
            still_attack_below: 0.1,
            moving_change: 1.15,
            still_change: 0.8,
            still_patience: Duration::from_secs(4),
            horizon: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests;
