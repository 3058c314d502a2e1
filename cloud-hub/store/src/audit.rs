//! Audit entries, written in the transaction of what they tell of.
//!
//! The chain columns stay empty here: one sealer fills them within a second of commit ([`sealing`]), so that no
//! business transaction waits for the chain. [`reading`] is for those who look at them.

pub mod reading;
pub mod sealing;

use serde_json::Value;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use super::{Database, StoreError, TenantTx};
pub use hub_domain::audit::action::Action;
use hub_domain::ids::TenantId;

/// Who did what to which thing.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// `api_key:<id>`, `user:<id>`, `device:<id>`, `platform:<id>`, `operator` or `hub`.
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
    let statement = "INSERT INTO audit_entry (tenant_id, id, actor, action, object_kind, object_id, detail)
         SELECT $1, e.* FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::jsonb[]) AS e";
    bound(statement, tx.tenant(), entries).execute(tx.conn()).await?;
    Ok(())
}

/// Writes entries that tell of nothing in the database: they are a transaction of their own, of one round trip.
pub async fn write_alone(db: &Database, tenant: TenantId, entries: &[Entry<'_>]) -> Result<(), StoreError> {
    let statement = "INSERT INTO audit_entry (tenant_id, id, actor, action, object_kind, object_id, detail)
         SELECT $1, e.* FROM (SELECT set_config('lintel.tenant', $1::text, true)) AS first,
              unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::jsonb[]) AS e";
    db.run_alone(bound(statement, tenant, entries)).await
}

fn bound(statement: &'static str, tenant: TenantId, entries: &[Entry<'_>]) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(statement)
        .bind(tenant.0)
        .bind(entries.iter().map(|_| Uuid::new_v4()).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.actor.to_owned()).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.object_kind).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.object_id).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.detail.clone()).collect::<Vec<_>>())
}
