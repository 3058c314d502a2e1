//! The plain pipeline, kept to measure the real one against: one look for landmarks, one for the embedding.
//!
//! In: a picture and a detected face. Out: what [`crate::photograph`] gives, made the simple way: the landmark model once
//! on the detector's box, the feature model once on a crop read at single points. `edge-agent eval --against plain` is its
//! only user. Its embeddings are of a space of their own ([`SPACE_SUFFIX`]) and must never reach a gallery.
//!
//! Deliberately absent: everything that the real pipeline adds; docs/measurements/accuracy.md says what that is worth.

use face_core::{Detection, Embedding, FivePoints, ModelError, RgbImage};

use crate::pack::ModelPack;
use crate::photograph::{ExaminedFace, examine_with};

/// What tells the space of these embeddings from that of the pack.
pub const SPACE_SUFFIX: &str = "-plain";

/// Measures one detected face by the landmarks of a single pass.
///
/// # Errors
/// As [`crate::examine_face`].
pub fn examine_plainly(pack: &ModelPack, image: &RgbImage, detection: &Detection) -> Result<ExaminedFace, ModelError> {
    examine_with(pack, image, detection, pack.landmarks_once(image, &detection.rect)?)
}

/// The embedding of a single pass.
///
/// # Errors
/// When the points are degenerate, the model cannot run, or its output cannot be normalised.
pub fn embed_plainly(pack: &ModelPack, image: &RgbImage, points: &FivePoints) -> Result<Embedding, ModelError> {
    pack.embed_once(image, points)
}
