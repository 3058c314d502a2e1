//! What is on one photograph: faces, how good they are, whether it is plainly an attack, and the template of one.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use wire_contract::Code;

use super::answers::{FaceView, FacesView, LivenessAnswer, QualityAnswer, TemplateAnswer, no_face};
use super::input::Input;
use super::{IMAGE, fields, note};
use crate::auth::Caller;
use crate::openapi::{forms, texts};
use crate::problem::ApiError;
use crate::state::Api;
use crate::watch::Shown;
use hub_domain::recognition::WhyNot;
use hub_recognition::faces;
use hub_store::audit::Action;

/// A photograph.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RecognitionImage)]
pub(crate) struct Photograph {
    /// JPEG, PNG or WebP; or a part of a form.
    #[serde(default)]
    #[schema(value_type = texts::Base64, required)]
    #[expect(dead_code, reason = "taken out of the request before the rest is read; here for the document")]
    image: Option<String>,
}
fields!(Photograph: ;);

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
pub(crate) async fn detect(
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
pub(crate) async fn quality(
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
pub(crate) async fn liveness(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Json<LivenessAnswer>, ApiError> {
    let (bytes, place) = Input::<Photograph>::read(&api, request, &[IMAGE]).await?.needed(IMAGE)?;
    let found = api.enroller.run(place, move |models, limits| faces::life(models, limits, &bytes)).await;
    let (life, face) = found.map_err(|why| no_face(why, IMAGE))?;
    let decision = if life.attack { "attack" } else { "insufficient" };
    note(&api, &caller, Action::RecognitionLiveness, None, json!({ "decision": decision })).await?;
    let undecided = WhyNot { code: Code::LivenessUndecided, score: Some(life.score), threshold: None };
    let why = life.refusal().unwrap_or(undecided);
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
pub(crate) async fn embed(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<(Extension<Shown>, Json<TemplateAnswer>), ApiError> {
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
    Ok((Extension(Shown(1)), Json(template)))
}
