//! `cloud-hub config live|set|history|restore`: settings that are changed while the hubs run.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Sent;
use super::question::Asked;
use super::table;

#[derive(Debug, Subcommand)]
pub(super) enum LiveCommand {
    /// Show the settings that can be changed while the hub runs: what holds, and what the file says
    Live,
    /// Change some of them; every hub has it within seconds
    #[command(after_help = "Examples:
  cloud-hub config set intrusion.probes=50 --comment 'the time sheet asks for people who left'
  cloud-hub config set intrusion.people=0 --dry-run
  cloud-hub config set --file-value intrusion.probes      the file's value holds again")]
    Set(SetArguments),
    /// List the versions, newest first: who changed what, when and why
    History {
        /// How many at most, up to 200
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Make a new version of what held in another one
    Restore {
        /// Which; 0 for the file alone
        version: u32,
        /// Why
        #[arg(long)]
        comment: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct SetArguments {
    /// NAME=VALUE, as in intrusion.probes=50
    #[arg(required_unless_present = "file_values", value_parser = pair)]
    pairs: Vec<(String, Value)>,
    /// Let the file's value of this setting hold again; may be given several times
    #[arg(long = "file-value", value_name = "NAME")]
    file_values: Vec<String>,
    /// Why
    #[arg(long)]
    comment: Option<String>,
    /// Say what would hold, and change nothing
    #[arg(long)]
    dry_run: bool,
}

fn pair(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    let value = serde_json::from_str(value).map_err(|_| format!("the value of {name} is no number"))?;
    Ok((name.to_owned(), value))
}

impl LiveCommand {
    pub(super) fn asked(&self) -> Asked {
        let commented = |comment: &Option<String>| {
            let comment = comment.as_ref().map(|comment| (String::from("comment"), json!(comment)));
            comment.into_iter().collect::<Map<_, _>>()
        };
        match self {
            Self::Live => ("GET", String::from("/settings"), Sent::Nothing, "settings", table::SETTINGS),
            Self::Set(SetArguments { pairs, file_values, comment, dry_run }) => {
                let mut changes: Map<String, Value> = pairs.iter().cloned().collect();
                changes.extend(file_values.iter().map(|name| (name.clone(), Value::Null)));
                let mut body = commented(comment);
                body.insert(String::from("changes"), changes.into());
                body.insert(String::from("dry_run"), json!(dry_run));
                ("POST", String::from("/settings"), Sent::Json(body.into()), "settings", table::SETTINGS)
            }
            Self::History { limit } => {
                ("GET", format!("/settings/history?limit={limit}"), Sent::Nothing, "versions", table::VERSIONS)
            }
            Self::Restore { version, comment } => {
                let body = Sent::Json(commented(comment).into());
                ("POST", format!("/settings/{version}/restore"), body, "settings", table::SETTINGS)
            }
        }
    }
}
