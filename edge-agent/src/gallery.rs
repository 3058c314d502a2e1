//! The people that this device may let in: the stores on disk, and the one snapshot in memory that decisions use.
//!
//! In: log records from sync, in order. Out: [`Roster`]s, each built whole and swapped in whole, so that a deleted person
//! cannot be half there. What is reported to the hub is read from the roster, not from the store: the hub compares what
//! the doors really search. On any doubt a store destroys its key and begins empty; until it is filled again the roster
//! is not ready and every door denies. What the operating system refuses closes the roster until [`Galleries::heal`]
//! finds that it does no more.
//! Deliberately absent: the network, and which records come (sync).

mod filling;
mod healing;
mod leasing;
mod roster;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use edge_store::{ApplyError, DeviceKeys, Doubt, GalleryError, GalleryKeys, GalleryOpened, GalleryStore, KeysError};
use face_core::Gallery as _;
use face_core::Space;
use face_index::BuildError;
use gallery_log::{GalleryId, Record, Root};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::logging::chain;

pub use filling::FillError;
pub use roster::{GalleryLine, Roster, Standing};

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
    space: Space,
    stores: Mutex<Stores>,
    rebuilt: Mutex<Vec<Rebuilt>>,
    roster: Arc<ArcSwap<Roster>>,
    changes: watch::Sender<u64>,
}

impl Galleries {
    /// Opens every gallery that the device has keys for and publishes the first roster.
    ///
    /// Templates of another space are left out: they can never be compared.
    ///
    /// # Errors
    /// When a store cannot be opened for a reason outside its content. A store with doubtful content begins empty and is
    /// named in the answer; so is a gallery whose keys cannot be read, which stays out until the hub has given them
    /// again.
    pub fn open(dir: &Path, keys: DeviceKeys, space: &Space) -> Result<(Self, Vec<Rebuilt>), RosterError> {
        let galleries = Self::none(dir, keys, space);
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
    pub fn none(dir: &Path, keys: DeviceKeys, space: &Space) -> Self {
        Self {
            dir: dir.to_owned(),
            space: space.clone(),
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
    /// At a higher epoch the gallery goes on with the people that it has, and doors decide meanwhile by the roster that they have:
    /// whether the hub has the same people is seen at the next report. Where that cannot be, it begins empty.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn assign(&self, gallery: GalleryId, keys: &GalleryKeys) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        match stores.get(&gallery).map(GalleryStore::epoch) {
            Some(epoch) if epoch == keys.epoch => return Ok(()),
            Some(epoch) if epoch < keys.epoch => return self.begin_epoch(&mut stores, gallery, keys),
            Some(_) => {}
            None => {
                self.open_store(&mut stores, gallery, keys)?;
                return self.publish(&mut stores);
            }
        }
        drop(stores);
        self.restart(gallery, keys)
    }

    fn begin_epoch(&self, stores: &mut Stores, gallery: GalleryId, keys: &GalleryKeys) -> Result<(), RosterError> {
        let store = stores.get_mut(&gallery).ok_or(RosterError::Foreign { gallery })?;
        let found = store.epoch();
        let error = match store.begin_epoch(keys) {
            Ok(()) => {
                tracing::info!(event = "gallery_rekeyed", gallery = %gallery, epoch = keys.epoch, version = store.version(), "the gallery goes on under new keys");
                return self.publish(stores);
            }
            Err(error) => error,
        };
        tracing::error!(event = "gallery_not_rekeyed", alarm = true, gallery = %gallery, epoch = keys.epoch, error = chain(&error), "the gallery cannot go on under new keys: it begins empty");
        self.close(stores);
        let destroyed = begin_anew(stores, gallery, keys);
        let reason = match error {
            GalleryError::Doubt { reason, .. } => reason,
            _ => Doubt::Epoch { expected: keys.epoch, found },
        };
        self.doubted(gallery, keys.epoch, reason);
        let published = self.publish(stores);
        destroyed.and(published)
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

    /// Destroys a store's key and content and begins empty: the hub's order, or a doubt.
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
            let error = match Roster::of(stores, &self.space) {
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
        let (people, templates) = (roster.snapshot().n_people(), roster.snapshot().len());
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
        self.swap(Roster::closed_over(stores));
    }

    /// Callers hold the stores' lock, so that two rosters never get one number.
    fn swap(&self, roster: Roster) {
        let generation = *self.changes.borrow() + 1;
        self.roster.store(Arc::new(roster.numbered(generation)));
        self.changes.send_replace(generation);
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

#[cfg(test)]
mod tests;
