//! Secrets in files: made once, readable by their owner alone. What is no secret key but must be as safe may be replaced.
//!
//! In: a path and a way to make the secret. Out: its bytes, the same at every later start. Used by `keys` and `pki`;
//! imports nothing of ours.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read or made.
    #[error("secret file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read it.
    #[error(
        "secret file {path} may be read by others (mode {mode:o}): chmod 600 it, and replace the secret if others were here"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Reads `path`, making it first (mode 0600, fsynced, then linked into place) if it does not exist.
/// Of two processes that make it at once, one wins and both read the winner's.
pub fn load_or_make<E: From<SecretFileError>>(
    path: &Path,
    make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, E>,
) -> Result<Zeroizing<Vec<u8>>, E> {
    match load(path) {
        Err(SecretFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            write_new(path, &make()?)?;
            Ok(load(path)?)
        }
        read => Ok(read?),
    }
}

/// Reads a secret file that must exist.
pub fn load(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let read = || -> io::Result<(u32, Zeroizing<Vec<u8>>)> {
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        Ok((mode, Zeroizing::new(fs::read(path)?)))
    };
    let (mode, bytes) = read().map_err(|source| SecretFileError::Io { path: path.to_owned(), source })?;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(bytes)
}

/// Puts `bytes` in the place of what a file holds; they are on disk when this returns, or the file is as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| SecretFileError::Io { path: path.to_owned(), source })
}

/// Puts one secret file in the place of another, at once; on disk when this returns.
pub fn put_in_place(from: &Path, to: &Path) -> Result<(), SecretFileError> {
    let directory = to.parent().unwrap_or(Path::new("."));
    let put = || {
        fs::rename(from, to)?;
        File::open(directory)?.sync_all()
    };
    put().map_err(|source| SecretFileError::Io { path: from.to_owned(), source })
}

/// Gives a secret file a second name, by which its very bytes can be destroyed when another one has its first; on disk when this returns.
pub fn name_again(path: &Path, second: &Path) -> Result<(), SecretFileError> {
    let directory = second.parent().unwrap_or(Path::new("."));
    let name = || {
        fs::hard_link(path, second)?;
        File::open(directory)?.sync_all()
    };
    name().map_err(|source| SecretFileError::Io { path: second.to_owned(), source })
}

/// Whether two names are those of one file. One that is not there is none of anything; one that cannot be looked at is an error, for
/// whoever asks destroys the other file if it is not this one.
pub fn is_one_file(path: &Path, other: &Path) -> Result<bool, SecretFileError> {
    let which = |path: &Path| match fs::metadata(path) {
        Ok(file) => Ok(Some((file.dev(), file.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SecretFileError::Io { path: path.to_owned(), source }),
    };
    let (one, two) = (which(path)?, which(other)?);
    Ok(one.is_some() && one == two)
}

/// Takes one of its names from a file, whose bytes stay under the others.
pub fn remove_name(path: &Path) -> Result<(), SecretFileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let remove = || {
        fs::remove_file(path)?;
        File::open(directory)?.sync_all()
    };
    remove().map_err(|source| SecretFileError::Io { path: path.to_owned(), source })
}

/// Overwrites a secret file with zeros and removes it. None there is no error.
pub fn destroy(path: &Path) -> Result<(), SecretFileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let destroy = || {
        let length = usize::try_from(fs::metadata(path)?.len()).unwrap_or(0);
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(&vec![0; length])?;
        file.sync_all()?;
        fs::remove_file(path)?;
        File::open(directory)?.sync_all()
    };
    match destroy() {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SecretFileError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A link, unlike a rename, does not replace what another process made meanwhile.
        let linked = match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        };
        fs::remove_file(&temporary)?;
        linked?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| SecretFileError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(byte: u8) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
        Ok(Zeroizing::new(vec![byte; 4]))
    }

    #[test]
    fn a_secret_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/secret");
        assert_eq!(load_or_make(&path, || made(1)).unwrap().as_slice(), [1; 4]);
        assert_eq!(load_or_make(&path, || made(2)).unwrap().as_slice(), [1; 4]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        load_or_make(&path, || made(1)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load_or_make(&path, || made(1)), Err(SecretFileError::TooOpen { mode: 0o640, .. })));
    }
}
