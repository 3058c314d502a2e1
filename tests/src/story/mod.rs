//! The demo: one story about a door, told while it happens and judged from outside at every step.
//!
//! In: the release binaries and the installed parts. Out: a [`Report`] with one entry a step and the figures that were
//! seen. Neither program has a switch for it: thresholds are the shipped ones, and a step counts only if the relay's
//! socket, the tables or the webhook receiver show it.

mod arrivals;
mod deletion;
mod orders;
mod outages;
mod preparation;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

pub use report::{Report, Step};

use crate::bench::percentiles;
use crate::launcher::{Agent, AgentSetup, Hub, Places, Receiver, Tenant, run_dir};
use crate::watch::{RelayWatch, Rows};
use report::Narrator;

/// Everything that the steps share.
struct Story {
    places: Places,
    tell: Narrator,
    ports: (u16, u16),
    clips: Clips,
    people: People,
    hub: Option<Hub>,
    rows: Option<Rows>,
    tenant: Option<Tenant>,
    site: String,
    setup: Option<AgentSetup>,
    agent: Option<Agent>,
    relay: Option<RelayWatch>,
    receiver: Option<Receiver>,
    webhook_secret: String,
    /// The door's own timing of each visit's first grant, by name.
    timings: BTreeMap<String, Vec<f64>>,
    // Last, so that everything that writes into it has ended before it goes.
    dir: tempfile::TempDir,
}

/// What is put before the camera.
#[derive(Default)]
struct Clips {
    corridor: PathBuf,
    man: PathBuf,
    stranger: PathBuf,
    photograph: PathBuf,
}

/// Ids of the enrolled.
#[derive(Default)]
struct People {
    man: String,
    obama: String,
}

/// How the demo is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// End after the story; otherwise stay up until Ctrl-C.
    pub check: bool,
}

/// Tells the story and returns what was seen. A failed step ends it, because the next ones stand on it.
pub async fn tell(places: Places, options: Options) -> Result<Report> {
    let mut story = Story {
        places,
        tell: Narrator::new(),
        ports: (crate::launcher::free_port()?, crate::launcher::free_port()?),
        clips: Clips::default(),
        people: People::default(),
        hub: None,
        rows: None,
        tenant: None,
        site: String::new(),
        setup: None,
        agent: None,
        relay: None,
        receiver: None,
        webhook_secret: String::new(),
        timings: BTreeMap::new(),
        dir: run_dir()?,
    };
    let outcome = story.run().await;
    if let Err(error) = &outcome {
        story.tell.failed(error);
        story.keep_logs();
    } else if !options.check {
        story.stay_up().await?;
    }
    story.shut_down().await;
    Ok(story.tell.into_report())
}

/// Runs one step and writes down how it went and how long it took.
macro_rules! step {
    ($story:ident, $name:ident) => {
        $story.tell.begin(stringify!($name));
        let outcome = $story.$name().await;
        $story.tell.end(stringify!($name), &outcome);
        outcome.context(concat!("step ", stringify!($name)))?;
    };
}

impl Story {
    async fn run(&mut self) -> Result<()> {
        step!(self, hub_ready);
        step!(self, device_claimed);
        step!(self, enrolled);
        step!(self, known_opens);
        step!(self, stranger_refused);
        step!(self, photo_refused);
        step!(self, unlocked_from_afar);
        step!(self, offline_opens);
        step!(self, events_once);
        step!(self, edge_killed_recovers);
        step!(self, hub_killed_recovers);
        step!(self, deleted_refused);
        self.collect_figures().await
    }

    fn hub(&self) -> &Hub {
        self.hub.as_ref().expect("steps that need the hub come after hub_ready")
    }

    fn tenant(&self) -> &Tenant {
        self.tenant.as_ref().expect("the tenant is made in hub_ready")
    }

    fn setup(&self) -> &AgentSetup {
        self.setup.as_ref().expect("the agent is set up in device_claimed")
    }

    fn relay(&self) -> &RelayWatch {
        self.relay.as_ref().expect("the relay is watched from device_claimed on")
    }

    fn rows(&mut self) -> &mut Rows {
        self.rows.as_mut().expect("the tables are watched while the hub is up")
    }

    /// Starts the hub on the ports and data of this story; a second start is the same hub again.
    async fn start_hub(&mut self) -> Result<Duration> {
        let began = tokio::time::Instant::now();
        let hub = Hub::start(&self.places, &self.dir.path().join("hub"), self.ports.0, self.ports.1).await?;
        self.rows = Some(Rows::connect(&hub.ready().postgres).await?);
        self.hub = Some(hub);
        Ok(began.elapsed())
    }

    async fn stop_hub(&mut self) -> Result<()> {
        self.rows = None;
        if let Some(mut hub) = self.hub.take() {
            hub.process().stop(Duration::from_secs(15)).await?;
        }
        Ok(())
    }

    async fn start_agent(&mut self) -> Result<Duration> {
        let (agent, took) = self.setup().start().await?;
        self.agent = Some(agent);
        self.relay().connected().await?;
        Ok(took)
    }

    async fn stop_agent(&mut self) -> Result<()> {
        if let Some(mut agent) = self.agent.take() {
            agent.process().stop(Duration::from_secs(10)).await?;
        }
        Ok(())
    }

    /// Median and 95th percentile of the first grants of each visit, and the memory of both programs.
    async fn collect_figures(&mut self) -> Result<()> {
        for (name, values) in std::mem::take(&mut self.timings) {
            for (figure, value) in percentiles(&name, &values) {
                self.tell.figure(&figure, value);
            }
        }
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        if let Some(agent) = &mut self.agent {
            let resident = agent.process().resident_bytes()?;
            self.tell.figure("agent_resident_mib", mebibytes(resident));
        }
        if let Some(hub) = &mut self.hub {
            let resident = hub.process().resident_bytes()?;
            self.tell.figure("hub_resident_mib", mebibytes(resident));
        }
        Ok(())
    }

    async fn stay_up(&mut self) -> Result<()> {
        let hub = self.hub();
        let (https, mqtt) = (hub.ready().https.clone(), hub.ready().mqtt.clone());
        let root = hub.ready().root_certificate.display().to_string();
        self.tell.say("Everything is still up. Things to look at (Ctrl-C ends it):");
        self.tell.say(&format!("  API      curl --cacert {root} {https}/health/detailed/"));
        let key = &self.tenant().authorization;
        let events = format!("  events   curl --cacert {root} -H 'Authorization: {key}' '{https}/v1/events?limit=5'");
        self.tell.say(&events);
        self.tell.say(&format!("  broker   {mqtt} (mutual TLS: devices only)"));
        let door = self.setup().door_socket().display().to_string();
        self.tell.say(&format!("  relay    nc -U {door}"));
        self.tell.say(&format!("  logs     {}", self.dir.path().display()));
        tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
    }

    async fn shut_down(&mut self) {
        self.relay = None;
        for outcome in [self.stop_agent().await, self.stop_hub().await] {
            if let Err(error) = outcome {
                self.tell.say(&format!("while shutting down: {error:#}"));
            }
        }
    }

    /// After a failure the logs are worth more than a tidy /tmp.
    fn keep_logs(&mut self) {
        self.dir.disable_cleanup(true);
        self.tell.say(&format!("The logs are kept in {}", self.dir.path().display()));
    }
}
