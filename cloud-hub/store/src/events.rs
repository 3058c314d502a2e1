//! The tenant's feed: events in the order of commit, and what follows from them in the same transaction.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::FromRow;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::database::EVENT_CHANNEL;
use super::{StoreError, TenantTx, routes};
use hub_domain::cursor::Cursor;
use hub_domain::event::{FeedEvent, NewEvent, class_of};
use hub_domain::ids::{DeviceId, EventId};

/// Appends events to the feed, queues a delivery per event and endpoint, and announces them at commit.
/// Returns the position of the last one.
///
/// Locks the tenant's feed counter until the transaction ends: positions follow the order of commit. Whatever else a
/// transaction locks (a stream, galleries) it must have locked before, so that no two wait for each other.
pub async fn append(tx: &mut TenantTx, events: &[NewEvent], now: OffsetDateTime) -> Result<Cursor, StoreError> {
    let count = i64::try_from(events.len()).map_err(|_| TOO_MANY)?;
    let bytes: usize = events.iter().map(|event| event.body.len()).sum();
    let last = reserve(tx, count, i64::try_from(bytes).map_err(|_| TOO_MANY)?).await?;
    if !events.is_empty() {
        if insert(tx, events, last - count, now).await? > 0 {
            routes::set_due(tx, routes::Job::Webhook, now).await?;
        }
        let tenant = tx.tenant_uuid();
        sqlx::query("SELECT pg_notify($1, $2)").bind(EVENT_CHANNEL).bind(tenant.to_string()).execute(tx.conn()).await?;
    }
    cursor(last)
}

const TOO_MANY: StoreError = StoreError::Unreadable { what: "event.position", reason: "out of range" };

fn cursor(position: i64) -> Result<Cursor, StoreError> {
    u64::try_from(position).map(Cursor).map_err(|_| TOO_MANY)
}

fn bound(cursor: Cursor) -> i64 {
    i64::try_from(cursor.0).unwrap_or(i64::MAX)
}

async fn reserve(tx: &mut TenantTx, count: i64, bytes: i64) -> Result<i64, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement =
        "UPDATE feed_counter SET position = position + $2, bytes = bytes + $3 WHERE tenant_id = $1 RETURNING position";
    let last = sqlx::query_scalar(statement).bind(tenant).bind(count).bind(bytes).fetch_optional(tx.conn()).await?;
    last.ok_or(StoreError::NotFound { what: "tenant", id: tenant })
}

/// Events and their deliveries in one statement, whatever their number: what was written is not read again. Returns how many
/// deliveries there are.
const INSERT: &str = "
    WITH new AS (
        INSERT INTO event (tenant_id, id, position, type, class, device_id, stream, sequence, occurred_at, received_at, body)
        SELECT $1, e.id, $2 + e.n, e.type, e.class, e.device_id, e.stream, e.sequence, e.occurred_at, $3, e.body::json
        FROM unnest($4::uuid[], $5::text[], $6::text[], $7::uuid[], $8::text[], $9::bigint[], $10::timestamptz[], $11::text[])
             WITH ORDINALITY AS e (id, type, class, device_id, stream, sequence, occurred_at, body, n)
        RETURNING id, position, class)
    INSERT INTO webhook_delivery (tenant_id, endpoint_id, position, event_id, next_at)
    SELECT $1, w.id, new.position, new.id, $3
    FROM new JOIN webhook_endpoint w ON w.tenant_id = $1
    WHERE w.deleted_at IS NULL AND (w.classes IS NULL OR new.class = ANY (w.classes))";

async fn insert(tx: &mut TenantTx, events: &[NewEvent], before: i64, now: OffsetDateTime) -> Result<u64, StoreError> {
    let tenant = tx.tenant_uuid();
    let sequences = events
        .iter()
        .map(|event| event.origin.as_ref().map(|origin| i64::try_from(origin.sequence)).transpose())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| StoreError::Unreadable { what: "event.sequence", reason: "above 2^63" })?;
    let done = sqlx::query(INSERT)
        .bind(tenant)
        .bind(before)
        .bind(now)
        .bind(events.iter().map(|event| event.id.0).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| class_of(&event.kind).as_str()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.origin.as_ref().map(|origin| origin.device.0)).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.origin.as_ref().map(|origin| &*origin.stream)).collect::<Vec<_>>())
        .bind(sequences)
        .bind(events.iter().map(|event| event.occurred_at).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.body.as_str()).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected())
}

/// The ids stored for a stream's sequences in `first..=last`.
pub async fn stored_ids(
    tx: &mut TenantTx,
    device: DeviceId,
    stream: &str,
    first: u64,
    last: u64,
) -> Result<HashMap<u64, Uuid>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(i64, Uuid)> = sqlx::query_as(
        "SELECT sequence, id FROM event
         WHERE tenant_id = $1 AND device_id = $2 AND stream = $3 AND sequence BETWEEN $4 AND $5",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(stream)
    .bind(i64::try_from(first).unwrap_or(i64::MAX))
    .bind(i64::try_from(last).unwrap_or(i64::MAX))
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|(sequence, id)| u64::try_from(sequence).ok().map(|sequence| (sequence, id)))
        .collect())
}

/// Which of these event ids the tenant has already: an id that comes under another identity is a clone's work too.
pub async fn known_ids(tx: &mut TenantTx, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    let tenant = tx.tenant_uuid();
    Ok(sqlx::query_scalar("SELECT id FROM event WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tenant)
        .bind(ids)
        .fetch_all(tx.conn())
        .await?)
}

/// Keeps what a clone sent. Repeats are kept once.
pub async fn quarantine(
    tx: &mut TenantTx,
    device: DeviceId,
    stream: &str,
    events: &[(u64, Uuid, Value)],
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO event_quarantine (tenant_id, id, device_id, stream, sequence, event_id, body)
         SELECT $1, gen_random_uuid(), $2, $3, e.sequence, e.id, e.body
         FROM unnest($4::bigint[], $5::uuid[], $6::jsonb[]) AS e (sequence, id, body)
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(device.0)
    .bind(stream)
    .bind(events.iter().map(|event| i64::try_from(event.0).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.1).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.2.clone()).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct EventRow {
    position: i64,
    id: Uuid,
    device_id: Option<Uuid>,
    class: String,
    body: Json<Box<RawValue>>,
}

impl EventRow {
    fn into_event(self) -> Result<FeedEvent, StoreError> {
        Ok(FeedEvent {
            position: cursor(self.position)?.0,
            id: EventId(self.id),
            device: self.device_id.map(DeviceId),
            class: self.class,
            body: self.body.0,
        })
    }
}

/// Of each class the next events by its index, and of those the first: the work is bounded by classes and limit, however
/// rare a class is.
const PAGE_OF_CLASSES: &str = "
    SELECT e.position, e.id, e.device_id, e.class, e.body
    FROM (SELECT DISTINCT class FROM unnest($3::text[]) AS wanted (class)) w
    CROSS JOIN LATERAL (
        SELECT position, id, device_id, class, body FROM event
        WHERE tenant_id = $1 AND class = w.class AND position > $2 ORDER BY position LIMIT $4) e
    ORDER BY e.position LIMIT $4";

const PAGE_OF_ALL: &str = "
    SELECT position, id, device_id, class, body FROM event
    WHERE tenant_id = $1 AND position > $2 AND $3::text[] IS NULL ORDER BY position LIMIT $4";

/// Up to `limit` events after `after`, in the order of the feed; of these classes only, if any are given.
pub async fn page(
    tx: &mut TenantTx,
    after: Cursor,
    limit: u32,
    classes: Option<&[String]>,
) -> Result<Vec<FeedEvent>, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = if classes.is_some() { PAGE_OF_CLASSES } else { PAGE_OF_ALL };
    let rows: Vec<EventRow> = sqlx::query_as(statement)
        .bind(tenant)
        .bind(bound(after))
        .bind(classes)
        .bind(i64::from(limit))
        .fetch_all(tx.conn())
        .await?;
    rows.into_iter().map(EventRow::into_event).collect()
}

/// The position of the newest event.
pub async fn head(tx: &mut TenantTx) -> Result<Cursor, StoreError> {
    let tenant = tx.tenant_uuid();
    let position: Option<i64> = sqlx::query_scalar("SELECT position FROM feed_counter WHERE tenant_id = $1")
        .bind(tenant)
        .fetch_optional(tx.conn())
        .await?;
    cursor(position.unwrap_or(0))
}

/// How far a named reader of the feed has come.
pub async fn reader(tx: &mut TenantTx, name: &'static str) -> Result<Cursor, StoreError> {
    let tenant = tx.tenant_uuid();
    let position: Option<i64> =
        sqlx::query_scalar("SELECT position FROM feed_cursor WHERE tenant_id = $1 AND name = $2")
            .bind(tenant)
            .bind(name)
            .fetch_optional(tx.conn())
            .await?;
    cursor(position.unwrap_or(0))
}

/// Moves a named reader forward, never back.
pub async fn advance_reader(tx: &mut TenantTx, name: &'static str, to: Cursor) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO feed_cursor (tenant_id, name, position) VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id, name) DO UPDATE SET position = greatest(feed_cursor.position, excluded.position)",
    )
    .bind(tenant)
    .bind(name)
    .bind(bound(to))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whether there is a reader of this name.
pub async fn has_reader(tx: &mut TenantTx, name: &'static str) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM feed_cursor WHERE tenant_id = $1 AND name = $2)");
    Ok(found.bind(tenant).bind(name).fetch_one(tx.conn()).await?)
}

/// Forgets a named reader.
pub async fn forget_reader(tx: &mut TenantTx, name: &'static str) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("DELETE FROM feed_cursor WHERE tenant_id = $1 AND name = $2")
        .bind(tenant)
        .bind(name)
        .execute(tx.conn())
        .await?;
    Ok(())
}
