//! Sessions are opened: by whoever may enrol, or have faces compared. The answer has the token, once.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Code;

use super::views::{ChallengeView, SessionView};
use crate::auth::Caller;
use crate::body::{self, Checks, Fields};
use crate::openapi::words;
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::ids::PersonId;
use hub_domain::session::{ATTEMPTS, Kind, MAX_ATTEMPTS};
use hub_keys::{OpenedSession, SessionState, WantedSession};

/// An enrolment to be opened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEnrolmentSession)]
pub(crate) struct NewEnrolment {
    person_id: Uuid,
    /// Enrol although another person looks the same (twins; a second record on purpose).
    #[serde(default)]
    allow_duplicate: bool,
}

impl Fields for NewEnrolment {
    const KNOWN: &'static [&'static str] = &["person_id", "allow_duplicate"];
    const REQUIRED: &'static [&'static str] = &["person_id"];
}

/// A verification or identification to be opened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAuthenticationSession)]
pub(crate) struct NewAuthentication {
    /// `verification` (is it `person_id`?) or `identification` (who is it?).
    #[schema(value_type = words::AuthenticationKind)]
    kind: String,
    /// Whose face it is said to be; in a verification.
    #[serde(default)]
    person_id: Option<Uuid>,
    /// Whether somebody has to make movements that are asked for at random, and look alive; they have to unless this says otherwise.
    #[serde(default)]
    require_liveness: Option<bool>,
    /// Attempts until the session fails; three unless this says otherwise.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 5, default = 3)]
    max_attempts: Option<u16>,
}

impl Fields for NewAuthentication {
    const KNOWN: &'static [&'static str] = &["kind", "person_id", "require_liveness", "max_attempts"];
    const REQUIRED: &'static [&'static str] = &["kind"];
}

/// A session that was opened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenedSession)]
pub(crate) struct OpenedView {
    session: SessionView,
    /// What is asked of the person first; `null` when nothing is.
    #[schema(required)]
    challenge: Option<ChallengeView>,
    /// For `X-Session-Token`: opens this session and nothing else, until it ends. Shown once.
    token: String,
}

async fn open(api: &Api, caller: &Caller, wanted: WantedSession) -> Result<(StatusCode, Json<OpenedView>), ApiError> {
    let OpenedSession { session, token } = api.custody.open_session(caller.tenant, wanted, &caller.actor()).await?;
    let state = SessionState { session, frames: Vec::new() };
    let challenge = ChallengeView::of(&state);
    let session = SessionView::of(state.session, api.clock.now());
    Ok((StatusCode::CREATED, Json(OpenedView { session, challenge, token: token.to_string() })))
}

/// `POST /v1/sessions/enrolment`
#[utoipa::path(
    post, path = "/v1/sessions/enrolment", operation_id = "open_enrolment_session", tag = "sessions",
    summary = "Open an enrolment",
    description = "Of a person who is there already. Frames follow, one by one or several together; the best ones become one template when it is completed.",
    request_body = NewEnrolment,
    responses(
        (status = 201, description = "The session and its token", body = OpenedView),
        (status = 403, description = "`quota_reached`: the tenant has all open sessions that it may have."),
        (status = 404, description = "`not_found`: there is no such person."),
    ),
)]
pub(crate) async fn enrolment(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body::Json(new): body::Json<NewEnrolment>,
) -> Result<(StatusCode, Json<OpenedView>), ApiError> {
    let wanted = WantedSession {
        kind: Kind::Enrolment,
        person: Some(PersonId(new.person_id)),
        allow_duplicate: new.allow_duplicate,
        require_liveness: false,
        max_attempts: 1,
    };
    open(&api, &caller, wanted).await
}

/// `POST /v1/sessions/authentication`
#[utoipa::path(
    post, path = "/v1/sessions/authentication", operation_id = "open_authentication_session", tag = "sessions",
    summary = "Open a verification or identification",
    description = "It stays open for as long as the tenant's settings say (`/v1/tenant/sessions`).",
    request_body = NewAuthentication,
    responses(
        (status = 201, description = "The session, its first prompt and its token", body = OpenedView),
        (status = 403, description = "`quota_reached`: the tenant has all open sessions that it may have."),
        (status = 404, description = "`not_found`: there is no such person."),
    ),
)]
pub(crate) async fn authentication(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body::Json(new): body::Json<NewAuthentication>,
) -> Result<(StatusCode, Json<OpenedView>), ApiError> {
    let kind = Kind::from_name(&new.kind).filter(|kind| *kind != Kind::Enrolment);
    let attempts = new.max_attempts.unwrap_or(ATTEMPTS);
    let only_one = new.person_id.is_none() || kind != Some(Kind::Identification);
    Checks::default()
        .that(kind.is_some(), "/kind", "must be verification or identification")
        .that(only_one, "/person_id", "an identification asks who it is: send none, or open a verification")
        .that((1..=MAX_ATTEMPTS).contains(&attempts), "/max_attempts", &format!("must be from 1 to {MAX_ATTEMPTS}"))
        .done()?;
    if kind == Some(Kind::Verification) && new.person_id.is_none() {
        return Err(ApiError::field("/person_id", Code::MissingField, "a verification needs the person"));
    }
    let wanted = WantedSession {
        kind: kind.unwrap_or(Kind::Identification),
        person: new.person_id.map(PersonId),
        allow_duplicate: false,
        require_liveness: new.require_liveness.unwrap_or(true),
        max_attempts: attempts,
    };
    open(&api, &caller, wanted).await
}
