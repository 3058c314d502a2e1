//! The hub's wishes for this device's configuration: taken whole or not at all, kept over restarts, given up when they fail.
//!
//! In: desired states as they come over the line, and what becomes of starts. Out: the layer of the configuration to work by,
//! and the report. What is kept on disk: the last desired state that worked, and one on trial. A desired state is on trial
//! from when its settings that need a start were taken until a start with it came up; a start that did not come up
//! [`TRIALS`] times ends the trial, and the last that worked counts again. A damaged file means that the device's own
//! configuration counts until the hub has said its wishes again, which it does at the next report.
//!
//! Deliberately absent: reading configurations ([`crate::config`]), changing what runs ([`Configure`]), the line (sync).

use std::path::Path;

use edge_store::{StateFile, StateFileError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire_contract::{Code, TwinDown, TwinSettings, TwinState, TwinUp, TwinVersion, V1};

use crate::config::TwinLayer;
use crate::logging::chain;

const FILE: &str = "twin.state";
/// Starts with a desired state that may fail before it is given up. Two: one power cut while it starts is not its fault.
const TRIALS: u32 = 2;

/// A desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Which.
    pub version: TwinVersion,
    /// What it sets.
    pub settings: TwinSettings,
}

impl Desired {
    /// As a layer of the configuration.
    #[must_use]
    pub fn layer(&self) -> TwinLayer {
        let TwinVersion { epoch, version } = self.version;
        TwinLayer { name: format!("the twin, version {version} of epoch {epoch}"), settings: self.settings.clone() }
    }
}

/// Why a desired state is not worked by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// The same in words.
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    device: Uuid,
    /// The highest desired state that was seen, whatever became of it.
    seen: Option<TwinVersion>,
    good: Option<Desired>,
    trial: Option<Trial>,
    refused: Option<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trial {
    desired: Desired,
    starts: u32,
}

/// What is kept of the twin.
#[derive(Debug)]
pub struct TwinStore {
    file: StateFile,
    kept: Kept,
}

impl TwinStore {
    /// Opens what is kept for this device; nothing is, after a claim to another identity.
    #[must_use]
    pub fn open(state_dir: &Path, device: Uuid) -> Self {
        let file = StateFile::new(state_dir, FILE);
        let none = Kept { device, ..Kept::default() };
        let kept = match file.read::<Kept>() {
            Ok(kept) => kept.filter(|kept| kept.device == device).unwrap_or(none),
            Err(error) => {
                tracing::error!(
                    event = "twin_unreadable",
                    alarm = true,
                    error = chain(&error),
                    "the device's own configuration counts until the hub has sent its settings again"
                );
                let refused = Refusal { code: Code::TwinUnreadable, reason: chain(&error) };
                Kept { refused: Some(refused), ..none }
            }
        };
        Self { file, kept }
    }

    /// What a running agent works by, or would at its next start, for whoever only looks.
    #[must_use]
    pub fn in_use(&self) -> Option<&Desired> {
        self.kept.trial.as_ref().map(|trial| &trial.desired).or(self.kept.good.as_ref())
    }

    /// A start: what it is to work by. Counts the trial, on disk, before it is made.
    pub fn start(&mut self) -> Option<Desired> {
        if let Some(trial) = &mut self.kept.trial {
            if trial.starts >= TRIALS {
                let reason = format!("{} starts with it did not come up", trial.starts);
                self.give_up(Refusal { code: Code::TwinFailed, reason });
            } else {
                trial.starts += 1;
                let desired = trial.desired.clone();
                // A trial that cannot be counted could go on for ever.
                if self.write().is_ok() {
                    return Some(desired);
                }
            }
        }
        self.kept.good.clone()
    }

    /// What it was started with does not even make a configuration.
    pub fn give_up(&mut self, refusal: Refusal) {
        tracing::error!(event = "twin_given_up", alarm = true, code = %refusal.code, reason = refusal.reason, "back to the last settings that worked");
        if self.kept.trial.take().is_none() {
            // The last that worked does not fit the device's own files any more.
            self.kept.good = None;
        }
        self.kept.refused = Some(refusal);
        let _ = self.write();
    }

    /// The start came up.
    pub fn came_up(&mut self) {
        if let Some(trial) = self.kept.trial.take_if(|trial| trial.starts > 0) {
            tracing::info!(
                event = "twin_proven",
                version = trial.desired.version.version,
                "the agent came up with the settings of the hub"
            );
            self.kept.good = Some(trial.desired);
            let _ = self.write();
        }
    }

    fn write(&self) -> Result<(), StateFileError> {
        let written = self.file.write(&self.kept);
        if let Err(error) = &written {
            tracing::error!(
                event = "twin_not_written",
                error = chain(error),
                "the settings of the hub may be older after a restart"
            );
        }
        written
    }
}

/// Whoever can check settings against this device and put them to use.
pub trait Configure: Send + Sync {
    /// Whether the agent could work by these settings.
    ///
    /// # Errors
    /// Why not.
    fn check(&self, desired: &Desired) -> Result<(), Refusal>;
    /// Puts settings that were checked to use, as far as that can be done while it runs. Answers which of them wait for a
    /// start, by their paths.
    fn apply(&mut self, desired: &Desired) -> Vec<String>;
    /// Every setting that may be set from afar, as it is in effect.
    fn in_effect(&self) -> TwinSettings;
}

/// The twin of a running agent.
pub struct TwinDesk {
    store: TwinStore,
    configure: Box<dyn Configure>,
    applied: Option<Desired>,
    waiting: Vec<String>,
}

impl std::fmt::Debug for TwinDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TwinDesk").field("store", &self.store).finish_non_exhaustive()
    }
}

impl TwinDesk {
    /// The twin of an agent that was started with `applied`.
    #[must_use]
    pub fn new(store: TwinStore, configure: Box<dyn Configure>, applied: Option<Desired>) -> Self {
        Self { store, configure, applied, waiting: Vec::new() }
    }

    /// A desired state from the hub. Blocking: it writes and fsyncs.
    ///
    /// An older one than was seen is nobody's wish any more, whoever sends it. The same one again changes nothing, unless it was
    /// not understood: the device's own configuration may have changed since.
    pub fn take(&mut self, message: &TwinDown) {
        let (version, seen) = (message.desired, self.store.kept.seen);
        let again = seen == Some(version);
        let failed_check = self.store.kept.refused.as_ref().is_some_and(|refusal| refusal.code == Code::TwinInvalid);
        if seen.is_some_and(|seen| version < seen) || (again && !failed_check) {
            tracing::info!(
                event = "twin_known",
                version = version.version,
                epoch = version.epoch,
                "an older desired state, or the present one again"
            );
            return;
        }
        let desired = TwinSettings::parse(&message.settings)
            .map(|settings| Desired { version, settings })
            .map_err(|error| error.to_string())
            .and_then(|desired| match desired.settings.hash() == message.hash {
                true => Ok(desired),
                false => Err("the settings are not those that their hash names".to_owned()),
            })
            .map_err(|reason| Refusal { code: Code::TwinInvalid, reason })
            .and_then(|desired| self.configure.check(&desired).map(|()| desired));
        self.store.kept.seen = Some(version);
        match desired {
            Ok(desired) => self.adopt(desired),
            Err(refusal) => {
                tracing::warn!(event = "twin_refused", alarm = true, version = version.version, code = %refusal.code, reason = refusal.reason, "the settings stay as they are");
                self.store.kept.refused = Some(refusal);
                let _ = self.store.write();
            }
        }
    }

    fn adopt(&mut self, desired: Desired) {
        self.store.kept.refused = None;
        self.store.kept.trial = Some(Trial { desired: desired.clone(), starts: 0 });
        // Kept first, used afterwards: a restart never goes back behind what was reported.
        if let Err(error) = self.store.write() {
            self.store.kept.trial = None;
            self.store.kept.refused = Some(Refusal { code: Code::Unavailable, reason: chain(&error) });
            return;
        }
        self.waiting = self.configure.apply(&desired);
        tracing::info!(
            event = "twin_applied",
            version = desired.version.version,
            restart_needed = self.waiting.join(", "),
            "the agent works by the settings of the hub"
        );
        if self.waiting.is_empty() {
            self.store.kept.trial = None;
            self.store.kept.good = Some(desired.clone());
            let _ = self.store.write();
        }
        self.applied = Some(desired);
    }

    /// The settings in effect, for `status`.
    #[must_use]
    pub fn version(&self) -> Option<TwinVersion> {
        self.applied.as_ref().map(|applied| applied.version)
    }

    /// What the hub is told.
    #[must_use]
    pub fn report(&self, boot: Uuid) -> TwinUp {
        let refused = self.store.kept.refused.clone();
        let state = match (&refused, &self.applied) {
            (Some(_), _) => TwinState::Refused,
            (None, None) => TwinState::None,
            (None, Some(_)) if self.waiting.is_empty() => TwinState::Applied,
            (None, Some(_)) => TwinState::RestartNeeded,
        };
        TwinUp {
            v: V1,
            boot,
            seen: self.store.kept.seen,
            applied: self.version(),
            hash: self.applied.as_ref().map(|applied| applied.settings.hash()),
            state,
            settings: serde_json::to_value(self.configure.in_effect()).expect("settings are plain structs"),
            restart_needed: self.waiting.clone(),
            code: refused.as_ref().map(|refusal| refusal.code),
            reason: refused.map(|refusal| refusal.reason),
        }
    }
}

#[cfg(test)]
mod tests;
