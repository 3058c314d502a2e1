//! A new epoch of a gallery begins with what is there: the hub has other keys for it, and doors go on deciding meanwhile.
//!
//! In: the keys of the new epoch. Out: the same entries at the same version, their leaves and root under the new GDK, in a
//! generation of their own; or the store as it was, for the watermark names the new generation only when all of it is on disk.
//! Whether the hub has the same entries is seen when the new root is compared, as with any other.
//!
//! The keys are stored before the store follows. That a power cut between the two costs no gallery, the digest keys of before
//! stay beside the new ones until it has ([`DeviceKeys::set_gallery`](crate::DeviceKeys::set_gallery)).

use std::sync::Arc;

use gallery_log::Record;

use super::{Doubt, GalleryError, GalleryStore, Opened, load};
use crate::keys::GalleryKeys;

impl GalleryStore {
    /// Goes on under the keys of a higher epoch, with the same entries at the same version.
    ///
    /// All or none, and on disk when this returns. Costs as much as [`GalleryStore::rewrite`]. After an error the store is as it was, or it is
    /// unknown which of the two it is: call [`GalleryStore::destroy_and_restart`].
    pub fn begin_epoch(&mut self, gallery_keys: &GalleryKeys) -> Result<(), GalleryError> {
        self.reopen()?;
        let open = self.slot.take().ok_or_else(|| GalleryError::Closed { dir: self.dir.clone() })?;
        let mut records = open.records(self.gallery).map_err(|error| error.into_error(&self.dir))?;
        self.check_complete(&records)?;
        let epoch = gallery_keys.epoch;
        records.iter_mut().for_each(|record| record.epoch = epoch);
        let digest_key = gallery_keys.digest.clone();
        let (log, _) = load::restore(self.gallery, &digest_key, (epoch, self.version()), &records);
        self.write_next_generation(open, log, digest_key, &records)?;
        self.differing = self.differing.as_ref().map(|_| Arc::new(self.log.buckets()));
        self.forget_former_keys();
        Ok(())
    }

    /// The new root is made of what is read here, so that an entry that the database had lost would be missed by nobody: what is read must
    /// give the root of before first.
    fn check_complete(&self, records: &[Record]) -> Result<(), GalleryError> {
        let version = self.version();
        let (mut log, live) = load::restore(self.gallery, &self.digest_key, (self.epoch(), version), records);
        let found = log.root();
        if found == self.root && live == self.live {
            return Ok(());
        }
        let reason = Doubt::Root { version, expected: self.root, found };
        Err(GalleryError::Doubt { dir: self.dir.clone(), reason })
    }

    /// What a power cut kept from being done; where it cannot be done, an empty store, as with any doubt.
    pub(super) fn finish_epoch(&mut self, gallery_keys: &GalleryKeys) -> Result<Opened, GalleryError> {
        let (expected, found) = (gallery_keys.epoch, self.epoch());
        let reason = match self.begin_epoch(gallery_keys) {
            Ok(()) => return Ok(Opened::Intact),
            Err(GalleryError::Doubt { reason, .. }) => reason,
            Err(error) => {
                tracing::error!(gallery = %self.gallery, error = %error, "the gallery's new epoch cannot begin with what is there");
                Doubt::Epoch { expected, found }
            }
        };
        tracing::error!(gallery = %self.gallery, reason = %reason, "gallery store cannot be trusted; it is destroyed");
        self.destroy_and_restart(gallery_keys)?;
        Ok(Opened::Rebuilt { reason })
    }

    /// Destroys the digest keys of epochs that are over, now that nothing on disk needs them.
    pub(super) fn forget_former_keys(&self) {
        // Left behind, they open nothing, and the next opening tries again.
        if let Err(error) = self.keys.forget_former(self.gallery) {
            tracing::warn!(gallery = %self.gallery, error = %error, "the gallery's former keys could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use gallery_log::keys::KeyBytes;
    use gallery_log::{DigestKey, GalleryId, Kind, Log, Op, RecordId};
    use uuid::Uuid;

    use super::super::cells;
    use super::*;
    use crate::keys::DeviceKeys;

    #[test]
    fn an_entry_that_the_database_has_lost_is_not_lost_for_good_by_a_new_root() {
        let dir = tempfile::tempdir().unwrap();
        let device = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let gallery = GalleryId(Uuid::from_u128(1));
        let keys = |epoch| GalleryKeys { epoch, digest: DigestKey::new([7; 32]), credential: KeyBytes::default() };
        let (mut store, _) = GalleryStore::open(&dir.path().join("gallery"), &device, gallery, &keys(1)).unwrap();
        let mut log = Log::new(gallery, 1);
        for version in 1..=3 {
            let id = RecordId(Uuid::from_u128(u128::from(version)));
            let record =
                Record { gallery, epoch: 1, version, op: Op::Put, kind: Kind::Person, id, rev: 1, body: vec![1] };
            log.apply(&record, &keys(1).digest).unwrap();
            store.apply(&[record], log.root()).unwrap();
        }
        let mut lost = sled::Batch::default();
        lost.remove(cells::entry_key(RecordId(Uuid::from_u128(2))).to_vec());
        store.slot.as_mut().unwrap().db.commit(lost).unwrap();
        let refused = store.begin_epoch(&keys(2));
        assert!(
            matches!(refused, Err(GalleryError::Doubt { reason: Doubt::Root { version: 3, .. }, .. })),
            "{refused:?}"
        );
    }
}
