//! Recognition and liveness measured on anybody's pictures, with the very code of the door.
//!
//! In: a folder of pictures and a list of who is on them. Out: [`PairsReport`] (is this the same person?) and
//! [`IdentifyReport`] (who is this, if anybody?). The modules follow the data: [`lists`] and `csv` read, `people` joins,
//! [`template`] and `embed_all` run the models, `verification`, `accuracy` and `open_set` count, with `rates` and
//! `bootstrap` below them, and `curves` is what a report draws; `against` holds two pipelines beside each other; [`liveness`] is a line of its own. Only
//! `embed_all`, `liveness/media` and this module touch files; everything that counts is pure.
//!
//! Deliberately absent: tuning (nothing is written to a manifest), printing (`cli`).

mod accuracy;
mod against;
mod bootstrap;
mod csv;
mod curves;
mod embed_all;
mod identify;
pub mod lists;
pub mod liveness;
mod open_set;
mod pairs;
mod people;
mod rates;
pub mod template;
mod verification;

use std::io::Read;
use std::path::{Path, PathBuf};

use face_core::quality::QualityGate;
use face_runtime::{ModelPack, Task};

use crate::config::Config;
use crate::models::{self, ModelsError};
use embed_all::Templates;
use lists::{ListError, ListProblem, Pictures};

pub(crate) use accuracy::Accuracy;
pub(crate) use against::{AgainstIdentify, AgainstPairs, AtRates, Difference};
pub(crate) use curves::{Curves, Histogram};
pub(crate) use identify::{IdentifyReport, identify};
pub(crate) use open_set::{DRAWS, OpenSet};
pub(crate) use pairs::{PairsReport, pairs};

/// Scores of all pairs are kept: 600 MB for this many pictures.
const MAX_PICTURES: usize = 10_000;
/// Longest list that is read.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A list is wrong.
    #[error(transparent)]
    List(#[from] ListError),
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A list is no text, or too long to be one.
    #[error("{}: is not a list in UTF-8 of at most {} MB", path.display(), MAX_LIST_BYTES >> 20)]
    NoText {
        /// The file.
        path: PathBuf,
    },
    /// More pictures than scores can be kept of.
    #[error("{}: has {found} pictures, at most {MAX_PICTURES} can be compared at once: measure them in parts", path.display())]
    TooMany {
        /// The list.
        path: PathBuf,
        /// Pictures in it.
        found: usize,
    },
    /// A picture or video cannot be judged.
    #[error(transparent)]
    Media(liveness::MediaError),
    /// A model gave no answer.
    #[error("{}: a model gave no answer", path.display())]
    Model {
        /// The picture or video.
        path: PathBuf,
        /// Which, and why.
        source: face_core::ModelError,
    },
    /// The models cannot be used.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// No picture gave a template.
    #[error("none of the {n} pictures gave a template, the first because of this: {first}")]
    NoTemplates {
        /// Number of pictures.
        n: usize,
        /// What was wrong with the first.
        first: String,
    },
    /// Nobody can be both enrolled and looked for.
    #[error("{}: nobody has two pictures: one is enrolled, and another one must be there to come with", path.display())]
    NobodyTwice {
        /// The list.
        path: PathBuf,
    },
}

/// Which quality a picture must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// That of a face before a door.
    Match,
    /// That of an enrolment photograph.
    Enrol,
}

impl Gate {
    /// The gate itself.
    #[must_use]
    pub fn gate(self) -> QualityGate {
        match self {
            Self::Match => QualityGate::matching(),
            Self::Enrol => QualityGate::enrol(),
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Enrol => "enrol",
        }
    }
}

/// What every measurement is told.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) images: PathBuf,
    pub(crate) pack: Option<String>,
    pub(crate) gate: Gate,
    pub(crate) seed: u64,
    /// Whether the plain pipeline is measured too.
    pub(crate) against_plain: bool,
}

/// What every measurement says of its pictures.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) pack: String,
    pub(crate) space_id: String,
    pub(crate) gate: Gate,
    pub(crate) seed: u64,
    pub(crate) n_pictures: usize,
    pub(crate) n_faces: usize,
    /// Path, stable codes and sentence of each picture without a template.
    pub(crate) lost: Vec<Lost>,
    pub(crate) calls: Vec<(Task, u64)>,
}

/// A picture without a template.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) path: String,
    pub(crate) codes: Vec<&'static str>,
    pub(crate) why: String,
}

impl Lost {
    fn all(paths: &[String], templates: &Templates) -> Vec<Self> {
        let lost = templates.lost().map(|(picture, why)| Self {
            path: paths[picture].clone(),
            codes: why.codes(),
            why: why.told(),
        });
        lost.collect()
    }
}

impl Seen {
    fn new(question: &Question, pack: &ModelPack, paths: &[String], templates: &Templates) -> Self {
        Self {
            pack: models::pack_name(pack),
            space_id: pack.manifest().space_id.clone(),
            gate: question.gate,
            seed: question.seed,
            n_pictures: paths.len(),
            n_faces: templates.n_faces,
            lost: Lost::all(paths, templates),
            calls: templates.calls.clone(),
        }
    }

    /// Share of the pictures that gave no template.
    pub(crate) fn failure_to_acquire(&self) -> f64 {
        self.lost.len() as f64 / self.n_pictures as f64
    }
}

/// Opens the pack, the configured one unless another is named, with a session for each processor, and embeds every picture.
fn embedded(
    question: &Question,
    config: &Config,
    paths: &[String],
) -> Result<(std::sync::Arc<ModelPack>, Templates), EvalError> {
    let workers = threads().max(config.models.sessions);
    let mut config = config.models.clone();
    config.sessions = workers;
    if let Some(asked) = &question.pack {
        config.pack.clone_from(asked);
    }
    let pack = models::open(&config)?;
    let templates = made_by(template::template, question, &pack, paths)?;
    Ok((pack, templates))
}

/// The same pictures by the plain pipeline, when the question asks for it.
fn embedded_plainly(question: &Question, pack: &ModelPack, paths: &[String]) -> Result<Option<Templates>, EvalError> {
    question.against_plain.then(|| made_by(template::plain_template, question, pack, paths)).transpose()
}

fn made_by(
    recipe: embed_all::Recipe,
    question: &Question,
    pack: &ModelPack,
    paths: &[String],
) -> Result<Templates, EvalError> {
    let templates = embed_all::embed_all(pack, &question.images, paths, &question.gate.gate(), recipe, threads())?;
    if templates.outcomes.iter().all(Result::is_err) {
        let first = templates.lost().next().map(|(_, why)| why.told()).unwrap_or_default();
        return Err(EvalError::NoTemplates { n: paths.len(), first });
    }
    Ok(templates)
}

pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn read_list(path: &Path) -> Result<String, EvalError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_LIST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| EvalError::Unreadable { path: path.to_owned(), source })?;
    let no_text = || EvalError::NoText { path: path.to_owned() };
    if bytes.len() as u64 > MAX_LIST_BYTES {
        return Err(no_text());
    }
    String::from_utf8(bytes).map_err(|_| no_text())
}

/// Every picture must be there before the first is embedded: the list may be of another folder.
fn check_pictures(list: &Path, images: &Path, pictures: &Pictures) -> Result<(), EvalError> {
    let found = pictures.paths.len();
    if found > MAX_PICTURES {
        return Err(EvalError::TooMany { path: list.to_owned(), found });
    }
    for (path, line) in pictures.paths.iter().zip(&pictures.first_lines) {
        if !images.join(path).is_file() {
            let problem = ListProblem::Missing { path: path.clone(), images: images.to_owned() };
            return Err(ListError { file: list.to_owned(), line: *line, problem }.into());
        }
    }
    Ok(())
}
