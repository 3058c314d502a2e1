//! The keys of access tokens, sealed, as all hubs share them. No tenant's rows; each function is one statement, which nobody who
//! goes away can leave half-way.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, StoreError, TenantTx};

/// A key.
#[derive(Clone, Debug, FromRow)]
pub struct TokenKey {
    /// Its id, as headers of tokens name it.
    pub id: Uuid,
    /// Its PKCS#8, sealed.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// From when on it signs.
    pub signs_from: OffsetDateTime,
}

/// All keys, in the order in which they sign.
pub async fn all(db: &Database) -> Result<Vec<TokenKey>, StoreError> {
    let found = sqlx::query_as("SELECT id, sealed, created_at, signs_from FROM token_key ORDER BY signs_from, id");
    Ok(found.fetch_all(db.pool()).await?)
}

/// Stores the first key, if there is none. Of two hubs that come at once both may: then both keys are good.
pub async fn begin(db: &Database, key: &TokenKey) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO token_key (id, sealed, created_at, signs_from)
         SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT FROM token_key) ON CONFLICT DO NOTHING",
    )
    .bind(key.id)
    .bind(&key.sealed)
    .bind(key.created_at)
    .bind(key.signs_from)
    .execute(db.pool())
    .await?;
    Ok(())
}

/// Stores another key; with `alone` in the place of all others.
pub async fn add(db: &Database, key: &TokenKey, alone: bool) -> Result<(), StoreError> {
    sqlx::query(
        "WITH gone AS (DELETE FROM token_key WHERE $5)
         INSERT INTO token_key (id, sealed, created_at, signs_from, alone) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(key.id)
    .bind(&key.sealed)
    .bind(key.created_at)
    .bind(key.signs_from)
    .bind(alone)
    .execute(db.pool())
    .await?;
    Ok(())
}

/// Whether what was begun by a token of this key may go on: not if another one took the place of all others, this one among them. A key that
/// is gone because its tokens are over ends nothing.
pub async fn goes_on(tx: &mut TenantTx, id: Uuid) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM token_key WHERE id = $1) OR NOT EXISTS (SELECT FROM token_key WHERE alone)",
    );
    Ok(found.bind(id).fetch_one(tx.conn()).await?)
}

/// Puts another seal of the same key in the place of `before`.
pub async fn replace(db: &Database, id: Uuid, before: &[u8], sealed: &[u8]) -> Result<(), StoreError> {
    sqlx::query("UPDATE token_key SET sealed = $3 WHERE id = $1 AND sealed = $2")
        .bind(id)
        .bind(before)
        .bind(sealed)
        .execute(db.pool())
        .await?;
    Ok(())
}

/// Removes keys for good.
pub async fn remove(db: &Database, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM token_key WHERE id = ANY($1)").bind(ids).execute(db.pool()).await?;
    Ok(())
}
