//! A store written anew, as the next generation of itself.
//!
//! In: what is stored, or what is to be stored in its place. Out: a generation under a new SK; the one before is destroyed when the
//! watermark names the new one, and not earlier. So that what was deleted is unreadable, and not only unlinked.

use gallery_log::{DigestKey, Log, Record};

use super::cells::{self, Mark};
use super::{GalleryError, GalleryStore, Open, load};

/// A store whose file is larger than this and than [`WASTE_FACTOR`] times its live bytes wants a rewrite: sled gives no
/// space back by itself.
const WASTE_FLOOR_BYTES: u64 = 64 << 20;
const WASTE_FACTOR: u64 = 8;

impl GalleryStore {
    /// Copies what is live into a new generation under a new SK and destroys the old one.
    ///
    /// Call it soon after [`GalleryStore::wants_rewrite`] has become true. A crash in the middle leaves the old generation or
    /// the new one, whole.
    pub fn rewrite(&mut self) -> Result<(), GalleryError> {
        self.reopen()?;
        self.copy_to_next_generation()
    }

    pub(super) fn copy_to_next_generation(&mut self) -> Result<(), GalleryError> {
        let open = self.slot.take().ok_or_else(|| GalleryError::Closed { dir: self.dir.clone() })?;
        let records = open.records(self.gallery).map_err(|error| error.into_error(&self.dir))?;
        self.write_next_generation(open, self.log.clone(), self.digest_key.clone(), &records)
    }

    /// Writes `records`, whose log is `log` under `digest_key`, as a new generation and goes on with it.
    pub(super) fn write_next_generation(
        &mut self,
        open: Open,
        mut log: Log,
        digest_key: DigestKey,
        records: &[Record],
    ) -> Result<(), GalleryError> {
        let (dir, keys, gallery) = (&self.dir, &self.keys, self.gallery);
        let next = load::next_generation(dir, keys, gallery, self.generation)?;
        // Closed before its files go: sled writes once more when it is dropped.
        let Open { db, mut mark, .. } = open;
        drop(db);
        let (db, key, head) = match load::copy(dir, keys, gallery, next, &mut log, records) {
            Ok(fresh) => fresh,
            Err(error) => {
                // The old generation still counts and is opened again by the next call; the half-made one only takes room.
                if let Err(error) = load::destroy_generation(dir, keys, gallery, next) {
                    tracing::warn!(gallery = %gallery, error = %error, "a half-made generation could not be removed");
                }
                return Err(error);
            }
        };
        if let Err(error) = mark.advance(&Mark { generation: next, head }.encode()) {
            // Which of the two the watermark names now is unknown, so both stay until it is read again.
            self.disk_may_lie = true;
            return Err(error.into());
        }
        self.slot = Some(Open { db, key, mark, remains: false });
        self.generation = next;
        self.root = log.root();
        self.log = log;
        self.digest_key = digest_key;
        load::remove_leftovers(&self.dir, &self.keys, gallery, next)
    }

    /// True when something was deleted, whose sealed bytes stay in sled's log until then, and when most of the file is
    /// waste. A restart forgets neither.
    #[must_use]
    pub fn wants_rewrite(&self) -> bool {
        // A template is by far the longest entry.
        let live_bytes = self.live.iter().sum::<u64>() * cells::TYPICAL_ENTRY_BYTES;
        let waste = WASTE_FLOOR_BYTES.max(WASTE_FACTOR * live_bytes);
        self.slot.as_ref().is_some_and(|open| open.remains || open.db.file_bytes() > waste)
    }
}
