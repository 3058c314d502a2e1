//! Directories and files of the embedded parts: made with the right owner and mode, written whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};
use zeroize::Zeroizing;

use super::error::{EmbeddedError, io_error};
use super::service_user::ServiceUser;
use hub_host::secret_file;

/// Longest path of a Unix socket, without the closing NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Makes `dir` with `mode`, owned by `owner` if given; an existing directory is put right.
pub(super) fn ensure_dir(dir: &Path, mode: u32, owner: Option<&ServiceUser>) -> Result<(), EmbeddedError> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(io_error("create", dir))?;
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).map_err(io_error("set the mode of", dir))?;
    own(dir, owner)
}

/// Gives `path` to `owner`, if one is named.
pub(super) fn own(path: &Path, owner: Option<&ServiceUser>) -> Result<(), EmbeddedError> {
    match owner {
        None => Ok(()),
        Some(user) => std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
            .map_err(io_error("change the owner of", path)),
    }
}

/// Who a file of a broker that is not the hub's own belongs to, or the folder where it will be: a hub that is root must not
/// take it from them. `None` when it is the hub's own user, or cannot be told.
pub(super) fn keeper(path: &Path) -> Option<ServiceUser> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).or_else(|_| std::fs::metadata(path.parent().unwrap_or(path))).ok()?;
    let other = rustix::process::geteuid().is_root() && found.uid() != 0;
    other.then(|| ServiceUser { name: String::new(), uid: found.uid(), gid: found.gid() })
}

/// Writes a file that readers see old or new, never half: temporary name, owner, mode, fsync, rename, fsync of the folder.
pub(super) fn write_file(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<&ServiceUser>,
) -> Result<(), EmbeddedError> {
    let temporary = path.with_extension("new");
    write_durably(&temporary, path, bytes, mode, owner).map_err(io_error("write", path))
}

fn write_durably(
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<&ServiceUser>,
) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(temporary)?;
    // The mode above holds for new files only; a leftover of a crash may have another.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    if let Some(user) = owner {
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temporary, path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(folder)?.sync_all()
}

/// Reads the secret at `path`, or makes one of 32 random bytes (64 hex digits) in a 0600 file.
pub fn secret(path: &Path) -> Result<String, EmbeddedError> {
    let bytes = secret_file::load_or_make(path, || {
        let mut bytes = [0_u8; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
            .map_err(|_| io::Error::other("the system's random source does not answer"))
            .map_err(io_error("make the secret", path))?;
        Ok::<_, EmbeddedError>(Zeroizing::new(hex::encode(bytes).into_bytes()))
    })?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Fails when the file system of `dir` has less than `needed` bytes for unprivileged users.
pub(super) fn check_space(dir: &Path, needed: u64) -> Result<(), EmbeddedError> {
    const MIB: u64 = 1024 * 1024;
    let stat = statvfs(dir).map_err(|errno| io_error("measure the free space of", dir)(errno.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed {
        return Err(EmbeddedError::NoSpace {
            dir: dir.to_path_buf(),
            free_mib: free / MIB,
            needed_mib: needed.div_ceil(MIB),
        });
    }
    Ok(())
}

/// Fails when `path` cannot be a Unix socket.
pub(super) fn check_socket_path(path: &Path) -> Result<(), EmbeddedError> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(EmbeddedError::PathTooLong { path: path.to_path_buf() });
    }
    Ok(())
}

/// An exclusive lock on a data directory, held as long as this value lives (and no longer than the process).
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Takes the lock on `dir`, or says who has it.
pub fn lock_dir(dir: &Path) -> Result<DirLock, EmbeddedError> {
    let path: PathBuf = dir.join("hub.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        drop(file.read_to_string(&mut pid));
        return Err(EmbeddedError::InUse { dir: dir.to_path_buf(), pid: pid.trim().to_owned() });
    }
    file.set_len(0)
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
        .map_err(io_error("write", &path))?;
    Ok(DirLock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pepper");
        let first = secret(&path).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(secret(&path).unwrap(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_second_hub_on_the_same_directory_is_told_who_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock_dir(dir.path()).unwrap();
        let message = lock_dir(dir.path()).unwrap_err().to_string();
        assert!(message.contains(&std::process::id().to_string()), "{message}");
        drop(first);
        assert!(lock_dir(dir.path()).is_ok());
    }

    #[test]
    fn too_little_space_is_told_in_figures() {
        let dir = tempfile::tempdir().unwrap();
        let message = check_space(dir.path(), u64::MAX).unwrap_err().to_string();
        assert!(message.contains("MiB free") && message.contains("make room"), "{message}");
        assert!(check_space(dir.path(), 1).is_ok());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_before_anything_starts() {
        let long = PathBuf::from(format!("/{}", "x".repeat(MAX_SOCKET_PATH)));
        assert!(check_socket_path(&long).is_err());
        assert!(check_socket_path(Path::new("/run/lintel/control.sock")).is_ok());
    }
}
