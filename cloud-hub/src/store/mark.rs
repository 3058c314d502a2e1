//! The database's own mark: a number that grows while a hub runs, so that an older copy of the database can be told.
//!
//! No tenant's row. What it is compared with lies outside (`keys::restored`).

use super::{Database, StoreError};

/// The mark.
pub async fn read(db: &Database) -> Result<u64, StoreError> {
    let mark: i64 = sqlx::query_scalar("SELECT mark FROM hub_mark").fetch_one(db.pool()).await?;
    u64::try_from(mark).map_err(|_| StoreError::Unreadable { what: "hub_mark.mark", reason: "negative" })
}

/// Makes the mark at least `least`, and higher than it was; returns it.
pub async fn advance(db: &Database, least: u64) -> Result<u64, StoreError> {
    let mark: i64 = sqlx::query_scalar("UPDATE hub_mark SET mark = greatest(mark + 1, $1) RETURNING mark")
        .bind(i64::try_from(least).unwrap_or(i64::MAX))
        .fetch_one(db.pool())
        .await?;
    u64::try_from(mark).map_err(|_| StoreError::Unreadable { what: "hub_mark.mark", reason: "negative" })
}
