//! D9: the kernel kills the process because it takes too much memory. It is back soon, and nothing promised is lost.
//!
//! A worker under load in a control group of its own, and a thread in it that takes memory until the end. The kernel's own
//! count says that it was the kernel. The next worker, as a supervisor would start it, must be promised its first event
//! in time. The control is the worker that promises before the commit.

use std::path::Path;

use anyhow::Result;

use super::kills::{check_gallery, check_outbox};
use crate::lab::{Lab, now};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::cgroup::MemoryGroup;
use crate::rig::damage::copy_dir;
use crate::rig::ledger::Ledger;
use crate::rig::worker::{Task, Worker};
use crate::row::{Need, Row};

/// The row.
pub(super) static D9: Row = Row {
    id: "D9",
    title: "out-of-memory kills: back within 3 s, nothing promised is lost",
    count: 50,
    small: 4,
    needs: &[Need::Root, Need::MemoryCgroup],
    run: kills,
};

/// What a worker may hold: the least that the matrix asks for. Its thread has taken it in a quarter of a second.
const LIMIT_BYTES: u64 = 64 << 20;
const BACK_WITHIN_MS: u64 = 3000;
const CONTROL_KILLS: u64 = 4;
/// Promises that a worker must have been given before its memory runs out: else there is nothing to lose.
const WARM: u64 = 1;

fn kills(lab: &mut Lab) -> Result<Verdict> {
    let program = lab.program("store-worker");
    let group = MemoryGroup::new(LIMIT_BYTES)?;
    let tally = lab.phase("kills", lab.count(), |round, tally| kill(&program, "load-growing", &group, round, tally))?;
    let control = lab.phase("control", CONTROL_KILLS, |round, tally| {
        kill(&program, "promise-early-growing", &group, round, tally)
    })?;
    Ok(Verdict { tally, control: Control::of("lost", control.lost) })
}

fn kill(program: &Path, job: &'static str, group: &MemoryGroup, round: u64, tally: &mut Tally) -> Result<()> {
    let (dir, ledger_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let path = ledger_dir.path().join("ledger");
    let ledger = Ledger::open(&path)?;
    let mut task = Task { program: program.to_path_buf(), job, dir: dir.path().to_path_buf(), ledger: path, round };
    let before = group.kills()?;
    let mut worker = Worker::start_in(&task, group)?;
    worker.await_promises(&ledger, WARM)?;
    let killed = worker.was_killed()?;
    tally.injected += u64::from(killed && group.kills()? > before);
    let promised = ledger.copy();
    // The check opens the stores, which mends them: the next worker must find them as they were left.
    let left = tempfile::tempdir()?;
    copy_dir(dir.path(), left.path())?;
    ledger.clear();
    task.job = "load";
    task.round = round + 1;
    let begun = now();
    let mut next = Worker::start(&task)?;
    next.await_promises(&ledger, 1)?;
    let back = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    next.kill()?;
    tally.raise("slowest_restart_ms", back);
    tally.require(back <= BACK_WITHIN_MS, || format!("round {round}: back after {back} ms"));
    check_outbox(left.path(), round, &promised, tally)?;
    check_gallery(left.path(), 0, &promised, tally).map(drop)
}
