//! A door from its configuration: the relay, its socket, and the rules of its policy.

use anyhow::{Context, Result};
use face_core::door::DoorPolicy;
use face_core::identify::OpenSetRules;
use face_core::liveness::LivenessPolicy;
use face_runtime::ModelPack;

use crate::clock::SharedClock;
use crate::config::Config;
use crate::door::{ActuatorKind, DoorConfig, FailMode, SimulatedDoor, Watch};
use crate::stages::decide::{LivenessRule, LivenessRules, PolicyConfig, Rules, UnrecordedRule};

/// A door's relay and its socket.
pub(super) struct Relay {
    pub(super) config: DoorConfig,
    pub(super) actuator: SimulatedDoor,
    pub(super) watch: Watch,
}

/// Opens the relay of every door, locked.
pub(super) fn open_relays(config: &Config, clock: &SharedClock) -> Result<Vec<Relay>> {
    let open = |door: &DoorConfig| {
        let ActuatorKind::Simulated = door.actuator;
        let clock = SharedClock::clone(clock);
        let (actuator, watch) = SimulatedDoor::open(&config.agent.runtime_dir, &door.id, door.fail, clock)
            .with_context(|| format!("door {}", door.id))?;
        Ok(Relay { config: door.clone(), actuator, watch })
    };
    config.doors.iter().map(open).collect()
}

/// The policy of a door with the model pack's thresholds.
pub(super) fn rules(config: &Config, door: &DoorConfig, pack: &ModelPack) -> Result<Rules> {
    let policy = config.policy(&door.policy).expect("a loaded configuration has every policy that a door names");
    let ladder = pack.manifest().ladder_at(policy.far).with_context(|| format!("policy {}: far", policy.id))?;
    if policy.liveness == LivenessRule::Off {
        tracing::warn!(event = "liveness_off", alarm = true, door = %door.id, policy = %policy.id, "this door opens for photographs: its policy does not ask for liveness");
    }
    Ok(Rules {
        door: DoorPolicy {
            hold: door.hold,
            regrant: door.regrant,
            freshness: policy.freshness,
            fail: match door.fail {
                FailMode::Secure => face_core::door::FailMode::Secure,
                FailMode::Safe => face_core::door::FailMode::Safe,
            },
            ..DoorPolicy::default()
        },
        open_set: OpenSetRules { ladder, margin: policy.margin },
        liveness: liveness(policy),
        min_face_px: f32::from(policy.min_face_px),
        deny_unrecorded: policy.unrecorded == UnrecordedRule::Deny,
        lockdown_lets: policy.lockdown_lets.clone(),
    })
}

fn liveness(policy: &PolicyConfig) -> Option<LivenessRules> {
    let defaults = LivenessPolicy::default();
    let demand = policy.demand()?;
    Some(LivenessRules {
        demand,
        pass_above: defaults.pass_above,
        horizon: defaults.horizon,
        challenge: policy.challenge(),
    })
}
