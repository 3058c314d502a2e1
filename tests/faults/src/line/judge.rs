//! What devices were promised against what the hub holds: every event once, in its order, with each of its effects once.
//!
//! In: the fleet's history and the hub's tables, read with a connection of our own. Out: [`Judged`]. The same judge is
//! shown doctored tables ([`doctored`]) and must find what is wrong with them.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use fleet_sim::happening::KIND;
use fleet_sim::history::{Place, Told};
use sqlx::{Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use super::Site;
use crate::outcome::Tally;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Events of the fleet at the hub.
    pub rows: u64,
    /// Acknowledged to the one who recorded them, and not at the hub.
    pub lost: u64,
    /// At the hub, and never tried.
    pub phantom: u64,
    /// At the hub under another device, stream or sequence than was promised.
    pub misplaced: u64,
    /// At the hub more than once, or with a second delivery of one webhook.
    pub doubled: u64,
    /// Without the delivery that their transaction owes them.
    pub without_effect: u64,
    /// Steps in the order of a stream that are not by one.
    pub disordered: u64,
    /// Events that the audit counts more or less than there are.
    pub audit_differs: u64,
    /// Streams that the hub took for a clone's.
    pub conflicts: u64,
}

impl Judged {
    /// Adds it to a tally.
    pub fn count_in(&self, tally: &mut Tally, told: &Told) {
        tally.acked += told.acked;
        tally.lost += self.lost + self.without_effect;
        tally.duplicated += self.doubled;
        tally.add("rows", self.rows);
        let wrong = self.phantom + self.misplaced + self.disordered + self.audit_differs + self.conflicts;
        tally.require(wrong == 0, || format!("{self:?}"));
    }
}

/// Judges a site's hub by a history.
pub fn judge(site: &Site, told: &Told) -> Result<Judged> {
    site.block_on(async {
        let mut connection = site.database().await?;
        compare(&mut connection, told).await
    })
}

/// Judges tables in which an event's webhook was queued a second time, another's was lost, and one event is gone: what
/// the judge finds. Nothing of it is kept.
pub fn doctored(site: &Site, told: &Told) -> Result<Judged> {
    site.block_on(async {
        let mut connection = site.database().await?;
        let mut tx = connection.begin().await?;
        for statement in [
            "ALTER TABLE webhook_delivery DROP CONSTRAINT webhook_delivery_pkey",
            "INSERT INTO webhook_delivery (tenant_id, endpoint_id, event_id, position, next_at)
             SELECT tenant_id, endpoint_id, event_id, position, now()
             FROM webhook_delivery ORDER BY position LIMIT 1",
            "DELETE FROM webhook_delivery WHERE position = (SELECT max(position) FROM webhook_delivery)",
            "DELETE FROM webhook_delivery WHERE event_id = (SELECT id FROM event WHERE type LIKE 'lintel.door.%' ORDER BY position OFFSET 1 LIMIT 1)",
            "DELETE FROM event WHERE id = (SELECT id FROM event WHERE type LIKE 'lintel.door.%' ORDER BY position OFFSET 1 LIMIT 1)",
        ] {
            sqlx::query(statement).execute(&mut *tx).await.with_context(|| format!("doctoring: {statement}"))?;
        }
        let found = compare(&mut tx, told).await?;
        tx.rollback().await?;
        Ok(found)
    })
}

async fn compare(connection: &mut PgConnection, told: &Told) -> Result<Judged> {
    let mut judged = Judged::default();
    let mut seen: HashSet<Uuid> = HashSet::new();
    let rows = sqlx::query("SELECT id, device_id, stream, sequence FROM event WHERE type = $1")
        .bind(KIND)
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let id: Uuid = row.get(0);
        let place = Place { device: row.get(1), stream: row.get(2), sequence: u64::try_from(row.get::<i64, _>(3))? };
        judged.rows += 1;
        judged.doubled += u64::from(!seen.insert(id));
        match told.events.get(&id) {
            None => judged.phantom += 1,
            Some(Some(promised)) => judged.misplaced += u64::from(*promised != place),
            Some(None) => {}
        }
    }
    let promised = told.events.iter().filter(|(_, place)| place.is_some());
    judged.lost = promised.filter(|(id, _)| !seen.contains(id)).count() as u64;
    judged.doubled += count(connection, DOUBLED_EFFECTS).await?;
    judged.without_effect = count(connection, MISSING_EFFECTS).await?;
    judged.disordered = count(connection, DISORDER).await?;
    judged.audit_differs = count(connection, AUDIT).await?;
    judged.conflicts = count(connection, "SELECT count(*) FROM stream WHERE conflicted").await?;
    Ok(judged)
}

const DOUBLED_EFFECTS: &str = "
    SELECT count(*) FROM (SELECT FROM webhook_delivery GROUP BY endpoint_id, event_id HAVING count(*) > 1) twice";
const MISSING_EFFECTS: &str = "
    SELECT count(*) FROM event e WHERE e.device_id IS NOT NULL AND NOT EXISTS
        (SELECT FROM webhook_delivery d WHERE d.tenant_id = e.tenant_id AND d.event_id = e.id AND d.position = e.position)";
const DISORDER: &str = "
    SELECT count(*) FROM (
        SELECT sequence - lag(sequence, 1, 0::bigint) OVER (PARTITION BY device_id, stream ORDER BY position) AS step
        FROM event WHERE device_id IS NOT NULL) steps
    WHERE step <> 1";
const AUDIT: &str = "
    SELECT abs((SELECT coalesce(sum((detail->>'count')::bigint), 0) FROM audit_entry WHERE action = 'events.commit')
             - (SELECT count(*) FROM event WHERE device_id IS NOT NULL))::bigint";

async fn count(connection: &mut PgConnection, query: &'static str) -> Result<u64> {
    let found: i64 = sqlx::query_scalar(query).fetch_one(connection).await?;
    Ok(u64::try_from(found)?)
}
