//! Opening what the device remembers: keys, identity, galleries, outbox.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use edge_store::{
    ClockStore, ClockStoreError, DeviceKeys, Identity, Outbox, OutboxOpened, OutboxOptions, OutboxRenewal,
};
use face_core::Space;
use face_runtime::Manifest;

use crate::clock::{Clock, SharedClock, SystemClock};
use crate::config::{AgentConfig, Config};
use crate::gallery::{Galleries, Rebuilt};
use crate::logging::chain;
use crate::models;
use crate::sync::lease::{self, Lease};

/// What was opened.
pub(super) struct Opened {
    pub(super) keys: DeviceKeys,
    pub(super) identity: Option<Identity>,
    pub(super) clock: SystemClock,
    pub(super) clock_store: ClockStore,
    pub(super) galleries: Arc<Galleries>,
    pub(super) rebuilt: Vec<Rebuilt>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) renewal: Option<OutboxRenewal>,
}

/// Makes the two folders where they are missing. The state folder is private: mode 0700.
///
/// # Errors
/// When the operating system refuses.
pub fn prepare_dirs(config: &AgentConfig) -> Result<()> {
    let make = |dir: &Path, mode| {
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir).with_context(|| {
            format!("folder {} cannot be made; give it to the user that runs the agent", dir.display())
        })
    };
    make(&config.runtime_dir, 0o755)?;
    make(&config.state_dir, 0o700)?;
    let mode = fs::metadata(&config.state_dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(&config.state_dir, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("folder {} is open to others and cannot be closed", config.state_dir.display()))?;
    }
    Ok(())
}

/// Where systemd has put the service's credentials, if it has.
#[must_use]
pub fn credentials_dir() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Opens everything in the state folder. Stores with doubtful content are begun anew and named; only what the operating
/// system refuses is an error.
pub(super) fn open(config: &Config) -> Result<Opened> {
    let state_dir = &config.agent.state_dir;
    let keys = DeviceKeys::open(&config.agent.keys_dir(), credentials_dir().as_deref())?;
    let identity = Identity::load(state_dir)?;
    let space = space(&models::shelf::find(&config.models, &config.models.pack)?.manifest)?;
    let dir = config.agent.galleries_dir();
    let (galleries, rebuilt) = match &identity {
        Some(_) => Galleries::open(&dir, keys.clone(), &space)?,
        // A device that belongs to nobody lets nobody in, even if an old gallery lies in its folder.
        None => (Galleries::none(&dir, keys.clone(), &space), Vec::new()),
    };
    let (clock, clock_store) = open_clock(config, &keys, identity.as_ref())?;
    let now = SystemTime::from(clock.wall().utc);
    let (outbox, opened) = Outbox::open(&config.agent.outbox_dir(), &keys.outbox()?, OutboxOptions::default(), now)?;
    let renewal = match opened {
        OutboxOpened::Renewed(renewal) => {
            tracing::error!(event = "outbox_renewed", alarm = true, %renewal, "the outbox could not be trusted");
            Some(renewal)
        }
        OutboxOpened::Intact | OutboxOpened::New => None,
    };
    Ok(Opened {
        keys,
        identity,
        clock,
        clock_store,
        galleries: Arc::new(galleries),
        rebuilt,
        outbox: Arc::new(outbox),
        renewal,
    })
}

/// The clock, with what earlier runs and the claim knew of the time.
///
/// # Errors
/// When the key or the file cannot be read.
pub fn open_clock(
    config: &Config,
    keys: &DeviceKeys,
    identity: Option<&Identity>,
) -> Result<(SystemClock, ClockStore), ClockStoreError> {
    let (store, doubt) = ClockStore::open(&config.agent.state_dir, keys)?;
    if let Some(doubt) = doubt {
        tracing::error!(
            event = "clock_mark_forged",
            alarm = true,
            error = crate::logging::chain(&doubt),
            "what earlier runs knew of the time cannot be believed; it is learned anew from the hub"
        );
    }
    let claimed = identity.map_or(0, |identity| identity.signed_time);
    Ok((SystemClock::resumed(config.clock, claimed, store.last().as_ref()), store))
}

/// Ends the lease, if it is over, before the first door decides; the galleries that went with it.
pub(super) fn enforce_lease(
    config: &Config,
    opened: &Opened,
    clock: &SharedClock,
) -> Vec<(gallery_log::GalleryId, u32)> {
    let (Some(identity), Some(span)) = (&opened.identity, config.sync.lease()) else { return Vec::new() };
    let now = clock.now();
    match Lease::open(&config.agent.state_dir, &opened.keys, Some(span), identity.signed_time, now) {
        Ok(lease) => lease::enforce(lease, &opened.galleries, now, clock.wall()),
        Err(error) => {
            tracing::error!(
                event = "contact_unreadable",
                alarm = true,
                error = chain(&error),
                "whether the lease of the galleries is over is not known"
            );
            Vec::new()
        }
    }
}

/// The manifest is small and read before the models are open, so that the stores need not wait for them.
fn space(manifest: &Path) -> Result<Space> {
    let text = fs::read_to_string(manifest).with_context(|| {
        format!("model manifest {} cannot be read; run scripts/setup or correct [models] manifest", manifest.display())
    })?;
    let manifest = Manifest::parse(&text).with_context(|| format!("model manifest {}", manifest.display()))?;
    Ok(manifest.space())
}
