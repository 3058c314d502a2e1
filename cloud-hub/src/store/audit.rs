//! Audit entries, written in the transaction of what they tell of.
//!
//! The chain columns stay empty here: one sealer fills them within a second of commit ([`sealing`]), so that no
//! business transaction waits for the chain. [`reading`] is for those who look at them.

pub mod reading;
pub mod sealing;

use serde_json::Value;
use uuid::Uuid;

use super::{StoreError, TenantTx};
pub use crate::domain::audit::action::Action;

/// Who did what to which thing.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// `api_key:<id>`, `device:<id>`, `operator` or `hub`.
    pub actor: &'a str,
    /// What was done.
    pub action: Action,
    /// `person`, `device`, ...
    pub object_kind: &'static str,
    /// Which one.
    pub object_id: Option<Uuid>,
    /// What else matters. Never names, addresses, keys or pictures.
    pub detail: Value,
}

/// Writes one entry.
pub async fn write(tx: &mut TenantTx, entry: Entry<'_>) -> Result<(), StoreError> {
    write_all(tx, &[entry]).await
}

/// Writes entries.
pub async fn write_all(tx: &mut TenantTx, entries: &[Entry<'_>]) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO audit_entry (tenant_id, id, actor, action, object_kind, object_id, detail)
         SELECT $1, e.* FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::jsonb[]) AS e",
    )
    .bind(tenant)
    .bind(entries.iter().map(|_| Uuid::new_v4()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.actor).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.object_kind).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.object_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| &entry.detail).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}
