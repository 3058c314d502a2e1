//! People: rows, and the change of every gallery that a change of a person means, in one transaction.
//!
//! A transaction here takes its locks in one order: the tenant's sites, people by id, galleries by id, then (by the
//! caller) the feed. Whoever changes what a person has in the log holds the person's row, so that a site that is made,
//! an enrolment and a deletion see one another's work whole or not at all.

use gallery_log::body::PersonState as LogState;
use gallery_log::{Body, Kind, PersonBody, RecordId, TemplateBody};
use std::collections::HashSet;

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::Code;

use super::galleries::{self, Pending};
use super::templates::{self, NewTemplate};
use super::{StoreError, TenantTx, anchors, idempotency, places, routes, sessions};
use hub_domain::gallery::Change;
use hub_domain::ids::{GalleryId, PersonId, SiteId, TemplateId};
use hub_domain::index_key::{Marks, field};
use hub_domain::people::{Access, Profile};
use hub_domain::person_key::PersonKey;
use hub_domain::rotation::{DIM, Seeded};
use hub_domain::session::{Input, State as SessionState, step};
use hub_domain::vault::{TenantKeys, VaultError};

/// A person who is not deleted.
#[derive(Clone, Debug)]
pub struct Person {
    /// Their id.
    pub id: PersonId,
    /// The revision of their profile.
    pub revision: u32,
    /// Their profile, sealed under their key.
    pub profile_sealed: Vec<u8>,
    /// When they were made.
    pub created_at: OffsetDateTime,
}

#[derive(FromRow)]
pub(super) struct PersonRow {
    id: Uuid,
    revision: i32,
    profile_sealed: Option<Vec<u8>>,
    created_at: OffsetDateTime,
}

impl TryFrom<PersonRow> for Person {
    type Error = StoreError;

    fn try_from(row: PersonRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: PersonId(row.id),
            revision: super::devices::epoch("person.revision", i64::from(row.revision))?,
            profile_sealed: row
                .profile_sealed
                .ok_or(StoreError::Unreadable { what: "person.profile_sealed", reason: "missing" })?,
            created_at: row.created_at,
        })
    }
}

/// The marks by which a person is found.
pub(super) struct FoundBy {
    pub(super) external_id: Marks,
    pub(super) email: Marks,
}

impl FoundBy {
    pub(super) fn of(keys: &TenantKeys, external_id: Option<&str>, email: Option<&str>) -> Self {
        let marks = |field, value: Option<&str>| value.map(|value| keys.marks(field, value)).unwrap_or_default();
        Self { external_id: marks(field::EXTERNAL_ID, external_id), email: marks(field::EMAIL, email) }
    }
}

/// Writes a person, their membership of the sites' galleries, and a record in each. `None` means all sites, those that
/// are made later included.
pub async fn create(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    key: &PersonKey,
    profile: &Profile,
    sites: Option<&[SiteId]>,
) -> Result<Vec<GalleryId>, StoreError> {
    let (tenant, person) = (tx.tenant_uuid(), key.person());
    let by = FoundBy::of(keys, profile.external_id.as_deref(), profile.email.as_deref());
    if sites.is_none() {
        // A site that is made at this moment either is among the galleries below or finds this person.
        places::share_sites(tx).await?;
    }
    sqlx::query(
        "INSERT INTO person (tenant_id, id, state, profile_sealed, external_id_index, external_id_index_even, email_index,
             email_index_even, all_sites)
         VALUES ($1, $2, 'active', $3, $4, $5, $6, $7, $8)",
    )
    .bind(tenant)
    .bind(person.0)
    .bind(key.seal_profile(1, profile)?)
    .bind(by.external_id.odd())
    .bind(by.external_id.even())
    .bind(by.email.odd())
    .bind(by.email.even())
    .bind(sites.is_none())
    .execute(tx.conn())
    .await?;
    let members = galleries::of_sites(tx, sites).await?;
    join(tx, person, &members).await?;
    galleries::append(tx, keys, &members, &[person_put(keys, key, 1, &profile.access)?]).await?;
    Ok(members)
}

/// Writes what is known of a person anew, and tells the galleries that they are in if doors have to know of it. The caller has
/// the person locked, and `before` is what was read then. Returns the revision.
pub async fn update(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    key: &PersonKey,
    before: (u32, &Profile),
    profile: &Profile,
) -> Result<u32, StoreError> {
    let (tenant, person, revision) = (tx.tenant_uuid(), key.person(), before.0 + 1);
    let by = FoundBy::of(keys, profile.external_id.as_deref(), profile.email.as_deref());
    // Both columns of each: a mark under a key that this hub has not heard of yet would be one of before.
    sqlx::query(
        "UPDATE person SET revision = $3, profile_sealed = $4, external_id_index = $5, external_id_index_even = $6,
             email_index = $7, email_index_even = $8
         WHERE tenant_id = $1 AND id = $2 AND state = 'active'",
    )
    .bind(tenant)
    .bind(person.0)
    .bind(i32::try_from(revision).unwrap_or(i32::MAX))
    .bind(key.seal_profile(revision, profile)?)
    .bind(by.external_id.odd())
    .bind(by.external_id.even())
    .bind(by.email.odd())
    .bind(by.email.even())
    .execute(tx.conn())
    .await?;
    if profile.access != before.1.access {
        let put = person_put(keys, key, revision, &profile.access)?;
        let members = galleries::of_person(tx, person).await?;
        galleries::append(tx, keys, &members, &[put]).await?;
    }
    Ok(revision)
}

/// The people who have this external id and this address; what is not said, anybody has. By marks, so only whole.
pub async fn find(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    external_id: Option<&str>,
    email: Option<&str>,
) -> Result<Vec<Person>, StoreError> {
    let tenant = tx.tenant_uuid();
    let by = FoundBy::of(keys, external_id, email);
    let rows: Vec<PersonRow> = sqlx::query_as(
        "SELECT id, revision, profile_sealed, created_at FROM person
         WHERE tenant_id = $1 AND state = 'active' AND ($2 OR external_id_index = $3 OR external_id_index_even = $4)
           AND ($5 OR email_index = $6 OR email_index_even = $7)
         ORDER BY id LIMIT 200",
    )
    .bind(tenant)
    .bind(external_id.is_none())
    .bind(by.external_id.odd())
    .bind(by.external_id.even())
    .bind(email.is_none())
    .bind(by.email.odd())
    .bind(by.email.even())
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Person::try_from).collect()
}

/// Puts people into a gallery that is new. The caller has them locked ([`lock_of_all_sites`]). Returns how many.
pub async fn join_new_gallery(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    gallery: GalleryId,
    person_keys: &[PersonKey],
) -> Result<usize, StoreError> {
    for key in person_keys {
        let person = get(tx, key.person()).await?;
        let profile = key.open_profile(person.revision, &person.profile_sealed)?;
        let mut pending = vec![person_put(keys, key, person.revision, &profile.access)?];
        for template in templates::of_person(tx, key.person()).await? {
            let body = key.open_template(template.id, template.revision, &template.space_id, &template.sealed)?;
            pending.push(Pending {
                change: Change::Put {
                    kind: Kind::Template,
                    id: RecordId(template.id.0),
                    rev: template.revision,
                    body: body.to_vec(),
                },
                sealed: Some(template.sealed),
                person: Some(key.person()),
                space_id: Some(template.space_id),
            });
        }
        for anchor in anchors::of_person(tx, key.person()).await? {
            pending.push(anchors::put(key, anchor)?);
        }
        join(tx, key.person(), &[gallery]).await?;
        galleries::append(tx, keys, &[gallery], &pending).await?;
    }
    Ok(person_keys.len())
}

/// Who belongs to a site.
pub async fn ids_of_site(tx: &mut TenantTx, site: SiteId) -> Result<HashSet<Uuid>, StoreError> {
    let tenant = tx.tenant_uuid();
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT m.person_id FROM gallery g JOIN gallery_member m ON m.tenant_id = g.tenant_id AND m.gallery_id = g.id
         WHERE g.tenant_id = $1 AND g.site_id = $2",
    )
    .bind(tenant)
    .bind(site.0)
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().collect())
}

/// Locks everybody who belongs to all sites: a deletion or an enrolment under way is waited for, and one that begins
/// now waits. The caller holds the tenant's sites ([`places::lock_sites`]).
pub async fn lock_of_all_sites(tx: &mut TenantTx) -> Result<Vec<PersonId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let ids = sqlx::query_scalar(
        "SELECT id FROM person WHERE tenant_id = $1 AND state = 'active' AND all_sites ORDER BY id FOR UPDATE",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(PersonId).collect())
}

async fn join(tx: &mut TenantTx, person: PersonId, galleries: &[GalleryId]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO gallery_member (tenant_id, gallery_id, person_id) SELECT $1, unnest($2::uuid[]), $3")
        .bind(tenant)
        .bind(galleries.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(person.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The record of a person, as of this revision of theirs. A group is an id there: names stay in the hub.
fn person_put(keys: &TenantKeys, key: &PersonKey, revision: u32, access: &Access) -> Result<Pending, StoreError> {
    let groups = access.groups.iter().map(|name| keys.group(name));
    let (from, until) = (access.valid_from, access.valid_until);
    let body = Body::Person(PersonBody::new(LogState::Active, from, until, groups.collect()))
        .encode()
        .map_err(|_| StoreError::Vault(VaultError::Length("person body")))?;
    Ok(Pending {
        sealed: Some(key.seal_person_body(revision, &body)?),
        change: Change::Put { kind: Kind::Person, id: RecordId(key.person().0), rev: revision, body },
        person: Some(key.person()),
        space_id: None,
    })
}

/// What an enrolment made.
#[derive(Clone)]
pub struct Enrolled {
    /// The template's id, random.
    pub id: TemplateId,
    /// The space in which it can be compared.
    pub space_id: String,
    /// The model pack's version that made it.
    pub model_version: String,
    /// How good the photographs were, in [0, 1].
    pub quality: f32,
    /// The embedding, of unit norm.
    pub embedding: Box<[f32; DIM]>,
    /// The person's mark of the photographs that it was made of.
    pub mark: Option<[u8; 32]>,
}

impl std::fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Enrolled({}, ***)", self.id)
    }
}

/// Adds a template: the sealed row, the searchable vector, and a record in every gallery that the person is in.
pub async fn add_template(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    key: &PersonKey,
    rotation: &Seeded,
    enrolled: &Enrolled,
) -> Result<(), StoreError> {
    let person = key.person();
    lock(tx, person).await?;
    let body = Body::Template(TemplateBody {
        person: person.0,
        space_id: enrolled.space_id.clone(),
        quality: enrolled.quality,
        embedding: enrolled.embedding.clone(),
    })
    .encode()
    .map_err(|_| StoreError::Vault(VaultError::Length("template body")))?;
    let sealed = key.seal_template(enrolled.id, 1, &enrolled.space_id, &body)?;
    let row = NewTemplate {
        id: enrolled.id,
        person_id: person,
        space_id: &enrolled.space_id,
        model_version: &enrolled.model_version,
        quality: enrolled.quality,
        sealed: &sealed,
        mark: enrolled.mark.as_ref(),
    };
    templates::create(tx, &row).await?;
    let rotated = rotation.rotation.apply(&enrolled.embedding);
    templates::put_vector(tx, enrolled.id, person, &enrolled.space_id, (rotation.version, &rotated)).await?;
    let pending = Pending {
        change: Change::Put { kind: Kind::Template, id: RecordId(enrolled.id.0), rev: 1, body },
        sealed: Some(sealed),
        person: Some(person),
        space_id: Some(enrolled.space_id.clone()),
    };
    let members = galleries::of_person(tx, person).await?;
    galleries::append(tx, keys, &members, &[pending]).await
}

/// Locks a person who is not deleted.
pub async fn lock(tx: &mut TenantTx, id: PersonId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let found = sqlx::query("SELECT FROM person WHERE tenant_id = $1 AND id = $2 AND state = 'active' FOR UPDATE")
        .bind(tenant)
        .bind(id.0)
        .fetch_optional(tx.conn())
        .await?;
    found.map(|_| ()).ok_or(StoreError::NotFound { what: "person", id: id.0 })
}

/// Deletes a person: dels in every gallery, no template, no anchor, no vector, no sealed body, no index, a tombstone.
///
/// The person's key is destroyed by the caller after the commit; until it says so ([`key_destroyed`]) the erasure
/// job has it on its list. The other order would lose the person if the commit failed.
pub async fn delete(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    id: PersonId,
    now: OffsetDateTime,
) -> Result<Vec<(GalleryId, u64)>, StoreError> {
    lock(tx, id).await?;
    // By the logs themselves and not by memberships or templates: whatever a gallery has of the person goes.
    let objects = galleries::objects_of_person(tx, id).await?;
    let dels = objects
        .into_iter()
        .map(|(gallery, objects)| (gallery, objects.into_iter().map(|(kind, object)| del(kind, object, id)).collect()));
    let changed = galleries::remove(tx, keys, dels.collect()).await?;
    erase(tx, id, now).await?;
    routes::set_due(tx, routes::Job::Erasure, now).await?;
    Ok(changed)
}

pub(super) fn del(kind: Kind, id: RecordId, person: PersonId) -> Pending {
    Pending { change: Change::Del { kind, id }, sealed: None, person: Some(person), space_id: None }
}

async fn erase(tx: &mut TenantTx, id: PersonId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    templates::delete_of_person(tx, id).await?;
    anchors::delete_of_person(tx, id).await?;
    idempotency::forget_answers_about(tx, id.0).await?;
    for open in sessions::open_of_person(tx, id).await? {
        let session = sessions::lock(tx, open).await?;
        let state = step(session.state, Input::Cancelled, now, session.expires_at).unwrap_or(SessionState::Expired);
        sessions::set(tx, open, state, None, Some(Code::PersonRemoved.as_str()), now).await?;
    }
    for statement in [
        "UPDATE gallery_record SET sealed = NULL WHERE tenant_id = $1 AND person_id = $2 AND sealed IS NOT NULL",
        "DELETE FROM gallery_member WHERE tenant_id = $1 AND person_id = $2",
    ] {
        sqlx::query(statement).bind(tenant).bind(id.0).execute(tx.conn()).await?;
    }
    sqlx::query(
        "UPDATE person SET state = 'deleted', deleted_at = $3, profile_sealed = NULL, external_id_index = NULL,
             external_id_index_even = NULL, email_index = NULL, email_index_even = NULL
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The deleted people whose keys may still exist.
pub async fn with_key_to_destroy(tx: &mut TenantTx) -> Result<Vec<PersonId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let ids = sqlx::query_scalar(
        "SELECT id FROM person WHERE tenant_id = $1 AND state = 'deleted' AND key_destroyed_at IS NULL ORDER BY id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(PersonId).collect())
}

/// Notes that a person's key is gone, and takes the tenant off the erasure job's list when it was the last one.
pub async fn key_destroyed(tx: &mut TenantTx, id: PersonId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("SELECT FROM route_due WHERE kind = 'erasure' AND tenant_id = $1 FOR UPDATE")
        .bind(tenant)
        .execute(tx.conn())
        .await?;
    sqlx::query("UPDATE person SET key_destroyed_at = $3 WHERE tenant_id = $1 AND id = $2 AND state = 'deleted'")
        .bind(tenant)
        .bind(id.0)
        .bind(now)
        .execute(tx.conn())
        .await?;
    if with_key_to_destroy(tx).await?.is_empty() {
        routes::replace_due(tx, routes::Job::Erasure, None).await?;
    }
    Ok(())
}

/// Notes that the key store has no key for a person, if they are not deleted: from here on their sealed records count
/// as erased ([`galleries::records`]), until [`key_found`].
pub async fn key_missing(tx: &mut TenantTx, id: PersonId) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE person SET key_missing = true
         WHERE tenant_id = $1 AND id = $2 AND state = 'active' AND NOT key_missing",
    )
    .bind(tenant)
    .bind(id.0)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The people who are not deleted and whose keys were missed.
pub async fn with_missing_key(tx: &mut TenantTx) -> Result<Vec<PersonId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let ids = sqlx::query_scalar(
        "SELECT id FROM person WHERE tenant_id = $1 AND state = 'active' AND key_missing ORDER BY id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(PersonId).collect())
}

/// The key store has the person's key again: it was restored.
pub async fn key_found(tx: &mut TenantTx, id: PersonId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE person SET key_missing = false WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// One person who is not deleted.
pub async fn get(tx: &mut TenantTx, id: PersonId) -> Result<Person, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<PersonRow> = sqlx::query_as(
        "SELECT id, revision, profile_sealed, created_at FROM person WHERE tenant_id = $1 AND id = $2 AND state = 'active'",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    row.ok_or(StoreError::NotFound { what: "person", id: id.0 }).and_then(Person::try_from)
}

/// Up to `limit` people after `after`, in the order of ids.
pub async fn page(tx: &mut TenantTx, after: Option<PersonId>, limit: u32) -> Result<Vec<Person>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<PersonRow> = sqlx::query_as(
        "SELECT id, revision, profile_sealed, created_at FROM person
         WHERE tenant_id = $1 AND state = 'active' AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3",
    )
    .bind(tenant)
    .bind(after.map(|id| id.0))
    .bind(i64::from(limit))
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Person::try_from).collect()
}
