//! Negative anchors: the sealed row, and its record in every gallery that the person is in.
//!
//! An anchor is no template: it has no searchable vector, and nothing in it can ever be found as somebody. Locks as in
//! [`super::people`]: the person, then the galleries in the order of ids.

use gallery_log::{AnchorBody, Body, Kind, RecordId};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::devices::epoch;
use super::galleries::{self, Pending};
use super::{StoreError, TenantTx, people};
use hub_domain::gallery::Change;
use hub_domain::ids::{AnchorId, PersonId};
use hub_domain::person_key::PersonKey;
use hub_domain::rotation::DIM;
use hub_domain::vault::{TenantKeys, VaultError};

/// An anchor as stored.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// Its id.
    pub id: AnchorId,
    /// Whom it does not show.
    pub person_id: PersonId,
    /// The space in which it can be compared.
    pub space_id: String,
    /// The model pack's version that made it.
    pub model_version: String,
    /// How good the picture was, in [0, 1].
    pub quality: f32,
    /// Its revision.
    pub revision: u32,
    /// Its body, sealed under the person's key.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

#[derive(FromRow)]
struct AnchorRow {
    id: Uuid,
    person_id: Uuid,
    space_id: String,
    model_version: String,
    quality: f32,
    revision: i32,
    sealed: Vec<u8>,
    created_at: OffsetDateTime,
}

impl TryFrom<AnchorRow> for Anchor {
    type Error = StoreError;

    fn try_from(row: AnchorRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: AnchorId(row.id),
            person_id: PersonId(row.person_id),
            space_id: row.space_id,
            model_version: row.model_version,
            quality: row.quality,
            revision: epoch("anchor.revision", i64::from(row.revision))?,
            sealed: row.sealed,
            created_at: row.created_at,
        })
    }
}

/// An anchor to be written.
#[derive(Clone)]
pub struct NewAnchor {
    /// Its id, random.
    pub id: AnchorId,
    /// The space in which it can be compared.
    pub space_id: String,
    /// The model pack's version that made it.
    pub model_version: String,
    /// How good the picture was, in [0, 1].
    pub quality: f32,
    /// The embedding, of unit norm.
    pub embedding: Box<[f32; DIM]>,
}

impl std::fmt::Debug for NewAnchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewAnchor({}, ***)", self.id)
    }
}

/// Writes an anchor and its record in every gallery that the person is in. The caller has the person locked
/// ([`people::lock`]), so that the number of anchors that it judged by is still right.
pub async fn add(tx: &mut TenantTx, keys: &TenantKeys, key: &PersonKey, new: &NewAnchor) -> Result<(), StoreError> {
    let (tenant, person) = (tx.tenant_uuid(), key.person());
    let (space_id, embedding) = (new.space_id.clone(), new.embedding.clone());
    let body = Body::Anchor(AnchorBody { person: person.0, space_id, quality: new.quality, embedding })
        .encode()
        .map_err(|_| StoreError::Vault(VaultError::Length("anchor body")))?;
    let sealed = key.seal_anchor(new.id, 1, &new.space_id, &body)?;
    sqlx::query(
        "INSERT INTO anchor (tenant_id, id, person_id, space_id, model_version, quality, sealed)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(tenant)
    .bind(new.id.0)
    .bind(person.0)
    .bind(&new.space_id)
    .bind(&new.model_version)
    .bind(new.quality)
    .bind(&sealed)
    .execute(tx.conn())
    .await?;
    let pending = Pending {
        change: Change::Put { kind: Kind::Anchor, id: RecordId(new.id.0), rev: 1, body },
        sealed: Some(sealed),
        person: Some(person),
        space_id: Some(new.space_id.clone()),
    };
    let members = galleries::of_person(tx, person).await?;
    galleries::append(tx, keys, &members, &[pending]).await
}

/// The record of an anchor that exists, for a gallery that the person comes into.
pub(super) fn put(key: &PersonKey, anchor: Anchor) -> Result<Pending, StoreError> {
    let body = key.open_anchor(anchor.id, anchor.revision, &anchor.space_id, &anchor.sealed)?;
    Ok(Pending {
        change: Change::Put {
            kind: Kind::Anchor,
            id: RecordId(anchor.id.0),
            rev: anchor.revision,
            body: body.to_vec(),
        },
        sealed: Some(anchor.sealed),
        person: Some(key.person()),
        space_id: Some(anchor.space_id),
    })
}

/// A person's anchors, oldest first.
pub async fn of_person(tx: &mut TenantTx, person: PersonId) -> Result<Vec<Anchor>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<AnchorRow> = sqlx::query_as(
        "SELECT id, person_id, space_id, model_version, quality, revision, sealed, created_at FROM anchor
         WHERE tenant_id = $1 AND person_id = $2 ORDER BY created_at, id",
    )
    .bind(tenant)
    .bind(person.0)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Anchor::try_from).collect()
}

/// All anchors of a space.
pub async fn of_space(tx: &mut TenantTx, space_id: &str) -> Result<Vec<Anchor>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<AnchorRow> = sqlx::query_as(
        "SELECT id, person_id, space_id, model_version, quality, revision, sealed, created_at FROM anchor
         WHERE tenant_id = $1 AND space_id = $2",
    )
    .bind(tenant)
    .bind(space_id)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Anchor::try_from).collect()
}

/// Takes an anchor back: out of every gallery's log, its sealed body gone from row and records alike.
pub async fn remove(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    person: PersonId,
    anchor: AnchorId,
) -> Result<(), StoreError> {
    people::lock(tx, person).await?;
    let tenant = tx.tenant_uuid();
    let done = sqlx::query("DELETE FROM anchor WHERE tenant_id = $1 AND person_id = $2 AND id = $3")
        .bind(tenant)
        .bind(person.0)
        .bind(anchor.0)
        .execute(tx.conn())
        .await?;
    if done.rows_affected() == 0 {
        return Err(StoreError::NotFound { what: "negative anchor", id: anchor.0 });
    }
    let members = galleries::of_person(tx, person).await?;
    let del = || vec![people::del(Kind::Anchor, RecordId(anchor.0), person)];
    galleries::remove(tx, keys, members.into_iter().map(|gallery| (gallery, del())).collect()).await?;
    sqlx::query("UPDATE gallery_record SET sealed = NULL WHERE tenant_id = $1 AND object_id = $2 AND person_id = $3")
        .bind(tenant)
        .bind(anchor.0)
        .bind(person.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Removes a person's anchors.
pub(super) async fn delete_of_person(tx: &mut TenantTx, person: PersonId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("DELETE FROM anchor WHERE tenant_id = $1 AND person_id = $2")
        .bind(tenant)
        .bind(person.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}
