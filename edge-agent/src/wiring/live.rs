//! What of the configuration can change while the agent runs, and who is told.
//!
//! In: settings of the hub. Out: new rules for doors, another cadence for cameras, another level for the log. What the
//! perceiving threads were built for (the demand for liveness, the least height of a face) waits for a start: half of it in
//! use would be a door that asks for what nobody looks for.

use std::collections::HashMap;
use std::sync::Arc;

use face_runtime::ModelPack;
use tokio::sync::watch;
use wire_contract::{Code, TwinSettings};

use super::doors;
use crate::config::twin::in_effect;
use crate::config::{Config, Sources};
use crate::logging::LogDesk;
use crate::stages::decide::{PolicyConfig, Rules};
use crate::stages::perceive::PerceiveConfig;
use crate::twin::{Configure, Desired, Refusal};

/// Who is told of a change.
pub(super) struct Live {
    sources: Sources,
    pack: Arc<ModelPack>,
    log: LogDesk,
    doors: HashMap<String, watch::Sender<Arc<Rules>>>,
    cadence: watch::Sender<PerceiveConfig>,
    /// As the agent works now.
    running: Config,
}

impl Live {
    pub(super) fn new(config: &Config, sources: Sources, pack: Arc<ModelPack>, log: LogDesk) -> Self {
        let cadence = watch::Sender::new(config.perceive);
        Self { sources, pack, log, doors: HashMap::new(), cadence, running: config.clone() }
    }

    /// The rules of a door, now and whenever they change.
    pub(super) fn rules_of(&mut self, door: &str, rules: Rules) -> watch::Receiver<Arc<Rules>> {
        let sender = watch::Sender::new(Arc::new(rules));
        let receiver = sender.subscribe();
        self.doors.insert(door.to_owned(), sender);
        receiver
    }

    /// How often cameras are looked at, now and whenever that changes.
    pub(super) fn cadence(&self) -> watch::Receiver<PerceiveConfig> {
        self.cadence.subscribe()
    }

    /// The configuration with these settings, and the rules that it makes for each door.
    fn with(&self, desired: &Desired) -> Result<(Config, HashMap<String, Rules>), Refusal> {
        let refused = |reason| Refusal { code: Code::TwinInvalid, reason };
        let loaded = self.sources.load(Some(&desired.layer())).map_err(|errors| refused(errors.to_string()))?;
        let config = loaded.config;
        let mut rules = HashMap::new();
        for door in &config.doors {
            // The pack may have no threshold for the rate that is asked for.
            let made = doors::rules(&config, door, &self.pack).map_err(|error| refused(format!("{error:#}")))?;
            rules.insert(door.id.clone(), made);
        }
        Ok((config, rules))
    }

    /// The settings of policies that differ and need a start.
    fn waiting(&self, config: &Config) -> Vec<String> {
        let mut waiting = Vec::new();
        for policy in &config.policies {
            let Some(running) = self.running.policy(&policy.id) else { continue };
            let differing = [
                ("liveness", policy.liveness != running.liveness),
                ("min_face_px", policy.min_face_px != running.min_face_px),
            ];
            let named = differing.iter().filter(|(_, differs)| *differs);
            waiting.extend(named.map(|(key, _)| format!("policy.{}.{key}", policy.id)));
        }
        waiting
    }
}

impl Configure for Live {
    fn check(&self, desired: &Desired) -> Result<(), Refusal> {
        self.with(desired).map(drop)
    }

    fn apply(&mut self, desired: &Desired) -> Vec<String> {
        let Ok((mut config, _)) = self.with(desired) else {
            // Checked a moment ago; a file that changed since is seen at the next start.
            return Vec::new();
        };
        let waiting = self.waiting(&config);
        for policy in &mut config.policies {
            if let Some(running) = self.running.policy(&policy.id) {
                *policy =
                    PolicyConfig { liveness: running.liveness, min_face_px: running.min_face_px, ..policy.clone() };
            }
        }
        for door in &config.doors {
            if let (Some(told), Ok(rules)) = (self.doors.get(&door.id), doors::rules(&config, door, &self.pack)) {
                told.send_if_modified(|present| {
                    let changes = **present != rules;
                    if changes {
                        *present = Arc::new(rules);
                    }
                    changes
                });
            }
        }
        self.cadence.send_replace(config.perceive);
        self.log.configure(&config.log.level);
        self.running.doors.clone_from(&config.doors);
        self.running.policies.clone_from(&config.policies);
        self.running.perceive = config.perceive;
        self.running.log = config.log;
        waiting
    }

    fn in_effect(&self) -> TwinSettings {
        in_effect(&self.running)
    }
}
