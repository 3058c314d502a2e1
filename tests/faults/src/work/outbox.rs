//! Events that say who recorded them, and the check that finds each promised one where it must be.
//!
//! Each writer numbers its events from 1 in each round. After a fault, what is found of a writer must be its events 1 to m
//! in order, each once, with promised ≤ m ≤ begun: less is a loss, more is a phantom.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use edge_store::{DeviceKeys, Outbox, OutboxOpened, OutboxOptions};

use super::{WRITERS, at};
use crate::outcome::Tally;
use crate::rig::ledger::Copied;

/// Time between rounds, for the stores: longer than the retention, so that a round's first acknowledgement makes room of what
/// the rounds before have left (and what the check has seen).
pub const ROUND_SECONDS: u64 = 180;

/// Roomy, whatever the disk; acknowledged events stay for a minute.
#[must_use]
pub fn options() -> OutboxOptions {
    OutboxOptions { low_space_bytes: 0, retention: std::time::Duration::from_secs(60), ..OutboxOptions::default() }
}

/// The outbox below `dir`, with its keys.
pub fn open(dir: &Path, round: u64) -> Result<(Outbox, OutboxOpened)> {
    let keys = DeviceKeys::open(&dir.join("keys"), None)?.outbox()?;
    Ok(Outbox::open(&dir.join("outbox"), &keys, options(), at(round * ROUND_SECONDS))?)
}

/// Event `n` of a writer: of varying length, so that pages fill unevenly.
#[must_use]
pub fn event(round: u64, writer: usize, n: u64) -> Vec<u8> {
    let length = 40 + usize::try_from((n * 37 + writer as u64 * 101) % 900).unwrap_or(0);
    let mut event = format!("{round} {writer} {n} ").into_bytes();
    event.resize(length, b'.');
    event
}

/// Reads an event's origin back; `None` unless it is, byte for byte, what [`event`] makes.
fn origin(bytes: &[u8]) -> Option<(u64, usize, u64)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split(' ');
    let (round, writer, n) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (event(round, writer, n) == bytes).then_some((round, writer, n))
}

/// What a check found of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Recorded although the promise never came: the fault fell between the two.
    pub unpromised: u64,
    /// The newest sequence.
    pub last: u64,
}

/// Compares what the outbox still has with what the writers of `round` were promised.
pub fn check(outbox: &Outbox, round: u64, ledger: &Copied, tally: &mut Tally) -> Result<Found> {
    let mut newest: HashMap<usize, u64> = HashMap::new();
    let stats = outbox.stats().context("the outbox's figures")?;
    let mut after = 0;
    loop {
        let entries = outbox.kept(after, 1000, 16 << 20).context("what the outbox keeps")?;
        let Some(entry) = entries.last() else { break };
        after = entry.sequence;
        for entry in &entries {
            let Some((of, writer, n)) = origin(&entry.event) else {
                tally.breach(format!("round {round}: entry {} is not what was recorded", entry.sequence));
                continue;
            };
            if of == round {
                note(newest.entry(writer).or_default(), n, writer, tally);
            }
        }
    }
    tally.require(after == stats.last_sequence, || {
        format!("round {round}: the head says {}, the entries end at {after}", stats.last_sequence)
    });
    let mut found = Found { unpromised: 0, last: after };
    for writer in 0..WRITERS {
        let (begun, acked) = (ledger.begun[writer], ledger.acked[writer]);
        let last = newest.get(&writer).copied().unwrap_or(0);
        tally.acked += acked;
        tally.lost += acked.saturating_sub(last);
        found.unpromised += last.saturating_sub(acked);
        tally.require(last <= begun, || {
            format!("round {round}: writer {writer} began {begun} events, {last} are there")
        });
    }
    Ok(found)
}

/// The next event of a writer must be the one after its newest.
fn note(newest: &mut u64, n: u64, writer: usize, tally: &mut Tally) {
    if n <= *newest {
        tally.duplicated += 1;
    } else if n != *newest + 1 {
        tally.breach(format!("writer {writer}: event {n} comes after {newest}"));
        tally.lost += n - *newest - 1;
    }
    *newest = n.max(*newest);
}
