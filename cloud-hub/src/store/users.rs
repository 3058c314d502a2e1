//! Users: people who log in, by the keyed hashes of their names.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, TenantTx};
use crate::domain::ids::UserId;
use crate::domain::permission::Role;
use crate::domain::user::State;

/// What opens the choice of a password, once.
#[derive(Clone, Copy, Debug)]
pub struct Invitation {
    /// The MAC of its secret.
    pub mac: [u8; 32],
    /// Its end.
    pub until: OffsetDateTime,
}

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// The name by which they log in, sealed.
    pub login_sealed: Vec<u8>,
    /// The keyed hash of that name.
    pub login_index: Vec<u8>,
    /// What they may do.
    pub role: Role,
    /// Whether they may log in.
    pub state: State,
    /// What is stored of their password; none until they chose one.
    pub password: Option<[u8; 48]>,
    /// What opens the choice of a password, if they were invited to one.
    pub invitation: Option<Invitation>,
    /// When they were made.
    pub created_at: OffsetDateTime,
    /// When they logged in last.
    pub last_login_at: Option<OffsetDateTime>,
}

#[derive(FromRow)]
struct UserRow {
    id: Uuid,
    login_sealed: Vec<u8>,
    login_index: Vec<u8>,
    role: String,
    state: String,
    password: Option<Vec<u8>>,
    invitation: Option<Vec<u8>>,
    invited_until: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    last_login_at: Option<OffsetDateTime>,
}

fn unreadable(what: &'static str) -> StoreError {
    StoreError::Unreadable { what, reason: "no such value" }
}

/// The role of this name.
pub(super) fn role(word: &str) -> Result<Role, StoreError> {
    word.parse().map_err(|_| unreadable("app_user.role"))
}

impl TryFrom<UserRow> for User {
    type Error = StoreError;

    fn try_from(row: UserRow) -> Result<Self, StoreError> {
        let password = row.password.map(|bytes| bytes.try_into().map_err(|_| unreadable("app_user.password")));
        let invitation = match (row.invitation, row.invited_until) {
            (Some(mac), Some(until)) => {
                Some(Invitation { mac: mac.try_into().map_err(|_| unreadable("app_user.invitation"))?, until })
            }
            _ => None,
        };
        Ok(Self {
            id: UserId(row.id),
            login_sealed: row.login_sealed,
            login_index: row.login_index,
            role: role(&row.role)?,
            state: State::from_word(&row.state).ok_or_else(|| unreadable("app_user.state"))?,
            password: password.transpose()?,
            invitation,
            created_at: row.created_at,
            last_login_at: row.last_login_at,
        })
    }
}

const COLUMNS: &str =
    "id, login_sealed, login_index, role, state, password, invitation, invited_until, created_at, last_login_at";

/// A user to be stored.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Their id.
    pub id: UserId,
    /// The name by which they log in, sealed.
    pub login_sealed: Vec<u8>,
    /// The keyed hash of that name.
    pub login_index: [u8; 32],
    /// What they may do.
    pub role: Role,
}

/// Stores a new user, who has no password yet.
pub async fn create(tx: &mut TenantTx, new: &NewUser) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO app_user (tenant_id, id, login_sealed, login_index, role) VALUES ($1, $2, $3, $4, $5)")
        .bind(tenant)
        .bind(new.id.0)
        .bind(&new.login_sealed)
        .bind(new.login_index.as_slice())
        .bind(new.role.as_str())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// One user.
pub async fn get(tx: &mut TenantTx, id: UserId) -> Result<User, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!("SELECT {COLUMNS} FROM app_user WHERE tenant_id = $1 AND id = $2");
    let row: Option<UserRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(tenant).bind(id.0).fetch_optional(tx.conn()).await?;
    row.ok_or(StoreError::NotFound { what: "user", id: id.0 })?.try_into()
}

/// The user who logs in by the name of this keyed hash.
pub async fn by_login(tx: &mut TenantTx, index: &[u8; 32]) -> Result<Option<User>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!("SELECT {COLUMNS} FROM app_user WHERE tenant_id = $1 AND login_index = $2");
    let row: Option<UserRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(tenant)
        .bind(index.as_slice())
        .fetch_optional(tx.conn())
        .await?;
    row.map(TryInto::try_into).transpose()
}

/// All users of the tenant, oldest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<User>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!("SELECT {COLUMNS} FROM app_user WHERE tenant_id = $1 ORDER BY id");
    let rows: Vec<UserRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(tenant).fetch_all(tx.conn()).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Gives a user another role and state.
pub async fn change(tx: &mut TenantTx, id: UserId, role: Role, state: State) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE app_user SET role = $3, state = $4 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(role.as_str())
        .bind(state.as_str())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Invites a user to choose a password. The one before ends, and so does an older invitation.
pub async fn invite(tx: &mut TenantTx, id: UserId, invitation: Invitation) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE app_user SET password = NULL, invitation = $3, invited_until = $4 WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(invitation.mac.as_slice())
    .bind(invitation.until)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 { Err(StoreError::NotFound { what: "user", id: id.0 }) } else { Ok(()) }
}

/// Stores a password in the place of this one (`None`: of none, by this invitation, which ends); whether it was still so.
pub async fn set_password(
    tx: &mut TenantTx,
    id: UserId,
    was: (Option<[u8; 48]>, Option<[u8; 32]>),
    stored: [u8; 48],
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let (password, invitation) = was;
    let done = sqlx::query(
        "UPDATE app_user SET password = $5, invitation = NULL, invited_until = NULL
         WHERE tenant_id = $1 AND id = $2 AND password IS NOT DISTINCT FROM $3 AND invitation IS NOT DISTINCT FROM $4",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(password.map(|bytes| bytes.to_vec()))
    .bind(invitation.map(|bytes| bytes.to_vec()))
    .bind(stored.as_slice())
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that a user logged in.
pub async fn logged_in(tx: &mut TenantTx, id: UserId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE app_user SET last_login_at = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Deletes a user, with all their log-ins.
pub async fn delete(tx: &mut TenantTx, id: UserId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query("DELETE FROM app_user WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .execute(tx.conn())
        .await?;
    if done.rows_affected() == 0 { Err(StoreError::NotFound { what: "user", id: id.0 }) } else { Ok(()) }
}
