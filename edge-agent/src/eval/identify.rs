//! `eval identify`: who is this, if anybody we know?
//!
//! In: a list of labels. Out: [`IdentifyReport`]: open-set errors for several gallery sizes, with 1 and 3 enrolment
//! pictures. Several photographs become one template by the hub's own rule (`average_photographs`).

use std::path::{Path, PathBuf};

use face_core::Embedding;
use face_runtime::{Enrolled, average_photographs};

use super::embed_all::thinking;
use super::lists::{Labels, ListError, ListProblem};
use super::open_set::{Album, OpenSet, by_person};
use super::{EvalError, Question, Seen, check_pictures, embedded, read_list, threads};
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
    let accepted: Vec<Option<Enrolled>> =
        templates.outcomes.iter().map(|outcome| outcome.as_ref().ok().cloned()).collect();
    let embeddings: Vec<Option<Embedding>> =
        accepted.iter().map(|enrolled| enrolled.as_ref().map(|enrolled| enrolled.embedding.clone())).collect();
    let average = |pictures: &[usize]| {
        let photographs: Option<Vec<Enrolled>> = pictures.iter().map(|picture| accepted[*picture].clone()).collect();
        average_photographs(&pack, &photographs?).ok()
    };
    let album = Album { templates: &embeddings, people: &people, average: &average, margin, seed: question.seed };
    let sign = thinking("drawing galleries, and resampling people for the intervals");
    let enrolments: &[usize] = if album.reserve() == 3 { &[1, 3] } else { &[1] };
    let sizes = album.sizes().into_iter().flat_map(|n| enrolments.iter().map(move |enrolled| (n, *enrolled)));
    let sizes: Vec<OpenSet> = sizes.map(|(n, enrolled)| album.measure(n, enrolled, threads())).collect();
    sign.finish_and_clear();
    Ok(IdentifyReport {
        seen: Seen::new(question, &pack, &pictures.paths, &templates),
        labels: labels.to_owned(),
        n_people,
        margin,
        three: album.reserve() == 3,
        sizes,
    })
}
