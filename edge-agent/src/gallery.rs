//! The people that this device may let in: the stores on disk, and the one snapshot in memory that decisions use.
//!
//! In: log records from sync, in order. Out: [`Roster`]s, each built whole and swapped in whole, so that a deleted person
//! cannot be half there. What is reported to the hub is read from the roster, not from the store: the hub compares what
//! the doors really search. On any doubt a store destroys its key and begins empty; until it is filled again the roster
//! is not ready and every door denies. What the operating system refuses closes the roster until [`Galleries::heal`]
//! finds that it does no more.
//! Deliberately absent: the network, and which records come (sync).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use edge_store::{ApplyError, DeviceKeys, Doubt, GalleryError, GalleryKeys, GalleryOpened, GalleryStore, KeysError};
use face_core::{Embedding, Gallery as _, PersonId, TemplateId};
use face_index::{BuildError, Engine, Snapshot};
use gallery_log::body::PersonState;
use gallery_log::{GalleryId, Kind, PersonBody, Record, Root};
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

/// On what terms a person may be let in. Who is in several galleries keeps to the strictest terms of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    suspended: bool,
    from: Option<i64>,
    until: Option<i64>,
}

impl Terms {
    fn of(body: &PersonBody) -> Self {
        Self { suspended: body.state == PersonState::Suspended, from: body.valid_from, until: body.valid_until }
    }

    fn and(self, other: Self) -> Self {
        let until = match (self.until, other.until) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        Self { suspended: self.suspended || other.suspended, from: self.from.max(other.from), until }
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

    /// Whether decisions can be made by it: there is a gallery, each can be read and has been filled at least once.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.closed && !self.lines.is_empty() && self.lines.iter().all(|line| line.version > 0)
    }

    /// Whether a gallery could not be read: nobody is known then.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
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

/// A store that could not be trusted when it was opened or read, for the event. The alarm is on the log already.
#[derive(Debug)]
pub struct Rebuilt {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch; 0 when its keys cannot be read.
    pub epoch: u32,
    /// What was wrong.
    pub reason: Doubt,
}

type Stores = HashMap<GalleryId, GalleryStore>;

/// The stores and the roster in use. Calls write to disk: make them from a blocking thread.
pub struct Galleries {
    dir: PathBuf,
    keys: DeviceKeys,
    space_id: String,
    stores: Mutex<Stores>,
    rebuilt: Mutex<Vec<Rebuilt>>,
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
    /// named in the answer; so is a gallery whose keys cannot be read, which stays out until the hub has given them
    /// again.
    pub fn open(dir: &Path, keys: DeviceKeys, space_id: &str) -> Result<(Self, Vec<Rebuilt>), RosterError> {
        let galleries = Self::none(dir, keys, space_id);
        let mut stores = Stores::new();
        for gallery in galleries.keys.galleries()? {
            match galleries.keys.gallery(gallery) {
                Ok(Some(gallery_keys)) => galleries.open_store(&mut stores, gallery, &gallery_keys)?,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(event = "gallery_keys_unreadable", alarm = true, gallery = %gallery, error = chain(&error), "this gallery is closed until the hub has given its keys again");
                    galleries.rebuilt.lock().push(Rebuilt { gallery, epoch: 0, reason: Doubt::Keys(error) });
                }
            }
        }
        galleries.publish(&mut stores)?;
        *galleries.stores.lock() = stores;
        let rebuilt = galleries.take_rebuilt();
        Ok((galleries, rebuilt))
    }

    /// No gallery at all: for a device without an identity, whatever lies in its folder.
    #[must_use]
    pub fn none(dir: &Path, keys: DeviceKeys, space_id: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            space_id: space_id.to_owned(),
            stores: Mutex::new(Stores::new()),
            rebuilt: Mutex::new(Vec::new()),
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
    /// When the store cannot be opened.
    pub fn assign(&self, gallery: GalleryId, keys: &GalleryKeys) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        match stores.get(&gallery).map(GalleryStore::epoch) {
            Some(epoch) if epoch == keys.epoch => return Ok(()),
            Some(_) => {}
            None => {
                self.open_store(&mut stores, gallery, keys)?;
                return self.publish(&mut stores);
            }
        }
        drop(stores);
        self.restart(gallery, keys)
    }

    /// Applies records durably and swaps the roster in. When this returns, doors decide by the new state.
    ///
    /// # Errors
    /// When the records are refused or cannot be written; nothing has changed then. When a gallery cannot be read
    /// afterwards; then nobody is known until [`Galleries::heal`].
    pub fn apply(&self, gallery: GalleryId, records: &[Record], root: Root) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        let store = stores.get_mut(&gallery).ok_or(RosterError::Foreign { gallery })?;
        store.apply(records, root).map_err(|source| RosterError::Apply { gallery, source })?;
        self.publish(&mut stores)
    }

    /// Makes unreadable what was deleted: its sealed bytes are on disk until the store is written anew under a new key.
    /// Costs as much as a first fill, so it is called when no more records are on their way; doors wait for nothing.
    /// False when the disk refused: the people are out of the snapshot already, their sealed bytes stay a while longer.
    pub fn tidy(&self) -> bool {
        let mut stores = self.stores.lock();
        let mut done = true;
        for (gallery, store) in stores.iter_mut().filter(|(_, store)| store.wants_rewrite()) {
            if let Err(error) = store.rewrite() {
                tracing::warn!(event = "gallery_rewrite_failed", gallery = %gallery, error = chain(&error), "tried again by itself");
                done = false;
            }
        }
        done
    }

    /// Destroys a store's key and content and begins empty: the hub's order, a new epoch, or a doubt.
    ///
    /// # Errors
    /// When the disk refuses. Whatever happens, the roster without this gallery's people is published.
    pub fn restart(&self, gallery: GalleryId, keys: &GalleryKeys) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        if !stores.contains_key(&gallery) {
            return Err(RosterError::Foreign { gallery });
        }
        // Nobody of it may be let in while it is being destroyed, nor after the disk has refused that.
        self.close(&stores);
        let destroyed = begin_anew(&mut stores, gallery, keys);
        let published = self.publish(&mut stores);
        destroyed.and(published)
    }

    /// Destroys a gallery that is no longer this device's.
    ///
    /// # Errors
    /// When the disk refuses. Whatever happens, its people are no longer in the roster.
    pub fn withdraw(&self, gallery: GalleryId) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        let store = stores.remove(&gallery);
        let published = self.publish(&mut stores);
        // Whether or not the others can be read: this one must go.
        match store {
            Some(store) => store.destroy(),
            // Its keys could not be read, so it was never opened.
            None => GalleryStore::destroy_unopened(&self.dir.join(gallery.to_string()), &self.keys, gallery),
        }
        .map_err(|source| RosterError::Store { gallery, source })?;
        published
    }

    /// Tries again to read what could not be read. Does nothing while all is well.
    ///
    /// # Errors
    /// When it still cannot be read.
    pub fn heal(&self) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        if self.roster.load().closed() { self.publish(&mut stores) } else { Ok(()) }
    }

    /// The stores that were thrown away since the last call, to be put on record. Look after each change.
    pub fn take_rebuilt(&self) -> Vec<Rebuilt> {
        std::mem::take(&mut self.rebuilt.lock())
    }

    fn open_store(&self, stores: &mut Stores, gallery: GalleryId, keys: &GalleryKeys) -> Result<(), RosterError> {
        let dir = self.dir.join(gallery.to_string());
        let (store, opened) = GalleryStore::open(&dir, &self.keys, gallery, keys)
            .map_err(|source| RosterError::Store { gallery, source })?;
        stores.insert(gallery, store);
        if let GalleryOpened::Rebuilt { reason } = opened {
            self.doubted(gallery, keys.epoch, reason);
        }
        Ok(())
    }

    fn doubted(&self, gallery: GalleryId, epoch: u32, reason: Doubt) {
        tracing::error!(event = "gallery_doubtful", alarm = true, gallery = %gallery, reason = chain(&reason), "the stored gallery cannot be trusted: its key is destroyed, doors deny until the hub has filled it again");
        self.rebuilt.lock().push(Rebuilt { gallery, epoch, reason });
    }

    /// Builds and swaps in the roster of all stores. A store whose content cannot be trusted is begun anew.
    fn publish(&self, stores: &mut Stores) -> Result<(), RosterError> {
        // One that is doubted again right after it was begun anew is on a disk that cannot be helped.
        let mut patience = stores.len();
        let roster = loop {
            let error = match self.build(stores) {
                Ok(roster) => break roster,
                Err(error) => error,
            };
            self.close(stores);
            match error {
                RosterError::Store { gallery, source: GalleryError::Doubt { reason, .. } } if patience > 0 => {
                    patience -= 1;
                    self.throw_away(stores, gallery, reason)?;
                }
                error => {
                    tracing::error!(
                        event = "gallery_unreadable",
                        alarm = true,
                        error = chain(&error),
                        "doors deny until the gallery can be read"
                    );
                    return Err(error);
                }
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

    fn throw_away(&self, stores: &mut Stores, gallery: GalleryId, reason: Doubt) -> Result<(), RosterError> {
        match self.keys.gallery(gallery) {
            Ok(Some(keys)) => {
                // While the disk refuses, the roster stays closed, and the doubt is found again at the next attempt.
                begin_anew(stores, gallery, &keys)?;
                self.doubted(gallery, keys.epoch, reason);
                Ok(())
            }
            // Without its keys it is none of this device's: the hub gives them again, and then its people.
            Ok(None) | Err(_) => {
                stores.remove(&gallery);
                self.doubted(gallery, 0, reason);
                Ok(())
            }
        }
    }

    /// Swaps in a roster in which nobody is known, where each gallery still stands as it does.
    fn close(&self, stores: &Stores) {
        self.swap(Roster { closed: true, lines: sorted(stores).map(line).collect(), ..Roster::empty() });
    }

    /// Callers hold the stores' lock, so that two rosters never get one number.
    fn swap(&self, roster: Roster) {
        let generation = *self.changes.borrow() + 1;
        self.roster.store(Arc::new(Roster { generation, ..roster }));
        self.changes.send_replace(generation);
    }

    fn build(&self, stores: &mut Stores) -> Result<Roster, RosterError> {
        for (gallery, store) in stores.iter_mut() {
            store.reopen().map_err(|source| RosterError::Store { gallery: *gallery, source })?;
        }
        let (mut rows, mut seen, mut lines) = (Vec::new(), HashMap::new(), Vec::new());
        let mut people: HashMap<PersonId, Terms> = HashMap::new();
        let mut foreign_space = 0_usize;
        for store in sorted(stores) {
            let gallery = store.gallery();
            let contents = store.contents().map_err(|source| RosterError::Store { gallery, source })?;
            for (id, body) in contents.people {
                let terms = Terms::of(&body);
                people
                    .entry(PersonId(Uuid::from_bytes(*id.as_bytes())))
                    .and_modify(|known| *known = known.and(terms))
                    .or_insert(terms);
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
            lines.push(line(store));
        }
        if foreign_space > 0 {
            tracing::warn!(event = "templates_of_another_space", count = foreign_space, space_id = %self.space_id, "left out: they were made with another model; the hub must re-embed them");
        }
        // A template whose person is not in the gallery opens nothing.
        rows.retain(|(person, _, _)| people.contains_key(person));
        Ok(Roster { generation: 0, snapshot: Snapshot::build(rows, Engine::Auto)?, people, lines, closed: false })
    }
}

fn begin_anew(stores: &mut Stores, gallery: GalleryId, keys: &GalleryKeys) -> Result<(), RosterError> {
    let store = stores.get_mut(&gallery).ok_or(RosterError::Foreign { gallery })?;
    store.destroy_and_restart(keys).map_err(|source| RosterError::Store { gallery, source })
}

fn sorted(stores: &Stores) -> impl Iterator<Item = &GalleryStore> {
    let mut sorted: Vec<_> = stores.values().collect();
    sorted.sort_by_key(|store| store.gallery());
    sorted.into_iter()
}

fn line(store: &GalleryStore) -> GalleryLine {
    GalleryLine {
        gallery: store.gallery(),
        epoch: store.epoch(),
        version: store.version(),
        root: store.root(),
        people: store.count(Kind::Person),
        templates: store.count(Kind::Template),
    }
}

#[cfg(test)]
mod tests;
