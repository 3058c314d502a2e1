//! D3: the power goes while the stores work. What was promised is there after the reboot, and everything opens.
//!
//! ext4 on a loop device and the kernel's own shutdown without a log flush, each time on a fresh file system. Bare sled is
//! the control: it must lose, or the cuts cut nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::kills::{check_gallery, check_outbox};
use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::disk::{Ext4, own_mounts};
use crate::rig::ledger::{Copied, Ledger};
use crate::rig::random::Random;
use crate::rig::worker::{Task, Worker};
use crate::row::{Need, Row};

/// The row.
pub(super) static D3: Row = Row {
    id: "D3",
    title: "kernel power cuts on ext4: nothing promised is lost, everything opens",
    count: 1000,
    small: 8,
    needs: &[
        Need::Root,
        Need::Program("mkfs.ext4", "e2fsprogs"),
        Need::Program("mount", "mount"),
        Need::Program("umount", "mount"),
    ],
    run: cuts,
};

/// Cuts under bare sled. 33 of 40 hurt it when it was measured, so that six that do not are a one in 30,000 chance.
const CONTROL_CUTS: u64 = 6;
/// Promises before the cut may come: the stores are made by then.
const WARM: u64 = 5;

fn cuts(lab: &mut Lab) -> Result<Verdict> {
    own_mounts()?;
    let program = lab.program("store-worker");
    let tally = lab.phase("cuts", lab.count(), |round, tally| {
        cut(&program, "load", round, tally, Ext4::cut_power, |dir, ledger, tally| kept_after(dir, round, ledger, tally))
    })?;
    let control_cuts = if lab.is_long() { 10 * CONTROL_CUTS } else { CONTROL_CUTS };
    let control = lab.phase("control", control_cuts, |round, tally| {
        cut(&program, "bare-sled", round, tally, Ext4::cut_power, |dir, ledger, tally| {
            tally.lost += u64::from(!sled_kept(dir, ledger.acked[0]));
            Ok(())
        })
    })?;
    Ok(Verdict { tally, control: Control::of("lost", control.lost) })
}

/// Whether both stores open and have what was promised.
pub(super) fn kept_after(dir: &Path, round: u64, ledger: &Copied, tally: &mut Tally) -> Result<()> {
    let unpromised = check_outbox(dir, round, ledger, tally)?;
    tally.add("between_commit_and_ack", u64::from(unpromised > 0));
    check_gallery(dir, 0, ledger, tally).map(drop)
}

/// Takes the disk away under a worker, and judges what is left after the reboot. `take` says whether it is really gone.
pub(super) fn cut(
    program: &Path,
    job: &'static str,
    round: u64,
    tally: &mut Tally,
    take: impl FnOnce(&Ext4) -> Result<bool>,
    check: impl FnOnce(&Path, &Copied, &mut Tally) -> Result<()>,
) -> Result<()> {
    let ledger_dir = tempfile::tempdir()?;
    let path = ledger_dir.path().join("ledger");
    let ledger = Ledger::open(&path)?;
    let mut disk = Ext4::new()?;
    let task = Task { program: program.to_path_buf(), job, dir: disk.path(), ledger: path, round };
    let mut worker = Worker::start(&task)?;
    worker.await_promises(&ledger, WARM)?;
    std::thread::sleep(Duration::from_millis(Random::new(round).below(300)));
    // What counts is what was promised before the cut. A real one stops the processor too; this one lets the worker run
    // on, and an fsync that waits while the kernel gives the journal up can be told that all is well.
    let before = ledger.copy();
    tally.injected += u64::from(take(&disk)?);
    // It may have ended by itself: its disk refuses.
    worker.kill()?;
    let after = ledger.copy();
    tally.add("promised_during_the_cut", after.all_acked() - before.all_acked());
    disk.reboot()?;
    check(&disk.path(), &Copied { begun: after.begun, ..before }, tally)
}

/// Whether bare sled still has everything that it called flushed. It may also refuse to open, or panic.
pub(super) fn sled_kept(dir: &Path, acked: u64) -> bool {
    let dir = dir.join("sled");
    catch_unwind(AssertUnwindSafe(|| {
        let Ok(db) = sled::open(dir) else { return false };
        (1..=acked).all(|n| db.get(n.to_be_bytes()).is_ok_and(|value| value.is_some()))
    }))
    .unwrap_or(false)
}
