//! Embeds every picture of a measurement once, in parallel on the pack's sessions.
//!
//! In: paths, a pack, a gate. Out: [`Templates`]: what each picture gave, in the order of the paths, and how often each
//! model ran. The order of the work changes nothing: a picture gives the same bits on any session.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use face_core::Embedding;
use face_core::quality::QualityGate;
use face_runtime::{Enrolled, ModelPack, Task};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::EvalError;
use super::template::NoTemplate;

/// How a picture becomes a template: [`super::template::template`] or its plain sister.
pub(crate) type Recipe = fn(&ModelPack, &[u8], &QualityGate) -> Result<Enrolled, NoTemplate>;

/// What the pictures gave.
pub(crate) struct Templates {
    pub(crate) outcomes: Vec<Result<Enrolled, NoTemplate>>,
    /// Runs of each model that ran, all pictures together.
    pub(crate) calls: Vec<(Task, u64)>,
    /// Pictures in which a face was found: those that the models behind the detector saw.
    pub(crate) n_faces: usize,
}

impl Templates {
    pub(crate) fn embedding(&self, picture: usize) -> Option<&Embedding> {
        self.outcomes[picture].as_ref().ok().map(|enrolled| &enrolled.embedding)
    }

    /// Pictures that gave no template, with the reason.
    pub(crate) fn lost(&self) -> impl Iterator<Item = (usize, &NoTemplate)> {
        self.outcomes.iter().enumerate().filter_map(|(picture, outcome)| Some((picture, outcome.as_ref().err()?)))
    }
}

/// Embeds `paths` below `images` with `workers` threads. A bar on standard error, where that is a terminal.
pub(crate) fn embed_all(
    pack: &ModelPack,
    images: &Path,
    paths: &[String],
    gate: &QualityGate,
    recipe: Recipe,
    workers: usize,
) -> Result<Templates, EvalError> {
    let before: Vec<u64> = Task::ALL.map(|task| pack.usage(task).runs).to_vec();
    let bar = bar(paths.len(), "pictures");
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<(usize, Result<Enrolled, NoTemplate>)>> = Mutex::new(Vec::with_capacity(paths.len()));
    let failed: Mutex<Option<EvalError>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, paths.len().max(1)) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let picture = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = paths.get(picture).map(|path| images.join(path)) else { return };
                    match read(&path) {
                        Ok(bytes) => done.lock().push((picture, recipe(pack, &bytes, gate))),
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            failed.lock().get_or_insert(error);
                        }
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(picture, _)| *picture);
    let outcomes: Vec<_> = done.into_iter().map(|(_, outcome)| outcome).collect();
    let calls = Task::ALL.into_iter().zip(before).map(|(task, before)| (task, pack.usage(task).runs - before));
    let n_faces = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(_) | Err(NoTemplate::Quality(_) | NoTemplate::Model(_))))
        .count();
    Ok(Templates { outcomes, calls: calls.filter(|(_, runs)| *runs > 0).collect(), n_faces })
}

/// Reads no more than a photograph may have: the decoder refuses what is longer, by its length.
fn read(path: &PathBuf) -> Result<Vec<u8>, EvalError> {
    use std::io::Read;
    let limit = face_runtime::PhotoLimits::default().max_bytes as u64 + 1;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|source| EvalError::Unreadable { path: path.clone(), source })?;
    Ok(bytes)
}

/// A bar for `n` steps; invisible where standard error is no terminal.
pub(crate) fn bar(n: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(n as u64).with_message(what);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left");
    bar.set_style(style.expect("the template is well formed; a test draws it"));
    bar
}

/// A sign of life while figures are computed.
pub(crate) fn thinking(what: &'static str) -> ProgressBar {
    let sign = ProgressBar::new_spinner().with_message(what);
    sign.enable_steady_tick(std::time::Duration::from_millis(120));
    sign
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bar_can_be_drawn() {
        super::bar(3, "pictures").inc(1);
    }
}
