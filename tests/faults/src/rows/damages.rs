//! D7: every file of a state directory is damaged, one way and one at a time. It is noticed, or it changes nothing.
//!
//! Flipped bits, cut ends, zeroed pages, rubbish behind the end, removed and swapped files, old copies, over all files: keys,
//! identity, outbox, gallery and their watermarks. What is then opened answers exactly as before, or it says that it
//! cannot be trusted, and its key is destroyed. Never a wrong match, never an event gone in silence, never a panic.
//! Bare sled, as it comes, is the control: what is cut off behind a flipped bit it never misses.
//!
//! The filling of an emptied gallery is measured too: 10,000 people, from the hub's records, and from its snapshot, to an index
//! that finds them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Result, ensure};
use edge_store::{DeviceKeys, Identity};
use gallery_log::{Record, Root};
use tempfile::TempDir;

use super::each_call::memory_dir;
use super::rebuilding::{CUTS, Filled, Made};
use crate::lab::{Lab, now};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::damage::{copy_dir, damage, files_below};
use crate::rig::random::Random;
use crate::row::Row;
use crate::work::state::{self, People};
use crate::work::{gallery, outbox};

/// The row.
pub(super) static D7: Row = Row {
    id: "D7",
    title: "every file damaged in every way: noticed or harmless, never a wrong match",
    count: 10_000,
    small: 150,
    needs: &[],
    run: damages,
};

const CONTROL_ROUNDS: u64 = 20;
/// People in the gallery that is filled anew.
const REBUILT_PEOPLE: u64 = 10_000;
const REBUILT_WITHIN_MS: u64 = 5000;
/// As many records as the hub sends with one root.
const RECORDS_AT_ONCE: usize = 1000;

fn damages(lab: &mut Lab) -> Result<Verdict> {
    let original = Original::make()?;
    let mut tally = lab.phase("damages", lab.count(), |round, tally| original.round(round, tally))?;
    let (noticed, harmless) = (tally.count_of("noticed"), tally.count_of("harmless"));
    tally.require(noticed > 0 && harmless > 0, || format!("{noticed} were noticed, {harmless} were harmless"));
    tally.merge(lab.phase("rebuild", 1, |_, tally| rebuild(tally))?);
    let control = lab.phase("control", CONTROL_ROUNDS, |round, tally| {
        tally.add("silent_losses", u64::from(bare_sled_loses(round)?));
        Ok(())
    })?;
    Ok(Verdict { tally, control: Control::of("silent_losses", control.count_of("silent_losses")) })
}

/// The state that is damaged, in copies, and an earlier one of the same directory.
struct Original {
    dir: TempDir,
    older: TempDir,
}

impl Original {
    fn make() -> Result<Self> {
        let (dir, older) = (memory_dir()?, memory_dir()?);
        state::make(dir.path(), older.path())?;
        let mut tally = Tally::default();
        let judged = judge(dir.path(), &mut tally)?;
        ensure!(
            judged.is_empty() && tally.breaches == 0,
            "the undamaged state is not in order: {judged:?} {:?}",
            tally.told
        );
        Ok(Self { dir, older })
    }

    fn round(&self, round: u64, tally: &mut Tally) -> Result<()> {
        let copy = memory_dir()?;
        copy_dir(self.dir.path(), copy.path())?;
        let mut random = Random::new(round);
        // What changes nothing is no damage: another is drawn.
        let done = loop {
            if let Some(done) = damage(copy.path(), self.older.path(), &mut random)? {
                break done;
            }
        };
        let (told, store_keys) = (tally.told.len(), state::store_keys(copy.path())?);
        let judged = catch_unwind(AssertUnwindSafe(|| judge(copy.path(), tally)));
        let noticed = judged.unwrap_or_else(|_| Ok(vec!["panic"]))?;
        tally.require(!noticed.contains(&"panic"), || "it panicked".to_owned());
        if noticed.contains(&"gallery") {
            let left = state::store_keys(copy.path())?;
            let destroyed = store_keys.iter().all(|key| !left.contains(key));
            tally.require(destroyed, || "the gallery is doubted and its key is still there".to_owned());
        }
        for breach in &mut tally.told[told..] {
            *breach += &format!(" ({done})");
        }
        tally.injected += 1;
        tally.add(if noticed.is_empty() { "harmless" } else { "noticed" }, 1);
        for what in noticed {
            tally.add(&format!("noticed_{what}"), 1);
        }
        Ok(())
    }
}

/// Opens everything as the agent does at its start; returns what says that it is not in order. Wrong answers are breaches.
fn judge(dir: &Path, tally: &mut Tally) -> Result<Vec<&'static str>> {
    let mut noticed = Vec::new();
    match Identity::load(dir) {
        Ok(Some(found)) => tally.require(state::same_identity(&found, &state::identity()), || {
            "the identity is another one, and nobody noticed".to_owned()
        }),
        Ok(None) => tally.breach("the identity is gone, and nobody noticed"),
        Err(_) => noticed.push("identity"),
    }
    let Ok(keys) = DeviceKeys::open(&dir.join("keys"), None) else {
        noticed.push("keys");
        return Ok(noticed);
    };
    match keys.link() {
        Ok(Some(link)) if link.current.epoch == 1 && *link.current.key == [8; 32] => {}
        // The link is made anew with the hub.
        Ok(None) | Err(_) => noticed.push("link"),
        Ok(Some(_)) => tally.breach("the link key is another one, and nobody noticed"),
    }
    match outbox::open(dir, 0) {
        Ok((outbox, opened)) if state::went_on(&opened) => match state::wrong_events(&outbox) {
            Ok(wrong) => tally.require(wrong.is_none(), || wrong.unwrap_or_default()),
            Err(_) => noticed.push("outbox"),
        },
        Ok((_, opened)) => {
            let told = matches!(opened, edge_store::OutboxOpened::Renewed(_));
            tally.require(told, || "a filled outbox was taken for none".to_owned());
            noticed.push("outbox");
        }
        Err(_) => noticed.push("outbox"),
    }
    judge_gallery(dir, &keys, &mut noticed, tally)?;
    Ok(noticed)
}

fn judge_gallery(dir: &Path, keys: &DeviceKeys, noticed: &mut Vec<&'static str>, tally: &mut Tally) -> Result<()> {
    let Ok((galleries, rebuilt)) = state::open_galleries(dir, keys) else {
        noticed.push("gallery_refused");
        return Ok(());
    };
    let roster = galleries.roster().load_full();
    let known = roster.snapshot().n_people();
    if rebuilt {
        tally.require(known == 0, || format!("a gallery that is doubted knows {known} people"));
        // Without its own keys a gallery is closed, and its store is left for the hub to give the keys again.
        noticed.push(if keys.gallery(gallery::id()).is_ok_and(|keys| keys.is_some()) {
            "gallery"
        } else {
            "gallery_keys"
        });
    } else if known == 0 && keys.gallery(gallery::id())?.is_none() {
        noticed.push("gallery_keys_gone");
    } else if let Some(wrong) = state::wrong_match(&roster) {
        tally.breach(wrong);
    }
    Ok(())
}

/// Fills an empty gallery with 10,000 people from the hub's records, until the index finds the last of them.
fn rebuild(tally: &mut Tally) -> Result<()> {
    let mut people = People::new();
    let mut records = Vec::new();
    let mut batches = Vec::new();
    for number in 1..=REBUILT_PEOPLE {
        records.extend(people.enrol(number)?);
        if records.len() >= RECORDS_AT_ONCE || number == REBUILT_PEOPLE {
            batches.push((std::mem::take(&mut records), people.root()));
        }
    }
    let dir = tempfile::tempdir()?;
    let keys = DeviceKeys::open(&dir.path().join("keys"), None)?;
    let (galleries, _) = state::open_galleries(dir.path(), &keys)?;
    galleries.assign(gallery::id(), &gallery::keys())?;
    let begun = now();
    for (records, root) in &batches {
        galleries.apply(gallery::id(), records, *root)?;
    }
    let known = galleries.roster().load().snapshot().n_people() as u64;
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tally.figure("rebuild_10000_ms", took);
    tally.require(known == REBUILT_PEOPLE, || format!("{known} people are known after the rebuild"));
    tally.require(took <= REBUILT_WITHIN_MS, || format!("filling 10,000 people took {took} ms"));
    let root = people.root();
    let records: Vec<Record> = batches.into_iter().flat_map(|(records, _)| records).collect();
    rebuild_by_snapshot(&records, root, tally)
}

/// The same by a snapshot: in one go, and with the line cut and the agent started again at random bytes.
fn rebuild_by_snapshot(records: &[Record], root: Root, tally: &mut Tally) -> Result<()> {
    let snapshot = Made::of(records, records.len() as u64, root)?;
    let mut random = Random::new(7);
    for (name, cuts) in [("rebuild_10000_snapshot_ms", 0), ("rebuild_10000_snapshot_cut_ms", CUTS)] {
        let dir = tempfile::tempdir()?;
        let filled = snapshot.fill(dir.path(), cuts, &mut random)?;
        let took = u64::try_from(filled.took.as_millis()).unwrap_or(u64::MAX);
        tally.figure(name, took);
        let Filled { people, sent, .. } = filled;
        tally.require(people == REBUILT_PEOPLE, || format!("{people} people are known after a snapshot"));
        tally.require(sent == snapshot.bytes(), || format!("{sent} bytes were sent for {}", snapshot.bytes()));
        tally.require(cuts > 0 || took <= REBUILT_WITHIN_MS, || format!("a snapshot of 10,000 people took {took} ms"));
    }
    tally.figure("snapshot_cuts", CUTS);
    Ok(())
}

/// One flipped bit in sled as it comes: true when records are gone and it says nothing.
fn bare_sled_loses(round: u64) -> Result<bool> {
    const RECORDS: u64 = 200;
    let dir = memory_dir()?;
    let path = dir.path().join("sled");
    {
        let db = sled::Config::new().path(&path).flush_every_ms(None).open()?;
        for n in 0..RECORDS {
            db.insert(n.to_be_bytes(), [7; 72].as_slice())?;
        }
    }
    let file = path.join("db");
    ensure!(files_below(&path)?.contains(&file), "sled has no file db");
    let mut bytes = fs::read(&file)?;
    // Within what is written: sled makes its file longer than that.
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
    let place = usize::try_from(Random::new(round).below(written))?;
    bytes[place] ^= 1;
    fs::write(&file, bytes)?;
    let kept = catch_unwind(AssertUnwindSafe(|| sled::open(&path).map(|db| db.len() as u64)));
    Ok(matches!(kept, Ok(Ok(kept)) if kept < RECORDS))
}
