//! What the rest of the system needs from models and cameras, as traits that heavier crates implement.
//!
//! All model methods take `&self`: an implementation keeps a pool of sessions inside, so that several cameras can
//! share it. Deliberately absent: loading, manifests, providers (`face-runtime`); pipelines (`edge-capture`).

use std::error::Error;
use std::time::Duration;

use crate::detect::Detection;
use crate::embedding::Embedding;
use crate::frame::{Frame, RgbImage};
use crate::geometry::PixelRect;
use crate::landmarks::{FivePoints, Landmarks68};
use crate::pose::HeadPose;
use crate::time::MonoTime;

/// A model could not answer. The caller treats the check as *unavailable*, which at a door means no.
#[derive(Debug, thiserror::Error)]
#[error("model {model} gave no usable answer")]
pub struct ModelError {
    /// File or task name of the model.
    pub model: String,
    /// What went wrong: the session, a shape, a value that is not finite.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl ModelError {
    /// Names the model beside the cause.
    pub fn new(model: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { model: model.into(), source: source.into() }
    }
}

/// Finds faces.
pub trait Detector: Send + Sync {
    /// All faces of the picture in its own pixels, best score first; empty when there are none.
    ///
    /// Runs the second pass of [`crate::detect::two_pass`] when the first finds nothing.
    ///
    /// # Errors
    /// When the model cannot run or its output is not finite.
    fn detect(&self, image: &RgbImage) -> Result<Vec<Detection>, ModelError>;
}

/// Finds 68 landmarks of one face.
pub trait LandmarkModel: Send + Sync {
    /// The landmarks in pixels of the picture.
    ///
    /// # Errors
    /// When the model cannot run or its output is not finite.
    fn landmarks(&self, image: &RgbImage, face: &PixelRect) -> Result<Landmarks68, ModelError>;
}

/// Turns an aligned face into an embedding.
pub trait Embedder: Send + Sync {
    /// The embedding of the face whose five points are given (alignment happens inside).
    ///
    /// # Errors
    /// When the points are degenerate, the model cannot run, or its output cannot be normalised.
    fn embed(&self, image: &RgbImage, points: &FivePoints) -> Result<Embedding, ModelError>;

    /// Which space the embeddings live in; embeddings of different spaces must never be compared.
    fn space_id(&self) -> &str;
}

/// The passive model's probabilities in [0, 1] that a face is live, over the crops of [`crate::crop::liveness_crops`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassiveScores {
    /// Over the crop of the box's own shape.
    pub boxed: f32,
    /// Over the square one.
    pub square: f32,
}

impl PassiveScores {
    /// What the window averages: the mean separates live from attack better than either crop.
    #[must_use]
    pub fn mean(self) -> f32 {
        (self.boxed + self.square) / 2.0
    }

    /// These scores within [0, 1]; `None` when one is no number.
    #[must_use]
    pub fn checked(self) -> Option<Self> {
        let finite = self.boxed.is_finite() && self.square.is_finite();
        finite.then(|| Self { boxed: self.boxed.clamp(0.0, 1.0), square: self.square.clamp(0.0, 1.0) })
    }
}

/// Judges one frame of one face for signs of a print or a screen.
pub trait LivenessModel: Send + Sync {
    /// Probabilities that the face is live, one a crop.
    ///
    /// One frame proves little; [`crate::liveness::LivenessWindow`] needs many.
    ///
    /// # Errors
    /// When the model cannot run or its output is not finite.
    fn live_scores(&self, image: &RgbImage, face: &PixelRect) -> Result<PassiveScores, ModelError>;

    /// The mean of [`LivenessModel::live_scores`].
    ///
    /// # Errors
    /// When the model cannot run or its output is not finite.
    fn live_score(&self, image: &RgbImage, face: &PixelRect) -> Result<f32, ModelError> {
        Ok(self.live_scores(image, face)?.mean())
    }
}

/// Estimates where a head points.
pub trait PoseModel: Send + Sync {
    /// The head's pose in degrees, bias included (see [`crate::pose::FRONTAL_PITCH_DEG`]).
    ///
    /// # Errors
    /// When the model cannot run or its output is not finite.
    fn pose(&self, image: &RgbImage, face: &PixelRect) -> Result<HeadPose, ModelError>;
}

/// How closed the eyes are, each as a probability in [0, 1]. Left and right as seen in the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EyeState {
    /// Probability that the eye nearer the left edge of the picture is closed.
    pub left_closed: f32,
    /// Probability that the eye nearer the right edge of the picture is closed.
    pub right_closed: f32,
}

/// Tells open eyes from closed ones.
pub trait EyeModel: Send + Sync {
    /// The state of both eyes of the face with these landmarks.
    ///
    /// # Errors
    /// When an eye lies outside the picture, the model cannot run, or its output is not finite.
    fn eyes(&self, image: &RgbImage, landmarks: &Landmarks68) -> Result<EyeState, ModelError>;
}

/// Why a source has no frame to give just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameUnavailable {
    /// Nothing new came within the waiting time; ask again.
    #[error("no new frame within the waiting time")]
    NotYet,
    /// The source has given no frame for longer than its profile allows and is being rebuilt.
    #[error("the source has stalled")]
    Stalled {
        /// When the last good frame was captured.
        since: MonoTime,
    },
    /// The source came to its end and will give nothing until its medium changes.
    #[error("the source has ended")]
    Ended,
}

/// A camera, seen as a slot that always holds the newest frame; older unread frames are dropped and counted.
pub trait FrameSource: Send {
    /// The newest frame not yet taken, waiting up to `wait` for one.
    ///
    /// # Errors
    /// When there is none; the caller decides whether to ask again.
    fn next_frame(&mut self, wait: Duration) -> Result<Frame, FrameUnavailable>;

    /// How many frames were replaced unread since the source was opened.
    fn dropped(&self) -> u64;
}
