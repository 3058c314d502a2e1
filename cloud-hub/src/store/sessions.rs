//! Enrolment sessions as rows. What may follow what is [`crate::domain::enrolment`]'s to say.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, TenantTx};
use crate::domain::enrolment::State;
use crate::domain::ids::{PersonId, SessionId, TemplateId};

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Where it stands.
    pub state: State,
    /// Who is enrolled.
    pub person_id: Option<PersonId>,
    /// What came of it.
    pub template_id: Option<TemplateId>,
    /// Why nothing came of it: a stable reason code.
    pub reason: Option<String>,
    /// When it was opened.
    pub created_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
}

/// Opens an enrolment of a person.
pub async fn create(
    tx: &mut TenantTx,
    id: SessionId,
    person: PersonId,
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO session (tenant_id, id, kind, state, person_id, expires_at) VALUES ($1, $2, 'enrolment', $3, $4, $5)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(State::Initialized.name())
    .bind(person.0)
    .bind(expires_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct SessionRow {
    state: String,
    person_id: Option<Uuid>,
    template_id: Option<Uuid>,
    reason: Option<String>,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
}

/// Reads and locks a session.
pub async fn lock(tx: &mut TenantTx, id: SessionId) -> Result<Session, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<SessionRow> = sqlx::query_as(
        "SELECT state, person_id, template_id, reason, created_at, expires_at FROM session
         WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    let row = row.ok_or(StoreError::NotFound { what: "session", id: id.0 })?;
    Ok(Session {
        id,
        state: State::from_name(&row.state)
            .ok_or(StoreError::Unreadable { what: "session.state", reason: "unknown name" })?,
        person_id: row.person_id.map(PersonId),
        template_id: row.template_id.map(TemplateId),
        reason: row.reason,
        created_at: row.created_at,
        expires_at: row.expires_at,
    })
}

/// Writes the state that the domain decided on, with its outcome.
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
        "UPDATE session SET state = $3, template_id = $4, reason = $5, ended_at = $6 WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(state.name())
    .bind(template.map(|id| id.0))
    .bind(reason)
    .bind(state.ended().then_some(now))
    .execute(tx.conn())
    .await?;
    Ok(())
}
