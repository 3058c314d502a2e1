//! Users: people who log in, made with a role, changed, invited to choose a password, deleted. Nobody makes, changes, resets or
//! deletes a user who has more rights than they have: otherwise resetting an owner would be a way to become one.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use super::api_keys::within;
use super::auth::Caller;
use super::body::{Fields, Json};
use super::openapi::{texts, wire, words};
use super::page::Page;
use super::problem::ApiError;
use super::roles;
use super::state::Api;
use hub_domain::ids::{TenantId, UserId};
use hub_domain::permission::Permissions;
use hub_domain::user;
use hub_keys::Invited;

/// A user to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    /// The name to log in by, as a mail address; case makes no difference.
    #[schema(value_type = texts::Login)]
    login: String,
    #[schema(value_type = texts::RoleName)]
    role: String,
}

impl Fields for NewUser {
    const KNOWN: &'static [&'static str] = &["login", "role"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// What is to be otherwise; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserChanges)]
pub(super) struct Changes {
    #[serde(default)]
    #[schema(value_type = Option<texts::RoleName>)]
    role: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<words::UserState>)]
    state: Option<String>,
}

impl Fields for Changes {
    const KNOWN: &'static [&'static str] = &["role", "state"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// A user, never with a password.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct UserView {
    id: Uuid,
    login: String,
    #[schema(value_type = texts::RoleName)]
    role: String,
    #[schema(value_type = words::UserState)]
    state: &'static str,
    /// Whether they have a second factor that counts.
    totp: bool,
    /// Whether they have chosen a password.
    has_password: bool,
    /// Until when they may choose one.
    #[schema(value_type = Option<wire::Timestamp>, required)]
    invited_until: Option<Timestamp>,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    last_login_at: Option<Timestamp>,
}

/// An invitation to choose a password, shown once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invitation)]
pub(super) struct InvitedView {
    id: Uuid,
    /// For `POST /v1/login/invitation`, once.
    invitation: String,
    #[schema(value_type = wire::Timestamp)]
    invited_until: Timestamp,
}

impl From<&Invited> for InvitedView {
    fn from(invited: &Invited) -> Self {
        Self { id: invited.user.0, invitation: invited.token.to_string(), invited_until: invited.until.into() }
    }
}

pub(super) fn view(user: hub_keys::UserView) -> UserView {
    UserView {
        id: user.id.0,
        login: user.login,
        role: user.role.name,
        state: user.state.as_str(),
        totp: user.totp,
        has_password: user.has_password,
        invited_until: user.invited_until.map(Timestamp::from),
        created_at: user.created_at.into(),
        last_login_at: user.last_login_at.map(Timestamp::from),
    }
}

/// Makes a user for whoever may give away at least their rights (`None`: the operator of the machine).
pub(super) async fn make(
    api: &Api,
    tenant: TenantId,
    new: NewUser,
    giver: Option<Permissions>,
    actor: &str,
) -> Result<InvitedView, ApiError> {
    let login =
        user::login(&new.login).map_err(|error| ApiError::field("/login", Code::InvalidField, error.to_string()))?;
    let role = roles::named(api, tenant, &new.role).await?;
    if let Some(giver) = giver {
        within(role.permissions, giver)?;
    }
    let invited = api.custody.create_user(tenant, &login, role, actor).await?;
    Ok(InvitedView::from(&invited))
}

/// All of a tenant.
pub(super) async fn all(api: &Api, tenant: TenantId) -> Result<Vec<UserView>, ApiError> {
    Ok(api.custody.users(tenant).await?.into_iter().map(view).collect())
}

/// `POST /v1/users`
#[utoipa::path(
    post, path = "/v1/users", operation_id = "create_user", tag = "users",
    summary = "Make a user",
    description = "They choose their password by the invitation in the answer, which is shown once and good for three days.",
    request_body = NewUser,
    responses(
        (status = 201, description = "The user's id and the invitation", body = InvitedView),
        (status = 403, description = "`forbidden`: the role has rights that the caller does not have."),
        (status = 409, description = "`conflict`: there is a user of this name."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewUser>,
) -> Result<(StatusCode, axum::Json<InvitedView>), ApiError> {
    let made = make(&api, caller.tenant, new, Some(caller.permissions), &caller.actor()).await?;
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// `GET /v1/users`
#[utoipa::path(
    get, path = "/v1/users", operation_id = "list_users", tag = "users",
    summary = "All users",
    description = "The oldest first.",
    responses((status = 200, description = "All of them, in one page", body = Page<UserView>)),
)]
pub(super) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<axum::Json<Page<UserView>>, ApiError> {
    Ok(axum::Json(Page::whole(all(&api, caller.tenant).await?)))
}

/// `GET /v1/users/{id}`
#[utoipa::path(
    get, path = "/v1/users/{id}", operation_id = "get_user", tag = "users",
    summary = "One user",
    params(("id" = Uuid, Path, description = "The user")),
    responses((status = 200, description = "The user", body = UserView)),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<UserView>, ApiError> {
    Ok(axum::Json(view(api.custody.user(caller.tenant, UserId(id)).await?)))
}

/// `PATCH /v1/users/{id}`
#[utoipa::path(
    patch, path = "/v1/users/{id}", operation_id = "change_user", tag = "users",
    summary = "Give a user another role, disable them, or let them in again",
    description = "It holds within seconds: tokens of the old role are refused and can be refreshed; the log-ins of a disabled user end.",
    params(("id" = Uuid, Path, description = "The user")),
    request_body = Changes,
    responses(
        (status = 200, description = "The user", body = UserView),
        (status = 403, description = "`forbidden`: the user has, or would have, rights that the caller does not have."),
    ),
)]
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(changes): Json<Changes>,
) -> Result<axum::Json<UserView>, ApiError> {
    let role = match &changes.role {
        Some(name) => Some(roles::named(&api, caller.tenant, name).await?),
        None => None,
    };
    let state = changes.state.as_deref().map(|word| {
        user::State::from_word(word)
            .ok_or_else(|| ApiError::field("/state", Code::InvalidField, "must be active or disabled"))
    });
    let state = state.transpose()?;
    let (id, giver) = (UserId(id), Some(caller.permissions));
    api.custody.change_user(caller.tenant, id, (role, state), giver, &caller.actor()).await?;
    Ok(axum::Json(view(api.custody.user(caller.tenant, id).await?)))
}

/// `POST /v1/users/{id}/password`
#[utoipa::path(
    post, path = "/v1/users/{id}/password", operation_id = "invite_user", tag = "users",
    summary = "End a user's password and invite them to choose another one",
    description = "Their log-ins end too. Nobody but the user ever knows the password.",
    params(("id" = Uuid, Path, description = "The user")),
    responses(
        (status = 200, description = "The invitation, shown once", body = InvitedView),
        (status = 403, description = "`forbidden`: the user has rights that the caller does not have."),
    ),
)]
pub(super) async fn invite(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<InvitedView>, ApiError> {
    let giver = Some(caller.permissions);
    let invited = api.custody.invite_user(caller.tenant, UserId(id), giver, &caller.actor()).await?;
    Ok(axum::Json(InvitedView::from(&invited)))
}

/// `DELETE /v1/users/{id}`
#[utoipa::path(
    delete, path = "/v1/users/{id}", operation_id = "delete_user", tag = "users",
    summary = "Delete a user",
    description = "Their log-ins end at once. What they did stays in the audit, under their id.",
    params(("id" = Uuid, Path, description = "The user")),
    responses(
        (status = 204, description = "They are gone"),
        (status = 403, description = "`forbidden`: the user has rights that the caller does not have."),
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    api.custody.delete_user(caller.tenant, UserId(id), Some(caller.permissions), &caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/users/{id}/totp`
#[utoipa::path(
    delete, path = "/v1/users/{id}/totp", operation_id = "take_totp_off_user", tag = "users",
    summary = "Take the second factor off a user who lost it",
    description = "Their log-ins end too. They log in by their password alone afterwards, and set up another one.",
    params(("id" = Uuid, Path, description = "The user")),
    responses(
        (status = 204, description = "They have none any more"),
        (status = 403, description = "`forbidden`: the user has rights that the caller does not have."),
        (status = 409, description = "`conflict`: the user has no second factor."),
    ),
)]
pub(super) async fn take_totp(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    let giver = Some(caller.permissions);
    if api.custody.take_totp(caller.tenant, UserId(id), giver, &caller.actor()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::because(Code::Conflict, "this user has no second factor"))
}
