//! Telling what happens, with times, and keeping it for the machine-readable last line.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Error, Result};
use serde::Serialize;
use tokio::time::Instant;

/// What was seen of one step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Name, as the demo's contract has it.
    pub name: String,
    /// Whether it was seen.
    pub ok: bool,
    /// How long the step took, in milliseconds.
    pub ms: u64,
    /// Why it was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The whole story.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether every step was seen.
    pub ok: bool,
    /// The steps in order; those after a failed one are missing.
    pub steps: Vec<Step>,
    /// Figures by name; the unit is in the name.
    pub figures: BTreeMap<String, f64>,
}

/// Prints the story and remembers it.
pub(super) struct Narrator {
    began: Instant,
    step_began: Instant,
    failed: bool,
    steps: Vec<Step>,
    figures: BTreeMap<String, f64>,
}

impl Narrator {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { began: now, step_began: now, failed: false, steps: Vec::new(), figures: BTreeMap::new() }
    }

    /// One line of the story, with the time since its beginning.
    pub(super) fn say(&self, text: &str) {
        let line = format!("[{:6.1} s] {text}\n", self.began.elapsed().as_secs_f64());
        // A closed pipe ends the reader's interest, not the story.
        let _closed = std::io::stdout().write_all(line.as_bytes());
    }

    pub(super) fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), (value * 100.0).round() / 100.0);
    }

    pub(super) fn begin(&mut self, _name: &str) {
        self.step_began = Instant::now();
    }

    pub(super) fn end(&mut self, name: &str, outcome: &Result<()>) {
        let ms = u64::try_from(self.step_began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        self.say(&format!("{} {name} ({ms} ms)", if error.is_none() { "ok  " } else { "FAIL" }));
        self.steps.push(Step { name: name.to_owned(), ok: error.is_none(), ms, error });
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.failed = true;
        self.say(&format!("The story ends here: {error:#}"));
    }

    pub(super) fn into_report(self) -> Report {
        Report { ok: !self.failed && self.steps.iter().all(|step| step.ok), steps: self.steps, figures: self.figures }
    }
}
