//! What a row counts while it runs, and the one place that decides whether it is in order.
//!
//! In: tallies of the rounds and what became of the negative control. Out: [`Outcome`], which serialises to the line that
//! `scripts/soak --json` prints. `ok` is never set by a row: it follows from the figures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Breaches kept with their text; the count goes on. A broken store breaks every round, and ten thousand lines that say so
/// say no more than these.
const BREACHES_TOLD: usize = 10;

/// What the rounds of a row have counted so far. Kept between rounds, so that an interrupted run goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Faults that were really there: seen by their effect or in a log, not merely asked for.
    pub injected: u64,
    /// What was acknowledged to a user while faults were injected.
    pub acked: u64,
    /// Acknowledged and no longer there.
    pub lost: u64,
    /// There, or done, more than once.
    pub duplicated: u64,
    /// Figures of this row alone.
    pub figures: BTreeMap<String, Value>,
    /// Other promises that did not hold.
    pub breaches: u64,
    /// The first of them, in words.
    pub told: Vec<String>,
}

impl Tally {
    /// Notes a promise that did not hold; the row goes on, but is not in order.
    pub fn breach(&mut self, what: impl Into<String>) {
        self.breaches += 1;
        if self.told.len() < BREACHES_TOLD {
            self.told.push(what.into());
        }
    }

    /// Notes a breach unless the promise holds.
    pub fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.breach(what());
        }
    }

    /// Sets a figure.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Adds to a counting figure.
    pub fn add(&mut self, name: &str, more: u64) {
        let before = self.count_of(name);
        self.figure(name, before + more);
    }

    /// Raises a figure to `value` if it is below.
    pub fn raise(&mut self, name: &str, value: u64) {
        self.figure(name, self.count_of(name).max(value));
    }

    /// A counting figure; 0 before it was set.
    #[must_use]
    pub fn count_of(&self, name: &str) -> u64 {
        self.figures.get(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Adds another tally; its figures are added where both count, else taken over.
    pub fn merge(&mut self, other: Self) {
        self.injected += other.injected;
        self.acked += other.acked;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.breaches += other.breaches;
        self.told.extend(other.told);
        self.told.truncate(BREACHES_TOLD);
        for (name, value) in other.figures {
            match (self.figures.get(&name).and_then(Value::as_u64), value.as_u64()) {
                (Some(mine), Some(more)) => self.figure(&name, mine + more),
                _ => self.figure(&name, value),
            }
        }
    }
}

/// What the broken variants came to: each must have been caught by the checker that passes the real one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Control(BTreeMap<String, u64>);

impl Control {
    /// One control: `caught` is how often the checker found the broken variant wanting.
    #[must_use]
    pub fn of(name: &str, caught: u64) -> Self {
        Self::default().and(name, caught)
    }

    /// A further control. Every one must be caught.
    #[must_use]
    pub fn and(mut self, name: &str, caught: u64) -> Self {
        self.0.insert(name.to_owned(), caught);
        self
    }

    fn blind(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, caught)| **caught == 0).map(|(name, _)| name.as_str()).collect()
    }
}

/// What a row came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What was counted.
    pub tally: Tally,
    /// What became of the broken variants.
    pub control: Control,
}

/// One line of `scripts/soak --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The row's id.
    pub row: &'static str,
    /// How often the fault was to be injected.
    pub count: u64,
    /// See [`Tally::injected`].
    pub injected: u64,
    /// See [`Tally::acked`].
    pub acked: u64,
    /// See [`Tally::lost`].
    pub lost: u64,
    /// See [`Tally::duplicated`].
    pub duplicated: u64,
    /// How often each control was caught.
    pub control: Control,
    /// The row could not run here.
    pub skipped: bool,
    /// Nothing was lost or doubled, every promise held, every fault was there, and every control was caught.
    pub ok: bool,
    /// How long it took, all parts of an interrupted run together.
    pub seconds: u64,
    /// Figures of this row alone.
    #[serde(flatten)]
    pub figures: BTreeMap<String, Value>,
    /// Why it is not in order; absent when it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
}

impl Outcome {
    /// Judges a row that ran.
    #[must_use]
    pub fn judged(row: &'static str, count: u64, seconds: u64, verdict: Verdict) -> Self {
        let Verdict { tally, control } = verdict;
        let mut why = tally.told;
        let mut unless = |holds: bool, what: String| {
            if !holds {
                why.push(what);
            }
        };
        unless(tally.injected >= count, format!("only {} of {count} faults were injected", tally.injected));
        unless(tally.lost == 0, format!("{} acknowledged are lost", tally.lost));
        unless(tally.duplicated == 0, format!("{} are there more than once", tally.duplicated));
        unless(tally.breaches == 0, format!("{} promises did not hold", tally.breaches));
        unless(!control.0.is_empty(), "the row has no control".to_owned());
        for name in control.blind() {
            unless(false, format!("the control `{name}` was not caught: what the row shows proves nothing"));
        }
        Self {
            row,
            count,
            injected: tally.injected,
            acked: tally.acked,
            lost: tally.lost,
            duplicated: tally.duplicated,
            control,
            skipped: false,
            ok: why.is_empty(),
            seconds,
            figures: tally.figures,
            why,
        }
    }

    /// A row that could not run here.
    #[must_use]
    pub fn skipped(row: &'static str, count: u64, needs: &str) -> Self {
        let verdict = Verdict { tally: Tally::default(), control: Control::default() };
        Self { skipped: true, ok: false, why: vec![format!("needs {needs}")], ..Self::judged(row, count, 0, verdict) }
    }

    /// A row whose run broke off for a reason of the lab's own.
    #[must_use]
    pub fn broken_off(row: &'static str, count: u64, error: &anyhow::Error) -> Self {
        let verdict = Verdict { tally: Tally::default(), control: Control::default() };
        Self { ok: false, why: vec![format!("broke off: {error:#}")], ..Self::judged(row, count, 0, verdict) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Verdict {
        let tally = Tally { injected: 10, acked: 500, ..Tally::default() };
        Verdict { tally, control: Control::of("lost", 3) }
    }

    #[test]
    fn the_line_is_the_one_that_was_promised() {
        let line = serde_json::to_string(&Outcome::judged("D3", 10, 7, clean())).unwrap();
        assert_eq!(
            line,
            r#"{"row":"D3","count":10,"injected":10,"acked":500,"lost":0,"duplicated":0,"control":{"lost":3},"skipped":false,"ok":true,"seconds":7}"#
        );
    }

    #[test]
    fn each_thing_that_is_wrong_makes_the_row_wrong() {
        let cases: [fn(&mut Verdict); 6] = [
            |verdict| verdict.tally.injected = 9,
            |verdict| verdict.tally.lost = 1,
            |verdict| verdict.tally.duplicated = 1,
            |verdict| verdict.tally.breach("late"),
            |verdict| verdict.control = Control::of("lost", 0),
            |verdict| verdict.control = Control::default(),
        ];
        assert!(Outcome::judged("D3", 10, 0, clean()).ok);
        for (index, break_it) in cases.into_iter().enumerate() {
            let mut verdict = clean();
            break_it(&mut verdict);
            let outcome = Outcome::judged("D3", 10, 0, verdict);
            assert!(!outcome.ok && !outcome.why.is_empty(), "case {index} is called in order");
        }
    }

    #[test]
    fn a_skipped_row_is_not_in_order() {
        let outcome = Outcome::skipped("D3", 10, "root");
        assert!(outcome.skipped && !outcome.ok);
        assert_eq!(outcome.why, ["needs root"]);
    }

    #[test]
    fn merging_adds_what_counts() {
        let mut tally = clean().tally;
        tally.add("kills", 2);
        let mut more = clean().tally;
        more.add("kills", 3);
        tally.merge(more);
        assert_eq!((tally.injected, tally.count_of("kills")), (20, 5));
    }
}
