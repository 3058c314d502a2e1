//! The plain embedding, kept to measure the real one against: one run of the model on one crop.
//!
//! In: a picture and the five points of a face. Out: an embedding as docs/measurements/accuracy.md calls plain: no second
//! look, no mirror image, a crop read at single points, compared by the bare cosine. `edge-agent eval --against plain` is its only user. Such
//! embeddings are of another space than the pack's and must never reach a gallery.
//!
//! Deliberately absent: detection, landmarks and quality, which both share ([`crate::examine_face`]).

use face_core::{Embedding, FivePoints, ModelError, RgbImage};

use crate::pack::ModelPack;

/// The embedding of a single run.
///
/// # Errors
/// When the points are degenerate, the model cannot run, or its output cannot be normalised.
pub fn embed_plainly(pack: &ModelPack, image: &RgbImage, points: &FivePoints) -> Result<Embedding, ModelError> {
    pack.embed_once(image, points)
}
