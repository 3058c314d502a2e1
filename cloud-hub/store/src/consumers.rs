//! Consumers: programs that read a tenant's feed at the broker, by the broker's hashes of their passwords.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, TenantTx, routes};
use hub_domain::ids::ConsumerId;

/// A consumer that was not removed.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its id; the user name is made of it.
    pub id: ConsumerId,
    /// What its owner called it.
    pub name: String,
    /// The broker's hash of its password.
    pub password_hash: String,
    /// Whether it is a Home Assistant, which reads more than the feed.
    pub home_assistant: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last got another password.
    pub rotated_at: Option<OffsetDateTime>,
}

/// A consumer to be made.
#[derive(Clone, Debug)]
pub struct NewConsumer {
    /// Its id.
    pub id: ConsumerId,
    /// What its owner calls it.
    pub name: String,
    /// The broker's hash of its password.
    pub password_hash: String,
    /// Whether it is a Home Assistant.
    pub home_assistant: bool,
}

#[derive(FromRow)]
struct ConsumerRow {
    id: Uuid,
    name: String,
    password_hash: String,
    home_assistant: bool,
    created_at: OffsetDateTime,
    rotated_at: Option<OffsetDateTime>,
}

impl From<ConsumerRow> for Consumer {
    fn from(row: ConsumerRow) -> Self {
        Self {
            id: ConsumerId(row.id),
            name: row.name,
            password_hash: row.password_hash,
            home_assistant: row.home_assistant,
            created_at: row.created_at,
            rotated_at: row.rotated_at,
        }
    }
}

/// Writes a new consumer.
pub async fn create(tx: &mut TenantTx, new: &NewConsumer) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO consumer (tenant_id, id, name, password_hash, home_assistant) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(tenant)
    .bind(new.id.0)
    .bind(&new.name)
    .bind(&new.password_hash)
    .bind(new.home_assistant)
    .execute(tx.conn())
    .await?;
    routes::add(tx, "consumer", new.id.0).await
}

/// The consumers that were not removed, oldest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Consumer>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<ConsumerRow> = sqlx::query_as(
        "SELECT id, name, password_hash, home_assistant, created_at, rotated_at FROM consumer
         WHERE tenant_id = $1 AND removed_at IS NULL ORDER BY id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Consumer::from).collect())
}

/// One that was not removed.
pub async fn get(tx: &mut TenantTx, id: ConsumerId) -> Result<Consumer, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: Option<ConsumerRow> = sqlx::query_as(
        "SELECT id, name, password_hash, home_assistant, created_at, rotated_at FROM consumer
         WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL",
    )
    .bind(tenant)
    .bind(id.0)
    .fetch_optional(tx.conn())
    .await?;
    row.map(Consumer::from).ok_or_else(|| absent(id))
}

/// Replaces the password.
pub async fn rotate(tx: &mut TenantTx, id: ConsumerId, hash: &str, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE consumer SET password_hash = $3, rotated_at = $4
         WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(hash)
    .bind(now)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 { Err(absent(id)) } else { Ok(()) }
}

/// Removes one for good, its hash with it.
pub async fn remove(tx: &mut TenantTx, id: ConsumerId, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE consumer SET password_hash = NULL, removed_at = $3
         WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(now)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Err(absent(id));
    }
    routes::deactivate(tx, "consumer", id.0).await
}

fn absent(id: ConsumerId) -> StoreError {
    StoreError::NotFound { what: "consumer", id: id.0 }
}
