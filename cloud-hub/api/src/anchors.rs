//! Negative anchors: "whoever is in this picture is not that person", said by an operator after a door took one for the other.
//!
//! In: one picture. Out: an anchor, on its way to every door of the person; or why it does not become one. The same over the
//! network and over the control socket.

use std::sync::Arc;

use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use wire_contract::{Code, Problem, Timestamp};

use super::auth::Caller;
use super::enrolments::{self, RETRY_AFTER_SECONDS};
use super::openapi::{forms, wire};
use super::page::Page;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::anchor::Objection;
use hub_domain::ids::{AnchorId, PersonId, TenantId};
use hub_keys::{Anchored, NotThem};
use hub_recognition::enroller::{Busy, Place};
use hub_store::{anchors, audit, people};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AnchorQuery {
    /// It shows somebody else, however much it resembles the person.
    #[serde(default)]
    pub(super) confirm: bool,
}

/// An anchor without its vector.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NegativeAnchor)]
pub(super) struct AnchorView {
    id: Uuid,
    person: Uuid,
    space_id: String,
    model_version: String,
    quality: f32,
    /// Of a new one: its similarity to the nearest of the person's own templates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = wire::Timestamp, required = false)]
    created_at: Option<Timestamp>,
}

/// `POST /v1/people/{id}/negative-anchors`: a form with one picture, in the field `photo`.
#[utoipa::path(
    post, path = "/v1/people/{id}/negative-anchors", operation_id = "create_negative_anchor", tag = "enrolment",
    summary = "Say who somebody is not",
    description = "A picture of somebody whom a door took for this person. It goes to every door of the person.",
    params(
        ("id" = Uuid, Path, description = "The person"),
        AnchorQuery,
    ),
    request_body(content = forms::PictureForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "The anchor", body = AnchorView),
        (status = 409, description = "`anchor_is_person`: it is probably the person, and would keep them out; `resemblance` says how near it is. `too_many_anchors`: the person has as many as there may be."),
        (status = 422, description = "The reasons why a picture does not serve, with `photographs` of each."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(person): Path<Uuid>,
    Query(query): Query<AnchorQuery>,
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<(StatusCode, axum::Json<AnchorView>), ApiError> {
    let form = multipart.map_err(|rejection| enrolments::not_a_form(&rejection))?;
    let place = enter(&api, caller.tenant, PersonId(person)).await?;
    let mut photographs = enrolments::read_photographs(&api, form).await?;
    let (Some(picture), true) = (photographs.pop(), photographs.is_empty()) else {
        return Err(ApiError::field(
            "photo",
            Code::InvalidField,
            "send one picture: each becomes an anchor of its own",
        ));
    };
    let actor = caller.actor();
    let view = add(&api, caller.tenant, PersonId(person), place, picture, query.confirm, &actor).await?;
    Ok((StatusCode::CREATED, axum::Json(view)))
}

/// `GET /v1/people/{id}/negative-anchors`: all of them, oldest first; there are never many.
#[utoipa::path(
    get, path = "/v1/people/{id}/negative-anchors", operation_id = "list_negative_anchors", tag = "enrolment",
    summary = "A person's negative anchors",
    description = "The oldest first.",
    params(("id" = Uuid, Path, description = "The person")),
    responses(
        (status = 200, description = "All of them, in one page", body = Page<AnchorView>),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(person): Path<Uuid>,
) -> Result<axum::Json<Page<AnchorView>>, ApiError> {
    let data = all(&api, caller.tenant, PersonId(person), caller.actor()).await?;
    Ok(axum::Json(Page { data, next_cursor: None }))
}

/// `DELETE /v1/people/{id}/negative-anchors/{anchor}`
#[utoipa::path(
    delete, path = "/v1/people/{id}/negative-anchors/{anchor}", operation_id = "delete_negative_anchor", tag = "enrolment",
    summary = "Remove a negative anchor",
    params(
        ("id" = Uuid, Path, description = "The person"),
        ("anchor" = Uuid, Path, description = "The anchor"),
    ),
    responses(
        (status = 204, description = "It is gone"),
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path((person, anchor)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    api.custody.remove_anchor(caller.tenant, PersonId(person), AnchorId(anchor), &caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the person exists, and whether there is room, is asked before megabytes are read.
pub(super) async fn enter(api: &Api, tenant: TenantId, person: PersonId) -> Result<Place, ApiError> {
    api.db.tenant(tenant, move |tx| Box::pin(people::get(tx, person))).await?;
    api.enroller.enter().map_err(|Busy| {
        ApiError::because(Code::Unavailable, "too many enrolments at once").retry_after(RETRY_AFTER_SECONDS)
    })
}

/// Makes an anchor of a picture.
pub(super) async fn add(
    api: &Api,
    tenant: TenantId,
    person: PersonId,
    place: Place,
    picture: Bytes,
    confirmed: bool,
    actor: &str,
) -> Result<AnchorView, ApiError> {
    let made = api.enroller.anchor(place, picture).await.map_err(enrolments::refused)?;
    let new = NotThem {
        space_id: made.space_id.clone(),
        model_version: made.model_version.clone(),
        quality: made.quality,
        embedding: Box::new(*made.embedding.as_slice()),
        confirmed,
    };
    match api.custody.add_anchor(tenant, person, new, actor).await? {
        Anchored::Made { id, score } => Ok(AnchorView {
            id: id.0,
            person: person.0,
            space_id: made.space_id,
            model_version: made.model_version,
            quality: made.quality,
            score,
            created_at: None,
        }),
        Anchored::Refused(objection) => Err(refused(objection)),
    }
}

fn refused(objection: Objection) -> ApiError {
    match objection {
        Objection::TooMany => ApiError::because(
            Code::TooManyAnchors,
            format!("{objection}: remove one (DELETE …/negative-anchors/{{anchor}}) or delete a person enrolled twice"),
        ),
        Objection::ProbablyThem { score } => {
            let detail = format!(
                "{objection}: it would keep them out. If it does show somebody else, send it again with ?confirm=true (--confirm)"
            );
            let found = json!({ "score": score, "threshold": hub_domain::anchor::PROBABLY_THEM });
            Problem::of(Code::AnchorIsPerson).detail(detail).extension("resemblance", found).into()
        }
    }
}

/// A person's anchors.
pub(super) async fn all(
    api: &Api,
    tenant: TenantId,
    person: PersonId,
    actor: String,
) -> Result<Vec<AnchorView>, ApiError> {
    let found = api
        .db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                people::get(tx, person).await?;
                let found = anchors::of_person(tx, person).await?;
                let detail = json!({ "anchors": found.len() });
                let (action, object_kind) = (audit::Action::AnchorRead, "person");
                let entry = audit::Entry { actor: &actor, action, object_kind, object_id: Some(person.0), detail };
                audit::write(tx, entry).await?;
                Ok::<_, ApiError>(found)
            })
        })
        .await?;
    let view = |anchor: anchors::Anchor| AnchorView {
        id: anchor.id.0,
        person: anchor.person_id.0,
        space_id: anchor.space_id,
        model_version: anchor.model_version,
        quality: anchor.quality,
        score: None,
        created_at: Some(anchor.created_at.into()),
    };
    Ok(found.into_iter().map(view).collect())
}
