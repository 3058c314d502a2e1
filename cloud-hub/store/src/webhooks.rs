//! Webhook endpoints and their deliveries. Deliveries are written by [`super::events::append`].

use serde_json::Value;
use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{StoreError, TenantTx, routes};
use hub_domain::ids::{DeviceId, EndpointId, EventId};

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Where deliveries go.
    pub url: String,
    /// Which classes it wants; `None` is all.
    pub classes: Option<Vec<String>>,
    /// Its signing secret, sealed under the tenant key.
    pub secret_sealed: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// Which delivery: there is one for each event and endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryKey {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The event's place in the tenant's feed.
    pub position: i64,
}

impl std::fmt::Display for DeliveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.endpoint, self.position)
    }
}

/// One delivery, leased to whoever attempts it now.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Which one it is.
    pub id: DeliveryKey,
    /// Where it goes.
    pub url: String,
    /// The endpoint's signing secret, sealed under the tenant key.
    pub secret_sealed: Vec<u8>,
    /// The event, and the `webhook-id`.
    pub event: EventId,
    /// The device that the event came from, by the registry; `None` for the hub's own.
    pub device: Option<DeviceId>,
    /// The whole CloudEvents JSON, of which the body to send is made.
    pub body: Value,
    /// How many attempts there have been, this one included.
    pub attempts: u32,
}

/// Writes an endpoint.
pub async fn create(
    tx: &mut TenantTx,
    id: EndpointId,
    url: &str,
    classes: Option<&[String]>,
    secret_sealed: &[u8],
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO webhook_endpoint (tenant_id, id, url, classes, secret_sealed) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(url)
    .bind(classes)
    .bind(secret_sealed)
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct EndpointRow {
    id: Uuid,
    url: String,
    classes: Option<Vec<String>>,
    secret_sealed: Vec<u8>,
    created_at: OffsetDateTime,
}

/// The endpoints that are not deleted, oldest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Endpoint>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<EndpointRow> = sqlx::query_as(
        "SELECT id, url, classes, secret_sealed, created_at FROM webhook_endpoint
         WHERE tenant_id = $1 AND deleted_at IS NULL ORDER BY id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Endpoint {
            id: EndpointId(row.id),
            url: row.url,
            classes: row.classes,
            secret_sealed: row.secret_sealed,
            created_at: row.created_at,
        })
        .collect())
}

/// Ends an endpoint and gives up what was still on its way to it.
pub async fn delete(tx: &mut TenantTx, id: EndpointId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE webhook_endpoint SET deleted_at = $3 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(now)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Err(StoreError::NotFound { what: "webhook", id: id.0 });
    }
    sqlx::query(
        "UPDATE webhook_delivery SET state = 'failed', next_at = NULL, last_error = 'endpoint deleted'
         WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 'pending'",
    )
    .bind(tenant)
    .bind(id.0)
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct DeliveryRow {
    position: i64,
    endpoint_id: Uuid,
    url: String,
    secret_sealed: Vec<u8>,
    event_id: Uuid,
    device_id: Option<Uuid>,
    body: Value,
    attempts: i32,
}

/// Leases up to `at_most` due deliveries, up to `per_endpoint` of each endpoint, those that are due the longest (of a commit: in feed
/// order): nobody else gets them until `lease` is over, so that a crash in the middle of an attempt costs that time and no delivery.
/// Counts the attempt.
///
/// The limit per endpoint is there so that one that hangs cannot hold up the others; endpoints in `busy`, which the caller
/// is still serving, get nothing. Endpoints take turns, from the one after `last` on.
pub async fn lease_due(
    tx: &mut TenantTx,
    now: OffsetDateTime,
    lease: Duration,
    (at_most, per_endpoint): (u32, u32),
    (busy, last): (&[EndpointId], Option<EndpointId>),
) -> Result<Vec<Delivery>, StoreError> {
    let tenant = tx.tenant_uuid();
    let mut rows: Vec<DeliveryRow> = Vec::new();
    let endpoints: Vec<Uuid> = sqlx::query_scalar(
        "SELECT w.id FROM webhook_endpoint w
         WHERE w.tenant_id = $1 AND w.deleted_at IS NULL AND w.id <> ALL ($2) AND EXISTS (
             SELECT 1 FROM webhook_delivery
             WHERE tenant_id = $1 AND endpoint_id = w.id AND state = 'pending' AND next_at <= $3)
         ORDER BY coalesce(w.id <= $4, false), w.id",
    )
    .bind(tenant)
    .bind(busy.iter().map(|id| id.0).collect::<Vec<_>>())
    .bind(now)
    .bind(last.map(|id| id.0))
    .fetch_all(tx.conn())
    .await?;
    // What another hub is leasing at this moment is passed over, so that more may be looked at than there is room for.
    for endpoint in endpoints {
        let room = at_most.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        if room == 0 {
            break;
        }
        let leased: Vec<DeliveryRow> = sqlx::query_as(
            "WITH due AS (
                 SELECT position FROM webhook_delivery
                 WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 'pending' AND next_at <= $3
                 ORDER BY next_at, position LIMIT $5 FOR UPDATE SKIP LOCKED)
             UPDATE webhook_delivery d SET attempts = d.attempts + 1, next_at = $4
             FROM due, webhook_endpoint w, event e
             WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.position = due.position
               AND w.tenant_id = $1 AND w.id = d.endpoint_id AND e.tenant_id = $1 AND e.id = d.event_id
             RETURNING d.position, d.endpoint_id, w.url, w.secret_sealed, d.event_id, e.device_id, e.body,
                       d.attempts",
        )
        .bind(tenant)
        .bind(endpoint)
        .bind(now)
        .bind(now + lease)
        .bind(i64::from(per_endpoint.min(room)))
        .fetch_all(tx.conn())
        .await?;
        rows.extend(leased);
    }
    rows.sort_by_key(|row| row.position);
    Ok(rows.into_iter().map(Delivery::from).collect())
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: DeliveryKey { endpoint: EndpointId(row.endpoint_id), position: row.position },
            url: row.url,
            secret_sealed: row.secret_sealed,
            event: EventId(row.event_id),
            device: row.device_id.map(DeviceId),
            body: row.body,
            attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
        }
    }
}

/// The receiver took it.
pub async fn delivered(tx: &mut TenantTx, id: DeliveryKey, status: u16, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE webhook_delivery
         SET state = 'delivered', next_at = NULL, last_status = $4, last_error = NULL, delivered_at = $5
         WHERE tenant_id = $1 AND endpoint_id = $2 AND position = $3",
    )
    .bind(tenant)
    .bind(id.endpoint.0)
    .bind(id.position)
    .bind(i32::from(status))
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The attempt of this number failed: tried again at `next_at`, or given up if that is `None`; nothing if there has been another since.
/// `error` is one of the notifier's own words, never what the receiver answered.
pub async fn failed(
    tx: &mut TenantTx,
    id: DeliveryKey,
    attempts: u32,
    (status, error): (Option<u16>, &str),
    next_at: Option<OffsetDateTime>,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "UPDATE webhook_delivery
         SET state = CASE WHEN $6::timestamptz IS NULL THEN 'failed' ELSE 'pending' END,
             next_at = $6, last_status = $4, last_error = $5
         WHERE tenant_id = $1 AND endpoint_id = $2 AND position = $3 AND state = 'pending' AND attempts = $7",
    )
    .bind(tenant)
    .bind(id.endpoint.0)
    .bind(id.position)
    .bind(status.map(i32::from))
    .bind(error)
    .bind(next_at)
    .bind(i32::try_from(attempts).unwrap_or(i32::MAX))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// One look into the index for each endpoint, however long their queues are.
const NEXT_DUE: &str = "
    SELECT min(first.next_at) FROM webhook_endpoint w CROSS JOIN LATERAL (
        SELECT next_at FROM webhook_delivery
        WHERE tenant_id = $1 AND endpoint_id = w.id AND state = 'pending' ORDER BY next_at LIMIT 1) first
    WHERE w.tenant_id = $1 AND w.deleted_at IS NULL";

/// Notes in the routing table when this tenant's next delivery is due. Call it last in a transaction that leased.
///
/// The note is locked before the deliveries are read: a transaction that queues a delivery at the same moment
/// either is seen here or lowers the note afterwards.
pub async fn reschedule(tx: &mut TenantTx) -> Result<Option<OffsetDateTime>, StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("SELECT FROM route_due WHERE kind = 'webhook' AND tenant_id = $1 FOR UPDATE")
        .bind(tenant)
        .execute(tx.conn())
        .await?;
    let next: Option<OffsetDateTime> = sqlx::query_scalar(NEXT_DUE).bind(tenant).fetch_one(tx.conn()).await?;
    routes::replace_due(tx, routes::Job::Webhook, next).await?;
    Ok(next)
}
