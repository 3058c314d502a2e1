//! M1: a random enemy of the line. Network faults, and the death of edge, broker, hub and Postgres, under 800 events a
//! second (the 200, and so many more that its million is there when the faults are); then the set acknowledged at the edge is the set at the hub, each effect once, each stream in order.

use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::line::site::Part;
use crate::line::trust::{Blow, lost_by_trusting};
use crate::line::{Crowd, Fault, Site, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row.
pub(super) static M1: Row = Row {
    id: "M1",
    title: "random faults of network and processes: nothing lost, doubled or disordered",
    count: 1000,
    small: 6,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: campaigns,
};

/// Faults against one hub before its tables are judged: a campaign is what an interrupted run begins anew.
const CAMPAIGN: u64 = 50;
/// Events a second, of all devices together. At the 200 a thousand faults meet 270,000 events, for nothing is recorded while
/// a backlog is awaited; the backlog of an outage of a minute, which must be gone 30 s after it, is four times the issue's.
const RATE: f64 = 800.0;
/// Several streams, so that a fault meets some of them busy and others idle.
const DEVICES: usize = 4;
/// After the heal, everything recorded before it must be acknowledged within this (the figure).
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
/// How much longer a row waits to learn whether the events come late or never.
const DRAIN_EVER: Duration = Duration::from_secs(120);
/// The longest outage (the figure), and how rarely it is as long: the rest are of seconds.
const LONGEST_OUTAGE_MS: u64 = 60_000;
const LONG_IN_HUNDRED: u64 = 2;

/// One blow.
#[derive(Clone, Copy, Debug)]
enum Enemy {
    Network(Fault),
    Edge,
    Hub,
    Part(Part),
}

fn campaigns(lab: &mut Lab) -> Result<Verdict> {
    let (count, long) = (lab.count(), lab.is_long());
    let tally = lab.phase("campaigns", count.div_ceil(CAMPAIGN), |number, tally| {
        let faults = CAMPAIGN.min(count - number * CAMPAIGN);
        campaign(&mut Random::new(number), faults, long, tally)
    })?;
    let control = Control::of("lost", tally.count_of("control_lost"))
        .and("lost_in_tables", tally.count_of("control_lost_in_tables"))
        .and("doubled", tally.count_of("control_doubled"))
        .and("disordered", tally.count_of("control_disordered"));
    Ok(Verdict { tally, control })
}

fn campaign(random: &mut Random, faults: u64, long: bool, tally: &mut Tally) -> Result<()> {
    let mut site = Site::open(DEVICES)?;
    let mut crowd = Crowd::start(&site, RATE)?;
    let all = u64::try_from(DEVICES)?;
    let up = crowd.until(DRAIN_WITHIN, |standing| standing.connected == all && standing.acknowledged > 0)?;
    tally.require(up.is_some(), || "the fleet never came up".to_owned());
    for _ in 0..faults {
        let enemy = choose(random);
        let lasting = outage(random, long);
        strike(enemy, lasting, &mut site, &mut crowd, tally)?;
        let drained = crowd.until_drained(DRAIN_EVER)?;
        let millis = drained.map_or(u64::MAX, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        tally.raise("drain_ms_longest", millis);
        tally.add("drain_ms_sum", millis);
        tally.require(drained.is_some_and(|took| took <= DRAIN_WITHIN), || {
            format!("{enemy:?} for {lasting:?}: the backlog was there {drained:?} after the heal")
        });
    }
    crowd.hold()?;
    let drained = crowd.until_drained(DRAIN_EVER)?;
    tally.require(drained.is_some(), || "not everything was acknowledged at the end".to_owned());
    let told = crowd.end(&site)?;
    judge::judge(&site, &told)?.count_in(tally, &told);
    let doctored = judge::doctored(&site, &told)?;
    tally.add("control_lost_in_tables", doctored.lost + doctored.without_effect);
    tally.add("control_doubled", doctored.doubled);
    tally.add("control_disordered", doctored.disordered);
    tally.add("control_lost", lost_by_trusting(&mut site, Blow::Broker)?);
    Ok(())
}

fn choose(random: &mut Random) -> Enemy {
    match random.below(14) {
        0 => Enemy::Network(Fault::Late(Duration::from_millis(50 + random.below(450)))),
        1 => Enemy::Network(Fault::Silent),
        2 => Enemy::Network(Fault::SilentUp),
        3 => Enemy::Network(Fault::SilentDown),
        4 => Enemy::Network(Fault::HalfOpen),
        5 => Enemy::Network(Fault::CutInside),
        6 => Enemy::Network(Fault::Refused),
        // The uplink of a bad mobile line, 64 kbit/s.
        7 => Enemy::Network(Fault::Slow(8_000)),
        8 => Enemy::Network(Fault::Damaged),
        9 | 10 => Enemy::Edge,
        11 => Enemy::Hub,
        12 => Enemy::Part(Part::Broker),
        _ => Enemy::Part(Part::Postgres),
    }
}

fn outage(random: &mut Random, long: bool) -> Duration {
    let longest = if long && random.chance(LONG_IN_HUNDRED) { LONGEST_OUTAGE_MS } else { 3_000 };
    Duration::from_millis(100 + random.below(longest - 100))
}

/// Injects one fault and heals it; counts it if it was really there.
fn strike(enemy: Enemy, lasting: Duration, site: &mut Site, crowd: &mut Crowd, tally: &mut Tally) -> Result<()> {
    match enemy {
        Enemy::Network(fault) => {
            site.proxy.inject(fault);
            std::thread::sleep(lasting);
            let mut waited = 0;
            // A fault that met nothing is none: it stays until something comes by.
            while site.proxy.met() == 0 && waited < 200 {
                std::thread::sleep(Duration::from_millis(100));
                waited += 1;
            }
            let met = site.proxy.heal();
            tally.injected += u64::from(met > 0);
            tally.add("network_faults", 1);
            tally.add("pieces_met", met);
        }
        Enemy::Edge => {
            crowd.kill_and_restart(site)?;
            tally.injected += 1;
            tally.add("edge_kills", 1);
        }
        Enemy::Hub => {
            site.kill_hub()?;
            std::thread::sleep(lasting);
            site.start_hub()?;
            tally.injected += 1;
            tally.add("hub_kills", 1);
        }
        Enemy::Part(part) => {
            let killed = site.kill(part)?;
            site.back(part, killed)?;
            tally.injected += 1;
            tally.add(if part == Part::Broker { "broker_kills" } else { "postgres_kills" }, 1);
        }
    }
    Ok(())
}
