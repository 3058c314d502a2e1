//! Users: people who log in, by the marks of their names.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::roles::{self, BESIDE, RoleRow};
use super::{StoreError, TenantTx};
use hub_domain::ids::UserId;
use hub_domain::index_key::Marks;
use hub_domain::role::{GivenRole, RoleRef};
use hub_domain::user::State;

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
    /// What they may do.
    pub role: GivenRole,
    /// Whether they may log in.
    pub state: State,
    /// Whether they have a second factor that counts.
    pub totp: bool,
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
    #[sqlx(flatten)]
    role: RoleRow,
    state: String,
    totp: bool,
    password: Option<Vec<u8>>,
    invitation: Option<Vec<u8>>,
    invited_until: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    last_login_at: Option<OffsetDateTime>,
}

fn unreadable(what: &'static str) -> StoreError {
    StoreError::Unreadable { what, reason: "no such value" }
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
            role: row.role.try_into()?,
            totp: row.totp,
            state: State::from_word(&row.state).ok_or_else(|| unreadable("app_user.state"))?,
            password: password.transpose()?,
            invitation,
            created_at: row.created_at,
            last_login_at: row.last_login_at,
        })
    }
}

/// What is read of a user, who is `u`.
fn select(which: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!(
        "SELECT u.id, u.login_sealed, u.role, {BESIDE}, u.state, u.password, u.invitation, u.invited_until,
             u.created_at, u.last_login_at,
             EXISTS (SELECT FROM user_totp t WHERE t.tenant_id = u.tenant_id AND t.user_id = u.id AND t.confirmed_at IS NOT NULL) AS totp
         FROM app_user u LEFT JOIN tenant_role r ON r.tenant_id = u.tenant_id AND r.id = u.own_role
         WHERE u.tenant_id = $1 {which}"
    ))
}

/// A user to be stored.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Their id.
    pub id: UserId,
    /// The name by which they log in, sealed.
    pub login_sealed: Vec<u8>,
    /// The marks of that name.
    pub marks: Marks,
    /// What they may do.
    pub role: RoleRef,
}

/// Stores a new user, who has no password yet.
pub async fn create(tx: &mut TenantTx, new: &NewUser) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    roles::hold(tx, new.role).await?;
    let (role, own_role) = roles::columns(new.role);
    sqlx::query(
        "INSERT INTO app_user (tenant_id, id, login_sealed, login_index, login_index_even, role, own_role)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(tenant)
    .bind(new.id.0)
    .bind(&new.login_sealed)
    .bind(new.marks.odd())
    .bind(new.marks.even())
    .bind(role)
    .bind(own_role)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// One user.
pub async fn get(tx: &mut TenantTx, id: UserId) -> Result<User, StoreError> {
    one(tx, id, "AND u.id = $2").await
}

/// One user, held until the end of the transaction: whoever changes them waits.
pub async fn lock(tx: &mut TenantTx, id: UserId) -> Result<User, StoreError> {
    one(tx, id, "AND u.id = $2 FOR UPDATE OF u").await
}

async fn one(tx: &mut TenantTx, id: UserId, which: &str) -> Result<User, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<UserRow> = sqlx::query_as(select(which)).bind(tenant).bind(id.0).fetch_optional(tx.conn()).await?;
    row.ok_or(StoreError::NotFound { what: "user", id: id.0 })?.try_into()
}

/// The user who logs in by the name of these marks.
pub async fn by_login(tx: &mut TenantTx, marks: &Marks) -> Result<Option<User>, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<UserRow> = sqlx::query_as(select("AND (u.login_index = $2 OR u.login_index_even = $3)"))
        .bind(tenant)
        .bind(marks.odd())
        .bind(marks.even())
        .fetch_optional(tx.conn())
        .await?;
    row.map(TryInto::try_into).transpose()
}

/// All users of the tenant, oldest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<User>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<UserRow> = sqlx::query_as(select("ORDER BY u.id")).bind(tenant).fetch_all(tx.conn()).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Gives a user another role and state. The caller has them locked.
pub async fn change(tx: &mut TenantTx, id: UserId, role: RoleRef, state: State) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    roles::hold(tx, role).await?;
    let (role, own_role) = roles::columns(role);
    sqlx::query("UPDATE app_user SET role = $3, own_role = $4, state = $5 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(role)
        .bind(own_role)
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

/// A password and an invitation as they are stored, each if there is one.
pub type Credentials = (Option<[u8; 48]>, Option<[u8; 32]>);

/// Stores a password in the place of this one (of none, by this invitation, which ends); of whatever is there, if nothing is said.
/// Whether it was still so.
pub async fn set_password(
    tx: &mut TenantTx,
    id: UserId,
    was: Option<Credentials>,
    stored: [u8; 48],
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let (password, invitation) = was.unwrap_or_default();
    let done = sqlx::query(
        "UPDATE app_user SET password = $5, invitation = NULL, invited_until = NULL
         WHERE tenant_id = $1 AND id = $2
             AND ($6 OR password IS NOT DISTINCT FROM $3 AND invitation IS NOT DISTINCT FROM $4)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(password.map(|bytes| bytes.to_vec()))
    .bind(invitation.map(|bytes| bytes.to_vec()))
    .bind(stored.as_slice())
    .bind(was.is_none())
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
