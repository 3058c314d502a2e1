//! What a tenant may ask is counted together while there is a store for it, and by each hub for itself while there is none.
//!
//! Exactly: within any time two hubs let through what one would, the burst and what the time gives back.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use system_tests::launcher::Tenant;

use super::{BOTH, Pair, Which, milliseconds, read};
use crate::lab::now;
use crate::outcome::Tally;

/// What the tenants may ask in an hour.
const AN_HOUR: u32 = 7_200;
/// Of these at once: a tenth.
const BURST: f64 = AN_HOUR as f64 / 10.0;
const A_SECOND: f64 = AN_HOUR as f64 / 3_600.0;
/// How long they ask on when there is no room left.
const GO_ON_FOR: Duration = Duration::from_secs(6);
/// Between two questions then.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Questions under way at once before.
const AT_ONCE: usize = 8;
/// Less than promised, in hundredths: what is let through is counted a moment later than it is asked.
const ERROR: f64 = 0.01;
/// After the store is back.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);
/// Nobody waits for a store that is away.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// What was let through.
struct Admitted {
    answered: f64,
    /// What one hub would have let through in the time.
    one_would: f64,
    slowest: Duration,
}

/// With the store, without it, and with it again. Returns how often the checker sees that hubs which count apart let through too much.
pub fn measure(pair: &mut Pair, tally: &mut Tally) -> Result<u64> {
    let together = pair.block_on(exhaust(pair, "together"))?;
    judge("together", &together, tally);
    tally.require(pair.block_on(told(pair))? == 0, || String::from("health warns of a store that answers"));
    pair.store.kill()?;
    let apart = pair.block_on(exhaust(pair, "apart"))?;
    let two_would = 2.0 * apart.one_would;
    tally.figure("limits_apart_of_one", apart.answered / apart.one_would);
    tally.require((apart.answered - two_would).abs() <= two_would * ERROR + 2.0, || {
        format!("each by itself: {} of {two_would} were let through", apart.answered)
    });
    tally.require(apart.slowest <= ANSWERED_WITHIN, || {
        format!("an answer took {:?} while the store was away", apart.slowest)
    });
    tally.raise("answer_ms_longest_without_store", milliseconds(apart.slowest));
    tally.require(pair.block_on(told(pair))? == 2, || String::from("health says nothing of a store that is away"));
    for which in BOTH {
        let line = "shared_limits_away";
        tally.require(pair.log(which)?.contains(line), || format!("hub {which} has no line {line}"));
    }
    pair.store.back()?;
    let back = pair.block_on(noticed(pair))?;
    tally.raise("store_noticed_ms_longest", milliseconds(back));
    let again = pair.block_on(exhaust(pair, "again"))?;
    judge("together again", &again, tally);
    // The control: hubs that count apart.
    let mut seen = Tally::default();
    judge("apart", &apart, &mut seen);
    Ok(seen.breaches)
}

fn judge(what: &str, found: &Admitted, tally: &mut Tally) {
    let Admitted { answered, one_would, .. } = *found;
    tally.figure(&format!("limits_{}_of_one", what.replace(' ', "_")), answered / one_would);
    // Never more; one is there because the time ends between two questions.
    tally.require(answered <= one_would + 1.0, || {
        format!("{what}: {answered} were let through where one hub lets {one_would}")
    });
    tally.require(answered >= one_would * (1.0 - ERROR) - 1.0, || {
        format!("{what}: only {answered} of {one_would} were let through")
    });
}

/// Asks both hubs in turn until there is no room left, and on.
async fn exhaust(pair: &Pair, name: &str) -> Result<Admitted> {
    let tenant = pair.hub(0)?.create_tenant(name)?;
    pair.hub(0)?.command(&["tenants", "set", &tenant.id, "--requests-per-hour", &AN_HOUR.to_string()])?;
    let begun = now();
    let (mut answered, mut slowest) = (0.0, Duration::ZERO);
    // Whatever was sent is waited for: it has been counted.
    let enough = Cell::new(false);
    let mut asked = futures::stream::iter(0..)
        .take_while(|_| std::future::ready(!enough.get()))
        .map(|number: usize| ask(pair, &tenant, number % 2))
        .buffer_unordered(AT_ONCE);
    let mut refused = [false; 2];
    while let Some(done) = asked.next().await {
        let (which, admitted, took) = done?;
        answered += f64::from(u8::from(admitted));
        refused[which] |= !admitted;
        slowest = slowest.max(took);
        enough.set(!refused.contains(&false));
        ensure!(answered < 4.0 * BURST, "{name}: there is no limit");
    }
    drop(asked);
    let until = now() + GO_ON_FOR;
    for number in 0.. {
        let sent = now();
        if sent >= until {
            break;
        }
        let (_, admitted, took) = ask(pair, &tenant, number % 2).await?;
        answered += f64::from(u8::from(admitted));
        slowest = slowest.max(took);
        tokio::time::sleep_until((sent + ASK_EVERY).into()).await;
    }
    Ok(Admitted { answered, one_would: BURST + begun.elapsed().as_secs_f64() * A_SECOND, slowest })
}

async fn ask(pair: &Pair, tenant: &Tenant, which: Which) -> Result<(Which, bool, Duration)> {
    let sent = now();
    let (status, answer) = pair.ask(which, tenant, (Method::GET, "/v1/sites"), None).await?;
    ensure!([StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].contains(&status), "hub {which}: {status} {answer}");
    Ok((which, status == StatusCode::OK, sent.elapsed()))
}

/// At how many hubs health warns of the store.
async fn told(pair: &Pair) -> Result<usize> {
    let mut warned = 0;
    for which in BOTH {
        let (_, health) = read(pair.client(which).get(format!("{}/health/detailed", pair.url(which)))).await?;
        let parts = health.to_string();
        let warns = |part: &Value| part["name"] == "shared_limits" && part["status"] == "warn";
        ensure!(parts.contains("shared_limits"), "hub {which} has no store: {parts}");
        warned += usize::from(has(&health, &warns));
    }
    Ok(warned)
}

/// Whether anything in a document is so.
fn has(value: &Value, so: &impl Fn(&Value) -> bool) -> bool {
    so(value)
        || match value {
            Value::Array(all) => all.iter().any(|value| has(value, so)),
            Value::Object(all) => all.values().any(|value| has(value, so)),
            _ => false,
        }
}

/// How long it took until both had noticed that the store is back.
async fn noticed(pair: &Pair) -> Result<Duration> {
    let (tenant, begun): (_, Instant) = (pair.hub(0)?.create_tenant("noticing")?, now());
    while told(pair).await? > 0 {
        ensure!(begun.elapsed() < NOTICED_WITHIN, "the store is back, and nobody noticed");
        for which in BOTH {
            ask(pair, &tenant, which).await?;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(begun.elapsed())
}
