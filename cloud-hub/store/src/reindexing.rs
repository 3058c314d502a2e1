//! Rows that are found by marks under an index key, to be marked under the next one, and what is left under the one before.
//!
//! In: the version of the newest index key. Out: rows, locked, a batch at a time; what another hub is working on is left to it. Cut off
//! anywhere, what is left is found again: a row that has a mark in the column of one parity and none in the other's. Deliberately
//! absent: what a mark is (`domain::index_key`), and when which step may be taken (`keys::index_rotation`).

use sqlx::{AssertSqlSafe, FromRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::people::{FoundBy, Person, PersonRow};
use super::{StoreError, TenantTx};
use hub_domain::ids::{PersonId, UserId};
use hub_domain::index_key::Marks;
use hub_domain::people::Profile;
use hub_domain::user::FORGOTTEN_AFTER;
use hub_domain::vault::TenantKeys;

/// The columns of marks under odd versions, and under even ones.
const COLUMNS: [(&str, &str, &str); 3] = [
    ("person", "external_id_index", "external_id_index_even"),
    ("person", "email_index", "email_index_even"),
    ("app_user", "login_index", "login_index_even"),
];

/// Of a pair of columns the one of marks under keys before `newest`, and the one of marks under it.
fn old_and_new((odd, even): (&'static str, &'static str), newest: u32) -> (&'static str, &'static str) {
    if newest.is_multiple_of(2) { (odd, even) } else { (even, odd) }
}

/// Which rows of a table have a mark under a key before `newest` and none under it.
fn lacks(table: &str, newest: u32) -> String {
    let of = COLUMNS.iter().filter(|(of, ..)| *of == table).map(|(_, odd, even)| {
        let (old, new) = old_and_new((odd, even), newest);
        format!("({old} IS NOT NULL AND {new} IS NULL)")
    });
    of.collect::<Vec<_>>().join(" OR ")
}

/// Some people who lack marks under the newest key, locked. Not those whose own key is missing: nobody knows what to mark.
pub async fn people(tx: &mut TenantTx, newest: u32, at_most: u32) -> Result<Vec<Person>, StoreError> {
    let statement = format!(
        "SELECT id, revision, profile_sealed, created_at FROM person
         WHERE tenant_id = $1 AND state = 'active' AND NOT key_missing AND ({}) ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED",
        lacks("person", newest)
    );
    let rows: Vec<PersonRow> = sqlx::query_as(AssertSqlSafe(statement))
        .bind(tx.tenant_uuid())
        .bind(i64::from(at_most))
        .fetch_all(tx.conn())
        .await?;
    rows.into_iter().map(Person::try_from).collect()
}

/// Marks a person, whom [`people`] found in this transaction, under all keys in use.
pub async fn mark_person(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    id: PersonId,
    profile: &Profile,
) -> Result<(), StoreError> {
    let by = FoundBy::of(keys, profile.external_id.as_deref(), profile.email.as_deref());
    sqlx::query(
        "UPDATE person SET external_id_index = $3, external_id_index_even = $4, email_index = $5, email_index_even = $6
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant_uuid())
    .bind(id.0)
    .bind(by.external_id.odd())
    .bind(by.external_id.even())
    .bind(by.email.odd())
    .bind(by.email.even())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A user and the name by which they log in, sealed.
#[derive(Clone, Debug, FromRow)]
pub struct UserRow {
    id: Uuid,
    /// The name, sealed.
    pub login_sealed: Vec<u8>,
}

impl UserRow {
    /// Who.
    #[must_use]
    pub fn id(&self) -> UserId {
        UserId(self.id)
    }
}

/// Some users who lack a mark under the newest key, locked.
pub async fn users(tx: &mut TenantTx, newest: u32, at_most: u32) -> Result<Vec<UserRow>, StoreError> {
    let statement = format!(
        "SELECT id, login_sealed FROM app_user WHERE tenant_id = $1 AND ({}) ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED",
        lacks("app_user", newest)
    );
    let rows = sqlx::query_as(AssertSqlSafe(statement));
    Ok(rows.bind(tx.tenant_uuid()).bind(i64::from(at_most)).fetch_all(tx.conn()).await?)
}

/// Marks a user, whom [`users`] found in this transaction.
pub async fn mark_user(tx: &mut TenantTx, id: UserId, marks: &Marks) -> Result<(), StoreError> {
    sqlx::query("UPDATE app_user SET login_index = $3, login_index_even = $4 WHERE tenant_id = $1 AND id = $2")
        .bind(tx.tenant_uuid())
        .bind(id.0)
        .bind(marks.odd())
        .bind(marks.even())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// What cannot be found under the newest key yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Left {
    /// People, those whose own key is missing included.
    pub people: i64,
    /// Users.
    pub users: i64,
    /// Requests with an `Idempotency-Key`: a day at most.
    pub requests: i64,
    /// Names with failed attempts to log in that were counted before every hub knew the newest key: a day at most.
    pub attempts: i64,
}

impl Left {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        (self.people + self.users + self.requests + self.attempts).unsigned_abs()
    }
}

/// Counts what cannot be found under the newest key, which every hub knew at `known_by`.
pub async fn left(
    tx: &mut TenantTx,
    newest: u32,
    (known_by, now): (OffsetDateTime, OffsetDateTime),
) -> Result<Left, StoreError> {
    let statement = format!(
        "SELECT (SELECT count(*) FROM person WHERE tenant_id = $1 AND ({})) AS people,
             (SELECT count(*) FROM app_user WHERE tenant_id = $1 AND ({})) AS users,
             (SELECT count(*) FROM idempotency_key WHERE tenant_id = $1 AND index_version < $2) AS requests,
             (SELECT count(*) FROM login_attempt WHERE tenant_id = $1 AND index_version < $2 AND last_at < $3
                 AND (last_at >= $4 OR locked_until > $5)) AS attempts",
        lacks("person", newest),
        lacks("app_user", newest)
    );
    let left = sqlx::query_as(AssertSqlSafe(statement))
        .bind(tx.tenant_uuid())
        .bind(i64::from(newest))
        .bind(known_by)
        .bind(now - FORGOTTEN_AFTER)
        .bind(now)
        .fetch_one(tx.conn())
        .await?;
    Ok(left)
}

/// Takes away some marks under keys before `newest` of rows that have one under it, and what nobody looks for any more; returns how
/// many. Nobody may use those keys any more.
pub async fn clear(tx: &mut TenantTx, newest: u32, at_most: u32) -> Result<u64, StoreError> {
    let mut cleared = 0;
    for (table, odd, even) in COLUMNS {
        let (old, new) = old_and_new((odd, even), newest);
        let statement = format!(
            "UPDATE {table} SET {old} = NULL WHERE tenant_id = $1 AND id IN (
                 SELECT id FROM {table} WHERE tenant_id = $1 AND {old} IS NOT NULL AND {new} IS NOT NULL
                 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)"
        );
        let done = sqlx::query(AssertSqlSafe(statement));
        cleared += done.bind(tx.tenant_uuid()).bind(i64::from(at_most)).execute(tx.conn()).await?.rows_affected();
    }
    for statement in [
        "DELETE FROM login_attempt WHERE tenant_id = $1 AND login_index IN (
             SELECT login_index FROM login_attempt WHERE tenant_id = $1 AND index_version < $3 LIMIT $2 FOR UPDATE SKIP LOCKED)",
        "UPDATE template SET photographs_mark = NULL WHERE tenant_id = $1 AND $3 > 0 AND id IN (
             SELECT id FROM template WHERE tenant_id = $1 AND photographs_mark IS NOT NULL LIMIT $2 FOR UPDATE SKIP LOCKED)",
    ] {
        let done = sqlx::query(statement).bind(tx.tenant_uuid()).bind(i64::from(at_most)).bind(i64::from(newest));
        cleared += done.execute(tx.conn()).await?.rows_affected();
    }
    Ok(cleared)
}

/// Whether anything is marked under a key before `newest`, locked or not.
pub async fn any_before(tx: &mut TenantTx, newest: u32) -> Result<bool, StoreError> {
    let columns = COLUMNS.iter().map(|(table, odd, even)| {
        let (old, _) = old_and_new((odd, even), newest);
        format!("EXISTS (SELECT FROM {table} WHERE tenant_id = $1 AND {old} IS NOT NULL)")
    });
    let rest = [
        "EXISTS (SELECT FROM login_attempt WHERE tenant_id = $1 AND index_version < $2)",
        "EXISTS (SELECT FROM idempotency_key WHERE tenant_id = $1 AND index_version < $2)",
        "EXISTS (SELECT FROM template WHERE tenant_id = $1 AND photographs_mark IS NOT NULL)",
    ];
    let all: Vec<String> = columns.chain(rest.map(str::to_owned)).collect();
    let found = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {}", all.join(" OR "))));
    Ok(found.bind(tx.tenant_uuid()).bind(i64::from(newest)).fetch_one(tx.conn()).await?)
}
