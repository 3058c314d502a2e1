//! What the frames of a session give: whether each is good enough, whether they are of one person, and what they say of life.
//!
//! Blocking work on the models; [`enroller`](super::enroller) gives it a thread. An enrolment's frames go through enrolment's own gate, those of a
//! verification or identification through a door's. Every frame is held against the first one that was accepted, so that nobody
//! can show one face for the identity and another one for the life.

use bytes::Bytes;
use face_core::align::Alignment;
use face_core::liveness::{EyeLook, digest, glow};
use face_core::quality::{QualityGate, QualityReason};
use face_core::sample::aligned_grey;
use face_core::{Detector as _, Embedder as _, Embedding, EyeModel as _, LivenessModel as _, ModelError, RgbImage};
use face_runtime::{ExaminedFace, PhotoLimits, RefusalReason, examine_face, one_person_from};
use wire_contract::Code;

use super::enroller::{Models, Refusal, one, photo_code, refusal_code};
use hub_domain::session::life::Look;
use hub_domain::session::{Kind, Seen};

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Sent {
    /// JPEG, PNG or WebP.
    pub bytes: Bytes,
    /// When it was taken, in milliseconds since the session was opened.
    pub at_ms: u64,
    /// The prompt that it answers, if it says that it does.
    pub prompt: Option<u16>,
}

/// Looks at frames in the order in which they were taken. `first` is the template of the first one that was accepted before.
pub fn look_at(
    models: &Models,
    limits: &PhotoLimits,
    kind: Kind,
    sent: &[Sent],
    mut first: Option<Embedding>,
) -> Result<Vec<Seen>, Refusal> {
    let mut all = Vec::with_capacity(sent.len());
    for frame in sent {
        let seen = match kind {
            Kind::Enrolment => photograph(models, limits, frame, first.as_ref()),
            Kind::Verification | Kind::Identification => living(models, limits, frame, first.as_ref()),
        };
        let seen = seen.map_err(Refusal::Model)?;
        if first.is_none() {
            first.clone_from(&seen.embedding);
        }
        all.push(seen);
    }
    Ok(all)
}

fn refused(quality: Option<f32>, reasons: Vec<Code>) -> Seen {
    Seen { accepted: false, quality, reasons, look: None, embedding: None }
}

fn is_other(models: &Models, embedding: &Embedding, first: Option<&Embedding>) -> bool {
    first.is_some_and(|first| first.similarity(embedding) < one_person_from(&models.pack))
}

fn photograph(
    models: &Models,
    limits: &PhotoLimits,
    frame: &Sent,
    first: Option<&Embedding>,
) -> Result<Seen, ModelError> {
    let (fate, enrolled) = one(&models.pack, 0, &frame.bytes, limits, &QualityGate::enrol())?;
    let Some(enrolled) = enrolled else { return Ok(refused(fate.quality, fate.reasons)) };
    if is_other(models, &enrolled.embedding, first) {
        return Ok(refused(fate.quality, vec![Code::PhotosDiffer]));
    }
    Ok(Seen {
        accepted: true,
        quality: fate.quality,
        reasons: Vec::new(),
        look: None,
        embedding: Some(enrolled.embedding),
    })
}

/// A frame of somebody who may be moving their head: one that is turned cannot be compared with a gallery, and is held against the
/// first one all the same.
fn living(models: &Models, limits: &PhotoLimits, frame: &Sent, first: Option<&Embedding>) -> Result<Seen, ModelError> {
    let image = match face_runtime::decode_photo(&frame.bytes, limits) {
        Ok(image) => image,
        Err(error) => return Ok(refused(None, vec![photo_code(&error)])),
    };
    let found = models.pack.detect(&image)?;
    let face = match found.as_slice() {
        [] => return Ok(refused(None, vec![Code::NoFace])),
        [face] => examine_face(&models.pack, &image, face)?,
        _ => return Ok(refused(None, vec![Code::SeveralFaces])),
    };
    let quality = Some(face.quality.overall());
    let found = QualityGate::matching().reasons(&face.quality);
    let reasons: Vec<Code> = found.iter().map(|reason| refusal_code(RefusalReason::Quality(*reason))).collect();
    if found.iter().any(|reason| *reason != QualityReason::Turned) {
        return Ok(refused(quality, reasons));
    }
    let accepted = reasons.is_empty();
    if !accepted && first.is_none() {
        // Whose turned head it is cannot be told.
        return Ok(refused(quality, reasons));
    }
    let embedding = models.pack.embed(&image, &face.points)?;
    if is_other(models, &embedding, first) {
        return Ok(refused(quality, vec![Code::PhotosDiffer]));
    }
    let look = Some(look(models, &image, &face, frame));
    Ok(Seen { accepted, quality, reasons, look, embedding: accepted.then_some(embedding) })
}

/// What cannot be measured is left out, and whoever judges life takes that for no sign of it.
fn look(models: &Models, image: &RgbImage, face: &ExaminedFace, frame: &Sent) -> Look {
    let scores = models.pack.live_scores(image, &face.face).ok().and_then(|scores| scores.checked());
    let eyes = models.pack.eyes(image, &face.landmarks).ok().map(|state| EyeLook {
        aspect_ratio: face.landmarks.eye_aspect_ratio(),
        closed: state.left_closed.min(state.right_closed),
    });
    let aligned = Alignment::fit(&face.points).ok().map(|alignment| aligned_grey(image, &alignment));
    Look {
        at_ms: frame.at_ms,
        pose: face.pose,
        // Of a turned head too: a print that is held aslant is one. Whoever judges life counts the frontal ones alone.
        passive: scores,
        glow: aligned.and_then(|aligned| glow(&aligned, image)).filter(|glow| glow.is_finite()),
        eyes: eyes.filter(|eyes| eyes.aspect_ratio.is_finite() && eyes.closed.is_finite()),
        digest: digest(image, &face.face),
        prompt: frame.prompt,
    }
}
