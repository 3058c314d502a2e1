//! People: made with a key of their own, listed, deleted with that key.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Timestamp;

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::openapi::{texts, wire};
use super::page::{Page, PageQuery, encode_id};
use super::problem::ApiError;
use super::sites::MAX_NAME;
use super::state::Api;
use crate::domain::ids::{PersonId, SiteId};
use crate::domain::people::Profile;
use crate::keys::KeysError;
use crate::store::{audit, people};

/// RFC 5321: the longest path of a mail address.
pub(super) const MAX_EMAIL: usize = 254;
/// Sites in one request.
pub(super) const MAX_SITES: usize = 1_000;

/// A person to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPerson {
    /// Their number in the caller's own system; one person has it.
    #[schema(value_type = texts::Name)]
    external_id: String,
    #[schema(value_type = texts::Name)]
    name: String,
    #[serde(default)]
    #[schema(value_type = Option<texts::Email>)]
    email: Option<String>,
    /// Where they are known; at every site without it.
    #[serde(default)]
    #[schema(max_items = 1_000)]
    site_ids: Option<Vec<Uuid>>,
}

impl Fields for NewPerson {
    const KNOWN: &'static [&'static str] = &["external_id", "name", "email", "site_ids"];
    const REQUIRED: &'static [&'static str] = &["external_id", "name"];
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Person)]
pub(super) struct PersonView {
    id: Uuid,
    #[schema(required)]
    external_id: Option<String>,
    name: String,
    #[schema(required)]
    email: Option<String>,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
    /// Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    templates: Option<Vec<TemplateView>>,
}

/// A template without its vector.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PersonTemplate)]
pub(super) struct TemplateView {
    pub(super) id: Uuid,
    /// The embedding space; templates of one are compared with each other alone.
    pub(super) space_id: String,
    pub(super) model_version: String,
    #[schema(minimum = 0, maximum = 1)]
    pub(super) quality: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = wire::Timestamp, required = false)]
    pub(super) created_at: Option<Timestamp>,
}

fn view(person: &people::Person, profile: Profile, templates: Option<Vec<TemplateView>>) -> PersonView {
    PersonView {
        id: person.id.0,
        external_id: profile.external_id,
        name: profile.name,
        email: profile.email,
        created_at: person.created_at.into(),
        templates,
    }
}

fn is_email(text: &str) -> bool {
    text.chars().count() <= MAX_EMAIL
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && text.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

/// `POST /v1/people`
#[utoipa::path(
    post, path = "/v1/people", operation_id = "create_person", tag = "people",
    summary = "Make a person",
    description = "Known at all sites, or at those that are named. Recognised once photographs are enrolled.",
    request_body = NewPerson,
    responses(
        (status = 201, description = "The person", body = PersonView),
        (status = 403, description = "`quota_reached`: the tenant has all people that it may have."),
        (status = 404, description = "`not_found`: there is no such site."),
        (status = 409, description = "`conflict`: another person has this `external_id`."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewPerson>,
) -> Result<(StatusCode, axum::Json<PersonView>), ApiError> {
    Checks::default()
        .text("/external_id", &new.external_id, MAX_NAME)
        .text("/name", &new.name, MAX_NAME)
        .that(new.email.as_deref().is_none_or(is_email), "/email", "is no mail address")
        .that(new.site_ids.as_ref().is_none_or(|ids| ids.len() <= MAX_SITES), "/site_ids", "holds too many sites")
        .done()?;
    let id = PersonId(api.clock.new_id());
    let profile = Profile { external_id: Some(new.external_id), name: new.name, email: new.email };
    let mut sites: Option<Vec<SiteId>> = new.site_ids.map(|ids| ids.into_iter().map(SiteId).collect());
    if let Some(sites) = &mut sites {
        sites.sort_unstable();
        sites.dedup();
    }
    let person = api.custody.create_person(caller.tenant, id, profile.clone(), sites, &caller.actor()).await?;
    Ok((StatusCode::CREATED, axum::Json(view(&person, profile, Some(Vec::new())))))
}

/// `GET /v1/people`
#[utoipa::path(
    get, path = "/v1/people", operation_id = "list_people", tag = "people",
    summary = "People",
    description = "Without their templates; in the order in which they were made.",
    params(PageQuery),
    responses(
        (status = 200, description = "A page", body = Page<PersonView>, headers(("Link" = String, description = "The next page, `rel=\"next\"`; absent at the end"))),
        (status = 422, description = "`invalid_field`: `limit` or `cursor` is not one."),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<(HeaderMap, axum::Json<Page<PersonView>>), ApiError> {
    let (limit, after) = (query.limit()?, query.after_id()?.map(PersonId));
    let actor = caller.actor();
    let read = api.db.tenant(caller.tenant, move |tx| {
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
    let keys = api.custody.tenant_keys(caller.tenant).await?;
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
    let page = Page { data, next_cursor: next.filter(|_| full) };
    Ok((page.link("/v1/people", limit, None), axum::Json(page)))
}

/// `GET /v1/people/{id}`
#[utoipa::path(
    get, path = "/v1/people/{id}", operation_id = "get_person", tag = "people",
    summary = "One person",
    description = "With their templates, without vectors.",
    params(("id" = Uuid, Path, description = "The person")),
    responses(
        (status = 200, description = "The person", body = PersonView),
    ),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<PersonView>, ApiError> {
    let (id, actor) = (PersonId(id), caller.actor());
    let (person, templates) = api
        .db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                let person = people::get(tx, id).await?;
                let templates = crate::store::templates::of_person(tx, id).await?;
                let detail = json!({ "templates": templates.len() });
                let (action, object_kind) = (audit::Action::PersonRead, "person");
                let entry = audit::Entry { actor: &actor, action, object_kind, object_id: Some(id.0), detail };
                audit::write(tx, entry).await?;
                Ok::<_, ApiError>((person, templates))
            })
        })
        .await?;
    let key = api.custody.person_key(caller.tenant, id).await?;
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
    Ok(axum::Json(view(&person, profile, Some(templates))))
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
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    api.custody.delete_person(caller.tenant, PersonId(id), &caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::is_email;

    #[test]
    fn mail_addresses_have_a_form() {
        assert!(is_email("ada@example.org"));
        for wrong in ["", "ada", "@example.org", "ada@", "a b@example.org", "a\n@b"] {
            assert!(!is_email(wrong), "{wrong:?}");
        }
    }
}
