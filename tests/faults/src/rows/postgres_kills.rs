//! H2: Postgres dies, or cuts the hub's connections off, under load. The hub recovers by itself: the first batch is
//! committed within five seconds of the database's return, and no pooled connection stays in a transaction.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::line::site::Part;
use crate::line::trust::{Blow, lost_by_trusting};
use crate::line::{Crowd, Site, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row.
pub(super) static H2: Row = Row {
    id: "H2",
    title: "Postgres killed under load: the hub recovers alone, no connection stays in a transaction",
    count: 50,
    small: 2,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: campaigns,
};

/// Kills against one hub before its tables are judged.
const CAMPAIGN: u64 = 25;
const RATE: f64 = 100.0;
const DEVICES: usize = 3;
/// The figure.
const SUCCESS_WITHIN: Duration = Duration::from_secs(5);
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// A transaction that stands idle for longer than this was forgotten: the hub's own take milliseconds.
const FORGOTTEN_SECONDS: f64 = 2.0;

fn campaigns(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("campaigns", count.div_ceil(CAMPAIGN), |number, tally| {
        campaign(&mut Random::new(number), CAMPAIGN.min(count - number * CAMPAIGN), tally)
    })?;
    let control = Control::of("lost", tally.count_of("control_lost"))
        .and("idle_in_transaction", tally.count_of("control_idle_in_transaction"));
    Ok(Verdict { tally, control })
}

fn campaign(random: &mut Random, kills: u64, tally: &mut Tally) -> Result<()> {
    let mut site = Site::open(DEVICES)?;
    let mut crowd = Crowd::start(&site, RATE)?;
    let up = crowd.until(DRAIN_WITHIN, |standing| standing.acknowledged > 0)?;
    tally.require(up.is_some(), || "the fleet never came up".to_owned());
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(random.below(500)));
        if random.chance(30) {
            // 57P01: what an administrator's restart of the database looks like to the hub.
            let cut = site.block_on(cut_off(&site))?;
            tally.injected += u64::from(cut > 0);
            tally.add("connections_cut", cut);
        } else {
            let killed = site.kill(Part::Postgres)?;
            site.back(Part::Postgres, killed)?;
            tally.injected += 1;
            tally.add("kills", 1);
        }
        drop(site.block_on(site.database())?);
        let before = crowd.standing()?.acknowledged;
        let first = crowd.until(DRAIN_WITHIN, |standing| standing.acknowledged > before)?;
        tally.raise(
            "first_success_ms_longest",
            first.map_or(u64::MAX, |took| u64::try_from(took.as_millis()).unwrap_or(0)),
        );
        tally.require(first.is_some_and(|took| took <= SUCCESS_WITHIN), || {
            format!("the first batch after the database's return was acknowledged after {first:?}")
        });
        let forgotten = site.block_on(forgotten(&site))?;
        tally.require(forgotten == 0, || format!("{forgotten} connections stand idle in a transaction"));
    }
    crowd.hold()?;
    let drained = crowd.until_drained(DRAIN_WITHIN)?;
    tally.require(drained.is_some(), || "not everything was acknowledged at the end".to_owned());
    let told = crowd.end(&site)?;
    judge::judge(&site, &told)?.count_in(tally, &told);
    tally.add("control_idle_in_transaction", site.block_on(forget_one(&site))?);
    // Not a blow to Postgres: the hub holds what it could not commit and tries again, which may lose nothing.
    tally.add("control_lost", lost_by_trusting(&mut site, Blow::Hub)?);
    Ok(())
}

/// Ends every connection of the hub; returns how many.
async fn cut_off(site: &Site) -> Result<u64> {
    let query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let cut: i64 = sqlx::query_scalar(query).fetch_one(&mut site.database().await?).await?;
    Ok(u64::try_from(cut)?)
}

/// How many connections were left in a transaction.
async fn forgotten(site: &Site) -> Result<u64> {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'
                 AND now() - state_change > make_interval(secs => $1)";
    let found: i64 = sqlx::query_scalar(query).bind(FORGOTTEN_SECONDS).fetch_one(&mut site.database().await?).await?;
    Ok(u64::try_from(found)?)
}

/// The control: leaves a connection in a transaction, and asks whether it is found.
async fn forget_one(site: &Site) -> Result<u64> {
    let mut left = site.database().await?;
    sqlx::query("BEGIN").execute(&mut left).await.context("the control's transaction")?;
    tokio::time::sleep(Duration::from_secs_f64(FORGOTTEN_SECONDS + 0.5)).await;
    forgotten(site).await
}
