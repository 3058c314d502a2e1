//! Looking at the hub's tables with a connection of our own, as an auditor would.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};
use tokio::time::Instant;

/// One row of the table `event`.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// CloudEvents id.
    pub id: String,
    /// CloudEvents type, such as `lintel.access.granted.v1`.
    pub kind: String,
    /// The event's data.
    pub data: Value,
    /// When it happened, by the sender's wall clock, in milliseconds since 1970.
    pub occurred_ms: f64,
}

impl EventRow {
    /// The reason code of an access event.
    pub fn reason(&self) -> &str {
        self.data.pointer("/reason/code").and_then(Value::as_str).unwrap_or_default()
    }

    /// A number inside the data, by JSON pointer.
    pub fn number(&self, pointer: &str) -> Option<f64> {
        self.data.pointer(pointer).and_then(Value::as_f64)
    }
}

/// A connection to the embedded Postgres that sees every row.
pub struct Rows {
    connection: PgConnection,
}

impl Rows {
    /// Connects with the URL that the hub printed.
    pub async fn connect(url: &str) -> Result<Self> {
        let connection = PgConnection::connect(url).await.context("the hub's Postgres")?;
        Ok(Self { connection })
    }

    /// The newest position in the feed; 0 when there is none.
    pub async fn position(&mut self) -> Result<i64> {
        let row = sqlx::query("SELECT coalesce(max(position), 0) FROM event").fetch_one(&mut self.connection).await?;
        Ok(row.get(0))
    }

    /// All events behind `position`, in feed order.
    pub async fn events_after(&mut self, position: i64) -> Result<Vec<EventRow>> {
        let rows = sqlx::query(
            "SELECT id::text, type, body->'data', (extract(epoch FROM occurred_at) * 1000)::float8 \
             FROM event WHERE position > $1 ORDER BY position",
        )
        .bind(position)
        .fetch_all(&mut self.connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| EventRow { id: row.get(0), kind: row.get(1), data: row.get(2), occurred_ms: row.get(3) })
            .collect())
    }

    /// Waits for an event behind `position` that fits.
    pub async fn wait_for(
        &mut self,
        what: &str,
        position: i64,
        patience: Duration,
        fits: impl Fn(&EventRow) -> bool,
    ) -> Result<EventRow> {
        let until = Instant::now() + patience;
        loop {
            let rows = self.events_after(position).await?;
            if let Some(row) = rows.iter().find(|row| fits(row)) {
                return Ok(row.clone());
            }
            if Instant::now() > until {
                let seen: Vec<String> = rows.iter().map(|row| format!("{} {}", row.kind, row.reason())).collect();
                bail!("no row for {what} within {patience:?}; rows since then: {seen:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The ids of all events that one device's streams hold.
    pub async fn event_ids(&mut self) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT id::text FROM event").fetch_all(&mut self.connection).await?;
        Ok(rows.into_iter().map(|row| row.get(0)).collect())
    }

    /// The ids of events that a device sent (the hub's own events have no stream).
    pub async fn device_event_ids(&mut self) -> Result<BTreeSet<String>> {
        let rows = sqlx::query("SELECT id::text FROM event WHERE device_id IS NOT NULL")
            .fetch_all(&mut self.connection)
            .await?;
        Ok(rows.into_iter().map(|row| row.get(0)).collect())
    }

    /// Locks the event table, so that the hub's next ingest stays inside its transaction, and waits until one does.
    ///
    /// The lock goes with this connection.
    pub async fn hold_ingest_open(&mut self) -> Result<()> {
        sqlx::query("BEGIN").execute(&mut self.connection).await?;
        sqlx::query("LOCK TABLE event IN EXCLUSIVE MODE").execute(&mut self.connection).await?;
        Ok(())
    }

    /// Whether some backend waits inside a transaction for the lock that this connection holds.
    pub async fn ingest_is_waiting(&mut self) -> Result<bool> {
        // Inside a transaction the activity is read once and kept: without this it would stay as it was at the first look.
        sqlx::query("SELECT pg_stat_clear_snapshot()").execute(&mut self.connection).await?;
        let row = sqlx::query(
            "SELECT count(*) FROM pg_stat_activity a WHERE pg_backend_pid() = ANY (pg_blocking_pids(a.pid)) AND a.xact_start IS NOT NULL",
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok(row.get::<i64, _>(0) > 0)
    }
}
