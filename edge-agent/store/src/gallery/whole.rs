//! A gallery replaced whole, by what a snapshot brings, without holding all of it at once.
//!
//! In: the version, and a source that gives the live records run by run. Out: a store that holds exactly these, in a new
//! generation under a new SK, or the store as it was: the watermark names the new generation only when everything is on disk
//! and leads to the expected root. What was deleted before, and what is not in the snapshot, stays buried.

use gallery_log::{Record, ReplaceError, Root, RootMismatch};

use super::cells::{Head, Mark};
use super::differing::{self, count_all};
use super::{GalleryError, GalleryStore, Open, Replaced, load};
use crate::files;

/// Records written by one commit, as when a generation is copied: two megabytes of templates between two fsyncs.
const RUN: usize = 1000;

/// Why a gallery was not replaced. The store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum WholeError<E> {
    /// The source failed.
    #[error("the snapshot cannot be read")]
    Source(#[source] E),
    /// A record cannot be part of it, or the version is older than the store's.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The records lead to another root than was promised.
    #[error(transparent)]
    Root(#[from] RootMismatch),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] GalleryError),
}

impl GalleryStore {
    /// Replaces everything by what `next` gives until it gives `None`: the live entries of `version`, in any order.
    ///
    /// All or none. As after [`GalleryStore::apply`], it is on disk when this returns, and the next opening demands it.
    pub fn replace_whole<E>(
        &mut self,
        version: u64,
        expected_root: Root,
        next: impl FnMut() -> Result<Option<Vec<Record>>, E>,
    ) -> Result<Replaced, WholeError<E>> {
        self.reopen()?;
        let generation = load::next_generation(&self.dir, &self.keys, self.gallery, self.generation)?;
        match self.write_whole(generation, version, expected_root, next) {
            Ok(replaced) => Ok(replaced),
            Err(error) => {
                // Unless the watermark may name it already.
                if self.slot.is_some()
                    && let Err(error) = load::destroy_generation(&self.dir, &self.keys, self.gallery, generation)
                {
                    tracing::warn!(gallery = %self.gallery, error = %error, "a half-made generation could not be removed");
                }
                Err(error)
            }
        }
    }

    fn write_whole<E>(
        &mut self,
        generation: u64,
        version: u64,
        expected_root: Root,
        mut next: impl FnMut() -> Result<Option<Vec<Record>>, E>,
    ) -> Result<Replaced, WholeError<E>> {
        let mut whole = self.log.whole(version)?;
        let (mut db, key) = load::begin_generation(&self.dir, &self.keys, self.gallery, generation)?;
        let (mut waiting, mut received) = (Vec::with_capacity(RUN), 0);
        while let Some(records) = next().map_err(WholeError::Source)? {
            for record in records {
                whole.take(&record, &self.digest_key)?;
                received += 1;
                waiting.push(record);
            }
            if waiting.len() >= RUN {
                load::write_entries(&mut db, &key, &waiting)?;
                waiting.clear();
            }
        }
        // Nothing counts before this comparison and the watermark below.
        let was_live = self.log.live() as u64;
        let (mut log, dels) = whole.finish(expected_root)?;
        let still_live = self
            .log
            .entries()
            .filter(|(id, entry)| entry.leaf.is_some() && log.entry(*id).is_some_and(|now| now.leaf.is_some()));
        let removed = was_live - still_live.count() as u64;
        load::write_entries(&mut db, &key, &waiting)?;
        load::write_entries(&mut db, &key, &dels)?;
        let head = Head::of(&mut log);
        load::seal_up(&mut db, &key, self.gallery, generation, &head)?;

        let Some(Open { db: old, mut mark, .. }) = self.slot.take() else {
            return Err(GalleryError::Closed { dir: self.dir.clone() }.into());
        };
        // Closed before its files go: sled writes once more when it is dropped.
        drop(old);
        if let Err(error) = mark.advance(&Mark { generation, head }.encode()) {
            // Which of the two the watermark names now is unknown, so both stay until it is read again.
            self.disk_may_lie = true;
            return Err(GalleryError::from(error).into());
        }
        self.slot = Some(Open { db, key, mark, remains: false });
        self.generation = generation;
        self.live = count_all(&log);
        self.log = log;
        self.root = expected_root;
        self.differing = None;
        // Left behind, it costs one comparison after the next start.
        if let Err(error) = files::destroy_file(&differing::file(&self.dir)) {
            tracing::warn!(gallery = %self.gallery, error = %error, "the note that the gallery differed could not be removed");
        }
        load::remove_leftovers(&self.dir, &self.keys, self.gallery, generation)?;
        Ok(Replaced { received, removed })
    }
}
