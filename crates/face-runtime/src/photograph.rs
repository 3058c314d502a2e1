//! From a photograph of one person to a template, the same on the hub and on the edge.
//!
//! In: a decoded picture and a quality gate. Out: the embedding with its quality, or the reasons for which the
//! picture is refused, in terms that a person can act on. One function serves the hub's uploads, `edge-agent embed`
//! and a door's camera: the same picture gives the same bits everywhere.
//!
//! Deliberately absent: the texts of the reasons and their stable codes (`wire-contract`), storing, and whether the
//! person is already enrolled under another name (the hub asks its index).

use face_core::align::Alignment;
use face_core::quality::{Quality, QualityGate, QualityInput, QualityReason};
use face_core::sample::aligned_grey;
use face_core::{
    Detection, Detector, Embedder, Embedding, EmbeddingError, FivePoints, HeadPose, LandmarkModel, Landmarks68,
    ModelError, PixelRect, PoseModel, RgbImage, Similarity,
};

use crate::pack::ModelPack;

/// A face with all that is known of it before it is embedded.
#[derive(Debug, Clone)]
pub struct ExaminedFace {
    /// Its box in pixels of the picture.
    pub face: PixelRect,
    /// The detector's confidence in [0, 1].
    pub score: f32,
    /// Its 68 landmarks.
    pub landmarks: Landmarks68,
    /// The five points that it is aligned by.
    pub points: FivePoints,
    /// Where it looks.
    pub pose: HeadPose,
    /// How good a picture of it this is.
    pub quality: Quality,
}

/// Measures one detected face: landmarks, alignment, pose, quality. Two model runs.
///
/// # Errors
/// When a model gives no usable answer, or the landmarks determine no alignment.
pub fn examine_face(pack: &ModelPack, image: &RgbImage, detection: &Detection) -> Result<ExaminedFace, ModelError> {
    let face = detection.rect;
    let landmarks = pack.landmarks(image, &face)?;
    let points = landmarks.five_points();
    let alignment = Alignment::fit(&points).map_err(|error| ModelError::new("alignment", error))?;
    let pose = pack.pose(image, &face)?;
    let quality = Quality::measure(&QualityInput {
        aligned: &aligned_grey(image, &alignment),
        face: &face,
        picture: (image.width(), image.height()),
        pose: Some(pose),
    });
    Ok(ExaminedFace { face, score: detection.score, landmarks, points, pose, quality })
}

/// A photograph that was accepted.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The face as a point on the unit sphere of the pack's space.
    pub embedding: Embedding,
    /// The face that it was made from.
    pub examined: ExaminedFace,
}

/// Why a photograph is no good for enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The detector sees no face.
    NoFace,
    /// There is more than one face; whose template would it be?
    SeveralFaces,
    /// The face is there, but the picture of it is not good enough.
    Quality(QualityReason),
}

/// A photograph that was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the photograph is refused: {reasons:?} ({n_faces} faces)")]
pub struct Refused {
    /// At least one reason, the most helpful first.
    pub reasons: Vec<RefusalReason>,
    /// Number of faces found.
    pub n_faces: usize,
    /// What was measured, when there was exactly one face.
    pub examined: Option<Box<ExaminedFace>>,
}

/// Why a photograph gave no template.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The picture is at fault; the person can do something about it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A model is at fault; the operator must do something about it.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Makes a template from a photograph of exactly one person that passes `gate`.
///
/// # Errors
/// [`EnrolError::Refused`] with every reason that applies, or [`EnrolError::Model`].
pub fn enrol_photograph(pack: &ModelPack, image: &RgbImage, gate: &QualityGate) -> Result<Enrolled, EnrolError> {
    let faces = pack.detect(image)?;
    let refuse = |reason| Refused { reasons: vec![reason], n_faces: faces.len(), examined: None };
    let face = match faces.as_slice() {
        [] => return Err(refuse(RefusalReason::NoFace).into()),
        [face] => face,
        _ => return Err(refuse(RefusalReason::SeveralFaces).into()),
    };
    let examined = examine_face(pack, image, face)?;
    let reasons: Vec<_> = gate.reasons(&examined.quality).into_iter().map(RefusalReason::Quality).collect();
    if !reasons.is_empty() {
        return Err(Refused { reasons, n_faces: 1, examined: Some(Box::new(examined)) }.into());
    }
    let embedding = pack.embed(image, &examined.points)?;
    Ok(Enrolled { embedding, examined })
}

/// Why several accepted photographs do not make one template.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AverageError {
    /// Two photographs do not look like one person. Their mean would open the door to both.
    #[error(
        "photographs {first} and {second} do not show the same person (similarity {found:.3}, at least {needed:.3} is needed)"
    )]
    DifferentPeople {
        /// Index of one photograph.
        first: usize,
        /// Index of the other.
        second: usize,
        /// Their cosine.
        found: f32,
        /// The pack's laxest calibrated threshold.
        needed: f32,
    },
    /// There are none, or they cancel each other.
    #[error("the photographs have no mean")]
    NoMean(#[from] EmbeddingError),
}

/// The mean of several accepted photographs of one person. One photograph gives its own embedding, bit for bit.
///
/// # Errors
/// As [`average_embeddings`].
pub fn average_photographs(pack: &ModelPack, photographs: &[Enrolled]) -> Result<Embedding, AverageError> {
    let embeddings: Vec<Embedding> = photographs.iter().map(|photograph| photograph.embedding.clone()).collect();
    average_embeddings(pack, &embeddings)
}

/// From where on two photographs are taken to be of one person: the pack's laxest calibrated threshold.
///
/// # Panics
/// Never: a manifest without a threshold is refused when the pack is opened.
#[must_use]
pub fn one_person_from(pack: &ModelPack) -> Similarity {
    Similarity::new(pack.manifest().thresholds.last().expect("a manifest has at least one threshold").score)
}

/// The mean of several embeddings of one person. One gives itself, bit for bit.
///
/// Every two of them must reach the pack's laxest calibrated threshold. Three photographs instead of one cut the
/// false rejections at cosine 0.50 from 10 % to 2.7 %.
///
/// # Errors
/// [`AverageError`].
pub fn average_embeddings(pack: &ModelPack, embeddings: &[Embedding]) -> Result<Embedding, AverageError> {
    if let [only] = embeddings {
        return Ok(only.clone());
    }
    let needed = one_person_from(pack);
    for (second, embedding) in embeddings.iter().enumerate() {
        for (first, other) in embeddings[..second].iter().enumerate() {
            let found = embedding.similarity(other);
            if found < needed {
                let (found, needed) = (found.value(), needed.value());
                return Err(AverageError::DifferentPeople { first, second, found, needed });
            }
        }
    }
    Ok(Embedding::mean(embeddings)?)
}
