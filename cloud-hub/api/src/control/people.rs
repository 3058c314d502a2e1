//! People of a tenant, as the operator of the machine sees and changes them: by the same code as over the API, and audited alike.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use wire_contract::Code;

use super::{Answer, OPERATOR, existing, ok};
use crate::body::Json;
use crate::imports::{self, ImportQuery, Importer};
use crate::people::{self, NewPerson, PeopleQuery, PersonChanges};
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::ids::PersonId;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/tenants/{tenant}/people", post(create).get(list))
        .route("/tenants/{tenant}/people/imports", post(import))
        .route("/tenants/{tenant}/people/{person}", get(show).patch(change).delete(erase))
}

async fn create(State(api): State<Arc<Api>>, Path(tenant): Path<Uuid>, Json(new): Json<NewPerson>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    Ok((StatusCode::CREATED, axum::Json(json!(people::make(&api, tenant, new, OPERATOR).await?))))
}

async fn list(State(api): State<Arc<Api>>, Path(tenant): Path<Uuid>, Query(query): Query<PeopleQuery>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!(people::look(&api, tenant, query, String::from(OPERATOR)).await?.page))
}

async fn show(State(api): State<Arc<Api>>, Path((tenant, person)): Path<(Uuid, Uuid)>) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!(people::show(&api, tenant, PersonId(person), String::from(OPERATOR)).await?))
}

/// Whatever revision they are at: the operator sees what they change.
async fn change(
    State(api): State<Arc<Api>>,
    Path((tenant, person)): Path<(Uuid, Uuid)>,
    Json(changes): Json<PersonChanges>,
) -> Answer {
    let tenant = existing(&api, tenant).await?;
    ok(json!(people::alter(&api, tenant, PersonId(person), None, changes, OPERATOR).await?))
}

/// What whoever erases somebody says, to show that they mean them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmed {
    confirm: String,
}

async fn erase(
    State(api): State<Arc<Api>>,
    Path((tenant, person)): Path<(Uuid, Uuid)>,
    Query(Confirmed { confirm }): Query<Confirmed>,
) -> Result<StatusCode, ApiError> {
    let tenant = existing(&api, tenant).await?;
    let found = people::show(&api, tenant, PersonId(person), String::from(OPERATOR)).await?;
    if !found.has_external_id(&confirm) {
        let message = "is not the external_id of this person: `cloud-hub people show` says who they are";
        return Err(ApiError::field("/confirm", Code::InvalidField, message));
    }
    people::erase(&api, tenant, PersonId(person), OPERATOR).await
}

async fn import(
    State(api): State<Arc<Api>>,
    Path(tenant): Path<Uuid>,
    Query(query): Query<ImportQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let tenant = existing(&api, tenant).await?;
    let operator = Importer { tenant, actor: String::from(OPERATOR), caller: None, may_enrol: true };
    imports::begin(&api, operator, query, &headers, body).await
}
