//! The end of a tenant in the database: marked, emptied in batches, and the one row that stays.
//!
//! Which tables there are and in which order they can be emptied comes from the catalogue, so that a table of tomorrow cannot be
//! forgotten. The application may not remove history; a function of the schema's owner does it, for a tenant that is marked and
//! for no other (migration 0024). Every batch is a transaction that counts what it removed, so that a job may be killed anywhere.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, FromRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, TenantTx, routes};
use crate::devices;
use hub_domain::erasure::{Erased, LastHead, Receipt, Reference, order};
use hub_domain::ids::{ConsumerId, DeviceId};

/// What stays when all else is gone.
const RECEIPT: &str = "erased_tenant";
/// What goes only after the last head of the audit was noted: until then the sealer works on it.
const AUDIT: [&str; 3] = ["audit_entry", "audit_head", "route_unsealed"];
/// What goes with the tenant's own row: by it the sealer, the job and the verifier find the tenant.
const LAST: [&str; 3] = ["route_due", "route", "tenant"];

/// What is left when nothing but the audit is.
pub const STAYS_FOR_THE_AUDIT: [&str; 6] =
    ["audit_entry", "audit_head", "route_unsealed", "route_due", "route", "tenant"];

/// Everybody outside the database who has to hear of it.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Devices that could speak to the broker.
    pub devices: Vec<DeviceId>,
    /// Consumers that could read at it.
    pub consumers: Vec<ConsumerId>,
}

/// Marks the tenant of the transaction and ends whatever opens something: its keys, API keys, devices, claims and consumers.
/// The caller has its row locked. Done once more, it ends nothing more.
pub async fn begin(tx: &mut TenantTx, now: OffsetDateTime) -> Result<Ended, StoreError> {
    let tenant = tx.tenant_uuid();
    let mut ended = Ended::default();
    let known: Vec<(Uuid, bool)> = sqlx::query_as(
        "SELECT id, state = 'claimed' FROM device WHERE tenant_id = $1 AND state <> 'revoked' ORDER BY id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    for (id, claimed) in known {
        devices::revoke(tx, DeviceId(id)).await?;
        ended.devices.extend(claimed.then_some(DeviceId(id)));
    }
    let consumers: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE consumer SET password_hash = NULL, removed_at = $2 WHERE tenant_id = $1 AND removed_at IS NULL
         RETURNING id",
    )
    .bind(tenant)
    .bind(now)
    .fetch_all(tx.conn())
    .await?;
    ended.consumers = consumers.into_iter().map(ConsumerId).collect();
    for statement in [
        "UPDATE tenant SET deleting_since = $2 WHERE tenant_id = $1 AND deleting_since IS NULL",
        "INSERT INTO erased_tenant (tenant_id, began_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        "UPDATE api_key SET revoked_at = $2 WHERE tenant_id = $1 AND (revoked_at IS NULL OR revoked_at > $2)",
    ] {
        sqlx::query(statement).bind(tenant).bind(now).execute(tx.conn()).await?;
    }
    for statement in [
        "DELETE FROM tenant_secret WHERE tenant_id = $1",
        "UPDATE route SET active = false WHERE tenant_id = $1",
        // No delivery is attempted any more, and no other job has anything to do.
        "DELETE FROM route_due WHERE tenant_id = $1 AND kind <> 'deletion'",
    ] {
        sqlx::query(statement).bind(tenant).execute(tx.conn()).await?;
    }
    routes::set_due(tx, routes::Job::Deletion, now).await?;
    Ok(ended)
}

/// Since when the tenant of the transaction is being deleted.
pub async fn deleting_since(tx: &mut TenantTx) -> Result<Option<OffsetDateTime>, StoreError> {
    let tenant = tx.tenant_uuid();
    let found: Option<Option<OffsetDateTime>> =
        sqlx::query_scalar("SELECT deleting_since FROM tenant WHERE tenant_id = $1")
            .bind(tenant)
            .fetch_optional(tx.conn())
            .await?;
    Ok(found.flatten())
}

/// The tables that may have rows of a tenant, each before those it refers to; without the one that stays.
pub async fn tables(tx: &mut TenantTx) -> Result<Vec<String>, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
         WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname <> $1",
    )
    .bind(RECEIPT)
    .fetch_all(tx.conn())
    .await?;
    let keys: Vec<(String, String)> = sqlx::query_as(
        "SELECT f.relname::text, t.relname::text FROM pg_constraint k
         JOIN pg_class f ON f.oid = k.conrelid JOIN pg_class t ON t.oid = k.confrelid
         JOIN pg_namespace n ON n.oid = f.relnamespace
         WHERE n.nspname = 'public' AND k.contype = 'f'",
    )
    .fetch_all(tx.conn())
    .await?;
    let references: Vec<_> = keys.into_iter().map(|(from, to)| Reference { from, to }).collect();
    order(names.into_iter().collect::<BTreeSet<_>>(), &references)
        .ok_or(StoreError::Unreadable { what: "catalogue", reason: "tables refer to one another in a circle" })
}

/// How many rows of the tenant each table has, in the order in which they would go; tables without any are left out.
pub async fn count(tx: &mut TenantTx) -> Result<Vec<(String, u64)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let mut counts = Vec::new();
    for table in tables(tx).await? {
        // A name from the catalogue, of a table of ours: nothing to escape.
        let statement = format!("SELECT count(*) FROM \"{table}\" WHERE tenant_id = $1");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(statement)).bind(tenant).fetch_one(tx.conn()).await?;
        if rows > 0 {
            counts.push((table, rows.unsigned_abs()));
        }
    }
    Ok(counts)
}

/// Removes up to `at_most` rows of the first table from number `from` on that has some and may go now; returns its number and how
/// many. `None`: from there on nothing may go any more.
pub async fn remove_some(tx: &mut TenantTx, from: usize, at_most: u32) -> Result<Option<(usize, u64)>, StoreError> {
    let closed = standing(tx).await?.is_some_and(|standing| standing.closed);
    for (number, table) in tables(tx).await?.iter().enumerate().skip(from) {
        if LAST.contains(&table.as_str()) || (!closed && AUDIT.contains(&table.as_str())) {
            continue;
        }
        let removed = remove(tx, table, at_most).await?;
        if removed > 0 {
            return Ok(Some((number, removed)));
        }
    }
    Ok(None)
}

async fn remove(tx: &mut TenantTx, table: &str, at_most: u32) -> Result<u64, StoreError> {
    let tenant = tx.tenant_uuid();
    let removed: i64 = sqlx::query_scalar("SELECT remove_rows_of_deleted_tenant($1, $2)")
        .bind(table)
        .bind(i32::try_from(at_most).unwrap_or(i32::MAX))
        .fetch_one(tx.conn())
        .await?;
    if removed > 0 {
        sqlx::query(
            "UPDATE erased_tenant
             SET removed = removed || jsonb_build_object($2::text, coalesce((removed->>$2)::bigint, 0) + $3)
             WHERE tenant_id = $1",
        )
        .bind(tenant)
        .bind(table)
        .bind(removed)
        .execute(tx.conn())
        .await?;
    }
    Ok(removed.unsigned_abs())
}

/// Notes person keys that were destroyed.
pub async fn keys_destroyed(tx: &mut TenantTx, count: u64) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE erased_tenant SET person_keys = person_keys + $2 WHERE tenant_id = $1 AND finished_at IS NULL")
        .bind(tenant)
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Keeps everybody from adding what refers to the tenant, to the end of the transaction, and waits for those who are at it.
pub async fn lock(tx: &mut TenantTx) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("SELECT FROM tenant WHERE tenant_id = $1 FOR UPDATE").bind(tenant).execute(tx.conn()).await?;
    Ok(())
}

/// Waits for whoever holds [`lock`], and then tells whether the audit may still have heads.
pub async fn takes_heads(tx: &mut TenantTx) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("SELECT FROM tenant WHERE tenant_id = $1 FOR KEY SHARE").bind(tenant).execute(tx.conn()).await?;
    Ok(standing(tx).await?.is_none_or(|standing| !standing.closed))
}

/// Notes how far the audit went. From here on its entries may go.
pub async fn close_audit(tx: &mut TenantTx, head: Option<LastHead>, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE erased_tenant SET closed_at = $2, head_number = $3, head_position = $4, head_hash = $5
         WHERE tenant_id = $1 AND closed_at IS NULL",
    )
    .bind(tenant)
    .bind(now)
    .bind(head.map(|head| bound(head.number)))
    .bind(head.map(|head| bound(head.position)))
    .bind(head.map(|head| head.hash.to_vec()))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whether nothing is left but what goes with the tenant's own row. The caller is the only one to remove, not to add.
pub async fn is_empty(tx: &mut TenantTx) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    for table in tables(tx).await?.iter().filter(|table| !LAST.contains(&table.as_str())) {
        let statement = format!("SELECT EXISTS (SELECT FROM \"{table}\" WHERE tenant_id = $1)");
        let found: bool = sqlx::query_scalar(AssertSqlSafe(statement)).bind(tenant).fetch_one(tx.conn()).await?;
        if found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the tenant itself; whatever was added meanwhile makes it fail, and is removed in the next batch. Returns what is to
/// be said of it, for the receipt.
pub async fn remove_tenant(tx: &mut TenantTx, now: OffsetDateTime) -> Result<Option<Erased>, StoreError> {
    let mut removed = 0;
    for table in LAST {
        removed = remove(tx, table, u32::MAX).await?;
    }
    if removed == 0 {
        return Ok(None);
    }
    let found = row(tx).await?.ok_or(StoreError::Unreadable { what: RECEIPT, reason: "missing" })?;
    found.erased(tx, now).map(Some)
}

/// Keeps the receipt.
pub async fn keep(tx: &mut TenantTx, receipt: &Receipt) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE erased_tenant SET finished_at = $2, key_id = $3, signature = $4 WHERE tenant_id = $1")
        .bind(tenant)
        .bind(receipt.erased.finished_at)
        .bind(receipt.key_id)
        .bind(&receipt.signature[..])
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// How far the end of a tenant is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When it began.
    pub began_at: OffsetDateTime,
    /// Whether the last head of the audit is noted, so that its entries go, or are gone.
    pub closed: bool,
    /// That head.
    pub head: Option<LastHead>,
    /// The receipt, once nothing is left.
    pub receipt: Option<Receipt>,
}

/// How far the end of the transaction's tenant is; `None` if it has not begun.
pub async fn standing(tx: &mut TenantTx) -> Result<Option<Standing>, StoreError> {
    let Some(row) = row(tx).await? else { return Ok(None) };
    let receipt = match (row.finished_at, row.key_id, &row.signature) {
        (Some(finished_at), Some(key_id), Some(signature)) => {
            // Of another length it is none that fits.
            let signature = signature.as_slice().try_into().unwrap_or([0; 64]);
            Some(Receipt { erased: row.erased(tx, finished_at)?, key_id, signature })
        }
        _ => None,
    };
    Ok(Some(Standing { began_at: row.began_at, closed: row.closed, head: row.head(), receipt }))
}

#[derive(FromRow)]
struct Row {
    began_at: OffsetDateTime,
    person_keys: i64,
    removed: Value,
    head_number: Option<i64>,
    head_position: Option<i64>,
    head_hash: Option<Vec<u8>>,
    closed: bool,
    finished_at: Option<OffsetDateTime>,
    key_id: Option<Uuid>,
    signature: Option<Vec<u8>>,
}

async fn row(tx: &mut TenantTx) -> Result<Option<Row>, StoreError> {
    let tenant = tx.tenant_uuid();
    Ok(sqlx::query_as(
        "SELECT began_at, person_keys, removed, head_number, head_position, head_hash, closed_at IS NOT NULL AS closed,
             finished_at, key_id, signature
         FROM erased_tenant WHERE tenant_id = $1",
    )
    .bind(tenant)
    .fetch_optional(tx.conn())
    .await?)
}

impl Row {
    fn head(&self) -> Option<LastHead> {
        let hash = self.head_hash.as_ref()?.as_slice().try_into().unwrap_or([0; 32]);
        let (number, position) = (self.head_number?.unsigned_abs(), self.head_position?.unsigned_abs());
        Some(LastHead { number, position, hash })
    }

    fn erased(&self, tx: &TenantTx, finished_at: OffsetDateTime) -> Result<Erased, StoreError> {
        let unreadable = || StoreError::Unreadable { what: "erased_tenant.removed", reason: "not counts" };
        let counts: &Map<String, Value> = self.removed.as_object().ok_or_else(unreadable)?;
        let counts = counts.iter().map(|(table, rows)| Some((table.clone(), rows.as_u64()?)));
        Ok(Erased {
            tenant: tx.tenant(),
            began_at: self.began_at,
            finished_at,
            person_keys: self.person_keys.unsigned_abs(),
            removed: counts.collect::<Option<BTreeMap<_, _>>>().ok_or_else(unreadable)?,
            head: self.head(),
        })
    }
}

fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
