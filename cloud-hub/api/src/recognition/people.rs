//! Whose a face is: the person's that is named, one of all the tenant's, or the nearest ones.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use face_core::identify::identify_with_anchors;
use face_core::{Embedding, OpenSetPolicy, Space};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Code;

use super::answers::{CandidateView, IdentificationAnswer, SearchAnswer, VerificationAnswer};
use super::input::{GivenTemplate, Input};
use super::policy::{self, MARGIN, Rules};
use super::probe::{probed, the_probe};
use super::{IMAGE, decided, fields, note};
use crate::auth::Caller;
use crate::body::Checks;
use crate::openapi::{forms, texts};
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::ids::PersonId;
use hub_domain::recognition::{Identified, StillLife, Verified, identified, verify as judge};
use hub_recognition::Served;
use hub_recognition::paths::Found;
use hub_store::audit::Action;

/// People that one answer names at most.
const MAX_CANDIDATES: usize = 100;
/// People that a search may be narrowed to.
const MAX_PEOPLE: usize = 1_000;

/// A photograph or a template, and whose it is said to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewVerification)]
pub(crate) struct Verification {
    /// JPEG, PNG or WebP; or a part of a form.
    #[serde(default)]
    #[schema(value_type = Option<texts::Base64>)]
    #[expect(dead_code, reason = "taken out of the request before the rest is read; here for the document")]
    image: Option<String>,
    person_id: Uuid,
    #[serde(default)]
    template: Option<GivenTemplate>,
    /// Whether a photograph that is plainly an attack is refused; it is unless this says otherwise.
    #[serde(default)]
    refuse_attacks: Option<bool>,
}
fields!(Verification: "person_id", "template", "refuse_attacks"; "person_id");

/// A photograph or a template.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewIdentification)]
pub(crate) struct WhoIsIt {
    /// JPEG, PNG or WebP; or a part of a form.
    #[serde(default)]
    #[schema(value_type = Option<texts::Base64>)]
    #[expect(dead_code, reason = "taken out of the request before the rest is read; here for the document")]
    image: Option<String>,
    #[serde(default)]
    template: Option<GivenTemplate>,
    #[serde(default)]
    refuse_attacks: Option<bool>,
    /// How many of the nearest people are named, whoever it is; none unless this says otherwise.
    #[serde(default)]
    #[schema(maximum = 100)]
    candidates: usize,
}
fields!(WhoIsIt: "template", "refuse_attacks", "candidates";);

/// A photograph or a template, and among whom to look.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSearch)]
pub(crate) struct Search {
    /// JPEG, PNG or WebP; or a part of a form.
    #[serde(default)]
    #[schema(value_type = Option<texts::Base64>)]
    #[expect(dead_code, reason = "taken out of the request before the rest is read; here for the document")]
    image: Option<String>,
    #[serde(default)]
    template: Option<GivenTemplate>,
    /// How many people are named; ten unless this says otherwise.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    limit: Option<usize>,
    /// Only those at least as near, in [-1, 1].
    #[serde(default)]
    #[schema(minimum = -1, maximum = 1)]
    min_score: Option<f32>,
    /// Only those of a site.
    #[serde(default)]
    site_id: Option<Uuid>,
    /// Only these.
    #[serde(default)]
    #[schema(max_items = 1_000)]
    person_ids: Option<Vec<Uuid>>,
}
fields!(Search: "template", "limit", "min_score", "site_id", "person_ids";);

/// `POST /v1/recognition/verify`: is it this person?
#[utoipa::path(
    post, path = "/v1/recognition/verify", operation_id = "verify_person", tag = "recognition",
    summary = "Whether it is this person",
    description = "Their templates and their negative anchors are compared.",
    request_body(content((Verification = "application/json"), (forms::ProbeForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Whether it is them, and if not, why not", body = VerificationAnswer),
        (status = 404, description = "`not_found`: there is no such person."),
        (status = 422, description = "`no_face`, `several_faces`, `face_too_small`, `face_blurred`, `face_too_dark`, `face_too_bright`, `face_turned`, `face_occluded`, `photo_unreadable`, `photo_too_large`: the photograph cannot be compared; `why` has the reasons."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(crate) async fn verify(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<VerificationAnswer>, ApiError> {
    let mut input = Input::<Verification>::read(&api, request, &[IMAGE]).await?;
    let person = PersonId(input.options.person_id);
    // Whether there is such a person is asked before a model runs.
    api.db.tenant(caller.tenant, move |tx| Box::pin(hub_store::people::get(tx, person))).await?;
    let probe = the_probe(&mut input, &policy::space(&api)?, |options| &options.template)?;
    let with_life = input.options.refuse_attacks.unwrap_or(true);
    let (probe, _) = probed(&api, probe, input.place(), IMAGE, with_life).await?;
    let life = probe.life;
    // Only now: models take their time, in which somebody may be deleted.
    let rules = Rules::of(&api, &caller).await?;
    let gallery = rules.gallery(&api, &caller).await?;
    let verified = verified_in(&api, &gallery, &rules, person, probe.embedding).await?;
    let verified = verified.unless(life.and_then(StillLife::refusal));
    let why_not = verified.why_not;
    decided("verify", why_not.map(|why| why.code), verified.score);
    let detail = json!({ "verified": why_not.is_none(), "code": why_not.map(|why| why.code) });
    note(&api, &caller, Action::RecognitionVerify, Some(person.0), detail).await?;
    Ok(Json(VerificationAnswer {
        verified: why_not.is_none(),
        person_id: person.0,
        score: verified.score,
        threshold: verified.threshold,
        far: rules.far,
        liveness: life.map(|life| life.score),
        why: why_not.map(Into::into),
    }))
}

/// `POST /v1/recognition/identify`: who of the tenant's people is it?
#[utoipa::path(
    post, path = "/v1/recognition/identify", operation_id = "identify_faces", tag = "recognition",
    summary = "Who it is",
    description = "Among all people of the tenant, by the thresholds for as many templates as there are.",
    request_body(content((WhoIsIt = "application/json"), (forms::ProbeForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Who it is, or why nobody", body = IdentificationAnswer),
        (status = 422, description = "`no_face`, `several_faces`, `face_too_small`, `face_blurred`, `face_too_dark`, `face_too_bright`, `face_turned`, `face_occluded`, `photo_unreadable`, `photo_too_large`: the photograph cannot be compared; `why` has the reasons."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(crate) async fn identify(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<IdentificationAnswer>, ApiError> {
    let mut input = Input::<WhoIsIt>::read(&api, request, &[IMAGE]).await?;
    let wanted = input.options.candidates;
    Checks::default()
        .that(wanted <= MAX_CANDIDATES, "/candidates", &format!("must be at most {MAX_CANDIDATES}"))
        .done()?;
    let space = policy::space(&api)?;
    let probe = the_probe(&mut input, &space, |options| &options.template)?;
    let with_life = input.options.refuse_attacks.unwrap_or(true);
    let (probe, _) = probed(&api, probe, input.place(), IMAGE, with_life).await?;
    let life = probe.life;
    let Searched { rules, compared, found } = searched(&api, &caller, &space, probe.embedding, wanted).await?;
    let (candidates, found) = (&found.nearest, decided_by(&rules, compared, &found));
    let found = found.unless(life.and_then(StillLife::refusal));
    let decision = match found.why_not {
        None => "known",
        Some(why) if why.code == Code::LivenessFailed => "attack",
        Some(why) => why.code.as_str(),
    };
    decided("identify", found.why_not.map(|why| why.code), found.score);
    let person = found.person.map(|person| person.0);
    note(&api, &caller, Action::RecognitionIdentify, person, json!({ "decision": decision })).await?;
    Ok(Json(IdentificationAnswer {
        decision,
        person_id: person,
        score: found.score,
        threshold: found.threshold,
        margin: found.margin,
        far: rules.far,
        liveness: life.map(|life| life.score),
        compared,
        candidates: candidates.iter().map(Into::into).collect(),
        why: found.why_not.map(Into::into),
    }))
}

/// Whether a face is a person's, by the tenant's thresholds.
pub(crate) async fn verified_in(
    api: &Api,
    gallery: &Served,
    rules: &Rules,
    person: PersonId,
    probe: Embedding,
) -> Result<Verified, ApiError> {
    let own = gallery.own(&api.comparisons, face_core::gallery::PersonId(person.0), probe).await?;
    Ok(judge(own.best, own.anchor, rules.threshold(own.templates)))
}

/// Whose face it is, by the tenant's thresholds.
pub(crate) async fn identified_in(
    api: &Api,
    gallery: &Served,
    rules: &Rules,
    probe: Embedding,
) -> Result<Identified, ApiError> {
    let found = gallery.found(&api.comparisons, probe, 0).await?;
    Ok(decided_by(rules, gallery.templates(), &found))
}

fn decided_by(rules: &Rules, templates: usize, found: &Found) -> Identified {
    let policy = OpenSetPolicy { margin: MARGIN, threshold: rules.threshold(templates) };
    identified(identify_with_anchors(&found.ranked, &found.anchors, &policy), &policy)
}

/// What was found among so many templates, and the rules that it is held against.
struct Searched {
    rules: Rules,
    compared: usize,
    found: Found,
}

/// Searches the tenant's gallery as it was after this was called. The search begins while the database is still being asked how that
/// is, in the gallery that lies in memory; what it finds counts only if it turns out that this one is still the tenant's.
async fn searched(
    api: &Api,
    caller: &Caller,
    space: &Space,
    probe: Embedding,
    wanted: usize,
) -> Result<Searched, ApiError> {
    let early = async {
        let gallery = api.galleries.at_hand(caller.tenant, space)?;
        let found = gallery.found(&api.comparisons, probe.clone(), wanted).await;
        Some((gallery, found))
    };
    let (rules, early) = tokio::join!(Rules::of(api, caller), early);
    let rules = rules?;
    let gallery = rules.gallery(api, caller).await?;
    let found = match early {
        Some((searched, found)) if searched.is(&gallery) => found?,
        _ => gallery.found(&api.comparisons, probe, wanted).await?,
    };
    Ok(Searched { rules, compared: gallery.templates(), found })
}

/// `POST /v1/recognition/search`: whoever is nearest, whether it is them or not.
#[utoipa::path(
    post, path = "/v1/recognition/search", operation_id = "search_faces", tag = "recognition",
    summary = "Who is nearest",
    description = "Whether it is them or not. Scores are those of a door.",
    request_body(content((Search = "application/json"), (forms::ProbeForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The nearest people", body = SearchAnswer),
        (status = 404, description = "`not_found`: there is no such site."),
        (status = 422, description = "`no_face`, `several_faces`, `face_too_small`, `face_blurred`, `face_too_dark`, `face_too_bright`, `face_turned`, `face_occluded`, `photo_unreadable`, `photo_too_large`: the photograph cannot be compared; `why` has the reasons."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(crate) async fn search(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<SearchAnswer>, ApiError> {
    let mut input = Input::<Search>::read(&api, request, &[IMAGE]).await?;
    let Search { limit, min_score, site_id, person_ids, .. } = &mut input.options;
    let (limit, min_score, site) = (limit.unwrap_or(10), *min_score, *site_id);
    let people = person_ids.take();
    Checks::default()
        .that((1..=MAX_CANDIDATES).contains(&limit), "/limit", &format!("must lie between 1 and {MAX_CANDIDATES}"))
        .that(min_score.is_none_or(|score| (-1.0..=1.0).contains(&score)), "/min_score", "must lie in [-1, 1]")
        .that(
            people.as_ref().is_none_or(|people| people.len() <= MAX_PEOPLE),
            "/person_ids",
            &format!("must be at most {MAX_PEOPLE}"),
        )
        .done()?;
    let probe = the_probe(&mut input, &policy::space(&api)?, |options| &options.template)?;
    let (probe, _) = probed(&api, probe, input.place(), IMAGE, false).await?;
    let of_site = match site {
        None => None,
        Some(site) => Some(policy::people_of_site(&api, &caller, site).await?),
    };
    let gallery = Rules::of(&api, &caller).await?.gallery(&api, &caller).await?;
    let compared = gallery.templates();
    let only = match (of_site, people) {
        (Some(site), Some(people)) => Some(people.into_iter().filter(|person| site.contains(person)).collect()),
        (of_site, people) => of_site.or_else(|| people.map(HashSet::from_iter)),
    };
    let searched = gallery.nearest_people(&api.comparisons, probe.embedding, limit, only).await?;
    let near = searched.iter().filter(|row| min_score.is_none_or(|least| row.similarity.value() >= least));
    let candidates: Vec<CandidateView> = near.map(Into::into).collect();
    note(&api, &caller, Action::RecognitionSearch, None, json!({ "candidates": candidates.len() })).await?;
    Ok(Json(SearchAnswer { candidates, compared }))
}
