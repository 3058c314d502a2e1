//! H1: the hub is killed inside the transaction that stores a batch, or within a breath of its commit. What was
//! acknowledged is committed, and every event has its webhook's row, no more and no less.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::{Lab, now};
use crate::line::trust::{Blow, lost_by_trusting};
use crate::line::{Crowd, Site, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row.
pub(super) static H1: Row = Row {
    id: "H1",
    title: "hub killed inside its transactions: acknowledged is committed, effects as many as events",
    count: 1000,
    small: 2,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: campaigns,
};

/// Kills against one hub before its tables are judged.
const CAMPAIGN: u64 = 100;
const RATE: f64 = 100.0;
const DEVICES: usize = 3;
/// For the devices' longest wait before they connect again, and the hub's own start.
const INGEST_WITHIN: Duration = Duration::from_secs(40);
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

fn campaigns(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("campaigns", count.div_ceil(CAMPAIGN), |number, tally| {
        campaign(&mut Random::new(number), CAMPAIGN.min(count - number * CAMPAIGN), tally)
    })?;
    let control = Control::of("lost", tally.count_of("control_lost"))
        .and("doubled", tally.count_of("control_doubled"))
        .and("without_effect", tally.count_of("control_without_effect"));
    Ok(Verdict { tally, control })
}

fn campaign(random: &mut Random, kills: u64, tally: &mut Tally) -> Result<()> {
    let mut site = Site::open(DEVICES)?;
    let mut crowd = Crowd::start(&site, RATE)?;
    for _ in 0..kills {
        let mut rows = site.rows()?;
        site.block_on(rows.hold_ingest_open())?;
        let begun = now();
        while !site.block_on(rows.ingest_is_waiting())? {
            ensure!(begun.elapsed() < INGEST_WITHIN, "no batch came in within {INGEST_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        if random.chance(50) {
            // The transaction goes on: the kill comes before, at or after the commit, and before or after the word of it.
            drop(rows);
            std::thread::sleep(Duration::from_micros(random.below(8_000)));
            tally.add("kills_about_the_commit", 1);
        } else {
            tally.add("kills_inside", 1);
        }
        site.kill_hub()?;
        tally.injected += 1;
        let ready = site.start_hub()?;
        tally.raise("hub_ready_ms_longest", u64::try_from(ready.as_millis()).unwrap_or(u64::MAX));
    }
    crowd.hold()?;
    let drained = crowd.until_drained(DRAIN_WITHIN)?;
    tally.require(drained.is_some(), || "not everything was acknowledged at the end".to_owned());
    let told = crowd.end(&site)?;
    judge::judge(&site, &told)?.count_in(tally, &told);
    let doctored = judge::doctored(&site, &told)?;
    tally.add("control_doubled", doctored.doubled);
    tally.add("control_without_effect", doctored.without_effect);
    tally.add("control_lost", lost_by_trusting(&mut site, Blow::Hub)?);
    Ok(())
}
