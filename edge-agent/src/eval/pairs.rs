//! `eval pairs`: is this the same person?
//!
//! In: a list of pairs, a list of labels, or both. Out: [`PairsReport`]: accuracy over the listed pairs, everything else
//! over all pictures of the list against each other.

use std::path::{Path, PathBuf};

use face_runtime::{Manifest, ModelPack};

use super::accuracy::{Accuracy, Judged, accuracy, n_right};
use super::against::{AgainstPairs, accuracy_difference};
use super::curves::{Curves, GenuinePair, curves};
use super::embed_all::{Templates, thinking};
use super::lists::{Labels, ListError, ListProblem, Pair, Pairs, Pictures};
use super::people::People;
use super::verification::{Scores, Verification};
use super::{EvalError, Lost, Question, Seen, check_pictures, embedded, embedded_plainly, read_list, threads};
use crate::config::Config;

/// The name of a list of labels that is taken when it stands beside the pairs.
const LABELS_BESIDE: &str = "labels.csv";

/// The figures.
#[derive(Debug)]
pub(crate) struct PairsReport {
    pub(crate) seen: Seen,
    /// Where the people come from: the list of labels, or none for the pairs alone.
    pub(crate) labels: Option<PathBuf>,
    /// Listed pairs; none without a list of pairs.
    pub(crate) listed: Option<Listed>,
    pub(crate) all: Verification,
    pub(crate) manifest: Vec<ManifestPoint>,
    pub(crate) curves: Curves,
    /// The plain pipeline, where it was asked for.
    pub(crate) against: Option<AgainstPairs>,
}

/// The listed pairs.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) n: usize,
    pub(crate) n_genuine: usize,
    /// Pairs of which a picture gave no template.
    pub(crate) n_lost: usize,
    pub(crate) n_folds: usize,
    pub(crate) accuracy: Option<Accuracy>,
}

/// What a threshold of the manifest does to these pictures.
#[derive(Debug)]
pub(crate) struct ManifestPoint {
    /// The false accept rate that it promises.
    pub(crate) promised: String,
    pub(crate) threshold: f32,
    pub(crate) true_accepts: Option<f64>,
    pub(crate) false_accepts: Option<f64>,
    /// Listed pairs judged rightly.
    pub(crate) n_right: Option<usize>,
}

/// The lists, read and checked against each other.
struct Lists {
    pictures: Pictures,
    pairs: Option<Vec<Pair>>,
    people: People,
    labels: Option<PathBuf>,
}

/// Measures. `labels` without `pairs` compares all pictures of the labels and has no accuracy.
pub(crate) fn pairs(
    question: &Question,
    pairs: Option<&Path>,
    labels: Option<&Path>,
    config: &Config,
) -> Result<PairsReport, EvalError> {
    let lists = lists(question, pairs, labels)?;
    let (pack, templates) = embedded(question, config, &lists.pictures.paths)?;
    let sign = thinking("comparing all pictures, and resampling people for the intervals");
    let scores = scores(&lists, &templates);
    let all = scores.verification(question.seed, threads());
    sign.finish_and_clear();
    let judged = lists.pairs.as_ref().map(|pairs| judged(pairs, &templates));
    let plain = embedded_plainly(question, &pack, &lists.pictures.paths)?;
    let against = plain.map(|plain| against(question, &lists, (&scores, judged.as_deref()), &plain));
    let curves = drawn(&lists, &templates, &scores, pack.manifest());
    Ok(PairsReport {
        seen: Seen::new(question, &pack, &lists.pictures.paths, &templates),
        labels: lists.labels,
        listed: judged.as_ref().map(|judged| listed(judged)),
        all,
        manifest: manifest_points(&pack, &scores, judged.as_deref()),
        curves,
        against,
    })
}

fn scores(lists: &Lists, templates: &Templates) -> Scores {
    let embeddings: Vec<_> = (0..lists.pictures.paths.len()).map(|picture| templates.embedding(picture)).collect();
    Scores::all_against_all(&embeddings, &lists.people)
}

/// The plain pipeline's figures, and by how much ours differ.
fn against(question: &Question, lists: &Lists, ours: (&Scores, Option<&[Judged]>), plain: &Templates) -> AgainstPairs {
    let sign = thinking("comparing with the plain pipeline");
    let plain_scores = scores(lists, plain);
    let accuracy = lists.pairs.as_ref().zip(ours.1).and_then(|(pairs, ours)| {
        accuracy_difference(pairs, &lists.people, ours, &judged(pairs, plain), (question.seed, threads()))
    });
    let found = AgainstPairs {
        lost: Lost::all(&lists.pictures.paths, plain),
        calls: plain.calls.clone(),
        n_faces: plain.n_faces,
        all: plain_scores.verification(question.seed, threads()),
        accuracy,
        true_accepts: ours.0.against(&plain_scores, question.seed, threads()),
    };
    sign.finish_and_clear();
    found
}

fn lists(question: &Question, pairs: Option<&Path>, labels: Option<&Path>) -> Result<Lists, EvalError> {
    let Some(list) = pairs else {
        let list = labels.expect("the command line asks for one of the two");
        let Labels { pictures, people, .. } = Labels::parse(list, &read_list(list)?)?;
        check_pictures(list, &question.images, &pictures)?;
        let people = People::labelled(&people, &[]).expect("no pair contradicts");
        check_both_kinds(list, &people, pictures.paths.len())?;
        return Ok(Lists { pictures, pairs: None, people, labels: Some(list.to_owned()) });
    };
    let Pairs { pictures, rows } = Pairs::parse(list, &read_list(list)?)?;
    check_pictures(list, &question.images, &pictures)?;
    let beside = list.with_file_name(LABELS_BESIDE);
    let labels = labels.map(Path::to_owned).or_else(|| beside.is_file().then_some(beside));
    let joined = match &labels {
        Some(labels) => People::labelled(&labels_of(list, &pictures, labels)?, &rows),
        None => People::joined(pictures.paths.len(), &rows),
    };
    let people = joined.map_err(|against| {
        let said = if against.same { "one person" } else { "two people" };
        ListError { file: list.to_owned(), line: against.line, problem: ListProblem::Contradiction { said } }
    })?;
    check_both_kinds(list, &people, pictures.paths.len())?;
    Ok(Lists { pictures, pairs: Some(rows), people, labels })
}

/// The label of each picture of the pairs.
fn labels_of(list: &Path, pictures: &Pictures, file: &Path) -> Result<Vec<usize>, EvalError> {
    let labels = Labels::parse(file, &read_list(file)?)?;
    let label = |(path, line): (&String, &usize)| {
        let found = labels.pictures.index_of(path).map(|index| labels.people[index]);
        found.ok_or_else(|| {
            let problem = ListProblem::Unlabelled { path: path.clone(), labels: file.to_owned() };
            EvalError::from(ListError { file: list.to_owned(), line: *line, problem })
        })
    };
    pictures.paths.iter().zip(&pictures.first_lines).map(label).collect()
}

/// One person only, or every person once, can show nothing; better said before the pictures are embedded.
fn check_both_kinds(list: &Path, people: &People, n_pictures: usize) -> Result<(), ListError> {
    let any = |kind: bool| (0..n_pictures).any(|a| (a + 1..n_pictures).any(|b| people.same(a, b) == Some(kind)));
    let error = |problem| ListError { file: list.to_owned(), line: 1, problem };
    if !any(false) {
        return Err(error(ListProblem::NoImpostors));
    }
    if any(true) { Ok(()) } else { Err(error(ListProblem::NoGenuine)) }
}

fn judged(pairs: &[Pair], templates: &Templates) -> Vec<Judged> {
    let judge = |pair: &Pair| {
        let [a, b] = pair.pictures.map(|picture| templates.embedding(picture));
        Judged { score: a.zip(b).map(|(a, b)| a.similarity(b).value()), same: pair.same, fold: pair.fold }
    };
    pairs.iter().map(judge).collect()
}

fn listed(judged: &[Judged]) -> Listed {
    Listed {
        n: judged.len(),
        n_genuine: judged.iter().filter(|pair| pair.same).count(),
        n_lost: judged.iter().filter(|pair| pair.score.is_none()).count(),
        n_folds: judged.iter().filter_map(|pair| pair.fold).max().map_or(0, |last| last + 1),
        accuracy: accuracy(judged),
    }
}

/// The error-versus-reject curve is drawn at the strictest threshold of the manifest: that of doors by default.
fn drawn(lists: &Lists, templates: &Templates, scores: &Scores, manifest: &Manifest) -> Curves {
    let n = lists.pictures.paths.len();
    let quality =
        |picture: usize| templates.outcomes[picture].as_ref().map_or(0.0, |made| made.examined.quality.overall());
    let genuine = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
    let genuine = genuine.filter(|(a, b)| lists.people.same(*a, *b) == Some(true)).map(|(a, b)| GenuinePair {
        score: templates.embedding(a).zip(templates.embedding(b)).map(|(a, b)| a.similarity(b).value()),
        quality: quality(a).min(quality(b)),
    });
    let genuine: Vec<GenuinePair> = genuine.collect();
    curves(&genuine, &scores.impostors(), manifest.thresholds[0].score)
}

fn manifest_points(pack: &ModelPack, scores: &Scores, judged: Option<&[Judged]>) -> Vec<ManifestPoint> {
    let point = |threshold: &face_runtime::manifest::Threshold| {
        let (true_accepts, false_accepts) = scores.accepted_at(threshold.score);
        ManifestPoint {
            promised: threshold.far.to_string(),
            threshold: threshold.score,
            true_accepts,
            false_accepts,
            n_right: judged.map(|judged| n_right(judged.iter(), threshold.score)),
        }
    };
    pack.manifest().thresholds.iter().map(point).collect()
}
