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
    change_folder(path, path, || fs::rename(beside(path, bytes)?, path))
}

/// Puts one secret file in the place of another, at once; on disk when this returns.
pub fn put_in_place(from: &Path, to: &Path) -> Result<(), SecretFileError> {
    change_folder(to, from, || fs::rename(from, to))
}

/// Gives a secret file a second name, by which its very bytes can be destroyed when another one has its first; on disk when this returns.
pub fn name_again(path: &Path, second: &Path) -> Result<(), SecretFileError> {
    change_folder(second, second, || fs::hard_link(path, second))
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
    change_folder(path, path, || fs::remove_file(path))
}

/// Overwrites a secret file with zeros and removes it. None there is no error.
pub fn destroy(path: &Path) -> Result<(), SecretFileError> {
    let destroyed = change_folder(path, path, || {
        let length = usize::try_from(fs::metadata(path)?.len()).unwrap_or(0);
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(&vec![0; length])?;
        file.sync_all()?;
        fs::remove_file(path)
    });
    match destroyed {
        Err(SecretFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        destroyed => destroyed,
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    change_folder(path, path, || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let temporary = beside(path, bytes)?;
        // A link, unlike a rename, does not replace what another process made meanwhile.
        let linked = match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        };
        fs::remove_file(&temporary)?;
        linked
    })
}

/// Makes a file of a secret beside the one that it is to become, on disk when this returns.
fn beside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

/// Changes the folder in which a file is, on disk when this returns; an error names the file that is `told`.
fn change_folder(of: &Path, told: &Path, change: impl FnOnce() -> io::Result<()>) -> Result<(), SecretFileError> {
    let changed = change().and_then(|()| File::open(of.parent().unwrap_or(Path::new(".")))?.sync_all());
    changed.map_err(|source| SecretFileError::Io { path: told.to_owned(), source })
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

    #[test]
    fn two_names_of_one_file_are_told_from_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let [path, second, copy, none] = ["one", "second", "copy", "none"].map(|name| dir.path().join(name));
        load_or_make(&path, || made(1)).unwrap();
        load_or_make(&copy, || made(1)).unwrap();
        name_again(&path, &second).unwrap();
        assert!(is_one_file(&path, &second).unwrap() && !is_one_file(&path, &copy).unwrap());
        assert!(!is_one_file(&path, &none).unwrap() && !is_one_file(&none, &none).unwrap());
        // Neither is there and not there.
        let under = path.join("under");
        let error = is_one_file(&path, &under).unwrap_err().to_string();
        assert!(error.contains("under"), "{error}");
    }

    #[test]
    fn a_destroyed_secret_is_zeros_under_its_other_names_too() {
        let dir = tempfile::tempdir().unwrap();
        let [path, second, next] = ["one", "second", "next"].map(|name| dir.path().join(name));
        load_or_make(&path, || made(1)).unwrap();
        name_again(&path, &second).unwrap();
        load_or_make(&next, || made(2)).unwrap();
        put_in_place(&next, &path).unwrap();
        assert_eq!((load(&path).unwrap().as_slice(), load(&second).unwrap().as_slice()), (&[2; 4][..], &[1; 4][..]));
        let third = dir.path().join("third");
        name_again(&second, &third).unwrap();
        destroy(&second).unwrap();
        assert_eq!(load(&third).unwrap().as_slice(), [0; 4]);
        destroy(&second).unwrap();
        remove_name(&third).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(remove_name(&third).unwrap_err().to_string().contains("third"));
    }
}
