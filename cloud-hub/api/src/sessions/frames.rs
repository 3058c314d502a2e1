//! Frames arrive: read within limits, looked at in the models' bounded queue, and noted in the session.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::multipart::Multipart;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::header;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Code;

use super::views::StateView;
use crate::auth::Caller;
use crate::body::{Checks, Fields, parse};
use crate::enrolments::{multipart_error, not_a_form, read_field, refused};
use crate::openapi::{forms, texts};
use crate::problem::ApiError;
use crate::recognition::input::enter;
use crate::state::Api;
use hub_domain::ids::SessionId;
use hub_domain::session::life::taken;
use hub_domain::session::{Input, step};
use hub_keys::SessionState;
use hub_recognition::enroller::Refusal;
use hub_recognition::frames::{Sent, look_at};

/// Between frames that come together, unless the client says otherwise: ten a second.
const INTERVAL_MS: u32 = 100;
/// A form's part with everything that is no picture.
const MAX_OPTIONS_BYTES: usize = 4 * 1024;

/// Frames, in the order in which they were taken.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewFrames)]
pub(crate) struct NewFrames {
    /// JPEG, PNG or WebP; or parts of a form that are all named `image`.
    #[serde(default)]
    #[schema(value_type = Vec<texts::Base64>, min_items = 1)]
    #[expect(dead_code, reason = "taken out of the request before the rest is read; here for the document")]
    images: Option<Value>,
    /// The `nonce` of the prompt that was shown when they were taken.
    #[serde(default)]
    nonce: Option<String>,
    /// Milliseconds between them.
    #[serde(default)]
    #[schema(minimum = 20, maximum = 2_000, default = 100)]
    interval_ms: Option<u32>,
}

impl Fields for NewFrames {
    const KNOWN: &'static [&'static str] = &["nonce", "interval_ms"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// `POST /v1/sessions/{id}/frames`
#[utoipa::path(
    post, path = "/v1/sessions/{id}/frames", operation_id = "add_session_frames", tag = "sessions",
    summary = "Add frames",
    description = "One, or several in the order in which they were taken; one request after the other. Each is told whether it is good enough. Frames that answer a prompt carry its nonce; a movement that was not asked for uses the attempt up. No picture is kept.",
    params(("id" = Uuid, Path, description = "The session")),
    request_body(content((NewFrames = "application/json"), (forms::FramesForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The session with its frames, and what is asked now", body = StateView),
        (status = 409, description = "`conflict`: it has ended, or something else happened to it meanwhile, or the attempt has all frames that it may have."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(crate) async fn add(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
    request: Request,
) -> Result<Json<StateView>, ApiError> {
    let id = SessionId(id);
    let space = api.enroller.models().ok_or_else(|| refused(Refusal::NoModels))?.pack.manifest().space_id.clone();
    // Whether there is such a session, and whether it is open, is asked before megabytes are read.
    let (state, opened) = api.custody.session_templates(caller.tenant, id, &space).await?;
    let (session, now) = (&state.session, api.clock.now());
    step(session.state, Input::Submitted, now, session.expires_at)?;
    let place = enter(&api)?;
    let (options, images) = read(&api, request).await?;
    let interval = options.interval_ms.unwrap_or(INTERVAL_MS);
    Checks::default().that((20..=2_000).contains(&interval), "/interval_ms", "must be from 20 to 2000").done()?;
    let room = session.kind.max_frames().saturating_sub(state.frames.len());
    if images.len() > room {
        let detail = format!("this attempt has room for {room} more frames: complete the session, or open another one");
        return Err(ApiError::because(Code::Conflict, detail));
    }
    let sent = timed(&api, &state, images, interval, options.nonce.as_deref());
    let (kind, first) = (session.kind, opened.into_iter().next().map(|frame| frame.embedding));
    let work = api.enroller.run(place, move |models, limits| look_at(models, limits, kind, &sent, first));
    let seen = work.await.map_err(refused)?;
    let (revision, actor) = (session.revision, caller.actor());
    let after = api.custody.add_frames(caller.tenant, id, (revision, &space), seen, &actor).await?;
    Ok(Json(StateView::of(after, api.clock.now())))
}

/// When frames were taken: the last one now, the others before it. The client's word counts for the time between them only, and what
/// it says was taken before the prompt was shown is no answer to it.
fn timed(api: &Api, state: &SessionState, images: Vec<Bytes>, interval: u32, nonce: Option<&str>) -> Vec<Sent> {
    let session = &state.session;
    let since = |at: time::OffsetDateTime| u64::try_from((at - session.created_at).whole_milliseconds()).unwrap_or(0);
    let now = since(api.clock.now());
    let nonce = nonce.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let prompt = session.prompt.filter(|prompt| nonce.as_deref() == Some(prompt.nonce.as_slice()));
    let wanted = state.standing().and_then(|standing| standing.wanted()).map(|(_, number)| number);
    let newest = state.frames.iter().filter_map(|frame| frame.look).map(|look| look.at_ms).max();
    let times = taken(now, images.len(), interval, newest);
    let sent = images.into_iter().zip(times).map(|(bytes, at_ms)| {
        let answers = prompt.is_some_and(|prompt| at_ms >= since(prompt.at));
        Sent { bytes, at_ms, prompt: wanted.filter(|_| answers) }
    });
    sent.collect()
}

async fn read(api: &Api, request: Request) -> Result<(NewFrames, Vec<Bytes>), ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (options, images) = match kind.as_str() {
        "multipart/form-data" => read_form(api, request).await?,
        "application/json" => read_json(api, request).await?,
        _ => {
            let detail = "send application/json or multipart/form-data";
            return Err(ApiError::because(Code::UnsupportedMediaType, detail));
        }
    };
    if images.is_empty() {
        return Err(ApiError::field("/images", Code::MissingField, "at least one frame is needed"));
    }
    Ok((parse(Value::Object(options))?, images))
}

fn too_many(api: &Api) -> ApiError {
    let message = format!("at most {} frames in one request", api.settings.enrolment.max_photos);
    ApiError::because(Code::PayloadTooLarge, message)
}

async fn read_json(api: &Api, request: Request) -> Result<(Map<String, Value>, Vec<Bytes>), ApiError> {
    let limits = &api.settings.enrolment;
    let bytes = Bytes::from_request(request, &()).await.map_err(|rejection| {
        ApiError::of(match rejection.status() {
            axum::http::StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
            _ => Code::InvalidRequest,
        })
    })?;
    let mut object: Map<String, Value> = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::because(Code::InvalidRequest, format!("the body is no JSON object: {error}")))?;
    let mut images = Vec::new();
    let given = match object.remove("images") {
        None => Vec::new(),
        Some(Value::Array(given)) => given,
        Some(_) => return Err(ApiError::field("/images", Code::InvalidField, "must be an array of frames in base64")),
    };
    if given.len() > limits.max_photos {
        return Err(too_many(api));
    }
    for (index, value) in given.iter().enumerate() {
        let invalid = |message| ApiError::field(format!("/images/{index}"), Code::InvalidField, message);
        let text = value.as_str().ok_or_else(|| invalid("must be a frame in base64"))?;
        let bytes = STANDARD.decode(text).map_err(|_| invalid("is no base64"))?;
        if bytes.len() > limits.max_photo_bytes {
            let message = format!("frame {index} has more than {} bytes", limits.max_photo_bytes);
            return Err(ApiError::because(Code::PayloadTooLarge, message));
        }
        images.push(bytes.into());
    }
    Ok((object, images))
}

async fn read_form(api: &Api, request: Request) -> Result<(Map<String, Value>, Vec<Bytes>), ApiError> {
    let limits = &api.settings.enrolment;
    let mut form = Multipart::from_request(request, &()).await.map_err(|rejection| not_a_form(&rejection))?;
    let (mut options, mut images) = (Map::new(), Vec::new());
    while let Some(field) = form.next_field().await.map_err(|error| multipart_error(&error))? {
        let name: String = field.name().unwrap_or_default().chars().take(100).collect();
        match name.as_str() {
            "options" => {
                let bytes = read_field(field, "options", MAX_OPTIONS_BYTES).await?;
                options = serde_json::from_slice(&bytes).map_err(|error| {
                    ApiError::because(Code::InvalidRequest, format!("options is no JSON object: {error}"))
                })?;
            }
            "image" if images.len() == limits.max_photos => return Err(too_many(api)),
            "image" => {
                let name = format!("frame {}", images.len());
                images.push(read_field(field, &name, limits.max_photo_bytes).await?);
            }
            _ => {
                let message = "the form's parts are image, one or several, and options";
                return Err(ApiError::field(format!("/{name}"), Code::UnknownField, message));
            }
        }
    }
    Ok((options, images))
}
