//! Fills the hub's limiter with as many callers as it is asked for and says what they cost, then asks in one caller's name without a
//! pause and says how much was let through: one line of JSON. A process of its own, for its resident memory is what is measured.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use cloud_hub::domain::limit::{Class, Rate};
use cloud_hub::limit::{Asked, Bucket, Limiter};
use fault_lab::lab::now;
use fault_lab::rig::process::resident_kib;
use serde_json::json;

/// In a second, and at once.
const RATE: u32 = 2_000;
const BURST: u32 = 200;

#[derive(Parser)]
struct Arguments {
    /// How many callers.
    #[arg(long)]
    count: u64,
    /// How long the one asks, in milliseconds.
    #[arg(long)]
    sustained_ms: u64,
    /// Instead of the limiter, a table that keeps what each caller asked and when.
    #[arg(long)]
    broken: bool,
}

fn main() -> Result<()> {
    let Arguments { count, sustained_ms, broken } = Arguments::parse();
    let limiter = Limiter::new(None);
    let mut naive: Vec<(u128, Vec<u64>)> = Vec::new();
    // All of a day: none is as good as new when the last one asks.
    let slow = Asked { bucket: Bucket::Refused, rate: Rate::new(1, Duration::from_secs(86_400), 2) };
    let before = resident_kib()?;
    let mut admitted = 0_u64;
    for caller in 0..u128::from(count) {
        if broken {
            naive.push((caller, Vec::with_capacity(16)));
            admitted += 1;
        } else {
            admitted += u64::from(limiter.take_stranger(caller, slow).admits);
        }
    }
    let after = resident_kib()?;
    // Who has asked is known: a second request is let through, a third is not.
    let mut forgotten = 0_u64;
    for caller in (0..u128::from(count)).step_by(101).filter(|_| !broken) {
        let second = limiter.take_stranger(caller, slow).admits;
        forgotten += u64::from(!second || limiter.take_stranger(caller, slow).admits);
    }
    let asked = Asked { bucket: Bucket::Class(Class::Read), rate: Rate::new(RATE, Duration::from_secs(1), BURST) };
    let (begun, mut tried, mut through) = (now(), 0_u64, 0_u64);
    while begun.elapsed() < Duration::from_millis(sustained_ms) {
        tried += 1;
        through += u64::from(broken || limiter.take_stranger(u128::MAX, asked).admits);
    }
    let expected = f64::from(BURST) + f64::from(RATE) * begun.elapsed().as_secs_f64();
    let error = (through as f64 - expected).abs() / expected;
    let line = json!({
        "admitted": admitted, "resident_kib": after.saturating_sub(before), "forgotten": forgotten, "looked_at": count.div_ceil(101),
        "tried": tried, "through": through, "expected": expected, "error_percent": error * 100.0,
        "kept": naive.len(),
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
