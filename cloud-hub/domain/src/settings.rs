//! Settings that may be changed while the hubs run: which there are, what each may be, and what holds when some lie over the file's.
//!
//! In: what the file says, and a version's changes by name. Out: what holds, or each change that is wrong with its reason. Only what is read
//! anew each time is here: everything else needs a start, and stands in the file alone. Deliberately absent: rows, and who reads what holds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::intrusion::{MAX_COUNT, Thresholds};

/// Changes by the name of the setting, `section.key` as in the file.
pub type Changes = BTreeMap<String, Value>;

/// What holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Live {
    /// `limits.refused_keys_per_minute`
    pub refused_keys_per_minute: u32,
    /// `[intrusion]`
    pub intrusion: Thresholds,
}

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// A whole number from the one to the other.
    Whole(u32, u32),
    /// A number from 0 to this.
    UpTo(f64),
}

/// A change that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The setting.
    pub name: String,
    /// What is wrong, and what it may be.
    pub reason: String,
}

/// The longest window of travel, in seconds.
const MAX_WINDOW_S: u32 = 24 * 3_600;

/// The names of all of them, in the order of the file.
pub const NAMES: [&str; 7] = [
    "limits.refused_keys_per_minute",
    "intrusion.refused",
    "intrusion.networks",
    "intrusion.travel_window_s",
    "intrusion.probes",
    "intrusion.people",
    "intrusion.people_share",
];

impl Range {
    /// What the setting of this name may be; `None` if there is none.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "limits.refused_keys_per_minute" => Self::Whole(1, u32::MAX),
            "intrusion.refused" | "intrusion.probes" => Self::Whole(0, MAX_COUNT),
            "intrusion.networks" => Self::Whole(0, MAX_COUNT - 1),
            "intrusion.travel_window_s" => Self::Whole(1, MAX_WINDOW_S),
            "intrusion.people" => Self::Whole(0, u32::MAX),
            "intrusion.people_share" => Self::UpTo(1_000.0),
            _ => return None,
        })
    }
}

impl Live {
    /// This with changes laid over it.
    pub fn with(mut self, changes: &Changes) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        for (name, value) in changes {
            if let Err(reason) = self.set(name, value) {
                wrong.push(Wrong { name: name.clone(), reason });
            }
        }
        if wrong.is_empty() { Ok(self) } else { Err(wrong) }
    }

    /// The first that is not what it may be, for what the file says: everything else went through [`Live::with`].
    pub fn check(mut self) -> Result<(), (&'static str, String)> {
        self.values().into_iter().try_for_each(|(name, value)| self.set(name, &value).map_err(|reason| (name, reason)))
    }

    /// Each setting with its value.
    #[must_use]
    pub fn values(&self) -> [(&'static str, Value); 7] {
        let intrusion = &self.intrusion;
        let values = [
            json!(self.refused_keys_per_minute),
            json!(intrusion.refused),
            json!(intrusion.networks),
            json!(intrusion.travel_window.as_secs()),
            json!(intrusion.probes),
            json!(intrusion.people),
            json!(intrusion.people_share),
        ];
        let mut values = values.into_iter();
        NAMES.map(|name| (name, values.next().unwrap_or_default()))
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let intrusion = &mut self.intrusion;
        match name {
            "limits.refused_keys_per_minute" => self.refused_keys_per_minute = whole(name, value)?,
            "intrusion.refused" => intrusion.refused = whole(name, value)?,
            "intrusion.networks" => intrusion.networks = whole(name, value)?,
            "intrusion.travel_window_s" => intrusion.travel_window = Duration::from_secs(whole(name, value)?.into()),
            "intrusion.probes" => intrusion.probes = whole(name, value)?,
            "intrusion.people" => intrusion.people = whole(name, value)?,
            "intrusion.people_share" => intrusion.people_share = up_to(name, value)?,
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

fn unknown() -> String {
    format!("is no setting that is read while the hub runs; those are {}", NAMES.join(", "))
}

fn whole(name: &str, value: &Value) -> Result<u32, String> {
    let Some(Range::Whole(least, most)) = Range::of(name) else { return Err(unknown()) };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

fn up_to(name: &str, value: &Value) -> Result<f64, String> {
    let Some(Range::UpTo(most)) = Range::of(name) else { return Err(unknown()) };
    let number = value.as_f64().filter(|number| (0.0..=most).contains(number));
    number.ok_or_else(|| format!("must be a number from 0 to {most}"))
}

/// The changes of a version with others on top; `null` takes one back, so that the file's value holds again.
#[must_use]
pub fn laid_over(mut before: Changes, changes: Changes) -> Changes {
    for (name, value) in changes {
        if value.is_null() {
            before.remove(&name);
        } else {
            before.insert(name, value);
        }
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Live {
        Live {
            refused_keys_per_minute: 30,
            intrusion: Thresholds {
                refused: 10,
                networks: 4,
                travel_window: Duration::from_secs(600),
                probes: 20,
                people: 1_000,
                people_share: 0.5,
            },
        }
    }

    fn changes(pairs: &[(&str, Value)]) -> Changes {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn what_is_changed_holds_and_the_rest_is_the_files() {
        let live = file().with(&changes(&[("intrusion.probes", json!(50)), ("intrusion.travel_window_s", json!(60))]));
        let mut wanted = file();
        wanted.intrusion.probes = 50;
        wanted.intrusion.travel_window = Duration::from_secs(60);
        assert_eq!(live, Ok(wanted));
        assert_eq!(file().with(&Changes::new()), Ok(file()));
    }

    #[test]
    fn every_setting_is_shown_and_what_is_shown_can_be_set() {
        let mut other = file();
        other.refused_keys_per_minute = 7;
        other.intrusion = Thresholds {
            refused: 1,
            networks: 2,
            travel_window: Duration::from_secs(3),
            probes: 5,
            people: 6,
            people_share: 0.25,
        };
        let shown: Changes = other.values().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(shown.len(), NAMES.len());
        assert_eq!(file().with(&shown), Ok(other));
    }

    #[test]
    fn each_mistake_is_told_with_its_name_and_nothing_of_it_holds() {
        let wrong = file().with(&changes(&[
            ("intrusion.probes", json!(257)),
            ("intrusion.networks", json!(256)),
            ("intrusion.people_share", json!(-0.1)),
            ("limits.refused_keys_per_minute", json!(0)),
            ("intrusion.refused", json!("many")),
            ("intrusion.travel_window_s", json!(1.5)),
            ("server.listen", json!("0.0.0.0:1")),
            ("intrusion.people", json!(5)),
        ]));
        let names: Vec<String> = wrong.unwrap_err().into_iter().map(|wrong| wrong.name).collect();
        assert_eq!(names.len(), 7);
        assert!(!names.contains(&String::from("intrusion.people")));
    }

    #[test]
    fn what_the_file_says_is_checked_by_its_name() {
        assert_eq!(file().check(), Ok(()));
        let mut wrong = file();
        wrong.intrusion.networks = 256;
        assert_eq!(wrong.check().unwrap_err().0, "intrusion.networks");
        let mut wrong = file();
        wrong.intrusion.people_share = f64::NAN;
        assert_eq!(wrong.check().unwrap_err().0, "intrusion.people_share");
    }

    #[test]
    fn what_is_no_setting_is_answered_with_those_that_are() {
        let wrong = file().with(&changes(&[("intrusion.prob", json!(1))])).unwrap_err();
        assert!(NAMES.iter().all(|name| wrong[0].reason.contains(name)), "{}", wrong[0].reason);
    }

    #[test]
    fn null_takes_a_change_back() {
        let before = changes(&[("intrusion.probes", json!(50)), ("intrusion.people", json!(5))]);
        let after = laid_over(before, changes(&[("intrusion.probes", Value::Null), ("intrusion.refused", json!(1))]));
        assert_eq!(after, changes(&[("intrusion.people", json!(5)), ("intrusion.refused", json!(1))]));
    }
}
