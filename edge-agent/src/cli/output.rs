//! What the commands print: data on standard output, problems on standard error.

use std::io::{ErrorKind, Write};

use serde_json::Value;

use super::{Exit, Output};
use crate::logging::colours_allowed;

/// Prints text as it is. A reader that went away (`| head`) is not a failure.
pub(super) fn text(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Success,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Success,
        Err(error) => {
            problem(&format!("standard output cannot be written: {error}"));
            Exit::Failure
        }
    }
}

/// Prints a JSON object, or its flat form for people.
pub(super) fn object(value: &Value, output: Output) -> Exit {
    match output {
        Output::Json => text(&format!("{value}\n")),
        Output::Table | Output::Toml => text(&table(value)),
    }
}

/// Says on standard error what went wrong.
pub(super) fn problem(message: &str) {
    // Nobody to tell when standard error is closed; the exit code still says it.
    let _ = writeln!(std::io::stderr().lock(), "edge-agent: {message}");
}

/// Says on standard error what is being done, when a person is watching.
pub(super) fn progress(step: &str) {
    use std::io::IsTerminal as _;
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr().lock(), "{step} ...");
    }
}

/// Green, yellow or red where colours are allowed.
pub(super) fn coloured(word: &str, code: u8) -> String {
    if colours_allowed() { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() }
}

/// `key  value` lines; an array of objects becomes a table of its own below.
fn table(value: &Value) -> String {
    let Value::Object(entries) = value else { return format!("{}\n", cell(value)) };
    let is_table = |value: &Value| value.as_array().is_some_and(|rows| rows.iter().all(Value::is_object));
    let width = entries.iter().filter(|(_, value)| !is_table(value)).map(|(key, _)| key.len()).max().unwrap_or(0);
    let (mut lines, mut below) = (String::new(), String::new());
    for (key, value) in entries {
        match value {
            Value::Array(rows) if rows.iter().all(Value::is_object) => {
                below.push_str(&format!("\n{key}:{}\n", if rows.is_empty() { " none" } else { "" }));
                below.push_str(&columns(rows));
            }
            value => lines.push_str(&format!("{key:<width$}  {}\n", cell(value))),
        }
    }
    lines + &below
}

fn columns(rows: &[Value]) -> String {
    let Some(Value::Object(first)) = rows.first() else { return String::new() };
    let keys: Vec<&String> = first.keys().collect();
    let mut grid = vec![keys.iter().map(|key| (*key).clone()).collect::<Vec<_>>()];
    grid.extend(rows.iter().map(|row| keys.iter().map(|key| cell(&row[key.as_str()])).collect()));
    let widths: Vec<usize> =
        (0..keys.len()).map(|column| grid.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in grid {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_objects_become_tables() {
        let text = table(&serde_json::json!({"pending": 3, "galleries": [{"epoch": 1, "root": null}]}));
        assert_eq!(text, "pending  3\n\ngalleries:\n  epoch  root\n  1      -\n");
    }
}
