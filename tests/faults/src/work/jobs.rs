//! The jobs of `store-worker`: each works on the stores until it is killed or the stores refuse.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_store::{Outbox, Position, Priority};

use super::despite;
use super::gallery::{self, Hub};
use super::outbox::{self, ROUND_SECONDS};
use super::{GALLERY_LANE, WRITERS, at};
use crate::rig::ledger::Ledger;

/// Of the writers, these record many events at a time, as the agent does when they come in bursts.
const BURST_WRITERS: usize = 2;
const BURST: u64 = 32;
/// How often the hub acknowledges.
const HUB_PAUSE: Duration = Duration::from_millis(5);
/// A gallery is written under a new key this often, so that faults hit that too.
const REWRITE_EVERY: u64 = 20;
/// The workload whose every call is cut: so many operations of all kinds.
const OPERATIONS: u64 = 300;
/// What a growing worker takes every millisecond.
const GROWTH_BYTES: usize = 256 << 10;
/// Enough for a recording of bare sled.
const FEW_WRITES: u64 = 300;

/// Does a job by its name; returns only when it is done or cannot go on.
///
/// `mark` notes a promise (lane, everything up to here) in the recording, where one is made.
pub fn run(job: &str, dir: &Path, ledger: &Ledger, round: u64, mark: fn(usize, u64)) -> Result<()> {
    match job {
        "load" => load(dir, ledger, round, Promise::AfterCommit),
        "promise-early" => load(dir, ledger, round, Promise::BeforeCommit),
        "load-growing" => growing(|| load(dir, ledger, round, Promise::AfterCommit)),
        "promise-early-growing" => growing(|| load(dir, ledger, round, Promise::BeforeCommit)),
        "operations" => operations(dir, ledger, round, Promise::AfterCommit, mark),
        "operations-early" => operations(dir, ledger, round, Promise::BeforeCommit, mark),
        "despite-errors" => despite::run(dir, ledger, despite::Outlet::Kept),
        "despite-errors-reopened" => despite::run(dir, ledger, despite::Outlet::Reopened),
        "bare-sled" => bare_sled(dir, ledger, u64::MAX, mark),
        "bare-sled-short" => bare_sled(dir, ledger, FEW_WRITES, mark),
        other => bail!("there is no job '{other}'"),
    }
}

/// When a writer takes an event for recorded. The second is the broken variant that every durability row must catch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    AfterCommit,
    BeforeCommit,
}

/// Several writers on one outbox, a hub that acknowledges, and a gallery that follows its log: a door at its busiest.
fn load(dir: &Path, ledger: &Ledger, round: u64, promise: Promise) -> Result<()> {
    let (outbox, _) = outbox::open(dir, round)?;
    let outbox = Arc::new(outbox);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let outbox = &outbox;
            scope.spawn(move || write_events(outbox, ledger, round, writer, promise));
        }
        scope.spawn(|| acknowledge(&outbox, round));
        scope.spawn(|| follow(dir, ledger)).join().map_err(|_| anyhow::anyhow!("the gallery's thread panicked"))?
    })
}

/// Works while a thread takes memory until somebody puts an end to it.
fn growing(work: impl FnOnce() -> Result<()>) -> Result<()> {
    std::thread::spawn(|| {
        let mut taken = Vec::new();
        loop {
            // Not zero, or the pages would never be there.
            taken.push(vec![1_u8; GROWTH_BYTES]);
            std::hint::black_box(&taken);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    work()
}

/// Records events until the outbox refuses.
fn write_events(outbox: &Outbox, ledger: &Ledger, round: u64, writer: usize, promise: Promise) {
    let burst = if writer < BURST_WRITERS { BURST } else { 1 };
    let mut next = 1;
    loop {
        let events = (next..next + burst).map(|n| move |_: Position| outbox::event(round, writer, n));
        ledger.begin(writer, burst);
        if promise == Promise::BeforeCommit {
            ledger.promise(writer, next + burst - 1);
        }
        if outbox.append_batch(at(round * ROUND_SECONDS), Priority::MustKeep, events).is_err() {
            return;
        }
        ledger.promise(writer, next + burst - 1);
        next += burst;
    }
}

/// The hub: acknowledges half of what is pending, again and again.
fn acknowledge(outbox: &Outbox, round: u64) {
    loop {
        let Ok(stats) = outbox.stats() else { return };
        let through = stats.acknowledged_through + stats.pending / 2;
        if outbox.acknowledge(stats.stream, through, at(round * ROUND_SECONDS)).is_err() {
            return;
        }
        std::thread::sleep(HUB_PAUSE);
    }
}

/// Applies the hub's log, version by version.
fn follow(dir: &Path, ledger: &Ledger) -> Result<()> {
    let (mut store, _) = gallery::open(dir)?;
    let mut hub = Hub::at_version(store.version());
    // The lane counts versions, whatever the store began with.
    ledger.begin(GALLERY_LANE, store.version());
    loop {
        let (record, root) = hub.publish();
        ledger.begin(GALLERY_LANE, 1);
        let version = store.apply(&[record], root).context("the gallery refuses")?.version;
        ledger.promise(GALLERY_LANE, version);
        if version.is_multiple_of(REWRITE_EVERY) {
            store.rewrite().context("the gallery cannot be rewritten")?;
        }
    }
}

/// One thread that does a bit of everything, the same every time. Writer 0 records all its events.
fn operations(dir: &Path, ledger: &Ledger, round: u64, promise: Promise, mark: fn(usize, u64)) -> Result<()> {
    let now = at(round * ROUND_SECONDS);
    let (outbox, _) = outbox::open(dir, round)?;
    let (mut store, _) = gallery::open(dir)?;
    let mut hub = Hub::new();
    let mut recorded = 0;
    let promised = |lane: usize, through: u64| {
        ledger.promise(lane, through);
        mark(lane, through);
    };
    for operation in 0..OPERATIONS {
        match operation % 10 {
            0..6 => {
                let more = 1 + operation % 3;
                let events = (recorded + 1..=recorded + more).map(|n| move |_: Position| outbox::event(round, 0, n));
                ledger.begin(0, more);
                recorded += more;
                if promise == Promise::BeforeCommit {
                    promised(0, recorded);
                }
                outbox.append_batch(now, Priority::MustKeep, events)?;
                promised(0, recorded);
            }
            6 => {
                let stats = outbox.stats()?;
                outbox.acknowledge(stats.stream, stats.last_sequence - 1, now)?;
            }
            _ => {
                let (record, root) = hub.publish();
                ledger.begin(GALLERY_LANE, 1);
                promised(GALLERY_LANE, store.apply(&[record], root)?.version);
            }
        }
        // Twice in all: what a rewrite does is as many calls as a hundred operations.
        if operation % 150 == 75 {
            store.rewrite()?;
        }
    }
    Ok(())
}

/// sled as it comes: `flush`, then the promise. The control of the power cuts.
fn bare_sled(dir: &Path, ledger: &Ledger, writes: u64, mark: fn(usize, u64)) -> Result<()> {
    let db = sled::Config::new().path(dir.join("sled")).flush_every_ms(None).open()?;
    for n in 1..=writes {
        ledger.begin(0, 1);
        db.insert(n.to_be_bytes(), [7; 72].as_slice())?;
        #[expect(clippy::disallowed_methods, reason = "this is the control that must lose")]
        db.flush()?;
        ledger.promise(0, n);
        mark(0, n);
    }
    Ok(())
}
