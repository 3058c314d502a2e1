//! A session is completed: first whether somebody lives, then who it is. Without life nobody is looked for, and no score is told.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use face_core::Embedding;
use face_core::liveness::{LivenessPolicy, judge_still};
use uuid::Uuid;
use wire_contract::Code;

use super::enrol;
use super::views::{StateView, Stored};
use crate::api::auth::Caller;
use crate::api::enrolments::refused;
use crate::api::problem::ApiError;
use crate::api::recognition::people::{identified_in, verified_in};
use crate::api::recognition::policy::Rules;
use crate::api::state::Api;
use crate::domain::ids::{PersonId, SessionId};
use crate::domain::recognition::WhyNot;
use crate::domain::session::life::{Judged, may_still_pass};
use crate::domain::session::{Input, Kind, best, step};
use crate::keys::{Decision, OpenedFrame, SessionState};
use crate::recognition::enroller::{Models, Refusal, average};
use crate::recognition::faces::StillLife;

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
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(in crate::api) async fn complete(
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
    let demanded = state.session.require_liveness;
    let may_tell = |frame: &&OpenedFrame| !demanded || frame.look.is_some_and(|look| look.tells_who());
    let telling: Vec<&OpenedFrame> = opened.iter().filter(may_tell).collect();
    let qualities: Vec<f32> = telling.iter().map(|frame| frame.quality).collect();
    let chosen: Vec<&OpenedFrame> = best(&qualities).into_iter().map(|index| telling[index]).collect();
    let life = life(&state, &chosen);
    if let Some(why) = life.why_not.filter(may_still_pass) {
        let mut view = StateView::of(state, api.clock.now());
        view.undecided = Some(why.into());
        return Ok(view);
    }
    let embeddings: Vec<(Embedding, f32)> =
        chosen.iter().map(|frame| (frame.embedding.clone(), frame.quality)).collect();
    let stored = match (life.why_not, average(models, &embeddings)) {
        (Some(why), _) => Stored { why: Some(why.into()), ..Stored::default() },
        (None, Err(_)) => {
            let why = WhyNot { code: Code::PhotosDiffer, score: None, threshold: None };
            Stored { why: Some(why.into()), ..Stored::default() }
        }
        (None, Ok((probe, _))) => {
            let rules = Rules::of(api, caller).await?;
            if telling.iter().any(|frame| frame.embedding.similarity(&probe) < rules.threshold(1)) {
                // By the tenant's own rate: whoever answered is who is looked for, in every frame.
                let why = WhyNot { code: Code::PhotosDiffer, score: None, threshold: None };
                Stored { why: Some(why.into()), ..Stored::default() }
            } else {
                compared(api, caller, &rules, state.session.person_id, probe).await?
            }
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
    let unavailable = WhyNot { code: Code::LivenessUnavailable, score: None, threshold: None };
    if state.session.require_liveness {
        // A demand without a prompt cannot be met.
        let judged =
            state.standing().map_or(Judged { score: None, why_not: Some(unavailable) }, |standing| standing.judged());
        if judged.why_not.is_none() && chosen.is_empty() {
            let why = WhyNot { code: Code::LivenessUndecided, score: None, threshold: None };
            return Judged { why_not: Some(why), ..judged };
        }
        return judged;
    }
    // A frame without scores is no frame without an attack.
    let scores: Option<Vec<_>> = chosen.iter().map(|frame| frame.look?.passive).collect();
    let Some(scores) = scores else {
        return Judged { score: None, why_not: Some(unavailable) };
    };
    let lives = scores.into_iter().map(|scores| StillLife {
        score: scores.boxed.min(scores.square),
        attack: judge_still(scores, &LivenessPolicy::default()).is_some(),
    });
    let worst = lives.min_by(|a, b| a.score.total_cmp(&b.score));
    Judged { score: worst.map(|life| life.score), why_not: worst.and_then(StillLife::refusal) }
}

/// Whose face it is, by the tenant's thresholds and among its people as they are now.
async fn compared(
    api: &Api,
    caller: &Caller,
    rules: &Rules,
    person: Option<PersonId>,
    probe: Embedding,
) -> Result<Stored, ApiError> {
    let gallery = api.galleries.of(caller.tenant, &rules.space).await?;
    Ok(match person {
        Some(person) => {
            let verified = verified_in(api, gallery, rules, person, probe).await?;
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
            let (found, _) = identified_in(api, gallery, rules, probe, 0).await?;
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
