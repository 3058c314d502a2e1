//! Log-ins: attempts by name, what became of them, and the secrets that go with them.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::roles::{BESIDE, RoleRow};
use super::tenants::{AGREEMENT, AgreementRow};
use super::{StoreError, TenantTx};
use hub_domain::ids::{LoginId, UserId};
use hub_domain::index_key::Marks;
use hub_domain::permission::Permissions;
use hub_domain::role::{GivenRole, RoleRef};
use hub_domain::tenant::Agreement;
use hub_domain::user;

/// How a log-in is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By access tokens, and a refresh token that is another one each time.
    Tokens,
    /// By a browser's cookie.
    Cookie,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Cookie => "cookie",
        }
    }
}

/// Counts an attempt before anything is looked at, so that many at once are no way around the count. The time until which the
/// name is locked, if it was locked already: then nothing is counted. A name has as many rows as marks, and what one of them says
/// holds for all: another index key is no fresh start.
pub async fn attempt(
    tx: &mut TenantTx,
    marks: &Marks,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, StoreError> {
    let (tenant, values) = (tx.tenant_uuid(), marks.values());
    // Whoever is first holds the rows until its transaction ends. All hubs begin with the oldest key.
    for mark in marks.all() {
        sqlx::query(
            "INSERT INTO login_attempt (tenant_id, login_index, failures, last_at, index_version) VALUES ($1, $2, 1, $3, $5)
             ON CONFLICT (tenant_id, login_index) DO UPDATE SET
                 failures = CASE WHEN login_attempt.locked_until > $3 THEN login_attempt.failures
                                 WHEN login_attempt.last_at < $4 THEN 1
                                 ELSE least(login_attempt.failures, 1000) + 1 END",
        )
        .bind(tenant)
        .bind(mark.value.as_slice())
        .bind(now)
        .bind(now - user::FORGOTTEN_AFTER)
        .bind(i64::from(mark.version))
        .execute(tx.conn())
        .await?;
    }
    let (failures, locked_until): (i32, Option<OffsetDateTime>) = sqlx::query_as(
        "SELECT max(failures), max(locked_until) FROM login_attempt WHERE tenant_id = $1 AND login_index = ANY($2)",
    )
    .bind(tenant)
    .bind(&values)
    .fetch_one(tx.conn())
    .await?;
    if let Some(until) = locked_until.filter(|until| *until > now) {
        return Ok(Some(until));
    }
    let lock = user::lock(failures.unsigned_abs()).map(|time| now + time);
    sqlx::query(
        "UPDATE login_attempt SET failures = $5, locked_until = $3, last_at = $4 WHERE tenant_id = $1 AND login_index = ANY($2)",
    )
    .bind(tenant)
    .bind(&values)
    .bind(lock)
    .bind(now)
    .bind(failures)
    .execute(tx.conn())
    .await?;
    Ok(None)
}

/// Forgets the attempts by a name: the last one was right.
pub async fn forgive(tx: &mut TenantTx, marks: &Marks) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("DELETE FROM login_attempt WHERE tenant_id = $1 AND login_index = ANY($2)")
        .bind(tenant)
        .bind(marks.values())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Takes back the attempt that was just counted, and the lock that it led to; those before it stay.
pub async fn take_back(tx: &mut TenantTx, marks: &Marks) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    for statement in [
        "DELETE FROM login_attempt WHERE tenant_id = $1 AND login_index = ANY($2) AND failures = 1",
        // Nobody is let try while a name is locked, so that the lock there is can only be this attempt's.
        "UPDATE login_attempt SET failures = failures - 1, locked_until = NULL WHERE tenant_id = $1 AND login_index = ANY($2)",
    ] {
        sqlx::query(statement).bind(tenant).bind(marks.values()).execute(tx.conn()).await?;
    }
    Ok(())
}

/// A log-in to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewLogin {
    /// Its id.
    pub id: LoginId,
    /// Whose.
    pub user: UserId,
    /// How it is carried.
    pub kind: Kind,
    /// Its beginning.
    pub created_at: OffsetDateTime,
    /// Its end, however often it is refreshed.
    pub expires_at: OffsetDateTime,
}

/// Stores a log-in with its first secret.
pub async fn create(tx: &mut TenantTx, new: NewLogin, mac: [u8; 32]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO login (tenant_id, id, user_id, kind, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(tenant)
    .bind(new.id.0)
    .bind(new.user.0)
    .bind(new.kind.name())
    .bind(new.created_at)
    .bind(new.expires_at)
    .execute(tx.conn())
    .await?;
    add_secret(tx, new.id, mac).await
}

/// Adds a secret to a log-in.
pub async fn add_secret(tx: &mut TenantTx, login: LoginId, mac: [u8; 32]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO login_secret (tenant_id, mac, login_id) VALUES ($1, $2, $3)")
        .bind(tenant)
        .bind(mac.as_slice())
        .bind(login.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

fn bytes(macs: &[[u8; 32]]) -> Vec<Vec<u8>> {
    macs.iter().map(|mac| mac.to_vec()).collect()
}

/// What became of a secret that was to be used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It was good, and is no longer.
    Now(LoginId),
    /// It was used before: there is a copy of it.
    Before(LoginId),
    /// There is none such.
    Unknown,
}

/// Uses up a refresh token. Two that come at once are one after the other: the row is locked.
pub async fn spend(tx: &mut TenantTx, macs: &[[u8; 32]], now: OffsetDateTime) -> Result<Spent, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<(Uuid, bool)> = sqlx::query_as(
        "SELECT s.login_id, s.used_at IS NOT NULL FROM login_secret s JOIN login l ON l.tenant_id = s.tenant_id AND l.id = s.login_id
         WHERE s.tenant_id = $1 AND s.mac = ANY($2) AND l.kind = 'tokens' FOR UPDATE OF s",
    )
    .bind(tenant)
    .bind(bytes(macs))
    .fetch_optional(tx.conn())
    .await?;
    let Some((login, used)) = row else { return Ok(Spent::Unknown) };
    if used {
        return Ok(Spent::Before(LoginId(login)));
    }
    sqlx::query("UPDATE login_secret SET used_at = $3 WHERE tenant_id = $1 AND mac = ANY($2)")
        .bind(tenant)
        .bind(bytes(macs))
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(Spent::Now(LoginId(login)))
}

/// Whether a refresh token is one that was not used yet.
pub async fn is_known(tx: &mut TenantTx, macs: &[[u8; 32]]) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let found = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT FROM login_secret s JOIN login l ON l.tenant_id = s.tenant_id AND l.id = s.login_id
             WHERE s.tenant_id = $1 AND s.mac = ANY($2) AND s.used_at IS NULL AND l.kind = 'tokens' AND l.revoked_at IS NULL)",
    );
    Ok(found.bind(tenant).bind(bytes(macs)).fetch_one(tx.conn()).await?)
}

/// The log-in that a cookie is of, whether or not it goes on.
pub async fn of_cookie(tx: &mut TenantTx, macs: &[[u8; 32]]) -> Result<Option<LoginId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let id: Option<Uuid> = sqlx::query_scalar(
        "SELECT l.id FROM login_secret s JOIN login l ON l.tenant_id = s.tenant_id AND l.id = s.login_id
         WHERE s.tenant_id = $1 AND s.mac = ANY($2) AND l.kind = 'cookie'",
    )
    .bind(tenant)
    .bind(bytes(macs))
    .fetch_optional(tx.conn())
    .await?;
    Ok(id.map(LoginId))
}

/// What decides whether a log-in is let in.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// Whose.
    pub user: UserId,
    /// Their role now.
    pub role: RoleRef,
    /// What it allows now; nothing, while they must set up a second factor first.
    pub permissions: Permissions,
    /// Whether the tenant wants a second factor that they do not have.
    pub must_set_up_totp: bool,
    /// Its end.
    pub expires_at: OffsetDateTime,
    /// Whether the tenant is not served at present.
    pub suspended: bool,
    /// What was agreed upon with the tenant.
    pub agreement: Agreement,
}

#[derive(FromRow)]
struct AdmissionRow {
    user_id: Uuid,
    #[sqlx(flatten)]
    role: RoleRow,
    must_set_up_totp: bool,
    expires_at: OffsetDateTime,
    suspended: bool,
    #[sqlx(flatten)]
    agreement: AgreementRow,
}

/// What decides about a log-in that goes on at `now`, of a user who may log in.
pub async fn admission(tx: &mut TenantTx, id: LoginId, now: OffsetDateTime) -> Result<Option<Admission>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!(
        "SELECT l.user_id, u.role, {BESIDE}, l.expires_at, t.suspended_at IS NOT NULL AS suspended, {AGREEMENT},
             t.require_totp AND NOT EXISTS (
                 SELECT FROM user_totp f WHERE f.tenant_id = u.tenant_id AND f.user_id = u.id AND f.confirmed_at IS NOT NULL
             ) AS must_set_up_totp
         FROM login l JOIN app_user u ON u.tenant_id = l.tenant_id AND u.id = l.user_id
             JOIN tenant t ON t.tenant_id = l.tenant_id
             LEFT JOIN tenant_role r ON r.tenant_id = u.tenant_id AND r.id = u.own_role
         WHERE l.tenant_id = $1 AND l.id = $2 AND l.revoked_at IS NULL AND l.expires_at > $3 AND u.state = 'active'"
    );
    let row: Option<AdmissionRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(tenant)
        .bind(id.0)
        .bind(now)
        .fetch_optional(tx.conn())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let role = GivenRole::try_from(row.role)?;
    Ok(Some(Admission {
        user: UserId(row.user_id),
        role: role.which,
        permissions: if row.must_set_up_totp { Permissions::default() } else { role.permissions },
        must_set_up_totp: row.must_set_up_totp,
        expires_at: row.expires_at,
        suspended: row.suspended,
        agreement: row.agreement.try_into()?,
    }))
}

/// Ends one log-in; whose it was, if it had not ended before.
pub async fn revoke(tx: &mut TenantTx, id: LoginId, now: OffsetDateTime) -> Result<Option<UserId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let user: Option<Uuid> = sqlx::query_scalar(
        "UPDATE login SET revoked_at = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING user_id",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(now)
    .fetch_optional(tx.conn())
    .await?;
    Ok(user.map(UserId))
}

/// Ends all log-ins of a user but this one.
pub async fn revoke_all(
    tx: &mut TenantTx,
    user: UserId,
    but: Option<LoginId>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE login SET revoked_at = $4
         WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL AND id IS DISTINCT FROM $3",
    )
    .bind(tenant)
    .bind(user.0)
    .bind(but.map(|id| id.0))
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}
