//! Places in the chain, and what was signed of it: the rows behind the audit's sealer.
//!
//! In: which tenants have entries that wait. Out: entries with their places, in batches, each a transaction. Two sealers at once
//! would do no harm: a place is unique, an entry gets one once, and the second of the two fails.

use std::collections::BTreeMap;

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::reading::{COLUMNS, Columns, hash_of};
use crate::leadership::Candidate;
use crate::{StoreError, TenantTx};
use hub_domain::audit::{Hash, Head, Link, chain};
use hub_domain::ids::TenantId;
use sqlx::AssertSqlSafe;

/// Entries sealed in one transaction: some tens of milliseconds of work.
pub const BATCH: u32 = 1_000;
/// Notes read at once. What is left is read at the next look.
const NOTES: i64 = 10_000;

/// The notes that say which tenants have entries without a place, read by the session that leads.
pub async fn waiting(leader: &mut Candidate) -> Result<BTreeMap<TenantId, Vec<Uuid>>, StoreError> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as("SELECT tenant_id, id FROM route_unsealed LIMIT $1")
        .bind(NOTES)
        .fetch_all(leader.session())
        .await?;
    let mut waiting: BTreeMap<TenantId, Vec<Uuid>> = BTreeMap::new();
    for (tenant, note) in rows {
        waiting.entry(TenantId(tenant)).or_default().push(note);
    }
    Ok(waiting)
}

/// Entries that got their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// How many.
    pub count: u32,
    /// When the oldest of them was written.
    pub oldest: Option<OffsetDateTime>,
}

/// Gives the next entries of the tenant their places, in the order of their times. Once none is left, the
/// notes, which were read before, go: whatever they told of is sealed.
pub async fn seal(tx: &mut TenantTx, notes: &[Uuid]) -> Result<Sealed, StoreError> {
    let tenant = tx.tenant();
    let statement = format!(
        "SELECT {COLUMNS} FROM audit_entry WHERE tenant_id = $1 AND chain_position IS NULL ORDER BY at, id LIMIT $2"
    );
    let rows: Vec<Columns> =
        sqlx::query_as(AssertSqlSafe(statement)).bind(tenant.0).bind(i64::from(BATCH)).fetch_all(tx.conn()).await?;
    let entries: Vec<_> = rows.into_iter().map(|row| row.into_entry(tenant)).collect();
    if !entries.is_empty() {
        let last = last(tx).await?;
        let ids: Vec<Uuid> = entries.iter().map(|entry| entry.id).collect();
        place(tx, &ids, &chain(tenant, last, &entries)).await?;
    }
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    if count < BATCH {
        sqlx::query("DELETE FROM route_unsealed WHERE tenant_id = $1 AND id = ANY ($2)")
            .bind(tenant.0)
            .bind(notes)
            .execute(tx.conn())
            .await?;
    }
    Ok(Sealed { count, oldest: entries.iter().map(|entry| entry.at).min() })
}

async fn place(tx: &mut TenantTx, ids: &[Uuid], links: &[Link]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE audit_entry a SET chain_position = p.position, previous_hash = p.previous, entry_hash = p.hash
         FROM unnest($2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[]) AS p (id, position, previous, hash)
         WHERE a.tenant_id = $1 AND a.id = p.id AND a.chain_position IS NULL",
    )
    .bind(tenant)
    .bind(ids)
    .bind(links.iter().map(|link| bound(link.position)).collect::<Vec<_>>())
    .bind(links.iter().map(|link| link.previous.to_vec()).collect::<Vec<_>>())
    .bind(links.iter().map(|link| link.hash.to_vec()).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == ids.len() as u64 {
        Ok(())
    } else {
        // Another sealer was first: it counts as a leader that does not know yet that it is none.
        Err(StoreError::Unreadable { what: "audit_entry.chain_position", reason: "sealed by another hub meanwhile" })
    }
}

/// The place of the tenant's last sealed entry, and its hash.
pub async fn last(tx: &mut TenantTx) -> Result<Option<(u64, Hash)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT chain_position, entry_hash FROM audit_entry
         WHERE tenant_id = $1 AND chain_position IS NOT NULL ORDER BY chain_position DESC LIMIT 1",
    )
    .bind(tenant)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|(position, hash)| (u64::try_from(position).unwrap_or(0), hash_of(&hash))))
}

/// The last head that was signed, and whether its line is outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHead {
    /// The head.
    pub head: Head,
    /// Whether its line is known to be on the disk outside.
    pub published: bool,
}

#[derive(FromRow)]
struct HeadRow {
    number: i64,
    position: i64,
    entry_hash: Vec<u8>,
    signed_at: OffsetDateTime,
    key_id: Uuid,
    signature: Vec<u8>,
    published: bool,
}

/// The tenant's last head.
pub async fn head(tx: &mut TenantTx) -> Result<Option<StoredHead>, StoreError> {
    let tenant = tx.tenant();
    let row: Option<HeadRow> = sqlx::query_as(
        "SELECT number, position, entry_hash, signed_at, key_id, signature, published_at IS NOT NULL AS published
         FROM audit_head WHERE tenant_id = $1",
    )
    .bind(tenant.0)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| StoredHead {
        head: Head {
            tenant,
            number: u64::try_from(row.number).unwrap_or(0),
            position: u64::try_from(row.position).unwrap_or(0),
            hash: hash_of(&row.entry_hash),
            at: row.signed_at,
            key_id: row.key_id,
            signature: row.signature.try_into().unwrap_or([0; 64]),
        },
        published: row.published,
    }))
}

/// Notes a head that was signed. The one before must be outside.
pub async fn put_head(tx: &mut TenantTx, head: &Head) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_head (tenant_id, number, position, entry_hash, signed_at, key_id, signature)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant_id) DO UPDATE SET number = excluded.number, position = excluded.position,
             entry_hash = excluded.entry_hash, signed_at = excluded.signed_at, key_id = excluded.key_id,
             signature = excluded.signature, published_at = NULL
         WHERE audit_head.number < excluded.number AND audit_head.published_at IS NOT NULL",
    )
    .bind(head.tenant.0)
    .bind(bound(head.number))
    .bind(bound(head.position))
    .bind(&head.hash[..])
    .bind(head.at)
    .bind(head.key_id)
    .bind(&head.signature[..])
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that a head's line is on the disk outside.
pub async fn head_published(tx: &mut TenantTx, number: u64, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE audit_head SET published_at = $3 WHERE tenant_id = $1 AND number = $2")
        .bind(tenant)
        .bind(bound(number))
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
