//! How sure recognition must be for a tenant: a FAR from the model pack's table, and what follows from it.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use face_core::{Similarity, Space, ThresholdLadder};
use face_runtime::FalseAcceptRate;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Code;

use crate::auth::Caller;
use crate::body::{self, Fields};
use crate::enrolments::refused;
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::ids::SiteId;
use hub_recognition::Served;
use hub_recognition::enroller::{Models, Refusal};
use hub_recognition::galleries::GalleryError;
use hub_recognition::standing::Standing;
use hub_store::{audit, people, places, tenants};

/// How far the best person must be above the second-best one: as a door's default, which was measured with the thresholds.
pub(super) const MARGIN: f32 = 0.05;

/// What scores are held against.
pub(crate) struct Rules {
    /// The space of the models in use.
    pub(super) space: Space,
    /// The tenant's choice.
    pub(crate) far: String,
    /// Its thresholds by the number of templates compared.
    pub(super) ladder: ThresholdLadder,
    /// How often the tenant's templates had changed when the request came.
    stamp: i64,
}

impl Rules {
    /// The tenant's, with the models in use.
    pub(crate) async fn of(api: &Api, caller: &Caller) -> Result<Self, ApiError> {
        let models = models(api)?;
        let Standing { far, stamp } = api.standings.of(caller.tenant).await?;
        let ladder = ladder(&models, &far).map_err(|message| {
            // A pack of other rates took the place of the one that the tenant chose from.
            ApiError::because(Code::ModelsUnavailable, format!("{message}: PUT /v1/tenant/recognition"))
        })?;
        Ok(Self { space: models.pack.manifest().space(), far, ladder, stamp })
    }

    /// The tenant's gallery as these rules found it, or newer.
    pub(crate) async fn gallery(&self, api: &Api, caller: &Caller) -> Result<Served, GalleryError> {
        api.galleries.of_stamp(caller.tenant, &self.space, self.stamp).await
    }

    /// What has to be reached among so many templates. Beyond what was calibrated nobody is known.
    pub(crate) fn threshold(&self, templates: usize) -> Similarity {
        self.ladder.at(templates.max(1)).unwrap_or(Similarity::UNREACHABLE)
    }
}

/// The space of the models in use.
pub(super) fn space(api: &Api) -> Result<Space, ApiError> {
    Ok(models(api)?.pack.manifest().space())
}

fn models(api: &Api) -> Result<Arc<Models>, ApiError> {
    api.enroller.models().ok_or_else(|| refused(Refusal::NoModels))
}

fn ladder(models: &Models, far: &str) -> Result<ThresholdLadder, String> {
    let rate: FalseAcceptRate = far.parse().map_err(|error| format!("{error}"))?;
    models.pack.manifest().ladder_at(rate).map_err(|error| error.to_string())
}

/// How sure recognition must be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RecognitionPolicy)]
pub(crate) struct Policy {
    /// One of `choices`.
    #[schema(example = "1e-4")]
    far: String,
}

impl Fields for Policy {
    const KNOWN: &'static [&'static str] = &["far"];
    const REQUIRED: &'static [&'static str] = &["far"];
}

/// The same, with what there is to choose from and what follows from it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecognitionPolicyInUse)]
pub(crate) struct PolicyView {
    /// How often a stranger is taken for somebody, at most: one comparison's rate, which the thresholds keep as a gallery grows.
    far: String,
    /// What there is to choose from: the rates that the model pack was calibrated for.
    choices: Vec<String>,
    /// What has to be reached, by how many templates are compared.
    thresholds: Vec<ThresholdView>,
}

/// A threshold of a gallery's size.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GalleryThreshold)]
pub(crate) struct ThresholdView {
    /// Templates, at most.
    up_to: usize,
    /// The least score.
    score: f32,
}

fn view(models: &Models, far: String) -> Result<PolicyView, ApiError> {
    let ladder = ladder(models, &far).map_err(|message| ApiError::because(Code::ModelsUnavailable, message))?;
    let step = |step: &face_core::ThresholdStep| ThresholdView { up_to: step.up_to, score: step.threshold.value() };
    let choices = models.pack.manifest().thresholds.iter().map(|threshold| threshold.far.to_string()).collect();
    Ok(PolicyView { far, choices, thresholds: ladder.steps().iter().map(step).collect() })
}

/// `GET /v1/tenant/recognition`
#[utoipa::path(
    get, path = "/v1/tenant/recognition", operation_id = "get_recognition_policy", tag = "tenant",
    summary = "How sure recognition must be",
    description = "The false accept rate that the tenant has chosen, what there is to choose from, and the thresholds that follow.",
    responses(
        (status = 200, description = "The policy", body = PolicyView),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(crate) async fn get_policy(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<PolicyView>, ApiError> {
    let models = models(&api)?;
    let far = api.db.tenant(caller.tenant, |tx| Box::pin(tenants::match_far(tx))).await?;
    Ok(Json(view(&models, far)?))
}

/// `PUT /v1/tenant/recognition`
#[utoipa::path(
    put, path = "/v1/tenant/recognition", operation_id = "put_recognition_policy", tag = "tenant",
    summary = "Say how sure recognition must be",
    description = "By a false accept rate that the model pack was calibrated for. It holds from the next request on. Doors have their own.",
    request_body = Policy,
    responses(
        (status = 200, description = "The policy as it is now", body = PolicyView),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(crate) async fn put_policy(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body::Json(policy): body::Json<Policy>,
) -> Result<Json<PolicyView>, ApiError> {
    let models = models(&api)?;
    ladder(&models, &policy.far).map_err(|message| ApiError::field("/far", Code::InvalidField, message))?;
    let (far, actor) = (policy.far.clone(), caller.actor());
    api.db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                let was = tenants::match_far(tx).await?;
                tenants::set_match_far(tx, &far).await?;
                let entry = audit::Entry {
                    actor: &actor,
                    action: audit::Action::TenantRecognition,
                    object_kind: "tenant",
                    object_id: Some(tx.tenant().0),
                    detail: json!({ "far": far, "was": was }),
                };
                Ok::<_, ApiError>(audit::write(tx, entry).await?)
            })
        })
        .await?;
    Ok(Json(view(&models, policy.far)?))
}

/// Who is at a site.
pub(super) async fn people_of_site(api: &Api, caller: &Caller, site: Uuid) -> Result<HashSet<Uuid>, ApiError> {
    api.db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                places::site(tx, SiteId(site)).await?;
                Ok::<_, ApiError>(people::ids_of_site(tx, SiteId(site)).await?)
            })
        })
        .await
}
