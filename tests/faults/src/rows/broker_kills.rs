//! M2: the broker is killed while it holds what it has acknowledged, and comes back with nothing. Nothing depends on it.
//!
//! Mosquitto runs without persistence, so that every restart is one with a wiped disk; that it is so is checked each time.

use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::line::site::Part;
use crate::line::trust::{Blow, lost_by_trusting};
use crate::line::{Crowd, Site, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row.
pub(super) static M2: Row = Row {
    id: "M2",
    title: "broker killed with what it had acknowledged: nothing depends on its disk",
    count: 200,
    small: 3,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: campaigns,
};

/// Kills against one hub before its tables are judged.
const CAMPAIGN: u64 = 50;
/// Enough that every kill finds batches on their way.
const RATE: f64 = 200.0;
const DEVICES: usize = 3;
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

fn campaigns(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("campaigns", count.div_ceil(CAMPAIGN), |number, tally| {
        campaign(&mut Random::new(number), CAMPAIGN.min(count - number * CAMPAIGN), tally)
    })?;
    let control = Control::of("lost", tally.count_of("control_lost"));
    Ok(Verdict { tally, control })
}

fn campaign(random: &mut Random, kills: u64, tally: &mut Tally) -> Result<()> {
    let mut site = Site::open(DEVICES)?;
    let mut crowd = Crowd::start(&site, RATE)?;
    let drained = crowd.until(DRAIN_WITHIN, |standing| standing.acknowledged > 0)?;
    tally.require(drained.is_some(), || "the fleet never came up".to_owned());
    for _ in 0..kills {
        // While the hub stands still, what the broker has acknowledged is nowhere but in its memory.
        site.freeze_hub(true)?;
        std::thread::sleep(Duration::from_millis(50 + random.below(250)));
        let killed = site.kill(Part::Broker);
        site.freeze_hub(false)?;
        site.back(Part::Broker, killed?)?;
        tally.injected += 1;
        tally.require(!site.broker_keeps_messages(), || "the broker kept something on its disk".to_owned());
        let drained = crowd.until_drained(DRAIN_WITHIN)?;
        tally.require(drained.is_some(), || "the backlog was still there 30 s after the broker came back".to_owned());
        tally.raise("drain_ms_longest", drained.map_or(0, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
    }
    crowd.hold()?;
    crowd.until_drained(DRAIN_WITHIN)?;
    let told = crowd.end(&site)?;
    judge::judge(&site, &told)?.count_in(tally, &told);
    tally.add("control_lost", lost_by_trusting(&mut site, Blow::Broker)?);
    Ok(())
}
