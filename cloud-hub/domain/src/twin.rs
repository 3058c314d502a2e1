//! What is wished for a device's configuration, what it says of it, and how the two differ.
//!
//! In: desired and reported settings. Out: the difference, setting by setting, and the verdict. Imports nothing of the hub.

use serde_json::Value;
use time::OffsetDateTime;
use wire_contract::{TwinSettings, TwinState, TwinVersion};

/// A desired state.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Counts the desired states of the device, from 1.
    pub version: u64,
    /// What is wished.
    pub settings: TwinSettings,
    /// Who wished it.
    pub actor: String,
    /// When.
    pub created_at: OffsetDateTime,
}

/// What a device said last.
#[derive(Clone, Debug)]
pub struct Reported {
    /// The desired state that it saw last.
    pub seen: Option<TwinVersion>,
    /// The one that it works by.
    pub applied: Option<TwinVersion>,
    /// How it stands.
    pub state: TwinState,
    /// Every setting that may be set from afar, as it is in effect.
    pub settings: Value,
    /// What waits for a start.
    pub restart_needed: Vec<String>,
    /// Why not.
    pub code: Option<String>,
    /// The same in words.
    pub reason: Option<String>,
    /// When that was said.
    pub reported_at: OffsetDateTime,
    /// Since when it stands so.
    pub since: OffsetDateTime,
}

/// One setting that is not as it is wished.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its path, such as `door.main.hold_ms`.
    pub path: String,
    /// What is wished.
    pub desired: Value,
    /// What is in effect; null when the device did not say.
    pub reported: Value,
}

/// How a device stands to what is wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is wished.
    Unset,
    /// It said nothing yet, or has not seen the last wish.
    Pending,
    /// It works by it.
    Equal,
    /// It works by what can change while it runs.
    RestartNeeded,
    /// It refused.
    Refused,
    /// It took it, and something on the device goes before it.
    Differs,
}

impl Standing {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Pending => "pending",
            Self::Equal => "equal",
            Self::RestartNeeded => "restart_needed",
            Self::Refused => "refused",
            Self::Differs => "differs",
        }
    }
}

/// Each wish that is not in effect.
#[must_use]
pub fn difference(desired: &TwinSettings, reported: Option<&Value>) -> Vec<Difference> {
    let in_effect = |path: &str| {
        let pointer = format!("/{}", path.replace('~', "~0").replace('.', "/"));
        reported.and_then(|settings| settings.pointer(&pointer)).cloned().unwrap_or(Value::Null)
    };
    let leaves = desired.leaves().into_iter();
    leaves
        .map(|(path, desired)| Difference { reported: in_effect(&path), path, desired })
        .filter(|difference| difference.desired != difference.reported)
        .collect()
}

/// How the device stands, and since when.
#[must_use]
pub fn standing(
    epoch: u32,
    desired: Option<&Desired>,
    reported: Option<&Reported>,
) -> (Standing, Option<OffsetDateTime>) {
    let Some(desired) = desired else { return (Standing::Unset, None) };
    let wanted = TwinVersion { epoch, version: desired.version };
    // A hub restored from a backup sends the same wish in a new epoch.
    let Some(reported) = reported.filter(|reported| reported.seen.is_some_and(|seen| seen >= wanted)) else {
        return (Standing::Pending, Some(desired.created_at));
    };
    let standing = match reported.state {
        TwinState::Refused => Standing::Refused,
        TwinState::RestartNeeded => Standing::RestartNeeded,
        _ if difference(&desired.settings, Some(&reported.settings)).is_empty() => Standing::Equal,
        _ => Standing::Differs,
    };
    (standing, Some(reported.since.max(desired.created_at)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wish(settings: Value) -> Desired {
        let settings = TwinSettings::parse(&settings).unwrap();
        Desired { version: 3, settings, actor: "operator".into(), created_at: OffsetDateTime::UNIX_EPOCH }
    }

    fn said(seen: u64, state: TwinState, settings: Value) -> Reported {
        let at = |version| Some(TwinVersion { epoch: 1, version });
        let later = OffsetDateTime::UNIX_EPOCH + time::Duration::hours(1);
        Reported {
            seen: at(seen),
            applied: at(seen),
            state,
            settings,
            restart_needed: Vec::new(),
            code: None,
            reason: None,
            reported_at: later,
            since: later,
        }
    }

    #[test]
    fn only_what_is_wished_is_compared_and_each_difference_is_named() {
        let wished = wish(json!({ "door": { "main": { "hold_ms": 900 } }, "log": { "level": "warn" } }));
        let reported = json!({ "door": { "main": { "hold_ms": 3000, "regrant_ms": 5 } }, "log": { "level": "warn" } });
        let found = difference(&wished.settings, Some(&reported));
        let hold = Difference { path: "door.main.hold_ms".into(), desired: json!(900), reported: json!(3000) };
        assert_eq!(found, [hold]);
        assert_eq!(difference(&wished.settings, None).len(), 2);
        assert!(difference(&TwinSettings::default(), Some(&reported)).is_empty());
    }

    #[test]
    fn a_device_stands_by_what_it_has_seen_and_what_is_in_effect() {
        let settings = json!({ "door": { "main": { "hold_ms": 900 } } });
        let wished = wish(settings.clone());
        let stands = |reported: Option<&Reported>| standing(1, Some(&wished), reported).0;
        assert_eq!(standing(1, None, None), (Standing::Unset, None));
        assert_eq!(stands(None), Standing::Pending);
        assert_eq!(stands(Some(&said(2, TwinState::Applied, settings.clone()))), Standing::Pending);
        assert_eq!(stands(Some(&said(3, TwinState::Applied, settings.clone()))), Standing::Equal);
        assert_eq!(stands(Some(&said(3, TwinState::Applied, json!({})))), Standing::Differs);
        assert_eq!(stands(Some(&said(3, TwinState::Refused, settings.clone()))), Standing::Refused);
        let reported = said(3, TwinState::RestartNeeded, settings.clone());
        assert_eq!(stands(Some(&reported)), Standing::RestartNeeded);
        assert_eq!(standing(2, Some(&wished), Some(&reported)).0, Standing::Pending, "a new epoch of the hub");
        assert_eq!(standing(1, Some(&wished), Some(&reported)).1, Some(reported.since));
    }
}
