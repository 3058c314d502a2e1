//! Runs rows of the fault lab and prints what they came to: the program behind `scripts/soak`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use fault_lab::lab::Setting;
use fault_lab::{Lab, Outcome, Row, rows};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Injects faults in earnest: each row of the fault matrix, with its full count.
#[derive(Parser)]
struct Arguments {
    /// Rows, as in the fault matrix (D3); `all` or none for every row
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Inject this many faults in each row, instead of the row's own count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Begin with this seed, in rows that go by seeds (M11)
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one line of JSON for each row instead of a table
    #[arg(long)]
    json: bool,
    /// Name the rows, their counts and what they need, and end
    #[arg(long)]
    list: bool,
    /// Go on with a run that was cut off, where it stood
    #[arg(long)]
    resume: bool,
    /// Append the lines, with date, commit and command, to this file
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Where the state of unfinished runs is kept
    #[arg(long, value_name = "DIR", default_value = "/tmp/lintel-soak")]
    state_dir: PathBuf,
    /// The commit that is tested, for the state's name and for --keep
    #[arg(long, value_name = "ID", default_value = "unknown")]
    commit: String,
}

fn main() -> ExitCode {
    match soak(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True when every row is in order.
fn soak(arguments: &Arguments) -> Result<bool> {
    let chosen = chosen(&arguments.rows)?;
    if arguments.list {
        return list(&chosen).map(|()| true);
    }
    let program = std::env::current_exe().context("this program's place")?;
    let bin_dir = program.parent().context("this program's folder")?;
    let mut all_in_order = true;
    for row in chosen {
        let count = arguments.count.unwrap_or(row.count);
        let _closed = writeln!(std::io::stderr(), "==> {} {}", row.id, row.title);
        let first_seed = arguments.seed;
        let name = format!("{}-{}-{count}-{first_seed}.json", arguments.commit, row.id);
        let setting = Setting {
            bin_dir: bin_dir.to_path_buf(),
            state: Some(arguments.state_dir.join(name)),
            resume: arguments.resume,
            progress: true,
            first_seed,
        };
        let outcome = Lab::run(row, count, setting);
        all_in_order &= outcome.ok;
        print(&outcome, row, arguments.json)?;
        if let Some(file) = &arguments.keep {
            keep(file, &outcome, &arguments.commit)?;
        }
    }
    Ok(all_in_order)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    if names.is_empty() || names.iter().any(|name| name == "all") {
        return Ok(rows::ALL.to_vec());
    }
    let known = || rows::ALL.iter().map(|row| row.id).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| rows::find(name).with_context(|| format!("there is no row '{name}'; the rows are: {}", known())))
        .collect()
}

fn list(rows: &[&Row]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for row in rows {
        let state = row.missing().map_or_else(String::new, |needs| format!(" (cannot run here: needs {needs})"));
        writeln!(out, "{:4} {:>9}  {}{state}", row.id, row.count, row.title)?;
    }
    Ok(())
}

fn print(outcome: &Outcome, row: &Row, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(outcome)?)?;
        return Ok(out.flush()?);
    }
    let verdict = match (outcome.ok, outcome.skipped) {
        (true, _) => "ok",
        (false, true) => "skipped",
        (false, false) => "FAILED",
    };
    writeln!(
        out,
        "{:4} {verdict:8} injected {}/{}, acknowledged {}, lost {}, duplicated {}, control {}, {} s",
        row.id,
        outcome.injected,
        outcome.count,
        outcome.acked,
        outcome.lost,
        outcome.duplicated,
        serde_json::to_string(&outcome.control)?,
        outcome.seconds
    )?;
    for (name, value) in &outcome.figures {
        writeln!(out, "       {name}: {value}")?;
    }
    for why in &outcome.why {
        writeln!(out, "       ! {why}")?;
    }
    Ok(out.flush()?)
}

/// One line a row and run: results are added, never replaced.
#[expect(clippy::disallowed_methods, reason = "the date of a measurement is the wall clock's")]
fn keep(file: &Path, outcome: &Outcome, commit: &str) -> Result<()> {
    let date = OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?;
    let command = format!("scripts/soak {} --count {}", outcome.row, outcome.count);
    let head = json!({ "date": date, "commit": commit, "machine": machine(), "command": command }).to_string();
    let outcome = serde_json::to_string(outcome)?;
    // Both are objects: one behind the other, so that the line keeps the order that the row is printed in.
    let line = format!("{},{}", head.trim_end_matches('}'), outcome.trim_start_matches('{'));
    let mut out = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .with_context(|| format!("cannot keep the result in {}", file.display()))?;
    Ok(writeln!(out, "{line}")?)
}

/// As `scripts/bench` names it.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{}, {cores} cores", model.map_or("unknown processor", |(_, name)| name))
}
