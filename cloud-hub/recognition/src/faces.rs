//! What is on one photograph: faces, how good they are, whether they are plainly an attack, and the template of one.
//!
//! Blocking work on the models; [`enroller`](super::enroller) gives it a thread. The same code as enrolment's and a door's, so that one picture
//! gives one template everywhere.

use face_core::quality::QualityGate;
use face_core::{Detector as _, Embedding, LivenessModel as _, RgbImage};
use face_runtime::{EnrolError, ExaminedFace, PhotoLimits, examine_face};
use wire_contract::Code;

use super::enroller::{Models, Refusal, photo_code, refusal_code};
use hub_domain::recognition::StillLife;
use hub_host::metrics::recognition as measured;

/// Faces of one photograph that are looked at closely, the largest first: a picture of a crowd is not to keep a worker.
const MAX_FACES: usize = 16;

/// Why there is no answer about a photograph.
#[derive(Debug)]
pub enum NoFace {
    /// The photograph is at fault: every reason, the most helpful first.
    Photograph(Vec<Code>),
    /// The hub is.
    Hub(Refusal),
}

impl From<Refusal> for NoFace {
    fn from(refusal: Refusal) -> Self {
        Self::Hub(refusal)
    }
}

/// The photograph is at fault, which is counted.
fn refused(reasons: Vec<Code>) -> NoFace {
    reasons.iter().for_each(|reason| measured::refused_for(reason.as_str()));
    NoFace::Photograph(reasons)
}

fn decoded(bytes: &[u8], limits: &PhotoLimits) -> Result<RgbImage, NoFace> {
    face_runtime::decode_photo(bytes, limits).map_err(|error| refused(vec![photo_code(&error)]))
}

fn model(error: face_core::ModelError) -> NoFace {
    NoFace::Hub(Refusal::Model(error))
}

/// All faces, the largest first, at most sixteen of them; and how many there are.
pub fn all(models: &Models, limits: &PhotoLimits, bytes: &[u8]) -> Result<(Vec<ExaminedFace>, usize), NoFace> {
    let image = decoded(bytes, limits)?;
    let mut found = models.pack.detect(&image).map_err(model)?;
    let count = found.len();
    found.sort_by(|a, b| (b.rect.width() * b.rect.height()).total_cmp(&(a.rect.width() * a.rect.height())));
    let examined = found.iter().take(MAX_FACES).map(|face| examine_face(&models.pack, &image, face).map_err(model));
    Ok((examined.collect::<Result<_, _>>()?, count))
}

/// The only face.
pub fn one(models: &Models, limits: &PhotoLimits, bytes: &[u8]) -> Result<(RgbImage, ExaminedFace), NoFace> {
    let image = decoded(bytes, limits)?;
    let found = models.pack.detect(&image).map_err(model)?;
    match found.as_slice() {
        [] => Err(refused(vec![Code::NoFace])),
        [face] => {
            let examined = examine_face(&models.pack, &image, face).map_err(model)?;
            Ok((image, examined))
        }
        _ => Err(refused(vec![Code::SeveralFaces])),
    }
}

/// Whether the only face is plainly an attack.
pub fn life(models: &Models, limits: &PhotoLimits, bytes: &[u8]) -> Result<(StillLife, ExaminedFace), NoFace> {
    let (image, face) = one(models, limits, bytes)?;
    Ok((life_of(models, &image, &face)?, face))
}

fn life_of(models: &Models, image: &RgbImage, face: &ExaminedFace) -> Result<StillLife, NoFace> {
    let scores = models.pack.live_scores(image, &face.face).map_err(model)?;
    let life = StillLife::of(scores);
    measured::liveness(life.attack);
    Ok(life)
}

/// A face that can be compared.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Its point in the space of the models.
    pub embedding: Embedding,
    /// What it was made of.
    pub face: ExaminedFace,
    /// What the photograph says of life; none if nobody asked.
    pub life: Option<StillLife>,
}

/// The template of the only face, if it is good enough to be compared at a door.
pub fn probe(models: &Models, limits: &PhotoLimits, bytes: &[u8], with_life: bool) -> Result<Probe, NoFace> {
    let image = decoded(bytes, limits)?;
    let enrolled = match face_runtime::enrol_photograph(&models.pack, &image, &QualityGate::matching()) {
        Ok(enrolled) => enrolled,
        Err(EnrolError::Refused(why)) => {
            return Err(refused(why.reasons.iter().map(|reason| refusal_code(*reason)).collect()));
        }
        Err(EnrolError::Model(error)) => return Err(model(error)),
    };
    let life = with_life.then(|| life_of(models, &image, &enrolled.examined)).transpose()?;
    Ok(Probe { embedding: enrolled.embedding, face: enrolled.examined, life })
}
