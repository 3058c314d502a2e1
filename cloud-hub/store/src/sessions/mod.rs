//! Sessions as rows; [`frames`] are what they hold while they are open. What may follow what is [`hub_domain::session`]'s to say.

pub mod frames;

use serde_json::Value;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::tenants::{AGREEMENT, AgreementRow};
use super::{StoreError, TenantTx, routes};
use hub_domain::ids::{PersonId, SessionId, TemplateId};
use hub_domain::session::{Kind, State};
use hub_domain::tenant::Agreement;

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// What it is for.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// Who is enrolled, or said to be there.
    pub person_id: Option<PersonId>,
    /// What came of it.
    pub template_id: Option<TemplateId>,
    /// Why nothing came of it: a stable reason code.
    pub reason: Option<String>,
    /// Whether another person may look the same.
    pub allow_duplicate: bool,
    /// Whether somebody has to be seen to live.
    pub require_liveness: bool,
    /// Attempts that were judged.
    pub attempts: u16,
    /// Attempts there may be.
    pub max_attempts: u16,
    /// How often something has happened to it.
    pub revision: i32,
    /// What is asked of the person, if something is.
    pub prompt: Option<Prompt>,
    /// The decision about the last attempt.
    pub result: Option<Value>,
    /// Whether it has a token, with which somebody can join it.
    pub joinable: bool,
    /// When it was opened.
    pub created_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
    /// When it ended.
    pub ended_at: Option<OffsetDateTime>,
}

/// What is asked of the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What the movements of the attempt are drawn from. It never leaves the hub.
    pub seed: u64,
    /// Frames that answer carry it.
    pub nonce: [u8; 16],
    /// Since when.
    pub at: OffsetDateTime,
}

/// A session to be opened.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// What it is for.
    pub kind: Kind,
    /// Whom it is about, if that is known.
    pub person: Option<PersonId>,
    /// The MAC of its token, unless it is one request that nobody can join.
    pub token_mac: Option<[u8; 32]>,
    /// Whether another person may look the same.
    pub allow_duplicate: bool,
    /// Attempts there may be.
    pub max_attempts: u16,
    /// What is asked of the person first; with it somebody has to be seen to live.
    pub prompt: Option<Prompt>,
    /// When it was opened.
    pub created_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
}

/// Opens a session. Call it last: it holds the note of when the job has to come.
pub async fn create(tx: &mut TenantTx, new: &NewSession) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO session (tenant_id, id, kind, state, person_id, token_mac, allow_duplicate, require_liveness, max_attempts,
             challenge_seed, prompt_nonce, prompted_at, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(tenant)
    .bind(new.id.0)
    .bind(new.kind.as_str())
    .bind(State::Initialized.name())
    .bind(new.person.map(|id| id.0))
    .bind(new.token_mac.as_ref().map(<[u8; 32]>::as_slice))
    .bind(new.allow_duplicate)
    .bind(new.prompt.is_some())
    .bind(new.max_attempts.cast_signed())
    .bind(new.prompt.map(|prompt| prompt.seed.cast_signed()))
    .bind(new.prompt.as_ref().map(|prompt| prompt.nonce.as_slice()))
    .bind(new.prompt.map(|prompt| prompt.at))
    .bind(new.created_at)
    .bind(new.expires_at)
    .execute(tx.conn())
    .await?;
    routes::set_due(tx, routes::Job::Session, new.expires_at).await
}

#[derive(FromRow)]
struct SessionRow {
    id: Uuid,
    kind: String,
    state: String,
    person_id: Option<Uuid>,
    template_id: Option<Uuid>,
    reason: Option<String>,
    allow_duplicate: bool,
    require_liveness: bool,
    attempts: i16,
    max_attempts: i16,
    revision: i32,
    challenge_seed: Option<i64>,
    prompt_nonce: Option<Vec<u8>>,
    prompted_at: Option<OffsetDateTime>,
    result: Option<Value>,
    joinable: bool,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
}

impl TryFrom<SessionRow> for Session {
    type Error = StoreError;

    fn try_from(row: SessionRow) -> Result<Self, StoreError> {
        let unreadable = |what| StoreError::Unreadable { what, reason: "unknown name" };
        let prompt = match (row.challenge_seed, row.prompt_nonce, row.prompted_at) {
            (Some(seed), Some(nonce), Some(at)) => {
                let nonce = nonce.try_into();
                let nonce =
                    nonce.map_err(|_| StoreError::Unreadable { what: "session.prompt_nonce", reason: "length" })?;
                Some(Prompt { seed: seed.cast_unsigned(), nonce, at })
            }
            _ => None,
        };
        Ok(Self {
            id: SessionId(row.id),
            kind: Kind::from_name(&row.kind).ok_or_else(|| unreadable("session.kind"))?,
            state: State::from_name(&row.state).ok_or_else(|| unreadable("session.state"))?,
            person_id: row.person_id.map(PersonId),
            template_id: row.template_id.map(TemplateId),
            reason: row.reason,
            allow_duplicate: row.allow_duplicate,
            require_liveness: row.require_liveness,
            attempts: row.attempts.unsigned_abs(),
            max_attempts: row.max_attempts.unsigned_abs(),
            revision: row.revision,
            prompt,
            result: row.result,
            joinable: row.joinable,
            created_at: row.created_at,
            expires_at: row.expires_at,
            ended_at: row.ended_at,
        })
    }
}

const COLUMNS: &str = "id, kind, state, person_id, template_id, reason, allow_duplicate, require_liveness, attempts, max_attempts,
    revision, challenge_seed, prompt_nonce, prompted_at, result, token_mac IS NOT NULL AS joinable, created_at, expires_at, ended_at";

async fn read(tx: &mut TenantTx, id: SessionId, which: &'static str) -> Result<Session, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!("SELECT {COLUMNS} FROM session WHERE tenant_id = $1 AND id = $2{which}");
    let row: Option<SessionRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(tenant).bind(id.0).fetch_optional(tx.conn()).await?;
    row.ok_or(StoreError::NotFound { what: "session", id: id.0 })?.try_into()
}

/// Reads and locks a session.
pub async fn lock(tx: &mut TenantTx, id: SessionId) -> Result<Session, StoreError> {
    read(tx, id, " FOR UPDATE").await
}

/// One that somebody can join: not what is behind one request with photographs.
pub async fn get(tx: &mut TenantTx, id: SessionId) -> Result<Session, StoreError> {
    read(tx, id, " AND token_mac IS NOT NULL").await
}

/// The same, locked.
pub async fn lock_joinable(tx: &mut TenantTx, id: SessionId) -> Result<Session, StoreError> {
    read(tx, id, " AND token_mac IS NOT NULL FOR UPDATE").await
}

/// A page of them, the oldest first.
pub async fn list(tx: &mut TenantTx, after: Option<Uuid>, limit: u32) -> Result<Vec<Session>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!(
        "SELECT {COLUMNS} FROM session WHERE tenant_id = $1 AND token_mac IS NOT NULL AND ($2::uuid IS NULL OR id > $2)
         ORDER BY id LIMIT $3"
    );
    let rows: Vec<SessionRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(tenant)
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(tx.conn())
        .await?;
    rows.into_iter().map(Session::try_from).collect()
}

/// Writes the state that the domain decided on, with its outcome. What was held for an open session goes with its end.
pub async fn set(
    tx: &mut TenantTx,
    id: SessionId,
    state: State,
    template: Option<TemplateId>,
    reason: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE session SET state = $3, template_id = $4, reason = $5, ended_at = $6, revision = revision + 1
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(state.name())
    .bind(template.map(|id| id.0))
    .bind(reason)
    .bind(state.ended().then_some(now))
    .execute(tx.conn())
    .await?;
    if state.ended() { frames::remove(tx, id).await } else { Ok(()) }
}

/// Writes that an attempt was judged: what came of it, and what is asked next. The frames of it go.
pub async fn judged(
    tx: &mut TenantTx,
    id: SessionId,
    attempts: u16,
    result: &Value,
    next: Option<Prompt>,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE session SET attempts = $3, result = $4 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .bind(attempts.cast_signed())
        .bind(result)
        .execute(tx.conn())
        .await?;
    if let Some(prompt) = next {
        ask(tx, id, prompt).await?;
    }
    frames::remove(tx, id).await
}

/// Writes what is asked of the person now.
pub async fn ask(tx: &mut TenantTx, id: SessionId, prompt: Prompt) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE session SET challenge_seed = $3, prompt_nonce = $4, prompted_at = $5 WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(prompt.seed.cast_signed())
    .bind(prompt.nonce.as_slice())
    .bind(prompt.at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What decides whether a token is let in.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The MAC of the token's secret.
    pub mac: Vec<u8>,
    /// Where the session stands.
    pub state: State,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
    /// Whether the tenant is not served at present.
    pub suspended: bool,
    /// What was agreed upon with the tenant.
    pub agreement: Agreement,
}

#[derive(FromRow)]
struct AdmissionRow {
    token_mac: Vec<u8>,
    state: String,
    expires_at: OffsetDateTime,
    suspended: bool,
    #[sqlx(flatten)]
    agreement: AgreementRow,
}

/// What decides about a session's token.
pub async fn admission(tx: &mut TenantTx, id: SessionId) -> Result<Option<Admission>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = format!(
        "SELECT s.token_mac, s.state, s.expires_at, t.suspended_at IS NOT NULL AS suspended, {AGREEMENT}
         FROM session s JOIN tenant t ON t.tenant_id = s.tenant_id
         WHERE s.tenant_id = $1 AND s.id = $2 AND s.token_mac IS NOT NULL"
    );
    let row: Option<AdmissionRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(tenant).bind(id.0).fetch_optional(tx.conn()).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Admission {
        mac: row.token_mac,
        state: State::from_name(&row.state)
            .ok_or(StoreError::Unreadable { what: "session.state", reason: "unknown name" })?,
        expires_at: row.expires_at,
        suspended: row.suspended,
        agreement: row.agreement.try_into()?,
    }))
}

/// Locks up to `limit` sessions that are open although their time is over at `now`. Those that somebody works on are left for the
/// next round.
pub async fn lock_lapsed(
    tx: &mut TenantTx,
    now: OffsetDateTime,
    limit: u32,
) -> Result<Vec<(SessionId, State, OffsetDateTime)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(Uuid, String, OffsetDateTime)> = sqlx::query_as(
        "SELECT id, state, expires_at FROM session WHERE tenant_id = $1 AND ended_at IS NULL AND expires_at <= $2
         ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED",
    )
    .bind(tenant)
    .bind(now)
    .bind(i64::from(limit))
    .fetch_all(tx.conn())
    .await?;
    let unreadable = StoreError::Unreadable { what: "session.state", reason: "unknown name" };
    let read = |(id, state, at): (Uuid, String, OffsetDateTime)| Some((SessionId(id), State::from_name(&state)?, at));
    rows.into_iter().map(read).collect::<Option<Vec<_>>>().ok_or(unreadable)
}

/// Notes in the routing table when this tenant's next session ends by itself. Call it last.
///
/// The note is locked before the sessions are read: a transaction that opens one at the same moment either is seen here or
/// lowers the note afterwards.
pub async fn reschedule(tx: &mut TenantTx) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("SELECT FROM route_due WHERE kind = 'session' AND tenant_id = $1 FOR UPDATE")
        .bind(tenant)
        .execute(tx.conn())
        .await?;
    let next = sqlx::query_scalar("SELECT min(expires_at) FROM session WHERE tenant_id = $1 AND ended_at IS NULL")
        .bind(tenant)
        .fetch_one(tx.conn())
        .await?;
    routes::replace_due(tx, routes::Job::Session, next).await
}

/// The open sessions about a person who is being deleted.
pub async fn open_of_person(tx: &mut TenantTx, person: PersonId) -> Result<Vec<SessionId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM session WHERE tenant_id = $1 AND person_id = $2 AND ended_at IS NULL ORDER BY id FOR UPDATE",
    )
    .bind(tenant)
    .bind(person.0)
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(SessionId).collect())
}
