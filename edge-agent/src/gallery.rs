//! The people that this device may let in: the stores on disk, and the one snapshot in memory that decisions use.
//!
//! In: log records from sync, in order. Out: [`Roster`]s, each built whole and swapped in whole, so that a deleted person
//! cannot be half there. What is reported to the hub is read from the roster, not from the store: the hub compares what
//! the doors really search. On any doubt a store destroys its key and begins empty; until it is filled again the roster
//! is not ready and every door denies.
//! Deliberately absent: the network, and which records come (sync).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use edge_store::{ApplyError, DeviceKeys, Doubt, GalleryError, GalleryKeys, GalleryOpened, GalleryStore, KeysError};
use face_core::{Embedding, Gallery as _, PersonId, TemplateId};
use face_index::{BuildError, Engine, Snapshot};
use gallery_log::body::PersonState;
use gallery_log::{GalleryId, Kind, Op, PersonBody, Record, Root};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock::{ClockQuality, WallTime};
use crate::logging::chain;

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

/// One immutable view of all galleries of this device.
#[derive(Debug)]
pub struct Roster {
    snapshot: Snapshot,
    people: HashMap<PersonId, PersonBody>,
    lines: Vec<GalleryLine>,
}

impl Roster {
    /// A roster of nobody, which is not ready.
    #[must_use]
    pub fn empty() -> Self {
        Self { snapshot: Snapshot::empty(), people: HashMap::new(), lines: Vec::new() }
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

    /// Whether decisions can be made by it: there is a gallery, and each has been filled at least once.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.version > 0)
    }

    /// How a person stands. Time limits need a clock that can be trusted: without one they deny.
    #[must_use]
    pub fn standing(&self, person: PersonId, wall: WallTime) -> Standing {
        let Some(body) = self.people.get(&person).filter(|_| self.snapshot.contains(person)) else {
            return Standing::Absent;
        };
        if body.state == PersonState::Suspended {
            return Standing::Suspended;
        }
        let now = wall.utc.unix_timestamp();
        let limited = body.valid_from.is_some() || body.valid_until.is_some();
        let inside = body.valid_from.is_none_or(|from| from <= now) && body.valid_until.is_none_or(|until| now < until);
        if limited && (wall.quality == ClockQuality::Untrusted || !inside) {
            return Standing::OutsideValidity;
        }
        Standing::Member
    }
}

/// Why a roster could not be built or a store not be used.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// A store failed.
    #[error("gallery {gallery}")]
    Store {
        /// Which.
        gallery: GalleryId,
        /// Why.
        #[source]
        source: GalleryError,
    },
    /// The records were not applied.
    #[error("gallery {gallery}: records refused")]
    Apply {
        /// Which.
        gallery: GalleryId,
        /// Why.
        #[source]
        source: ApplyError,
    },
    /// The index could not be built.
    #[error("the gallery's index cannot be built")]
    Index(#[from] BuildError),
    /// The device does not have this gallery.
    #[error("gallery {gallery} is not one of this device's")]
    Foreign {
        /// Which.
        gallery: GalleryId,
    },
    /// A gallery's keys cannot be read.
    #[error("the gallery keys cannot be read")]
    Keys(#[from] KeysError),
}

/// A store that could not be trusted when it was opened, for the alarm and the event.
#[derive(Debug)]
pub struct Rebuilt {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// What was wrong.
    pub reason: Doubt,
}

/// The stores and the roster in use. Calls write to disk: make them from a blocking thread.
pub struct Galleries {
    dir: PathBuf,
    keys: DeviceKeys,
    space_id: String,
    stores: Mutex<HashMap<GalleryId, GalleryStore>>,
    roster: Arc<ArcSwap<Roster>>,
    changes: watch::Sender<u64>,
}

impl Galleries {
    /// Opens every gallery that the device has keys for and publishes the first roster.
    ///
    /// Templates of another space than `space_id` are left out: they can never be compared.
    ///
    /// # Errors
    /// When a store cannot be opened for a reason outside its content. A store with doubtful content begins empty and is
    /// named in the answer.
    pub fn open(dir: &Path, keys: DeviceKeys, space_id: &str) -> Result<(Self, Vec<Rebuilt>), RosterError> {
        let galleries = Self::none(dir, keys, space_id);
        let mut rebuilt = Vec::new();
        for gallery in galleries.keys.galleries()? {
            if let Some(gallery_keys) = galleries.keys.gallery(gallery)? {
                rebuilt.extend(galleries.open_store(gallery, &gallery_keys)?);
            }
        }
        galleries.publish(&galleries.stores.lock())?;
        Ok((galleries, rebuilt))
    }

    /// No gallery at all: for a device without an identity, whatever lies in its folder.
    #[must_use]
    pub fn none(dir: &Path, keys: DeviceKeys, space_id: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            space_id: space_id.to_owned(),
            stores: Mutex::new(HashMap::new()),
            roster: Arc::new(ArcSwap::from_pointee(Roster::empty())),
            changes: watch::channel(0).0,
            keys,
        }
    }

    /// The roster in use; load it at each decision.
    #[must_use]
    pub fn roster(&self) -> Arc<ArcSwap<Roster>> {
        Arc::clone(&self.roster)
    }

    /// Counts the rosters published; changes after each swap.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes a gallery in that the hub has assigned, or its keys of a new epoch. The keys are stored already.
    ///
    /// # Errors
    /// When the store cannot be opened. The doubt that emptied it, if there was one, is in the answer.
    pub fn assign(&self, gallery: GalleryId, keys: &GalleryKeys) -> Result<Option<Rebuilt>, RosterError> {
        let behind = self.stores.lock().get(&gallery).map(GalleryStore::epoch);
        match behind {
            Some(epoch) if epoch == keys.epoch => return Ok(None),
            Some(_) => self.restart(gallery, keys)?,
            None => {
                let rebuilt = self.open_store(gallery, keys)?;
                self.publish(&self.stores.lock())?;
                return Ok(rebuilt);
            }
        }
        Ok(None)
    }

    /// Applies records durably and swaps the roster in. When this returns, doors decide by the new state.
    ///
    /// # Errors
    /// When the records are refused or cannot be written; nothing has changed then.
    pub fn apply(&self, gallery: GalleryId, records: &[Record], root: Root) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        let store = stores.get_mut(&gallery).ok_or(RosterError::Foreign { gallery })?;
        store.apply(records, root).map_err(|source| RosterError::Apply { gallery, source })?;
        self.publish(&stores)?;
        let deleted = records.iter().any(|record| record.op == Op::Del && record.kind == Kind::Person);
        if let Some(store) = stores.get_mut(&gallery)
            && (deleted || store.wants_rewrite())
            && let Err(error) = store.rewrite()
        {
            // The people are out of the snapshot already; only their sealed bytes stay on disk a while longer.
            tracing::warn!(event = "gallery_rewrite_failed", gallery = %gallery, error = chain(&error), "the store is rewritten at the next deletion");
        }
        Ok(())
    }

    /// Destroys a store's key and content and begins empty: the hub's order, a new epoch, or a doubt.
    ///
    /// # Errors
    /// When the disk refuses. Whatever happens, the roster without this gallery's people is published.
    pub fn restart(&self, gallery: GalleryId, keys: &GalleryKeys) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        let store = stores.get_mut(&gallery).ok_or(RosterError::Foreign { gallery })?;
        let destroyed = store.destroy_and_restart(keys).map_err(|source| RosterError::Store { gallery, source });
        let published = self.publish(&stores);
        destroyed.and(published)
    }

    /// Destroys a gallery that is no longer this device's.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn withdraw(&self, gallery: GalleryId) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        let store = stores.remove(&gallery).ok_or(RosterError::Foreign { gallery })?;
        self.publish(&stores)?;
        store.destroy().map_err(|source| RosterError::Store { gallery, source })
    }

    /// The 256 bucket hashes of a gallery.
    #[must_use]
    pub fn buckets(&self, gallery: GalleryId) -> Option<[gallery_log::digest::Bucket; gallery_log::digest::BUCKETS]> {
        self.stores.lock().get_mut(&gallery).map(GalleryStore::buckets)
    }

    fn open_store(&self, gallery: GalleryId, keys: &GalleryKeys) -> Result<Option<Rebuilt>, RosterError> {
        let dir = self.dir.join(gallery.to_string());
        let (store, opened) = GalleryStore::open(&dir, &self.keys, gallery, keys)
            .map_err(|source| RosterError::Store { gallery, source })?;
        self.stores.lock().insert(gallery, store);
        match opened {
            GalleryOpened::Rebuilt { reason } => {
                tracing::error!(event = "gallery_doubtful", alarm = true, gallery = %gallery, reason = %reason, "the stored gallery cannot be trusted: its key is destroyed, doors deny until the hub has filled it again");
                Ok(Some(Rebuilt { gallery, epoch: keys.epoch, reason }))
            }
            GalleryOpened::Intact | GalleryOpened::New => Ok(None),
        }
    }

    fn publish(&self, stores: &HashMap<GalleryId, GalleryStore>) -> Result<(), RosterError> {
        let roster = match self.build(stores) {
            Ok(roster) => roster,
            Err(error) => {
                // A gallery that cannot be read is no gallery: nobody is known until it can.
                self.swap(Roster::empty());
                tracing::error!(
                    event = "gallery_unreadable",
                    alarm = true,
                    error = chain(&error),
                    "doors deny until the gallery can be read"
                );
                return Err(error);
            }
        };
        let (people, templates) = (roster.snapshot.n_people(), roster.snapshot.len());
        tracing::info!(
            event = "gallery_published",
            people,
            templates,
            ready = roster.ready(),
            "doors decide by a new gallery snapshot"
        );
        self.swap(roster);
        Ok(())
    }

    fn swap(&self, roster: Roster) {
        self.roster.store(Arc::new(roster));
        self.changes.send_modify(|count| *count += 1);
    }

    fn build(&self, stores: &HashMap<GalleryId, GalleryStore>) -> Result<Roster, RosterError> {
        let mut sorted: Vec<_> = stores.iter().collect();
        sorted.sort_by_key(|(gallery, _)| **gallery);
        let (mut rows, mut seen, mut people, mut lines) = (Vec::new(), HashMap::new(), HashMap::new(), Vec::new());
        let mut foreign_space = 0_usize;
        for (gallery, store) in sorted {
            let gallery = *gallery;
            let contents = store.contents().map_err(|source| RosterError::Store { gallery, source })?;
            for (id, body) in contents.people {
                people.insert(PersonId(Uuid::from_bytes(*id.as_bytes())), body);
            }
            for (id, body) in contents.templates {
                if body.space_id != self.space_id {
                    foreign_space += 1;
                    continue;
                }
                let template = TemplateId(Uuid::from_bytes(*id.as_bytes()));
                // One person's template may be in two galleries of this device: one row is enough.
                if seen.insert(template, ()).is_some() {
                    continue;
                }
                match Embedding::from_slice(body.embedding.as_slice()) {
                    Ok(embedding) => rows.push((PersonId(body.person), template, embedding)),
                    Err(error) => {
                        tracing::error!(event = "template_unusable", template = %template.0, error = %error, "left out of the snapshot");
                    }
                }
            }
            lines.push(GalleryLine {
                gallery,
                epoch: store.epoch(),
                version: store.version(),
                root: store.root(),
                people: store.count(Kind::Person),
                templates: store.count(Kind::Template),
            });
        }
        if foreign_space > 0 {
            tracing::warn!(event = "templates_of_another_space", count = foreign_space, space_id = %self.space_id, "left out: they were made with another model; the hub must re-embed them");
        }
        // A template whose person is not in the gallery opens nothing.
        rows.retain(|(person, _, _)| people.contains_key(person));
        Ok(Roster { snapshot: Snapshot::build(rows, Engine::Auto)?, people, lines })
    }
}

#[cfg(test)]
mod tests;
