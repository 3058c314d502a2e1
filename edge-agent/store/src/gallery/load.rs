//! Opening a generation and deciding whether it can be believed; beginning, copying and destroying generations.
//!
//! On disk: `<dir>/watermark`, `<dir>/generation-<n>/` (sled), and the SK of each generation among the device's keys. The
//! watermark says which generation counts: advancing it is the one step that makes a copy the store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gallery_log::log::Entry;
use gallery_log::{DigestKey, GalleryId, Leaf, Log, Op, Record, Root, SealKey};

use super::cells::{self, Counts, Head, Mark};
use super::differing;
use super::durable_sled::{DurableSled, SledError};
use super::{GalleryError, Open};
use crate::files::{self, FileError};
use crate::keys::{DeviceKeys, GalleryKeys, KeysError};
use crate::watermark::{Watermark, WatermarkError};

const MARK: &str = "watermark";
const PREFIX: &str = "generation-";

/// Why a gallery store is not believed. The agent alarms with it; the hub's answer is to fill the store again.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// Files are there, the watermark is not.
    #[error("there is a store without a watermark")]
    NoWatermark,
    /// No slot of the watermark has a valid HMAC.
    #[error("the watermark cannot be trusted")]
    Watermark(#[source] WatermarkError),
    /// The watermark says that there is a store; it is gone.
    #[error("the store's files are gone")]
    Gone,
    /// The gallery's own keys, which the hub gave, cannot be read.
    #[error("the gallery's keys cannot be read")]
    Keys(#[source] KeysError),
    /// SK is missing or does not open.
    #[error("the key of generation {generation} is missing or damaged")]
    Key {
        /// The generation that the watermark names.
        generation: u64,
    },
    /// sled refuses the files or panics on them.
    #[error("the database does not open")]
    Database(#[source] SledError),
    /// The head is missing or its seal is wrong.
    #[error("the head cannot be unsealed")]
    Head,
    /// A value's seal is wrong.
    #[error("an entry cannot be unsealed")]
    Seal,
    /// The store is older than the watermark: an old copy, or damage that sled took for a torn end.
    #[error("the store is at version {found}, the watermark at {expected}")]
    RolledBack {
        /// The watermark's version.
        expected: u64,
        /// The store's version.
        found: u64,
    },
    /// The entries do not add up to the root that is written beside them.
    #[error("version {version}: the entries give root {found}, {expected} is written")]
    Root {
        /// The version.
        version: u64,
        /// The root in head or watermark.
        expected: Root,
        /// The root of the entries.
        found: Root,
    },
    /// The gallery has a new epoch (new keys, or a restored hub): what is stored belongs to another one.
    #[error("the store is of epoch {found}, the gallery is at epoch {expected}")]
    Epoch {
        /// The epoch of the gallery's keys.
        expected: u32,
        /// The store's epoch.
        found: u32,
    },
}

/// A generation that was opened and believed, or freshly begun.
pub(super) struct Loaded {
    pub log: Log,
    /// The key that the log's leaves are under: an earlier one than the gallery's where its new epoch has yet to begin.
    pub digest_key: DigestKey,
    pub live: Counts,
    pub generation: u64,
    pub open: Open,
}

pub(super) enum Verdict {
    Intact(Box<Loaded>),
    Nothing,
    Doubtful(Doubt),
}

/// What went wrong while entries were read.
pub(super) enum ReadError {
    Sled(SledError),
    Seal,
}

impl ReadError {
    pub(super) fn into_error(self, dir: &Path) -> GalleryError {
        match self {
            Self::Sled(error) if error.is_environment() => GalleryError::Sled(error),
            Self::Sled(error) => GalleryError::Doubt { dir: dir.to_path_buf(), reason: Doubt::Database(error) },
            Self::Seal => GalleryError::Doubt { dir: dir.to_path_buf(), reason: Doubt::Seal },
        }
    }
}

/// Opens what the watermark names and compares everything with everything.
///
/// An error is about the system; a [`Verdict::Doubtful`] is about the content.
pub(super) fn load(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    gallery_keys: &GalleryKeys,
) -> Result<Verdict, GalleryError> {
    match try_load(dir, keys, gallery, gallery_keys) {
        Ok(Some(loaded)) => Ok(Verdict::Intact(Box::new(loaded))),
        Ok(None) => Ok(Verdict::Nothing),
        Err(Trouble::Doubt(reason)) => Ok(Verdict::Doubtful(reason)),
        Err(Trouble::Error(error)) => Err(error),
    }
}

enum Trouble {
    Doubt(Doubt),
    Error(GalleryError),
}

impl<E: Into<GalleryError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl From<Doubt> for Trouble {
    fn from(doubt: Doubt) -> Self {
        Self::Doubt(doubt)
    }
}

fn try_load(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    gallery_keys: &GalleryKeys,
) -> Result<Option<Loaded>, Trouble> {
    let Some((watermark, mark)) = open_mark(dir, keys, gallery)? else {
        return match generations(dir)?.is_empty() && keys.store_generations(gallery)?.is_empty() {
            true => Ok(None),
            false => Err(Doubt::NoWatermark.into()),
        };
    };
    match believed(dir, keys, gallery, gallery_keys, watermark, &mark) {
        // The watermark is made first, so this is a first start that was cut short: nothing had been applied.
        Err(Trouble::Doubt(_)) if mark.head.version == 0 => Ok(None),
        result => result.map(Some),
    }
}

/// The generation that the watermark names, if it can be believed.
fn believed(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    gallery_keys: &GalleryKeys,
    mut watermark: Watermark,
    mark: &Mark,
) -> Result<Loaded, Trouble> {
    let generation = mark.generation;
    let digest_key = digest_key_of(mark.head.epoch, keys, gallery, gallery_keys)?;
    let key = store_key(keys, gallery, generation)?;
    let path = generation_dir(dir, generation);
    if !path.join("db").exists() {
        return Err(Doubt::Gone.into());
    }
    let db = DurableSled::open(&path).map_err(database_trouble)?;
    let sealed = db.get(cells::HEAD_KEY).map_err(database_trouble)?.unwrap_or_default();
    let head = cells::open_head(&key, gallery, generation, &sealed).ok_or(Doubt::Head)?;
    let entries = read_entries(&db, &key, gallery).map_err(|error| match error {
        ReadError::Sled(error) => database_trouble(error),
        ReadError::Seal => Doubt::Seal.into(),
    })?;
    let (mut log, live) = restore(gallery, &digest_key, (head.epoch, head.version), &entries);
    check(&mut log, &head, &mark.head)?;
    let remains = db.get(cells::REMAINS_KEY).map_err(database_trouble)?.is_some();
    if head != mark.head {
        // A crash between commit and watermark leaves the store ahead; that is no doubt.
        watermark.advance(&Mark { generation, head }.encode())?;
    }
    Ok(Loaded { log, digest_key, live, generation, open: Open { db, key, mark: watermark, remains } })
}

/// The digest key of the epoch that is stored: the gallery's, or the one before it where its new epoch has yet to begin.
fn digest_key_of(
    stored: u32,
    keys: &DeviceKeys,
    gallery: GalleryId,
    gallery_keys: &GalleryKeys,
) -> Result<DigestKey, Trouble> {
    if stored == gallery_keys.epoch {
        return Ok(gallery_keys.digest.clone());
    }
    let former = keys.former_digest(gallery, stored)?.filter(|_| stored < gallery_keys.epoch);
    former.ok_or_else(|| Doubt::Epoch { expected: gallery_keys.epoch, found: stored }.into())
}

/// The three that must agree: the root of the entries, the sealed head, and the watermark (which may be behind).
fn check(log: &mut Log, head: &Head, mark: &Head) -> Result<(), Doubt> {
    if head.epoch != mark.epoch {
        return Err(Doubt::Epoch { expected: mark.epoch, found: head.epoch });
    }
    if head.version < mark.version {
        return Err(Doubt::RolledBack { expected: mark.version, found: head.version });
    }
    let found = log.root();
    let wrong = |expected: Root| Doubt::Root { version: head.version, expected, found };
    if found != head.root || log.live() as u64 != head.live {
        return Err(wrong(head.root));
    }
    if head.version == mark.version && head.root != mark.root {
        return Err(wrong(mark.root));
    }
    Ok(())
}

fn open_mark(dir: &Path, keys: &DeviceKeys, gallery: GalleryId) -> Result<Option<(Watermark, Mark)>, Trouble> {
    match Watermark::open(&dir.join(MARK), &keys.watermark()?, gallery.as_bytes()) {
        Ok(None) => Ok(None),
        Ok(Some((watermark, payload))) => match Mark::decode(&payload) {
            Some(mark) => Ok(Some((watermark, mark))),
            None => Err(Doubt::Watermark(WatermarkError::Forged(dir.join(MARK))).into()),
        },
        Err(error @ WatermarkError::Forged(_)) => Err(Doubt::Watermark(error).into()),
        Err(error) => Err(error.into()),
    }
}

fn store_key(keys: &DeviceKeys, gallery: GalleryId, generation: u64) -> Result<SealKey, Trouble> {
    match keys.store_key(gallery, generation) {
        Ok(Some(key)) => Ok(key),
        Ok(None) | Err(KeysError::Unsealable { .. } | KeysError::Format { .. }) => {
            Err(Doubt::Key { generation }.into())
        }
        Err(error) => Err(error.into()),
    }
}

fn database_trouble(error: SledError) -> Trouble {
    if error.is_environment() { Trouble::Error(error.into()) } else { Doubt::Database(error).into() }
}

pub(super) fn read_entries(db: &DurableSled, key: &SealKey, gallery: GalleryId) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    let mut broken = false;
    db.scan(cells::ENTRY_PREFIX, |row, value| match cells::open_entry(key, row, value, gallery) {
        Some(record) => records.push(record),
        None => broken = true,
    })
    .map_err(ReadError::Sled)?;
    if broken { Err(ReadError::Seal) } else { Ok(records) }
}

/// The log of these records at an `(epoch, version)`.
pub(super) fn restore(
    gallery: GalleryId,
    digest_key: &DigestKey,
    (epoch, version): (u32, u64),
    records: &[Record],
) -> (Log, Counts) {
    let mut live = Counts::default();
    let entries = records.iter().map(|record| {
        let leaf =
            (record.op == Op::Put).then(|| Leaf::of(digest_key, record.kind, record.id, record.rev, &record.body));
        if leaf.is_some() {
            live[cells::index_of(record.kind)] += 1;
        }
        (record.id, Entry { kind: record.kind, rev: record.rev, leaf })
    });
    let log = Log::restore(gallery, epoch, version, entries);
    (log, live)
}

/// Begins an empty store at version 0 of the keys' epoch.
pub(super) fn begin(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    gallery_keys: &GalleryKeys,
    generation: u64,
) -> Result<Loaded, GalleryError> {
    let mut log = Log::new(gallery, gallery_keys.epoch);
    let head = Head::of(&mut log);
    let payload = Mark { generation, head }.encode();
    // First, so that files without a watermark never come of a start that was cut short.
    let mark = Watermark::create(&dir.join(MARK), &keys.watermark()?, gallery.as_bytes(), &payload)?;
    let (db, key) = fill(dir, keys, gallery, generation, &head, &[])?;
    let digest_key = gallery_keys.digest.clone();
    let open = Open { db, key, mark, remains: false };
    Ok(Loaded { log, digest_key, live: Counts::default(), generation, open })
}

/// Writes a whole new generation. It counts as soon as the watermark names it.
pub(super) fn copy(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    generation: u64,
    log: &mut Log,
    records: &[Record],
) -> Result<(DurableSled, SealKey, Head), GalleryError> {
    let head = Head::of(log);
    let (db, key) = fill(dir, keys, gallery, generation, &head, records)?;
    Ok((db, key, head))
}

fn fill(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    generation: u64,
    head: &Head,
    records: &[Record],
) -> Result<(DurableSled, SealKey), GalleryError> {
    let (mut db, key) = begin_generation(dir, keys, gallery, generation)?;
    write_entries(&mut db, &key, records)?;
    seal_up(&mut db, &key, gallery, generation, head)?;
    Ok((db, key))
}

/// A new generation with nothing in it.
pub(super) fn begin_generation(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    generation: u64,
) -> Result<(DurableSled, SealKey), GalleryError> {
    let key = keys.make_store_key(gallery, generation)?;
    let path = generation_dir(dir, generation);
    files::create_private_dir(&path)?;
    Ok((DurableSled::open(&path)?, key))
}

/// Writes entries, in pieces, so that a gallery of 100,000 needs no second copy of itself in one batch.
pub(super) fn write_entries(db: &mut DurableSled, key: &SealKey, records: &[Record]) -> Result<(), GalleryError> {
    for piece in records.chunks(1000) {
        let mut batch = sled::Batch::default();
        for record in piece {
            batch.insert(cells::entry_key(record.id).to_vec(), cells::seal_entry(key, record)?);
        }
        db.commit(batch)?;
    }
    Ok(())
}

/// Writes the head, without which a generation is none.
pub(super) fn seal_up(
    db: &mut DurableSled,
    key: &SealKey,
    gallery: GalleryId,
    generation: u64,
    head: &Head,
) -> Result<(), GalleryError> {
    let mut batch = sled::Batch::default();
    batch.insert(cells::HEAD_KEY, cells::seal_head(key, gallery, generation, head)?);
    Ok(db.commit(batch)?)
}

/// Destroys every generation (keys first: without them the files are noise) and begins a new one.
pub(super) fn destroy_and_begin(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    gallery_keys: &GalleryKeys,
) -> Result<Loaded, GalleryError> {
    let newest = generations(dir)?.into_iter().chain(keys.store_generations(gallery)?).max().unwrap_or(0);
    destroy_all(dir, keys, gallery)?;
    begin(dir, keys, gallery, gallery_keys, newest + 1)
}

pub(super) fn destroy_all(dir: &Path, keys: &DeviceKeys, gallery: GalleryId) -> Result<(), GalleryError> {
    for generation in keys.store_generations(gallery)? {
        keys.destroy_store_key(gallery, generation)?;
    }
    for generation in generations(dir)? {
        files::remove_dir(&generation_dir(dir, generation))?;
    }
    files::destroy_file(&dir.join(MARK))?;
    files::destroy_file(&differing::file(dir))?;
    Ok(())
}

pub(super) fn destroy_generation(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    generation: u64,
) -> Result<(), GalleryError> {
    keys.destroy_store_key(gallery, generation)?;
    files::remove_dir(&generation_dir(dir, generation))?;
    Ok(())
}

/// Removes what a crash during a rewrite left: every generation but the one that counts.
pub(super) fn remove_leftovers(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    current: u64,
) -> Result<(), GalleryError> {
    let all = generations(dir)?.into_iter().chain(keys.store_generations(gallery)?);
    for generation in all.filter(|generation| *generation != current) {
        destroy_generation(dir, keys, gallery, generation)?;
    }
    Ok(())
}

/// A number above every generation of which anything is left.
pub(super) fn next_generation(
    dir: &Path,
    keys: &DeviceKeys,
    gallery: GalleryId,
    current: u64,
) -> Result<u64, GalleryError> {
    let all = generations(dir)?.into_iter().chain(keys.store_generations(gallery)?);
    Ok(all.max().unwrap_or(0).max(current) + 1)
}

fn generation_dir(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{generation}"))
}

fn generations(dir: &Path) -> Result<Vec<u64>, FileError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FileError::at("list", dir)(error)),
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()).collect())
}
