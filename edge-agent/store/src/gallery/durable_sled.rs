//! sled 0.34 with the fsyncs that it leaves out, and with its panics turned into errors.
//!
//! `sled::Tree::flush` calls `sync_file_range` alone, which is no durability: at a power cut the drive's cache and the
//! file's metadata are gone (33 of 40 kernel power cuts lost acknowledged data or would not open). What mends it: fsync
//! `conf`, `db` and the directory once after opening, fsync `db` after each flush, and acknowledge only then.
//!
//! Deliberately absent: what the values mean. Nothing here detects a flipped bit: sled reads it as a torn end and drops
//! all that follows; the sealed head and the watermark outside notice that.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::files::{self, FileError};

/// sled's page cache: the store is read once at the start and then only written, so the smallest useful one.
const CACHE_BYTES: u64 = 8 << 20;
/// How often, and how long in between, a database that was just dropped is asked for: five seconds in all.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why sled could not do it.
#[derive(Debug, thiserror::Error)]
pub enum SledError {
    /// sled says so.
    #[error("gallery database {dir}: {what} failed", dir = .dir.display())]
    Engine {
        /// The database directory.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
        /// sled's answer.
        #[source]
        source: sled::Error,
    },
    /// sled panicked, as it does on some damaged files.
    #[error("gallery database {dir}: the engine gave up during {what}", dir = .dir.display())]
    Panicked {
        /// The database directory.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
    },
    /// An fsync failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl SledError {
    /// True when the system is to blame (full disk, permission, descriptors), not the content.
    pub(crate) fn is_environment(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Engine { source: sled::Error::Io(error), .. } => {
                files::is_disk_full(error)
                    || matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::OutOfMemory
                    )
                    // EMFILE and ENFILE have no kind of their own.
                    || matches!(error.raw_os_error(), Some(23 | 24))
            }
            Self::Engine { .. } | Self::Panicked { .. } => false,
        }
    }

    /// True when freeing disk space is what helps.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::File(error) => error.is_disk_full(),
            Self::Engine { source: sled::Error::Io(error), .. } => files::is_disk_full(error),
            Self::Engine { .. } | Self::Panicked { .. } => false,
        }
    }
}

/// A sled database whose writes are on disk when they return.
pub(crate) struct DurableSled {
    dir: PathBuf,
    /// Taken when this is dropped, and only then.
    db: Option<sled::Db>,
    file: File,
    /// Blob files that were fsynced already.
    synced_blobs: HashSet<OsString>,
}

/// sled writes and fsyncs once more when it is dropped, and panics if the disk refuses. Nothing depends on that write: what
/// was acknowledged is on disk already.
impl Drop for DurableSled {
    fn drop(&mut self) {
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!(dir = %self.dir.display(), "the gallery database could not be closed properly");
        }
    }
}

impl DurableSled {
    /// Opens or makes the database in `dir`, and makes the making durable.
    ///
    /// The caller holds the store's own lock, so that only an earlier database of this process can still be there.
    pub(crate) fn open(dir: &Path) -> Result<Self, SledError> {
        await_release(&dir.join("db"))?;
        let db = guarded(dir, "open", || {
            sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .mode(sled::Mode::LowSpace)
                // Our commits flush; a timer would only write at other moments than those that the tests cut at.
                .flush_every_ms(None)
                .open()
        })?;
        files::sync_file(&dir.join("conf"))?;
        let path = dir.join("db");
        let file = File::open(&path).map_err(FileError::at("open", &path))?;
        file.sync_all().map_err(FileError::at("fsync", &path))?;
        files::sync_dir(dir)?;
        files::sync_dir(files::parent_of(dir))?;
        let mut opened = Self { dir: dir.to_path_buf(), db: Some(db), file, synced_blobs: HashSet::new() };
        opened.sync_blobs()?;
        Ok(opened)
    }

    /// Writes the batch (all of it or nothing); returns when it is on disk.
    pub(crate) fn commit(&mut self, batch: sled::Batch) -> Result<(), SledError> {
        guarded(&self.dir, "write", || self.db().apply_batch(batch))?;
        #[expect(clippy::disallowed_methods, reason = "this is the wrapper: the fsync follows")]
        guarded(&self.dir, "flush", || self.db().flush())?;
        self.sync_blobs()?;
        self.file.sync_all().map_err(FileError::at("fsync", &self.dir.join("db")))?;
        Ok(())
    }

    /// fsyncs the blob files that are new. sled writes a leaf of more than 128 KiB (which 17 long rules can make) as a file
    /// of its own, and syncs that as little as the rest. Nearly always there is none.
    fn sync_blobs(&mut self) -> Result<(), FileError> {
        let dir = self.dir.join("blobs");
        let names: HashSet<OsString> = match fs::read_dir(&dir) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FileError::at("list", &dir)(error)),
        };
        let mut new = names.difference(&self.synced_blobs).peekable();
        if new.peek().is_some() {
            for name in new {
                match files::sync_file(&dir.join(name)) {
                    // sled's own clean-up may have removed it since.
                    Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
            files::sync_dir(&dir)?;
        }
        self.synced_blobs = names;
        Ok(())
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, SledError> {
        guarded(&self.dir, "read", || self.db().get(key))
    }

    /// Calls `each` with every key and value whose key begins with `prefix`, in key order.
    pub(crate) fn scan(&self, prefix: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), SledError> {
        guarded(&self.dir, "read", || {
            for row in self.db().scan_prefix(prefix) {
                let (key, value) = row?;
                each(&key, &value);
            }
            Ok(())
        })
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("the database is taken when this is dropped, and not before")
    }

    /// Bytes on disk; sled gives none back, so that a store grows until it is rewritten.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }
}

/// Waits until nobody has the database file locked. sled's threads may hold it for a moment after the database was dropped,
/// and sled's answer to that is the same error as for a damaged file, which would cost the gallery.
fn await_release(path: &Path) -> Result<(), FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::at("open", path)(error)),
    };
    for _ in 0..LOCK_TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(errno) => return Err(FileError::at("lock", path)(errno.into())),
        }
    }
    Err(FileError::at("lock", path)(Errno::WOULDBLOCK.into()))
}

fn guarded<T>(dir: &Path, what: &'static str, run: impl FnOnce() -> sled::Result<T>) -> Result<T, SledError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(SledError::Engine { dir: dir.to_path_buf(), what, source }),
        Err(_) => Err(SledError::Panicked { dir: dir.to_path_buf(), what }),
    }
}
