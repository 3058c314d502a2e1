//! The hub is killed in the middle of changes of keys, while everybody works: each time it is started again, and goes on by itself.
//!
//! In the middle is not left to chance: rows are held, so that the very statement waits that is wanted, and then the kill comes. The
//! kills of one campaign are these: when rows have been sealed anew in a transaction that is not committed; when copies of tenants' keys
//! outside the database are under the new master key and the rows are not; at any time after that; and when a tenant's old keys are
//! being removed. Whatever was answered to those who work must be there and be read at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::StatusCode;
use serde_json::Value;
use sqlx::{Executor as _, PgConnection};
use tokio::task::JoinHandle;

use super::traffic::{DONE_WITHIN, asked, seal_keys, turn};
use crate::isolation::{Asker, Neighbours, Operation};
use crate::lab::now;
use crate::outcome::Tally;
use crate::rig::random::Random;

/// Changes of the master key, tenants' and people's keys; in each there are as many kills as [`MOMENTS`] and one at any time.
const CAMPAIGNS: u64 = 2;
const AT_ONCE: u64 = 3;
/// Between two requests of one who works: there is one machine, and the hub is to be killed at its other work.
const BREATH: Duration = Duration::from_millis(40);
/// A change waits ten seconds before it seals anew, and a minute before a key goes.
const WAITS_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A statement in the middle of a change, and what holds it up.
struct Moment {
    name: &'static str,
    lock: &'static str,
    statement: &'static str,
}

/// Tenants' keys alone: other secrets in the same table are sealed anew by the same statement, in another change.
const TENANTS_KEYS: &str = "SELECT version FROM tenant_secret WHERE kind = 'tk' FOR UPDATE";

const MOMENTS: [Moment; 3] = [
    Moment {
        name: "rows",
        lock: "LOCK TABLE gallery_snapshot IN EXCLUSIVE MODE",
        statement: "%FROM gallery_snapshot%SKIP LOCKED%",
    },
    Moment { name: "master", lock: TENANTS_KEYS, statement: "UPDATE tenant_secret%" },
    Moment { name: "removal", lock: TENANTS_KEYS, statement: "DELETE FROM tenant_secret%" },
];

/// Changes keys and kills the hub meanwhile.
pub fn under_load(neighbours: &mut Neighbours, tally: &mut Tally) -> Result<()> {
    let work = neighbours.block_on(Work::begin(neighbours))?;
    let mut killed = BTreeMap::new();
    for campaign in 0..CAMPAIGNS {
        one(neighbours, &mut Random::new(campaign), &mut killed, tally)?;
    }
    for (name, kills) in &killed {
        tally.figure(&format!("killed_in_{name}"), *kills);
        tally.injected += kills;
    }
    for moment in &MOMENTS {
        let inside = killed.get(moment.name).copied().unwrap_or_default();
        tally.require(inside > 0, || format!("the hub was never killed in the midst of {}", moment.name));
    }
    neighbours.block_on(work.end(tally))
}

fn one(
    neighbours: &mut Neighbours,
    random: &mut Random,
    killed: &mut BTreeMap<&'static str, u64>,
    tally: &mut Tally,
) -> Result<()> {
    let tenants = [neighbours.site().tenant().id.clone(), neighbours.other().id.clone()];
    let audited = neighbours.block_on(orders_and_ends(neighbours))?;
    let before = neighbours.block_on(async { seal_keys(&mut neighbours.site().database().await?).await })?;
    for tenant in &tenants {
        neighbours.site().hub()?.command(&["keys", "rotate", "tenant", tenant])?;
    }
    // What is under people's keys is looked at, too, and they change at their own pace meanwhile.
    neighbours.site().hub()?.command(&["keys", "rotate", "people"])?;
    let mut kill = |neighbours: &mut Neighbours, name| -> Result<()> {
        *killed.entry(name).or_default() += 1;
        neighbours.site_mut().kill_hub()?;
        neighbours.site_mut().start_hub()?;
        status_is_true(neighbours, tally)
    };
    for moment in &MOMENTS {
        // The master key is changed while tenants' keys are.
        let order: &[&str] = if moment.name == "master" { &["keys", "rotate", "master"] } else { &[] };
        let holder = neighbours.block_on(hold(neighbours, moment, order))?;
        kill(neighbours, if holder.is_some() { moment.name } else { "between" })?;
        drop(holder);
        if moment.name == "master" {
            std::thread::sleep(Duration::from_millis(random.below(4_000)));
            kill(neighbours, "between")?;
        }
    }
    let begun = now();
    loop {
        let after = neighbours.block_on(async { seal_keys(&mut neighbours.site().database().await?).await })?;
        let mut left: BTreeMap<&str, u64> = BTreeMap::new();
        for (place, _) in before.iter().filter(|(_, id)| after.iter().any(|(_, other)| other == id)) {
            *left.entry(place).or_default() += 1;
        }
        let replaced = being_replaced(neighbours)?;
        if left.is_empty() && !neighbours.site().hub_file("keys/master-previous.key").exists() && replaced.is_empty() {
            break;
        }
        ensure!(
            begun.elapsed() < DONE_WITHIN,
            "after kills old keys are still in use in {left:?}; on their way: {replaced:?}"
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    // What was begun once has ended once, however often it was begun again.
    let now_audited = neighbours.block_on(orders_and_ends(neighbours))?;
    let both = (i64::try_from(tenants.len())?, i64::try_from(tenants.len())?);
    let more = (now_audited.0 - audited.0, now_audited.1 - audited.1);
    tally.require(more == both, || format!("changes that were begun and ended, by the audit: {more:?}, not {both:?}"));
    tally.add("changes_with_kills", 1);
    Ok(())
}

/// Holds rows until the statement waits for them; returns what holds them, or nothing if the statement does not come by. They are
/// free when the hub is killed: its Postgres dies with it.
async fn hold(neighbours: &Neighbours, moment: &Moment, order: &[&str]) -> Result<Option<PgConnection>> {
    let mut holder = neighbours.site().database().await?;
    holder.execute("BEGIN").await?;
    holder.execute(moment.lock).await?;
    if !order.is_empty() {
        let answer = neighbours.site().hub()?.command(order);
        answer.context("an order while rows are held")?;
    }
    let begun = now();
    while begun.elapsed() < WAITS_WITHIN {
        // Inside a transaction the activity is read once and kept: without this it would stay as it was at the first look.
        holder.execute("SELECT pg_stat_clear_snapshot()").await?;
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity a
             WHERE pg_backend_pid() = ANY (pg_blocking_pids(a.pid)) AND regexp_replace(a.query, '\\s+', ' ', 'g') LIKE $1",
        )
        .bind(moment.statement)
        .fetch_one(&mut holder)
        .await?;
        if waiting > 0 {
            return Ok(Some(holder));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    holder.execute("ROLLBACK").await?;
    Ok(None)
}

/// Changes of tenants' keys that the audit says were ordered, and those that ended.
async fn orders_and_ends(neighbours: &Neighbours) -> Result<(i64, i64)> {
    let counts = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE action = 'tenant.key_rotate'), count(*) FILTER (WHERE action = 'tenant.key_retire')
         FROM audit_entry",
    );
    Ok(counts.fetch_one(&mut neighbours.site().database().await?).await?)
}

/// What `keys status` says of tenants' keys is what there is, and one of each tenant's seals.
fn status_is_true(neighbours: &Neighbours, tally: &mut Tally) -> Result<()> {
    let versions = || {
        neighbours.block_on(async {
            let all = "SELECT tenant_id::text || ' version ' || version FROM tenant_secret s WHERE kind = 'tk'
                       AND (SELECT count(*) FROM tenant_secret o WHERE o.tenant_id = s.tenant_id AND o.kind = 'tk') > 1";
            let found: Vec<String> =
                sqlx::query_scalar(all).fetch_all(&mut neighbours.site().database().await?).await?;
            anyhow::Ok(found)
        })
    };
    let (before, told, after) = (versions()?, status(neighbours)?, versions()?);
    // What is removed meanwhile may be told or not.
    let is_true = told.keys().all(|key| before.contains(key)) && after.iter().all(|key| told.contains_key(key));
    tally.require(is_true, || format!("of the keys {before:?}, then {after:?}, the status tells {told:?}"));
    let mut sealing: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, state) in &told {
        let tenant = key.split(' ').next().unwrap_or_default();
        *sealing.entry(tenant).or_default() += u64::from(state == "seals");
    }
    tally.require(sealing.values().all(|count| *count == 1), || format!("not one key of each tenant seals: {told:?}"));
    tally.add("status_compared", 1);
    Ok(())
}

/// Tenants' keys that are being replaced, and their states.
fn status(neighbours: &Neighbours) -> Result<BTreeMap<String, String>> {
    Ok(being_replaced(neighbours)?.into_iter().filter(|(key, _)| key.contains(" version ")).collect())
}

/// Keys of tenants and of their people that are being replaced, and their states. Another order of one of them would be none.
fn being_replaced(neighbours: &Neighbours) -> Result<BTreeMap<String, String>> {
    let told = neighbours.site().hub()?.command(&["keys", "status"])?;
    let text = |key: &Value, name: &str| key[name].as_str().unwrap_or_default().to_owned();
    let keys = told["keys"].as_array().context("no keys")?.iter().map(|key| (text(key, "key"), text(key, "state")));
    Ok(keys.filter(|(key, _)| key.contains(" version ") || key.ends_with(" people")).collect())
}

/// Those who work, on the site's own threads: they go on while the hub is killed and started.
struct Work {
    asker: Asker,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Result<Answered>>>,
}

/// What came of requests.
#[derive(Default)]
struct Answered {
    well: u64,
    /// There was no hub, or it was just starting.
    not: u64,
    failed: Vec<String>,
    /// People who were made, by id.
    made: Vec<(String, String)>,
}

impl Work {
    async fn begin(neighbours: &Neighbours) -> Result<Self> {
        let (asker, operations) = (neighbours.asker()?, Arc::new(asked(neighbours).await?));
        let (stop, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1_000_000)));
        let worker = |_| {
            let (asker, operations) = (asker.clone(), Arc::clone(&operations));
            let (stop, number) = (Arc::clone(&stop), Arc::clone(&number));
            tokio::spawn(async move {
                let mut answered = Answered::default();
                while !stop.load(Ordering::Relaxed) {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    answered.one(&asker, turn(&operations, number), number).await;
                    tokio::time::sleep(BREATH).await;
                }
                anyhow::Ok(answered)
            })
        };
        let workers = (0..AT_ONCE).map(worker).collect();
        Ok(Self { asker, stop, workers })
    }

    /// Everything that was answered is there, and is read.
    async fn end(self, tally: &mut Tally) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut people = 0;
        for worker in self.workers {
            let answered = worker.await??;
            tally.acked += answered.well;
            tally.add("answered_between_kills", answered.well);
            tally.add("unanswered_in_kills", answered.not);
            for failure in answered.failed {
                tally.breach(failure);
            }
            for (id, name) in answered.made {
                people += 1;
                let answer = self.asker.get(&format!("/v1/people/{id}")).await?;
                let found: Value = serde_json::from_str(&answer.text).unwrap_or_default();
                tally.lost += u64::from(answer.status == StatusCode::NOT_FOUND);
                tally.require(found["name"] == name.as_str(), || {
                    format!("{name}, made between kills: {} {}", answer.status, answer.text)
                });
            }
        }
        tally.figure("people_made_between_kills", people);
        tally.require(people > 0, || "nobody was made between kills".to_owned());
        Ok(())
    }
}

impl Answered {
    async fn one(&mut self, asker: &Asker, operation: &Operation, number: u64) {
        let Ok(answer) = asker.ask(operation, number).await else {
            self.not += 1;
            return;
        };
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            self.not += 1;
        } else if !answer.status.is_success() {
            self.failed.push(format!("between kills {}: {} {}", operation.id, answer.status, answer.text));
        } else {
            self.well += 1;
            if operation.id == "create_person" {
                let made: Value = serde_json::from_str(&answer.text).unwrap_or_default();
                let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
                self.made.push((text("id"), text("name")));
            }
        }
    }
}
