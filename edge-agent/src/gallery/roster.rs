//! One view of all galleries of this device, built whole: who is searched, on what terms, and where each gallery stands.
//!
//! In: the open stores. Out: a [`Roster`], which never changes. Deliberately absent: which roster is in use
//! ([`super::Galleries`]).

use std::collections::{HashMap, HashSet};

use edge_store::{BucketHashes, Contents, GalleryStore};
use face_core::{DIM, Embedding, Gallery as _, PersonId, Space, TemplateId};
use face_index::{Engine, Snapshot};
use gallery_log::body::PersonState;
use gallery_log::{GalleryId, Kind, PersonBody, RecordId, Root};
use uuid::Uuid;

use super::{RosterError, Stores, sorted};
use crate::clock::{ClockQuality, WallTime};

/// Where one gallery stands, as the searched snapshot has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GalleryLine {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// Its version; 0 before the first record.
    pub version: u64,
    /// Its root.
    pub root: Root,
    /// People in it.
    pub people: u64,
    /// Templates in it.
    pub templates: u64,
    /// Negative anchors in it.
    pub anchors: u64,
    /// Its bucket hashes, while it is known to differ from the hub's: nobody of it is in the snapshot then.
    pub differing: Option<BucketHashes>,
}

impl GalleryLine {
    fn of(store: &GalleryStore) -> Self {
        Self {
            gallery: store.gallery(),
            epoch: store.epoch(),
            version: store.version(),
            root: store.root(),
            people: store.count(Kind::Person),
            templates: store.count(Kind::Template),
            anchors: store.count(Kind::Anchor),
            differing: store.differing().cloned(),
        }
    }
}

/// How a person stands at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// May be let in.
    Member,
    /// Is known and suspended.
    Suspended,
    /// Is known, but the validity has not begun or is over, or the clock cannot say.
    OutsideValidity,
    /// Is not in the gallery.
    Absent,
}

/// On what terms a person may be let in. Who is in several galleries keeps to the strictest terms of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    suspended: bool,
    groups: Vec<Uuid>,
    from: Option<i64>,
    until: Option<i64>,
}

impl Terms {
    fn of(body: &PersonBody) -> Self {
        Self {
            suspended: body.state == PersonState::Suspended,
            groups: body.groups.clone(),
            from: body.valid_from,
            until: body.valid_until,
        }
    }

    fn and(mut self, other: &Self) -> Self {
        let until = match (self.until, other.until) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        self.groups.retain(|group| other.groups.contains(group));
        Self { suspended: self.suspended || other.suspended, from: self.from.max(other.from), until, ..self }
    }
}

/// One immutable view of all galleries of this device.
#[derive(Debug)]
pub struct Roster {
    generation: u64,
    snapshot: Snapshot,
    people: HashMap<PersonId, Terms>,
    lines: Vec<GalleryLine>,
    closed: bool,
}

impl Roster {
    /// A roster of nobody, which is not ready.
    #[must_use]
    pub fn empty() -> Self {
        Self { generation: 0, snapshot: Snapshot::empty(), people: HashMap::new(), lines: Vec::new(), closed: false }
    }

    /// A roster in which nobody is known, where each gallery still stands as it does.
    pub(super) fn closed_over(stores: &Stores) -> Self {
        Self { closed: true, lines: sorted(stores).map(GalleryLine::of).collect(), ..Self::empty() }
    }

    /// The same with this number.
    pub(super) fn numbered(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// The people of all stores, each store opened again if a write had closed it.
    pub(super) fn of(stores: &mut Stores, space: &Space) -> Result<Self, RosterError> {
        for (gallery, store) in stores.iter_mut() {
            store.reopen().map_err(|source| RosterError::Store { gallery: *gallery, source })?;
        }
        let mut gathered = Gathered::default();
        let mut lines = Vec::new();
        for store in sorted(stores) {
            lines.push(GalleryLine::of(store));
            if store.differing().is_none() {
                let gallery = store.gallery();
                let contents = store.contents().map_err(|source| RosterError::Store { gallery, source })?;
                gathered.take(contents, space);
            }
        }
        let Gathered { mut rows, anchors, people, foreign_space, foreign_anchors, .. } = gathered;
        if foreign_space > 0 {
            tracing::warn!(event = "templates_of_another_space", count = foreign_space, space_id = %space.id, "left out: they were made with another model; the hub must re-embed them");
        }
        if foreign_anchors > 0 {
            tracing::warn!(event = "anchors_of_another_space", count = foreign_anchors, space_id = %space.id, "left out: whoever they keep out is told apart by the templates alone; send their pictures to the hub again");
        }
        // A template whose person is not in the gallery opens nothing.
        rows.retain(|(person, _, _)| people.contains_key(person));
        let snapshot = Snapshot::build(rows, Engine::Auto)?.with_anchors(anchors);
        Ok(Self { generation: 0, snapshot, people, lines, closed: false })
    }

    /// Counts the rosters: each has a higher number than the one before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What searches use.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Where each gallery stands in this view.
    #[must_use]
    pub fn lines(&self) -> &[GalleryLine] {
        &self.lines
    }

    /// Whether decisions can be made by it: there is a gallery, each can be read, has been filled at least once, and is
    /// not known to differ from the hub's.
    #[must_use]
    pub fn ready(&self) -> bool {
        let serves = |line: &GalleryLine| line.version > 0 && line.differing.is_none();
        !self.closed && !self.lines.is_empty() && self.lines.iter().all(serves)
    }

    /// Whether a gallery could not be read: nobody is known then.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Whether a person is one of these ids, or in a group that is.
    #[must_use]
    pub fn is_among(&self, person: PersonId, ids: &[Uuid]) -> bool {
        let in_group = |terms: &Terms| terms.groups.iter().any(|group| ids.contains(group));
        !ids.is_empty() && (ids.contains(&person.0) || self.people.get(&person).is_some_and(in_group))
    }

    /// How a person stands. Time limits need a clock that can be trusted: without one they deny.
    #[must_use]
    pub fn standing(&self, person: PersonId, wall: WallTime) -> Standing {
        let Some(terms) = self.people.get(&person).filter(|_| self.snapshot.contains(person)) else {
            return Standing::Absent;
        };
        if terms.suspended {
            return Standing::Suspended;
        }
        let now = wall.utc.unix_timestamp();
        let limited = terms.from.is_some() || terms.until.is_some();
        let inside = terms.from.is_none_or(|from| from <= now) && terms.until.is_none_or(|until| now < until);
        if limited && (wall.quality == ClockQuality::Untrusted || !inside) {
            return Standing::OutsideValidity;
        }
        Standing::Member
    }
}

/// What the stores hold, on its way to a roster.
#[derive(Default)]
struct Gathered {
    rows: Vec<(PersonId, TemplateId, Embedding)>,
    seen: HashSet<TemplateId>,
    anchors: Vec<(PersonId, TemplateId, Embedding)>,
    people: HashMap<PersonId, Terms>,
    foreign_space: usize,
    foreign_anchors: usize,
}

impl Gathered {
    fn take(&mut self, contents: Contents, space: &Space) {
        for (id, body) in contents.people {
            let terms = Terms::of(&body);
            self.people
                .entry(PersonId(Uuid::from_bytes(*id.as_bytes())))
                .and_modify(|known| *known = known.clone().and(&terms))
                .or_insert_with(|| terms.clone());
        }
        for (id, body) in contents.templates {
            if body.space_id != space.id {
                self.foreign_space += 1;
                continue;
            }
            if let Some((template, embedding)) = self.unseen(id, &body.embedding) {
                let embedding = embedding.with_handicap(space.handicap(body.quality));
                self.rows.push((PersonId(body.person), template, embedding));
            }
        }
        for (id, body) in contents.anchors {
            if body.space_id != space.id {
                self.foreign_anchors += 1;
                continue;
            }
            if let Some((anchor, embedding)) = self.unseen(id, &body.embedding) {
                let embedding = embedding.with_handicap(space.handicap(body.quality));
                self.anchors.push((PersonId(body.person), anchor, embedding));
            }
        }
    }

    /// None for what was taken from another gallery of this device (one person may be in two, and one row is enough), and
    /// for what cannot be compared.
    fn unseen(&mut self, id: RecordId, embedding: &[f32; DIM]) -> Option<(TemplateId, Embedding)> {
        let template = TemplateId(Uuid::from_bytes(*id.as_bytes()));
        if !self.seen.insert(template) {
            return None;
        }
        match Embedding::from_slice(embedding) {
            Ok(embedding) => Some((template, embedding)),
            Err(error) => {
                tracing::error!(event = "template_unusable", template = %template.0, error = %error, "left out of the snapshot");
                None
            }
        }
    }
}
