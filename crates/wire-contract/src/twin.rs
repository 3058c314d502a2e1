//! The twin: how a device should be set up, and how it is.
//!
//! `down/twin` says what the hub wants, whole, with a version that only grows; `up/twin` what the device made of it. In and
//! out: JSON. What may be set from afar is exactly [`TwinSettings`]: an unknown key is an error on both ends, so that a
//! misspelt wish is not lost. A device takes a desired state whole or not at all.
//! Deliberately absent, and why in docs/decisions/0012: secrets, addresses, relays, cameras, anything that could cut the
//! device off from the hub, and switching liveness off.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes::Code;
use crate::encoding::{Hash32, V1};

/// The longest that one grant may hold a door open.
pub const MAX_HOLD_MS: u32 = 600_000;
/// The longest freshness budget: that of the best shot.
pub const MAX_FRESHNESS_MS: u32 = 3_000;
/// Looks further apart than this would miss who walks by.
pub const MAX_INTERVAL_MS: u32 = 2_000;
/// The highest face that may be asked for, in pixels.
pub const MAX_FACE_PX: u16 = 1_000;
/// Doors, or policies, of one device.
pub const MAX_ELEMENTS: usize = 64;
/// Longest id of a door or a policy.
const MAX_ID: usize = 32;

/// Declares a table of settings, each of which may be absent: then the device's own configuration counts.
macro_rules! settings {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$fdoc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)+
        }
    };
}

settings! {
    /// `log`.
    TwinLog {
        /// How much is written; `error` to `trace`.
        level: TwinLogLevel,
    }
}

settings! {
    /// `perceive`: how often the detector looks, each 20 to 2,000 ms.
    TwinPerceive {
        /// While nobody is there.
        #[schemars(range(min = 20, max = MAX_INTERVAL_MS))]
        idle_interval_ms: u32,
        /// While somebody is.
        #[schemars(range(min = 20, max = MAX_INTERVAL_MS))]
        track_interval_ms: u32,
        /// Once everybody was found alive.
        #[schemars(range(min = 20, max = MAX_INTERVAL_MS))]
        settled_interval_ms: u32,
    }
}

settings! {
    /// `door`, by the door's id.
    TwinDoor {
        /// How long one grant keeps it open, 100 to 600,000 ms.
        #[schemars(range(min = 100, max = MAX_HOLD_MS))]
        hold_ms: u32,
        /// How soon after relocking the same person opens it again, up to 600,000 ms.
        #[schemars(range(min = 0, max = MAX_HOLD_MS))]
        regrant_ms: u32,
    }
}

settings! {
    /// `policy`, by the policy's id.
    TwinPolicy {
        /// False accept rate of the score threshold.
        far: TwinFar,
        /// How much life must be proved.
        liveness: TwinLiveness,
        /// The freshness budget, 100 to 3,000 ms.
        #[schemars(range(min = 100, max = MAX_FRESHNESS_MS))]
        freshness_ms: u32,
        /// Lowest height of a face, 16 to 1,000 px.
        #[schemars(range(min = 16, max = MAX_FACE_PX))]
        min_face_px: u16,
    }
}

/// Levels of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as crate::command::LogLevel, without its unknown one")]
pub enum TwinLogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// False accept rates that calibration tables have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the words say it")]
pub enum TwinFar {
    #[serde(rename = "1e-3")]
    E3,
    #[serde(rename = "1e-4")]
    E4,
    #[serde(rename = "1e-5")]
    E5,
    #[serde(rename = "1e-6")]
    E6,
}

/// Levels of liveness. `off` is not among them: a door that opens for photographs is set up at the door.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as the configuration's levels")]
pub enum TwinLiveness {
    Basic,
    Standard,
    Strict,
}

/// Everything that may be set from afar.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwinSettings {
    /// `[log]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<TwinLog>,
    /// `[perceive]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perceive: Option<TwinPerceive>,
    /// `[[door]]` by id; each must be one of the device's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub door: BTreeMap<String, TwinDoor>,
    /// `[[policy]]` by id; each must be one of the device's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policy: BTreeMap<String, TwinPolicy>,
}

/// A setting that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TwinError {
    /// A key that does not exist, or a value of the wrong kind.
    #[error("{0}")]
    Shape(String),
    /// A number out of its bounds.
    #[error("{path} must be {least} to {most}, found {found}")]
    Range {
        /// Where.
        path: String,
        /// The least that is allowed.
        least: u32,
        /// The most that is allowed.
        most: u32,
        /// What was found.
        found: u32,
    },
    /// An id that no door and no policy can have.
    #[error("{path}: an id is 1 to {MAX_ID} of a-z, 0-9, -, found {id:?}")]
    Id {
        /// Where.
        path: &'static str,
        /// What was found.
        id: String,
    },
    /// Too many doors or policies.
    #[error("{path} has {found} elements; at most {MAX_ELEMENTS}")]
    Many {
        /// Where.
        path: &'static str,
        /// How many.
        found: usize,
    },
}

impl TwinSettings {
    /// Reads and checks settings.
    ///
    /// # Errors
    /// The first thing that is wrong, by its path.
    pub fn parse(value: &Value) -> Result<Self, TwinError> {
        let read: Self = serde_json::from_value(value.clone()).map_err(|error| TwinError::Shape(error.to_string()))?;
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), TwinError> {
        for (path, found) in [("door", self.door.len()), ("policy", self.policy.len())] {
            if found > MAX_ELEMENTS {
                return Err(TwinError::Many { path, found });
            }
        }
        let ids = self.door.keys().map(|id| ("door", id)).chain(self.policy.keys().map(|id| ("policy", id)));
        for (path, id) in ids {
            // As the agent's configuration has it.
            let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if !(1..=MAX_ID).contains(&id.len()) || !id.bytes().all(good) {
                return Err(TwinError::Id { path, id: id.clone() });
            }
        }
        for (path, least, most, found) in self.numbers() {
            if let Some(found) = found.filter(|found| !(least..=most).contains(found)) {
                return Err(TwinError::Range { path, least, most, found });
            }
        }
        Ok(())
    }

    /// Every number with its bounds.
    fn numbers(&self) -> Vec<(String, u32, u32, Option<u32>)> {
        let perceive = self.perceive.clone().unwrap_or_default();
        let mut numbers = vec![
            ("perceive.idle_interval_ms".to_owned(), 20, MAX_INTERVAL_MS, perceive.idle_interval_ms),
            ("perceive.track_interval_ms".to_owned(), 20, MAX_INTERVAL_MS, perceive.track_interval_ms),
            ("perceive.settled_interval_ms".to_owned(), 20, MAX_INTERVAL_MS, perceive.settled_interval_ms),
        ];
        for (id, door) in &self.door {
            numbers.push((format!("door.{id}.hold_ms"), 100, MAX_HOLD_MS, door.hold_ms));
            numbers.push((format!("door.{id}.regrant_ms"), 0, MAX_HOLD_MS, door.regrant_ms));
        }
        for (id, policy) in &self.policy {
            numbers.push((format!("policy.{id}.freshness_ms"), 100, MAX_FRESHNESS_MS, policy.freshness_ms));
            let height = policy.min_face_px.map(u32::from);
            numbers.push((format!("policy.{id}.min_face_px"), 16, MAX_FACE_PX.into(), height));
        }
        numbers
    }

    /// Each setting that is there, by its path (`door.main.hold_ms`).
    #[must_use]
    pub fn leaves(&self) -> BTreeMap<String, Value> {
        let mut leaves = BTreeMap::new();
        collect(&serde_json::to_value(self).expect("settings are plain structs with string keys"), "", &mut leaves);
        leaves
    }

    /// SHA-256 of the settings in their one spelling: keys sorted, nothing absent written.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let value = serde_json::to_value(self).expect("settings are plain structs with string keys");
        // A map of serde_json is sorted by its keys.
        let digest = ring::digest::digest(&ring::digest::SHA256, value.to_string().as_bytes());
        Hash32(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

fn collect(value: &Value, path: &str, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(field, &path, leaves);
            }
        }
        leaf => drop(leaves.insert(path.to_owned(), leaf.clone())),
    }
}

/// Which desired state: ordered by the hub's epoch first, since a hub restored from a backup counts on from an old version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TwinVersion {
    /// The hub's epoch.
    pub epoch: u32,
    /// Counts the desired states of this device, from 1.
    pub version: u64,
}

/// `down/twin`, retained: what the hub wants.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TwinDown {
    /// Payload version.
    pub v: V1,
    /// Which desired state.
    pub desired: TwinVersion,
    /// [`TwinSettings::hash`] of the settings.
    pub hash: Hash32,
    /// [`TwinSettings`]; as they came, so that a device can say which key it does not know.
    pub settings: Value,
}

/// What a device made of the desired state that it saw last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TwinState {
    /// It has seen none: its own configuration counts.
    None,
    /// It works by it.
    Applied,
    /// It works by what can change while it runs; the rest waits for its next start.
    RestartNeeded,
    /// It does not work by it, but by the last that worked (or by its own configuration); the code says why.
    Refused,
}

impl TwinState {
    /// The word in payloads and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Applied => "applied",
            Self::RestartNeeded => "restart_needed",
            Self::Refused => "refused",
        }
    }
}

/// `up/twin`, retained: how the device is set up.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TwinUp {
    /// Payload version.
    pub v: V1,
    /// The run of the agent that says it.
    pub boot: uuid::Uuid,
    /// The desired state that it saw last.
    pub seen: Option<TwinVersion>,
    /// The desired state that it works by.
    pub applied: Option<TwinVersion>,
    /// [`TwinSettings::hash`] of the settings that it works by.
    pub hash: Option<Hash32>,
    /// How it stands.
    pub state: TwinState,
    /// Every setting that may be set from afar, as it is in effect, wherever it comes from.
    pub settings: Value,
    /// The settings that wait for a start, by their paths.
    pub restart_needed: Vec<String>,
    /// Why not, for `refused`.
    pub code: Option<Code>,
    /// The same in words.
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_keys_and_numbers_out_of_bounds_are_told_by_their_place() {
        let says = |value: Value| TwinSettings::parse(&value).unwrap_err().to_string();
        assert!(says(json!({ "log": { "levle": "debug" } })).contains("levle"));
        assert!(says(json!({ "hub": { "url": "https://elsewhere" } })).contains("hub"));
        assert!(says(json!({ "door": { "main": { "actuator": "gpio" } } })).contains("actuator"));
        assert!(says(json!({ "policy": { "default": { "liveness": "off" } } })).contains("off"));
        for id in ["", "Main", "a\0", "a.b", &"x".repeat(33)] {
            assert!(says(json!({ "policy": { id: {} } })).starts_with("policy: an id is 1 to 32 of"), "{id:?}");
            assert!(says(json!({ "door": { id: {} } })).starts_with("door: an id is 1 to 32 of"), "{id:?}");
        }
        let hold = says(json!({ "door": { "main": { "hold_ms": 700_000 } } }));
        assert_eq!(hold, "door.main.hold_ms must be 100 to 600000, found 700000");
        assert!(TwinSettings::parse(&json!({})).is_ok(), "nothing is set: the device's own configuration counts");
    }

    #[test]
    fn the_hash_goes_by_what_is_set_and_not_by_how_it_is_written() {
        let read = |text: &str| TwinSettings::parse(&serde_json::from_str(text).unwrap()).unwrap();
        let one = read(r#"{"door":{"b":{"hold_ms":900},"a":{"hold_ms":800,"regrant_ms":5}},"log":{"level":"info"}}"#);
        let other = read(
            r#"{"log":{"level":"info"},"door":{"a":{"regrant_ms":5,"hold_ms":800},"b":{"hold_ms":900}},"policy":{}}"#,
        );
        assert_eq!(one.hash(), other.hash());
        assert_ne!(one.hash(), TwinSettings::default().hash());
        let leaves = one.leaves();
        assert_eq!((leaves.len(), &leaves["door.a.hold_ms"]), (4, &json!(800)));
    }

    #[test]
    fn a_higher_epoch_of_the_hub_goes_before_a_higher_version() {
        let at = |epoch, version| TwinVersion { epoch, version };
        assert!(at(2, 1) > at(1, 99) && at(1, 3) > at(1, 2));
    }
}
