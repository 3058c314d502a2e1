//! Parts of a previous life: found by their pid file, proven to be ours by what they run, and stopped.
//!
//! The death signal makes leftovers rare, but a fast shutdown takes a moment, and the next hub may be quicker.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::EmbeddedError;

/// How long a leftover may take for its own shutdown, before and after the harder signal.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads a pid from the first line of `file`.
pub(super) fn pid_in(file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(file).ok()?;
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    Pid::from_raw(number)
}

/// True if process `pid` works in `dir` (Postgres changes into its data directory).
pub(super) fn works_in(pid: Pid, dir: &Path) -> bool {
    let link = format!("/proc/{}/cwd", pid.as_raw_nonzero());
    match (std::fs::read_link(link), std::fs::canonicalize(dir)) {
        (Ok(cwd), Ok(dir)) => cwd == dir,
        _ => false,
    }
}

/// True if `needle` is one of the arguments process `pid` was started with.
pub(super) fn was_started_with(pid: Pid, needle: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == needle.as_os_str().as_bytes()))
}

/// Stops `pid` with `signals` in turn, waiting up to [`PATIENCE`] after each.
pub(super) async fn stop(part: &'static str, pid: Pid, signals: &[Signal]) -> Result<(), EmbeddedError> {
    tracing::warn!(part, pid = pid.as_raw_nonzero().get(), "stopping what a previous run left behind");
    for signal in signals {
        if kill_process(pid, *signal).is_err() {
            break;
        }
        let gone = async {
            while test_kill_process(pid).is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, gone).await.is_ok() {
            return Ok(());
        }
    }
    if test_kill_process(pid).is_err() {
        return Ok(());
    }
    Err(EmbeddedError::LeftoverStuck { part, pid: pid.as_raw_nonzero().get() })
}
