//! Files that survive a power cut: written whole beside their place, fsynced, renamed, and the directory fsynced.
//!
//! In: a path and bytes. Out: the file is on disk, whole, or the old one still is. Also how much room is left and
//! the lock that keeps two processes from one store. Deliberately absent: what the bytes mean.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};

/// Private to the owner: everything this crate writes is, since even sealed bytes say how many people there are.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;

/// A file operation that failed, with the file it was about.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot {what}", path = .path.display())]
pub struct FileError {
    /// What was tried, as a verb phrase: `write`, `fsync`, `open`.
    pub what: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The operating system's answer.
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self { what, path, source }
    }

    /// True when the disk, the quota or the inode table is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        is_disk_full(&self.source)
    }
}

/// True for the errors that mean "no room": a full disk and an exceeded quota.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Creates a directory (and its parents) that only the owner may enter, and fsyncs its parent.
///
/// An existing directory is left as it is.
pub(crate) fn create_private_dir(dir: &Path) -> Result<(), FileError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(dir)
        .map_err(FileError::at("create directory", dir))?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// fsyncs a directory, which makes the names in it (new, renamed, removed files) durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(FileError::at("fsync directory", dir))
}

/// fsyncs a file that somebody else wrote.
pub(crate) fn sync_file(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|handle| handle.sync_all()).map_err(FileError::at("fsync", path))
}

/// Replaces `path` by `bytes` in one durable step: temporary file, fsync, rename, fsync of the directory.
///
/// After a crash at any point either the old or the new content is there, whole. Mode 0600.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let dir = parent_of(path);
    let temporary = path.with_extension("tmp");
    write_new(&temporary, bytes)?;
    fs::rename(&temporary, path).map_err(FileError::at("rename into place", path))?;
    sync_dir(dir)
}

/// Writes a fresh private file and fsyncs it; a leftover of the same name is replaced. The name itself is not yet durable.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE_FILE)
        .open(path)
        .map_err(FileError::at("create", path))?;
    file.write_all(bytes).map_err(FileError::at("write", path))?;
    file.sync_all().map_err(FileError::at("fsync", path))
}

/// Reads a file; `None` when it does not exist.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at("read", path)(error)),
    }
}

/// Overwrites, removes and forgets a secret file; a missing one is fine.
///
/// The overwriting is best effort (flash and copy-on-write file systems may keep the old block). What counts is
/// that the file holds a *wrapped* key, so that without the device store key the old block is worth nothing.
pub(crate) fn destroy_file(path: &Path) -> Result<(), FileError> {
    let length = match fs::metadata(path) {
        Ok(meta) => usize::try_from(meta.len()).unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::at("look at", path)(error)),
    };
    if let Ok(mut file) = OpenOptions::new().write(true).open(path) {
        // A full or failing disk must not keep the file alive, hence the ignored results: the removal below decides.
        let _ = file.write_all(&vec![0; length]);
        let _ = file.sync_all();
    }
    fs::remove_file(path).map_err(FileError::at("remove", path))?;
    sync_dir(parent_of(path))
}

/// Removes a file, durably; a missing one is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::at("remove", path)(error)),
    }
}

/// Removes a directory and all in it, durably; a missing one is fine.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(dir) {
        Ok(()) => sync_dir(parent_of(dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::at("remove directory", dir)(error)),
    }
}

/// The permission bits of a file, without the file type.
pub(crate) fn mode_of(path: &Path) -> Result<u32, FileError> {
    fs::metadata(path).map(|meta| meta.permissions().mode() & 0o7777).map_err(FileError::at("look at", path))
}

/// Bytes that an unprivileged writer may still use on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, FileError> {
    let stat = statvfs(path).map_err(|errno| FileError::at("measure free space of", path)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The directory a file lies in; `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// An advisory lock on a directory's `lock` file; released when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock, or returns `None` when another open store holds it.
    pub(crate) fn take(dir: &Path) -> Result<Option<Self>, FileError> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE)
            .open(&path)
            .map_err(FileError::at("create", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(FileError::at("lock", &path)(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_private_and_leaves_no_temporary_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mode_of(&path).unwrap(), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_is_given_once_and_comes_back_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::take(dir.path()).unwrap();
        assert!(held.is_some());
        assert!(DirLock::take(dir.path()).unwrap().is_none());
        drop(held);
        assert!(DirLock::take(dir.path()).unwrap().is_some());
    }

    #[test]
    fn destroying_a_missing_file_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        destroy_file(&dir.path().join("nothing")).unwrap();
    }
}
