//! Rows that are sealed under people's keys, found by the id of the key that each seal begins with, to be sealed anew; and how far that
//! has come.
//!
//! In: an order, people, ids of keys that do not seal any more. Out: rows, locked, a batch at a time; what somebody else is working on
//! is left out, so that this waits for nobody. A test holds [`PLACES`] against the catalogue. Deliberately absent: frames of open
//! sessions and answers that are kept, which are gone in a day, and when which step may be taken (`keys::person_rotation`).

use std::collections::HashSet;
use std::time::Duration;

use gallery_log::KeyId;
use sqlx::{AssertSqlSafe, FromRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::resealing::{exchange, ids};
use super::{StoreError, TenantTx};
use hub_domain::ids::PersonId;
use hub_domain::person_key::PersonSeal;

/// A column of seals under people's keys, and how its rows tell whose they are and what each is bound to.
#[derive(Debug)]
pub struct Place {
    /// What is sealed.
    pub what: PersonSeal,
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    person: &'static str,
    object: &'static str,
    space: &'static str,
    /// Which rows it can be.
    only: &'static str,
}

const fn in_a_space(what: PersonSeal, table: &'static str) -> Place {
    let (column, person, object, space, only) = ("sealed", "person_id", "id", "space_id", "true");
    Place { what, table, column, person, object, space, only }
}

const fn in_a_gallery(what: PersonSeal, space: &'static str, only: &'static str) -> Place {
    Place { object: "object_id", space, only, ..in_a_space(what, "gallery_record") }
}

/// All of them.
pub const PLACES: &[Place] = &[
    Place { column: "profile_sealed", person: "id", space: "''", ..in_a_space(PersonSeal::Profile, "person") },
    in_a_space(PersonSeal::Template, "template"),
    in_a_space(PersonSeal::Anchor, "anchor"),
    in_a_gallery(PersonSeal::Body, "''", "kind = 'person'"),
    in_a_gallery(PersonSeal::Template, "space_id", "kind = 'template'"),
    in_a_gallery(PersonSeal::Anchor, "space_id", "kind = 'anchor'"),
];

/// A row to be sealed anew.
#[derive(Debug, FromRow)]
pub struct Row {
    /// Where it lies, until the transaction ends.
    at: String,
    /// Whose it is.
    pub person: Uuid,
    /// The id that the seal is bound to.
    pub object: Uuid,
    /// The revision that the seal is bound to.
    pub revision: i64,
    /// The space that the seal is bound to, or nothing.
    pub space: String,
    /// The seal.
    pub sealed: Vec<u8>,
}

/// Some rows of these people, whom the caller has locked, under one of these keys; locked too.
pub async fn some(
    tx: &mut TenantTx,
    place: &Place,
    people: &[PersonId],
    under: &[KeyId],
    at_most: u32,
) -> Result<Vec<Row>, StoreError> {
    let Place { table, column, person, object, space, only, .. } = place;
    let statement = format!(
        "SELECT ctid::text AS at, {person} AS person, {object} AS object, revision::bigint AS revision, {space} AS space,
             {column} AS sealed
         FROM {table} WHERE tenant_id = $1 AND {person} = ANY($2) AND {only} AND substr({column}, 2, 16) = ANY($3)
         LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED"
    );
    let rows = sqlx::query_as(AssertSqlSafe(statement))
        .bind(tx.tenant_uuid())
        .bind(uuids(people))
        .bind(ids(under))
        .bind(i64::from(at_most))
        .fetch_all(tx.conn())
        .await?;
    Ok(rows)
}

/// Puts other seals into rows that [`some`] found in this transaction.
pub async fn put(tx: &mut TenantTx, place: &Place, anew: &[(Row, Vec<u8>)]) -> Result<(), StoreError> {
    let anew = anew.iter().map(|(row, sealed)| (row.at.as_str(), row.sealed.as_slice(), sealed.as_slice()));
    exchange(tx, (place.table, place.column), anew).await
}

/// Whether anything of these people is sealed under one of these keys still, locked or not.
pub async fn any(tx: &mut TenantTx, people: &[PersonId], under: &[KeyId]) -> Result<bool, StoreError> {
    for Place { table, column, person, only, .. } in PLACES {
        let statement = format!(
            "SELECT EXISTS (SELECT 1 FROM {table}
             WHERE tenant_id = $1 AND {person} = ANY($2) AND {only} AND substr({column}, 2, 16) = ANY($3))"
        );
        let found: bool = sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(tx.tenant_uuid())
            .bind(uuids(people))
            .bind(ids(under))
            .fetch_one(tx.conn())
            .await?;
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How far a change of the keys of a tenant's people has come.
#[derive(Clone, Debug, FromRow)]
pub struct Change {
    /// Which order it is: keys that are made for it have its number.
    generation: i64,
    /// When it was ordered.
    pub ordered_at: OffsetDateTime,
    /// For how long everybody has had another key, in seconds by the database's clock.
    renewed: Option<f64>,
    /// Everybody up to this one is done.
    through: Option<Uuid>,
    /// Everybody is.
    pub has_ended: bool,
}

impl Change {
    /// Which order it is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.unsigned_abs()
    }

    /// For how long everybody has had another key.
    #[must_use]
    pub fn renewed(&self) -> Option<Duration> {
        self.renewed.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }
}

/// The latest change of a tenant.
pub async fn change(tx: &mut TenantTx) -> Result<Option<Change>, StoreError> {
    let found = sqlx::query_as(
        "SELECT generation, ordered_at, through, ended_at IS NOT NULL AS has_ended,
             CASE WHEN renewed_at IS NOT NULL
                 THEN greatest(extract(epoch FROM clock_timestamp() - renewed_at), 0)::float8 END AS renewed
         FROM person_key_change WHERE tenant_id = $1",
    );
    Ok(found.bind(tx.tenant_uuid()).fetch_optional(tx.conn()).await?)
}

/// Orders a change, of this generation or a higher one; false if one is under way.
pub async fn order(tx: &mut TenantTx, at_least: u64) -> Result<bool, StoreError> {
    let ordered = sqlx::query(
        "INSERT INTO person_key_change AS c (tenant_id, generation) VALUES ($1, $2)
         ON CONFLICT (tenant_id) DO UPDATE SET generation = greatest(c.generation + 1, excluded.generation),
             ordered_at = clock_timestamp(), renewed_at = NULL, through = NULL, ended_at = NULL
         WHERE c.ended_at IS NOT NULL",
    );
    let at_least = i64::try_from(at_least).unwrap_or(i64::MAX);
    Ok(ordered.bind(tx.tenant_uuid()).bind(at_least).execute(tx.conn()).await?.rows_affected() > 0)
}

/// Notes that everybody has another key. Another order that was given meanwhile is left as it is.
pub async fn renewed(tx: &mut TenantTx, change: &Change) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE person_key_change SET renewed_at = clock_timestamp()
         WHERE tenant_id = $1 AND generation = $2 AND renewed_at IS NULL",
    )
    .bind(tx.tenant_uuid())
    .bind(change.generation)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that everybody up to this one is done.
pub async fn done_through(tx: &mut TenantTx, change: &Change, person: PersonId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE person_key_change SET through = greatest(through, $3) WHERE tenant_id = $1 AND generation = $2",
    )
    .bind(tx.tenant_uuid())
    .bind(change.generation)
    .bind(person.0)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that everybody is; false if somebody else did.
pub async fn end(tx: &mut TenantTx, change: &Change) -> Result<bool, StoreError> {
    let ended = sqlx::query(
        "UPDATE person_key_change SET ended_at = clock_timestamp() WHERE tenant_id = $1 AND generation = $2 AND ended_at IS NULL",
    );
    Ok(ended.bind(tx.tenant_uuid()).bind(change.generation).execute(tx.conn()).await?.rows_affected() > 0)
}

/// The next people who are not done, by their ids.
pub async fn next(tx: &mut TenantTx, change: &Change, at_most: u32) -> Result<Vec<PersonId>, StoreError> {
    let found: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM person WHERE tenant_id = $1 AND state = 'active' AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3",
    )
    .bind(tx.tenant_uuid())
    .bind(change.through)
    .bind(i64::from(at_most))
    .fetch_all(tx.conn())
    .await?;
    Ok(found.into_iter().map(PersonId).collect())
}

/// Locks as many of these people, from the first on, as nobody else is at work on: with them nobody copies a seal from row to row.
pub async fn lock(tx: &mut TenantTx, mut people: Vec<PersonId>) -> Result<Vec<PersonId>, StoreError> {
    let locked: HashSet<Uuid> = sqlx::query_scalar(
        "SELECT id FROM person WHERE tenant_id = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(tx.tenant_uuid())
    .bind(uuids(&people))
    .fetch_all(tx.conn())
    .await?
    .into_iter()
    .collect();
    let run = people.iter().take_while(|person| locked.contains(&person.0)).count();
    people.truncate(run);
    Ok(people)
}

/// How many people are not done.
pub async fn left(tx: &mut TenantTx, change: &Change) -> Result<u64, StoreError> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM person WHERE tenant_id = $1 AND state = 'active' AND ($2::uuid IS NULL OR id > $2)",
    )
    .bind(tx.tenant_uuid())
    .bind(change.through)
    .fetch_one(tx.conn())
    .await?;
    Ok(count.unsigned_abs())
}

fn uuids(people: &[PersonId]) -> Vec<Uuid> {
    people.iter().map(|person| person.0).collect()
}
