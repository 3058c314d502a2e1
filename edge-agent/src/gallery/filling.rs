//! A gallery replaced whole by what a snapshot brings.
//!
//! In: the live records of a version, run by run. Out: a roster with exactly these people, or the one before. Doors go on with the
//! roster before until the new one is swapped in. Deliberately absent: where the records come from (sync).

use edge_store::{Replaced, WholeError};
use gallery_log::{GalleryId, Record, Root};

use super::{Galleries, RosterError};

/// Why a gallery was not filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError<E> {
    /// Nothing has changed.
    #[error(transparent)]
    Whole(WholeError<E>),
    /// The device does not have it; or it is filled, and the galleries cannot be read: nobody is known until
    /// [`Galleries::heal`].
    #[error(transparent)]
    Roster(Box<RosterError>),
}

impl Galleries {
    /// Replaces a gallery by the live records of `version` durably, and swaps the roster in.
    ///
    /// # Errors
    /// See [`FillError`].
    pub fn fill<E>(
        &self,
        gallery: GalleryId,
        version: u64,
        root: Root,
        next: impl FnMut() -> Result<Option<Vec<Record>>, E>,
    ) -> Result<Replaced, FillError<E>> {
        let mut stores = self.stores.lock();
        let store =
            stores.get_mut(&gallery).ok_or_else(|| FillError::Roster(Box::new(RosterError::Foreign { gallery })))?;
        let replaced = store.replace_whole(version, root, next).map_err(FillError::Whole)?;
        self.publish(&mut stores).map_err(|error| FillError::Roster(Box::new(error)))?;
        Ok(replaced)
    }
}
