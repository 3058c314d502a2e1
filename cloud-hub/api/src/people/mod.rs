//! People: made with a key of their own, listed, deleted with that key.

mod fields;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use crate::auth::Caller;
use crate::body::Json;
use crate::openapi::{texts, wire};
use crate::page::{Page, PageQuery, encode_id};
use crate::problem::ApiError;
use crate::state::Api;
use crate::watch::Shown;
pub(crate) use fields::{NewPerson, PersonChanges};
use hub_domain::ids::{PersonId, TenantId};
use hub_domain::people::Profile;
use hub_keys::KeysError;
use hub_store::{audit, people};

/// RFC 5321: the longest path of a mail address.
pub(crate) const MAX_EMAIL: usize = 254;
/// Sites in one request.
pub(crate) const MAX_SITES: usize = 1_000;

/// A person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Person)]
pub(crate) struct PersonView {
    id: Uuid,
    #[schema(required)]
    external_id: Option<String>,
    name: String,
    #[schema(required)]
    email: Option<String>,
    /// By name.
    groups: Vec<String>,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    valid_from: Option<Timestamp>,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    valid_until: Option<Timestamp>,
    /// Grows with each change; the `ETag` is made of it.
    #[schema(minimum = 1)]
    revision: u32,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
    /// Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    templates: Option<Vec<TemplateView>>,
}

impl PersonView {
    /// Whether this is how the caller's own system knows them.
    pub(crate) fn has_external_id(&self, external_id: &str) -> bool {
        self.external_id.as_deref() == Some(external_id)
    }
}

/// A template without its vector.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PersonTemplate)]
pub(crate) struct TemplateView {
    pub(crate) id: Uuid,
    /// The embedding space; templates of one are compared with each other alone.
    pub(crate) space_id: String,
    pub(crate) model_version: String,
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) quality: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = wire::Timestamp, required = false)]
    pub(crate) created_at: Option<Timestamp>,
}

fn view(person: &people::Person, profile: Profile, templates: Option<Vec<TemplateView>>) -> PersonView {
    let at = |seconds: Option<i64>| seconds.map(|seconds| Timestamp::from_unix_ms(seconds.saturating_mul(1_000)));
    PersonView {
        id: person.id.0,
        external_id: profile.external_id,
        name: profile.name,
        email: profile.email,
        valid_from: at(profile.access.valid_from),
        valid_until: at(profile.access.valid_until),
        groups: profile.access.groups,
        revision: person.revision,
        created_at: person.created_at.into(),
        templates,
    }
}

/// With the revision as its `ETag`.
fn tagged(status: StatusCode, view: PersonView) -> Response {
    (status, [(header::ETAG, format!("\"{}\"", view.revision))], axum::Json(view)).into_response()
}

/// `POST /v1/people`
#[utoipa::path(
    post, path = "/v1/people", operation_id = "create_person", tag = "people",
    summary = "Make a person",
    description = "Known at all sites, or at those that are named. Recognised once photographs are enrolled.",
    request_body = NewPerson,
    responses(
        (status = 201, description = "The person", body = PersonView, headers(("ETag" = String, description = "The revision, for `If-Match`"))),
        (status = 403, description = "`quota_reached`: the tenant has all people that it may have."),
        (status = 404, description = "`not_found`: there is no such site."),
        (status = 409, description = "`conflict`: another person has this `external_id`."),
    ),
)]
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewPerson>,
) -> Result<Response, ApiError> {
    Ok(tagged(StatusCode::CREATED, make(&api, caller.tenant, new, &caller.actor()).await?))
}

/// Makes a person for whoever asks.
pub(crate) async fn make(api: &Api, tenant: TenantId, new: NewPerson, actor: &str) -> Result<PersonView, ApiError> {
    let (profile, sites) = new.checked()?;
    let id = PersonId(api.clock.new_id());
    let person = api.custody.create_person(tenant, id, profile.clone(), sites, actor).await?;
    Ok(view(&person, profile, Some(Vec::new())))
}

/// `PATCH /v1/people/{id}`, with the ETag of the person that it changes as `If-Match`.
#[utoipa::path(
    patch, path = "/v1/people/{id}", operation_id = "update_person", tag = "people",
    summary = "Change what is known of a person",
    description = "What is not named stays; `null` takes away. Groups and validity go to the doors at once. The same again changes nothing.",
    params(
        ("id" = Uuid, Path, description = "The person"),
        ("If-Match" = String, Header, description = "The `ETag` of the person that this is a change of; `*` for whatever it is"),
    ),
    request_body = PersonChanges,
    responses(
        (status = 200, description = "The person as they are now, without templates", body = PersonView, headers(("ETag" = String, description = "The revision, for `If-Match`"))),
        (status = 409, description = "`conflict`: another person has this `external_id`."),
        (status = 412, description = "`precondition_failed`: the person is at another revision."),
        (status = 428, description = "`precondition_required`: `If-Match` is missing."),
    ),
)]
pub(crate) async fn change(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(changes): Json<PersonChanges>,
) -> Result<Response, ApiError> {
    let matching = match headers.get(header::IF_MATCH).map(HeaderValue::to_str) {
        None => return Err(ApiError::because(Code::PreconditionRequired, "send If-Match with the ETag of the person")),
        Some(Ok("*")) => None,
        Some(tag) => {
            let revision = tag.ok().and_then(|tag| tag.trim().trim_matches('"').parse().ok());
            let refused = || ApiError::because(Code::PreconditionFailed, "If-Match is no ETag of a person");
            Some(revision.ok_or_else(refused)?)
        }
    };
    Ok(tagged(StatusCode::OK, alter(&api, caller.tenant, PersonId(id), matching, changes, &caller.actor()).await?))
}

/// Changes a person for whoever asks.
pub(crate) async fn alter(
    api: &Api,
    tenant: TenantId,
    id: PersonId,
    matching: Option<u32>,
    changes: PersonChanges,
    actor: &str,
) -> Result<PersonView, ApiError> {
    changes.check()?;
    let changed = api.custody.change_person(tenant, id, matching, |profile| changes.apply(profile), actor);
    let (person, profile) = changed.await?;
    Ok(view(&person, profile, None))
}

/// Which people.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeopleQuery {
    /// Entries in a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: `next_cursor` of the one before.
    #[param(value_type = Option<texts::IdCursor>)]
    cursor: Option<String>,
    /// Only who has this, letter by letter; at most one person has it.
    external_id: Option<String>,
    /// Only who has this, letter by letter; at most 200 are told, in one page.
    email: Option<String>,
}

/// `GET /v1/people`
#[utoipa::path(
    get, path = "/v1/people", operation_id = "list_people", tag = "people",
    summary = "People",
    description = "Without their templates; in the order in which they were made. Or those who have an external id or an address, in one page.",
    params(PeopleQuery),
    responses(
        (status = 200, description = "A page", body = Page<PersonView>, headers(("Link" = String, description = "The next page, `rel=\"next\"`; absent at the end"))),
        (status = 422, description = "`invalid_field`: `limit` or `cursor` is not one."),
    ),
)]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<PeopleQuery>,
) -> Result<(Extension<Shown>, HeaderMap, axum::Json<Page<PersonView>>), ApiError> {
    let Listed { page, link } = look(&api, caller.tenant, query, caller.actor()).await?;
    let shown = Shown(u32::try_from(page.data.len()).unwrap_or(u32::MAX));
    Ok((Extension(shown), link, axum::Json(page)))
}

/// A page, and where the next one is.
pub(crate) struct Listed {
    pub(crate) page: Page<PersonView>,
    link: HeaderMap,
}

/// A page for whoever looks.
pub(crate) async fn look(api: &Api, tenant: TenantId, query: PeopleQuery, actor: String) -> Result<Listed, ApiError> {
    let page = PageQuery::of(query.limit, query.cursor);
    let (limit, after) = (page.limit()?, page.after_id()?.map(PersonId));
    if query.external_id.is_some() || query.email.is_some() {
        let found = api.custody.find_people(tenant, query.external_id, query.email, &actor).await?;
        return Ok(Listed { page: Page::whole(opened(api, tenant, found).await?), link: HeaderMap::new() });
    }
    let read = api.db.tenant(tenant, move |tx| {
        Box::pin(async move {
            let people = people::page(tx, after, limit).await?;
            let detail = json!({ "count": people.len() });
            let (action, object_kind) = (audit::Action::PersonList, "person");
            audit::write(tx, audit::Entry { actor: &actor, action, object_kind, object_id: None, detail }).await?;
            Ok::<_, ApiError>(people)
        })
    });
    let people = read.await?;
    let next = people.last().map(|person| encode_id(person.id.0));
    let full = u32::try_from(people.len()).is_ok_and(|n| n == limit);
    let page = Page { data: opened(api, tenant, people).await?, next_cursor: next.filter(|_| full) };
    Ok(Listed { link: page.link("/v1/people", limit, None), page })
}

/// People as they are listed.
async fn opened(api: &Api, tenant: TenantId, people: Vec<people::Person>) -> Result<Vec<PersonView>, ApiError> {
    let keys = api.custody.tenant_keys(tenant).await?;
    let mut data = Vec::with_capacity(people.len());
    for person in people {
        let key = match api.custody.keyring().person(&keys, person.id) {
            // A person whose key is being destroyed right now is as good as gone.
            Err(KeysError::NoPersonKey(_)) => continue,
            key => key?,
        };
        let profile = key.open_profile(person.revision, &person.profile_sealed)?;
        data.push(view(&person, profile, None));
    }
    Ok(data)
}

/// `GET /v1/people/{id}`
#[utoipa::path(
    get, path = "/v1/people/{id}", operation_id = "get_person", tag = "people",
    summary = "One person",
    description = "With their templates, without vectors.",
    params(("id" = Uuid, Path, description = "The person")),
    responses(
        (status = 200, description = "The person", body = PersonView, headers(("ETag" = String, description = "The revision, for `If-Match`"))),
    ),
)]
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Response, ApiError> {
    let person = show(&api, caller.tenant, PersonId(id), caller.actor()).await?;
    Ok((Extension(Shown(1)), tagged(StatusCode::OK, person)).into_response())
}

/// One person with their templates, for whoever looks.
pub(crate) async fn show(api: &Api, tenant: TenantId, id: PersonId, actor: String) -> Result<PersonView, ApiError> {
    let (person, templates) = api
        .db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                let person = people::get(tx, id).await?;
                let templates = hub_store::templates::of_person(tx, id).await?;
                let detail = json!({ "templates": templates.len() });
                let (action, object_kind) = (audit::Action::PersonRead, "person");
                let entry = audit::Entry { actor: &actor, action, object_kind, object_id: Some(id.0), detail };
                audit::write(tx, entry).await?;
                Ok::<_, ApiError>((person, templates))
            })
        })
        .await?;
    let key = api.custody.person_key(tenant, id).await?;
    let profile = key.open_profile(person.revision, &person.profile_sealed)?;
    let templates = templates
        .into_iter()
        .map(|template| TemplateView {
            id: template.id.0,
            space_id: template.space_id,
            model_version: template.model_version,
            quality: template.quality,
            created_at: Some(template.created_at.into()),
        })
        .collect();
    Ok(view(&person, profile, Some(templates)))
}

/// `DELETE /v1/people/{id}`: 204 once the person is out of every gallery's log and their key is destroyed.
#[utoipa::path(
    delete, path = "/v1/people/{id}", operation_id = "delete_person", tag = "people",
    summary = "Erase a person",
    description = "Done once they are out of every gallery and the key of what is kept about them is destroyed. There is no way back.",
    params(("id" = Uuid, Path, description = "The person")),
    responses(
        (status = 204, description = "They are erased"),
    ),
)]
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    erase(&api, caller.tenant, PersonId(id), &caller.actor()).await
}

/// Erases a person for whoever asks.
pub(crate) async fn erase(api: &Api, tenant: TenantId, id: PersonId, actor: &str) -> Result<StatusCode, ApiError> {
    api.custody.delete_person(tenant, id, actor).await?;
    api.galleries.forget(tenant);
    Ok(StatusCode::NO_CONTENT)
}
