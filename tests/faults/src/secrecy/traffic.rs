//! Keys that are replaced while everybody works: people are enrolled, verified and looked for, users log in, a device sends its
//! events. Nothing may fail because of it, and the old keys must not be needed afterwards. In the long run the hub is killed in the
//! middle of further changes ([`kills`]).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use super::kills;
use crate::isolation::{Neighbours, Operation};
use crate::lab::now;
use crate::line::people::Somebody;
use crate::line::{Crowd, judge};
use crate::outcome::Tally;

/// What is asked meanwhile: everything that opens or makes a seal and can be asked any number of times.
const ASKED: [&str; 17] = [
    "create_enrolment",
    "create_person",
    "create_site",
    "create_user",
    "create_webhook",
    "get_person",
    "identify_faces",
    "list_negative_anchors",
    "list_people",
    "list_users",
    "open_authentication_session",
    "open_enrolment_session",
    "search_faces",
    "update_person",
    "verify_person",
    "get_user",
    "list_webhooks",
];
const AT_ONCE: u64 = 3;
/// A site takes in everybody, and everybody's templates: made each time it would be its turn, records would grow with the square of
/// what is asked, and all the rest would wait for them.
const SITE_EVERY: u64 = 20;
const RATE: f64 = 20.0;
const PASSWORD: &str = "correct horse battery";
/// One in so many requests is a log-in: an address may log in once a second.
const LOG_IN_EVERY: u64 = 9;
/// A key is gone a minute after it was replaced; the machine may be busy.
pub(super) const DONE_WITHIN: Duration = Duration::from_secs(400);
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// Before and after the change.
const UNTOUCHED: Duration = Duration::from_secs(3);
/// Longer than any hub believes what it read of keys.
const BELIEVED: Duration = Duration::from_secs(3);

/// Replaces every key that can be replaced, under traffic.
pub fn rotate_under(neighbours: &mut Neighbours, people: &[Somebody], is_long: bool, tally: &mut Tally) -> Result<()> {
    let mut crowd = Crowd::start(neighbours.site(), RATE)?;
    neighbours.block_on(rotation(neighbours, people, tally))?;
    if is_long {
        kills::under_load(neighbours, tally)?;
    }
    crowd.hold()?;
    tally.require(crowd.until_drained(DRAIN_WITHIN)?.is_some(), || "not every event was acknowledged".to_owned());
    let told = crowd.end(neighbours.site())?;
    tally.require(told.acked > 0, || "no event was sent".to_owned());
    judge::judge(neighbours.site(), &told)?.count_in(tally, &told);
    // Everything is read from the disk again: no key of before is in any memory.
    neighbours.site_mut().kill_hub()?;
    neighbours.site_mut().start_hub()?;
    neighbours.block_on(async {
        let (operations, login) = (asked(neighbours).await?, log_in_of(neighbours));
        for (number, operation) in operations.iter().enumerate() {
            let failed = one(neighbours, operation, 900_000 + number as u64).await?;
            tally.require(failed.is_none(), || format!("after a restart: {failed:?}"));
        }
        let failed = log_in(neighbours, &login).await?;
        tally.require(failed.is_none(), || format!("after a restart: {failed:?}"));
        anyhow::Ok(())
    })
}

async fn rotation(neighbours: &Neighbours, people: &[Somebody], tally: &mut Tally) -> Result<()> {
    let (operations, login) = (asked(neighbours).await?, log_in_of(neighbours));
    make_user(neighbours, &login).await?;
    for (number, operation) in operations.iter().enumerate() {
        let failed = one(neighbours, operation, number as u64).await?;
        ensure!(failed.is_none(), "before anything is replaced: {failed:?}");
    }
    let (number, stop) = (AtomicU64::new(1_000), AtomicBool::new(false));
    let work = async {
        let mut failed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let number = number.fetch_add(1, Ordering::Relaxed);
            let operation = turn(&operations, number);
            failed.extend(match number.is_multiple_of(LOG_IN_EVERY) {
                true => log_in(neighbours, &login).await?,
                false => one(neighbours, operation, number).await?,
            });
        }
        anyhow::Ok(failed)
    };
    let more = || async {
        let mut failed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let number = number.fetch_add(1, Ordering::Relaxed);
            let operation = turn(&operations, number);
            failed.extend(one(neighbours, operation, number).await?);
        }
        anyhow::Ok(failed)
    };
    let workers = futures::future::try_join_all((1..AT_ONCE).map(|_| more()));
    let change = async {
        let changed = replace_all(neighbours, people).await;
        stop.store(true, Ordering::Relaxed);
        changed
    };
    let (one, more, seconds) = tokio::try_join!(work, workers, change)?;
    let failed: Vec<String> = one.into_iter().chain(more.into_iter().flatten()).collect();
    tally.injected += 12;
    tally.figure("rotation_seconds", seconds);
    tally.figure("requests_meanwhile", number.load(Ordering::Relaxed) - 1_000);
    tally.figure("requests_failed", failed.len());
    for failure in failed {
        tally.breach(failure);
    }
    Ok(())
}

/// Replaces the keys of both tenants and of their people, their index keys, seeds and galleries' keys, the master key, the key of access tokens, the pepper, the authorities and the signing key; returns how long it took.
async fn replace_all(neighbours: &Neighbours, people: &[Somebody]) -> Result<u64> {
    let (site, hub) = (neighbours.site(), neighbours.site().hub()?);
    tokio::time::sleep(UNTOUCHED).await;
    let mut database = site.database().await?;
    let old = seal_keys(&mut database).await?;
    let begun = now();
    for tenant in [site.tenant(), neighbours.other()] {
        hub.command(&["keys", "rotate", "tenant", &tenant.id])?;
    }
    hub.command(&["keys", "rotate", "master"])?;
    hub.command(&["keys", "rotate-jwt"])?;
    hub.command(&["keys", "rotate", "blind-index"])?;
    hub.command(&["keys", "rotate", "seeds"])?;
    hub.command(&["keys", "rotate", "people"])?;
    hub.command(&["keys", "rotate", "authorities"])?;
    hub.command(&["keys", "rotate", "galleries"])?;
    hub.command(&["keys", "rotate", "pepper"])?;
    // Twice, for a device that has heard of neither.
    hub.command(&["keys", "rotate", "signing"])?;
    hub.command(&["keys", "rotate", "signing"])?;
    for (number, somebody) in people.iter().enumerate() {
        let name = &somebody.probe.name;
        hub.enrol(site.tenant(), &format!("{name}-{number}"), name, vec![somebody.photograph.clone()]).await?;
    }
    loop {
        let told = hub.command(&["keys", "status"])?;
        // The hub's keys alone are left: no tenant's is being replaced, and no master key is kept for a while.
        let waits = told["keys"].as_array().context("no keys")?.iter().any(|key| {
            let name = key["key"].as_str().unwrap_or_default();
            // Index keys may be kept for a day: for requests with a key of their own.
            name == "master-previous.key"
                || name.contains(" version ")
                || name.contains(" seed ")
                || name.ends_with(" people")
        });
        if !waits {
            break;
        }
        ensure!(begun.elapsed() < DONE_WITHIN, "keys are still being replaced: {told}");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let seconds = begun.elapsed().as_secs();
    let new = seal_keys(&mut database).await?;
    let still: Vec<&(String, Vec<u8>)> =
        old.iter().filter(|(_, id)| new.iter().any(|(_, other)| other == id)).collect();
    ensure!(still.is_empty(), "sealed under an old key: {still:?}");
    tokio::time::sleep(UNTOUCHED).await;
    Ok(seconds)
}

/// The control: a key that goes at once, as long as it is in use, is noticed.
pub fn drop_too_early(neighbours: &Neighbours, tally: &mut Tally) -> Result<()> {
    let (site, tenant) = (neighbours.site(), neighbours.site().tenant());
    site.hub()?.command(&["keys", "rotate", "tenant", &tenant.id])?;
    site.block_on(async {
        sqlx::query(
            "DELETE FROM tenant_secret t WHERE tenant_id = $1::uuid AND kind = 'tk'
             AND version < (SELECT max(version) FROM tenant_secret WHERE tenant_id = t.tenant_id AND kind = 'tk')",
        )
        .bind(&tenant.id)
        .execute(&mut site.database().await?)
        .await?;
        tokio::time::sleep(BELIEVED).await;
        let refused = site.hub()?.get(tenant, "/v1/people").await;
        tally.add("control_dropped_too_early", u64::from(refused.is_err()));
        Ok(())
    })
}

/// The ids of the keys that are replaced, as seals name them. What an open session has goes with it.
pub(super) async fn seal_keys(database: &mut PgConnection) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = BTreeSet::new();
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT table_name::text, column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND data_type = 'bytea' AND column_name ~ 'sealed'
         AND table_name <> 'session_frame'",
    )
    .fetch_all(&mut *database)
    .await?;
    for (table, column) in columns {
        let statement =
            format!("SELECT DISTINCT substr({column}, 2, 16) FROM {table} WHERE octet_length({column}) > 45");
        let ids: Vec<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_all(&mut *database).await?;
        found.extend(ids.into_iter().map(|id| (format!("{table}.{column}"), id)));
    }
    Ok(found.into_iter().collect())
}

pub(super) async fn asked(neighbours: &Neighbours) -> Result<Vec<Operation>> {
    let operations = neighbours.operations().await?;
    let asked: Vec<Operation> =
        operations.into_iter().filter(|operation| ASKED.contains(&operation.id.as_str())).collect();
    ensure!(asked.len() == ASKED.len(), "{} of {} operations are in the document", asked.len(), ASKED.len());
    Ok(asked)
}

/// What is asked with this number: one after the other, a site now and then.
pub(super) fn turn(operations: &[Operation], number: u64) -> &Operation {
    let all = operations.len() as u64;
    let operation = |at: u64| &operations[usize::try_from(at % all).unwrap_or_default()];
    let chosen = operation(number);
    let is_left_out = chosen.id == "create_site" && !(number / all).is_multiple_of(SITE_EVERY);
    if is_left_out { operation(number + 1) } else { chosen }
}

/// Why a request failed, if it did.
async fn one(neighbours: &Neighbours, operation: &Operation, number: u64) -> Result<Option<String>> {
    let request = neighbours.holdings().request(operation, number)?;
    let answer = neighbours.ask(&neighbours.other().authorization, operation, &request).await?;
    let is_well = answer.status.is_success();
    Ok((!is_well).then(|| format!("{}: {} {}", operation.id, answer.status, answer.text)))
}

fn log_in_of(neighbours: &Neighbours) -> Value {
    json!({ "tenant": neighbours.other().id, "login": "lab@example.org", "password": PASSWORD })
}

async fn make_user(neighbours: &Neighbours, login: &Value) -> Result<()> {
    let hub = neighbours.site().hub()?;
    let made = hub.post(neighbours.other(), "/v1/users", json!({ "login": login["login"], "role": "owner" })).await?;
    let body = json!({ "invitation": made["invitation"], "password": PASSWORD });
    let url = format!("{}/v1/login/invitation", hub.ready().https);
    hub.client()?.post(url).json(&body).send().await?.error_for_status().context("an invitation")?;
    Ok(())
}

async fn log_in(neighbours: &Neighbours, login: &Value) -> Result<Option<String>> {
    let hub = neighbours.site().hub()?;
    let client = hub.client()?;
    let answer = client.post(format!("{}/v1/login", hub.ready().https)).json(login).send().await?;
    if answer.status() == StatusCode::TOO_MANY_REQUESTS {
        return Ok(None);
    }
    let status = answer.status();
    let told: Value = answer.json().await?;
    let Some(token) = told["access_token"].as_str() else { return Ok(Some(format!("log-in: {status} {told}"))) };
    let me = client.get(format!("{}/v1/people", hub.ready().https)).bearer_auth(token).send().await?.status();
    Ok((!me.is_success()).then(|| format!("with a token of a log-in: {me}")))
}
