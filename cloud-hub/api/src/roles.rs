//! Roles: those of the program, and those that a tenant makes of permissions. Nobody makes, changes or deletes one that allows
//! more than they may do themselves.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::openapi::{texts, wire, words};
use super::page::Page;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::TenantId;
use hub_domain::permission::{Permission, Permissions, Role};
use hub_domain::role::{GivenRole, check_name};
use hub_keys::{RoleDeleted, WantedRole};
use hub_store::roles::{self, OwnRole};

/// Characters of what a role is for.
pub(super) const MAX_DESCRIPTION: usize = 300;

/// A role to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRole {
    /// Not that of a role of the program.
    #[schema(value_type = texts::OwnRoleName)]
    name: String,
    #[serde(default)]
    #[schema(value_type = Option<texts::RoleDescription>)]
    description: Option<String>,
    #[schema(value_type = Vec<words::Permission>, min_items = 1)]
    permissions: Vec<String>,
}

impl Fields for NewRole {
    const KNOWN: &'static [&'static str] = &["name", "description", "permissions"];
    const REQUIRED: &'static [&'static str] = &["name", "permissions"];
}

/// What is to be otherwise; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoleChanges)]
pub(super) struct Changes {
    #[serde(default)]
    #[schema(value_type = Option<texts::OwnRoleName>)]
    name: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<texts::RoleDescription>)]
    description: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<words::Permission>>, min_items = 1)]
    permissions: Option<Vec<String>>,
}

impl Fields for Changes {
    const KNOWN: &'static [&'static str] = &["name", "description", "permissions"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Role)]
pub(super) struct RoleView {
    /// `null` for a role of the program.
    #[schema(required)]
    id: Option<Uuid>,
    #[schema(value_type = texts::RoleName)]
    name: String,
    description: String,
    #[schema(value_type = Vec<words::Permission>)]
    permissions: Vec<&'static str>,
    /// Whether it is one of the program's, which nobody changes.
    built_in: bool,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    created_at: Option<Timestamp>,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    changed_at: Option<Timestamp>,
}

fn names(permissions: Permissions) -> Vec<&'static str> {
    permissions.iter().map(Permission::as_str).collect()
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        Self {
            id: None,
            name: role.as_str().to_owned(),
            description: String::new(),
            permissions: names(role.permissions()),
            built_in: true,
            created_at: None,
            changed_at: None,
        }
    }
}

impl From<OwnRole> for RoleView {
    fn from(role: OwnRole) -> Self {
        Self {
            id: Some(role.id.0),
            name: role.name,
            description: role.description,
            permissions: names(role.permissions),
            built_in: false,
            created_at: Some(role.created_at.into()),
            changed_at: Some(role.changed_at.into()),
        }
    }
}

/// The role that somebody is to be given, by its name.
pub(super) async fn named(api: &Api, tenant: TenantId, word: &str) -> Result<GivenRole, ApiError> {
    let unknown = match word.parse::<Role>() {
        Ok(role) => return Ok(role.into()),
        Err(unknown) => unknown,
    };
    let name = word.to_owned();
    let own = api.db.tenant(tenant, move |tx| Box::pin(async move { roles::find(tx, &name).await })).await?;
    // By its name alone: an id where a name belongs is a mistake.
    own.filter(|own| own.name == word).map(GivenRole::from).ok_or_else(|| {
        ApiError::field("/role", Code::InvalidField, format!("{unknown}; nor is it a role of this tenant's own"))
    })
}

fn permissions(words: Vec<String>) -> Result<Permissions, ApiError> {
    let invalid = |pointer: &str, message: String| ApiError::field(pointer, Code::InvalidField, message);
    if words.is_empty() {
        return Err(invalid("/permissions", String::from("allow nothing; name one at least")));
    }
    let read = |(index, word): (usize, String)| {
        word.parse::<Permission>().map_err(|error| invalid(&format!("/permissions/{index}"), error.to_string()))
    };
    words.into_iter().enumerate().map(read).collect()
}

/// What is asked for, read and checked.
fn asked(changes: Changes) -> Result<WantedRole, ApiError> {
    let mut checks = Checks::default();
    if let Some(Err(error)) = changes.name.as_deref().map(check_name) {
        checks.that(false, "/name", &error.to_string());
    }
    if let Some(description) = changes.description.as_deref().filter(|text| !text.is_empty()) {
        checks.text("/description", description, MAX_DESCRIPTION);
    }
    checks.done()?;
    let permissions = changes.permissions.map(permissions).transpose()?;
    Ok(WantedRole { name: changes.name, description: changes.description, permissions })
}

fn built_in(named: &str) -> Option<Role> {
    named.parse().ok()
}

fn not_changed() -> ApiError {
    ApiError::because(Code::Conflict, "this is a role of the program, which stays as it is: make one of your own")
}

/// `POST /v1/roles`
#[utoipa::path(
    post, path = "/v1/roles", operation_id = "create_role", tag = "roles",
    summary = "Make a role",
    request_body = NewRole,
    responses(
        (status = 201, description = "The role", body = RoleView),
        (status = 403, description = "`forbidden`: it would allow what the caller may not do."),
        (status = 409, description = "`conflict`: there is a role of this name."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewRole>,
) -> Result<(StatusCode, axum::Json<RoleView>), ApiError> {
    let NewRole { name, description, permissions } = new;
    let wanted = asked(Changes { name: Some(name), description, permissions: Some(permissions) })?;
    let made = api.custody.create_role(caller.tenant, wanted, Some(caller.permissions), &caller.actor()).await?;
    Ok((StatusCode::CREATED, axum::Json(made.into())))
}

/// `GET /v1/roles`
#[utoipa::path(
    get, path = "/v1/roles", operation_id = "list_roles", tag = "roles",
    summary = "All roles",
    description = "Those of the program, then the tenant's own, the oldest first.",
    responses((status = 200, description = "All of them, in one page", body = Page<RoleView>)),
)]
pub(super) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<axum::Json<Page<RoleView>>, ApiError> {
    let own = api.db.tenant(caller.tenant, |tx| Box::pin(roles::list(tx))).await?;
    let all = Role::ALL.iter().copied().map(RoleView::from).chain(own.into_iter().map(RoleView::from));
    Ok(axum::Json(Page::whole(all.collect())))
}

/// `GET /v1/roles/{id}`
#[utoipa::path(
    get, path = "/v1/roles/{id}", operation_id = "get_role", tag = "roles",
    summary = "One role",
    params(("id" = String, Path, description = "Its name or its id")),
    responses((status = 200, description = "The role", body = RoleView)),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(named): Path<String>,
) -> Result<axum::Json<RoleView>, ApiError> {
    if let Some(role) = built_in(&named) {
        return Ok(axum::Json(role.into()));
    }
    let own = api.db.tenant(caller.tenant, move |tx| Box::pin(async move { roles::find(tx, &named).await })).await?;
    let own = own.ok_or_else(|| ApiError::because(Code::NotFound, "there is no such role"))?;
    Ok(axum::Json(own.into()))
}

/// `PATCH /v1/roles/{id}`
#[utoipa::path(
    patch, path = "/v1/roles/{id}", operation_id = "change_role", tag = "roles",
    summary = "Call a role otherwise, or let it allow something else",
    description = "It holds for everybody who has it, within seconds.",
    params(("id" = String, Path, description = "Its name or its id")),
    request_body = Changes,
    responses(
        (status = 200, description = "The role", body = RoleView),
        (status = 403, description = "`forbidden`: it allows, or would allow, what the caller may not do."),
        (status = 409, description = "`conflict`: there is a role of this name, or it is one of the program's."),
    ),
)]
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(named): Path<String>,
    Json(changes): Json<Changes>,
) -> Result<axum::Json<RoleView>, ApiError> {
    let wanted = asked(changes)?;
    if built_in(&named).is_some() {
        return Err(not_changed());
    }
    let giver = Some(caller.permissions);
    Ok(axum::Json(api.custody.change_role(caller.tenant, &named, wanted, giver, &caller.actor()).await?.into()))
}

/// `DELETE /v1/roles/{id}`
#[utoipa::path(
    delete, path = "/v1/roles/{id}", operation_id = "delete_role", tag = "roles",
    summary = "Delete a role that nobody has",
    params(("id" = String, Path, description = "Its name or its id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 403, description = "`forbidden`: it allows what the caller may not do."),
        (status = 409, description = "`conflict`: users or keys have it (`detail` says how many), or it is one of the program's."),
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(named): Path<String>,
) -> Result<StatusCode, ApiError> {
    if built_in(&named).is_some() {
        return Err(not_changed());
    }
    match api.custody.delete_role(caller.tenant, &named, Some(caller.permissions), &caller.actor()).await? {
        RoleDeleted::Yes => Ok(StatusCode::NO_CONTENT),
        RoleDeleted::InUse(users, keys) => {
            let detail = format!("{users} users and {keys} keys have this role: give them another one first");
            Err(ApiError::because(Code::Conflict, detail))
        }
    }
}
