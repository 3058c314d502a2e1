//! People: made with a key of their own, listed, deleted with that key.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::openapi::{texts, wire};
use super::page::{Page, PageQuery, encode_id};
use super::problem::ApiError;
use super::sites::MAX_NAME;
use super::state::Api;
use crate::domain::ids::{PersonId, SiteId};
use crate::domain::people::{Access, Profile};
use crate::keys::KeysError;
use crate::store::{audit, people};

/// RFC 5321: the longest path of a mail address.
pub(super) const MAX_EMAIL: usize = 254;
/// Sites in one request.
pub(super) const MAX_SITES: usize = 1_000;
/// Groups of one person.
const MAX_GROUPS: usize = 32;

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
    /// The groups that they are in, for rules at doors.
    #[serde(default)]
    #[schema(value_type = Vec<texts::Name>, max_items = 32, required = false)]
    groups: Vec<String>,
    /// Doors let them in from then on.
    #[serde(default)]
    #[schema(value_type = Option<texts::Moment>)]
    valid_from: Option<Timestamp>,
    /// Doors do not let them in from then on.
    #[serde(default)]
    #[schema(value_type = Option<texts::Moment>)]
    valid_until: Option<Timestamp>,
}

impl Fields for NewPerson {
    const KNOWN: &'static [&'static str] =
        &["external_id", "name", "email", "site_ids", "groups", "valid_from", "valid_until"];
    const REQUIRED: &'static [&'static str] = &["external_id", "name"];
}

/// What is to be otherwise: what is not named stays, and `null` takes away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PersonChanges {
    #[serde(default, deserialize_with = "there")]
    #[schema(value_type = texts::Name, required = false)]
    external_id: Option<String>,
    #[serde(default, deserialize_with = "there")]
    #[schema(value_type = texts::Name, required = false)]
    name: Option<String>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<texts::Email>)]
    email: Option<Option<String>>,
    /// All of them: they take the place of those before.
    #[serde(default, deserialize_with = "there")]
    #[schema(value_type = Vec<texts::Name>, max_items = 32, required = false)]
    groups: Option<Vec<String>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<texts::Moment>)]
    valid_from: Option<Option<Timestamp>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<texts::Moment>)]
    valid_until: Option<Option<Timestamp>>,
}

impl Fields for PersonChanges {
    const KNOWN: &'static [&'static str] = &["external_id", "name", "email", "groups", "valid_from", "valid_until"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// A field that is there, and not `null`.
fn there<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// A field that is there, be it `null`.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}

impl PersonChanges {
    fn check(&self) -> Result<(), ApiError> {
        let mut checks = Checks::default();
        if let Some(external_id) = &self.external_id {
            checks.text("/external_id", external_id, MAX_NAME);
        }
        if let Some(name) = &self.name {
            checks.text("/name", name, MAX_NAME);
        }
        let email = self.email.iter().flatten().all(|email| is_email(email));
        checks.that(email, "/email", "is no mail address");
        check_groups(&mut checks, self.groups.as_deref().unwrap_or_default());
        checks.done()
    }

    fn apply(self, mut profile: Profile) -> Profile {
        let second = |at: Option<Timestamp>| at.map(seconds);
        profile.external_id = self.external_id.or(profile.external_id);
        profile.name = self.name.unwrap_or(profile.name);
        profile.email = self.email.unwrap_or(profile.email);
        let before = profile.access;
        profile.access = Access::new(
            self.groups.unwrap_or(before.groups),
            self.valid_from.map_or(before.valid_from, second),
            self.valid_until.map_or(before.valid_until, second),
        );
        profile
    }
}

fn check_groups(checks: &mut Checks, groups: &[String]) {
    checks.that(groups.len() <= MAX_GROUPS, "/groups", "holds more than 32 groups");
    for (number, group) in groups.iter().enumerate() {
        checks.text(&format!("/groups/{number}"), group, MAX_NAME);
    }
}

/// Doors count in whole seconds.
fn seconds(at: Timestamp) -> i64 {
    at.unix_seconds()
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
        (status = 201, description = "The person", body = PersonView, headers(("ETag" = String, description = "The revision, for `If-Match`"))),
        (status = 403, description = "`quota_reached`: the tenant has all people that it may have."),
        (status = 404, description = "`not_found`: there is no such site."),
        (status = 409, description = "`conflict`: another person has this `external_id`."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewPerson>,
) -> Result<Response, ApiError> {
    let mut checks = Checks::default();
    check_groups(&mut checks, &new.groups);
    checks
        .text("/external_id", &new.external_id, MAX_NAME)
        .text("/name", &new.name, MAX_NAME)
        .that(new.email.as_deref().is_none_or(is_email), "/email", "is no mail address")
        .that(new.site_ids.as_ref().is_none_or(|ids| ids.len() <= MAX_SITES), "/site_ids", "holds too many sites")
        .done()?;
    let id = PersonId(api.clock.new_id());
    let access = Access::new(new.groups, new.valid_from.map(seconds), new.valid_until.map(seconds));
    let profile = Profile { external_id: Some(new.external_id), name: new.name, email: new.email, access };
    let mut sites: Option<Vec<SiteId>> = new.site_ids.map(|ids| ids.into_iter().map(SiteId).collect());
    if let Some(sites) = &mut sites {
        sites.sort_unstable();
        sites.dedup();
    }
    let person = api.custody.create_person(caller.tenant, id, profile.clone(), sites, &caller.actor()).await?;
    Ok(tagged(StatusCode::CREATED, view(&person, profile, Some(Vec::new()))))
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
pub(super) async fn change(
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
    changes.check()?;
    let (id, actor) = (PersonId(id), caller.actor());
    let changed = api.custody.change_person(caller.tenant, id, matching, |profile| changes.apply(profile), &actor);
    let (person, profile) = changed.await?;
    Ok(tagged(StatusCode::OK, view(&person, profile, None)))
}

/// Which people.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PeopleQuery {
    /// Entries in a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: `next_cursor` of the one before.
    #[param(value_type = Option<texts::IdCursor>)]
    cursor: Option<String>,
    /// Only who has this, letter by letter; at most one person has it.
    #[param(value_type = Option<texts::Name>)]
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
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<PeopleQuery>,
) -> Result<(HeaderMap, axum::Json<Page<PersonView>>), ApiError> {
    let page = PageQuery::of(query.limit, query.cursor);
    let (limit, after) = (page.limit()?, page.after_id()?.map(PersonId));
    let actor = caller.actor();
    if query.external_id.is_some() || query.email.is_some() {
        let found = api.custody.find_people(caller.tenant, query.external_id, query.email, &actor).await?;
        return Ok((HeaderMap::new(), axum::Json(Page::whole(opened(&api, &caller, found).await?))));
    }
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
    let page = Page { data: opened(&api, &caller, people).await?, next_cursor: next.filter(|_| full) };
    Ok((page.link("/v1/people", limit, None), axum::Json(page)))
}

/// People as they are listed.
async fn opened(api: &Api, caller: &Caller, people: Vec<people::Person>) -> Result<Vec<PersonView>, ApiError> {
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
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Response, ApiError> {
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
    Ok(tagged(StatusCode::OK, view(&person, profile, Some(templates))))
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
    api.galleries.forget(caller.tenant);
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
