//! Turning photographs into a template, off the async workers and with a bounded queue.
//!
//! In: the bytes of 1 to n photographs. Out: an embedding with its quality, or for each photograph the reasons why it
//! is no good. A full queue is told at once ([`Busy`]): a client that comes back is cheaper than one that waits.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use face_core::quality::{QualityGate, QualityReason};
use face_core::{Embedding, ModelError, Space, ThresholdLadder};
use face_runtime::{AverageError, EnrolError, Enrolled, ModelPack, PhotoError, PhotoLimits, RefusalReason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wire_contract::Code;

use hub_host::metrics::recognition::{self as measured, Pool};
use hub_host::traces::{Part, part};

/// The model pack in use and what goes with it.
pub struct Models {
    /// The pack.
    pub pack: ModelPack,
    /// Similarity from which two people are taken to be one, by how many templates were compared.
    pub duplicates: ThresholdLadder,
}

/// A bounded place where photographs are worked on.
pub struct Enroller {
    models: ArcSwapOption<Models>,
    workers: Arc<Semaphore>,
    /// Workers and waiting places together.
    places: Arc<Semaphore>,
    all_places: usize,
    limits: PhotoLimits,
}

/// Every place is taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

/// What came of one photograph.
#[derive(Debug, Clone)]
pub struct Photograph {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Whether it went into the template.
    pub accepted: bool,
    /// How good it is, in [0, 1]; none when there was not exactly one face.
    pub quality: Option<f32>,
    /// Why not, the most helpful first.
    pub reasons: Vec<Code>,
}

/// A template in the making.
pub struct NewTemplate {
    /// Unit vector.
    pub embedding: Embedding,
    /// How good it is, in [0, 1]: the clarity that doors dock it by, or in a space without the photographs' mean quality.
    pub quality: f32,
    /// The pack's space, and how templates of it are compared.
    pub space: Space,
    /// Its name.
    pub space_id: String,
    /// The pack's version.
    pub model_version: String,
    /// Each photograph's fate.
    pub photographs: Vec<Photograph>,
    /// Similarity from which another person is a duplicate, by how many templates were compared.
    pub duplicates: ThresholdLadder,
}

/// Why there is no template.
#[derive(Debug)]
pub enum Refusal {
    /// No photograph was accepted, or they differ; each one's fate.
    Photographs(Code, Vec<Photograph>),
    /// A model failed: the hub's fault.
    Model(ModelError),
    /// There are no models (yet).
    NoModels,
    /// The work was thrown away by a panic in a decoder or model.
    Crashed,
}

impl Enroller {
    /// `workers` requests at once and `queue` more that wait; photographs within `limits`.
    #[must_use]
    pub fn new(workers: usize, queue: usize, limits: PhotoLimits) -> Self {
        Self {
            models: ArcSwapOption::empty(),
            workers: Arc::new(Semaphore::new(workers)),
            places: Arc::new(Semaphore::new(workers + queue)),
            all_places: workers + queue,
            limits,
        }
    }

    /// Puts models to use; requests under way finish with the ones they began with.
    pub fn set_models(&self, models: Models) {
        self.models.store(Some(Arc::new(models)));
    }

    /// Whether there are models.
    #[must_use]
    pub fn has_models(&self) -> bool {
        self.models.load().is_some()
    }

    /// The models in use.
    pub fn models(&self) -> Option<Arc<Models>> {
        self.models.load_full()
    }

    /// The space that the models work in, and the similarities from which two people are taken to be one.
    #[must_use]
    pub fn space(&self) -> Option<(Space, ThresholdLadder)> {
        let models = self.models.load();
        models.as_ref().map(|models| (models.pack.manifest().space(), models.duplicates.clone()))
    }

    /// Takes a place, or says [`Busy`] at once. Take it before the photographs are read: places bound the memory too.
    pub fn enter(&self) -> Result<Place, Busy> {
        Arc::clone(&self.places).try_acquire_owned().map(Place).map_err(|_| {
            measured::turned_away(Pool::Photographs);
            Busy
        })
    }

    /// Tells how many places are taken.
    pub fn measure(&self) {
        measured::queue(Pool::Photographs, self.all_places - self.places.available_permits(), self.all_places);
    }

    /// Works on the photographs of one person.
    pub async fn enrol(&self, place: Place, photographs: Vec<Bytes>) -> Result<NewTemplate, Refusal> {
        self.work(place, photographs, QualityGate::enrol()).await
    }

    /// Works on a picture of somebody who was taken for another. It may come from a door's camera, so that it is judged as
    /// a door judges: what a door can mistake must be good enough to say so.
    pub async fn anchor(&self, place: Place, picture: Bytes) -> Result<NewTemplate, Refusal> {
        self.work(place, vec![picture], QualityGate::matching()).await
    }

    async fn work(&self, place: Place, photographs: Vec<Bytes>, gate: QualityGate) -> Result<NewTemplate, Refusal> {
        self.run(place, move |models, limits| work(models, &photographs, limits, &gate)).await
    }

    /// Works on photographs with the models, off the async workers.
    pub async fn run<T: Send + 'static, E: From<Refusal> + Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce(&Models, &PhotoLimits) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.run_and_keep(place, work).await.map(|(done, _)| done)
    }

    /// The same, for whoever has more work for the place.
    pub async fn run_and_keep<T: Send + 'static, E: From<Refusal> + Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce(&Models, &PhotoLimits) -> Result<T, E> + Send + 'static,
    ) -> Result<(T, Place), E> {
        let models = self.models.load_full().ok_or(Refusal::NoModels)?;
        let worker = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| Refusal::Crashed)?;
        let (limits, span) = (self.limits, tracing::Span::current());
        // The permits go into the task: a client that leaves does not free a place that is still being worked at.
        let work = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let outcome = span.in_scope(|| work(&models, &limits));
            measured::models_worked(begun.elapsed());
            drop(worker);
            outcome.map(|done| (done, place))
        });
        part(Part::Models, work).await.unwrap_or_else(|_| Err(Refusal::Crashed.into()))
    }
}

/// A place in the queue; given back when dropped.
pub struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

fn work(
    models: &Models,
    photographs: &[Bytes],
    limits: &PhotoLimits,
    gate: &QualityGate,
) -> Result<NewTemplate, Refusal> {
    let mut fates = Vec::with_capacity(photographs.len());
    let mut accepted = Vec::new();
    for (index, bytes) in photographs.iter().enumerate() {
        let (fate, enrolled) = one(&models.pack, index, bytes, limits, gate).map_err(Refusal::Model)?;
        fates.push(fate);
        accepted.extend(enrolled);
    }
    if accepted.is_empty() {
        let code = fates.iter().find_map(|fate| fate.reasons.first()).copied().unwrap_or(Code::NoFace);
        return Err(Refusal::Photographs(code, fates));
    }
    let qualities: Vec<f32> = fates.iter().filter(|fate| fate.accepted).filter_map(|fate| fate.quality).collect();
    let accepted: Vec<(Embedding, f32)> =
        accepted.into_iter().map(|enrolled| enrolled.embedding).zip(qualities).collect();
    let (embedding, quality) = match average(models, &accepted) {
        Ok(mean) => mean,
        Err(AverageError::DifferentPeople { .. } | AverageError::NoMean(_)) => {
            measured::refused_for(Code::PhotosDiffer.as_str());
            for fate in fates.iter_mut().filter(|fate| fate.accepted) {
                fate.accepted = false;
                fate.reasons.push(Code::PhotosDiffer);
            }
            return Err(Refusal::Photographs(Code::PhotosDiffer, fates));
        }
    };
    let manifest = models.pack.manifest();
    Ok(NewTemplate {
        quality,
        embedding,
        space: manifest.space(),
        space_id: manifest.space_id.clone(),
        model_version: format!("{} {}", manifest.name, manifest.version),
        photographs: fates,
        duplicates: models.duplicates.clone(),
    })
}

/// The mean of templates of one person, and the quality that doors dock it by, where the pack has a scale for it; else the mean of
/// the photographs' own.
pub fn average(models: &Models, accepted: &[(Embedding, f32)]) -> Result<(Embedding, f32), AverageError> {
    let embeddings: Vec<Embedding> = accepted.iter().map(|(embedding, _)| embedding.clone()).collect();
    let mean = face_runtime::average_embeddings(&models.pack, &embeddings)?;
    let count = f32::from(u16::try_from(accepted.len().max(1)).unwrap_or(u16::MAX));
    let quality = accepted.iter().map(|(_, quality)| quality).sum::<f32>() / count;
    let quality = models.pack.manifest().space().quality(mean.handicap(), quality);
    Ok((mean, quality))
}

pub(super) fn one(
    pack: &ModelPack,
    index: usize,
    bytes: &[u8],
    limits: &PhotoLimits,
    gate: &QualityGate,
) -> Result<(Photograph, Option<Enrolled>), ModelError> {
    let refused = |quality, reasons: Vec<Code>| {
        reasons.iter().for_each(|reason| measured::refused_for(reason.as_str()));
        (Photograph { index, accepted: false, quality, reasons }, None)
    };
    let image = match face_runtime::decode_photo(bytes, limits) {
        Ok(image) => image,
        Err(error) => return Ok(refused(None, vec![photo_code(&error)])),
    };
    match face_runtime::enrol_photograph(pack, &image, gate) {
        Ok(enrolled) => {
            let quality = Some(enrolled.examined.quality.overall());
            Ok((Photograph { index, accepted: true, quality, reasons: Vec::new() }, Some(enrolled)))
        }
        Err(EnrolError::Refused(why)) => {
            let quality = why.examined.as_ref().map(|examined| examined.quality.overall());
            Ok(refused(quality, why.reasons.iter().map(|reason| refusal_code(*reason)).collect()))
        }
        Err(EnrolError::Model(error)) => Err(error),
    }
}

pub(super) fn photo_code(error: &PhotoError) -> Code {
    match error {
        PhotoError::TooManyBytes { .. } | PhotoError::TooLarge { .. } => Code::PhotoTooLarge,
        _ => Code::PhotoUnreadable,
    }
}

/// The code of a reason.
#[must_use]
pub fn refusal_code(reason: RefusalReason) -> Code {
    match reason {
        RefusalReason::NoFace => Code::NoFace,
        RefusalReason::SeveralFaces => Code::SeveralFaces,
        RefusalReason::Quality(reason) => match reason {
            QualityReason::TooSmall => Code::FaceTooSmall,
            QualityReason::Blurred => Code::FaceBlurred,
            QualityReason::TooDark => Code::FaceTooDark,
            QualityReason::TooBright => Code::FaceTooBright,
            QualityReason::Turned => Code::FaceTurned,
            QualityReason::Occluded => Code::FaceOccluded,
        },
    }
}
