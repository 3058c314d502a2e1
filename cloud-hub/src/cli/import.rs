//! `cloud-hub people import`: a file to the running hub, and what comes of each row as it comes.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{self, ClientError};
use super::{Output, table};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cloud-hub people import --tenant 0192f0c1-… staff.csv --dry-run
  cloud-hub people import --tenant 0192f0c1-… staff.zip                        people.csv and the photographs that it names
  cloud-hub people import --tenant 0192f0c1-… staff.jsonl -o json > report.jsonl

Columns of a table: external_id, name, email, groups, site_ids, valid_from, valid_until, photos; several groups, sites or photographs
in one cell are separated by semicolons. The same file once more changes nothing: after an import that broke off, run it again.
Exit code 1 if a row or its photographs were refused.")]
pub(super) struct ImportArguments {
    /// Whose
    #[arg(long)]
    tenant: Uuid,
    /// .csv, .jsonl or .zip
    file: PathBuf,
    /// Only say what would come of each row
    #[arg(long)]
    dry_run: bool,
    /// What to do about somebody who is there already
    #[arg(long, value_enum, default_value_t = OnExisting::Update)]
    on_existing: OnExisting,
    /// Enrol although another person looks the same
    #[arg(long)]
    allow_duplicate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnExisting {
    /// They become as the row says
    Update,
    /// They stay as they are
    Skip,
    /// The row is refused
    Refuse,
}

impl ImportArguments {
    pub(super) fn task(self, socket: PathBuf, output: Output) -> ImportTask {
        let Self { tenant, file, dry_run, on_existing, allow_duplicate } = self;
        let on_existing = match on_existing {
            OnExisting::Update => "update",
            OnExisting::Skip => "skip",
            OnExisting::Refuse => "refuse",
        };
        let path = format!(
            "/tenants/{tenant}/people/imports?dry_run={dry_run}&on_existing={on_existing}&allow_duplicate={allow_duplicate}"
        );
        ImportTask { socket, path, file, output }
    }
}

/// An import that is to be run.
#[derive(Debug)]
pub struct ImportTask {
    socket: PathBuf,
    path: String,
    file: PathBuf,
    output: Output,
}

impl ImportTask {
    /// Runs it. Whether every row came through, and every photograph that was to be enrolled.
    pub async fn run(&self) -> Result<bool, ClientError> {
        let kind = kind_of(&self.file)?;
        let mut shown = Shown::new(self.output);
        client::upload(&self.socket, &self.path, kind, &self.file, |line| shown.take(line)).await?;
        shown.end()
    }
}

fn kind_of(file: &Path) -> Result<&'static str, ClientError> {
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "csv" => Ok("text/csv"),
        "jsonl" | "ndjson" => Ok("application/x-ndjson"),
        "zip" => Ok("application/zip"),
        _ => Err(ClientError::Refused(format!("{}: a list ends in .csv, .jsonl or .zip", file.display()))),
    }
}

/// What of the answer is kept and shown: the rows that were refused, and the end.
struct Shown {
    output: Output,
    bar: Option<ProgressBar>,
    refused: Vec<Value>,
    summary: Option<Value>,
}

impl Shown {
    fn new(output: Output) -> Self {
        Self { output, bar: None, refused: Vec::new(), summary: None }
    }

    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        if self.output == Output::Json {
            let mut out = io::stdout().lock();
            out.write_all(line).and_then(|()| out.write_all(b"\n"))?;
        }
        let said: Value = serde_json::from_slice(line)?;
        match said["type"].as_str() {
            Some("begin") => self.begin(said["rows"].as_u64().unwrap_or(0)),
            Some("row") => {
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                }
                self.refused.extend(complaint(&said));
            }
            Some("summary") => self.summary = Some(said),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, rows: u64) {
        if !io::stderr().is_terminal() {
            let _ = writeln!(io::stderr(), "{rows} rows");
            return;
        }
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} rows, {per_sec}, {eta} left");
        let bar = ProgressBar::new(rows);
        self.bar = Some(if let Ok(style) = style { bar.with_style(style) } else { bar });
    }

    fn end(self) -> Result<bool, ClientError> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let broke_off =
            || ClientError::Refused(String::from("the import broke off: run it again, it goes on where it ended"));
        let summary = self.summary.ok_or_else(broke_off)?;
        let all = self.refused.is_empty();
        if self.output == Output::Table {
            let mut text = String::new();
            if !all {
                text = table::render(&json!({ "refused": self.refused }), "refused", table::REFUSED) + "\n";
            }
            text += &table::render(&summary, "", table::IMPORTED);
            io::stdout().write_all(text.as_bytes()).map_err(ClientError::broken)?;
        }
        if summary["complete"] != json!(true) {
            let why = summary["reason"].as_str().unwrap_or("it was cut");
            return Err(ClientError::Refused(format!("the import ended before its last row: {why}")));
        }
        Ok(all)
    }
}

/// What is wrong with a row, or with its photographs, for a table.
fn complaint(row: &Value) -> Option<Value> {
    let (what, problem) = match (&row["problem"], &row["enrolment"]["problem"]) {
        (Value::Null, Value::Null) => return None,
        (Value::Null, problem) => ("photographs", problem),
        (problem, _) => ("row", problem),
    };
    let mut why: Vec<String> = Vec::new();
    why.extend(problem["detail"].as_str().map(str::to_owned));
    for field in problem["errors"].as_array().into_iter().flatten() {
        let text = |name: &str| field[name].as_str().unwrap_or("?");
        why.push(format!("{}: {}", text("pointer"), text("message")));
    }
    for photograph in row["enrolment"]["photographs"].as_array().into_iter().flatten() {
        let reasons: Vec<&str> =
            photograph["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !reasons.is_empty() {
            why.push(format!("{}: {}", photograph["file"].as_str().unwrap_or("?"), reasons.join(", ")));
        }
    }
    if why.is_empty() {
        why.extend(problem["title"].as_str().map(str::to_owned));
    }
    Some(json!({
        "line": row["line"], "external_id": row["external_id"], "what": what, "code": problem["code"],
        "why": why.join("; "),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_in_one_line() {
        let row = json!({ "line": 4, "external_id": "E-4", "problem": { "code": "invalid_field", "title": "A field",
            "errors": [{ "pointer": "/email", "message": "is no mail address" }] } });
        let told = complaint(&row).unwrap();
        assert_eq!((&told["what"], &told["why"]), (&json!("row"), &json!("/email: is no mail address")));
        let row = json!({ "line": 5, "result": "created", "enrolment": { "problem": { "code": "no_face", "title": "No face" },
            "photographs": [{ "file": "a.jpg", "reasons": ["no_face"] }, { "file": "b.jpg", "reasons": [] }] } });
        let told = complaint(&row).unwrap();
        assert_eq!((&told["what"], &told["why"]), (&json!("photographs"), &json!("a.jpg: no_face")));
        assert_eq!(complaint(&json!({ "result": "created", "enrolment": { "result": "enrolled" } })), None);
    }
}
