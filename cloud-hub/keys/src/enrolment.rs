//! Templates: made under a person's key, searched by their rotated vectors, rebuilt after a crash of the database.

use std::sync::Arc;

use face_core::{Embedding, Similarity, Space, ThresholdLadder};
use gallery_log::{Body, Kind};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::event::EnrolmentCompletedData;
use wire_contract::{EventData, Score};

use super::custody::log;
use super::near::nearest_vectors;
use super::{Custody, Keyring, KeysError, Photographs};
use hub_domain::duplicate::{self, Duplicate};
use hub_domain::event::NewEvent;
use hub_domain::ids::{CommandId, EventId, PersonId, SessionId, TemplateId, TenantId};
use hub_domain::rotation::{DIM, Seeded};
use hub_domain::session::{Input, step};
use hub_domain::tenant::Resource;
use hub_domain::vault::TenantKeys;
use hub_store::audit::Entry;
use hub_store::people::{self, Enrolled};
use hub_store::templates::Template;
use hub_store::vectors::{self, Among};
use hub_store::{TenantTx, audit, commands, events, sessions, templates, tenants};

/// What an enrolment's photographs gave.
#[derive(Clone)]
pub struct NewTemplate {
    /// The space in which it can be compared.
    pub space_id: String,
    /// The model pack's version that made it.
    pub model_version: String,
    /// How good the photographs were, in [0, 1].
    pub quality: f32,
    /// How many photographs it was made of.
    pub photographs: u32,
    /// The embedding, of unit norm.
    pub embedding: Box<[f32; DIM]>,
    /// The photographs by whose mark it is known again, where the hub had them.
    pub mark: Option<Photographs>,
}

/// What led to an enrolment.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// Nothing that must be told of its end.
    Import,
    /// A session, which ends as completed.
    Session(SessionId),
    /// A face that a device took at a door: one template a command, however often it is asked for.
    Command(CommandId),
}

/// By what somebody else is taken to be the same person.
#[derive(Clone)]
pub struct Sameness {
    /// The space that is searched.
    pub space: Space,
    /// The face.
    pub probe: Embedding,
    /// How alike is the same, by the number of templates.
    pub ladder: ThresholdLadder,
    /// Whether the template is wanted all the same.
    pub allowed: bool,
}

/// What came of an enrolment.
#[derive(Clone, Copy, Debug)]
pub enum Enrolment {
    /// A template, and whoever else looks the same, if that was allowed.
    Made(TemplateId, Option<Duplicate>),
    /// Somebody else looks the same: nothing was stored.
    Known(Duplicate),
}

/// Somebody who looks like a probe, scored in f32 from the unsealed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Who.
    pub person: PersonId,
    /// By which template.
    pub template: TemplateId,
    /// As doors score: the cosine docked by clarity, in [-1, 1].
    pub similarity: f32,
}

/// Neighbours that are scored anew in the search for a duplicate: the rotation's rounding moves none by as many ranks.
const FINALISTS: u32 = 8;
/// How many vectors are rebuilt in one transaction: a second of work, so that nothing waits long.
const REBUILD_BATCH: u32 = 200;

impl Custody {
    /// Stores a template, ends its session as completed if it has one, and tells the doors, in one transaction. Nobody is looked for
    /// who may be the same.
    pub async fn enrol(
        &self,
        tenant: TenantId,
        person: PersonId,
        session: Option<SessionId>,
        new: NewTemplate,
        actor: &str,
    ) -> Result<TemplateId, KeysError> {
        let origin = session.map_or(Origin::Import, Origin::Session);
        let enrolling = self.enrolling(person, origin, actor);
        self.db.tenant(tenant, move |tx| Box::pin(async move { enrolling.store(tx, new, None).await })).await
    }

    /// The same, unless somebody else of the tenant looks the same. Whoever is enrolled at the same moment, on whichever hub, is looked
    /// for too: one after the other looks and stores.
    ///
    /// # Errors
    /// [`KeysError::VectorsMissing`] while others cannot be looked for.
    pub async fn enrol_unless_known(
        &self,
        tenant: TenantId,
        person: PersonId,
        origin: Origin,
        (new, sameness): (NewTemplate, Sameness),
        actor: &str,
    ) -> Result<Enrolment, KeysError> {
        let enrolling = self.enrolling(person, origin, actor);
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    if let Origin::Command(command) = origin
                        && let (_, Some(made)) = commands::lock(tx, command).await?
                    {
                        return Ok(Enrolment::Made(made, None));
                    }
                    templates::take_turn(tx).await?;
                    let duplicate = same(tx, &enrolling.keyring, person, &sameness, &enrolling.actor).await?;
                    if let Some(other) = duplicate.filter(|_| !sameness.allowed) {
                        return Ok(Enrolment::Known(other));
                    }
                    let made = enrolling.store(tx, new, duplicate).await?;
                    Ok::<_, KeysError>(Enrolment::Made(made, duplicate))
                })
            })
            .await
    }

    fn enrolling(&self, person: PersonId, origin: Origin, actor: &str) -> Enrolling {
        Enrolling {
            keyring: Arc::clone(&self.keyring),
            person,
            origin,
            actor: actor.to_owned(),
            now: self.clock.now(),
            template: TemplateId(Uuid::new_v4()),
            event: EventId(self.clock.new_id()),
        }
    }

    /// The `k` templates of a space that are nearest to an embedding by cosine, best score first.
    /// Found by the rotated vectors, scored anew from the unsealed templates as a door scores. A handicap moves a score by a
    /// few hundredths: ask for enough of them that nobody further away by cosine can matter.
    pub async fn nearest(
        &self,
        tenant: TenantId,
        space: &Space,
        probe: Embedding,
        k: u32,
    ) -> Result<Vec<Candidate>, KeysError> {
        let (keyring, space) = (Arc::clone(&self.keyring), space.clone());
        self.db
            .tenant(tenant, move |tx| Box::pin(async move { nearest(tx, &keyring, &space, &probe, None, k).await }))
            .await
    }

    /// Whether somebody other than `person` looks the same, by the thresholds for as many templates as the others have. Opens
    /// the templates of those who are nearest, and says so in the audit.
    pub async fn duplicate(
        &self,
        tenant: TenantId,
        person: PersonId,
        sameness: Sameness,
        actor: &str,
    ) -> Result<Option<Duplicate>, KeysError> {
        let (keyring, actor) = (Arc::clone(&self.keyring), actor.to_owned());
        self.db
            .tenant(tenant, move |tx| Box::pin(async move { same(tx, &keyring, person, &sameness, &actor).await }))
            .await
    }

    /// Rebuilds the searchable vectors that are missing: all of them after a crash of the database. Returns how many.
    /// Those of people without a key stay missing.
    pub async fn rebuild_vectors(&self, tenant: TenantId) -> Result<usize, KeysError> {
        let (look, mut rebuilt, mut after) = (Uuid::new_v4(), 0, None);
        loop {
            let keyring = Arc::clone(&self.keyring);
            let (batch, last) = self
                .db
                .tenant(tenant, move |tx| Box::pin(async move { rebuild_batch(tx, &keyring, (look, after)).await }))
                .await?;
            rebuilt += batch;
            if last.is_none() {
                return Ok(rebuilt);
            }
            after = last;
        }
    }
}

/// An enrolment under way.
struct Enrolling {
    keyring: Arc<Keyring>,
    person: PersonId,
    origin: Origin,
    actor: String,
    now: OffsetDateTime,
    template: TemplateId,
    event: EventId,
}

impl Enrolling {
    /// Writes the template and all that follows from it; `duplicate` is whoever looks the same and was allowed to.
    async fn store(
        self,
        tx: &mut TenantTx,
        new: NewTemplate,
        duplicate: Option<Duplicate>,
    ) -> Result<TemplateId, KeysError> {
        let Self { keyring, person, origin, actor, now, template, event } = self;
        let command = match origin {
            Origin::Command(command) => Some(command),
            Origin::Import | Origin::Session(_) => None,
        };
        if let Some(command) = command {
            commands::answered(tx, command, template).await?;
        }
        tenants::admit(tx, Resource::Templates).await?;
        // Whoever was deleted has no key either; that they are gone is the better answer.
        people::get(tx, person).await?;
        let keys = keyring.tenant(tx).await?;
        let key = keyring.person(&keys, person)?;
        let rotations = keyring.rotations(tx, &new.space_id).await?;
        let data = EnrolmentCompletedData {
            person: wire_contract::PersonId(person.0),
            template: template.0,
            space_id: new.space_id.clone(),
            photographs: new.photographs,
            quality: Score::from(new.quality),
        };
        let enrolled = Enrolled {
            id: template,
            space_id: new.space_id,
            model_version: new.model_version,
            quality: new.quality,
            embedding: new.embedding,
            mark: new.mark.map(|photographs| photographs.mark(&key)),
        };
        people::add_template(tx, &keys, &key, rotations.writing(), &enrolled).await?;
        // After the person's row, as whoever deletes them takes the two.
        if let Origin::Session(id) = origin {
            let open = sessions::lock(tx, id).await?;
            let state = step(open.state, Input::Accepted, now, open.expires_at)?;
            sessions::set(tx, id, state, Some(template), None, now).await?;
            if open.joinable {
                let detail = json!({ "state": state.name(), "template": template.0 });
                log(tx, &actor, audit::Action::SessionEnd, "session", id.0, detail).await?;
            }
        }
        let mut detail = json!({ "template": template.0, "command": command.map(|id| id.0) });
        if let Some(other) = duplicate {
            detail["duplicate_allowed"] = told(&other);
        }
        log(tx, &actor, audit::Action::TemplateCreate, "person", person.0, detail).await?;
        let data = EventData::EnrolmentCompleted(data);
        events::append(tx, &[NewEvent::from_hub(event, Some(person.to_string()), now, &data)], now).await?;
        Ok(template)
    }
}

/// A duplicate in the words of answers and audit entries: ids and numbers.
pub fn told(duplicate: &Duplicate) -> Value {
    json!({
        "person": duplicate.person.0,
        "score": duplicate.score,
        "threshold": duplicate.threshold,
        "compared": duplicate.compared,
    })
}

async fn same(
    tx: &mut TenantTx,
    keyring: &Keyring,
    person: PersonId,
    sameness: &Sameness,
    actor: &str,
) -> Result<Option<Duplicate>, KeysError> {
    let space = &sameness.space;
    // Whoever is the same may be among those whose vectors are missing.
    if !vectors::searchable(tx, &space.id).await?.whole {
        return Err(KeysError::VectorsMissing);
    }
    let near = nearest(tx, keyring, space, &sameness.probe, Some(person), FINALISTS).await?;
    let compared = templates::searchable(tx, &space.id, person).await?;
    let detail = json!({ "compared": compared, "opened": near.len() });
    log(tx, actor, audit::Action::TemplateCompare, "person", person.0, detail).await?;
    let best = near.first().map(|best| (best.person, best.similarity));
    Ok(duplicate::find(best, compared, &sameness.ladder))
}

async fn nearest(
    tx: &mut TenantTx,
    keyring: &Keyring,
    space: &Space,
    probe: &Embedding,
    except: Option<PersonId>,
    k: u32,
) -> Result<Vec<Candidate>, KeysError> {
    let keys = keyring.tenant(tx).await?;
    let mut found = Vec::new();
    let among = Among { except, only: None };
    for near in nearest_vectors(tx, keyring, &space.id, probe, among, k).await? {
        let rows = templates::of_person(tx, near.person).await?;
        let Some(row) = rows.iter().find(|row| row.id == near.template) else { continue };
        let embedding = match open(keyring, &keys, row) {
            // Erased meanwhile, or the key is gone for good: nobody who can be recognised.
            Err(KeysError::NoPersonKey(_)) => continue,
            embedding => embedding?,
        };
        let cosine = embedding.iter().zip(probe.as_slice()).map(|(a, b)| a * b).sum();
        let similarity = Similarity::docked(cosine, probe.handicap(), space.handicap(row.quality)).value();
        found.push(Candidate { person: near.person, template: near.template, similarity });
    }
    found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
    Ok(found)
}

/// Returns how many vectors were made and the last template that was looked at; `None` when there are no more.
async fn rebuild_batch(
    tx: &mut TenantTx,
    keyring: &Keyring,
    (look, after): (Uuid, Option<TemplateId>),
) -> Result<(usize, Option<TemplateId>), KeysError> {
    let keys = keyring.tenant(tx).await?;
    if after.is_none() {
        vectors::begin_look(tx, look).await?;
    }
    let (missing, mut rebuilt) = (templates::without_vector(tx, after, REBUILD_BATCH).await?, 0);
    if missing.is_empty() {
        // Those before have theirs now, or their people have no key and are nobody who can be found.
        vectors::end_look(tx, look).await?;
    }
    for row in &missing {
        let embedding = match open(keyring, &keys, row) {
            Err(KeysError::NoPersonKey(_)) => continue,
            embedding => embedding?,
        };
        let rotations = keyring.rotations(tx, &row.space_id).await?;
        let Seeded { version, rotation } = rotations.writing();
        templates::put_vector(tx, row.id, row.person_id, &row.space_id, (*version, &rotation.apply(&embedding)))
            .await?;
        rebuilt += 1;
    }
    if rebuilt > 0 {
        let (action, object_kind) = (audit::Action::TemplateReindex, "template");
        let detail = json!({ "count": rebuilt });
        audit::write(tx, Entry { actor: "hub", action, object_kind, object_id: None, detail }).await?;
    }
    Ok((rebuilt, missing.last().map(|row| row.id)))
}

pub(super) fn open(keyring: &Keyring, keys: &TenantKeys, row: &Template) -> Result<Box<[f32; DIM]>, KeysError> {
    let key = keyring.person(keys, row.person_id)?;
    let body = key.open_template(row.id, row.revision, &row.space_id, &row.sealed)?;
    match Body::decode(Kind::Template, &body)? {
        Body::Template(template) => Ok(template.embedding),
        _ => unreachable!("a body decoded as a template is one"),
    }
}
