//! What a request of recognition holds: photographs and templates, as JSON with base64 or as a form.
//!
//! A form has a part for each photograph, and a part `options` with everything else as JSON. JSON has the photographs in base64
//! beside the rest. Whatever may be large takes a place at the models first: places bound the memory too.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::multipart::Multipart;
use axum::extract::{FromRequest as _, Request};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use face_core::{Embedding, Space};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wire_contract::Code;

use crate::body::{Fields, parse};
use crate::enrolments::{RETRY_AFTER_SECONDS, multipart_error, not_a_form, read_field};
use crate::openapi::texts;
use crate::problem::ApiError;
use crate::state::Api;
use hub_recognition::enroller::{Busy, Place};

/// A request that says it is no longer than this holds a template at most, and needs no place to be read.
const SMALL: u64 = 64 * 1024;

/// A request that was read.
pub(super) struct Input<T> {
    /// Everything but photographs.
    pub(super) options: T,
    photographs: BTreeMap<&'static str, Bytes>,
    place: Option<Place>,
}

/// A template of the caller's.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GivenTemplate)]
pub(crate) struct GivenTemplate {
    /// The space in which it can be compared; that of the models in use.
    space_id: String,
    /// 512 numbers of 32 bits, little endian, of unit norm, in base64.
    #[schema(value_type = texts::Base64)]
    vector: String,
    /// How good the photographs were that it was made of, in [0, 1]: templates of poor ones are docked.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    quality: Option<f32>,
}

impl GivenTemplate {
    /// Reads it; `pointer` is its place in the request.
    pub(super) fn embedding(&self, space: &Space, pointer: &str) -> Result<Embedding, ApiError> {
        let invalid =
            |field: &str, message: String| ApiError::field(format!("{pointer}/{field}"), Code::InvalidField, message);
        if self.space_id != space.id {
            return Err(invalid("space_id", format!("the models in use work in {}", space.id)));
        }
        let bytes = STANDARD.decode(&self.vector).map_err(|_| invalid("vector", String::from("is no base64")))?;
        let embedding = Embedding::from_le_bytes(&bytes).map_err(|error| invalid("vector", error.to_string()))?;
        let quality = self.quality.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&quality) {
            return Err(invalid("quality", String::from("must lie in [0, 1]")));
        }
        Ok(embedding.with_handicap(space.handicap(quality)))
    }
}

impl<T: Fields> Input<T> {
    /// Reads a request whose photographs may have these names.
    pub(super) async fn read(api: &Api, request: Request, names: &[&'static str]) -> Result<Self, ApiError> {
        let Kind { small, form, json } = Kind::of(request.headers());
        let place = if small { None } else { Some(enter(api)?) };
        let (options, photographs) = match (form, json) {
            (true, _) => read_form(api, request, names).await?,
            (_, true) => read_json(api, request, names).await?,
            _ => {
                return Err(ApiError::because(
                    Code::UnsupportedMediaType,
                    "send application/json or multipart/form-data",
                ));
            }
        };
        let place = if photographs.is_empty() { None } else { Some(place.map_or_else(|| enter(api), Ok)?) };
        Ok(Self { options: parse(Value::Object(options))?, photographs, place })
    }

    /// A photograph, if it was sent.
    pub(super) fn photograph(&mut self, name: &str) -> Option<Bytes> {
        self.photographs.remove(name)
    }

    /// The place at the models of a request with photographs.
    pub(super) fn place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// The only photograph, which must be there.
    pub(super) fn needed(&mut self, name: &str) -> Result<(Bytes, Place), ApiError> {
        let missing = || ApiError::field(format!("/{name}"), Code::MissingField, "a photograph is needed");
        Ok((self.photograph(name).ok_or_else(missing)?, self.place().ok_or_else(missing)?))
    }
}

/// What a request says of its body.
struct Kind {
    small: bool,
    form: bool,
    json: bool,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Self {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let length = header(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let kind = header(header::CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
        Self {
            small: length.is_some_and(|length: u64| length <= SMALL),
            form: kind.eq_ignore_ascii_case("multipart/form-data"),
            json: kind.eq_ignore_ascii_case("application/json"),
        }
    }
}

/// Takes a place at the models.
pub(crate) fn enter(api: &Api) -> Result<Place, ApiError> {
    api.enroller.enter().map_err(|Busy| {
        ApiError::because(Code::Unavailable, "too many photographs at once").retry_after(RETRY_AFTER_SECONDS)
    })
}

type Parts = (Map<String, Value>, BTreeMap<&'static str, Bytes>);

async fn read_json(api: &Api, request: Request, names: &[&'static str]) -> Result<Parts, ApiError> {
    let bytes = Bytes::from_request(request, &()).await.map_err(|rejection| {
        ApiError::of(match rejection.status() {
            axum::http::StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
            _ => Code::InvalidRequest,
        })
    })?;
    let mut object: Map<String, Value> = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::because(Code::InvalidRequest, format!("the body is no JSON object: {error}")))?;
    let mut photographs = BTreeMap::new();
    for name in names {
        let Some(value) = object.remove(*name) else { continue };
        let invalid = |message| ApiError::field(format!("/{name}"), Code::InvalidField, message);
        let text = value.as_str().ok_or_else(|| invalid("must be a photograph in base64"))?;
        let bytes = STANDARD.decode(text).map_err(|_| invalid("is no base64"))?;
        if bytes.len() > api.settings.enrolment.max_photo_bytes {
            let message = format!("{name} has more than {} bytes", api.settings.enrolment.max_photo_bytes);
            return Err(ApiError::because(Code::PayloadTooLarge, message));
        }
        photographs.insert(*name, bytes.into());
    }
    Ok((object, photographs))
}

async fn read_form(api: &Api, request: Request, names: &[&'static str]) -> Result<Parts, ApiError> {
    let mut form = Multipart::from_request(request, &()).await.map_err(|rejection| not_a_form(&rejection))?;
    let (mut options, mut photographs) = (Map::new(), BTreeMap::new());
    while let Some(field) = form.next_field().await.map_err(|error| multipart_error(&error))? {
        let name: String = field.name().unwrap_or_default().chars().take(100).collect();
        if name == "options" {
            let bytes = read_field(field, "options", usize::try_from(SMALL).unwrap_or(usize::MAX)).await?;
            options = serde_json::from_slice(&bytes).map_err(|error| {
                ApiError::because(Code::InvalidRequest, format!("options is no JSON object: {error}"))
            })?;
        } else if let Some(known) = names.iter().find(|known| **known == name) {
            photographs.insert(*known, read_field(field, known, api.settings.enrolment.max_photo_bytes).await?);
        } else {
            let message = format!("the form's parts are {} and options", names.join(", "));
            return Err(ApiError::field(format!("/{name}"), Code::UnknownField, message));
        }
    }
    Ok((options, photographs))
}
