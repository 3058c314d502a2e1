//! `eval liveness`: living persons and attacks before the door's own eyes.
//!
//! In: a list of pictures and videos. Out: [`LivenessReport`]. [`media`] reads, [`watch`] looks, [`decision`] says one word
//! of each, [`card`] counts. The ablation asks of the same findings what a door without one method, or with it alone,
//! would have said. Deliberately absent: printing (`cli`), tuning.

mod card;
mod decision;
mod media;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use face_core::PassiveScores;
use face_core::liveness::{CheckState, Demand, LivenessPolicy, Method, Methods};
use face_runtime::{ModelPack, Task};
use parking_lot::Mutex;

use super::lists::{Label, ListError, ListProblem, Presentation, Presentations};
use super::{EvalError, embed_all, read_list};
use crate::config::Config;
use crate::models;

pub(crate) use card::{Card, Tally};
pub(crate) use decision::Decided;
pub use media::MediaError;
use watch::Watched;

/// An arrival shorter before the end than this had no time to be decided.
const LEAST_ARRIVAL: Duration = Duration::from_millis(2_500);

/// One presentation of the report.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) presentation: Presentation,
    pub(crate) is_still: bool,
    pub(crate) decided: Decided,
    pub(crate) n_frames: usize,
    pub(crate) n_looks: usize,
    pub(crate) n_faces: usize,
    pub(crate) length: Duration,
    /// Frames whose passive score alone says attack (below 0.5), of those scored.
    pub(crate) frames: FrameTally,
    /// Mean passive scores of the two crops, and how much brighter than the picture the face is; videos only.
    pub(crate) boxed: Option<f32>,
    pub(crate) square: Option<f32>,
    pub(crate) glow: Option<f32>,
    /// The highest score of each method at any moment.
    pub(crate) highest: Vec<(Method, f32)>,
    /// Arrivals at each half second; none for stills and short clips.
    pub(crate) arrivals: Vec<Option<Duration>>,
}

/// How single frames score.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct FrameTally {
    pub(crate) n: usize,
    pub(crate) n_live: usize,
    pub(crate) mean: f32,
}

/// What the decisions would be without a method, or with it alone.
#[derive(Debug)]
pub(crate) struct Ablation {
    pub(crate) method: Method,
    /// Whether the demand asks for it at all.
    pub(crate) asked: bool,
    /// Presentations in which it ever passed or failed: living persons, attacks.
    pub(crate) passed: [usize; 2],
    pub(crate) failed: [usize; 2],
    /// Presentations in which it was ever available.
    pub(crate) available: usize,
    /// Without it; none where it is not asked for.
    pub(crate) without: Option<Card>,
    /// With it alone, as a requirement.
    pub(crate) alone: Card,
}

/// The report.
#[derive(Debug)]
pub(crate) struct LivenessReport {
    pub(crate) pack: String,
    pub(crate) level: &'static str,
    pub(crate) card: Card,
    pub(crate) items: Vec<Item>,
    pub(crate) ablation: Vec<Ablation>,
    pub(crate) calls: Vec<(Task, u64)>,
    pub(crate) n_looks: usize,
}

/// Judges every presentation of `list` below `root` by `demand`, whose name is `level`.
pub(crate) fn liveness(
    list: &Path,
    root: &Path,
    level: &'static str,
    demand: &Demand,
    config: &Config,
) -> Result<LivenessReport, EvalError> {
    let presentations = Presentations::parse(list, &read_list(list)?)?.0;
    for presentation in &presentations {
        if !root.join(&presentation.path).is_file() {
            let problem = ListProblem::MissingClip { path: presentation.path.clone(), root: root.to_owned() };
            return Err(ListError { file: list.to_owned(), line: presentation.line, problem }.into());
        }
    }
    let workers = super::threads().max(config.models.sessions);
    let mut models = config.models.clone();
    models.sessions = workers;
    let pack = models::open(&models)?;
    let before: Vec<u64> = Task::ALL.map(|task| pack.usage(task).runs).to_vec();
    let paths: Vec<PathBuf> = presentations.iter().map(|presentation| root.join(&presentation.path)).collect();
    let watched = watch_all(&pack, &paths, config, workers)?;
    let calls = Task::ALL.into_iter().zip(before).map(|(task, before)| (task, pack.usage(task).runs - before));
    let thinking = embed_all::thinking("judging without each method");
    let card = card_of(&presentations, &watched, demand);
    let ablation = Method::ALL.map(|method| ablate(method, &presentations, &watched, demand)).into();
    let n_looks = watched.iter().map(|seen| seen.n_looks).sum();
    let items = presentations.into_iter().zip(&watched).map(|(presentation, seen)| item(presentation, seen, demand));
    let items = items.collect();
    thinking.finish_and_clear();
    Ok(LivenessReport {
        pack: models::pack_name(&pack),
        level,
        card,
        items,
        ablation,
        calls: calls.filter(|(_, runs)| *runs > 0).collect(),
        n_looks,
    })
}

/// Watches every file with `workers` threads, in the order of the list. The order of the work changes nothing.
fn watch_all(pack: &ModelPack, paths: &[PathBuf], config: &Config, workers: usize) -> Result<Vec<Watched>, EvalError> {
    let bar = embed_all::bar(paths.len(), "pictures and videos");
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<(usize, Result<Watched, EvalError>)>> = Mutex::new(Vec::with_capacity(paths.len()));
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, paths.len().max(1)) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = paths.get(index) else { return };
                    let watched = watch::watch(pack, path, config.perceive);
                    stop.fetch_or(watched.is_err(), Ordering::Relaxed);
                    done.lock().push((index, watched));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, watched)| watched).collect()
}

fn card_of(presentations: &[Presentation], watched: &[Watched], demand: &Demand) -> Card {
    let decided = watched.iter().map(|seen| (seen.still.is_some(), decision::decide(seen, demand).decision));
    Card::of(presentations.iter().zip(decided).map(|(presentation, (still, decision))| (presentation, still, decision)))
}

fn ablate(method: Method, presentations: &[Presentation], watched: &[Watched], demand: &Demand) -> Ablation {
    let asked = demand.deciding().has(method);
    let ever = |label: Label, state: CheckState| {
        let seen = presentations.iter().zip(watched).filter(|(presentation, _)| presentation.label == label);
        seen.filter(|(_, seen)| seen.moments.iter().any(|moment| moment.findings.of(method).state == state)).count()
    };
    let available = watched
        .iter()
        .filter(|seen| seen.moments.iter().any(|moment| moment.findings.of(method).state != CheckState::Unavailable));
    let alone = Demand {
        required: Methods::of(&[method]),
        signs: Methods::default(),
        min_signs: 0,
        vetoes: Methods::default(),
        ..*demand
    };
    Ablation {
        method,
        asked,
        passed: [ever(Label::Live, CheckState::Pass), ever(Label::Attack, CheckState::Pass)],
        failed: [ever(Label::Live, CheckState::Fail), ever(Label::Attack, CheckState::Fail)],
        available: available.count(),
        without: asked.then(|| card_of(presentations, watched, &demand.without(method))),
        alone: card_of(presentations, watched, &alone),
    }
}

fn item(presentation: Presentation, seen: &Watched, demand: &Demand) -> Item {
    let scores: Vec<f32> = match &seen.still {
        Some(scores) => scores.iter().copied().map(PassiveScores::mean).collect(),
        None => {
            let evidence = seen.moments.iter().filter_map(|moment| moment.evidence.as_ref());
            evidence.filter_map(|evidence| evidence.passive).map(PassiveScores::mean).collect()
        }
    };
    let evidence = || seen.moments.iter().filter_map(|moment| moment.evidence.as_ref());
    let mean_of = |values: Vec<f32>| {
        if values.is_empty() { None } else { Some(values.iter().sum::<f32>() / values.len() as f32) }
    };
    let above = |score: &&f32| **score > LivenessPolicy::default().pass_above;
    let frames = FrameTally {
        n: scores.len(),
        n_live: scores.iter().filter(above).count(),
        mean: if scores.is_empty() { 0.0 } else { scores.iter().sum::<f32>() / scores.len() as f32 },
    };
    Item {
        presentation,
        is_still: seen.still.is_some(),
        decided: decision::decide(seen, demand),
        n_frames: seen.n_frames,
        n_looks: seen.n_looks,
        n_faces: seen.n_faces,
        length: seen.length,
        frames,
        boxed: mean_of(evidence().filter_map(|seen| seen.passive).map(|scores| scores.boxed).collect()),
        square: mean_of(evidence().filter_map(|seen| seen.passive).map(|scores| scores.square).collect()),
        glow: mean_of(evidence().filter_map(|seen| seen.glow).collect()),
        highest: Method::ALL
            .into_iter()
            .filter_map(|method| {
                let scores = seen.moments.iter().filter_map(|moment| moment.findings.of(method).score);
                Some((method, scores.reduce(f32::max)?))
            })
            .collect(),
        arrivals: decision::arrivals(seen, demand, LEAST_ARRIVAL),
    }
}
