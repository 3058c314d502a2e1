//! Sessions: opened with a token, joined by it, ended. What frames gave is sealed and opened.
//!
//! A frame's template is sealed under the key of the person whom the session is about, and under the tenant's where that is not known
//! yet. It lasts as long as the session is open; then the row goes. Deliberately absent: models, and who somebody is (`api::sessions`).

use std::sync::Arc;

use face_core::Embedding;
use gallery_log::keys::random_key;
use serde_json::{Value, json};
use time::OffsetDateTime;
use wire_contract::Code;
use zeroize::Zeroizing;

use super::custody::log;
use super::session_frames::Seal;
use super::{Custody, KeysError};
use hub_domain::ids::{PersonId, SessionId, TenantId};
use hub_domain::session::life::{self, Look, Standing};
use hub_domain::session::token::SessionToken;
use hub_domain::session::{Input, Kind, Seen, SessionError, State, after_refusal, step};
use hub_domain::tenant::{Agreement, Resource};
use hub_store::audit::{Action, Entry};
use hub_store::sessions::frames::{self, Frame};
use hub_store::sessions::{self, NewSession, Prompt, Session};
use hub_store::{TenantTx, audit, people, tenants};

/// Sessions that end in one transaction of the job.
const LAPSED_AT_ONCE: u32 = 200;

/// A session to be opened.
#[derive(Clone, Copy, Debug)]
pub struct WantedSession {
    /// What it is for.
    pub kind: Kind,
    /// Whom it is about; nobody's in an identification.
    pub person: Option<PersonId>,
    /// Whether another person may look the same.
    pub allow_duplicate: bool,
    /// Whether somebody has to be seen to live.
    pub require_liveness: bool,
    /// Attempts there may be.
    pub max_attempts: u16,
}

/// A session that was opened.
pub struct OpenedSession {
    /// The session.
    pub session: Session,
    /// Its token, shown once.
    pub token: Zeroizing<String>,
}

/// A token that was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinedSession {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which session it opens.
    pub session: SessionId,
    /// Whether the tenant is not served at present.
    pub suspended: bool,
    /// What was agreed upon with the tenant.
    pub agreement: Agreement,
}

/// A session with what its frames gave so far.
#[derive(Clone, Debug)]
pub struct SessionState {
    /// The session.
    pub session: Session,
    /// The frames of the present attempt.
    pub frames: Vec<Frame>,
}

impl SessionState {
    /// Where the present attempt stands with what is asked; none if nothing is.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let looks: Vec<Look> = self.frames.iter().filter_map(|frame| frame.look).collect();
        self.session.prompt.map(|prompt| life::replay(prompt.seed, &looks))
    }
}

/// A frame that was accepted, unsealed.
#[derive(Clone, Debug)]
pub struct OpenedFrame {
    /// Its template.
    pub embedding: Embedding,
    /// How good it is, in [0, 1].
    pub quality: f32,
    /// What it says of life.
    pub look: Option<Look>,
}

/// What was decided about an attempt.
#[derive(Clone, Debug)]
pub struct Decision {
    /// As it is stored and shown: numbers, codes and an id.
    pub result: Value,
    /// Why it was refused; none if it was not.
    pub refused: Option<Code>,
    /// Who was recognised, or held against: for the audit.
    pub person: Option<PersonId>,
}

impl Custody {
    /// Opens a session. One transaction, no models.
    pub async fn open_session(
        &self,
        tenant: TenantId,
        wanted: WantedSession,
        actor: &str,
    ) -> Result<OpenedSession, KeysError> {
        let (now, actor) = (self.clock.now(), actor.to_owned());
        let id = SessionId(self.clock.new_id());
        let token = SessionToken { tenant, session: id, secret: random_key()? };
        let mac = self.keyring.session_mac(tenant, id, &token.secret);
        let prompt = wanted.require_liveness.then(|| fresh_prompt(now)).transpose()?;
        let opened = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                tenants::admit(tx, Resource::Sessions).await?;
                if let Some(person) = wanted.person {
                    people::get(tx, person).await?;
                }
                let expires_at = now + tenants::session_lifetimes(tx).await?.of(wanted.kind);
                let detail = json!({
                    "kind": wanted.kind.as_str(), "person": wanted.person.map(|person| person.0),
                    "require_liveness": wanted.require_liveness, "allow_duplicate": wanted.allow_duplicate,
                });
                log(tx, &actor, Action::SessionCreate, "session", id.0, detail).await?;
                let new = NewSession {
                    id,
                    kind: wanted.kind,
                    person: wanted.person,
                    token_mac: Some(mac),
                    allow_duplicate: wanted.allow_duplicate,
                    max_attempts: wanted.max_attempts,
                    prompt,
                    created_at: now,
                    expires_at,
                };
                sessions::create(tx, &new).await?;
                Ok::<_, KeysError>(sessions::get(tx, id).await?)
            })
        });
        Ok(OpenedSession { session: opened.await?, token: token.text() })
    }

    /// Which session a token opens; `None` if it is unknown, wrong, or of a session that has ended or whose time is over, which
    /// callers must not tell apart.
    pub async fn join_session(&self, token: &SessionToken) -> Result<Option<JoinedSession>, KeysError> {
        let (tenant, session, now) = (token.tenant, token.session, self.clock.now());
        let found = self.db.tenant(tenant, move |tx| Box::pin(sessions::admission(tx, session))).await?;
        let found = found.filter(|found| self.keyring.is_session(tenant, session, &token.secret, &found.mac));
        Ok(found.filter(|found| !found.state.at(now, found.expires_at).ended()).map(|found| JoinedSession {
            tenant,
            session,
            suspended: found.suspended,
            agreement: found.agreement,
        }))
    }

    /// A session and what its frames gave.
    pub async fn session(&self, tenant: TenantId, id: SessionId) -> Result<SessionState, KeysError> {
        self.db.tenant(tenant, move |tx| Box::pin(async move { Ok(state(tx, id).await?) })).await
    }

    /// The same, and the templates of a space that were accepted, in the order of the frames.
    pub async fn session_templates(
        &self,
        tenant: TenantId,
        id: SessionId,
        space_id: &str,
    ) -> Result<(SessionState, Vec<OpenedFrame>), KeysError> {
        let (keyring, space_id) = (Arc::clone(&self.keyring), space_id.to_owned());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let state = state(tx, id).await?;
                    let seal = Seal::of(tx, &keyring, &state.session).await?;
                    let mut opened = Vec::new();
                    for frame in &state.frames {
                        if let Some((space, sealed)) = &frame.sealed
                            && *space == space_id
                        {
                            let embedding = seal.open(id, frame.number, sealed)?;
                            let quality = frame.quality.unwrap_or(0.0);
                            opened.push(OpenedFrame { embedding, quality, look: frame.look });
                        }
                    }
                    Ok::<_, KeysError>((state, opened))
                })
            })
            .await
    }

    /// Adds what frames gave to a session that is still as it was when they were looked at. A movement that was made brings the next
    /// prompt; one that was not asked for uses the attempt up.
    pub async fn add_frames(
        &self,
        tenant: TenantId,
        id: SessionId,
        (revision, space_id): (i32, &str),
        seen: Vec<Seen>,
        actor: &str,
    ) -> Result<SessionState, KeysError> {
        let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
        let (space_id, actor) = (space_id.to_owned(), actor.to_owned());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let session = unchanged(tx, id, revision).await?;
                    let next = step(session.state, Input::Submitted, now, session.expires_at)?;
                    let before = SessionState { frames: frames::all(tx, id).await?, session };
                    let seal = Seal::of(tx, &keyring, &before.session).await?;
                    let mut added = Vec::new();
                    for (number, seen) in (before.frames.len()..).zip(&seen) {
                        added.push(seal.frame(id, number, seen, &space_id)?);
                    }
                    frames::add(tx, id, &added).await?;
                    sessions::set(tx, id, next, None, None, now).await?;
                    let accepted = seen.iter().filter(|seen| seen.accepted).count();
                    let detail = json!({ "frames": seen.len(), "accepted": accepted });
                    log(tx, &actor, Action::SessionFrames, "session", id.0, detail).await?;
                    go_on(tx, &before, now, &actor).await?;
                    Ok::<_, KeysError>(state(tx, id).await?)
                })
            })
            .await
    }

    /// Writes what was decided about an attempt of a session that is still as it was when it was decided.
    pub async fn attempt_judged(
        &self,
        tenant: TenantId,
        id: SessionId,
        revision: i32,
        decision: Decision,
        actor: &str,
    ) -> Result<SessionState, KeysError> {
        let (now, actor) = (self.clock.now(), actor.to_owned());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let session = unchanged(tx, id, revision).await?;
                    judged(tx, &session, &decision, now, &actor).await?;
                    Ok::<_, KeysError>(state(tx, id).await?)
                })
            })
            .await
    }

    /// Ends a session in which nothing came about.
    pub async fn end_session(
        &self,
        tenant: TenantId,
        id: SessionId,
        (input, reason): (Input, Option<Code>),
        actor: &str,
    ) -> Result<SessionState, KeysError> {
        let (now, actor) = (self.clock.now(), actor.to_owned());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let session = sessions::lock_joinable(tx, id).await?;
                    let next = step(session.state, input, now, session.expires_at)?;
                    end(tx, id, next, reason, now, &actor).await?;
                    Ok::<_, KeysError>(state(tx, id).await?)
                })
            })
            .await
    }

    /// Ends the sessions whose time is over, a batch of them; returns how many.
    pub async fn expire_sessions(&self, tenant: TenantId) -> Result<usize, KeysError> {
        let now = self.clock.now();
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let lapsed = sessions::lock_lapsed(tx, now, LAPSED_AT_ONCE).await?;
                    for (id, present, expires_at) in &lapsed {
                        let next = step(*present, Input::Lapsed, now, *expires_at)?;
                        end(tx, *id, next, None, now, "hub").await?;
                    }
                    sessions::reschedule(tx).await?;
                    Ok::<_, KeysError>(lapsed.len())
                })
            })
            .await
    }
}

async fn state(tx: &mut TenantTx, id: SessionId) -> Result<SessionState, hub_store::StoreError> {
    Ok(SessionState { session: sessions::get(tx, id).await?, frames: frames::all(tx, id).await? })
}

/// Locks a session; an error if anything happened to it since its revision was read.
async fn unchanged(tx: &mut TenantTx, id: SessionId, revision: i32) -> Result<Session, KeysError> {
    let session = sessions::lock_joinable(tx, id).await?;
    // What has ended is told as that.
    if !session.state.ended() && session.revision != revision {
        return Err(SessionError::Changed.into());
    }
    Ok(session)
}

/// What follows from frames that were added: the next prompt, or the end of the attempt.
async fn go_on(tx: &mut TenantTx, before: &SessionState, now: OffsetDateTime, actor: &str) -> Result<(), KeysError> {
    let id = before.session.id;
    let after = state(tx, id).await?;
    let (Some(prompt), Some(was), Some(is)) = (before.session.prompt, before.standing(), after.standing()) else {
        return Ok(());
    };
    if let Some(code) = is.failure() {
        let result = json!({ "matched": false, "why": { "code": code } });
        let decision = Decision { result, refused: Some(code), person: None };
        return judged(tx, &after.session, &decision, now, actor).await;
    }
    if was.wanted() != is.wanted() {
        let next = fresh_prompt(now)?;
        sessions::ask(tx, id, Prompt { seed: prompt.seed, ..next }).await?;
    }
    Ok(())
}

/// Writes a decision: with it the session ends, or its next attempt begins with other movements.
async fn judged(
    tx: &mut TenantTx,
    session: &Session,
    decision: &Decision,
    now: OffsetDateTime,
    actor: &str,
) -> Result<(), KeysError> {
    let attempts = session.attempts + 1;
    let input = match decision.refused {
        None => Some(Input::Accepted),
        Some(_) => after_refusal(attempts, session.max_attempts),
    };
    let next = step(session.state, input.unwrap_or(Input::Submitted), now, session.expires_at)?;
    let prompt = (session.require_liveness && !next.ended()).then(|| fresh_prompt(now)).transpose()?;
    sessions::judged(tx, session.id, attempts, &decision.result, prompt).await?;
    let detail = json!({
        "kind": session.kind.as_str(), "attempt": attempts, "matched": decision.refused.is_none(),
        "code": decision.refused, "person": decision.person.map(|person| person.0),
    });
    log(tx, actor, Action::SessionAttempt, "session", session.id.0, detail).await?;
    if next.ended() {
        return end(tx, session.id, next, decision.refused, now, actor).await;
    }
    Ok(sessions::set(tx, session.id, next, None, None, now).await?)
}

async fn end(
    tx: &mut TenantTx,
    id: SessionId,
    state: State,
    reason: Option<Code>,
    now: OffsetDateTime,
    actor: &str,
) -> Result<(), KeysError> {
    sessions::set(tx, id, state, None, reason.map(Code::as_str), now).await?;
    let entry = Entry {
        actor,
        action: Action::SessionEnd,
        object_kind: "session",
        object_id: Some(id.0),
        detail: json!({ "state": state.name(), "code": reason }),
    };
    Ok(audit::write(tx, entry).await?)
}

/// A prompt that nobody can know beforehand, with other movements than any before.
fn fresh_prompt(at: OffsetDateTime) -> Result<Prompt, KeysError> {
    let random = random_key()?;
    let (mut seed, mut nonce) = ([0; 8], [0; 16]);
    seed.copy_from_slice(&random[..8]);
    nonce.copy_from_slice(&random[8..24]);
    Ok(Prompt { seed: u64::from_le_bytes(seed), nonce, at })
}
