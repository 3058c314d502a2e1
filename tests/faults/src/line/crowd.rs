//! A fleet in a process of its own: started, held, killed, started again, and asked where it stands.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::fleet::Standing;
use fleet_sim::history::Told;
use fleet_sim::searches::{self, Found, Probe};
use system_tests::launcher::Process;

use super::Site;
use crate::lab::now;

/// The file of the site in which the findings are.
const FINDINGS: &str = "findings.txt";

/// The grain of waiting; the standing is written five times a second.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A thousand devices open three files each before the fleet says its first word.
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(120);

/// By then the fleet has seen the hold and has written its standing again.
const SEEN_AFTER: Duration = Duration::from_millis(500);

/// A running fleet.
pub struct Crowd {
    process: Process,
    rate: f64,
    probes: Option<PathBuf>,
    hold: PathBuf,
    status: PathBuf,
    history: PathBuf,
}

impl Crowd {
    /// Starts all devices of the site through the proxy, recording `rate` events a second together.
    pub fn start(site: &Site, rate: f64) -> Result<Self> {
        Self::launch(site, rate, None)
    }

    /// The same, and each device's search looks for these people whenever its gallery changes: see [`Crowd::findings`].
    pub fn start_searching(site: &Site, rate: f64, probes: &[Probe]) -> Result<Self> {
        let file = site.file("probes.json");
        std::fs::write(&file, serde_json::to_vec(probes)?)?;
        Self::launch(site, rate, Some(file))
    }

    fn launch(site: &Site, rate: f64, probes: Option<PathBuf>) -> Result<Self> {
        let [hold, status, history] = ["hold", "status.json", "history.txt"].map(|name| site.file(name));
        // The standing of a run before says nothing of this one.
        let _absent = std::fs::remove_file(&status);
        let mut command = Command::new(site.places().programs.join("fleet-sim"));
        command.arg("run").arg("--dir").arg(site.fleet_dir());
        command.args(["--rate", &rate.to_string(), "--through", &format!("127.0.0.1:{}", site.proxy.port())]);
        for (option, path) in [("--hold", &hold), ("--status", &status), ("--history", &history)] {
            command.arg(option).arg(path);
        }
        if let Some(probes) = &probes {
            command.arg("--probes").arg(probes).arg("--findings").arg(site.file(FINDINGS));
        }
        command.stdout(std::process::Stdio::null());
        let process = Process::spawn("fleet-sim", command, &site.file("fleet.log"))?;
        Ok(Self { process, rate, probes, hold, status, history })
    }

    /// Kills the process in whatever it is doing and starts it again.
    pub fn kill_and_restart(&mut self, site: &Site) -> Result<()> {
        self.process.kill()?;
        *self = Self::launch(site, self.rate, self.probes.clone())?;
        Ok(())
    }

    /// The fleet's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What the devices' searches have found so far.
    pub fn findings(&self, site: &Site) -> Result<Vec<Found>> {
        searches::read(&site.file(FINDINGS))
    }

    /// Nothing more is recorded until [`Crowd::go_on`].
    pub fn hold(&self) -> Result<()> {
        Ok(std::fs::write(&self.hold, "")?)
    }

    /// Recording goes on.
    pub fn go_on(&self) -> Result<()> {
        Ok(std::fs::remove_file(&self.hold)?)
    }

    /// Where the fleet stands; waits for the first word of a fresh process.
    pub fn standing(&mut self) -> Result<Standing> {
        let begun = now();
        loop {
            self.process.check_alive()?;
            if let Ok(text) = std::fs::read(&self.status) {
                return serde_json::from_slice(&text).context("the fleet's standing");
            }
            ensure!(begun.elapsed() < FIRST_WORD_WITHIN, "the fleet says nothing; {}", self.process.log_tail());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until the standing is so; how long that took, or nothing when it never came.
    pub fn until(&mut self, patience: Duration, mut so: impl FnMut(&Standing) -> bool) -> Result<Option<Duration>> {
        let begun = now();
        loop {
            if so(&self.standing()?) {
                return Ok(Some(begun.elapsed()));
            }
            if begun.elapsed() >= patience {
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until everything is acknowledged that is on disk now. Nothing is recorded meanwhile: the standing is the sum of
    /// all devices, and the progress of one would hide that another stands still.
    pub fn until_drained(&mut self, patience: Duration) -> Result<Option<Duration>> {
        let (begun, held) = (now(), self.hold.exists());
        self.hold()?;
        std::thread::sleep(SEEN_AFTER);
        let recorded = self.standing()?.recorded;
        let drained = self.until(patience, |standing| standing.acknowledged >= recorded)?;
        if !held {
            self.go_on()?;
        }
        Ok(drained.map(|_| begun.elapsed()))
    }

    /// Ends the fleet in order and returns what it was promised.
    pub fn end(mut self, site: &Site) -> Result<Told> {
        let status = site.block_on(self.process.stop(Duration::from_secs(20)))?;
        ensure!(status.success(), "the fleet ended with {status}: {}", self.process.log_tail());
        Told::read(&self.history)
    }
}
