//! `commands` and `devices twin`: what an operator types to give orders and to say how devices should be set up.
//!
//! In: arguments. Out: questions to the running hub, by the same rules as over the API. Settings come as a file or as
//! `path=value` pairs over those that are there.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::Sent;
use super::question::{Asked, Then};
use super::table;

/// Verbs of `commands`.
#[derive(Debug, Subcommand)]
pub(super) enum CommandsCommand {
    /// Give a command to a device or a door
    #[command(
        subcommand,
        after_help = "Examples:
  cloud-hub commands send unlock --tenant 0192f0c1-… --door 0192f0c2-… --hold-ms 5000 --wait
  cloud-hub commands send lockdown --tenant 0192f0c1-… --device 0192f0c3-…
  cloud-hub commands send lockdown --tenant 0192f0c1-… --door 0192f0c2-… --off
  cloud-hub commands send reboot --tenant 0192f0c1-… --device 0192f0c3-… --wait
  cloud-hub commands send log-level debug --tenant 0192f0c1-… --device 0192f0c3-… --for-s 600
  cloud-hub commands send collect-logs --tenant 0192f0c1-… --device 0192f0c3-… --wait
  cloud-hub commands send enrol --tenant 0192f0c1-… --door 0192f0c2-… --person 0192f0c4-… --wait"
    )]
    Send(SendCommand),
    /// The last hundred commands of a tenant, or of one device
    #[command(after_help = "Example:\n  cloud-hub commands list --tenant 0192f0c1-… -o json")]
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Of this device alone
        #[arg(long)]
        device: Option<Uuid>,
    },
    /// One command, and how far it got
    #[command(after_help = "Example:\n  cloud-hub commands show --tenant 0192f0c1-… 0192f0c5-…")]
    Show {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        command: Uuid,
    },
    /// The log that a device sent for a collect-logs command, as JSON lines
    #[command(after_help = "Example:\n  cloud-hub commands logs --tenant 0192f0c1-… 0192f0c5-… > door.jsonl")]
    Logs {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which command asked for it
        command: Uuid,
    },
}

impl CommandsCommand {
    pub(super) fn asked(&self) -> (Asked, Then) {
        let commands = |tenant: &Uuid| format!("/tenants/{tenant}/commands");
        match self {
            Self::Send(send) => {
                let sending = send.sending();
                let then = if sending.wait { Then::Wait(sending.asked_at) } else { Then::Show };
                (("POST", sending.path, Sent::Json(sending.body), "", table::COMMANDS), then)
            }
            Self::List { tenant, device: None } => {
                (("GET", commands(tenant), Sent::Nothing, "commands", table::COMMANDS), Then::Show)
            }
            Self::List { tenant, device: Some(device) } => {
                let path = format!("/tenants/{tenant}/devices/{device}/commands");
                (("GET", path, Sent::Nothing, "commands", table::COMMANDS), Then::Show)
            }
            Self::Show { tenant, command } => {
                let path = format!("{}/{command}", commands(tenant));
                (("GET", path, Sent::Nothing, "", table::COMMANDS), Then::Show)
            }
            Self::Logs { tenant, command } => {
                let path = format!("{}/{command}/logs", commands(tenant));
                (("GET", path, Sent::Nothing, "", &[]), Then::Text("lines"))
            }
        }
    }
}

/// For a device.
#[derive(Debug, Args)]
pub(super) struct ToDevice {
    /// Whose
    #[arg(long)]
    tenant: Uuid,
    /// Which device
    #[arg(long)]
    device: Uuid,
    #[command(flatten)]
    how: How,
}

/// For a door.
#[derive(Debug, Args)]
pub(super) struct ToDoor {
    /// Whose
    #[arg(long)]
    tenant: Uuid,
    /// Which door
    #[arg(long)]
    door: Uuid,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(super) struct How {
    /// Wait for the device's last word; fails unless it succeeded
    #[arg(long)]
    wait: bool,
    /// A name of your own: given twice, there is one command
    #[arg(long)]
    id: Option<Uuid>,
}

/// Kinds of commands.
#[derive(Debug, Subcommand)]
pub(super) enum SendCommand {
    /// Open a door once; carried out within ten seconds or never
    Unlock {
        #[command(flatten)]
        to: ToDoor,
        /// For so many milliseconds, 1 to 60000; as the door is set up when absent
        #[arg(long)]
        hold_ms: Option<u32>,
    },
    /// Fetch keys and report galleries now
    Refresh {
        #[command(flatten)]
        to: ToDevice,
    },
    /// Shut a door, or every door of a device, to all but those whom its policy lets through; it outlives a restart
    Lockdown {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Every door of this device
        #[arg(long, conflicts_with = "door", required_unless_present = "door")]
        device: Option<Uuid>,
        /// This door alone
        #[arg(long)]
        door: Option<Uuid>,
        /// End it
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        how: How,
    },
    /// Begin anew: the agent, or the machine where the device is set up for that
    Reboot {
        #[command(flatten)]
        to: ToDevice,
        /// What
        #[arg(long, value_enum, default_value_t = Target::Agent)]
        target: Target,
    },
    /// Write more or less to the device's log
    LogLevel {
        /// error, warn, info, debug or trace
        level: String,
        #[command(flatten)]
        to: ToDevice,
        /// For so many seconds, 1 to 86400; until the next start when absent
        #[arg(long)]
        for_s: Option<u32>,
    },
    /// Fetch the last lines of the device's log; read them with `commands logs`
    CollectLogs {
        #[command(flatten)]
        to: ToDevice,
        /// At most so many bytes, 1 to 524288
        #[arg(long)]
        max_bytes: Option<u32>,
    },
    /// Enrol somebody with the next good face before a door
    Enrol {
        #[command(flatten)]
        to: ToDoor,
        /// Whom
        #[arg(long)]
        person: Uuid,
        /// Wait so many seconds for a face, 1 to 120
        #[arg(long, default_value_t = 30)]
        within_s: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Target {
    /// The agent's program
    Agent,
    /// The machine that it runs on
    Machine,
}

/// Verbs of `devices twin`.
#[derive(Debug, Subcommand)]
pub(super) enum TwinCommand {
    /// What is wished for a device, what it says, and how it stands
    Show(TwinOf),
    /// Only what is not as it is wished
    Diff(TwinOf),
    /// Set how a device should be set up
    #[command(after_help = "Examples:
  cloud-hub devices twin set --tenant 0192f0c1-… 0192f0c3-… door.main.hold_ms=5000 policy.default.liveness=strict
  cloud-hub devices twin set --tenant 0192f0c1-… 0192f0c3-… log.level=
  cloud-hub devices twin set --tenant 0192f0c1-… 0192f0c3-… --file twin.json

What may be set: log.level, perceive.{idle,track,settled}_interval_ms, door.ID.{hold_ms,regrant_ms},
policy.ID.{far,liveness,freshness_ms,min_face_px}. An empty value takes a wish back: the device's own file counts.")]
    Set {
        #[command(flatten)]
        of: TwinOf,
        /// Settings, each as path=value, over those that are wished already
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        settings: Vec<String>,
        /// All settings, as JSON
        #[arg(long)]
        file: Option<PathBuf>,
    },
}

/// Whose twin.
#[derive(Debug, Args)]
pub(super) struct TwinOf {
    /// Whose device
    #[arg(long)]
    pub(super) tenant: Uuid,
    /// Which
    pub(super) device: Uuid,
}

impl TwinOf {
    pub(super) fn path(&self) -> String {
        format!("/tenants/{}/devices/{}/twin", self.tenant, self.device)
    }
}

/// A command on its way: where it is given, what is said, where it is asked about.
pub(super) struct Sending {
    pub(super) path: String,
    pub(super) body: Value,
    pub(super) asked_at: String,
    pub(super) wait: bool,
}

impl SendCommand {
    pub(super) fn sending(&self) -> Sending {
        let (tenant, place, how, mut body) = match self {
            Self::Unlock { to, hold_ms } => to.with(json!({ "kind": "unlock", "hold_ms": hold_ms })),
            Self::Enrol { to, person, within_s } => {
                to.with(json!({ "kind": "enrol", "person_id": person, "within_s": within_s }))
            }
            Self::Refresh { to } => to.with(json!({ "kind": "refresh" })),
            Self::Reboot { to, target } => {
                let target = if *target == Target::Agent { "agent" } else { "machine" };
                to.with(json!({ "kind": "reboot", "target": target }))
            }
            Self::LogLevel { level, to, for_s } => {
                to.with(json!({ "kind": "log_level", "level": level, "for_s": for_s }))
            }
            Self::CollectLogs { to, max_bytes } => to.with(json!({ "kind": "collect_logs", "max_bytes": max_bytes })),
            Self::Lockdown { tenant, device, door, off, how } => {
                let place = match door {
                    Some(door) => format!("doors/{door}"),
                    None => format!("devices/{}", device.unwrap_or_default()),
                };
                (*tenant, place, how, json!({ "kind": "lockdown", "on": !off }))
            }
        };
        if let Some(id) = how.id {
            body["id"] = json!(id);
        }
        // What was not said is not sent: it is no field of the kind.
        if let Value::Object(fields) = &mut body {
            fields.retain(|_, value| !value.is_null());
        }
        Sending {
            path: format!("/tenants/{tenant}/{place}/commands"),
            body,
            asked_at: format!("/tenants/{tenant}/commands"),
            wait: how.wait,
        }
    }
}

impl ToDevice {
    fn with(&self, body: Value) -> (Uuid, String, &How, Value) {
        (self.tenant, format!("devices/{}", self.device), &self.how, body)
    }
}

impl ToDoor {
    fn with(&self, body: Value) -> (Uuid, String, &How, Value) {
        (self.tenant, format!("doors/{}", self.door), &self.how, body)
    }
}

/// Lays `path=value` pairs over settings. A value that is JSON counts as such, any other as a text; an empty one takes the
/// setting away.
pub(super) fn laid_over(settings: &Value, pairs: &[String]) -> Result<Value, String> {
    let mut settings = if settings.is_object() { settings.clone() } else { json!({}) };
    for pair in pairs {
        let (path, text) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not path=value"))?;
        let keys: Vec<&str> = path.split('.').collect();
        if keys.len() < 2 || keys.iter().any(|key| key.is_empty()) {
            return Err(format!("{path:?} is not a path such as door.main.hold_ms"));
        }
        let value = match text {
            "" => None,
            // `1e-5` is a name here, not a number.
            text => Some(text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))),
        };
        set(&mut settings, &keys, value);
    }
    Ok(settings)
}

fn set(at: &mut Value, keys: &[&str], value: Option<Value>) {
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    let (Value::Object(fields), Some((key, rest))) = (at, keys.split_first()) else { return };
    if !rest.is_empty() {
        set(fields.entry((*key).to_owned()).or_insert_with(|| json!({})), rest, value);
        if fields.get(*key).and_then(Value::as_object).is_some_and(Map::is_empty) {
            fields.remove(*key);
        }
    } else if let Some(value) = value {
        fields.insert((*key).to_owned(), value);
    } else {
        fields.remove(*key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_laid_over_what_is_there_and_empty_ones_take_away() {
        let before = json!({ "door": { "main": { "hold_ms": 900, "regrant_ms": 5 } }, "log": { "level": "warn" } });
        let pairs = ["door.main.hold_ms=5000", "log.level=", "policy.default.far=1e-5"].map(str::to_owned);
        let after = laid_over(&before, &pairs).unwrap();
        let wanted = json!({
            "door": { "main": { "hold_ms": 5000, "regrant_ms": 5 } }, "policy": { "default": { "far": "1e-5" } },
        });
        assert_eq!(after, wanted);
        assert!(laid_over(&before, &["hold_ms=5".to_owned()]).unwrap_err().contains("door.main.hold_ms"));
        assert!(laid_over(&before, &["door.main.hold_ms".to_owned()]).is_err());
    }
}
