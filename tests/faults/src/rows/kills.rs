//! D1: kill -9 while several writers, a hub and a gallery keep the stores busy. What was promised is there, once.
//!
//! The worker is killed 20 to 250 ms after its first promise. Its ledger says what each writer had begun and was promised
//! at that moment: a kill with something begun and not promised fell between write and acknowledgement. The control is the
//! same worker with the promise given before the commit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_store::{GalleryOpened, OutboxOpened};
use tempfile::TempDir;

use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::ledger::{Copied, Ledger};
use crate::rig::random::Random;
use crate::rig::worker::{Task, Worker};
use crate::row::Row;
use crate::work::gallery::{self, Hub};
use crate::work::{GALLERY_LANE, WRITERS, outbox};

/// The row.
pub(super) static D1: Row = Row {
    id: "D1",
    title: "kill -9 under load: every promised event and version is there, once",
    count: 1000,
    small: 20,
    needs: &[],
    run: kills,
};

/// A state directory lives through this many kills. The rounds after a resumption begin with a fresh one.
const KILLS_A_DIRECTORY: u64 = 25;
/// So much the long run must have been promised, or it was no load.
const PROMISED_IN_ALL: u64 = 500_000;
/// And so many of a hundred kills must have fallen between write and acknowledgement.
const BETWEEN_PERCENT: u64 = 30;
/// Kills of the broken variant: it loses in nearly every one.
const CONTROL_KILLS: u64 = 10;

fn kills(lab: &mut Lab) -> Result<Verdict> {
    let program = lab.program("store-worker");
    let mut site = Site::new(&program, "load")?;
    let mut tally = lab.phase("kills", lab.count(), |round, tally| site.round(round, tally))?;
    if lab.is_long() {
        let acked = tally.acked;
        tally.require(acked >= PROMISED_IN_ALL, || format!("only {acked} writes were acknowledged"));
    }
    let between = tally.count_of("between_write_and_ack");
    tally.require(between * 100 >= tally.injected * BETWEEN_PERCENT, || {
        format!("only {between} kills fell between write and acknowledgement")
    });
    let mut site = Site::new(&program, "promise-early")?;
    let control = lab.phase("control", CONTROL_KILLS, |round, tally| site.round(round, tally))?;
    Ok(Verdict { tally, control: Control::of("lost", control.lost) })
}

/// Where the worker works, and what it was promised.
struct Site {
    task: Task,
    ledger: Ledger,
    dir: TempDir,
    /// What the check found after the round before.
    gallery_version: u64,
    _ledger_dir: TempDir,
}

impl Site {
    fn new(program: &Path, job: &'static str) -> Result<Self> {
        let (dir, ledger_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let path = ledger_dir.path().join("ledger");
        let ledger = Ledger::open(&path)?;
        let task = Task { program: PathBuf::from(program), job, dir: dir.path().to_path_buf(), ledger: path, round: 0 };
        Ok(Self { task, ledger, dir, gallery_version: 0, _ledger_dir: ledger_dir })
    }

    fn round(&mut self, round: u64, tally: &mut Tally) -> Result<()> {
        if round.is_multiple_of(KILLS_A_DIRECTORY) {
            self.dir = tempfile::tempdir()?;
            self.task.dir = self.dir.path().to_path_buf();
            self.gallery_version = 0;
        }
        self.task.round = round;
        self.ledger.clear();
        let mut worker = Worker::start(&self.task)?;
        worker.await_promises(&self.ledger, 1)?;
        std::thread::sleep(Duration::from_millis(20 + Random::new(round).below(230)));
        tally.injected += u64::from(worker.kill()?);
        let ledger = self.ledger.copy();
        let in_flight = (0..WRITERS).any(|writer| ledger.begun[writer] > ledger.acked[writer]);
        tally.add("between_write_and_ack", u64::from(in_flight));
        let found = check_outbox(self.dir.path(), round, &ledger, tally)?;
        // Stricter: the commit had reached the file, and its writers had not heard of it.
        tally.add("between_commit_and_ack", u64::from(found > 0));
        self.gallery_version = check_gallery(self.dir.path(), self.gallery_version, &ledger, tally)?;
        Ok(())
    }
}

/// Returns how many events are there that nobody was promised.
pub(super) fn check_outbox(dir: &Path, round: u64, ledger: &Copied, tally: &mut Tally) -> Result<u64> {
    let (outbox, opened) = outbox::open(dir, round).context("the outbox after the fault")?;
    // A kill before anything was promised may leave none.
    let promised = ledger.acked[..WRITERS].iter().any(|acked| *acked > 0);
    let fits = matches!(opened, OutboxOpened::Intact) || (matches!(opened, OutboxOpened::New) && !promised);
    tally.require(fits, || format!("round {round}: the outbox was not opened as it was: {opened:?}"));
    Ok(outbox::check(&outbox, round, ledger, tally)?.unpromised)
}

/// `before` is the version that the gallery had reached when the worker began. Returns the version now.
pub(super) fn check_gallery(dir: &Path, before: u64, ledger: &Copied, tally: &mut Tally) -> Result<u64> {
    let (begun, acked) = (ledger.begun[GALLERY_LANE], ledger.acked[GALLERY_LANE]);
    let (store, opened) = gallery::open(dir).context("the gallery after the fault")?;
    let version = store.version();
    tally.acked += acked.saturating_sub(before);
    tally.lost += acked.max(before).saturating_sub(version);
    tally.require(version <= begun.max(before), || {
        format!("the gallery is at version {version}, the hub had published {begun}")
    });
    // A worker that was killed before the gallery was there leaves nothing of it.
    let promised = acked > 0 || before > 0;
    let fits = matches!(opened, GalleryOpened::Intact) || (matches!(opened, GalleryOpened::New) && !promised);
    tally.require(fits, || format!("the gallery was not opened as it was: {opened:?}"));
    tally.require(store.root() == Hub::at_version(version).root(), || {
        format!("the gallery's root at version {version} is not the hub's")
    });
    Ok(version)
}
