//! Keeps one child running: an unexpected end is logged and answered with a new start; a stop is final.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::EmbeddedError;
use super::process::{ChildSpec, OwnedChild, spawn};

/// First wait before a new start, doubled up to [`MAX_BACKOFF`]: a part that cannot start must not burn a core.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
/// Longest wait between two starts; matches the five seconds in which the hub should answer again after a crash.
const MAX_BACKOFF: Duration = Duration::from_secs(4);
/// A child that lived this long was healthy: the next wait starts small again.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// A child that is started again when it ends by itself.
#[derive(Debug)]
pub(super) struct Supervised {
    current: Arc<Mutex<Arc<OwnedChild>>>,
    stopping: CancellationToken,
    stop_signal: Signal,
    task: Option<JoinHandle<()>>,
}

/// Starts the child once; later failures are the supervisor's to mend.
pub(super) fn start(spec: &ChildSpec, stop_signal: Signal, grace: Duration) -> Result<Supervised, EmbeddedError> {
    let first = Arc::new(spawn_part(spec)?);
    let current = Arc::new(Mutex::new(first));
    let stopping = CancellationToken::new();
    let task = tokio::spawn(keep_running(spec.clone(), Arc::clone(&current), stopping.clone(), stop_signal, grace));
    Ok(Supervised { current, stopping, stop_signal, task: Some(task) })
}

fn spawn_part(spec: &ChildSpec) -> Result<OwnedChild, EmbeddedError> {
    spawn(spec).map_err(|source| EmbeddedError::Spawn { part: spec.name, program: spec.program.clone(), source })
}

async fn keep_running(
    spec: ChildSpec,
    current: Arc<Mutex<Arc<OwnedChild>>>,
    stopping: CancellationToken,
    stop_signal: Signal,
    grace: Duration,
) {
    let mut backoff = MIN_BACKOFF;
    loop {
        let child = Arc::clone(&current.lock());
        let started = tokio::time::Instant::now();
        tokio::select! {
            () = stopping.cancelled() => return child.stop(stop_signal, grace).await,
            status = child.wait() => {
                tracing::error!(part = spec.name, %status, log = %child.recent_log(), "ended by itself and is started again");
            }
        }
        if started.elapsed() >= HEALTHY_AFTER {
            backoff = MIN_BACKOFF;
        }
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
            match spawn_part(&spec) {
                Ok(child) => {
                    *current.lock() = Arc::new(child);
                    break;
                }
                Err(error) => tracing::error!(part = spec.name, %error, "cannot be started again yet"),
            }
        }
    }
}

impl Supervised {
    /// The process that runs now (it may just have ended).
    #[must_use]
    pub(super) fn child(&self) -> Arc<OwnedChild> {
        Arc::clone(&self.current.lock())
    }

    /// Stops the child for good and returns when it has ended.
    pub(super) async fn stop(mut self) {
        self.stopping.cancel();
        if let Some(task) = self.task.take() {
            drop(task.await);
        }
    }
}

impl Drop for Supervised {
    /// Without [`Supervised::stop`], at least the signal is sent; nobody waits for the end.
    fn drop(&mut self) {
        if self.task.is_some() {
            self.stopping.cancel();
            self.child().signal(self.stop_signal);
        }
    }
}
