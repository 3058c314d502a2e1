//! Audit entries, written in the transaction of what they tell of.
//!
//! The chain columns stay empty here: one sealer per tenant fills them within a second of commit, so that no
//! business transaction waits for the chain.

use serde_json::Value;
use uuid::Uuid;

use super::{StoreError, TenantTx};

/// Who did what to which thing.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// `api_key:<id>`, `device:<id>`, `operator` or `hub`.
    pub actor: &'a str,
    /// `person.create`, `device.claim`, ...
    pub action: &'static str,
    /// `person`, `device`, ...
    pub object_kind: &'static str,
    /// Which one.
    pub object_id: Option<Uuid>,
    /// What else matters. Never names, addresses, keys or pictures.
    pub detail: Value,
}

/// Writes one entry.
pub async fn write(tx: &mut TenantTx, entry: Entry<'_>) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO audit_entry (tenant_id, id, actor, action, object_kind, object_id, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(tenant)
    .bind(Uuid::new_v4())
    .bind(entry.actor)
    .bind(entry.action)
    .bind(entry.object_kind)
    .bind(entry.object_id)
    .bind(entry.detail)
    .execute(tx.conn())
    .await?;
    Ok(())
}
