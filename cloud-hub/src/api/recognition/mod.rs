//! Recognition over photographs and templates: what is on a picture, whether it is them, who it is.
//!
//! Work on pictures has the models' bounded queue, comparisons a bounded one of their own; neither is done on an async worker, and
//! a full queue is answered at once. Each use is in the audit, with the decision and without pictures, vectors or names.

mod answers;
mod input;
pub(super) mod policy;

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use face_core::gallery::{Gallery as _, Ranked};
use face_core::identify::identify_with_anchors;
use face_core::liveness::Method;
use face_core::{Embedding, OpenSetPolicy, Space};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Code;

use answers::{
    CandidateView, ComparisonAnswer, FaceView, FacesView, IdentificationAnswer, LivenessAnswer, QualityAnswer,
    SearchAnswer, TemplateAnswer, VerificationAnswer, no_face,
};
use input::{GivenTemplate, Input};

use super::auth::Caller;
use super::body::{Checks, Fields};
use super::enroller::Place;
use super::enrolments::RETRY_AFTER_SECONDS;
use super::openapi::{forms, texts};
use super::problem::ApiError;
use super::state::Api;
use crate::domain::ids::PersonId;
use crate::domain::recognition::{WhyNot, identified, verify as judge};
use crate::recognition::Warm;
use crate::recognition::faces::{self, StillLife};
use crate::recognition::galleries::GalleryError;
use crate::recognition::uses::Use;
use crate::store::audit::Action;
use policy::Rules;

/// People that one answer names at most.
const MAX_CANDIDATES: usize = 100;
/// People that a search may be narrowed to.
const MAX_PEOPLE: usize = 1_000;
const IMAGE: &str = "image";
const OTHER_IMAGE: &str = "other_image";

impl From<GalleryError> for ApiError {
    fn from(error: GalleryError) -> Self {
        match error {
            GalleryError::Keys(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

macro_rules! fields {
    ($name:ident: $($known:literal),* ; $($required:literal),*) => {
        impl Fields for $name {
            const KNOWN: &'static [&'static str] = &[$($known),*];
            const REQUIRED: &'static [&'static str] = &[$($required),*];
        }
    };
}

/// A photograph.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RecognitionImage)]
pub(super) struct Photograph {
    /// JPEG, PNG or WebP; or a part of a form.
    #[serde(default)]
    #[schema(value_type = texts::Base64, required)]
    #[expect(dead_code, reason = "taken out of the request before the rest is read; here for the document")]
    image: Option<String>,
}
fields!(Photograph: ;);

/// Two photographs, two templates, or one of each.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewComparison)]
pub(super) struct Comparison {
    /// JPEG, PNG or WebP; or a part of a form.
    #[serde(default)]
    #[schema(value_type = Option<texts::Base64>)]
    #[expect(dead_code, reason = "taken out of the request before the rest is read; here for the document")]
    image: Option<String>,
    /// The second one.
    #[serde(default)]
    #[schema(value_type = Option<texts::Base64>)]
    #[expect(dead_code, reason = "as `image`")]
    other_image: Option<String>,
    /// In the place of `image`.
    #[serde(default)]
    template: Option<GivenTemplate>,
    /// In the place of `other_image`.
    #[serde(default)]
    other_template: Option<GivenTemplate>,
}
fields!(Comparison: "template", "other_template";);

/// A photograph or a template, and whose it is said to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewVerification)]
pub(super) struct Verification {
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
pub(super) struct WhoIsIt {
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
pub(super) struct Search {
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

/// `POST /v1/recognition/detect`
#[utoipa::path(
    post, path = "/v1/recognition/detect", operation_id = "detect_faces", tag = "recognition",
    summary = "Faces on a photograph",
    description = "The largest first, each with its box, pose and quality.",
    request_body(content((Photograph = "application/json"), (forms::ImageForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The faces", body = FacesView),
        (status = 422, description = "`no_face`, `several_faces`, `photo_unreadable`, `photo_too_large`: the photograph gives no answer; `why` has the reasons."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(super) async fn detect(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<FacesView>, ApiError> {
    let (bytes, place) = Input::<Photograph>::read(&api, request, &[IMAGE]).await?.needed(IMAGE)?;
    let found = api.enroller.run(place, move |models, limits| faces::all(models, limits, &bytes)).await;
    let (faces, count) = found.map_err(|why| no_face(why, IMAGE))?;
    note(&api, &caller, Action::RecognitionDetect, None, json!({ "faces": count })).await?;
    Ok(Json(FacesView { faces: faces.iter().map(FaceView::from).collect(), count }))
}

/// `POST /v1/recognition/quality`
#[utoipa::path(
    post, path = "/v1/recognition/quality", operation_id = "quality_of_face", tag = "recognition",
    summary = "How good a photograph of a face is",
    description = "Five scores, and whether it serves for an enrolment and for a comparison.",
    request_body(content((Photograph = "application/json"), (forms::ImageForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The quality", body = QualityAnswer),
        (status = 422, description = "`no_face`, `several_faces`, `photo_unreadable`, `photo_too_large`: the photograph gives no answer; `why` has the reasons."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(super) async fn quality(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<QualityAnswer>, ApiError> {
    let (bytes, place) = Input::<Photograph>::read(&api, request, &[IMAGE]).await?.needed(IMAGE)?;
    let found = api.enroller.run(place, move |models, limits| faces::one(models, limits, &bytes)).await;
    let (_, face) = found.map_err(|why| no_face(why, IMAGE))?;
    note(&api, &caller, Action::RecognitionQuality, None, json!({})).await?;
    Ok(Json(QualityAnswer::from(&face)))
}

/// `POST /v1/recognition/liveness`: whether a still photograph is plainly an attack. It never proves that somebody lives.
#[utoipa::path(
    post, path = "/v1/recognition/liveness", operation_id = "liveness_of_face", tag = "recognition",
    summary = "Whether a photograph is plainly an attack",
    description = "A still photograph never proves that somebody lives.",
    request_body(content((Photograph = "application/json"), (forms::ImageForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "What it says of life", body = LivenessAnswer),
        (status = 422, description = "`no_face`, `several_faces`, `photo_unreadable`, `photo_too_large`: the photograph gives no answer; `why` has the reasons."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(super) async fn liveness(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<LivenessAnswer>, ApiError> {
    let (bytes, place) = Input::<Photograph>::read(&api, request, &[IMAGE]).await?.needed(IMAGE)?;
    let found = api.enroller.run(place, move |models, limits| faces::life(models, limits, &bytes)).await;
    let (life, face) = found.map_err(|why| no_face(why, IMAGE))?;
    let decision = if life.attack.is_some() { "attack" } else { "insufficient" };
    note(&api, &caller, Action::RecognitionLiveness, None, json!({ "decision": decision })).await?;
    let code = life.attack.map_or(Code::LivenessUndecided, |_| Code::LivenessFailed);
    let why = WhyNot { code, score: Some(life.score), threshold: None };
    Ok(Json(LivenessAnswer { decision, score: life.score, face: (&face).into(), why: Some(why.into()) }))
}

/// `POST /v1/recognition/embed`
#[utoipa::path(
    post, path = "/v1/recognition/embed", operation_id = "embed_faces", tag = "recognition",
    summary = "A photograph's template",
    description = "Whoever has a template can compare it anywhere: an owner's permission.",
    request_body(content((Photograph = "application/json"), (forms::ImageForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The template", body = TemplateAnswer),
        (status = 422, description = "`no_face`, `several_faces`, `face_too_small`, `face_blurred`, `face_too_dark`, `face_too_bright`, `face_turned`, `face_occluded`, `photo_unreadable`, `photo_too_large`: the photograph cannot be compared; `why` has the reasons."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(super) async fn embed(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<TemplateAnswer>, ApiError> {
    let (bytes, place) = Input::<Photograph>::read(&api, request, &[IMAGE]).await?.needed(IMAGE)?;
    let found = api.enroller.run(place, move |models, limits| {
        let probe = faces::probe(models, limits, &bytes, false)?;
        let manifest = models.pack.manifest();
        let space = manifest.space();
        Ok(TemplateAnswer {
            quality: space.quality(probe.embedding.handicap(), probe.face.quality.overall()),
            space_id: space.id,
            model_version: format!("{} {}", manifest.name, manifest.version),
            vector: STANDARD.encode(probe.embedding.to_le_bytes()),
        })
    });
    let template = found.await.map_err(|why| no_face(why, IMAGE))?;
    note(&api, &caller, Action::RecognitionEmbed, None, json!({})).await?;
    Ok(Json(template))
}

/// `POST /v1/recognition/compare`
#[utoipa::path(
    post, path = "/v1/recognition/compare", operation_id = "compare_faces", tag = "recognition",
    summary = "Whether two faces are one person's",
    description = "Photographs, templates, or one of each.",
    request_body(content((Comparison = "application/json"), (forms::PairForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The comparison", body = ComparisonAnswer),
        (status = 422, description = "`no_face`, `several_faces`, `face_too_small`, `face_blurred`, `face_too_dark`, `face_too_bright`, `face_turned`, `face_occluded`, `photo_unreadable`, `photo_too_large`: the photograph cannot be compared; `why` has the reasons."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(super) async fn compare(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<ComparisonAnswer>, ApiError> {
    let mut input = Input::<Comparison>::read(&api, request, &[IMAGE, OTHER_IMAGE]).await?;
    let rules = Rules::of(&api, &caller).await?;
    let (first, second) = (input.photograph(IMAGE), input.photograph(OTHER_IMAGE));
    let given = [(&input.options.template, "/template"), (&input.options.other_template, "/other_template")];
    let [given, other_given] = given.map(|(template, pointer)| {
        template.as_ref().map(|template| template.embedding(&rules.space, pointer)).transpose()
    });
    let (given, other_given) = (given?, other_given?);
    let both = [(first, given, IMAGE, "template"), (second, other_given, OTHER_IMAGE, "other_template")];
    let mut place = input.place();
    let mut embeddings = Vec::with_capacity(2);
    for (photograph, given, name, template) in both {
        let probe = sought(photograph, given, name, template)?;
        // Both photographs have one place, and wait for a worker one after the other.
        let (probe, back) = probed(&api, probe, place.take(), name, false).await?;
        place = back;
        embeddings.push(probe.embedding);
    }
    let score = embeddings[0].similarity(&embeddings[1]);
    let threshold = rules.threshold(1).value();
    let same = score.value() >= threshold;
    note(&api, &caller, Action::RecognitionCompare, None, json!({ "same": same })).await?;
    let why = WhyNot { code: Code::Unknown, score: Some(score.value()), threshold: Some(threshold) };
    let why = (!same).then(|| why.into());
    Ok(Json(ComparisonAnswer { same, score: score.value(), threshold, far: rules.far, why }))
}

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
pub(super) async fn verify(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<VerificationAnswer>, ApiError> {
    let mut input = Input::<Verification>::read(&api, request, &[IMAGE]).await?;
    let person = PersonId(input.options.person_id);
    // Whether there is such a person is asked before a model runs.
    api.db.tenant(caller.tenant, move |tx| Box::pin(crate::store::people::get(tx, person))).await?;
    let rules = Rules::of(&api, &caller).await?;
    let probe = the_probe(&mut input, &rules.space, |options| &options.template)?;
    let with_life = input.options.refuse_attacks.unwrap_or(true);
    let (probe, _) = probed(&api, probe, input.place(), IMAGE, with_life).await?;
    let gallery = gallery(&api, &caller, &rules, &probe).await?;
    let scored = compare_with(&api, gallery, move |gallery| {
        let own = gallery.own(face_core::gallery::PersonId(person.0), &probe.embedding);
        (own, probe.life)
    });
    let (own, life) = scored.await?;
    let verified = judge(own.best, own.anchor, rules.threshold(own.templates));
    let why_not = attack(life.as_ref()).or(verified.why_not);
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
pub(super) async fn identify(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<IdentificationAnswer>, ApiError> {
    let mut input = Input::<WhoIsIt>::read(&api, request, &[IMAGE]).await?;
    let wanted = input.options.candidates;
    Checks::default()
        .that(wanted <= MAX_CANDIDATES, "/candidates", &format!("must be at most {MAX_CANDIDATES}"))
        .done()?;
    let rules = Rules::of(&api, &caller).await?;
    let probe = the_probe(&mut input, &rules.space, |options| &options.template)?;
    let with_life = input.options.refuse_attacks.unwrap_or(true);
    let (probe, _) = probed(&api, probe, input.place(), IMAGE, with_life).await?;
    let gallery = gallery(&api, &caller, &rules, &probe).await?;
    let (compared, life) = (gallery.templates(), probe.life);
    let policy = OpenSetPolicy { margin: rules.margin, threshold: rules.threshold(compared) };
    let searched = compare_with(&api, gallery, move |gallery| {
        let ranked = gallery.index().candidates(&probe.embedding);
        let anchors = gallery.index().anchors(&probe.embedding, &ranked);
        let found = identify_with_anchors(&ranked, &anchors, &policy);
        (found, best_of_each(&nearest(gallery, &probe.embedding, wanted, |_| true), wanted, None))
    });
    let (found, candidates) = searched.await?;
    let mut found = identified(found, &policy);
    if let Some(why) = attack(life.as_ref()) {
        found.person = None;
        found.why_not = Some(why);
    }
    let decision = match found.why_not {
        None => "known",
        Some(why) if why.code == Code::LivenessFailed => "attack",
        Some(why) => why.code.as_str(),
    };
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
        candidates,
        why: found.why_not.map(Into::into),
    }))
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
pub(super) async fn search(
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
    let rules = Rules::of(&api, &caller).await?;
    let probe = the_probe(&mut input, &rules.space, |options| &options.template)?;
    let (probe, _) = probed(&api, probe, input.place(), IMAGE, false).await?;
    let of_site = match site {
        None => None,
        Some(site) => Some(policy::people_of_site(&api, &caller, site).await?),
    };
    let gallery = gallery(&api, &caller, &rules, &probe).await?;
    let compared = gallery.templates();
    let wanted = move |row: &Ranked| {
        of_site.as_ref().is_none_or(|people| people.contains(&row.person.0))
            && people.as_ref().is_none_or(|people| people.contains(&row.person.0))
    };
    let searched = compare_with(&api, gallery, move |gallery| {
        best_of_each(&nearest(gallery, &probe.embedding, limit, wanted), limit, min_score)
    });
    let candidates = searched.await?;
    note(&api, &caller, Action::RecognitionSearch, None, json!({ "candidates": candidates.len() })).await?;
    Ok(Json(SearchAnswer { candidates, compared }))
}

/// What is compared: a photograph, or the template in its place.
enum Sought {
    Photograph(Bytes),
    Template(Box<Embedding>),
}

fn sought(
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

fn the_probe<T: Fields>(
    input: &mut Input<T>,
    space: &Space,
    template: impl Fn(&T) -> &Option<GivenTemplate>,
) -> Result<Sought, ApiError> {
    let photograph = input.photograph(IMAGE);
    let given = template(&input.options).as_ref().map(|template| template.embedding(space, "/template")).transpose()?;
    sought(photograph, given, IMAGE, "template")
}

/// What is compared in the end.
struct Probed {
    embedding: Embedding,
    life: Option<StillLife>,
    from_photograph: bool,
}

/// The gallery as it is when the search begins: models take their time, in which somebody may be deleted.
async fn gallery(api: &Api, caller: &Caller, rules: &Rules, probe: &Probed) -> Result<Arc<Warm>, GalleryError> {
    if probe.from_photograph {
        api.galleries.of(caller.tenant, &rules.space).await
    } else {
        api.galleries.of_stamp(caller.tenant, &rules.space, rules.stamp).await
    }
}

/// The template behind a photograph. The place comes back for a second one.
async fn probed(
    api: &Api,
    probe: Sought,
    place: Option<Place>,
    name: &'static str,
    with_life: bool,
) -> Result<(Probed, Option<Place>), ApiError> {
    let bytes = match probe {
        Sought::Template(embedding) => {
            return Ok((Probed { embedding: *embedding, life: None, from_photograph: false }, place));
        }
        Sought::Photograph(bytes) => bytes,
    };
    let place = place.ok_or_else(|| ApiError::of(Code::Internal))?;
    let work = api.enroller.run_and_keep(place, move |models, limits| faces::probe(models, limits, &bytes, with_life));
    let (probe, place) = work.await.map_err(|why| no_face(why, name))?;
    Ok((Probed { embedding: probe.embedding, life: probe.life, from_photograph: true }, Some(place)))
}

/// Why a photograph is refused before anybody is looked for in it.
fn attack(life: Option<&StillLife>) -> Option<WhyNot> {
    let life = life.filter(|life| life.attack == Some(Method::Passive))?;
    let threshold = face_core::liveness::LivenessPolicy::default().still_attack_below;
    Some(WhyNot { code: Code::LivenessFailed, score: Some(life.score), threshold: Some(threshold) })
}

/// Compares off the async workers, as many at once as there are processors; the rest is told at once to come back.
async fn compare_with<T: Send + 'static>(
    api: &Api,
    gallery: Arc<Warm>,
    work: impl FnOnce(&Warm) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let busy = || ApiError::because(Code::Unavailable, "too many comparisons at once").retry_after(RETRY_AFTER_SECONDS);
    let place = Arc::clone(&api.comparisons.places).try_acquire_owned().map_err(|_| busy())?;
    let worker = Arc::clone(&api.comparisons.workers).acquire_owned().await.map_err(|_| busy())?;
    let work = tokio::task::spawn_blocking(move || {
        let outcome = work(&gallery);
        drop((worker, place));
        outcome
    });
    work.await.map_err(|error| ApiError::internal(&error))
}

/// The nearest rows that are wanted, until `people` different people are among them or there are no more.
fn nearest(gallery: &Warm, probe: &Embedding, people: usize, wanted: impl Fn(&Ranked) -> bool) -> Vec<Ranked> {
    if people == 0 {
        return Vec::new();
    }
    let (mut depth, all) = (people.saturating_mul(4).max(16), gallery.templates());
    loop {
        let mut found = gallery.index().search_batch(std::slice::from_ref(probe), depth, NonZeroUsize::MIN);
        let rows: Vec<Ranked> = found.pop().unwrap_or_default().into_iter().filter(|row| wanted(row)).collect();
        let different: std::collections::HashSet<_> = rows.iter().map(|row| row.person).collect();
        if different.len() >= people || depth >= all {
            return rows;
        }
        depth = depth.saturating_mul(4);
    }
}

fn best_of_each(rows: &[Ranked], limit: usize, min_score: Option<f32>) -> Vec<CandidateView> {
    let mut seen = std::collections::HashSet::new();
    let near = rows.iter().filter(|row| min_score.is_none_or(|least| row.similarity.value() >= least));
    let first = near.filter(|row| seen.insert(row.person)).take(limit);
    let view = |row: &Ranked| CandidateView {
        person_id: row.person.0,
        template_id: row.template.0,
        score: row.similarity.value(),
    };
    first.map(view).collect()
}

/// Writes a use of recognition into the audit. Without it there is no answer.
async fn note(api: &Api, caller: &Caller, action: Action, person: Option<Uuid>, detail: Value) -> Result<(), ApiError> {
    let noted = Use { tenant: caller.tenant, actor: caller.actor(), action, person, detail };
    api.uses.note(noted).await.map_err(|_| {
        ApiError::because(Code::Unavailable, "the audit cannot be written at present").retry_after(RETRY_AFTER_SECONDS)
    })
}
