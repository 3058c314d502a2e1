//! A row's run: how often, where it stands after an interruption, and what the person who waits is told.
//!
//! In: the row, the count, the folder of the lab's programs, a file for the state. Out: [`Outcome`]. A run is made of
//! *phases* (the real store, the control), a phase of rounds; after each round the tally is written to the state file, so
//! that a run of hours that is cut off goes on where it stood. The file is keyed by commit, row and count by its name.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, Tally};
use crate::row::Row;

/// How often the state is written at most: a round may take a millisecond, and writing must not be what is measured.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What a run is given by the program that starts it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Where `store-worker` and the other programs are.
    pub bin_dir: PathBuf,
    /// Where the state of an interrupted run is kept; none keeps no state.
    pub state: Option<PathBuf>,
    /// Takes up a state that is there; else it is thrown away.
    pub resume: bool,
    /// Tells how far the run is, on standard error.
    pub progress: bool,
    /// Where a row that goes by seeds begins.
    pub first_seed: u64,
}

/// A run of one row.
pub struct Lab {
    row: &'static Row,
    count: u64,
    setting: Setting,
    state: State,
    begun: Instant,
    saved: Option<Instant>,
    told: Instant,
}

/// What is kept of a run.
#[derive(Default, Serialize, Deserialize)]
struct State {
    phases: BTreeMap<String, Phase>,
    seconds: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Phase {
    rounds: u64,
    tally: Tally,
}

impl Lab {
    /// Runs a row and judges it. Never fails: what goes wrong is in the outcome.
    #[must_use]
    pub fn run(row: &'static Row, count: u64, setting: Setting) -> Outcome {
        if let Some(needs) = row.missing() {
            return Outcome::skipped(row.id, count, &needs);
        }
        let run = || {
            let state = load(&setting)?;
            let mut lab = Self { row, count, setting, state, begun: now(), saved: None, told: now() };
            let verdict = (row.run)(&mut lab)?;
            let seconds = lab.seconds();
            lab.forget()?;
            Ok(Outcome::judged(row.id, count, seconds, verdict))
        };
        run().unwrap_or_else(|error| Outcome::broken_off(row.id, count, &error))
    }

    /// How many faults the row is to inject.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first seed of a row that goes by seeds.
    #[must_use]
    pub fn first_seed(&self) -> u64 {
        self.setting.first_seed
    }

    /// True for the run of `scripts/soak`, false for that of `scripts/test`: a row may leave out what a small count cannot
    /// show.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.count >= self.row.count
    }

    /// One of the lab's own programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.setting.bin_dir.join(name)
    }

    /// Runs the rounds of a phase that have not been run yet, and returns what all of them counted.
    ///
    /// A round gets its number from 0 (for its seed, so that it is the same round in every run) and the tally so far.
    pub fn phase(
        &mut self,
        name: &str,
        rounds: u64,
        mut round: impl FnMut(u64, &mut Tally) -> Result<()>,
    ) -> Result<Tally> {
        let mut phase = self.state.phases.get(name).cloned().unwrap_or_default();
        while phase.rounds < rounds {
            round(phase.rounds, &mut phase.tally)
                .with_context(|| format!("{} {name}, round {}", self.row.id, phase.rounds))?;
            phase.rounds += 1;
            self.state.phases.insert(name.to_owned(), phase.clone());
            self.tell(name, rounds, &phase);
            self.save(phase.rounds == rounds)?;
        }
        Ok(phase.tally)
    }

    fn seconds(&self) -> u64 {
        self.state.seconds + now().duration_since(self.begun).as_secs()
    }

    #[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
    fn tell(&mut self, name: &str, rounds: u64, phase: &Phase) {
        if !self.setting.progress || (now().duration_since(self.told) < TELL_EVERY && phase.rounds < rounds) {
            return;
        }
        self.told = now();
        let Tally { injected, acked, lost, breaches, .. } = phase.tally;
        eprintln!(
            "    {} {name}: {} of {rounds}; injected {injected}, acknowledged {acked}, lost {lost}, breaches {breaches}, {} s",
            self.row.id,
            phase.rounds,
            self.seconds()
        );
    }

    fn save(&mut self, last: bool) -> Result<()> {
        let Some(path) = self.setting.state.clone() else { return Ok(()) };
        if !last && self.saved.is_some_and(|saved| now().duration_since(saved) < SAVE_EVERY) {
            return Ok(());
        }
        self.saved = Some(now());
        let kept = State { phases: self.state.phases.clone(), seconds: self.seconds() };
        // Beside its place and renamed: a run that is cut off while it saves keeps the round before.
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, serde_json::to_vec(&kept)?)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot save the state in {}", path.display()))
    }

    fn forget(&self) -> Result<()> {
        self.setting.state.as_deref().map_or(Ok(()), remove)
    }
}

fn load(setting: &Setting) -> Result<State> {
    let Some(path) = &setting.state else { return Ok(State::default()) };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    if !setting.resume {
        remove(path)?;
        return Ok(State::default());
    }
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} cannot be read", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The lab's clock.
#[expect(clippy::disallowed_methods, reason = "this is the lab's one clock")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::outcome::{Control, Verdict};

    thread_local! {
        static FAIL_AT: Cell<Option<u64>> = const { Cell::new(None) };
        static RUN: Cell<u64> = const { Cell::new(0) };
    }

    static ROW: Row = Row { id: "T", title: "", count: 10, small: 2, needs: &[], run: ten_rounds };

    fn ten_rounds(lab: &mut Lab) -> Result<Verdict> {
        let count = lab.count();
        let tally = lab.phase("rounds", count, |round, tally| {
            anyhow::ensure!(FAIL_AT.get() != Some(round), "cut off");
            RUN.set(RUN.get() + 1);
            tally.injected += 1;
            Ok(())
        })?;
        Ok(Verdict { tally, control: Control::of("caught", 1) })
    }

    #[test]
    fn a_run_that_is_cut_off_goes_on_where_it_stood() {
        let dir = tempfile::tempdir().unwrap();
        let setting = Setting {
            bin_dir: PathBuf::new(),
            state: Some(dir.path().join("state.json")),
            resume: true,
            progress: false,
            first_seed: 0,
        };
        FAIL_AT.set(Some(1));
        let outcome = Lab::run(&ROW, 10, setting.clone());
        assert!(!outcome.ok && outcome.why[0].contains("round 1: cut off"), "{:?}", outcome.why);
        FAIL_AT.set(None);
        assert!(Lab::run(&ROW, 10, setting.clone()).ok);
        assert_eq!(RUN.get(), 10, "a round was run twice or left out");
        // Over and done with: the next run begins anew.
        assert!(Lab::run(&ROW, 10, setting).ok);
        assert_eq!(RUN.get(), 20);
    }
}
