//! A control group with little memory: whoever takes more in it is killed by the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

const MEMORY: &str = "/sys/fs/cgroup/memory";

/// A version 1 memory control group of our own; it goes when it is dropped.
pub struct MemoryGroup {
    dir: PathBuf,
}

impl MemoryGroup {
    /// A group whose processes may hold `bytes` together.
    pub fn new(bytes: u64) -> Result<Self> {
        let dir = Path::new(MEMORY).join(format!("lintel-fault-lab-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let group = Self { dir };
        fs::write(group.dir.join("memory.limit_in_bytes"), bytes.to_string()).context("the group's limit")?;
        Ok(group)
    }

    /// The same command, which enters the group before it begins.
    #[must_use]
    pub fn entered_by(&self, command: &Command) -> Command {
        let mut entered = Command::new("sh");
        entered.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(self.dir.join("cgroup.procs"));
        entered.arg(command.get_program()).args(command.get_args());
        entered.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        entered
    }

    /// How many processes the kernel has killed in it.
    pub fn kills(&self) -> Result<u64> {
        let text = fs::read_to_string(self.dir.join("memory.oom_control"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.context("the kernel does not count its kills")?.trim().parse().context("the kernel's count")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel needs a moment until it has forgotten who was in it.
        for _ in 0..50 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
