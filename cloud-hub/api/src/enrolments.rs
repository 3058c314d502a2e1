//! Enrolment by photographs: multipart in, a template or the reasons why not out.

use std::sync::Arc;

use axum::extract::multipart::{Field, Multipart, MultipartError, MultipartRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use wire_contract::texts::{Language, code_text, hint_text};
use wire_contract::{Code, Problem};

use super::auth::Caller;
use super::openapi::{forms, wire};
use super::people::TemplateView;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::duplicate::Duplicate;
use hub_domain::ids::{PersonId, SessionId, TemplateId};
use hub_domain::session::{self, Input, Kind, State as SessionState};
use hub_keys::{Enrolment, Origin, Photographs, Sameness};
use hub_recognition::enroller::{Busy, NewTemplate, Photograph, Place, Refusal};
use hub_store::sessions::NewSession;
use hub_store::{audit, people, sessions};

/// Seconds after which a client that met a full queue may come back; a photograph takes well below one.
pub(super) const RETRY_AFTER_SECONDS: u32 = 2;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EnrolmentQuery {
    /// Enrol although another person looks the same (twins; a second record on purpose).
    #[serde(default)]
    allow_duplicate: bool,
}

/// What became of an enrolment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Enrolment)]
struct EnrolmentView {
    id: Uuid,
    template: TemplateView,
    photographs: Vec<PhotographView>,
    /// Another person who looks the same, and was allowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    duplicate_allowed: Option<Value>,
}

/// What came of one photograph.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Photograph)]
struct PhotographView {
    /// Its place in the request, from 0.
    index: usize,
    /// Whether it went into the template.
    accepted: bool,
    /// How good it is, in [0, 1]; `null` when there was not exactly one face.
    #[schema(required)]
    quality: Option<f32>,
    /// Why not, the most helpful first.
    #[schema(value_type = Vec<wire::Code>)]
    reasons: Vec<Code>,
}

impl From<Photograph> for PhotographView {
    fn from(photograph: Photograph) -> Self {
        let Photograph { index, accepted, quality, reasons } = photograph;
        Self { index, accepted, quality, reasons }
    }
}

/// `POST /v1/people/{id}/enrolments`
#[utoipa::path(
    post, path = "/v1/people/{id}/enrolments", operation_id = "create_enrolment", tag = "enrolment",
    summary = "Enrol photographs",
    description = "JPEG or PNG, as many as the hub is set up for (10 unless said); the good ones become one template. Whether another person looks the same is looked for first.",
    params(
        ("id" = Uuid, Path, description = "The person"),
        EnrolmentQuery,
    ),
    request_body(content = forms::PhotographForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "The template, and what came of each photograph", body = EnrolmentView),
        (status = 403, description = "`quota_reached`: the tenant has all templates that it may have."),
        (status = 409, description = "`duplicate_person`: another person looks the same; `duplicate` names them."),
        (status = 422, description = "`no_face`, `several_faces`, `face_too_small`, `face_blurred`, `face_too_dark`, `face_too_bright`, `face_turned`, `face_occluded`, `face_cut_off`, `photo_unreadable`, `photo_too_large`, `photos_differ`: none serves; `photographs` has the reasons of each."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use. `unavailable`: after a crash of the database nobody is enrolled until those who look the same can be found."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(person): Path<Uuid>,
    Query(query): Query<EnrolmentQuery>,
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<Response, ApiError> {
    let multipart = multipart.map_err(|rejection| not_a_form(&rejection))?;
    let person = PersonId(person);
    // Whether the person exists, and whether there is room, is asked before megabytes are read; for want of room nothing is begun.
    let place = api.enroller.enter().map_err(|Busy| {
        ApiError::because(Code::Unavailable, "too many enrolments at once").retry_after(RETRY_AFTER_SECONDS)
    })?;
    let session = open_session(&api, &caller, person).await?;
    let outcome = enrol(&api, &caller, (person, session), place, multipart, query.allow_duplicate).await;
    if let Err(error) = &outcome {
        close_failed(&api, &caller, (person, session), error.code()).await;
    }
    outcome
}

async fn enrol(
    api: &Arc<Api>,
    caller: &Caller,
    (person, session): (PersonId, SessionId),
    place: Place,
    form: Multipart,
    allow_duplicate: bool,
) -> Result<Response, ApiError> {
    let photographs = read_photographs(api, form).await?;
    let mark = Photographs::of(photographs.clone()).await?;
    let template = api.enroller.enrol(place, photographs).await.map_err(refused)?;
    let (id, duplicate) = store(api, caller, person, session, (&template, mark), allow_duplicate).await?;
    let view = TemplateView {
        id: id.0,
        space_id: template.space_id,
        model_version: template.model_version,
        quality: template.quality,
        created_at: None,
    };
    let body = EnrolmentView {
        id: session.0,
        template: view,
        photographs: template.photographs.into_iter().map(Into::into).collect(),
        duplicate_allowed: duplicate.as_ref().map(hub_keys::duplicate_told),
    };
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

pub(super) fn refused(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Photographs(code, photographs) => with_photographs(code, photographs),
        Refusal::NoModels => {
            let detail = "the hub has no model pack in use: see its log, set [models] and start it again";
            ApiError::because(Code::ModelsUnavailable, detail)
        }
        Refusal::Model(error) => ApiError::internal(&error),
        Refusal::Crashed => ApiError::of(Code::Internal),
    }
}

/// 422 with every photograph's reasons, and a field for each.
fn with_photographs(code: Code, photographs: Vec<Photograph>) -> ApiError {
    let mut problem = Problem::of(code);
    problem.status = StatusCode::UNPROCESSABLE_ENTITY.as_u16();
    for photograph in &photographs {
        for code in &photograph.reasons {
            let texts = [Some(code_text(*code, Language::English)), hint_text(*code, Language::English)];
            let message = texts.into_iter().flatten().collect::<Vec<_>>().join(". ");
            problem = problem.field(format!("/photo/{}", photograph.index), *code, message);
        }
    }
    let views: Vec<PhotographView> = photographs.into_iter().map(Into::into).collect();
    problem.extension("photographs", json!(views)).into()
}

/// Reads every field named `photo`, within the limits; anything else is an error that names it.
pub(super) async fn read_photographs(api: &Api, mut multipart: Multipart) -> Result<Vec<Bytes>, ApiError> {
    let limits = &api.settings.enrolment;
    let mut photographs = Vec::new();
    while let Some(field) = multipart.next_field().await.map_err(|error| multipart_error(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        if name != "photo" {
            let name: String = name.chars().take(100).collect();
            return Err(ApiError::field(name, Code::UnknownField, "the form's fields are all named photo"));
        }
        if photographs.len() == limits.max_photos {
            let message = format!("at most {} photographs in one request", limits.max_photos);
            return Err(ApiError::because(Code::PayloadTooLarge, message));
        }
        let name = format!("photograph {}", photographs.len());
        photographs.push(read_field(field, &name, limits.max_photo_bytes).await?);
    }
    if photographs.is_empty() {
        return Err(ApiError::field("photo", Code::MissingField, "at least one photograph is needed"));
    }
    Ok(photographs)
}

/// Reads one part of a form; `name` is what an error calls it.
pub(super) async fn read_field(mut field: Field<'_>, name: &str, max_bytes: usize) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| multipart_error(&error))? {
        if bytes.len() + chunk.len() > max_bytes {
            let message = format!("{name} has more than {max_bytes} bytes");
            return Err(ApiError::because(Code::PayloadTooLarge, message));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

pub(super) fn not_a_form(rejection: &MultipartRejection) -> ApiError {
    let code = match rejection {
        MultipartRejection::InvalidBoundary(_) => Code::UnsupportedMediaType,
        _ => Code::InvalidRequest,
    };
    ApiError::because(code, "send multipart/form-data with fields named photo")
}

pub(super) fn multipart_error(error: &MultipartError) -> ApiError {
    let code = match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
        _ => Code::InvalidRequest,
    };
    ApiError::because(code, "the form cannot be read: send multipart/form-data with fields named photo")
}

async fn open_session(api: &Api, caller: &Caller, person: PersonId) -> Result<SessionId, ApiError> {
    let (id, now) = (SessionId(api.clock.new_id()), api.clock.now());
    let expires_at = now + session::LIFETIME;
    api.db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                people::get(tx, person).await?;
                let new = NewSession {
                    id,
                    kind: Kind::Enrolment,
                    person: Some(person),
                    token_mac: None,
                    allow_duplicate: false,
                    max_attempts: 1,
                    prompt: None,
                    created_at: now,
                    expires_at,
                };
                sessions::create(tx, &new).await?;
                let state = session::step(SessionState::Initialized, Input::Submitted, now, expires_at)?;
                sessions::set(tx, id, state, None, None, now).await?;
                Ok::<_, ApiError>(id)
            })
        })
        .await
}

/// Ends a session in which nothing was made. If that fails too the session ends by its own expiry.
async fn close_failed(api: &Api, caller: &Caller, (person, id): (PersonId, SessionId), code: Code) {
    let (now, actor) = (api.clock.now(), caller.actor());
    let closed = api.db.tenant(caller.tenant, move |tx| {
        Box::pin(async move {
            let session = sessions::lock(tx, id).await?;
            let detail = json!({ "session": id.0, "code": code.as_str() });
            let (action, object_kind) = (audit::Action::TemplateRefuse, "person");
            let entry = audit::Entry { actor: &actor, action, object_kind, object_id: Some(person.0), detail };
            audit::write(tx, entry).await?;
            if let Ok(state) = session::step(session.state, Input::Refused, now, session.expires_at) {
                sessions::set(tx, id, state, None, Some(code.as_str()), now).await?;
            }
            Ok::<_, ApiError>(())
        })
    });
    // The error's own cause is in the log already.
    let _ = closed.await;
}

/// Looks for a duplicate, then stores the template, its gallery records, the session's end, audit and event at once. The
/// answer names the duplicate that was allowed.
async fn store(
    api: &Arc<Api>,
    caller: &Caller,
    person: PersonId,
    session: SessionId,
    (template, mark): (&NewTemplate, Photographs),
    allow_duplicate: bool,
) -> Result<(TemplateId, Option<Duplicate>), ApiError> {
    let wanted = (new_template(template, Some(mark)), sameness(template, allow_duplicate));
    let (origin, actor) = (Origin::Session(session), caller.actor());
    match api.custody.enrol_unless_known(caller.tenant, person, origin, wanted, &actor).await? {
        Enrolment::Made(id, duplicate) => Ok((id, duplicate)),
        Enrolment::Known(other) => Err(is_duplicate(&other)),
    }
}

/// By what others are taken to be the person of photographs.
pub(super) fn sameness(template: &NewTemplate, allowed: bool) -> Sameness {
    let (space, probe) = (template.space.clone(), template.embedding.clone());
    Sameness { space, probe, ladder: template.duplicates.clone(), allowed }
}

/// What is kept of photographs.
pub(super) fn new_template(template: &NewTemplate, mark: Option<Photographs>) -> hub_keys::NewTemplate {
    let accepted = template.photographs.iter().filter(|photograph| photograph.accepted).count();
    hub_keys::NewTemplate {
        space_id: template.space_id.clone(),
        model_version: template.model_version.clone(),
        quality: template.quality,
        photographs: u32::try_from(accepted).unwrap_or(u32::MAX),
        embedding: Box::new(*template.embedding.as_slice()),
        mark,
    }
}

/// Another person of the tenant who looks the same is told by id, with the score and what it had to stay below.
pub(super) fn is_duplicate(other: &Duplicate) -> ApiError {
    let detail = format!(
        "person {} looks the same: enrol the photographs there if it is one person, or here with ?allow_duplicate=true if it is not (the audit keeps that)",
        other.person
    );
    Problem::of(Code::DuplicatePerson).detail(detail).extension("duplicate", hub_keys::duplicate_told(other)).into()
}
