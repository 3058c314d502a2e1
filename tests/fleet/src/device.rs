//! One device: a folder with identity, keys, outbox and galleries, made by a claim, and the agent's sync at work on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use edge_agent::clock::{Clock, SharedClock, SystemClock};
use edge_agent::gallery::Galleries;
use edge_agent::stages::record::{self, Origin, Record, Recorder};
use edge_agent::sync::{self, About, ClaimError, HttpsError, Orders, Sync, SyncStatus, Timing};
use edge_store::{Broker, DeviceKeys, Identity, Outbox, OutboxOpened, OutboxOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire_contract::{ClaimToken, Code};

/// The embedding space of the default model pack (models/faceplugin/manifest.toml): people of other spaces are not taken in.
pub const SPACE_ID: &str = "faceplugin-feature-0.0.1-arcface5-views2d";

/// A device that can be started. It holds its stores' locks.
pub struct Device {
    /// Who it is.
    pub identity: Identity,
    /// Where its events wait.
    pub outbox: Arc<Outbox>,
    /// The people that it knows.
    pub galleries: Arc<Galleries>,
    dir: PathBuf,
    keys: DeviceKeys,
    recorded: watch::Sender<u64>,
    run: Uuid,
}

/// A device at work. Dropping it stops nothing; cancel the token that it was started with.
pub struct Running {
    /// How its line is.
    pub status: watch::Receiver<SyncStatus>,
    /// Whatever is told to it goes into the device's outbox.
    pub recorder: Recorder,
    /// Ends when sync has said goodbye.
    pub task: tokio::task::JoinHandle<()>,
}

/// Where things stand below a device's folder, as the agent has them below its state directory.
fn places(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    (dir.join("keys"), dir.join("galleries"), dir.join("outbox"))
}

/// Claims an identity with a token and writes it to `dir`, as `edge-agent claim` does.
pub async fn claim(dir: &Path, token: &str, serial: &str) -> Result<()> {
    let token: ClaimToken = token.trim().parse().context("the token is not one that a hub makes")?;
    let (keys_dir, galleries, outbox) = places(dir);
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let keys = DeviceKeys::open(&keys_dir, None)?;
    let clock = SystemClock::default();
    let claimed = sync::claim(&token, serial, &clock).await.with_context(|| format!("claim of {serial}"))?;
    claimed.commit(dir, &galleries, &outbox, &keys, SystemTime::from(clock.wall().utc))?;
    Ok(())
}

/// Whether a claim failed because the token was somebody else's already.
#[must_use]
pub fn was_used(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<ClaimError>();
    matches!(refused, Some(ClaimError::Hub(HttpsError::Refused { code: Code::ClaimUsed, .. })))
}

impl Device {
    /// Opens a claimed device. `through` is another way to the broker than the one that the hub named, such as a proxy.
    pub fn open(dir: &Path, space_id: &str, through: Option<&Broker>) -> Result<Self> {
        let (keys_dir, galleries, outbox) = places(dir);
        let mut identity =
            Identity::load(dir)?.with_context(|| format!("{} is not claimed: fleet-sim create", dir.display()))?;
        if let Some(broker) = through {
            identity.broker = broker.clone();
        }
        let keys = DeviceKeys::open(&keys_dir, None)?;
        let now = SystemTime::from(SystemClock::utc());
        let (outbox, opened) = Outbox::open(&outbox, &keys.outbox()?, OutboxOptions::default(), now)?;
        // A renewed outbox is a loss that the judge must see: nothing here may hide it.
        anyhow::ensure!(
            !matches!(opened, OutboxOpened::Renewed(_)),
            "the outbox of {} was not intact: {opened:?}",
            dir.display()
        );
        let (galleries, _rebuilt) = Galleries::open(&galleries, keys.clone(), &face_core::Space::plain(space_id))?;
        let recorded = watch::Sender::new(outbox.stats()?.last_sequence);
        Ok(Self {
            identity,
            outbox: Arc::new(outbox),
            galleries: Arc::new(galleries),
            dir: dir.to_path_buf(),
            keys,
            recorded,
            run: Uuid::new_v4(),
        })
    }

    /// The link key that the hub gave, for whoever speaks for this device without sync.
    pub fn link(&self) -> Result<wire_contract::LinkKeys> {
        let stored = self.keys.link()?.context("the device has no link key")?.current;
        Ok(wire_contract::LinkKeys::derive(&stored.key, wire_contract::DeviceId(self.identity.device), stored.epoch))
    }

    /// The run of this process, as its events name it.
    #[must_use]
    pub fn run_id(&self) -> Uuid {
        self.run
    }

    /// Tells sync that everything up to `last` is on disk.
    pub fn recorded(&self, last: u64) {
        self.recorded.send_replace(last);
    }

    /// The device's keys.
    #[must_use]
    pub fn keys(&self) -> &DeviceKeys {
        &self.keys
    }

    /// Starts sync, and the record thread for what sync itself has to tell.
    pub fn start(&self, stop: CancellationToken) -> Running {
        self.start_by(Arc::new(SystemClock::not_before(self.identity.signed_time)), stop)
    }

    /// The same, by a clock of the caller's.
    pub fn start_by(&self, clock: SharedClock, stop: CancellationToken) -> Running {
        let (recorder, messages) = Recorder::channel();
        let origin = Origin {
            pack: "none".to_owned(),
            space_id: "none".to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (tenant, device) = (self.identity.tenant, self.identity.device);
        let record = Record {
            outbox: Arc::clone(&self.outbox),
            source: Some(wire_contract::event::device_source(
                wire_contract::TenantId(tenant),
                wire_contract::DeviceId(device),
            )),
            origin: origin.clone(),
            run: self.run,
            clock: Arc::clone(&clock),
            health: recorder.health(),
            recorded: self.recorded.clone(),
            turns: Arc::default(),
            give_up: stop.clone(),
        };
        // Ends with the last recorder, which sync and whoever started it hold. Not one of tokio's blocking threads: these are 512, and sync wants
        // some of them too.
        let recording = std::thread::Builder::new().name("record".to_owned());
        recording.spawn(move || record::run(&record, messages)).expect("the machine has threads left");
        let (status, shown) = watch::channel(SyncStatus::default());
        let sync = Sync {
            identity: self.identity.clone(),
            state_dir: self.dir.clone(),
            keys: self.keys.clone(),
            outbox: Arc::clone(&self.outbox),
            galleries: Arc::clone(&self.galleries),
            recorded: self.recorded.subscribe(),
            recorder: recorder.clone(),
            orders: Orders::none(),
            gallery_lease: None,
            about: About { boot: self.run, agent_version: origin.agent_version, pack: None, space: None },
            clock,
            turns: Arc::default(),
            timing: Timing::default(),
        };
        Running { status: shown, recorder, task: tokio::spawn(sync::run(sync, status, stop)) }
    }
}
