//! R2: two hubs on one Postgres and one Mosquitto, under load, of which one or the other is killed. The set acknowledged at
//! the edge is the set at the hub, each effect once, each stream in order; galleries are equal and presence is right.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::lab::{Lab, now};
use crate::line::pair::Which;
use crate::line::{Crowd, Pair, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row.
pub(super) static R2: Row = Row {
    id: "R2",
    title: "two hubs on one broker and database, either killed: nothing lost, doubled or disordered",
    count: 200,
    small: 4,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: campaigns,
};

/// Kills against one pair before its tables are judged.
const CAMPAIGN: u64 = 50;
const RATE: f64 = 200.0;
const DEVICES: usize = 4;
/// Somebody leads and everything recorded before the kill is acknowledged within this.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
/// For the last reports, which a device makes within a second of a change.
const EQUAL_WITHIN: Duration = Duration::from_secs(20);

fn campaigns(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("campaigns", count.div_ceil(CAMPAIGN), |number, tally| {
        campaign(&mut Random::new(number), CAMPAIGN.min(count - number * CAMPAIGN), tally)
    })?;
    let control = Control::of("lost_in_tables", tally.count_of("control_lost_in_tables"))
        .and("doubled", tally.count_of("control_doubled"))
        .and("disordered", tally.count_of("control_disordered"));
    Ok(Verdict { tally, control })
}

fn campaign(random: &mut Random, kills: u64, tally: &mut Tally) -> Result<()> {
    let mut pair = Pair::open(DEVICES)?;
    let mut crowd = Crowd::start(&pair.site, RATE)?;
    let all = u64::try_from(DEVICES)?;
    let up = crowd.until(DRAIN_WITHIN, |standing| standing.connected == all && standing.acknowledged > 0)?;
    tally.require(up.is_some(), || "the fleet never came up".to_owned());
    let mut people = Vec::new();
    for number in 0..kills {
        // The one that leads and the one that follows in turn: a killed leader comes back as the one that follows.
        let victim = if number % 2 == 0 { Which::First } else { Which::Second };
        person(&pair, &mut people)?;
        pair.kill(victim)?;
        tally.injected += 1;
        std::thread::sleep(Duration::from_millis(random.below(1_500)));
        let ready = pair.start(victim)?;
        tally.raise("hub_ready_ms_longest", u64::try_from(ready.as_millis()).unwrap_or(u64::MAX));
        person(&pair, &mut people)?;
        let drained = crowd.until_drained(DRAIN_WITHIN)?;
        let millis = drained.map_or(u64::MAX, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        tally.raise("drain_ms_longest", millis);
        tally.require(drained.is_some(), || format!("{victim:?}: the backlog was still there after the restart"));
    }
    crowd.hold()?;
    tally.require(crowd.until_drained(DRAIN_WITHIN)?.is_some(), || "not everything was acknowledged".to_owned());
    tally.require(equal(&pair, DEVICES)?, || {
        "not every gallery is equal, or a device that is there is not online".to_owned()
    });
    let leaderships = pair.leaderships()?;
    tally.add("leaderships", leaderships.iter().sum());
    tally.require(leaderships.iter().all(|times| *times > 0), || format!("one of the hubs never led: {leaderships:?}"));
    let told = crowd.end(&pair.site)?;
    judge::judge(&pair.site, &told)?.count_in(tally, &told);
    let doctored = judge::doctored(&pair.site, &told)?;
    tally.add("control_lost_in_tables", doctored.lost + doctored.without_effect);
    tally.add("control_doubled", doctored.doubled);
    tally.add("control_disordered", doctored.disordered);
    Ok(())
}

/// Somebody new for every gallery; and of the third on, somebody is deleted.
fn person(pair: &Pair, people: &mut Vec<String>) -> Result<()> {
    let (hub, tenant) = (pair.site.hub()?, pair.site.tenant());
    let body = json!({ "external_id": format!("p{}", people.len()), "name": "Someone" });
    let made = pair.site.block_on(hub.post(tenant, "/v1/people", body))?;
    people.push(made["id"].as_str().unwrap_or_default().to_owned());
    if people.len() > 2 {
        let path = format!("/v1/people/{}", people[people.len() - 3]);
        pair.site.block_on(hub.call(tenant, reqwest::Method::DELETE, &path, None))?;
    }
    Ok(())
}

/// Whether every device is online and every gallery equal before long.
fn equal(pair: &Pair, devices: usize) -> Result<bool> {
    let begun = now();
    while begun.elapsed() < EQUAL_WITHIN {
        let listed = pair.site.block_on(pair.site.hub()?.get(pair.site.tenant(), "/v1/devices"))?;
        let listed = listed["data"].as_array().cloned().unwrap_or_default();
        let fine = listed.iter().filter(|device| {
            let galleries = device["galleries"].as_array().cloned().unwrap_or_default();
            device["online"] == true
                && !galleries.is_empty()
                && galleries.iter().all(|gallery| gallery["equal"] == true)
        });
        if fine.count() == devices {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(false)
}
