//! `eval identify`: who is this, if anybody we know?
//!
//! In: a list of labels. Out: [`IdentifyReport`]: open-set errors for several gallery sizes, with 1 and 3 enrolment
//! pictures. Several photographs become one template by the hub's own rule (`average_photographs`).

use std::path::{Path, PathBuf};

use face_core::Embedding;
use face_runtime::{Enrolled, ModelPack, average_photographs};

use super::against::AgainstIdentify;
use super::embed_all::{Templates, thinking};
use super::lists::{Labels, ListError, ListProblem};
use super::open_set::{Album, OpenSet, by_person};
use super::{EvalError, Question, Seen, check_pictures, embedded, embedded_plainly, read_list, threads};
use crate::config::Config;

/// The figures.
#[derive(Debug)]
pub(crate) struct IdentifyReport {
    pub(crate) seen: Seen,
    pub(crate) labels: PathBuf,
    pub(crate) n_people: usize,
    /// The margin that the best person must lead by.
    pub(crate) margin: f32,
    /// Whether people have pictures enough for three at enrolment.
    pub(crate) three: bool,
    pub(crate) sizes: Vec<OpenSet>,
    /// The plain pipeline, where it was asked for.
    pub(crate) against: Option<AgainstIdentify>,
}

/// Measures, with the margin of the policy `default`.
pub(crate) fn identify(question: &Question, labels: &Path, config: &Config) -> Result<IdentifyReport, EvalError> {
    let Labels { pictures, people, n_people } = Labels::parse(labels, &read_list(labels)?)?;
    if n_people < 2 {
        return Err(ListError { file: labels.to_owned(), line: 1, problem: ListProblem::NoImpostors }.into());
    }
    let people = by_person(&people);
    if people.iter().all(|pictures| pictures.len() < 2) {
        return Err(EvalError::NobodyTwice { path: labels.to_owned() });
    }
    check_pictures(labels, &question.images, &pictures)?;
    let (pack, templates) = embedded(question, config, &pictures.paths)?;
    let margin = config.policy("default").expect("always there").margin;
    let plain = embedded_plainly(question, &pack, &pictures.paths)?;
    let sign = thinking("drawing galleries, and resampling people for the intervals");
    let ours = Made::new(&pack, &templates);
    let average = |pictures: &[usize]| ours.average(pictures);
    let album = Album { templates: &ours.embeddings, people: &people, average: &average, margin, seed: question.seed };
    let enrolments: &[usize] = if album.reserve() == 3 { &[1, 3] } else { &[1] };
    let sizes: Vec<(usize, usize)> =
        album.sizes().into_iter().flat_map(|n| enrolments.iter().map(move |enrolled| (n, *enrolled))).collect();
    let against = plain.map(|plain| {
        let made = Made::new(&pack, &plain);
        let average = |pictures: &[usize]| made.average(pictures);
        let other = Album { templates: &made.embeddings, average: &average, ..album };
        let misses = sizes.iter().map(|(n, enrolled)| album.against(&other, *n, *enrolled, threads()));
        AgainstIdentify { misses: misses.collect(), seen: Seen::new(question, &pack, &pictures.paths, &plain) }
    });
    let sizes: Vec<OpenSet> = sizes.into_iter().map(|(n, enrolled)| album.measure(n, enrolled, threads())).collect();
    sign.finish_and_clear();
    Ok(IdentifyReport {
        seen: Seen::new(question, &pack, &pictures.paths, &templates),
        labels: labels.to_owned(),
        n_people,
        margin,
        three: album.reserve() == 3,
        sizes,
        against,
    })
}

/// What one pipeline made of the pictures.
struct Made<'a> {
    pack: &'a ModelPack,
    accepted: Vec<Option<Enrolled>>,
    embeddings: Vec<Option<Embedding>>,
}

impl<'a> Made<'a> {
    fn new(pack: &'a ModelPack, templates: &Templates) -> Self {
        let accepted: Vec<Option<Enrolled>> =
            templates.outcomes.iter().map(|outcome| outcome.as_ref().ok().cloned()).collect();
        let embeddings =
            accepted.iter().map(|enrolled| enrolled.as_ref().map(|enrolled| enrolled.embedding.clone())).collect();
        Self { pack, accepted, embeddings }
    }

    /// One template of several photographs, by the hub's own rule.
    fn average(&self, pictures: &[usize]) -> Option<Embedding> {
        let photographs: Option<Vec<Enrolled>> =
            pictures.iter().map(|picture| self.accepted[*picture].clone()).collect();
        average_photographs(self.pack, &photographs?).ok()
    }
}
