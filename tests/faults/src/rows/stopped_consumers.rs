//! M9: the hub, or its Postgres, stands still while devices go on recording. What is not taken waits on the devices' disks
//! and nowhere else: the memory of hub, broker and devices comes to rest, nothing is lost, and all goes on by itself.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::{Lab, now};
use crate::line::site::Part;
use crate::line::trust::{Blow, lost_by_trusting};
use crate::line::{Crowd, Site, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};

/// The row. Its count is that of the stops.
pub(super) static M9: Row = Row {
    id: "M9",
    title: "hub or Postgres stands still for a minute: bounded memory, nothing lost, on by itself",
    count: 10,
    small: 2,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: stops,
};

/// How long a stop lasts in a long run, and in a short one.
const STOPPED_FOR: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(4));
const DEVICES: usize = 4;
/// The pace of the outages.
const RATE: f64 = 200.0;
const UP_WITHIN: Duration = Duration::from_secs(30);
/// The bound for a backlog of an outage of at most 60 s at this pace.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// What a program may hold at the end of a stop beyond what it held at half of it. The broker's own bounds are 20 messages
/// under way and 1,000 waiting for the hub; an allocator takes a few megabytes at a time.
const RESTS_WITHIN_KIB: u64 = 24 * 1024;
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Who stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Hub,
    Postgres,
}

fn stops(lab: &mut Lab) -> Result<Verdict> {
    let (count, long) = (lab.count(), lab.is_long());
    let tally = lab.phase("stops", 1, |_, tally| {
        let mut site = Site::open(DEVICES)?;
        let mut crowd = Crowd::start(&site, RATE)?;
        let up =
            crowd.until(UP_WITHIN, |standing| standing.connected == DEVICES as u64 && standing.acknowledged > 0)?;
        ensure!(up.is_some(), "the devices never came up");
        for number in 0..count {
            let who = if number % 2 == 0 { Who::Hub } else { Who::Postgres };
            stop(&mut site, &mut crowd, who, if long { STOPPED_FOR.0 } else { STOPPED_FOR.1 }, tally)?;
        }
        let told = crowd.end(&site)?;
        judge::judge(&site, &told)?.count_in(tally, &told);
        tally.add("control_lost", lost_by_trusting(&mut site, Blow::Hub)?);
        tally.add("control_growth", growth_that_is_seen()?);
        Ok(())
    })?;
    let control = Control::of("lost", tally.count_of("control_lost")).and("growth", tally.count_of("control_growth"));
    Ok(Verdict { tally, control })
}

fn stop(site: &mut Site, crowd: &mut Crowd, who: Who, duration: Duration, tally: &mut Tally) -> Result<()> {
    let before = crowd.standing()?;
    freeze(site, who, true)?;
    let (begun, mut memory) = (now(), Memory::default());
    let half = loop {
        memory.sample(&ids(site, crowd)?)?;
        if begun.elapsed() >= duration / 2 {
            break memory.clone();
        }
        std::thread::sleep(SAMPLE_EVERY);
    };
    while begun.elapsed() < duration {
        memory.sample(&ids(site, crowd)?)?;
        std::thread::sleep(SAMPLE_EVERY);
    }
    let during = crowd.standing()?;
    freeze(site, who, false)?;
    let waiting = during.recorded - during.acknowledged;
    // The fault was there: devices went on, and nothing of the second half of the stop was acknowledged.
    let stood_still = during.acknowledged - before.acknowledged < (during.recorded - before.recorded) / 2;
    tally.injected += u64::from(stood_still && waiting > 0);
    tally.raise("waiting_on_disk_most", waiting);
    for (name, kib) in ["hub", "broker", "devices"].into_iter().zip(memory.most) {
        tally.raise(&format!("{name}_kib_most"), kib);
    }
    for grown in memory.beyond(&half) {
        tally.breach(format!("{who:?} stood still, and {grown}"));
    }
    let drained = crowd.until_drained(GONE_WITHIN * 2)?;
    let took = drained.map_or(u64::MAX, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    tally.raise("backlog_gone_ms_longest", took);
    tally.require(drained.is_some_and(|took| took <= GONE_WITHIN), || {
        format!("after {who:?} stood still: gone after {took} ms")
    });
    Ok(())
}

/// Every process of Postgres, or the hub's own.
fn freeze(site: &mut Site, who: Who, frozen: bool) -> Result<()> {
    match who {
        Who::Hub => site.freeze_hub(frozen),
        Who::Postgres => site.freeze(Part::Postgres, frozen),
    }
}

/// Hub, broker, devices.
fn ids(site: &mut Site, crowd: &Crowd) -> Result<[u32; 3]> {
    let broker = site.id_of(Part::Broker);
    let Some(broker) = broker else { anyhow::bail!("the broker has no process") };
    Ok([site.hub_id()?, broker, crowd.id()])
}

/// The most that hub, broker and devices held at once, KiB.
#[derive(Clone, Debug, Default)]
struct Memory {
    most: [u64; 3],
}

impl Memory {
    fn sample(&mut self, ids: &[u32; 3]) -> Result<()> {
        for (most, id) in self.most.iter_mut().zip(ids) {
            *most = (*most).max(resident_kib(*id)?);
        }
        Ok(())
    }

    /// Who has not come to rest since then.
    fn beyond(&self, half: &Self) -> Vec<String> {
        let grown = self.most.iter().zip(half.most).zip(["hub", "broker", "devices"]);
        grown
            .filter(|((most, half), _)| **most > half + RESTS_WITHIN_KIB)
            .map(|((most, half), name)| format!("the {name} grew from {half} to {most} KiB"))
            .collect()
    }
}

fn resident_kib(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    Ok(line.split_whitespace().nth(1).unwrap_or("0").parse()?)
}

/// The control: a program that keeps what it cannot send, which is this one.
fn growth_that_is_seen() -> Result<u64> {
    let mut half = Memory::default();
    half.sample(&[std::process::id(); 3])?;
    let kept = vec![7_u8; usize::try_from(RESTS_WITHIN_KIB * 2 * 1024)?];
    let mut whole = half.clone();
    whole.sample(&[std::process::id(); 3])?;
    let seen = whole.beyond(&half).len() as u64;
    drop(std::hint::black_box(kept));
    Ok(seen)
}
