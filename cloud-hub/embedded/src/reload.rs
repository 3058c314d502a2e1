//! Makes a running Mosquitto read its files again, so that the last change is never missed.
//!
//! In: [`Reloads::ask`] after each change of a file. Out: SIGHUP at once, and once more when no change came for a while.
//! One is not enough: Mosquitto 2.0.11 takes note of the signal in a flag that it puts back **after** it has read its
//! files, so that a signal that comes while it reads is forgotten. Of a thousand devices that were claimed in a row the last
//! ones could do nothing until somebody claimed another one; a revoked one could have gone on.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::leftover;

/// Longer than a reload takes: one of 5,000 devices' lines took 0.1 s. The second signal comes that long after the last
/// change: if it is forgotten too, then because of a reading that began after that change.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Where a broker is told to read its files again. Clones tell the same one; the thread behind ends with the last of them.
#[derive(Debug, Clone)]
pub(super) struct Reloads {
    asked: SyncSender<()>,
}

impl Reloads {
    /// The broker whose id stands in `pid_file`; `config` proves that the process is the one meant, and is `None` for a
    /// broker that others start. Without a file nobody is told.
    pub(super) fn new(pid_file: Option<PathBuf>, config: Option<PathBuf>) -> Self {
        let (asked, waiting) = sync_channel(1);
        let tell = move || {
            if let Some(pid) = pid_file.as_deref().and_then(leftover::pid_in)
                && config.as_deref().is_none_or(|config| leftover::was_started_with(pid, config))
            {
                // Not running (just restarting) is no error: it reads the new files when it starts.
                let _ = rustix::process::kill_process(pid, Signal::HUP);
            }
        };
        let started = thread::Builder::new().name("broker-reload".into()).spawn(move || serve(&waiting, tell));
        if let Err(error) = started {
            tracing::error!(%error, "the broker cannot be told of changes; it reads them when it is restarted");
        }
        Self { asked }
    }

    /// The files have changed.
    pub(super) fn ask(&self) {
        // Full: somebody has asked and the broker was not told yet, so it will be told after this change too.
        let _ = self.asked.try_send(());
    }
}

fn serve(asked: &Receiver<()>, tell: impl Fn()) {
    while asked.recv().is_ok() {
        tell();
        while asked.recv_timeout(AGAIN_AFTER).is_ok() {
            tell();
        }
        tell();
    }
}
