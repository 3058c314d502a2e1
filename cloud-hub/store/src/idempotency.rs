//! What is kept of requests with an `Idempotency-Key`, and the transactions that are bound to them.
//!
//! In: keyed hashes and sealed answers. Out: rows. While a request is carried out within [`BOUND`], each of its transactions that
//! has changed something says so in the key's row before it commits, and does not commit if another attempt is there. What follows
//! from what is kept is `domain::idempotency`'s to say.

use sqlx::FromRow;
use time::OffsetDateTime;
use tokio::task_local;
use uuid::Uuid;

use super::{StoreError, TenantTx};
use hub_domain::idempotency::{Kept, MAX_BYTES, MAX_KEYS};
use hub_domain::ids::{PersonId, TenantId};

/// An attempt to carry out a request with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whose.
    pub tenant: TenantId,
    /// The keyed hash of the key.
    pub key: [u8; 32],
    /// Which attempt.
    pub id: Uuid,
}

task_local! {
    /// The attempt that the present task carries out.
    static BOUND: Attempt;
}

/// Carries out `work` as this attempt: its transactions, of whichever function, are bound to it. Not those of tasks that it begins.
pub async fn bound<T>(attempt: Attempt, work: impl Future<Output = T>) -> T {
    BOUND.scope(attempt, work).await
}

/// The attempt whose transaction this will be.
pub(super) fn attempt_of(tenant: TenantId) -> Option<Attempt> {
    BOUND.try_with(|attempt| *attempt).ok().filter(|attempt| attempt.tenant == tenant)
}

/// To be called before a transaction of an attempt commits. A transaction that has only read may always.
pub(super) async fn note_change(tx: &mut TenantTx, attempt: Attempt) -> Result<(), StoreError> {
    let wrote: bool =
        sqlx::query_scalar("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetch_one(tx.conn()).await?;
    if !wrote {
        return Ok(());
    }
    let noted = sqlx::query(
        "UPDATE idempotency_key SET changed = true WHERE tenant_id = $1 AND key_index = $2 AND attempt = $3",
    )
    .bind(attempt.tenant.0)
    .bind(attempt.key.as_slice())
    .bind(attempt.id)
    .execute(tx.conn())
    .await?;
    if noted.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Superseded) }
}

#[derive(FromRow)]
struct KeptRow {
    request_index: Vec<u8>,
    attempt: Uuid,
    changed: bool,
    held_until: OffsetDateTime,
    expires_at: OffsetDateTime,
    status: Option<i16>,
    answer_sealed: Option<Vec<u8>>,
}

/// Until when an attempt is waited for, and its key is kept.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The attempt.
    pub held_until: OffsetDateTime,
    /// The key.
    pub expires_at: OffsetDateTime,
}

/// The marks of a request under one index key.
#[derive(Clone, Copy, Debug)]
pub struct RequestMarks {
    /// Which index key.
    pub version: u32,
    /// The caller and the key that they sent.
    pub key: [u8; 32],
    /// What was asked.
    pub request: [u8; 32],
}

/// Claims a key for an attempt, under the index key in place `alone`; what is kept of it, locked, if it is there already, under
/// whichever. With it the place of its index key. [`StoreError::QuotaReached`] if the tenant has as many as it may have.
pub async fn claim(
    tx: &mut TenantTx,
    (marks, alone): (&[RequestMarks], usize),
    id: Uuid,
    times: Times,
) -> Result<(usize, Option<Kept>), StoreError> {
    let tenant = tx.tenant_uuid();
    if marks.len() > 1 {
        // Of two hubs one may claim under the key before and the other under the next: they take turns, by the older mark.
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(turn(&marks[0].key)).execute(tx.conn()).await?;
        for (place, mark) in marks.iter().enumerate().filter(|(place, _)| *place != alone) {
            if let Some(row) = kept(tx, &mark.key).await? {
                return Ok((place, Some(row.try_into()?)));
            }
        }
    }
    let mark = &marks[alone];
    loop {
        let claimed = sqlx::query(
            "INSERT INTO idempotency_key (tenant_id, key_index, request_index, attempt, held_until, expires_at, index_version)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        )
        .bind(tenant)
        .bind(mark.key.as_slice())
        .bind(mark.request.as_slice())
        .bind(id)
        .bind(times.held_until)
        .bind(times.expires_at)
        .bind(i64::from(mark.version))
        .execute(tx.conn())
        .await?;
        if claimed.rows_affected() == 1 {
            count_one(tx).await?;
            return Ok((alone, None));
        }
        // It was there, and may have been let go of since: then it is free.
        if let Some(row) = kept(tx, &mark.key).await? {
            return Ok((alone, Some(row.try_into()?)));
        }
    }
}

fn turn(mark: &[u8; 32]) -> i64 {
    i64::from_be_bytes(*mark.first_chunk().expect("a mark has 32 bytes"))
}

async fn kept(tx: &mut TenantTx, key: &[u8; 32]) -> Result<Option<KeptRow>, StoreError> {
    let tenant = tx.tenant_uuid();
    let found = sqlx::query_as(
        "SELECT request_index, attempt, changed, held_until, expires_at, status, answer_sealed
         FROM idempotency_key WHERE tenant_id = $1 AND key_index = $2 FOR UPDATE",
    );
    Ok(found.bind(tenant).bind(key.as_slice()).fetch_optional(tx.conn()).await?)
}

impl TryFrom<KeptRow> for Kept {
    type Error = StoreError;

    fn try_from(row: KeptRow) -> Result<Self, StoreError> {
        Ok(Self {
            request: row.request_index.try_into().map_err(|_| StoreError::Unreadable {
                what: "idempotency_key.request_index",
                reason: "not 32 bytes",
            })?,
            attempt: row.attempt,
            changed: row.changed,
            held_until: row.held_until,
            expires_at: row.expires_at,
            status: row.status.map(i16::unsigned_abs),
            answer: row.answer_sealed,
        })
    }
}

/// One more, if there is room. Its row is locked for as long as a claim takes.
async fn count_one(tx: &mut TenantTx) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let counted = sqlx::query(
        "INSERT INTO idempotency_use AS u (tenant_id, keys, bytes) VALUES ($1, 1, 0)
         ON CONFLICT (tenant_id) DO UPDATE SET keys = u.keys + 1 WHERE u.keys < $2",
    )
    .bind(tenant)
    .bind(i32::try_from(MAX_KEYS).unwrap_or(i32::MAX))
    .execute(tx.conn())
    .await?;
    match counted.rows_affected() {
        1 => Ok(()),
        _ => Err(StoreError::QuotaReached { what: "idempotency keys", quota: MAX_KEYS.into() }),
    }
}

/// Puts an attempt in the place of what [`claim`] has found in this transaction.
pub async fn take_over(
    tx: &mut TenantTx,
    attempt: Attempt,
    request: &[u8; 32],
    times: Times,
) -> Result<(), StoreError> {
    forget_bytes(tx, attempt).await?;
    sqlx::query(
        "UPDATE idempotency_key SET request_index = $3, attempt = $4, changed = false, held_until = $5, expires_at = $6,
                status = NULL, answer_sealed = NULL, about = '{}'
         WHERE tenant_id = $1 AND key_index = $2",
    )
    .bind(attempt.tenant.0)
    .bind(attempt.key.as_slice())
    .bind(request.as_slice())
    .bind(attempt.id)
    .bind(times.held_until)
    .bind(times.expires_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn forget_bytes(tx: &mut TenantTx, attempt: Attempt) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE idempotency_use SET bytes = bytes - coalesce((
             SELECT octet_length(answer_sealed) FROM idempotency_key WHERE tenant_id = $1 AND key_index = $2), 0)
         WHERE tenant_id = $1",
    )
    .bind(attempt.tenant.0)
    .bind(attempt.key.as_slice())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Those of these ids that are people's, and whether they are there. Nobody deletes them before this transaction ends.
pub async fn people_among(tx: &mut TenantTx, ids: &[Uuid]) -> Result<Vec<(PersonId, bool)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let found: Vec<(Uuid, bool)> = sqlx::query_as(
        "SELECT id, state <> 'deleted' FROM person WHERE tenant_id = $1 AND id = ANY($2) ORDER BY id FOR SHARE",
    )
    .bind(tenant)
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    Ok(found.into_iter().map(|(id, there)| (PersonId(id), there)).collect())
}

/// Keeps what came of an attempt; without the answer if there is none, or no room for it.
pub async fn finish(
    tx: &mut TenantTx,
    attempt: Attempt,
    status: u16,
    answer: Option<&[u8]>,
    about: &[Uuid],
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    // The row before the count, as whoever claims does.
    let ours: Option<bool> = sqlx::query_scalar(
        "SELECT true FROM idempotency_key WHERE tenant_id = $1 AND key_index = $2 AND attempt = $3 FOR UPDATE",
    )
    .bind(tenant)
    .bind(attempt.key.as_slice())
    .bind(attempt.id)
    .fetch_optional(tx.conn())
    .await?;
    if ours.is_none() {
        return Err(StoreError::Superseded);
    }
    let mut kept = None;
    if let Some(answer) = answer {
        let room =
            sqlx::query("UPDATE idempotency_use SET bytes = bytes + $2 WHERE tenant_id = $1 AND bytes + $2 <= $3")
                .bind(tenant)
                .bind(i64::try_from(answer.len()).unwrap_or(i64::MAX))
                .bind(i64::try_from(MAX_BYTES).unwrap_or(i64::MAX))
                .execute(tx.conn())
                .await?;
        kept = (room.rows_affected() == 1).then_some(answer);
    }
    sqlx::query(
        "UPDATE idempotency_key SET status = $3, answer_sealed = $4, about = $5 WHERE tenant_id = $1 AND key_index = $2",
    )
    .bind(tenant)
    .bind(attempt.key.as_slice())
    .bind(i16::try_from(status).unwrap_or(i16::MAX))
    .bind(kept)
    .bind(about)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Lets go of a key whose attempt came to nothing. If it has changed something all the same, nobody waits for it any longer; whether
/// it has.
pub async fn release(tx: &mut TenantTx, attempt: Attempt, now: OffsetDateTime) -> Result<bool, StoreError> {
    let (tenant, key) = (tx.tenant_uuid(), attempt.key.as_slice());
    let released = sqlx::query(
        "WITH gone AS (
             DELETE FROM idempotency_key WHERE tenant_id = $1 AND key_index = $2 AND attempt = $3 AND NOT changed RETURNING 1)
         UPDATE idempotency_use SET keys = keys - 1 FROM gone WHERE tenant_id = $1",
    )
    .bind(tenant)
    .bind(key)
    .bind(attempt.id)
    .execute(tx.conn())
    .await?;
    if released.rows_affected() == 1 {
        return Ok(false);
    }
    let changed = sqlx::query(
        "UPDATE idempotency_key SET held_until = $4 WHERE tenant_id = $1 AND key_index = $2 AND attempt = $3",
    )
    .bind(tenant)
    .bind(key)
    .bind(attempt.id)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Removes answers about something that is erased. That it was carried out stays known.
pub(super) async fn forget_answers_about(tx: &mut TenantTx, id: Uuid) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "WITH about AS (
             SELECT key_index, octet_length(answer_sealed) AS bytes FROM idempotency_key
             WHERE tenant_id = $1 AND $2 = ANY(about) AND answer_sealed IS NOT NULL FOR UPDATE),
         emptied AS (
             UPDATE idempotency_key k SET answer_sealed = NULL FROM about
             WHERE k.tenant_id = $1 AND k.key_index = about.key_index)
         UPDATE idempotency_use SET bytes = bytes - (SELECT coalesce(sum(bytes), 0) FROM about) WHERE tenant_id = $1",
    )
    .bind(tenant)
    .bind(id)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Removes keys whose time is over, so many at most; how many they were.
pub async fn remove_ended(tx: &mut TenantTx, now: OffsetDateTime, at_most: u32) -> Result<u64, StoreError> {
    let tenant = tx.tenant_uuid();
    let gone: i64 = sqlx::query_scalar(
        "WITH ended AS (
             SELECT key_index, coalesce(octet_length(answer_sealed), 0) AS bytes FROM idempotency_key
             WHERE tenant_id = $1 AND expires_at <= $2 LIMIT $3 FOR UPDATE SKIP LOCKED),
         gone AS (DELETE FROM idempotency_key k USING ended WHERE k.tenant_id = $1 AND k.key_index = ended.key_index),
         sums AS (SELECT count(*) AS keys, coalesce(sum(bytes), 0) AS bytes FROM ended),
         counted AS (
             UPDATE idempotency_use u SET keys = u.keys - sums.keys, bytes = u.bytes - sums.bytes FROM sums
             WHERE u.tenant_id = $1 AND sums.keys > 0)
         SELECT keys FROM sums",
    )
    .bind(tenant)
    .bind(now)
    .bind(i64::from(at_most))
    .fetch_one(tx.conn())
    .await?;
    Ok(gone.unsigned_abs())
}
