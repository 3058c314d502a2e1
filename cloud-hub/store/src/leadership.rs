//! Which of several hubs on one database does what only one may do at a time.
//!
//! An advisory lock of Postgres, held by a session of its own: it is free again when that session ends, however its hub did. What takes
//! a moment and every hub does in its turn, the broker's lists, has one that ends with its transaction.
//! Deliberately absent: fencing. A leader whose session was cut goes on for the moment until it notices; what it does then
//! must be harmless when another does it too.

use sqlx::postgres::{PgConnection, Postgres};
use sqlx::{Connection as _, Transaction};

use super::{Database, StoreError};

/// One lock for each database; any number that nobody else uses there.
const LOCK: i64 = 0x6c69_6e74_656c_0001;
/// That of whoever seals the audit, which needs no broker and so may be another hub.
const SEALER_LOCK: i64 = 0x6c69_6e74_656c_0002;

/// That of whoever writes the broker's lists.
const LISTS_LOCK: i64 = 0x6c69_6e74_656c_0003;
/// Writing them takes milliseconds: a hub that stands still in the middle of it keeps nobody from revoking a device for longer.
const LISTS_HELD_FOR: &str = "SET LOCAL idle_in_transaction_session_timeout = '4s'";

/// While it is there no other hub writes the broker's lists.
#[derive(Debug)]
pub struct ListsTurn {
    _until_dropped: Transaction<'static, Postgres>,
}

/// A session that may come to lead, or leads.
#[derive(Debug)]
pub struct Candidate {
    connection: PgConnection,
}

impl Database {
    /// Opens a session for the lock, beside the pool.
    pub async fn candidate(&self) -> Result<Candidate, StoreError> {
        let options = self.pool().connect_options();
        Ok(Candidate { connection: PgConnection::connect_with(&options).await? })
    }

    /// Waits for this hub's turn to write the broker's lists. Whoever has it reads what they are made of, so that a list never takes the
    /// place of a newer one.
    pub async fn lists_turn(&self) -> Result<ListsTurn, StoreError> {
        let mut tx = self.pool().begin().await?;
        sqlx::query(LISTS_HELD_FOR).execute(&mut *tx).await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LISTS_LOCK).execute(&mut *tx).await?;
        Ok(ListsTurn { _until_dropped: tx })
    }
}

impl Candidate {
    /// Whether this session leads from now on. Asked once more, it would hold the lock twice, which is harmless.
    pub async fn try_to_lead(&mut self) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK);
        Ok(query.fetch_one(&mut self.connection).await?)
    }

    /// Whether this session seals the audit from now on.
    pub async fn try_to_seal(&mut self) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(SEALER_LOCK);
        Ok(query.fetch_one(&mut self.connection).await?)
    }

    /// The session itself: what it answers proves that its locks are still held.
    pub(super) fn session(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// An error when the session is gone, and the lock with it.
    pub async fn still_there(&mut self) -> Result<(), StoreError> {
        Ok(self.connection.ping().await?)
    }
}
