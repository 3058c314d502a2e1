//! D4: what a power cut may leave on a disk that writes when it likes. Everything opens, and what was promised is there.
//!
//! A workload is recorded call by call with its promises. A cut falls between two calls: what was fsynced before is on the
//! disk, and of the rest any 512-byte sectors ([`crate::rig::crash`]). The stores are then opened on what is left. Bare sled
//! is the control.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::each_call::{memory_dir, task};
use super::kills::{check_gallery, check_outbox};
use super::power_cuts::sled_kept;
use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::crash::Disk;
use crate::rig::ledger::{Copied, LANES};
use crate::rig::plan::Plan;
use crate::rig::random::Random;
use crate::rig::record::Op;
use crate::rig::worker::Worker;
use crate::row::Row;

/// The row.
pub(super) static D4: Row = Row {
    id: "D4",
    title: "modelled power cuts: any sectors since the last fsync may be missing",
    count: 10_000,
    small: 150,
    needs: &[],
    run: cuts,
};

const CONTROL_CUTS: u64 = 20;

fn cuts(lab: &mut Lab) -> Result<Verdict> {
    let program = lab.program("store-worker");
    let recording = Recording::make(&program, "operations")?;
    let mut tally = lab.phase("cuts", lab.count(), |round, tally| judge(&recording, round, tally))?;
    tally.figure("calls_recorded", recording.ops.len() as u64);
    let bare = Recording::make(&program, "bare-sled-short")?;
    let control = lab.phase("control", CONTROL_CUTS, |round, tally| {
        let left = bare.cut(round)?;
        tally.lost += u64::from(!sled_kept(left.dir.path(), left.promised.acked[0]));
        Ok(())
    })?;
    // The same stores, on a disk that never does what an fsync asks.
    let unsynced = recording.without_fsyncs();
    let without = lab.phase("without-fsync", CONTROL_CUTS, |round, tally| judge(&unsynced, round, tally))?;
    let control = Control::of("lost", control.lost).and("lost_without_fsync", without.lost + without.breaches);
    Ok(Verdict { tally, control })
}

/// Cuts once, opens what is left, and compares it with what was promised.
fn judge(recording: &Recording, round: u64, tally: &mut Tally) -> Result<()> {
    let left = recording.cut(round)?;
    let told = tally.told.len();
    let opened = catch_unwind(AssertUnwindSafe(|| {
        check_outbox(left.dir.path(), 0, &left.promised, tally)?;
        check_gallery(left.dir.path(), 0, &left.promised, tally)
    }));
    match opened {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tally.breach(format!("a store does not open: {error:#}")),
        Err(_) => tally.breach("a store panicked"),
    }
    for breach in &mut tally.told[told..] {
        *breach += &format!(" (cut {round}, after call {} of {})", left.at, recording.ops.len());
    }
    tally.injected += 1;
    tally.add("cuts_with_unsynced_changes", u64::from(left.loose > 0));
    Ok(())
}

/// The calls and promises of a workload.
struct Recording {
    root: PathBuf,
    ops: Vec<Op>,
}

/// What a cut left.
struct Left {
    dir: TempDir,
    at: usize,
    /// Changes that no fsync had made certain.
    loose: usize,
    promised: Copied,
}

impl Recording {
    fn make(program: &Path, job: &'static str) -> Result<Self> {
        let dir = memory_dir()?;
        let (_ledger, task) = task(program, job, dir.path())?;
        let file = dir.path().join("recording");
        let status = Worker::start_with(&task, &Plan::Record(file.clone()))?.end()?;
        ensure!(status.success(), "the recorded workload fails ({status})");
        let ops = Op::decode_all(&fs::read(&file)?)?;
        let promises = ops.iter().filter(|op| matches!(op, Op::Promise { .. })).count();
        ensure!(promises > 100, "only {promises} promises were recorded");
        Ok(Self { root: task.dir.canonicalize()?, ops })
    }

    fn cut(&self, round: u64) -> Result<Left> {
        let mut random = Random::new(round);
        let at = usize::try_from(1 + random.below(self.ops.len() as u64))?;
        let before = &self.ops[..at];
        // What was begun is not recorded: that nothing is there which was not begun is for the kills to show.
        let mut promised = Copied { begun: [u64::MAX; LANES], acked: [0; LANES] };
        for op in before {
            if let Op::Promise { lane, through } = op {
                promised.acked[*lane] = *through;
            }
        }
        let dir = memory_dir()?;
        let disk = Disk::after(before);
        disk.cut(&self.root, dir.path(), &mut random)?;
        Ok(Left { dir, at, loose: disk.loose(), promised })
    }

    fn without_fsyncs(&self) -> Self {
        let ops = self.ops.iter().filter(|op| !matches!(op, Op::Sync(_))).cloned().collect();
        Self { root: self.root.clone(), ops }
    }
}
