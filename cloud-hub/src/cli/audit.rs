//! `cloud-hub audit …`: looking at the audit, copying it, verifying it.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::client::{self, ClientError};

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub audit verify                                                  all tenants, against [audit] heads
  cloud-hub audit verify --tenant 0192f0c1-… --heads /mnt/evidence/hub-1
  cloud-hub audit list --tenant 0192f0c1-… --action person.read --from 2026-11-01T00:00:00Z
  cloud-hub audit export --tenant 0192f0c1-… --format csv > audit.csv

Looking at the audit and copying it are audited. verify exits with 0 only if everything is as it was.")]
pub(super) enum AuditCommand {
    /// Verify the chains against the heads that were signed; works while the hub runs, and with an external database without it
    Verify(VerifyArguments),
    /// List entries, oldest first
    List(ListArguments),
    /// Copy entries to stdout
    Export(ExportArguments),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Only this tenant
    #[arg(long)]
    tenant: Option<Uuid>,
    /// A folder of heads, instead of the configured one; may be given several times, for hubs with folders of their own
    #[arg(long)]
    heads: Vec<PathBuf>,
    /// A key that heads may be signed with besides the hub's present one: the public half, 64 hex digits
    #[arg(long = "key")]
    keys: Vec<String>,
    /// The first heads were put away: do not expect them
    #[arg(long)]
    archived: bool,
}

/// What is to be verified.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verification {
    /// One tenant.
    pub tenant: Option<Uuid>,
    /// Folders of heads, instead of the configured one.
    pub heads: Vec<PathBuf>,
    /// Further keys, 64 hex digits each.
    pub keys: Vec<String>,
    /// The first heads were put away.
    pub archived: bool,
    /// JSON instead of lines for people.
    pub json: bool,
}

impl VerifyArguments {
    pub(super) fn verification(self, json: bool) -> Verification {
        let Self { tenant, heads, keys, archived } = self;
        Verification { tenant, heads, keys, archived, json }
    }
}

/// Which entries.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Whose
    #[arg(long)]
    tenant: Uuid,
    /// Only of this actor: operator, hub, api_key:…, device:…
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, as in person.read
    #[arg(long)]
    action: Option<String>,
    /// Only about this person, device, …
    #[arg(long)]
    object: Option<Uuid>,
    /// Only what was written then or later, as in 2026-11-01T00:00:00Z
    #[arg(long)]
    from: Option<String>,
    /// Only what was written before then
    #[arg(long)]
    until: Option<String>,
}

impl Wanted {
    fn path(&self, what: &str, more: &[(&str, Option<String>)]) -> String {
        let mut query = Serializer::new(String::new());
        let own = [
            ("actor", self.actor.clone()),
            ("action", self.action.clone()),
            ("object", self.object.map(|id| id.to_string())),
            ("from", self.from.clone()),
            ("until", self.until.clone()),
        ];
        for (name, value) in own.iter().chain(more) {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        format!("/tenants/{}{what}?{}", self.tenant, query.finish())
    }
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    wanted: Wanted,
    /// How many at most
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Where the page before ended: next_cursor of -o json
    #[arg(long)]
    cursor: Option<String>,
}

impl ListArguments {
    pub(super) fn path(&self, what: &str) -> String {
        self.wanted.path(what, &[("limit", Some(self.limit.to_string())), ("cursor", self.cursor.clone())])
    }
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Lines of JSON, or CSV with a heading
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Jsonl,
    Csv,
}

impl ExportArguments {
    pub(super) fn copy(&self, socket: PathBuf) -> Copy {
        Copy { socket, path: self.wanted.path("/audit/export", &[]), format: self.format }
    }
}

/// A copy of the audit, from the running hub to stdout.
#[derive(Debug)]
pub struct Copy {
    socket: PathBuf,
    path: String,
    format: Format,
}

const CSV: &[&str] = &["position", "id", "at", "actor", "action", "object_kind", "object_id", "detail", "hash"];

impl Copy {
    /// Copies, line by line.
    pub async fn run(&self) -> Result<(), ClientError> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.format == Format::Csv {
            writeln!(out, "{}", CSV.join(",")).map_err(ClientError::broken)?;
        }
        client::lines(&self.socket, &self.path, |line| match self.format {
            Format::Jsonl => out.write_all(line).and_then(|()| out.write_all(b"\n")),
            Format::Csv => writeln!(out, "{}", csv(&serde_json::from_slice(line)?)),
        })
        .await?;
        out.flush().map_err(ClientError::broken)
    }
}

/// One line of RFC 4180.
fn csv(entry: &Value) -> String {
    let cell = |name: &&str| {
        let text = match &entry[*name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    CSV.iter().map(cell).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cell_with_commas_and_quotes_is_quoted() {
        let entry = json!({ "position": 3, "actor": "operator", "object_id": null, "detail": { "a": "b" } });
        assert_eq!(csv(&entry), r#"3,,,operator,,,,"{""a"":""b""}","#);
    }

    #[test]
    fn filters_are_escaped() {
        let tenant = Uuid::nil();
        let wanted = Wanted {
            tenant,
            actor: Some(String::from("api_key:1&x=2")),
            action: None,
            object: None,
            from: Some(String::from("2026-11-01T00:00:00+07:00")),
            until: None,
        };
        let path = wanted.path("/audit/export", &[]);
        assert_eq!(
            path,
            format!("/tenants/{tenant}/audit/export?actor=api_key%3A1%26x%3D2&from=2026-11-01T00%3A00%3A00%2B07%3A00")
        );
    }
}
