//! Processes of the lab: one that must succeed, and how much memory this one holds.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Runs a command that must succeed; its error output is in the error.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// This process's resident memory, KiB.
pub fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS in /proc/self/status")?;
    Ok(line.split_whitespace().nth(1).context("VmRSS has no value")?.parse()?)
}
