//! Whether two faces are one person's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use wire_contract::Code;

use super::answers::ComparisonAnswer;
use super::input::{GivenTemplate, Input};
use super::policy::Rules;
use super::probe::{probed, sought};
use super::{IMAGE, decided, fields, note};
use crate::auth::Caller;
use crate::openapi::{forms, texts};
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::recognition::WhyNot;
use hub_store::audit::Action;

const OTHER_IMAGE: &str = "other_image";

/// Two photographs, two templates, or one of each.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewComparison)]
pub(crate) struct Comparison {
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
pub(crate) async fn compare(
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
    decided("compare", (!same).then_some(Code::Unknown), Some(score.value()));
    note(&api, &caller, Action::RecognitionCompare, None, json!({ "same": same })).await?;
    let why = WhyNot { code: Code::Unknown, score: Some(score.value()), threshold: Some(threshold) };
    let why = (!same).then(|| why.into());
    Ok(Json(ComparisonAnswer { same, score: score.value(), threshold, far: rules.far, why }))
}
