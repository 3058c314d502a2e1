//! The database's own mark: a number that grows while a hub runs, so that an older copy of the database can be told.
//!
//! No tenant's row. What it is compared with lies outside (`keys::restored`).

use super::devices::epoch;
use super::{Database, StoreError, TenantTx};

/// What the database has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The mark.
    pub mark: u64,
    /// The highest epoch that any gallery was raised to; 0 where none ever was since this is counted.
    pub gallery_epoch: u32,
}

/// The mark.
pub async fn read(db: &Database) -> Result<u64, StoreError> {
    let mark: i64 = sqlx::query_scalar("SELECT mark FROM hub_mark").fetch_one(db.pool()).await?;
    u64::try_from(mark).map_err(|_| StoreError::Unreadable { what: "hub_mark.mark", reason: "negative" })
}

/// Makes the mark at least `least`, and higher than it was, and the highest epoch of galleries at least `gallery_epoch`.
pub async fn advance(db: &Database, least: u64, gallery_epoch: u32) -> Result<Mark, StoreError> {
    let (mark, reached): (i64, i64) = sqlx::query_as(
        "UPDATE hub_mark SET mark = greatest(mark + 1, $1), gallery_epoch = greatest(gallery_epoch, $2)
         RETURNING mark, gallery_epoch",
    )
    .bind(i64::try_from(least).unwrap_or(i64::MAX))
    .bind(i64::from(gallery_epoch))
    .fetch_one(db.pool())
    .await?;
    let mark = u64::try_from(mark).map_err(|_| StoreError::Unreadable { what: "hub_mark.mark", reason: "negative" })?;
    Ok(Mark { mark, gallery_epoch: epoch("hub_mark.gallery_epoch", reached)? })
}

/// Notes, with the transaction that raises a gallery, how high it goes. Whoever lets the mark grow waits for it.
pub async fn gallery_epoch_reached(tx: &mut TenantTx, to: u32) -> Result<(), StoreError> {
    sqlx::query("UPDATE hub_mark SET gallery_epoch = greatest(gallery_epoch, $1)")
        .bind(i64::from(to))
        .execute(tx.conn())
        .await?;
    Ok(())
}
