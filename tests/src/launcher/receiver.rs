//! The webhook receiver, a process of its own as an integrator's back end would be.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Places, Process};

/// One request as it arrived.
#[derive(Clone, Debug, Deserialize)]
pub struct Delivery {
    /// Header `webhook-id`.
    pub id: String,
    /// Header `webhook-timestamp`, Unix seconds.
    pub timestamp: String,
    /// Header `webhook-signature`.
    pub signature: String,
    /// The body, byte for byte (it is JSON).
    pub body: String,
}

/// A running receiver and the file it writes.
pub struct Receiver {
    _process: Process,
    log: PathBuf,
    url: String,
}

impl Receiver {
    /// Starts the receiver on a free port.
    pub fn start(places: &Places, dir: &Path) -> Result<Self> {
        let log = dir.join("webhooks.ndjson");
        let mut command = Command::new(places.programs.join("webhook-receiver"));
        command.arg("--log").arg(&log).stdout(Stdio::piped());
        let mut process = Process::spawn("webhook-receiver", command, &dir.join("webhook-receiver.log"))?;
        let mut url = String::new();
        BufReader::new(process.take_stdout().context("the receiver's standard output")?).read_line(&mut url)?;
        Ok(Self { _process: process, log, url: url.trim().to_owned() })
    }

    /// Where webhooks are to be sent.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Everything that has arrived, in order.
    pub fn deliveries(&self) -> Result<Vec<Delivery>> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be half written: only complete ones count.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| serde_json::from_str(line).context("a line of the receiver's log")).collect()
    }
}
