//! An immutable gallery in memory, ready to be searched.
//!
//! In: rows in gallery order. Out: a [`Snapshot`] that implements [`Gallery`]. It is never changed; the programs build
//! the next one and swap it in whole. Cost: 1,164 bytes a template (and 2 KiB more with FAISS, which keeps its own copy);
//! a search reads 524 of them.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use face_core::gallery::{FIRST_DEPTH, is_deep_enough};
use face_core::{Embedding, Gallery, PersonId, Ranked, TemplateId};

use crate::bound::Probe;
use crate::kernel::Kernel;
use crate::rows::Rows;
use crate::scan::scan;

#[cfg(feature = "faiss")]
use crate::flat::FaissFlat;

/// Which search to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engine {
    /// The one that measurement favours for the size of the gallery; see [`Snapshot::build`].
    #[default]
    Auto,
    /// The kernel of this crate.
    Exact,
    /// FAISS `IndexFlatIP`. Without the cargo feature `faiss` building fails.
    Faiss,
}

/// Which search a snapshot uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineUsed {
    /// The kernel of this crate, for this instruction set.
    Exact(Kernel),
    /// FAISS `IndexFlatIP`.
    Faiss,
}

/// Why a snapshot could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The same template stands in two rows: the gallery that it came from is inconsistent.
    #[error("template {} stands in the gallery twice: rebuild the gallery from its log", template.0)]
    DuplicateTemplate {
        /// The template.
        template: TemplateId,
    },
    /// FAISS was asked for and is not in this build.
    #[error("this program was built without FAISS: choose the exact engine, or build with the cargo feature faiss")]
    FaissMissing,
    /// FAISS could not take the rows.
    #[error("FAISS could not index {rows} templates")]
    Faiss {
        /// Number of rows.
        rows: usize,
        /// What FAISS said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An immutable, searchable gallery.
pub struct Snapshot {
    rows: Rows,
    names: Vec<(PersonId, TemplateId)>,
    people: HashSet<PersonId>,
    search: Search,
    anchors: Anchors,
}

/// Negative anchors, in the form of the rows that they are compared with. They are few: one person's are looked at in turn.
#[derive(Default)]
struct Anchors {
    rows: Rows,
    names: Vec<TemplateId>,
    of_person: HashMap<PersonId, Vec<usize>>,
}

enum Search {
    Exact(Kernel),
    #[cfg(feature = "faiss")]
    Faiss(FaissFlat),
}

impl Snapshot {
    /// Builds a snapshot. The order of `rows` is the gallery order, which decides between equal scores.
    ///
    /// [`Engine::Auto`] takes the exact kernel at every size: from 1,000 to 1,000,000 templates it was the faster one at
    /// each that was measured (docs/measurements/match.md), and it needs about a third of the memory.
    ///
    /// # Errors
    /// [`BuildError`]: a template stands in two rows, or FAISS is missing or fails.
    pub fn build(rows: Vec<(PersonId, TemplateId, Embedding)>, engine: Engine) -> Result<Self, BuildError> {
        match engine {
            Engine::Auto | Engine::Exact => Self::with_kernel(rows, Kernel::detect()),
            Engine::Faiss => Self::with_faiss(rows),
        }
    }

    /// As [`Snapshot::build`] with the exact engine and a chosen kernel, for tests and measurements.
    ///
    /// # Errors
    /// As [`Snapshot::build`].
    ///
    /// # Panics
    /// When this processor cannot run `kernel`.
    pub fn with_kernel(rows: Vec<(PersonId, TemplateId, Embedding)>, kernel: Kernel) -> Result<Self, BuildError> {
        assert!(Kernel::available().any(|other| other == kernel), "this processor has no {kernel:?}");
        Self::assemble(rows, |_| Ok(Search::Exact(kernel)))
    }

    #[cfg(feature = "faiss")]
    fn with_faiss(rows: Vec<(PersonId, TemplateId, Embedding)>) -> Result<Self, BuildError> {
        Self::assemble(rows, |rows| FaissFlat::build(rows).map(Search::Faiss))
    }

    #[cfg(not(feature = "faiss"))]
    fn with_faiss(_: Vec<(PersonId, TemplateId, Embedding)>) -> Result<Self, BuildError> {
        Err(BuildError::FaissMissing)
    }

    fn assemble(
        input: Vec<(PersonId, TemplateId, Embedding)>,
        search: impl FnOnce(&Rows) -> Result<Search, BuildError>,
    ) -> Result<Self, BuildError> {
        let mut rows = Rows::with_capacity(input.len());
        let mut names = Vec::with_capacity(input.len());
        let mut templates = HashSet::with_capacity(input.len());
        for (person, template, embedding) in input {
            if !templates.insert(template) {
                return Err(BuildError::DuplicateTemplate { template });
            }
            rows.push(&embedding);
            names.push((person, template));
        }
        let people = names.iter().map(|(person, _)| *person).collect();
        let search = search(&rows)?;
        Ok(Self { rows, names, people, search, anchors: Anchors::default() })
    }

    /// A snapshot of nobody.
    #[must_use]
    pub fn empty() -> Self {
        let search = Search::Exact(Kernel::detect());
        let (rows, anchors) = (Rows::default(), Anchors::default());
        Self { rows, names: Vec::new(), people: HashSet::new(), search, anchors }
    }

    /// The same with these negative anchors, each of the person whom it does not show. They are not searched, and count
    /// neither as templates nor as people.
    #[must_use]
    pub fn with_anchors(mut self, anchors: Vec<(PersonId, TemplateId, Embedding)>) -> Self {
        self.anchors = Anchors::default();
        for (person, anchor, embedding) in anchors {
            self.anchors.of_person.entry(person).or_default().push(self.anchors.names.len());
            self.anchors.rows.push(&embedding);
            self.anchors.names.push(anchor);
        }
        self
    }

    /// Number of negative anchors.
    #[must_use]
    pub fn n_anchors(&self) -> usize {
        self.anchors.names.len()
    }

    /// Number of different people.
    #[must_use]
    pub fn n_people(&self) -> usize {
        self.people.len()
    }

    /// Which search is used.
    #[must_use]
    pub fn engine(&self) -> EngineUsed {
        match &self.search {
            Search::Exact(kernel) => EngineUsed::Exact(*kernel),
            #[cfg(feature = "faiss")]
            Search::Faiss(_) => EngineUsed::Faiss,
        }
    }

    /// Bytes held for the search, without the names.
    #[must_use]
    pub fn vector_bytes(&self) -> usize {
        let copied = match &self.search {
            Search::Exact(_) => 0,
            #[cfg(feature = "faiss")]
            Search::Faiss(index) => index.bytes(),
        };
        self.rows.bytes() + copied
    }

    /// As [`Gallery::search`] for each of several probes, which then share one reading of the rows.
    ///
    /// The exact kernel uses up to `n_threads` threads, fewer in a small gallery; FAISS has its own setting
    /// (`OMP_NUM_THREADS`), and searches for one probe after the other.
    #[must_use]
    pub fn search_batch(&self, probes: &[Embedding], k: usize, n_threads: NonZeroUsize) -> Vec<Vec<Ranked>> {
        let k = k.min(self.rows.len());
        if k == 0 {
            return vec![Vec::new(); probes.len()];
        }
        let likely = self.likely_rows(probes, k, n_threads);
        probes.iter().zip(likely).map(|(probe, rows)| self.ranked(probe, &rows, k)).collect()
    }

    /// As [`Gallery::candidates`] for each of several probes, which then share one reading of the rows; only who has more
    /// templates than a first look sees is looked at alone.
    #[must_use]
    pub fn candidates_batch(&self, probes: &[Embedding], n_threads: NonZeroUsize) -> Vec<Vec<Ranked>> {
        let first = self.search_batch(probes, FIRST_DEPTH, n_threads);
        let decided = |(probe, rows): (&Embedding, Vec<Ranked>)| {
            if is_deep_enough(&rows, FIRST_DEPTH, self.len()) { rows } else { self.candidates(probe) }
        };
        probes.iter().zip(first).map(decided).collect()
    }

    /// For each probe the rows that surely contain its exact top `k`, in gallery order.
    fn likely_rows(&self, probes: &[Embedding], k: usize, n_threads: NonZeroUsize) -> Vec<Vec<usize>> {
        let scan_with = |kernel, probes: &[Embedding]| {
            let probes: Vec<Probe> = probes.iter().map(Probe::new).collect();
            scan(kernel, &self.rows, &probes, k, n_threads)
        };
        match &self.search {
            Search::Exact(kernel) => scan_with(*kernel, probes),
            #[cfg(feature = "faiss")]
            Search::Faiss(index) => {
                let found: Result<Vec<_>, _> = probes.iter().map(|probe| index.candidates(probe, k)).collect();
                found.unwrap_or_else(|error| {
                    // A door must not lose its gallery because an index failed; the exact kernel needs nothing else.
                    tracing::error!(%error, "faiss search failed, the exact kernel answers instead");
                    scan_with(Kernel::detect(), probes)
                })
            }
        }
    }

    /// The best `k` of `rows`, which are in gallery order, by the oracle's own product.
    fn ranked(&self, probe: &Embedding, rows: &[usize], k: usize) -> Vec<Ranked> {
        let score = |row: &usize| {
            let (person, template) = self.names[*row];
            Ranked { person, template, similarity: self.rows.similarity(probe, *row) }
        };
        let mut found: Vec<Ranked> = rows.iter().map(score).collect();
        // The sort is stable, so equal scores stay in gallery order. No similarity is NaN.
        found.sort_by(|a, b| b.similarity.partial_cmp(&a.similarity).unwrap_or(Ordering::Equal));
        found.truncate(k);
        found
    }
}

impl Gallery for Snapshot {
    fn search(&self, probe: &Embedding, k: usize) -> Vec<Ranked> {
        self.search_batch(std::slice::from_ref(probe), k, NonZeroUsize::MIN).pop().unwrap_or_default()
    }

    fn anchors(&self, probe: &Embedding, ranked: &[Ranked]) -> Vec<Ranked> {
        let people: HashSet<PersonId> = ranked.iter().map(|row| row.person).collect();
        let of = |person: PersonId| {
            self.anchors.of_person.get(&person).into_iter().flatten().map(move |row| {
                let similarity = self.anchors.rows.similarity(probe, *row);
                Ranked { person, template: self.anchors.names[*row], similarity }
            })
        };
        people.into_iter().flat_map(of).collect()
    }

    fn contains(&self, person: PersonId) -> bool {
        self.people.contains(&person)
    }

    fn len(&self) -> usize {
        self.rows.len()
    }
}

impl std::fmt::Debug for Snapshot {
    /// Sizes only: who is enrolled does not belong in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (templates, people) = (self.rows.len(), self.people.len());
        write!(f, "Snapshot({templates} templates of {people} people, {:?})", self.engine())
    }
}
