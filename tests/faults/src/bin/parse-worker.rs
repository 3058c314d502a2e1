//! Gives the parsers of the wire mutations of good messages, as many as it is asked for, and says what they did with them:
//! one line of JSON. A process of its own, for its allocator counts what each parser holds.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use fault_lab::lab::now;
use fuzz_targets::mutation::{Dice, mutated};
use fuzz_targets::trial::{Counting, tried};
use fuzz_targets::{TARGETS, Target};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The parsers of what comes over the wire, from devices, from the hub and from whoever stands between them.
const WIRE: [&str; 7] = ["event-batch", "up-envelope", "down-message", "topic", "claim", "gallery-record", "cursor"];
/// No message may keep a parser longer; the machine may be busy.
const LONGEST: Duration = Duration::from_secs(1);
/// Findings that are told in full.
const TOLD: usize = 5;

#[derive(Parser)]
struct Arguments {
    /// How many messages.
    #[arg(long)]
    count: u64,
    /// Where the mutations begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead of the parsers, one that panics on a byte that no good message has.
    #[arg(long)]
    broken: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Panics are caught and counted; each would else print its own.
    std::panic::set_hook(Box::new(|_| {}));
    let targets: Vec<Target> = TARGETS
        .into_iter()
        .filter(|target| WIRE.contains(&target.name))
        .map(|target| if arguments.broken { Target { run: panics_on_nul, ..target } } else { target })
        .collect();
    ensure!(targets.len() == WIRE.len(), "a parser of the wire is no fuzz target any more");
    let seeds: Vec<Vec<Vec<u8>>> = targets.iter().map(|target| (target.seeds)()).collect();
    let mut dice = Dice::new(arguments.seed);
    let (mut changed, mut findings, mut told) = (0_u64, 0_u64, Vec::new());
    for number in 0..arguments.count {
        let at = usize::try_from(number % WIRE.len() as u64)?;
        let (target, seeds) = (&targets[at], &seeds[at]);
        let seed = &seeds[dice.roll(seeds.len())];
        let input = mutated(seed, seeds, &mut dice);
        changed += u64::from(input != *seed);
        let begun = now();
        let outcome = tried(target, &input);
        let slow = begun.elapsed() > LONGEST;
        if outcome.is_err() || slow {
            findings += 1;
            if told.len() < TOLD {
                let what = outcome.err().unwrap_or_else(|| format!("took {:?}", begun.elapsed()));
                told.push(format!("{}: {what}: {:.300}", target.name, input.escape_ascii()));
            }
        }
    }
    let line = json!({ "tried": arguments.count, "changed": changed, "findings": findings, "told": told });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn panics_on_nul(bytes: &[u8]) {
    assert!(!bytes.contains(&0), "a byte that nobody expected");
}
