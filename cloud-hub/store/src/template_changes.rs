//! How often a tenant's templates and anchors have changed: what an index in memory is compared with.

use sqlx::Row as _;

use super::{Database, StoreError, TenantTx};
use hub_domain::ids::TenantId;

/// From so many rows on they are folded into one.
const FOLD_FROM: i64 = 64;

/// How many changes there have been. It grows with every commit that changes a template or an anchor, and with nothing else:
/// equal stamps are equal templates.
pub async fn stamp(tx: &mut TenantTx) -> Result<i64, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = "SELECT coalesce(sum(changes), 0)::bigint FROM template_change WHERE tenant_id = $1";
    Ok(sqlx::query_scalar(statement).bind(tenant).fetch_one(tx.conn()).await?)
}

/// The same together with the tenant's false accept rate.
pub async fn stamp_with_far(db: &Database, tenant: TenantId) -> Result<(i64, String), StoreError> {
    let statement = "SELECT (SELECT coalesce(sum(changes), 0)::bigint FROM template_change WHERE tenant_id = tenant.tenant_id), match_far
         FROM tenant WHERE tenant_id = current_setting('lintel.tenant')::uuid";
    let row = db.read_row(tenant, statement).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Makes one row of many; the sum stays. Rows that a change folds at this moment are left to it: nobody waits for anybody.
pub async fn fold(tx: &mut TenantTx) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "WITH gone AS (
             DELETE FROM template_change WHERE tenant_id = $1 AND id IN (
                 SELECT id FROM template_change
                 WHERE tenant_id = $1 AND (SELECT count(*) FROM template_change WHERE tenant_id = $1) >= $2
                 FOR UPDATE SKIP LOCKED)
             RETURNING changes)
         INSERT INTO template_change (tenant_id, changes) SELECT $1, sum(changes) FROM gone HAVING count(*) > 0",
    )
    .bind(tenant)
    .bind(FOLD_FROM)
    .execute(tx.conn())
    .await?;
    Ok(())
}
