//! A process that works on the stores until it is killed: what the durability rows of the fault lab kill.
//!
//! `store-worker JOB DIR LEDGER ROUND`: does a job of `fault_lab::work::jobs` in a state directory.

use std::path::Path;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [job, dir, ledger, round] = &arguments[..] else { anyhow::bail!("usage: store-worker JOB DIR LEDGER ROUND") };
    let round = round.parse().context("ROUND is a number")?;
    fault_lab::work::jobs::run(job, Path::new(dir), Path::new(ledger), round)
}
