//! A session is completed: first whether somebody lives, then who it is. Without life nobody is looked for, and no score is told.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use face_core::Embedding;
use uuid::Uuid;
use wire_contract::Code;

use super::enrol;
use super::views::{StateView, Stored};
use crate::auth::Caller;
use crate::enrolments::refused;
use crate::problem::ApiError;
use crate::recognition::people::{identified_in, verified_in};
use crate::recognition::policy::Rules;
use crate::state::Api;
use hub_domain::ids::{PersonId, SessionId};
use hub_domain::recognition::WhyNot;
use hub_domain::session::life::{Judged, Look, may_still_pass, no_attack, telling};
use hub_domain::session::{Input, Kind, best, step};
use hub_keys::{Decision, OpenedFrame, SessionState};
use hub_recognition::enroller::{Models, Refusal, average};

/// `POST /v1/sessions/{id}/complete`
#[utoipa::path(
    post, path = "/v1/sessions/{id}/complete", operation_id = "complete_session", tag = "sessions",
    summary = "Complete a session",
    description = "An enrolment: the best frames become one template, unless another person looks the same. A verification or identification: whether somebody lives, if that is required, and then who it is. A refused attempt is followed by the next one while there is one; what cannot be decided yet uses none up.",
    params(("id" = Uuid, Path, description = "The session")),
    responses(
        (status = 200, description = "The session, with what came of it", body = StateView),
        (status = 403, description = "`quota_reached`: the tenant has all templates that it may have."),
        (status = 409, description = "`conflict`: it has ended, or no frame was accepted yet, or something else happened to it meanwhile."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use. `unavailable`: after a crash of the database nobody is enrolled until those who look the same can be found."),
    ),
)]
pub(crate) async fn complete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<StateView>, ApiError> {
    let models = api.enroller.models().ok_or_else(|| refused(Refusal::NoModels))?;
    let id = SessionId(id);
    let space = &models.pack.manifest().space_id;
    let (state, opened) = api.custody.session_templates(caller.tenant, id, space).await?;
    let session = &state.session;
    step(session.state, Input::Accepted, api.clock.now(), session.expires_at)?;
    if opened.is_empty() {
        let detail = "no frame was accepted yet: add frames with one face, frontal and well lit";
        return Err(ApiError::because(Code::Conflict, detail));
    }
    let view = match (session.kind, session.person_id) {
        (Kind::Enrolment, Some(person)) => enrol::complete(&api, &caller, &models, (state, person), opened).await?,
        _ => authenticate(&api, &caller, &models, state, opened).await?,
    };
    Ok(Json(view))
}

async fn authenticate(
    api: &Api,
    caller: &Caller,
    models: &Models,
    state: SessionState,
    opened: Vec<OpenedFrame>,
) -> Result<StateView, ApiError> {
    let looks: Vec<Option<Look>> = opened.iter().map(|frame| frame.look).collect();
    let telling: Vec<&OpenedFrame> =
        telling(state.session.require_liveness, &looks).into_iter().map(|place| &opened[place]).collect();
    let qualities: Vec<f32> = telling.iter().map(|frame| frame.quality).collect();
    let chosen: Vec<&OpenedFrame> = best(&qualities).into_iter().map(|place| telling[place]).collect();
    let life = life(&state, &chosen);
    if let Some(why) = life.why_not.filter(may_still_pass) {
        let mut view = StateView::of(state, api.clock.now());
        view.undecided = Some(why.into());
        return Ok(view);
    }
    let stored = match life.why_not {
        Some(why) => Stored { why: Some(why.into()), ..Stored::default() },
        None => {
            // Where life is demanded whoever answered is who is looked for, in every frame and not only in the best.
            let shown = if state.session.require_liveness { &telling } else { &chosen };
            identified_by(api, caller, models, state.session.person_id, (shown, &chosen)).await?
        }
    };
    let stored = Stored { liveness: life.score, ..stored };
    let decision = Decision {
        refused: stored.why.as_ref().map(super::views::StoredWhy::code),
        person: stored.person_id.map(PersonId),
        result: serde_json::to_value(&stored).map_err(|error| ApiError::internal(&error))?,
    };
    let (id, revision) = (state.session.id, state.session.revision);
    let after = api.custody.attempt_judged(caller.tenant, id, revision, decision, &caller.actor()).await?;
    Ok(StateView::of(after, api.clock.now()))
}

/// What the frames say of life: what was demanded, or at least that the best of them are not plainly an attack.
fn life(state: &SessionState, chosen: &[&OpenedFrame]) -> Judged {
    if !state.session.require_liveness {
        let looks: Vec<Option<Look>> = chosen.iter().map(|frame| frame.look).collect();
        return no_attack(&looks);
    }
    let why = |code| Some(WhyNot { code, score: None, threshold: None });
    match state.standing().map(|standing| standing.judged()) {
        // A demand without a prompt cannot be met.
        None => Judged { score: None, why_not: why(Code::LivenessUnavailable) },
        Some(judged) if judged.why_not.is_none() && chosen.is_empty() => {
            Judged { why_not: why(Code::LivenessUndecided), ..judged }
        }
        Some(judged) => judged,
    }
}

/// Whose face the best frames show, if all that were `shown` are of one person by the tenant's own rate.
async fn identified_by(
    api: &Api,
    caller: &Caller,
    models: &Models,
    person: Option<PersonId>,
    (shown, chosen): (&[&OpenedFrame], &[&OpenedFrame]),
) -> Result<Stored, ApiError> {
    let embeddings: Vec<(Embedding, f32)> =
        chosen.iter().map(|frame| (frame.embedding.clone(), frame.quality)).collect();
    let rules = Rules::of(api, caller).await?;
    let least = rules.threshold(1);
    let probe = average(models, &embeddings).ok().map(|(probe, _)| probe);
    match probe.filter(|probe| shown.iter().all(|frame| frame.embedding.similarity(probe) >= least)) {
        Some(probe) => compared(api, caller, &rules, person, probe).await,
        None => {
            let why = WhyNot { code: Code::PhotosDiffer, score: None, threshold: None };
            Ok(Stored { why: Some(why.into()), ..Stored::default() })
        }
    }
}

/// Whose face it is, by the tenant's thresholds and among its people as they are now.
async fn compared(
    api: &Api,
    caller: &Caller,
    rules: &Rules,
    person: Option<PersonId>,
    probe: Embedding,
) -> Result<Stored, ApiError> {
    let gallery = rules.gallery(api, caller).await?;
    Ok(match person {
        Some(person) => {
            let verified = verified_in(api, &gallery, rules, person, probe).await?;
            Stored {
                matched: verified.why_not.is_none(),
                person_id: Some(person.0),
                score: verified.score,
                threshold: Some(verified.threshold),
                far: Some(rules.far.clone()),
                why: verified.why_not.map(Into::into),
                ..Stored::default()
            }
        }
        None => {
            let found = identified_in(api, &gallery, rules, probe).await?;
            Stored {
                matched: found.why_not.is_none(),
                person_id: found.person.map(|person| person.0),
                score: found.score,
                threshold: Some(found.threshold),
                margin: found.margin,
                far: Some(rules.far.clone()),
                why: found.why_not.map(Into::into),
                ..Stored::default()
            }
        }
    })
}
