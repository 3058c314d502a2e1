//! A device whose wall clock somebody else holds: the agent's own clock, sync, door, record thread and outbox, in a process
//! that the row starts under libfaketime.
//!
//! In: one word a line on standard input. Out: one line of JSON each. `clock` says what the wall clock shows and what is
//! believed, `Unlimited`, `Ended`, `Current` and `NotYet` come to the door, `line` says how the connection to the hub is, `stop`
//! ends it in order. With `--believing` it is the broken variant: whatever the wall clock shows is the time.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use edge_agent::clock::{Clock, ClockConfig, ClockQuality, SharedClock, SystemClock, TimeService, WallTime, keeper};
use edge_store::{Broker, ClockStore};
use face_core::MonoTime;
use fault_lab::work::door::Door;
use fault_lab::work::limits::{self, Visitor};
use fleet_sim::device::{Device, SPACE_ID};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Arguments {
    /// The device's folder.
    dir: PathBuf,
    /// The folder of the door's own gallery.
    limits: PathBuf,
    /// The port of the way to the broker.
    #[arg(long)]
    broker: u16,
    /// The port of the way to the hub's HTTPS.
    #[arg(long)]
    https: u16,
    /// The broken variant.
    #[arg(long)]
    believing: bool,
}

/// Believes the wall clock.
struct Believing(SystemClock);

impl Clock for Believing {
    fn now(&self) -> MonoTime {
        self.0.now()
    }

    fn wall(&self) -> WallTime {
        WallTime { utc: SystemClock::utc(), quality: ClockQuality::Synchronised }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _of_this_process = rustls::crypto::ring::default_provider().install_default();
    let broker = Broker { host: "127.0.0.1".to_owned(), port: arguments.broker };
    let mut device = Device::open(&arguments.dir, SPACE_ID, Some(&broker))?;
    device.identity.hub_url = format!("https://127.0.0.1:{}/", arguments.https);
    let (store, doubt) = ClockStore::open(&arguments.dir, device.keys())?;
    if let Some(doubt) = doubt {
        bail!("what was known of the time is not believed: {doubt}");
    }
    let (signed, mark) = (device.identity.signed_time, store.last());
    // Whether this machine has a time service must not decide what the row sees.
    let judged = SystemClock::resumed(ClockConfig { time_service: TimeService::Ignored }, signed, mark.as_ref());
    let clock: SharedClock =
        if arguments.believing { Arc::new(Believing(judged.clone())) } else { Arc::new(judged.clone()) };
    let (stop, stop_keeping) = (CancellationToken::new(), CancellationToken::new());
    let (running, keeping) = runtime.block_on(async {
        let keeping = tokio::spawn(keeper::run(judged, store, stop_keeping.clone()));
        (device.start_by(Arc::clone(&clock), stop.clone()), keeping)
    });
    let mut door = Door::open(limits::open(&arguments.limits)?, Arc::clone(&clock), running.recorder.clone(), None)?;
    say(&json!({ "ready": true }))?;
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "clock" => {
                let wall = clock.wall();
                say(&json!({
                    "shown": SystemClock::utc().unix_timestamp(),
                    "believed": wall.utc.unix_timestamp(),
                    "trusted": wall.trusted().is_some(),
                }))?;
            }
            "line" => {
                let (status, stats) = (running.status.borrow().clone(), device.outbox.stats()?);
                say(&json!({
                    "connected": status.connected,
                    "pending": stats.pending,
                    "recorded": stats.last_sequence,
                    "error": status.last_error,
                }))?;
            }
            "stop" => break,
            visitor => {
                let visitor: Visitor = serde_json::from_value(Value::from(visitor)).context("no such visitor")?;
                say(&json!({ "opened": door.visit(visitor.number())?.is_some() }))?;
            }
        }
    }
    runtime.block_on(async {
        running.recorder.close().await;
        stop.cancel();
        stop_keeping.cancel();
        // A panic was logged by its own hook; there is nothing left to stop.
        let _ended = running.task.await;
        let _ended = keeping.await;
    });
    say(&json!({ "stopped": true }))
}

fn say(answer: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}
