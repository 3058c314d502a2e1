//! The outbox's files: finding a trustworthy one, making a fresh one, setting a bad one aside.
//!
//! Order of a fresh start, so that a crash at any point leaves something that [`locate`] understands: the database under
//! a temporary name, then the watermark (stream, 0), then the rename, then the fsync of the directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gallery_log::keys::random_key;

use super::engine::{Engine, Found, mark_of};
use super::sealing::{Head, Sealer, unix_ms};
use super::types::{OutboxError, RenewalReason, StreamId};
use crate::files::{self, FileError};
use crate::seal::SealingError;
use crate::watermark::{Watermark, WatermarkError};

const DATABASE: &str = "outbox.redb";
const MARK: &str = "outbox.watermark";
const MARK_LABEL: &[u8] = b"outbox";
const ASIDE: &str = "outbox.redb.aside-";
/// Files set aside that are kept. Each may hold the whole quota, and a device that finds its outbox damaged again and again
/// must not fill its disk with them; who wants to look into one does so after the first alarm.
const ASIDES: usize = 3;

/// What lies in the directory.
pub(super) enum Located {
    /// Neither file nor watermark, or a first start that a crash cut short.
    Nothing,
    /// A stream to go on with.
    Intact(Box<Engine>),
    /// Something that must not be gone on with.
    Untrusted(RenewalReason),
}

pub(super) fn database_path(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// Looks at file and watermark together.
///
/// Only what says that the *content* is wrong makes a file untrusted; a full disk or a missing permission is an error,
/// since moving a good outbox aside would help nobody.
pub(super) fn locate(dir: &Path, sealer: &Sealer) -> Result<Located, OutboxError> {
    let path = database_path(dir);
    let mark = match Watermark::open(&dir.join(MARK), &sealer.watermark, MARK_LABEL) {
        Ok(mark) => mark,
        Err(error @ WatermarkError::Forged(_)) => return Ok(Located::Untrusted(RenewalReason::Watermark(error))),
        Err(error) => return Err(error.into()),
    };
    let exists = path.try_exists().map_err(FileError::at("look for", &path))?;
    let (mark, stream, last) = match (mark, exists) {
        (None, false) => return Ok(Located::Nothing),
        (None, true) => return Ok(Located::Untrusted(RenewalReason::NoWatermark)),
        (Some((mark, payload)), exists) => {
            let (stream, last) = read_mark(&payload);
            if !exists {
                return Ok(if last == 0 {
                    Located::Nothing
                } else {
                    Located::Untrusted(RenewalReason::Missing { last })
                });
            }
            (mark, stream, last)
        }
    };
    let found = match Engine::find(&path, sealer) {
        Ok(found) => found,
        Err(error) if is_environment(&error) => return Err(error),
        Err(error) => return Ok(Located::Untrusted(RenewalReason::Corrupt(Box::new(error)))),
    };
    Ok(compare(&path, found, mark, stream, last))
}

fn compare(path: &Path, found: Found, mut mark: Watermark, stream: StreamId, last: u64) -> Located {
    let head = found.head;
    if head.stream != stream {
        return Located::Untrusted(RenewalReason::Foreign { expected: stream, found: head.stream });
    }
    if head.last < last {
        return Located::Untrusted(RenewalReason::RolledBack { expected: last, found: head.last });
    }
    // A crash between commit and watermark leaves the file ahead; that is no loss.
    if head.last > last
        && let Err(error) = mark.advance(&mark_of(&head))
    {
        tracing::error!(path = %path.display(), error = %error, "the outbox's watermark could not be written");
    }
    Located::Intact(Box::new(Engine::new(path, found, mark)))
}

/// Begins a new stream where no database file is.
pub(super) fn begin(dir: &Path, sealer: &Sealer) -> Result<Box<Engine>, OutboxError> {
    let stream = random_stream()?;
    let path = database_path(dir);
    let temporary = path.with_extension("new");
    remove_if_there(&temporary)?;
    Engine::create(&temporary, sealer, stream)?;
    files::sync_file(&temporary)?;
    let mark = Watermark::create(&dir.join(MARK), &sealer.watermark, MARK_LABEL, &mark_of(&Head::new(stream)))?;
    fs::rename(&temporary, &path).map_err(FileError::at("rename into place", &path))?;
    files::sync_dir(dir)?;
    Ok(Box::new(Engine::new(&path, Engine::find(&path, sealer)?, mark)))
}

/// Opens the file again after a full disk, and cuts off what the failed commit may have left.
pub(super) fn reopen(dir: &Path, sealer: &Sealer, stream: StreamId, last: u64) -> Result<Box<Engine>, OutboxError> {
    let path = database_path(dir);
    match locate(dir, sealer)? {
        Located::Intact(mut engine) if engine.stream() == stream && engine.last() >= last => {
            engine.truncate(sealer, last)?;
            Ok(engine)
        }
        Located::Untrusted(reason) => {
            tracing::error!(path = %path.display(), reason = %reason, "the outbox cannot be opened again after a full disk");
            Err(OutboxError::Failed { path })
        }
        Located::Intact(_) | Located::Nothing => Err(OutboxError::Failed { path }),
    }
}

/// Renames the database file so that nothing ever writes to it again; returns its new place.
pub(super) fn set_aside(dir: &Path, now: SystemTime) -> Result<Option<PathBuf>, OutboxError> {
    let path = database_path(dir);
    for attempt in 0..1000 {
        let aside = dir.join(format!("{ASIDE}{}-{attempt}", unix_ms(now)));
        if aside.exists() {
            continue;
        }
        return match fs::rename(&path, &aside) {
            Ok(()) => {
                files::sync_dir(dir)?;
                remove_old_asides(dir);
                Ok(Some(aside))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::at("rename aside", &path)(error).into()),
        };
    }
    Err(OutboxError::Failed { path })
}

/// Removes all but the newest files set aside. What cannot be removed only takes room.
fn remove_old_asides(dir: &Path) {
    let age = |name: &str| {
        let (ms, attempt) = name.strip_prefix(ASIDE)?.split_once('-')?;
        Some((ms.parse::<u64>().ok()?, attempt.parse::<u32>().ok()?))
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut asides: Vec<_> =
        entries.filter_map(|entry| Some((age(entry.file_name().to_str()?)?, entry.path()))).collect();
    asides.sort();
    for (_, path) in asides.iter().rev().skip(ASIDES) {
        match fs::remove_file(path) {
            Ok(()) => tracing::warn!(path = %path.display(), "an outbox set aside long ago is removed"),
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error, "an outbox set aside long ago cannot be removed");
            }
        }
    }
}

/// True for what the disk or the system did, as opposed to what the file says.
fn is_environment(error: &OutboxError) -> bool {
    use std::error::Error as _;
    match error {
        OutboxError::DiskFull { .. } | OutboxError::InUse { .. } | OutboxError::File(_) | OutboxError::Sealing(_) => {
            true
        }
        OutboxError::Storage { .. } => error
            .source()
            .and_then(|source| source.downcast_ref::<redb::Error>())
            .is_some_and(|error| matches!(error, redb::Error::Io(io) if is_environment_io(io))),
        _ => false,
    }
}

fn is_environment_io(error: &io::Error) -> bool {
    // A senseless file gives InvalidData or UnexpectedEof; those are about the content.
    !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput)
}

fn read_mark(payload: &[u8]) -> (StreamId, u64) {
    let (stream, last) = payload.split_first_chunk::<16>().expect("the watermark's HMAC says that we wrote it");
    let last = last.try_into().expect("the watermark's HMAC says that we wrote it");
    (StreamId::from_bytes(*stream), u64::from_be_bytes(last))
}

fn random_stream() -> Result<StreamId, SealingError> {
    let random = random_key()?;
    let (stream, _) = random.split_first_chunk::<16>().expect("a key has 32 bytes");
    Ok(StreamId::from_bytes(*stream))
}

fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::at("remove", path)(error)),
        _ => Ok(()),
    }
}
