//! A process that works on the stores until it is killed: what the durability rows of the fault lab kill.
//!
//! `store-worker JOB DIR LEDGER ROUND [PLAN]`: does a job of `fault_lab::work::jobs` in a state directory. With a plan, each
//! call by which it changes the directory is counted, and one of them goes wrong ([`fault_lab::rig::plan`]).

mod interpose;

use std::path::Path;

use anyhow::{Context as _, Result};
use fault_lab::rig::ledger::{CALLS_LANE, Ledger, SYNCS_LANE};
use fault_lab::rig::plan::Plan;
use fault_lab::work::jobs;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (plan, arguments) = match &arguments[..] {
        [most @ .., plan] if most.len() == 4 => (plan.parse().context("PLAN")?, most),
        all => (Plan::Nothing, all),
    };
    let [job, dir, ledger, round] = arguments else { anyhow::bail!("usage: store-worker JOB DIR LEDGER ROUND [PLAN]") };
    let ledger = Ledger::open(Path::new(ledger))?;
    interpose::arm(Path::new(dir), plan)?;
    let done = jobs::run(job, Path::new(dir), &ledger, round.parse().context("ROUND is a number")?, interpose::mark);
    ledger.promise(CALLS_LANE, interpose::calls());
    ledger.promise(SYNCS_LANE, interpose::syncs());
    ledger.begin(SYNCS_LANE, interpose::refusals());
    done
}
