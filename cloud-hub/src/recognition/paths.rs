//! Which galleries are searched, and where: for whoever runs the hub. Counts and times, nothing of the people.

use std::time::Duration;

use super::Galleries;
use crate::domain::ids::TenantId;

/// What serves a gallery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// An index in this hub's memory.
    Memory,
}

impl Path {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Memory];

    /// As documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
        }
    }
}

/// A gallery that was searched lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Whose.
    pub tenant: TenantId,
    /// The id of its space.
    pub space: String,
    /// What serves it.
    pub path: Path,
    /// Templates in it.
    pub templates: usize,
    /// What it takes of the memory, near enough.
    pub bytes: usize,
    /// How long ago it was last searched.
    pub searched_ago: Duration,
    /// The changes that are in it.
    pub stamp: i64,
}

impl Galleries {
    /// The galleries in memory, by tenant and space.
    #[must_use]
    pub fn served(&self) -> Vec<Served> {
        let held = self.held.lock();
        let warm = held.iter().filter_map(|(key, held)| Some((key, held.warm.as_ref()?, held.searched?)));
        let mut served: Vec<Served> = warm
            .map(|((tenant, space), warm, searched)| Served {
                tenant: *tenant,
                space: space.clone(),
                path: Path::Memory,
                templates: warm.templates(),
                bytes: warm.bytes(),
                searched_ago: searched.elapsed(),
                stamp: warm.stamp,
            })
            .collect();
        drop(held);
        served.sort_by(|one, other| (one.tenant, &one.space).cmp(&(other.tenant, &other.space)));
        served
    }
}
