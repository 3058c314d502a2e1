//! The end of an enrolment: the best frames averaged, a duplicate looked for, the template stored with the session's end.

use face_core::Space;
use wire_contract::Code;

use super::views::StateView;
use crate::auth::{Caller, Who};
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::ids::{PersonId, SessionId};
use hub_domain::session::{Input, best};
use hub_keys::{Enrolment, OpenedFrame, Origin, Sameness, SessionState};
use hub_recognition::enroller::{Models, average};

/// Makes the template of a session whose frames were accepted.
pub(super) async fn complete(
    api: &Api,
    caller: &Caller,
    models: &Models,
    (state, person): (SessionState, PersonId),
    opened: Vec<OpenedFrame>,
) -> Result<StateView, ApiError> {
    let id = state.session.id;
    let qualities: Vec<f32> = opened.iter().map(|frame| frame.quality).collect();
    let chosen: Vec<_> =
        best(&qualities).into_iter().map(|index| (opened[index].embedding.clone(), opened[index].quality)).collect();
    // Each was held against the first one; two of them may differ all the same.
    let Ok((embedding, quality)) = average(models, &chosen) else {
        return failed(api, caller, id, Code::PhotosDiffer).await;
    };
    let manifest = models.pack.manifest();
    let space: Space = manifest.space();
    let new = hub_keys::NewTemplate {
        space_id: space.id.clone(),
        model_version: format!("{} {}", manifest.name, manifest.version),
        quality,
        photographs: u32::try_from(chosen.len()).unwrap_or(u32::MAX),
        embedding: Box::new(*embedding.as_slice()),
        mark: None,
    };
    let (ladder, allowed) = (models.duplicates.clone(), state.session.allow_duplicate);
    let wanted = (new, Sameness { space, probe: embedding, ladder, allowed });
    let (origin, actor) = (Origin::Session(id), caller.actor());
    let enrolled = api.custody.enrol_unless_known(caller.tenant, person, origin, wanted, &actor);
    if let Enrolment::Known(other) = enrolled.await? {
        let mut view = failed(api, caller, id, Code::DuplicatePerson).await?;
        view.duplicate = (!matches!(caller.who, Who::Session(_))).then(|| hub_keys::duplicate_told(&other));
        return Ok(view);
    }
    Ok(StateView::of(api.custody.session(caller.tenant, id).await?, api.clock.now()))
}

async fn failed(api: &Api, caller: &Caller, id: SessionId, code: Code) -> Result<StateView, ApiError> {
    let ended = api.custody.end_session(caller.tenant, id, (Input::Refused, Some(code)), &caller.actor()).await?;
    Ok(StateView::of(ended, api.clock.now()))
}
