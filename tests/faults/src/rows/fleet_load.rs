//! L1: a fleet under load on one machine with the hub. Ten people are enrolled and deleted while all devices are connected
//! over mutual TLS, and each device's own search says when it knows them and when it does no more; then the fleet uploads
//! what it recorded while it was cut off, and the broker alone carries the same number of events, for comparison.
//!
//! Devices, hub, Postgres, broker and measurement share the machine's processors: a fleet that has processors of its own
//! can only be faster. The devices' folders are in memory, for a thousand devices have a thousand disks; the hub's tables
//! are on the machine's disk.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use edge_agent::clock::SystemClock;
use fleet_sim::device::{Device, SPACE_ID};
use fleet_sim::fleet::Standing;
use fleet_sim::searches::{Found, micros};
use fleet_sim::trusting::capture;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::lab::{Lab, now};
use crate::line::floor::{Shape, broker_alone};
use crate::line::people::{Somebody, people};
use crate::line::site::Part;
use crate::line::{Crowd, Fault, Site, cost, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};

/// The row. Its count is that of the devices.
pub(super) static L1: Row = Row {
    id: "L1",
    title: "a thousand devices with the hub on one machine: people, deletions and events in time",
    count: 1000,
    small: 12,
    needs: &[Need::Part("postgres"), Need::Part("demo"), Need::Program("mosquitto", "mosquitto")],
    run: load,
};

/// The figures.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(2);
const HUB_MAY_HOLD_MIB: u64 = 1024;
const OF_THE_BROKER_PERCENT: u64 = 40;
/// People who are enrolled: the ten; two where the count is small, so that no data set is needed.
const PEOPLE: usize = 10;
const FEW_PEOPLE: usize = 2;
/// Two photographs at a time: the hub refuses more than its processors can examine soon.
const ENROLLED_AT_ONCE: usize = 2;
/// Events of each device that are uploaded at once: several full batches, so that most of the time everybody is connected.
const EVENTS_EACH: u64 = 400;
/// The rate that lasts is that between the first and the last tenth: before it devices come back one by one, and after it the
/// last of them have the hub for themselves.
const TENTHS_BETWEEN: (u64, u64) = (1, 9);
/// Messages of each device at the broker alone, of one event and of a batch.
const MESSAGES_EACH: usize = 100;
const BATCHES_EACH: usize = 4;
const EVENTS_IN_A_BATCH: u64 = 100;
/// As fast as the disk takes them.
const RECORDING_RATE: f64 = 50_000.0;
/// A little traffic beside the changes of people.
const QUIET_RATE: f64 = 20.0;
/// For the first connection of all: each opens its stores and has its gallery filled.
const UP_WITHIN: Duration = Duration::from_secs(180);
/// What is later than this never comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the broker stands still for the control: longer than a deletion may take.
const STANDSTILL: Duration = Duration::from_secs(4);
/// The measurement of the load ends by itself even where the hub is slow.
const DRAINED_WITHIN: Duration = Duration::from_secs(600);

fn load(lab: &mut Lab) -> Result<Verdict> {
    let (count, long) = (lab.count(), lab.is_long());
    let tally = lab.phase("fleet", 1, |_, tally| {
        let mut site = Site::open_with_devices_in_memory(usize::try_from(count)?)?;
        let faces = people(&site, if long { PEOPLE } else { FEW_PEOPLE })?;
        let probes: Vec<_> = faces.iter().map(|face| face.probe.clone()).collect();
        let mut crowd = Crowd::start_searching(&site, QUIET_RATE, &probes)?;
        let up = crowd.until(UP_WITHIN, |standing| standing.connected == count)?;
        ensure!(up.is_some(), "not every device came up: {:?}", crowd.standing()?);
        heard_of_all(&site, count)?;
        change_people(&mut site, &crowd, &faces, count, tally)?;
        let told = upload(&mut site, crowd, count, long, tally)?;
        judge::judge(&site, &told)?.count_in(tally, &told);
        let doctored = judge::doctored(&site, &told)?;
        tally.add("control_lost_in_tables", doctored.lost + doctored.without_effect);
        Ok(())
    })?;
    let control = Control::of("deletions_late", tally.count_of("control_late"))
        .and("lost_in_tables", tally.count_of("control_lost_in_tables"));
    Ok(Verdict { tally, control })
}

/// Waits until the hub knows where each device's gallery stands: what is measured is a change, not a fleet's first start.
fn heard_of_all(site: &Site, devices: u64) -> Result<()> {
    let begun = now();
    site.block_on(async {
        let mut tables = site.database().await?;
        loop {
            let heard: i64 = sqlx::query_scalar("SELECT count(*) FROM device_gallery").fetch_one(&mut tables).await?;
            if u64::try_from(heard)? >= devices {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "the hub has heard of the galleries of {heard} of {devices} devices");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}

/// Enrols everybody at once and deletes everybody at once; then one more, whose deletion a standing broker holds up.
fn change_people(site: &mut Site, crowd: &Crowd, faces: &[Somebody], devices: u64, tally: &mut Tally) -> Result<()> {
    let ids = enrol(site, faces, "")?;
    let known = follow(site, crowd, &ids, devices, Seen::Known)?;
    tally.injected += known.pairs;
    known.figures("known", KNOWN_WITHIN, tally);
    let ids = delete(site, &ids)?;
    let forgotten = follow(site, crowd, &ids, devices, Seen::Forgotten)?;
    tally.injected += forgotten.pairs;
    forgotten.figures("forgotten", FORGOTTEN_WITHIN, tally);
    let resident = site.hub_resident_mib()?;
    tally.raise("hub_resident_mib", resident);

    let again = enrol(site, &faces[..1], "-again")?;
    let _known = follow(site, crowd, &again, devices, Seen::Known)?;
    site.freeze(Part::Broker, true)?;
    let again = delete(site, &again)?;
    std::thread::sleep(STANDSTILL);
    site.freeze(Part::Broker, false)?;
    let late = follow(site, crowd, &again, devices, Seen::Forgotten)?;
    let too_late = late.took.iter().filter(|took| **took > FORGOTTEN_WITHIN).count() as u64;
    tally.add("control_late", too_late);
    Ok(())
}

/// A person as of a change: the id, the name of the probe, and when the change was there.
struct Changed {
    id: uuid::Uuid,
    probe: String,
    since_us: u64,
}

/// Enrols people one after the other; the change is there when the hub has answered.
fn enrol(site: &Site, faces: &[Somebody], suffix: &str) -> Result<Vec<Changed>> {
    let (hub, tenant) = (site.hub()?, site.tenant());
    site.block_on(async {
        let enrolling = faces.iter().map(|face| async move {
            let (name, photographs) = (&face.probe.name, vec![face.photograph.clone()]);
            let id = hub.enrol(tenant, &format!("{name}{suffix}"), name, photographs).await?;
            anyhow::Ok(Changed { id: id.parse()?, probe: name.clone(), since_us: micros(wall())? })
        });
        futures::stream::iter(enrolling).buffered(ENROLLED_AT_ONCE).try_collect().await
    })
}

/// Deletes people side by side; the change is there when the hub is asked, which no device can know before.
fn delete(site: &Site, people: &[Changed]) -> Result<Vec<Changed>> {
    let (hub, tenant) = (site.hub()?, site.tenant());
    site.block_on(async {
        let deleting = people.iter().map(|person| async move {
            let since_us = micros(wall())?;
            hub.call(tenant, reqwest::Method::DELETE, &format!("/v1/people/{}", person.id), None).await?;
            anyhow::Ok(Changed { id: person.id, probe: person.probe.clone(), since_us })
        });
        futures::future::try_join_all(deleting).await
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Known,
    Forgotten,
}

/// How long the searches of all devices took to follow a change.
struct Followed {
    /// Devices times people.
    pairs: u64,
    /// Of those that did, how long each took.
    took: Vec<Duration>,
}

/// Waits until every device's search says so of every person, or patience is over.
fn follow(site: &Site, crowd: &Crowd, people: &[Changed], devices: u64, seen: Seen) -> Result<Followed> {
    let (begun, pairs) = (now(), devices * people.len() as u64);
    loop {
        let findings = crowd.findings(site)?;
        let mut took: Vec<Duration> = people.iter().flat_map(|person| times(&findings, person, seen)).collect();
        if took.len() as u64 >= pairs || begun.elapsed() >= PATIENCE {
            took.sort_unstable();
            return Ok(Followed { pairs, took });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// One duration for each device whose last word on the person is the one that is waited for.
fn times(findings: &[Found], person: &Changed, seen: Seen) -> Vec<Duration> {
    let mut last = std::collections::HashMap::new();
    for found in findings.iter().filter(|found| found.probe == person.probe) {
        last.insert(found.device, found);
    }
    let wanted = (seen == Seen::Known).then_some(person.id);
    let followed = last.values().filter(|found| found.person == wanted);
    followed.map(|found| Duration::from_micros(found.at_us.saturating_sub(person.since_us))).collect()
}

impl Followed {
    fn figures(&self, name: &str, within: Duration, tally: &mut Tally) {
        let missing = self.pairs - self.took.len() as u64;
        tally.lost += missing;
        let at = |hundredths: usize| self.took.get((self.took.len() * hundredths / 100).min(self.took.len() - 1));
        let (Some(median), Some(p99), Some(longest)) = (at(50), at(99), self.took.last()) else {
            tally.breach(format!("{name}: no device followed"));
            return;
        };
        for (what, value) in [("median", median), ("p99", p99), ("longest", longest)] {
            tally.figure(&format!("{name}_{what}_ms"), u64::try_from(value.as_millis()).unwrap_or(u64::MAX));
        }
        tally.require(*p99 <= within && missing == 0, || {
            format!("{name}: p99 {p99:?} of {within:?}, {missing} missing")
        });
    }
}

/// Cuts the fleet off, lets it record, and measures how fast the hub takes in what was recorded; then the broker alone.
fn upload(
    site: &mut Site,
    crowd: Crowd,
    devices: u64,
    long: bool,
    tally: &mut Tally,
) -> Result<fleet_sim::history::Told> {
    let mut crowd = crowd;
    crowd.hold()?;
    ensure!(crowd.until_drained(PATIENCE)?.is_some(), "the quiet traffic was not acknowledged");
    let before = crowd.standing()?.recorded;
    let _told = crowd.end(site)?;
    site.proxy.inject(Fault::Refused);
    let mut crowd = Crowd::start(site, RECORDING_RATE)?;
    crowd.go_on()?;
    let wanted = before + devices * EVENTS_EACH;
    crowd.until(DRAINED_WITHIN, |standing| standing.recorded >= wanted)?.context("recording takes for ever")?;
    crowd.hold()?;
    std::thread::sleep(Duration::from_secs(1));
    let buffered = crowd.standing()?;
    let waiting = buffered.recorded - buffered.acknowledged;
    let spent = Spent::so_far(site, &crowd)?;
    site.proxy.heal();
    let (rate, took) = drain(&mut crowd, &buffered)?;
    let spent = Spent::so_far(site, &crowd)?.since(&spent);
    tally.raise("hub_resident_mib", site.hub_resident_mib()?);
    tally.figure("uploaded", waiting);
    tally.figure("uploaded_in_ms", u64::try_from(took.as_millis())?);
    tally.figure("events_per_second", rate);
    let parts = [("hub", spent.hub), ("postgres", spent.postgres), ("broker", spent.broker), ("fleet", spent.fleet)];
    for (part, time) in parts {
        tally.figure(&format!("{part}_cpu_us_per_event"), u64::try_from(time.as_micros())? / waiting.max(1));
    }
    let told = crowd.end(site)?;
    compare(site, devices, rate, long, tally)?;
    let resident = tally.count_of("hub_resident_mib");
    tally.require(resident <= HUB_MAY_HOLD_MIB, || format!("the hub held {resident} MiB"));
    Ok(told)
}

/// Waits until everything is acknowledged that was buffered. Returns the rate that lasted, in events a second, and how long all of
/// it took, from the moment at which the line was there again.
fn drain(crowd: &mut Crowd, buffered: &Standing) -> Result<(u64, Duration)> {
    let begun = now();
    let waiting = buffered.recorded - buffered.acknowledged;
    let mut until = |tenth: u64| {
        let enough = buffered.acknowledged + waiting * tenth / 10;
        let mut at = 0;
        let there = crowd.until(DRAINED_WITHIN, |standing| {
            at = standing.acknowledged;
            at >= enough
        })?;
        there.context("the fleet's events were not uploaded")?;
        anyhow::Ok((at, begun.elapsed()))
    };
    let (first, last) = (until(TENTHS_BETWEEN.0)?, until(TENTHS_BETWEEN.1)?);
    let (_, took) = until(10)?;
    // A dozen devices are through between two looks.
    let lasting = if last.0 > first.0 { rate(last.0 - first.0, last.1 - first.1) } else { rate(waiting, took) };
    Ok((lasting, took))
}

/// Processor time of the hub, its parts, and the fleet.
struct Spent {
    hub: Duration,
    postgres: Duration,
    broker: Duration,
    fleet: Duration,
}

impl Spent {
    fn so_far(site: &mut Site, crowd: &Crowd) -> Result<Self> {
        Ok(Self {
            fleet: cost::cpu_time(crowd.id())?,
            hub: site.hub_cpu_time()?,
            postgres: site.part_cpu_time(Part::Postgres)?,
            broker: site.part_cpu_time(Part::Broker)?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        let less = |now: Duration, then: Duration| now.saturating_sub(then);
        Self {
            hub: less(self.hub, before.hub),
            postgres: less(self.postgres, before.postgres),
            broker: less(self.broker, before.broker),
            fleet: less(self.fleet, before.fleet),
        }
    }
}

/// The broker alone with as many events, one in a message, and with as many as a device puts into one.
fn compare(site: &Site, devices: u64, rate_of_hub: u64, long: bool, tally: &mut Tally) -> Result<()> {
    let folders: Vec<PathBuf> = (0..usize::try_from(devices)?).map(|index| site.device_dir(index)).collect();
    let (one, hundred) = {
        let device = Device::open(&folders[0], SPACE_ID, None)?;
        let stream = device.outbox.stats()?.stream;
        let bytes = |events| anyhow::Ok(capture(&device, stream, 1, events)?.payload.len());
        (bytes(1)?, bytes(EVENTS_IN_A_BATCH)?)
    };
    let alone = broker_alone(site, &folders, Shape { messages: MESSAGES_EACH, bytes: one })?;
    let floor = rate(alone.heard as u64, alone.took);
    tally.figure("broker_did_not_deliver", alone.missing as u64);
    // The window of the lab's own publishers; more than that would be another finding.
    tally.require(alone.missing < 1000, || format!("the broker alone did not deliver {}", alone.missing));
    let batches = broker_alone(site, &folders, Shape { messages: BATCHES_EACH, bytes: hundred })?;
    tally.figure("broker_events_per_second", floor);
    tally.figure("broker_events_per_second_in_batches", rate(batches.heard as u64 * EVENTS_IN_A_BATCH, batches.took));
    let percent = rate_of_hub * 100 / floor.max(1);
    tally.figure("of_the_broker_percent", percent);
    // A dozen devices are not the load that the figure is about.
    tally.require(!long || percent >= OF_THE_BROKER_PERCENT, || {
        format!("the hub took {rate_of_hub} events a second, {percent} % of the broker's {floor}")
    });
    Ok(())
}

fn rate(events: u64, took: Duration) -> u64 {
    events * 1000 / u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn wall() -> SystemTime {
    SystemTime::from(SystemClock::utc())
}
