//! By which of two ways a tenant's gallery is searched, with the same answers: in the hub's memory, or by vectors in the database.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use face_core::Embedding;
use face_core::gallery::{Gallery as _, PersonId, Ranked};
use uuid::Uuid;

use super::comparisons::Comparisons;
use super::galleries::GalleryError;
use super::vectors::Vectors;
use super::warm::{Own, Warm};
use hub_domain::ids::TenantId;
use hub_host::metrics::recognition as measured;
use hub_keys::Way;
use hub_store::vectors::Index;

/// What serves the searches of a tenant's space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchPath {
    /// The gallery in the hub's memory. Exact.
    Memory,
    /// A scan of the vectors in the database. Exact.
    Scan,
    /// The index over the vectors in the database. It may miss somebody.
    Index,
}

impl SearchPath {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Memory, Self::Scan, Self::Index];

    /// Its name in metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Scan => "scan",
            Self::Index => "index",
        }
    }
}

impl From<Way> for SearchPath {
    fn from(way: Way) -> Self {
        match way {
            Way::Scan => Self::Scan,
            Way::Index => Self::Index,
        }
    }
}

/// How one space of a tenant is searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Whose.
    pub tenant: TenantId,
    /// Which space.
    pub space_id: String,
    /// By what, if somebody searches now.
    pub path: SearchPath,
    /// Templates there are.
    pub templates: usize,
    /// Whether there is an index over the vectors in the database.
    pub index: Index,
    /// The gallery in this hub's memory, if it lies there.
    pub held: Option<InMemory>,
    /// Whether all vectors are in the database; after a crash of it they are made anew, and nothing is searched by them meanwhile.
    pub vectors_whole: bool,
}

/// A gallery in a hub's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InMemory {
    /// What it takes of the memory, near enough.
    pub bytes: usize,
    /// How long ago it was last searched.
    pub searched_ago: Duration,
    /// The changes that are in it.
    pub stamp: i64,
}

/// A tenant's gallery of a space, as it can be searched.
#[derive(Clone)]
pub enum Served {
    /// In memory.
    Memory(Arc<Warm>),
    /// In the database.
    Vectors(Vectors),
}

/// What a decision rests on.
pub struct Found {
    /// Rows that decide who it is: the best person and the second-best one are among them, each with their best template.
    pub ranked: Vec<Ranked>,
    /// How alike the probe is to the negative anchors of these people.
    pub anchors: Vec<Ranked>,
    /// As many of the nearest people as were wanted, the nearest first.
    pub nearest: Vec<Ranked>,
}

impl Served {
    /// Whether it is the very gallery in memory that this one is.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Memory(one), Self::Memory(other)) if Arc::ptr_eq(one, other))
    }

    /// Templates in it: the threshold follows from them.
    #[must_use]
    pub fn templates(&self) -> usize {
        match self {
            Self::Memory(warm) => warm.templates(),
            Self::Vectors(vectors) => vectors.templates,
        }
    }

    /// Compares a probe with one person alone.
    pub async fn own(&self, by: &Comparisons, person: PersonId, probe: Embedding) -> Result<Own, GalleryError> {
        match self {
            Self::Memory(warm) => {
                let warm = Arc::clone(warm);
                Ok(by.run(move || warm.own(person, &probe)).await?)
            }
            Self::Vectors(vectors) => vectors.own(person, &probe).await,
        }
    }

    /// Who it may be, and the `wanted` nearest people.
    pub async fn found(&self, by: &Comparisons, probe: Embedding, wanted: usize) -> Result<Found, GalleryError> {
        match self {
            Self::Memory(warm) => {
                measured::searched(SearchPath::Memory.as_str());
                let ranked = by.candidates(Arc::clone(warm), probe.clone()).await?;
                let anchors = warm.index().anchors(&probe, &ranked);
                let warm = Arc::clone(warm);
                let nearest = match wanted {
                    0 => Vec::new(),
                    _ => by.run(move || warm.nearest_people(&probe, wanted, |_| true)).await?,
                };
                Ok(Found { ranked, anchors, nearest })
            }
            Self::Vectors(vectors) => {
                let mut nearest = vectors.nearest_people(&probe, wanted.max(2), None).await?;
                let ranked: Vec<Ranked> = nearest.iter().take(2).copied().collect();
                let anchors = vectors.anchors(&probe, &ranked).await?;
                nearest.truncate(wanted);
                Ok(Found { ranked, anchors, nearest })
            }
        }
    }

    /// The nearest people, each by their best template, the nearest first; `limit` of them, if there are so many; among `only`
    /// these, if they are named.
    pub async fn nearest_people(
        &self,
        by: &Comparisons,
        probe: Embedding,
        limit: usize,
        only: Option<HashSet<Uuid>>,
    ) -> Result<Vec<Ranked>, GalleryError> {
        match self {
            Self::Memory(warm) => {
                measured::searched(SearchPath::Memory.as_str());
                let warm = Arc::clone(warm);
                let wanted = move |person: PersonId| only.as_ref().is_none_or(|only| only.contains(&person.0));
                Ok(by.run(move || warm.nearest_people(&probe, limit, wanted)).await?)
            }
            Self::Vectors(vectors) => {
                vectors.nearest_people(&probe, limit, only.map(|only| only.into_iter().collect())).await
            }
        }
    }
}
