//! D6: the disk fills up and is freed again, over and over. The door opens in time, and no access event is lost.
//!
//! Each cycle has a roomy, a scarce, a full and a freed disk, with visits and faces in each. Scarce: faces are shed, access
//! events are not, and a gap event says how many are missing. Full: nothing can be written, the door goes on by its
//! policy, and what it did is recorded when there is room again. The control is a relay that waits for its record.
//!
//! Then an ext4 that turns read-only under load, as Linux makes it on an error: what was promised is there at the next start.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use edge_store::{ApplyError, GalleryOpened, OutboxOpened, Priority};
use serde_json::Value;

use super::power_cuts::{cut, kept_after};
use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::disk::{Ext4, SmallDisk, own_mounts};
use crate::rig::process::run;
use crate::row::{Need, Row};
use crate::work::door::{LOW_SPACE, MISSED, Relay, Site, Told};
use crate::work::gallery::{self, Hub};
use crate::work::{at, outbox};

/// The row.
pub(super) static D6: Row = Row {
    id: "D6",
    title: "a disk that fills up: doors in time, access events kept, others shed first",
    count: 100,
    small: 4,
    needs: &[
        Need::Root,
        Need::Program("mkfs.ext4", "e2fsprogs"),
        Need::Program("mount", "mount"),
        Need::Program("umount", "mount"),
    ],
    run: cycles,
};

const DISK_KIB: u64 = 24 << 10;
/// What is left when the disk is scarce: less than the outbox wants for faces, enough for access events.
const SCARCE_BYTES: u64 = LOW_SPACE / 2;
const VISITS: u64 = 8;
const FACES: u64 = 12;
/// In a cycle, until the disk is felt.
const MOST_VISITS: u64 = 1000;
/// Visits of which nothing can be written before there is room again.
const VISITS_UNRECORDED: u64 = 3;
/// After more cycles the outbox's file has so much room within that a full disk is no fault for a long time.
const CYCLES_A_DISK: u64 = 4;
/// A decision later than this would be noticed at the door, where 300 ms from arrival is the promise.
const LATE: Duration = Duration::from_millis(50);
/// The record thread tries again twice a second, and then has everything to write.
const RECOVERY: Duration = Duration::from_secs(5);
const CONTROL_CYCLES: u64 = 1;
/// Two scheduler ticks.
const NOISE_US: u64 = 8000;

fn cycles(lab: &mut Lab) -> Result<Verdict> {
    own_mounts()?;
    let (mut site, mut disk) = begin(Relay::First)?;
    let mut tally = lab.phase("cycles", lab.count(), |round, tally| {
        if round > 0 && round.is_multiple_of(CYCLES_A_DISK) {
            (site, disk) = begin(Relay::First)?;
        }
        cycle(&disk, &mut site, tally)
    })?;
    drop((site, disk));
    judge_times(&mut tally);
    tally.merge(lab.phase("stores", 1, |_, tally| {
        outbox_refuses_and_goes_on(tally)?;
        gallery_refuses_and_goes_on(tally)
    })?);
    let program = lab.program("store-worker");
    let rounds = if lab.is_long() { 20 } else { 2 };
    let read_only = lab.phase("read-only", rounds, |round, tally| {
        cut(&program, "load", round, tally, turn_read_only, |dir, ledger, tally| kept_after(dir, round, ledger, tally))
    })?;
    tally.figure("read_only_remounts", read_only.injected);
    tally.merge(Tally { injected: 0, figures: Default::default(), ..read_only });
    let control = lab.phase("control", CONTROL_CYCLES, |_, tally| {
        let (mut site, disk) = begin(Relay::AfterTheRecord)?;
        cycle(&disk, &mut site, tally)
    })?;
    Ok(Verdict { tally, control: Control::of("late_or_missing", control.count_of("late_or_missing")) })
}

/// The site stands first, so that it ends before its disk goes.
fn begin(relay: Relay) -> Result<(Site, SmallDisk)> {
    let disk = SmallDisk::new(DISK_KIB)?;
    let site = Site::open(disk.path(), relay)?;
    Ok((site, disk))
}

fn cycle(disk: &SmallDisk, site: &mut Site, tally: &mut Tally) -> Result<()> {
    let before = site.deliver()?;
    tally.require(before == Told::default(), || format!("the last cycle left {before:?}"));
    use_door(site, "roomy", tally)?;
    tally.require(site.settled(RECOVERY), || "events are not recorded although there is room".to_owned());

    disk.fill_but(SCARCE_BYTES)?;
    use_door(site, "scarce", tally)?;
    tally.require(site.settled(RECOVERY), || {
        "access events are not recorded although there is room for them".to_owned()
    });

    disk.free()?;
    disk.fill_but(0)?;
    use_door(site, "full", tally)?;
    let mut visits = 3 * VISITS;
    // The fault was there only if somebody felt it: the outbox's file may have had a little room within.
    while site.recording() && visits < MOST_VISITS {
        visit(site, "full", tally)?;
        visits += 1;
    }
    tally.injected += u64::from(!site.recording());
    for _ in 0..VISITS_UNRECORDED {
        visit(site, "full", tally)?;
        visits += 1;
    }
    disk.free()?;
    tally.require(site.settled(RECOVERY), || "recording does not recover by itself".to_owned());
    judge(&site.deliver()?, visits, tally);
    Ok(())
}

/// Visits and faces, with the time of each decision noted.
fn use_door(site: &mut Site, disk: &str, tally: &mut Tally) -> Result<()> {
    for _ in 0..FACES {
        site.face_appears();
    }
    (0..VISITS).try_for_each(|_| visit(site, disk, tally))
}

fn visit(site: &mut Site, disk: &str, tally: &mut Tally) -> Result<()> {
    let took = site.visit()?;
    if took.is_none_or(|took| took > LATE) {
        tally.add("late_or_missing", 1);
        tally.breach(format!("{disk}: a decision took {:?}", took.unwrap_or(MISSED)));
    }
    let micros = took.unwrap_or(MISSED).as_micros();
    let times = tally.figures.entry(times_of(disk)).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(times) = times {
        times.push(Value::from(u64::try_from(micros).unwrap_or(u64::MAX)));
    }
    Ok(())
}

/// Each visit is an entry, an opening and a shutting, recorded once; a face is recorded, or counted as missing.
fn judge(told: &Told, visits: u64, tally: &mut Tally) {
    tally.acked += told.granted + told.moves;
    tally.lost += visits.saturating_sub(told.granted) + (2 * visits).saturating_sub(told.moves);
    tally.duplicated += told.granted.saturating_sub(visits) + told.moves.saturating_sub(2 * visits);
    tally.add("faces_recorded", told.faces);
    tally.add("faces_shed", told.missing);
    tally.add("gap_events", told.gaps);
    tally.require(told.faces + told.missing == 3 * FACES, || {
        format!("of {} faces {} are recorded, and the gaps say {}", 3 * FACES, told.faces, told.missing)
    });
    tally.require(told.missing >= FACES, || format!("only {} faces were shed on a scarce disk", told.missing));
}

fn times_of(disk: &str) -> String {
    format!("{disk}_times_us")
}

/// Turns the times into percentiles, and compares those of the full disk with those of the roomy one.
fn judge_times(tally: &mut Tally) {
    let mut p99 = |disk: &str| {
        let Some(Value::Array(times)) = tally.figures.remove(&times_of(disk)) else { return 0 };
        let mut times: Vec<u64> = times.iter().filter_map(Value::as_u64).collect();
        times.sort_unstable();
        let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or(0);
        tally.figure(&format!("decision_p99_us_{disk}"), p99);
        p99
    };
    let (roomy, _, full) = (p99("roomy"), p99("scarce"), p99("full"));
    // Ten per cent; and as these are fractions of a millisecond on a shared machine, at least what its scheduler takes.
    let allowed = (roomy + roomy / 10).max(roomy + NOISE_US);
    tally.require(full <= allowed, || format!("decisions take {full} us on a full disk, {roomy} us on a roomy one"));
}

/// A full disk is an error that says so, nothing is promised on it, and the same outbox goes on when there is room.
fn outbox_refuses_and_goes_on(tally: &mut Tally) -> Result<()> {
    let disk = SmallDisk::new(2048)?;
    let (outbox, _) = outbox::open(disk.path(), 0)?;
    let append = |n| outbox.append(at(0), Priority::MustKeep, |_| outbox::event(0, 0, n));
    let mut recorded = 0;
    let error = loop {
        match append(recorded + 1) {
            Ok(_) => recorded += 1,
            Err(error) => break error,
        }
    };
    tally.require(error.is_disk_full() && recorded > 100, || format!("after {recorded} events: {error}"));
    tally.require(append(recorded + 1).is_err_and(|error| error.is_disk_full()), || "it is full no more".to_owned());
    disk.remount("size=16384k")?;
    append(recorded + 1)?;
    drop(outbox);
    let (outbox, opened) = outbox::open(disk.path(), 0)?;
    tally.require(matches!(opened, OutboxOpened::Intact), || format!("{opened:?}"));
    let last = outbox.stats()?.last_sequence;
    tally.require(last == recorded + 1, || format!("{} events were recorded, {last} are there", recorded + 1));
    Ok(())
}

/// The same of the gallery: the refused record is applied when there is room.
fn gallery_refuses_and_goes_on(tally: &mut Tally) -> Result<()> {
    let disk = SmallDisk::new(4096)?;
    let (mut store, _) = gallery::open(disk.path())?;
    let mut hub = Hub::new();
    let (record, root, error) = loop {
        let (record, root) = hub.publish();
        if let Err(error) = store.apply(std::slice::from_ref(&record), root) {
            break (record, root, error);
        }
    };
    let full = matches!(&error, ApplyError::Store(error) if error.is_disk_full());
    tally.require(full && store.version() == record.version - 1, || format!("at {}: {error}", store.version()));
    disk.remount("size=65536k")?;
    store.apply(std::slice::from_ref(&record), root)?;
    drop(store);
    let (store, opened) = gallery::open(disk.path())?;
    tally.require(matches!(opened, GalleryOpened::Intact), || format!("{opened:?}"));
    tally.require((store.version(), store.root()) == (record.version, root), || "a version is gone".to_owned());
    Ok(())
}

/// Turns the file system read-only, as an error on its device does.
fn turn_read_only(disk: &Ext4) -> Result<bool> {
    run(Command::new("mount").args(["-o", "remount,abort"]).arg(disk.path()))?;
    Ok(std::fs::File::create(disk.path().join("after")).is_err())
}
