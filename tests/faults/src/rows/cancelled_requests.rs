//! H3: clients that go away in the middle of a request, of every operation. No transaction stays open, no lock is kept, and every
//! place for photographs and comparisons is free again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloud_hub::config::DEFAULTS;
use futures::StreamExt as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

use crate::isolation::{Neighbours, Operation};
use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};

/// The row.
pub(super) static H3: Row = Row {
    id: "H3",
    title: "clients that leave in the middle of any request: no transaction, lock or place is left behind",
    count: 100_000,
    small: 600,
    needs: &[Need::Part("postgres"), Need::Part("models"), Need::Part("demo"), Need::Program("mosquitto", "mosquitto")],
    run: departures,
};

/// Requests under way at once.
const AT_ONCE: usize = 12;
/// A client has left by then; most answers take less, photographs more.
const LONGEST_MS: u64 = 24;
/// Requests of one client: the hub ends a connection on which requests are cut off one after the other.
const A_CLIENT: u64 = 10;
/// Requests for each one that must be cut off: most of the others were answered before their client left.
const MOST_FOR_EACH: u64 = 60;
/// What was under way when the last client left has ended by then.
const SETTLED_AFTER: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

fn departures(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let mut control = Control::default();
    let tally = lab.phase("departures", 1, |_, tally| {
        let neighbours = Neighbours::open()?;
        control = neighbours.block_on(campaign(&neighbours, count, tally))?;
        Ok(())
    })?;
    Ok(Verdict { tally, control })
}

async fn campaign(neighbours: &Neighbours, count: u64, tally: &mut Tally) -> Result<Control> {
    let operations = neighbours.operations().await?;
    let mut database = neighbours.site().database().await?;
    let before = Kept::settled(&mut database, None).await?;
    tally.figure("operations", operations.len());
    leave(neighbours, &operations, count, tally).await?;
    let after = Kept::settled(&mut database, Some(&before)).await?;
    tally.figure("connections", after.connections);
    tally.require(after.open_transactions == 0, || format!("transactions left open: {after:?}"));
    tally.require(after.locks == before.locks, || format!("locks left: {before:?} before, {after:?} after"));
    let places = Places::of_defaults()?;
    for (what, places, body) in places.filled(neighbours) {
        // A model that was at work for whoever left last runs to its end, and holds its place until then; and the connections of
        // those who left count at their address until they are closed.
        let until = Instant::now() + SETTLED_AFTER;
        let (answered, refused) = loop {
            let asked = ask_at_once(neighbours, what, &body, places).await;
            if asked.as_ref().is_ok_and(|asked| *asked == (places, 0)) || Instant::now() >= until {
                break asked?;
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        };
        tally.require(answered == places && refused == 0, || {
            format!("{what}: {answered} of {places} places are left, {refused} were refused")
        });
    }
    controls(neighbours, &mut database, &before, &places).await
}

/// Requests whose clients leave after a while, until so many left before they had their answer.
async fn leave(neighbours: &Neighbours, operations: &[Operation], count: u64, tally: &mut Tally) -> Result<()> {
    let (whose, every) = (&neighbours.other().authorization, operations.len() as u64);
    let hub = neighbours.site().hub()?;
    let mut client = hub.client()?;
    let mut requests = futures::stream::iter(0..count * MOST_FOR_EACH)
        .map(|number| {
            if number % A_CLIENT == 0 {
                client = hub.client().expect("its root was read before");
            }
            let client = client.clone();
            let operation = &operations[(number % every) as usize];
            // Each operation is left at every time in turn; 7 has no divisor in common with the number of times.
            let patience = Duration::from_millis((number / every * 7 + number) % LONGEST_MS);
            async move {
                let request = neighbours.holdings().request(operation, number)?;
                match tokio::time::timeout(patience, neighbours.ask_by(&client, whose, operation, &request)).await {
                    Err(_) => anyhow::Ok(None),
                    Ok(answer) => Ok(Some((operation, answer?))),
                }
            }
        })
        .buffer_unordered(AT_ONCE);
    while tally.injected < count
        && let Some(done) = requests.next().await
    {
        match done? {
            None => tally.injected += 1,
            Some((operation, answer)) => {
                tally.add("answered", 1);
                // A place that was never given back shows as a hub that is always full.
                tally.add("turned_away", u64::from(answer.status == StatusCode::SERVICE_UNAVAILABLE));
                let fault = answer.status.is_server_error() && answer.status != StatusCode::SERVICE_UNAVAILABLE;
                tally.require(!fault, || format!("{}: {} {}", operation.id, answer.status, answer.text));
            }
        }
    }
    ensure!(tally.injected == count, "only {} of {count} clients left before their answer", tally.injected);
    Ok(())
}

/// What the hub's connections keep in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    open_transactions: i64,
    connections: i64,
    /// By kind and mode. The hub that leads keeps one, and some are of whoever looks.
    locks: BTreeMap<String, i64>,
}

impl Kept {
    async fn now(database: &mut PgConnection) -> Result<Self> {
        let (open_transactions, connections) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE state LIKE 'idle in transaction%'), count(*)
             FROM pg_stat_activity WHERE application_name = 'cloud-hub'",
        )
        .fetch_one(&mut *database)
        .await?;
        let locks: Vec<(String, i64)> = sqlx::query_as(
            "SELECT l.locktype || ' ' || l.mode, count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
             WHERE a.application_name = 'cloud-hub' AND l.locktype <> 'virtualxid' GROUP BY 1",
        )
        .fetch_all(database)
        .await?;
        Ok(Self { open_transactions, connections, locks: locks.into_iter().collect() })
    }

    /// The same once it is as it was `before`, or has not become so for long; without that once nothing is under way.
    async fn settled(database: &mut PgConnection, before: Option<&Self>) -> Result<Self> {
        let until = Instant::now() + SETTLED_AFTER;
        loop {
            let now = Self::now(database).await?;
            let still = match before {
                Some(before) => now.open_transactions == 0 && now.locks == before.locks,
                None => now.open_transactions == 0 && now.locks.keys().all(|lock| lock.starts_with("advisory")),
            };
            if still || Instant::now() > until {
                return Ok(now);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// How many requests the hub has room for, as it is installed.
struct Places {
    photographs: usize,
    comparisons: usize,
}

impl Places {
    fn of_defaults() -> Result<Self> {
        let defaults: toml::Table = toml::from_str(DEFAULTS)?;
        let number = |section: &str, key: &str| -> Result<usize> {
            let value = defaults.get(section).and_then(|section| section.get(key)).and_then(toml::Value::as_integer);
            Ok(usize::try_from(value.with_context(|| format!("{section}.{key}"))?)?)
        };
        Ok(Self {
            photographs: number("enrolment", "workers")? + number("enrolment", "queue")?,
            comparisons: number("recognition", "queue")?,
        })
    }

    /// For each kind of place an operation that takes one, how many there are, and what is asked.
    fn filled(&self, neighbours: &Neighbours) -> [(&'static str, usize, Value); 2] {
        let holdings = neighbours.holdings();
        [
            ("/v1/recognition/detect", self.photographs, json!({ "image": STANDARD.encode(holdings.photograph()) })),
            ("/v1/recognition/identify", self.comparisons, json!({ "template": holdings.template() })),
        ]
    }
}

/// So many at once; how many were answered, and how many turned away.
async fn ask_at_once(neighbours: &Neighbours, path: &str, body: &Value, at_once: usize) -> Result<(usize, usize)> {
    let url = format!("{}{path}", neighbours.site().hub()?.ready().https);
    let client = neighbours.site().hub()?.client()?;
    let asked = (0..at_once).map(|_| {
        let request = client.post(&url).header("authorization", &neighbours.other().authorization).json(body);
        async move { anyhow::Ok(request.send().await?.status()) }
    });
    let (mut answered, mut refused) = (0, 0);
    for status in futures::future::join_all(asked).await {
        match status? {
            StatusCode::OK => answered += 1,
            StatusCode::SERVICE_UNAVAILABLE => refused += 1,
            other => ensure!(false, "{path}: {other}"),
        }
    }
    Ok((answered, refused))
}

/// Each kind of what may be left behind, left behind on purpose.
async fn controls(
    neighbours: &Neighbours,
    database: &mut PgConnection,
    before: &Kept,
    places: &Places,
) -> Result<Control> {
    let mut forgetful = PgConnection::connect(&neighbours.site().hub()?.ready().postgres).await?;
    for statement in ["SET application_name = 'cloud-hub'", "BEGIN", "LOCK TABLE person IN ROW EXCLUSIVE MODE"] {
        sqlx::query(statement).execute(&mut forgetful).await?;
    }
    let kept = Kept::now(database).await?;
    sqlx::query("ROLLBACK").execute(&mut forgetful).await?;
    // Twice as many as there is room for: somebody must be turned away, or the question of places asks nothing.
    let photograph = &places.filled(neighbours)[0];
    let (_, refused) = ask_at_once(neighbours, photograph.0, &photograph.2, photograph.1 * 2).await?;
    Ok(Control::of("open_transaction_seen", u64::from(kept.open_transactions > 0))
        .and("lock_seen", u64::from(kept.locks != before.locks))
        .and("full_seen", refused as u64))
}
