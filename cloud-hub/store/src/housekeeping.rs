//! Rows whose time is over: finished deliveries, claims and sessions that ended long ago, logs that were collected then.

use time::OffsetDateTime;

use super::{StoreError, TenantTx, template_changes};

/// Rows removed by one statement: so that no lock is held long.
const BATCH: i64 = 1_000;

/// Removes one batch of each kind; returns how many rows in all. Claims keep their routes until they go themselves.
pub async fn tidy(
    tx: &mut TenantTx,
    deliveries_before: OffsetDateTime,
    ended_before: OffsetDateTime,
) -> Result<u64, StoreError> {
    let tenant = tx.tenant_uuid();
    let mut removed = 0;
    for (statement, before) in [
        (
            "DELETE FROM webhook_delivery WHERE tenant_id = $1 AND (endpoint_id, position) IN (
                 SELECT d.endpoint_id, d.position FROM webhook_delivery d JOIN event e ON e.tenant_id = d.tenant_id AND e.id = d.event_id
                 WHERE d.tenant_id = $1 AND d.state <> 'pending' AND e.received_at < $2
                 LIMIT $3 FOR UPDATE OF d SKIP LOCKED)",
            deliveries_before,
        ),
        (
            "DELETE FROM session WHERE tenant_id = $1 AND id IN (
                 SELECT id FROM session WHERE tenant_id = $1 AND expires_at < $2 LIMIT $3 FOR UPDATE SKIP LOCKED)",
            ended_before,
        ),
        (
            "DELETE FROM login WHERE tenant_id = $1 AND id IN (
                 SELECT id FROM login WHERE tenant_id = $1 AND expires_at < $2 LIMIT $3 FOR UPDATE SKIP LOCKED)",
            ended_before,
        ),
        (
            "DELETE FROM login_attempt WHERE tenant_id = $1 AND login_index IN (
                 SELECT login_index FROM login_attempt WHERE tenant_id = $1 AND last_at < $2 LIMIT $3 FOR UPDATE SKIP LOCKED)",
            ended_before,
        ),
        (
            "DELETE FROM device_log WHERE tenant_id = $1 AND command_id IN (
                 SELECT command_id FROM device_log WHERE tenant_id = $1 AND collected_at < $2 LIMIT $3)",
            ended_before,
        ),
        (
            "WITH gone AS (
                 DELETE FROM claim WHERE tenant_id = $1 AND id IN (
                     SELECT id FROM claim WHERE tenant_id = $1 AND expires_at < $2 LIMIT $3 FOR UPDATE SKIP LOCKED)
                 RETURNING id)
             DELETE FROM route USING gone WHERE route.kind = 'claim' AND route.id = gone.id AND route.tenant_id = $1",
            ended_before,
        ),
    ] {
        let done = sqlx::query(statement).bind(tenant).bind(before).bind(BATCH).execute(tx.conn()).await?;
        removed += done.rows_affected();
    }
    template_changes::fold(tx).await?;
    Ok(removed)
}
