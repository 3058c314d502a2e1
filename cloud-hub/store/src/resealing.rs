//! Rows that are sealed under a tenant's key, found by the id of the key that each seal begins with, to be sealed anew.
//!
//! In: the ids of keys that are to go. Out: rows, locked, a batch at a time; what another hub is working on is left to it. Cut off
//! anywhere, what is left is found again. A test holds [`PLACES`] against the catalogue: a sealed column that is missing here would
//! be lost with the key before. Deliberately absent: `tenant_secret`, which `secrets` has, and what is sealed under people's keys.

use gallery_log::KeyId;
use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::{StoreError, TenantTx};
use hub_domain::tenant_key::TenantSeal;

/// A column of seals under the tenant's key, and how its rows tell what each is bound to.
#[derive(Debug)]
pub struct Place {
    /// What is sealed.
    pub what: TenantSeal,
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    object: &'static str,
    revision: &'static str,
    /// Which rows it can be; the others are not looked into.
    only: &'static str,
}

const fn place(
    what: TenantSeal,
    table: &'static str,
    column: &'static str,
    object: &'static str,
    revision: &'static str,
) -> Place {
    Place { what, table, column, object, revision, only: "true" }
}

/// All of them.
pub const PLACES: &[Place] = &[
    place(TenantSeal::DigestKey, "gallery", "gdk_sealed", "id", "epoch"),
    place(TenantSeal::CredentialKey, "gallery", "ck_sealed", "id", "epoch"),
    place(TenantSeal::LinkKey, "device_link", "sealed", "device_id", "link_epoch"),
    place(TenantSeal::SnapshotKey, "gallery_snapshot", "key_sealed", "id", "1"),
    place(TenantSeal::WebhookSecret, "webhook_endpoint", "secret_sealed", "id", "1"),
    place(TenantSeal::Login, "app_user", "login_sealed", "id", "1"),
    place(TenantSeal::Totp, "user_totp", "secret_sealed", "user_id", "1"),
    place(TenantSeal::Frame, "session_frame", "sealed", "session_id", "number"),
    place(TenantSeal::Answer, "idempotency_key", "answer_sealed", "attempt", "1"),
    // Bodies of people are sealed under their own keys: millions of rows that need not be read.
    Place { only: "person_id IS NULL", ..place(TenantSeal::Rule, "gallery_record", "sealed", "object_id", "revision") },
];

/// A row to be sealed anew.
#[derive(Debug, FromRow)]
pub struct Row {
    /// Where it lies, until the transaction ends.
    at: String,
    /// The id that the seal is bound to.
    pub object: Uuid,
    /// The revision that the seal is bound to.
    pub revision: i64,
    /// The seal.
    pub sealed: Vec<u8>,
}

/// Some rows of a place under one of these keys, locked; those that somebody else has locked are left out.
pub async fn some(tx: &mut TenantTx, place: &Place, under: &[KeyId], at_most: u32) -> Result<Vec<Row>, StoreError> {
    let Place { table, column, object, revision, only, .. } = place;
    let statement = format!(
        "SELECT ctid::text AS at, {object} AS object, ({revision})::bigint AS revision, {column} AS sealed
         FROM {table} WHERE tenant_id = $1 AND {only} AND substr({column}, 2, 16) = ANY($2)
         LIMIT $3 FOR UPDATE SKIP LOCKED"
    );
    let rows = sqlx::query_as(AssertSqlSafe(statement))
        .bind(tx.tenant_uuid())
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

/// Puts other seals in the places of those before, in rows of this transaction: where each row lies, what is sealed there, and what is
/// to be. All at once, since a change has many rows and each way to the database takes longer than the seal. That they are named twice
/// is for the planner: under row security it may not look by what it joins (the cast could tell somebody something), and would read the
/// whole table.
pub(super) async fn exchange<'a>(
    tx: &mut TenantTx,
    (table, column): (&str, &str),
    anew: impl Iterator<Item = (&'a str, &'a [u8], &'a [u8])>,
) -> Result<(), StoreError> {
    let (mut at, mut before, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
    for row in anew {
        at.push(row.0);
        before.push(row.1);
        sealed.push(row.2);
    }
    if at.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "UPDATE {table} AS t SET {column} = anew.sealed
         FROM unnest($2::text[], $3::bytea[], $4::bytea[]) AS anew (at, before, sealed)
         WHERE t.tenant_id = $1 AND t.ctid = ANY ($2::text[]::tid[]) AND t.ctid = anew.at::tid AND t.{column} = anew.before"
    );
    sqlx::query(AssertSqlSafe(statement))
        .bind(tx.tenant_uuid())
        .bind(at)
        .bind(before)
        .bind(sealed)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Whether anything of the tenant is sealed under one of these keys still, locked or not.
pub async fn any(tx: &mut TenantTx, under: &[KeyId]) -> Result<bool, StoreError> {
    let ids = ids(under);
    let secrets =
        "SELECT 1 FROM tenant_secret WHERE tenant_id = $1 AND kind <> 'tk' AND substr(sealed, 2, 16) = ANY($2)";
    let places = PLACES.iter().map(|Place { table, column, only, .. }| {
        format!("SELECT 1 FROM {table} WHERE tenant_id = $1 AND {only} AND substr({column}, 2, 16) = ANY($2)")
    });
    for statement in std::iter::once(secrets.to_owned()).chain(places) {
        let found: bool = sqlx::query_scalar(AssertSqlSafe(format!("SELECT EXISTS ({statement})")))
            .bind(tx.tenant_uuid())
            .bind(&ids)
            .fetch_one(tx.conn())
            .await?;
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The ids of keys as seals name them.
pub(super) fn ids(under: &[KeyId]) -> Vec<Vec<u8>> {
    under.iter().map(|id| id.0.to_vec()).collect()
}
