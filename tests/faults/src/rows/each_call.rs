//! D2: a kill at every call by which a workload changes its files. What was promised is there, once.
//!
//! 300 operations of all kinds, the same every time. The calls (writes, fsyncs, renames, removals …) are counted in the worker
//! itself, over all its threads in one order (`strace` counts per thread); each is killed twice, just before it is made
//! and in the middle of it. In memory: what a kill leaves does not depend on the disk.

use std::path::Path;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::kills::{check_gallery, check_outbox};
use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::ledger::{CALLS_LANE, Ledger};
use crate::rig::plan::Plan;
use crate::rig::worker::{Task, Worker};
use crate::row::Row;

/// The row. Its long count is less than the workload has calls: every one of them is killed then.
pub(super) static D2: Row = Row {
    id: "D2",
    title: "a kill at every call that changes a file: nothing promised is lost",
    count: 2000,
    small: 60,
    needs: &[],
    run: every_call,
};

/// Kills of the broken variant, spread over the workload.
const CONTROL_KILLS: u64 = 40;

fn every_call(lab: &mut Lab) -> Result<Verdict> {
    let program = lab.program("store-worker");
    let calls = count_calls(&program)?;
    // Before and within each call when it is for long; else as many as asked for, evenly spread.
    let rounds = if lab.is_long() { 2 * calls } else { lab.count() };
    let mut tally = lab.phase("calls", rounds, |round, tally| {
        let place = round * 2 * calls / rounds;
        let call = place / 2 + 1;
        let plan = if place.is_multiple_of(2) { Plan::KillBefore(call) } else { Plan::KillWithin(call) };
        kill_at(&program, "operations", plan, tally)
    })?;
    tally.figure("calls", calls);
    let control = lab.phase("control", CONTROL_KILLS, |round, tally| {
        kill_at(&program, "operations-early", Plan::KillBefore(calls * (round + 1) / (CONTROL_KILLS + 1)), tally)
    })?;
    Ok(Verdict { tally, control: Control::of("lost", control.lost) })
}

/// A directory in memory where there is one: thousands of runs of a workload that fsyncs all the time.
pub(super) fn memory_dir() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? })
}

/// How many calls the workload makes when nobody disturbs it.
fn count_calls(program: &Path) -> Result<u64> {
    let dir = memory_dir()?;
    let (ledger, task) = task(program, "operations", dir.path())?;
    let status = Worker::start_with(&task, &Plan::KillBefore(u64::MAX))?.end()?;
    ensure!(status.success(), "the workload fails undisturbed ({status})");
    let calls = ledger.copy().acked[CALLS_LANE];
    ensure!(calls > 1000, "only {calls} calls were seen: they do not pass through the worker's own functions");
    Ok(calls)
}

fn kill_at(program: &Path, job: &'static str, plan: Plan, tally: &mut Tally) -> Result<()> {
    let dir = memory_dir()?;
    let (ledger, task) = task(program, job, dir.path())?;
    // It ends by its own hand; one that does not was not killed, and is not counted.
    tally.injected += u64::from(Worker::start_with(&task, &plan)?.was_killed()?);
    let ledger = ledger.copy();
    let told = tally.told.len();
    let unpromised = check_outbox(&task.dir, 0, &ledger, tally)?;
    tally.add("between_commit_and_ack", u64::from(unpromised > 0));
    check_gallery(&task.dir, 0, &ledger, tally)?;
    for breach in &mut tally.told[told..] {
        *breach += &format!(" ({plan})");
    }
    Ok(())
}

pub(super) fn task(program: &Path, job: &'static str, dir: &Path) -> Result<(Ledger, Task)> {
    let path = dir.join("ledger");
    let state = dir.join("state");
    std::fs::create_dir(&state)?;
    let ledger = Ledger::open(&path)?;
    Ok((ledger, Task { program: program.to_path_buf(), job, dir: state, ledger: path, round: 0 }))
}
