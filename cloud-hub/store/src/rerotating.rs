//! Searchable vectors that are rotated by a seed which is to go.
//!
//! In: a space and the version of its newest seed. Out: the templates of such vectors, these locked, a batch at a time; what another hub
//! is working on is left to it. Deliberately absent: how a vector is written (`templates`), and when which step may be taken
//! (`keys::seed_rotation`).

use super::templates::{Template, TemplateRow};
use super::{StoreError, TenantTx};
use hub_domain::ids::TemplateId;

/// The templates of some vectors of a space that are rotated by another seed than the newest.
pub async fn some(tx: &mut TenantTx, space_id: &str, newest: u32, at_most: u32) -> Result<Vec<Template>, StoreError> {
    let rows: Vec<TemplateRow> = sqlx::query_as(
        "SELECT t.id, t.person_id, t.space_id, t.model_version, t.quality, t.revision, t.sealed, t.created_at
         FROM template_vector v JOIN template t ON t.tenant_id = v.tenant_id AND t.id = v.template_id
         WHERE v.tenant_id = $1 AND v.space_id = $2 AND v.seed_version <> $3
         ORDER BY v.template_id LIMIT $4 FOR UPDATE OF v SKIP LOCKED",
    )
    .bind(tx.tenant_uuid())
    .bind(space_id)
    .bind(i64::from(newest))
    .bind(i64::from(at_most))
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Template::try_from).collect()
}

/// Removes the vector of a template that cannot be opened. It is made again when the person's key is back.
pub async fn forget(tx: &mut TenantTx, template: TemplateId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM template_vector WHERE tenant_id = $1 AND template_id = $2")
        .bind(tx.tenant_uuid())
        .bind(template.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// How many vectors of a space are rotated by another seed than the newest, locked or not.
pub async fn left(tx: &mut TenantTx, space_id: &str, newest: u32) -> Result<u64, StoreError> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM template_vector WHERE tenant_id = $1 AND space_id = $2 AND seed_version <> $3",
    )
    .bind(tx.tenant_uuid())
    .bind(space_id)
    .bind(i64::from(newest))
    .fetch_one(tx.conn())
    .await?;
    Ok(count.unsigned_abs())
}
