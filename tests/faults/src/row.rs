//! What a row is: its name in the fault matrix, how often its fault is injected, and what it needs of the machine.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::lab::Lab;
use crate::outcome::Verdict;

/// One row of the fault matrix.
pub struct Row {
    /// As in the matrix: `D3`.
    pub id: &'static str,
    /// What is broken and what must hold, in a few words.
    pub title: &'static str,
    /// How often the fault is injected by `scripts/soak`.
    pub count: u64,
    /// How often on every run of `scripts/test`.
    pub small: u64,
    /// What must be there, or the row is skipped.
    pub needs: &'static [Need],
    /// Injects [`Lab::count`] faults and says what became of it. An error is about the lab, not about the product.
    pub run: fn(&mut Lab) -> Result<Verdict>,
}

/// Something that a row cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The right to mount, to make namespaces and control groups.
    Root,
    /// A program on the path, and the Debian package that has it.
    Program(&'static str, &'static str),
    /// The control group controller `memory`, version 1, writable.
    MemoryCgroup,
    /// A file or folder that `scripts/setup` installs, below `$LINTEL_PARTS`.
    Part(&'static str),
}

impl Need {
    /// Why the row cannot run here, as `<kind>: <what>` of scripts/README.md; `None` when the need is met.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root if !is_root() => Some("root: to mount file systems and make namespaces".to_owned()),
            Self::Program(name, package) if !runs(name) => Some(format!("{name} (package {package})")),
            Self::MemoryCgroup if !Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() => {
                Some("host: the version 1 memory control group at /sys/fs/cgroup/memory".to_owned())
            }
            Self::Part(name) if !part(name).exists() => Some(format!("{} (scripts/setup)", part(name).display())),
            _ => None,
        }
    }
}

impl Row {
    /// The first need that is not met.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        self.needs.iter().find_map(|need| need.missing())
    }
}

/// A part that `scripts/setup` installed.
#[must_use]
pub fn part(name: &str) -> std::path::PathBuf {
    let parts = std::env::var_os("LINTEL_PARTS").unwrap_or_else(|| "/var/cache/lintel/parts".into());
    Path::new(&parts).join(name)
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Whether the program can be started at all; what it says to `--version` does not matter.
fn runs(program: &str) -> bool {
    let done = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    done.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        assert_eq!(Need::Program("no-such-program", "nothing").missing().unwrap(), "no-such-program (package nothing)");
        assert_eq!(Need::Program("true", "coreutils").missing(), None);
    }
}
