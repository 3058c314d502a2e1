//! An immutable gallery in memory, ready to be searched.
//!
//! In: rows in gallery order. Out: a [`Snapshot`] that implements [`Gallery`]. It is never changed; the programs build
//! the next one and swap it in whole. Cost: 2 KiB a template (twice that with FAISS, which keeps its own copy), and a
//! search reads every template once.

use std::collections::HashSet;

use face_core::{Embedding, Gallery, PersonId, Ranked, TemplateId};

use crate::candidates::Candidates;
use crate::kernel::{Kernel, Row};

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

/// Rows scored before their scores are looked at: 256 scores stay in the first-level cache.
const BLOCK: usize = 256;

/// An immutable, searchable gallery.
pub struct Snapshot {
    rows: Vec<Row>,
    names: Vec<(PersonId, TemplateId)>,
    people: HashSet<PersonId>,
    search: Search,
}

enum Search {
    Exact(Kernel),
    #[cfg(feature = "faiss")]
    Faiss(FaissFlat),
}

impl Snapshot {
    /// Builds a snapshot. The order of `rows` is the gallery order, which decides between equal scores.
    ///
    /// [`Engine::Auto`] takes the exact kernel at every size: it reads the same bytes as `IndexFlatIP` and needs half
    /// the memory (`cargo bench -p face-index` shows both). FAISS earns its place when an approximate index is wanted.
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
        search: impl FnOnce(&[Row]) -> Result<Search, BuildError>,
    ) -> Result<Self, BuildError> {
        let mut rows = Vec::with_capacity(input.len());
        let mut names = Vec::with_capacity(input.len());
        let mut templates = HashSet::with_capacity(input.len());
        for (person, template, embedding) in input {
            if !templates.insert(template) {
                return Err(BuildError::DuplicateTemplate { template });
            }
            rows.push(Row(embedding));
            names.push((person, template));
        }
        let people = names.iter().map(|(person, _)| *person).collect();
        let search = search(&rows)?;
        Ok(Self { rows, names, people, search })
    }

    /// A snapshot of nobody.
    #[must_use]
    pub fn empty() -> Self {
        let search = Search::Exact(Kernel::detect());
        Self { rows: Vec::new(), names: Vec::new(), people: HashSet::new(), search }
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
        let copies = match &self.search {
            Search::Exact(_) => 1,
            #[cfg(feature = "faiss")]
            Search::Faiss(_) => 2,
        };
        copies * size_of_val(self.rows.as_slice())
    }

    /// Rows that surely contain the exact top `k`, in gallery order.
    fn likely_rows(&self, probe: &Embedding, k: usize) -> Vec<usize> {
        match &self.search {
            Search::Exact(kernel) => scan(*kernel, &self.rows, probe, k),
            #[cfg(feature = "faiss")]
            Search::Faiss(index) => index.candidates(probe, k).unwrap_or_else(|error| {
                // A door must not lose its gallery because an index failed; the exact kernel needs nothing else.
                tracing::error!(%error, "faiss search failed, the exact kernel answers instead");
                scan(Kernel::detect(), &self.rows, probe, k)
            }),
        }
    }
}

fn scan(kernel: Kernel, rows: &[Row], probe: &Embedding, k: usize) -> Vec<usize> {
    let mut candidates = Candidates::new(k);
    let mut scores = [0.0; BLOCK];
    for (block, rows) in rows.chunks(BLOCK).enumerate() {
        let scores = &mut scores[..rows.len()];
        kernel.score(probe, rows, scores);
        candidates.offer(block * BLOCK, scores);
    }
    candidates.into_rows()
}

impl Gallery for Snapshot {
    fn search(&self, probe: &Embedding, k: usize) -> Vec<Ranked> {
        let k = k.min(self.rows.len());
        if k == 0 {
            return Vec::new();
        }
        let mut found: Vec<Ranked> = self
            .likely_rows(probe, k)
            .into_iter()
            .map(|row| {
                let (person, template) = self.names[row];
                Ranked { person, template, similarity: probe.similarity(&self.rows[row].0) }
            })
            .collect();
        // Candidates come in gallery order and the sort is stable, so equal scores stay in it.
        found.sort_by(|a, b| b.similarity.value().total_cmp(&a.similarity.value()));
        found.truncate(k);
        found
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
