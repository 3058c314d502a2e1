//! D5: each fsync of a workload fails once, and the next ones succeed. No promise rests on the one that failed.
//!
//! After a failed fsync the kernel has dropped the dirty pages and calls them clean. An outbox that was refused promises
//! nothing more until the process is a new one; a gallery goes on only in a new generation of files. What was promised is
//! there at the next start. The control opens its outbox again in the same process, as if that were a new one.

use std::path::Path;

use anyhow::{Result, ensure};

use super::each_call::{memory_dir, task};
use super::kills::{check_gallery, check_outbox};
use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::ledger::{CALLS_LANE, SYNCS_LANE};
use crate::rig::plan::Plan;
use crate::rig::worker::Worker;
use crate::row::Row;
use crate::work::{GALLERY_REFUSED_LANE, OUTBOX_REFUSED_LANE};

/// The row. Its long count is less than the workload has fsyncs: every one of them fails then.
pub(super) static D5: Row = Row {
    id: "D5",
    title: "each fsync fails once: nothing is promised on it",
    count: 300,
    small: 40,
    needs: &[],
    run: every_fsync,
};

const CONTROL_ROUNDS: u64 = 12;

fn every_fsync(lab: &mut Lab) -> Result<Verdict> {
    let program = lab.program("store-worker");
    // The last few may not come every time: sled's own threads make the number vary.
    let syncs = count_syncs(&program)? - 4;
    let rounds = if lab.is_long() { syncs } else { lab.count().min(syncs) };
    let mut tally = lab.phase("fsyncs", rounds, |round, tally| {
        fail(&program, "despite-errors", round * syncs / rounds + 1, tally)?;
        Ok(())
    })?;
    tally.figure("fsyncs", syncs);
    tally.require(tally.count_of("outbox_refusals") > 0, || "no fsync of the outbox was hit".to_owned());
    tally.require(tally.count_of("gallery_refusals") > 0, || "no fsync of the gallery was hit".to_owned());
    let control = lab.phase("control", CONTROL_ROUNDS, |round, tally| {
        fail(&program, "despite-errors-reopened", syncs * (round + 1) / (CONTROL_ROUNDS + 1), tally)
    })?;
    Ok(Verdict { tally, control: Control::of("false_acks", control.count_of("false_acks")) })
}

fn count_syncs(program: &Path) -> Result<u64> {
    let dir = memory_dir()?;
    let (ledger, task) = task(program, "despite-errors", dir.path())?;
    let status = Worker::start_with(&task, &Plan::FailSync(u64::MAX))?.end()?;
    ensure!(status.success(), "the workload fails undisturbed ({status})");
    let ledger = ledger.copy();
    let syncs = ledger.acked[SYNCS_LANE];
    ensure!(syncs > 100 && syncs < ledger.acked[CALLS_LANE], "only {syncs} fsyncs were seen");
    let refused = ledger.begun[OUTBOX_REFUSED_LANE] + ledger.begun[GALLERY_REFUSED_LANE];
    ensure!(refused == 0, "{refused} operations are refused undisturbed");
    Ok(syncs)
}

fn fail(program: &Path, job: &'static str, which: u64, tally: &mut Tally) -> Result<()> {
    let dir = memory_dir()?;
    let (ledger, task) = task(program, job, dir.path())?;
    // One that fails while the stores are opened ends the worker: it promised nothing.
    Worker::start_with(&task, &Plan::FailSync(which))?.end()?;
    let ledger = ledger.copy();
    let ended = ledger.acked[CALLS_LANE] > 0;
    tally.require(ended, || format!("fsync {which} failed, and the worker did not come to its end"));
    tally.injected += ledger.begun[SYNCS_LANE];
    let [outbox, gallery] = [OUTBOX_REFUSED_LANE, GALLERY_REFUSED_LANE];
    tally.add("outbox_refusals", u64::from(ledger.begun[outbox] > 0));
    tally.add("gallery_refusals", u64::from(ledger.begun[gallery] > 0));
    let false_acks = ledger.acked[outbox] + ledger.acked[gallery];
    tally.add("false_acks", false_acks);
    tally.require(false_acks == 0, || format!("fsync {which} failed, and {false_acks} promises came after it"));
    check_outbox(&task.dir, 0, &ledger, tally)?;
    check_gallery(&task.dir, 0, &ledger, tally).map(drop)
}
