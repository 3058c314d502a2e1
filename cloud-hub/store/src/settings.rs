//! Versions of the settings that are changed while the hubs run. No tenant's rows; each function is one statement.

use sqlx::FromRow;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::{Database, StoreError};
use hub_domain::settings::Changes;

/// A version.
#[derive(Clone, Debug, FromRow)]
pub struct Version {
    /// Its number, from 1 without gaps.
    pub version: i32,
    /// What lies over the file.
    #[sqlx(json)]
    pub changes: Changes,
    /// Who made it.
    pub actor: String,
    /// Why, if they said so.
    pub comment: String,
    /// When.
    pub created_at: OffsetDateTime,
}

const COLUMNS: &str = "SELECT version, changes, actor, comment, created_at FROM hub_settings";

/// The newest, if there is one.
pub async fn newest(db: &Database) -> Result<Option<Version>, StoreError> {
    let found = sqlx::query_as(sqlx::AssertSqlSafe(format!("{COLUMNS} ORDER BY version DESC LIMIT 1")));
    Ok(found.fetch_optional(db.pool()).await?)
}

/// The one of this number.
pub async fn get(db: &Database, version: i32) -> Result<Option<Version>, StoreError> {
    let found = sqlx::query_as(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE version = $1"))).bind(version);
    Ok(found.fetch_optional(db.pool()).await?)
}

/// The newest ones before this one, or of all, newest first.
pub async fn history(db: &Database, before: Option<i32>, at_most: u32) -> Result<Vec<Version>, StoreError> {
    let found = format!("{COLUMNS} WHERE ($1::integer IS NULL OR version < $1) ORDER BY version DESC LIMIT $2");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(found)).bind(before).bind(i64::from(at_most));
    Ok(found.fetch_all(db.pool()).await?)
}

/// Adds a version; whether it was the next one. If not, somebody else was first.
pub async fn add(db: &Database, version: &Version) -> Result<bool, StoreError> {
    let added = sqlx::query(
        "INSERT INTO hub_settings (version, changes, actor, comment, created_at)
         SELECT $1, $2, $3, $4, $5 WHERE $1 = (SELECT coalesce(max(version), 0) + 1 FROM hub_settings)
         ON CONFLICT DO NOTHING",
    )
    .bind(version.version)
    .bind(Json(&version.changes))
    .bind(&version.actor)
    .bind(&version.comment)
    .bind(version.created_at)
    .execute(db.pool())
    .await?;
    Ok(added.rows_affected() == 1)
}
