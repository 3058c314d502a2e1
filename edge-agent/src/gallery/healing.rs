//! A gallery that differs from the hub's: taken out of what is searched, and made equal again.
//!
//! In: the finding that it differs, then the hub's buckets. Out: rosters without and with its people. While it differs the
//! roster is not ready, so that every door denies: nobody who was deleted is let in meanwhile, and nobody is found who is
//! somebody else by now. Deliberately absent: how hub and device find out where they differ (sync).

use std::collections::BTreeSet;

use edge_store::Replaced;
use gallery_log::{GalleryId, Record, Root};

use super::{Galleries, RosterError};
use crate::logging::chain;

impl Galleries {
    /// Stops searching a gallery that differs from the hub's, until it is replaced or thrown away, restarts included.
    ///
    /// # Errors
    /// When the device does not have it, or another gallery cannot be read; its people are not searched either way.
    pub fn set_aside(&self, gallery: GalleryId) -> Result<(), RosterError> {
        let mut stores = self.stores.lock();
        let store = stores.get_mut(&gallery).ok_or(RosterError::Foreign { gallery })?;
        if store.differing().is_some() {
            return Ok(());
        }
        if let Err(error) = store.note_difference() {
            tracing::warn!(event = "gallery_difference_not_noted", gallery = %gallery, error = chain(&error), "after a restart it is found by comparing again");
        }
        self.publish(&mut stores)
    }

    /// Replaces buckets by the hub's durably and swaps the roster in: as [`Galleries::apply`] with records.
    ///
    /// # Errors
    /// When they do not lead to the hub's root or cannot be written; nothing has changed then. When a gallery cannot be
    /// read afterwards; then nobody is known until [`Galleries::heal`].
    pub fn replace(
        &self,
        gallery: GalleryId,
        version: u64,
        buckets: &BTreeSet<u8>,
        live: Vec<Record>,
        root: Root,
    ) -> Result<Replaced, RosterError> {
        let mut stores = self.stores.lock();
        let store = stores.get_mut(&gallery).ok_or(RosterError::Foreign { gallery })?;
        let replaced =
            store.replace(version, buckets, live, root).map_err(|source| RosterError::Apply { gallery, source })?;
        self.publish(&mut stores).map(|()| replaced)
    }
}
