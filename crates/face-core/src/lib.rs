//! The pure heart of Lintel: from pixels to a door decision, as functions of their arguments.
//!
//! **In:** RGB frames with a monotonic capture time, the raw output of the models, the rows of a gallery.
//! **Out:** faces, alignments, quality with reasons, tracks, embeddings, open-set identifications, liveness
//! verdicts, and the effects a door's driver must carry out.
//!
//! **Deliberately absent:** files, sockets, threads, async, randomness and clocks. Time is always an argument
//! ([`MonoTime`]); models, cameras and galleries are traits that other crates implement. This is why every rule
//! here can be tested in microseconds and replayed from a recording.
//!
//! Where to start reading: [`frame`] and [`geometry`] are the nouns; then the modules follow the line of a frame:
//! [`detect`] → [`landmarks`] → [`align`] → [`quality`] → [`track`] → [`embedding`] (with [`clarity`]) → [`mod@identify`], beside it
//! [`liveness`], and at the end [`door`]. [`crop`] and [`sample`] turn boxes and pixels into tensors.

pub mod align;
pub mod clarity;
pub mod crop;
pub mod detect;
pub mod door;
pub mod embedding;
pub mod frame;
pub mod gallery;
pub mod geometry;
pub mod identify;
pub mod landmarks;
pub mod liveness;
pub mod models;
pub mod pose;
pub mod quality;
pub mod sample;
pub mod time;
pub mod track;

pub use clarity::{Clarity, ClarityScale, Space};
pub use detect::Detection;
pub use embedding::{DIM, Embedding, EmbeddingError, Similarity, rank};
pub use frame::{Frame, FrameError, RgbImage};
pub use gallery::{Gallery, PersonId, Ranked, TemplateId};
pub use geometry::{PixelRect, Point, Similarity2d};
pub use identify::{Identification, OpenSetPolicy, OpenSetRules, ThresholdLadder, ThresholdStep, identify};
pub use landmarks::{FivePoints, Landmarks68};
pub use models::{
    Detector, Embedder, EyeModel, EyeState, FrameSource, FrameUnavailable, LandmarkModel, LivenessModel, ModelError,
    PassiveScores, PoseModel,
};
pub use pose::HeadPose;
pub use time::MonoTime;
pub use track::TrackId;
