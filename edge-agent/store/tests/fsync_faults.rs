//! A failing fsync: the event is not acknowledged, and nothing is until the process is a new one.
//!
//! After a failed fsync the kernel has dropped the dirty pages and calls them clean, so that a second fsync succeeds without
//! anything having been written. strace makes one fdatasync fail; its log proves that it did.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::Command;

use edge_store::{OutboxError, OutboxOpened, Priority};
use support::{acknowledge, at, event_at, times};

const NAME: &str = "a_failed_fsync_is_never_acknowledged";
/// What the child prints when an append was refused.
const REFUSED: &str = "refused";

#[test]
fn a_failed_fsync_is_never_acknowledged() {
    if let Some(dir) = support::child_dir() {
        return record(&dir);
    }
    if Command::new("strace").arg("-V").output().is_err() {
        support::skip(NAME, "needs strace (package strace)");
        return;
    }
    let mut refusals = 0;
    // Commits and watermarks take turns, so that of two neighbours one is a commit.
    for which in 20..20 + times(4) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("strace.log");
        let output = Command::new("strace")
            .args(["-f", "-e", "trace=fdatasync", "-e", &format!("inject=fdatasync:error=EIO:when={which}"), "-o"])
            .arg(&log)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env(support::CHILD, dir.path())
            .output()
            .unwrap();
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("ptrace"), "the child failed: {text}");
            support::skip(NAME, "strace may not trace here (ptrace is forbidden)");
            return;
        }
        assert!(std::fs::read_to_string(&log).unwrap().contains("(INJECTED)"), "no fault was injected at {which}");
        refusals += check(dir.path(), &String::from_utf8(output.stdout).unwrap());
    }
    assert!(refusals > 0, "no commit was hit");
}

/// Checks what the child was promised; returns 1 when an append was refused.
fn check(dir: &Path, output: &str) -> u64 {
    let lines: Vec<_> = output.lines().filter(|line| line.starts_with("ack ") || *line == REFUSED).collect();
    let acknowledged = lines.iter().filter(|line| line.starts_with("ack ")).count() as u64;
    if let Some(first) = lines.iter().position(|line| *line == REFUSED) {
        assert!(lines[first..].iter().all(|line| *line == REFUSED), "acknowledged after a failed fsync: {lines:?}");
    }
    let (outbox, opened) = support::open_outbox(dir);
    assert!(matches!(opened, OutboxOpened::Intact), "{opened:?}");
    assert!(support::check_outbox(&outbox) >= acknowledged);
    u64::from(lines.contains(&REFUSED))
}

/// In the child: records 40 events and says of each what became of it.
fn record(dir: &Path) {
    let (outbox, _) = support::open_outbox(dir);
    let mut failed = false;
    for _ in 0..40 {
        match outbox.append(at(0), Priority::MustKeep, |position| event_at(position.sequence)) {
            Ok(position) => acknowledge(position.sequence),
            Err(error) => {
                support::say(REFUSED);
                assert!(!failed || matches!(error, OutboxError::Failed { .. }), "{error}");
                failed = true;
            }
        }
    }
}
