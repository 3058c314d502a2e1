//! What the hub wants of the configuration, as one more layer of it: above the files, below the environment.
//!
//! In: [`TwinSettings`]. Out: TOML text for [`super::Layers`], and back from a configuration the settings in effect. A door
//! or policy that this device does not have is refused by name: it would otherwise become a half of a new one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use wire_contract::TwinSettings;
use wire_contract::twin::{TwinDoor, TwinFar, TwinLiveness, TwinLog, TwinLogLevel, TwinPerceive, TwinPolicy};

use super::{Config, ConfigError, ConfigErrors};
use crate::logging::own_parts_at;
use crate::stages::decide::{LivenessRule, PolicyConfig};

/// Settings of the hub with their version, as a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinLayer {
    /// Which desired state, for messages: `the twin, version 7`.
    pub name: String,
    /// What it sets.
    pub settings: TwinSettings,
}

/// A name or number as a key's value: the words of the enumerations are their own TOML strings.
fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => unreachable!("only enumerations of words are given"),
    }
}

impl TwinLayer {
    /// The settings as a configuration file would have them.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let settings = &self.settings;
        if let Some(level) = settings.log.as_ref().and_then(|log| log.level) {
            let _ = writeln!(text, "[log]\nlevel = \"{}\"", own_parts_at(&word(level)));
        }
        if let Some(perceive) = &settings.perceive {
            text.push_str("[perceive]\n");
            duration(&mut text, "idle_interval", perceive.idle_interval_ms);
            duration(&mut text, "track_interval", perceive.track_interval_ms);
            duration(&mut text, "settled_interval", perceive.settled_interval_ms);
        }
        for (id, door) in &settings.door {
            let _ = writeln!(text, "[[door]]\nid = {id:?}");
            duration(&mut text, "hold", door.hold_ms);
            duration(&mut text, "regrant", door.regrant_ms);
        }
        for (id, policy) in &settings.policy {
            let _ = writeln!(text, "[[policy]]\nid = {id:?}");
            if let Some(far) = policy.far {
                let _ = writeln!(text, "far = \"{}\"", word(far));
            }
            if let Some(liveness) = policy.liveness {
                let _ = writeln!(text, "liveness = \"{}\"", word(liveness));
            }
            duration(&mut text, "freshness", policy.freshness_ms);
            if let Some(height) = policy.min_face_px {
                let _ = writeln!(text, "min_face_px = {height}");
            }
        }
        text
    }

    /// Whether every door and policy is one of the device's.
    pub(super) fn fits(&self, plain: &Config) -> Result<(), ConfigErrors> {
        let doors: Vec<&str> = plain.doors.iter().map(|door| door.id.as_str()).collect();
        let policies: Vec<&str> = plain.policies.iter().map(|policy| policy.id.as_str()).collect();
        let strangers = |kind: &'static str, asked: Vec<&String>, known: &[&str]| {
            let unknown = asked.into_iter().filter(|id| !known.contains(&id.as_str()));
            let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let told = unknown.map(|id| ConfigError::Inconsistent {
                subject: format!("{kind}.{id}"),
                message: format!("this device has no such {kind}; it has {has}"),
            });
            told.collect::<Vec<_>>()
        };
        let mut problems = strangers("door", self.settings.door.keys().collect(), &doors);
        problems.extend(strangers("policy", self.settings.policy.keys().collect(), &policies));
        if problems.is_empty() { Ok(()) } else { Err(ConfigErrors(problems)) }
    }
}

fn duration(text: &mut String, key: &str, ms: Option<u32>) {
    if let Some(ms) = ms {
        let _ = writeln!(text, "{key} = \"{ms}ms\"");
    }
}

/// Every setting that may be set from afar, as a configuration has it. One that the twin has no word for is left out.
#[must_use]
pub fn in_effect(config: &Config) -> TwinSettings {
    let ms = |span: Duration| u32::try_from(span.as_millis()).ok();
    let perceive = &config.perceive;
    let doors = config.doors.iter().map(|door| {
        let set = TwinDoor { hold_ms: ms(door.hold), regrant_ms: ms(door.regrant) };
        (door.id.clone(), set)
    });
    TwinSettings {
        log: log_level(&config.log.level).map(|level| TwinLog { level: Some(level) }),
        perceive: Some(TwinPerceive {
            idle_interval_ms: ms(perceive.idle_interval),
            track_interval_ms: ms(perceive.track_interval),
            settled_interval_ms: ms(perceive.settled_interval),
        }),
        door: doors.collect(),
        policy: config.policies.iter().map(policy).collect::<BTreeMap<_, _>>(),
    }
}

fn log_level(text: &str) -> Option<TwinLogLevel> {
    use TwinLogLevel::{Debug, Error, Info, Trace, Warn};
    [Error, Warn, Info, Debug, Trace].into_iter().find(|level| {
        let word = word(level);
        text == word || text == own_parts_at(&word)
    })
}

fn policy(policy: &PolicyConfig) -> (String, TwinPolicy) {
    let far = [TwinFar::E3, TwinFar::E4, TwinFar::E5, TwinFar::E6];
    let set = TwinPolicy {
        far: far
            .into_iter()
            .find(|far| word(far).parse().is_ok_and(|rate: face_runtime::FalseAcceptRate| rate == policy.far)),
        liveness: match policy.liveness {
            LivenessRule::Off => None,
            LivenessRule::Basic => Some(TwinLiveness::Basic),
            LivenessRule::Standard => Some(TwinLiveness::Standard),
            LivenessRule::Strict => Some(TwinLiveness::Strict),
        },
        freshness_ms: u32::try_from(policy.freshness.as_millis()).ok(),
        min_face_px: Some(policy.min_face_px),
    };
    (policy.id.clone(), set)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Sources;

    const FILE: &str = "schema_version = 1\n[log]\nlevel = \"warn\"\n[[camera]]\nid = \"front\"\nsource = \"test\"\n[[door]]\nid = \"main\"\ncamera = \"front\"\nhold = \"4s\"\n";

    fn sources(dir: &std::path::Path, environment: &[(&str, &str)]) -> Sources {
        let path = dir.join("config.toml");
        std::fs::write(&path, FILE).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Sources::new(Some(path), environment)
    }

    fn layer(settings: Value) -> TwinLayer {
        TwinLayer { name: "the twin, version 7".into(), settings: TwinSettings::parse(&settings).unwrap() }
    }

    #[test]
    fn the_twin_goes_over_the_file_and_under_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let all = json!({
            "log": { "level": "debug" },
            "perceive": { "idle_interval_ms": 300, "track_interval_ms": 90, "settled_interval_ms": 170 },
            "door": { "main": { "hold_ms": 5500, "regrant_ms": 700 } },
            "policy": { "default": { "far": "1e-5", "liveness": "strict", "freshness_ms": 700, "min_face_px": 52 } },
        });
        let twin = layer(all.clone());
        let plain = sources(dir.path(), &[]);
        let effective = in_effect(&plain.load(Some(&twin)).unwrap().config);
        assert_eq!(serde_json::to_value(&effective).unwrap(), all, "each setting arrives, and is told as it was set");
        assert_eq!(in_effect(&plain.load(None).unwrap().config).door["main"].hold_ms, Some(4_000));
        let overlaid = sources(dir.path(), &[("LINTEL__DOOR__MAIN__HOLD", "2s")]);
        assert_eq!(in_effect(&overlaid.load(Some(&twin)).unwrap().config).door["main"].hold_ms, Some(2_000));
    }

    #[test]
    fn a_door_that_is_not_there_and_values_that_do_not_fit_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path(), &[]);
        let stranger = sources.load(Some(&layer(json!({ "door": { "cellar": { "hold_ms": 900 } } })))).unwrap_err();
        assert_eq!(stranger.to_string(), "door.cellar: this device has no such door; it has main");
        let stranger = sources.load(Some(&layer(json!({ "policy": { "vault": { "far": "1e-6" } } })))).unwrap_err();
        assert!(stranger.to_string().contains("it has default"), "{stranger}");
    }
}
