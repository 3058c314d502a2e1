//! What is compared: the template behind a photograph, or the one in its place.

use axum::body::Bytes;
use face_core::{Embedding, Space};
use wire_contract::Code;

use super::IMAGE;
use super::answers::no_face;
use super::input::{GivenTemplate, Input};
use crate::body::Fields;
use crate::enrolments::RETRY_AFTER_SECONDS;
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::recognition::StillLife;
use hub_host::metrics::recognition::{self as measured, Pool};
use hub_recognition::comparisons::NotCompared;
use hub_recognition::enroller::Place;
use hub_recognition::faces;
use hub_recognition::galleries::GalleryError;

impl From<GalleryError> for ApiError {
    fn from(error: GalleryError) -> Self {
        match error {
            GalleryError::Keys(error) => error.into(),
            GalleryError::NotCompared(why) => why.into(),
            error => Self::internal(&error),
        }
    }
}

/// What is compared: a photograph, or the template in its place.
pub(super) enum Sought {
    Photograph(Bytes),
    Template(Box<Embedding>),
}

pub(super) fn sought(
    photograph: Option<Bytes>,
    template: Option<Embedding>,
    name: &str,
    template_name: &str,
) -> Result<Sought, ApiError> {
    match (photograph, template) {
        (Some(bytes), None) => Ok(Sought::Photograph(bytes)),
        (None, Some(embedding)) => Ok(Sought::Template(Box::new(embedding))),
        (Some(_), Some(_)) => {
            let message = format!("send {name} or {template_name}, not both");
            Err(ApiError::field(format!("/{template_name}"), Code::InvalidField, message))
        }
        (None, None) => {
            let message = format!("a photograph is needed, or {template_name} in its place");
            Err(ApiError::field(format!("/{name}"), Code::MissingField, message))
        }
    }
}

pub(super) fn the_probe<T: Fields>(
    input: &mut Input<T>,
    space: &Space,
    template: impl Fn(&T) -> &Option<GivenTemplate>,
) -> Result<Sought, ApiError> {
    let photograph = input.photograph(IMAGE);
    let given = template(&input.options).as_ref().map(|template| template.embedding(space, "/template")).transpose()?;
    sought(photograph, given, IMAGE, "template")
}

/// What is compared in the end.
pub(super) struct Probed {
    pub(super) embedding: Embedding,
    pub(super) life: Option<StillLife>,
}

/// The template behind a photograph. The place comes back for a second one.
pub(super) async fn probed(
    api: &Api,
    probe: Sought,
    place: Option<Place>,
    name: &'static str,
    with_life: bool,
) -> Result<(Probed, Option<Place>), ApiError> {
    let bytes = match probe {
        Sought::Template(embedding) => {
            return Ok((Probed { embedding: *embedding, life: None }, place));
        }
        Sought::Photograph(bytes) => bytes,
    };
    let place = place.ok_or_else(|| ApiError::of(Code::Internal))?;
    let work = api.enroller.run_and_keep(place, move |models, limits| faces::probe(models, limits, &bytes, with_life));
    let (probe, place) = work.await.map_err(|why| no_face(why, name))?;
    Ok((Probed { embedding: probe.embedding, life: probe.life }, Some(place)))
}

impl From<NotCompared> for ApiError {
    fn from(why: NotCompared) -> Self {
        match why {
            NotCompared::Busy => {
                measured::turned_away(Pool::Comparisons);
                Self::because(Code::Unavailable, why.to_string()).retry_after(RETRY_AFTER_SECONDS)
            }
            NotCompared::Crashed => Self::internal(&why),
        }
    }
}
