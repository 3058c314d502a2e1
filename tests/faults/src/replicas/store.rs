//! The store in which hubs count limits together: Debian's Redis, on a socket of its own.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use system_tests::launcher::Process;

use crate::lab::now;

/// Debian's package of tools holds the server, which goes by the name it is called.
pub const PROGRAM: &str = "/usr/bin/redis-check-rdb";
/// It is there within milliseconds.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A store; ended when dropped.
pub struct Store {
    process: Option<Process>,
    dir: PathBuf,
}

impl Store {
    /// Starts one whose socket is in a folder.
    pub fn start(dir: &Path) -> Result<Self> {
        let mut store = Self { process: None, dir: dir.to_path_buf() };
        store.back()?;
        Ok(store)
    }

    /// How hubs are told of it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Kills it; what it has counted is gone.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        // A socket that a killed server leaves is in the way of the next one.
        Ok(std::fs::remove_file(self.socket())?)
    }

    /// Starts it again.
    pub fn back(&mut self) -> Result<()> {
        let mut command = Command::new(PROGRAM);
        command.arg0("redis-server").args(["--port", "0", "--save", "", "--dir"]).arg(&self.dir);
        command.arg("--unixsocket").arg(self.socket()).stdout(Stdio::null());
        self.process = Some(Process::spawn("redis-server", command, &self.dir.join("store.log"))?);
        let begun = now();
        while !self.socket().exists() {
            ensure!(begun.elapsed() < READY_WITHIN, "the store does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("store.sock")
    }
}
