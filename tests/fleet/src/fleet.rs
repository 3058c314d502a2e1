//! All devices of a folder at work: a pace at which they record, and where they stand.
//!
//! One thread records for all, in turn, so that the pace is that of the fleet. Each event is on disk before it counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use edge_store::{Broker, Priority};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::device::{Device, Running};
use crate::happening;
use crate::history::History;
use crate::searches::Searches;

/// Events in one commit at most; the agent's record thread takes as many.
const BATCH: u64 = 32;
/// At most this much of the pace is recorded between two looks around.
const BURST_SECONDS: f64 = 0.05;
/// Devices that are opened at the same time: waiting for the disk, not for a processor.
const OPENERS: usize = 16;
/// The grain of the pace.
const TICK: Duration = Duration::from_millis(10);
/// How often the standing is written.
const STATUS_EVERY: Duration = Duration::from_millis(200);

/// How a fleet is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Events a second, of all devices together.
    pub rate: f64,
    /// No more than this many in this run; none is without end.
    pub events: Option<u64>,
    /// While this file is there, nothing is recorded.
    pub hold: Option<PathBuf>,
    /// Where to write what was tried and acknowledged.
    pub history: Option<PathBuf>,
    /// Where to write the standing, replaced as a whole five times a second.
    pub status: Option<PathBuf>,
}

/// Where a fleet stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Devices.
    pub devices: u64,
    /// Of these, connected to the broker.
    pub connected: u64,
    /// Events on disk, over all runs.
    pub recorded: u64,
    /// Of these, acknowledged by the hub.
    pub acknowledged: u64,
    /// Connections, over all runs.
    pub connections: u64,
}

/// A fleet at work.
pub struct Fleet {
    devices: Vec<Device>,
    running: Vec<Running>,
    stop: CancellationToken,
}

impl Fleet {
    /// Opens every device in `dir` and starts it; with `searches`, whatever its own search finds is noted.
    pub fn start(dir: &Path, space_id: &str, through: Option<&Broker>, searches: Option<&Searches>) -> Result<Self> {
        let mut folders: Vec<PathBuf> = std::fs::read_dir(dir)
            .with_context(|| format!("fleet {}", dir.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("device-")))
            .collect();
        folders.sort();
        let devices = open_all(&folders, space_id, through)?;
        anyhow::ensure!(!devices.is_empty(), "no devices in {}: fleet-sim create", dir.display());
        for (index, device) in devices.iter().enumerate() {
            if let Some(searches) = searches {
                tokio::spawn(searches.clone().watch(index, Arc::clone(&device.galleries)));
            }
        }
        let stop = CancellationToken::new();
        let running = devices.iter().map(|device| device.start(stop.clone())).collect();
        Ok(Self { devices, running, stop })
    }

    /// Where it stands now.
    pub fn standing(&self) -> Result<Standing> {
        let mut standing = Standing { devices: self.devices.len() as u64, ..Standing::default() };
        for (device, running) in self.devices.iter().zip(&self.running) {
            let stats = device.outbox.stats()?;
            let line = running.status.borrow();
            standing.connected += u64::from(line.connected);
            standing.connections += line.connection_epoch;
            standing.recorded += stats.last_sequence;
            standing.acknowledged += stats.acknowledged_through;
        }
        Ok(standing)
    }

    /// Records at the plan's pace until its events are recorded and acknowledged, or `enough` says so. Blocking.
    pub fn record(&self, plan: &Plan, enough: &CancellationToken, mut tell: impl FnMut(&Standing)) -> Result<()> {
        let mut history = plan.history.as_deref().map(History::append_to).transpose()?;
        let (mut done, mut due, mut turn) = (0, 0.0, 0);
        let (mut paced_at, mut told_at) = (now(), now());
        while !enough.is_cancelled() {
            let since = now().duration_since(paced_at);
            paced_at = now();
            let held = plan.hold.as_ref().is_some_and(|hold| hold.exists());
            if held {
                due = 0.0;
            } else {
                // A disk that was slow is not made up for in one burst: the hold and the standing are looked at in between.
                due = (due + since.as_secs_f64() * plan.rate).min((plan.rate * BURST_SECONDS).max(1.0));
            }
            while due >= 1.0 && plan.events.is_none_or(|events| done < events) && !enough.is_cancelled() {
                let left = plan.events.map_or(u64::MAX, |events| events - done);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "at most a second's events"
                )]
                let count = (due as u64).min(BATCH).min(left);
                self.append(turn, count, &mut history)?;
                (done, due, turn) = (done + count, due - count as f64, turn + 1);
            }
            if now().duration_since(told_at) >= STATUS_EVERY {
                told_at = now();
                let standing = self.standing()?;
                write_standing(plan, &standing)?;
                tell(&standing);
                if plan.events.is_some_and(|events| done >= events) && standing.acknowledged >= standing.recorded {
                    return Ok(());
                }
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn append(&self, turn: usize, count: u64, history: &mut Option<History>) -> Result<()> {
        let device = &self.devices[turn % self.devices.len()];
        let ids: Vec<Uuid> = (0..count).map(|_| happening::fresh_id()).collect();
        if let Some(history) = history {
            history.trying(&ids)?;
        }
        let encoders = ids.iter().map(|id| {
            |position: edge_store::Position| happening::encode(&device.identity, device.run_id(), *id, position)
        });
        let wall = std::time::SystemTime::from(edge_agent::clock::SystemClock::utc());
        let range = device.outbox.append_batch(wall, Priority::MustKeep, encoders)?;
        if let Some(history) = history {
            let stream = device.outbox.stats()?.stream.to_string();
            history.acknowledged(device.identity.device, &stream, *range.start(), &ids)?;
        }
        device.recorded(*range.end());
        Ok(())
    }

    /// Says goodbye on every line.
    pub async fn stop(self) {
        self.stop.cancel();
        for running in self.running {
            // A panic of sync was logged by its own hook; there is nothing left to stop.
            let _ended = running.task.await;
        }
    }
}

/// Opens the devices side by side: each waits for the disk several times, and a thousand in turn would wait for minutes.
fn open_all(folders: &[PathBuf], space_id: &str, through: Option<&Broker>) -> Result<Vec<Device>> {
    let share = folders.len().div_ceil(OPENERS).max(1);
    std::thread::scope(|scope| {
        let openers: Vec<_> = folders
            .chunks(share)
            .map(|chunk| {
                let open = |folder: &PathBuf| Device::open(folder, space_id, through);
                scope.spawn(move || chunk.iter().map(open).collect::<Result<Vec<_>>>())
            })
            .collect();
        let mut devices = Vec::with_capacity(folders.len());
        for opener in openers {
            devices.extend(opener.join().expect("an opener does not panic")?);
        }
        Ok(devices)
    })
}

fn write_standing(plan: &Plan, standing: &Standing) -> Result<()> {
    let Some(path) = &plan.status else { return Ok(()) };
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(standing)?)?;
    Ok(std::fs::rename(&fresh, path)?)
}

/// The fleet's clock.
#[expect(clippy::disallowed_methods, reason = "the pace of a load is real time")]
fn now() -> Instant {
    Instant::now()
}
