//! The end of the lease: every gallery's key and content go, and doors deny until the hub has filled them again.

use gallery_log::GalleryId;

use super::{Galleries, begin_anew};
use crate::logging::chain;

impl Galleries {
    /// Destroys what every gallery holds; the galleries that held something, with their epochs.
    pub fn end_lease(&self) -> Vec<(GalleryId, u32)> {
        let mut stores = self.stores.lock();
        let held: Vec<(GalleryId, u32)> = stores
            .values()
            .filter(|store| store.version() > 0 || store.differing().is_some())
            .map(|store| (store.gallery(), store.epoch()))
            .collect();
        if held.is_empty() {
            return held;
        }
        // Nobody may be let in while they are being destroyed, nor after the disk has refused that.
        self.close(&stores);
        for (gallery, _) in &held {
            tracing::error!(event = "gallery_lease_over", alarm = true, gallery = %gallery, "no contact with the hub for too long: the gallery is destroyed, doors deny until there is contact again");
            match self.keys.gallery(*gallery) {
                Ok(Some(keys)) => {
                    if let Err(error) = begin_anew(&mut stores, *gallery, &keys) {
                        tracing::error!(event = "gallery_not_restarted", alarm = true, gallery = %gallery, error = chain(&error), "its people are out of the snapshot");
                    }
                }
                Ok(None) | Err(_) => drop(stores.remove(gallery)),
            }
        }
        // What still goes wrong is on the log, and the roster stays closed.
        let _ = self.publish(&mut stores);
        held
    }
}
