//! A small file of the agent's state that survives a power cut and tells damage: a hash in the first line, JSON behind it.
//!
//! In: a value. Out: the value, nothing when it was never written, or an error when it is not what was written: what that
//! means is the owner's to decide, and written down there. The hash tells damage, not forgery: whoever can write the state
//! directory is the agent. Deliberately absent: versions of the content, which are the owner's.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::{FileError, read_optional, remove_file, write_atomically};

/// Why a state is not known.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what was written.
    #[error("{path}: is damaged", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// One such file.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file of this name in a directory that exists.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { path: dir.join(name) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was written last; none when nothing ever was.
    ///
    /// # Errors
    /// A file that cannot be read, or is not what was written.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, StateFileError> {
        let Some(bytes) = read_optional(&self.path)? else { return Ok(None) };
        let damaged = || StateFileError::Damaged { path: self.path.clone() };
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let (hash, json) = (&bytes[..end], &bytes[end + 1..]);
        if hash != hex::encode(digest(&SHA256, json)).as_bytes() {
            return Err(damaged());
        }
        serde_json::from_slice(json).map(Some).map_err(|_| damaged())
    }

    /// Replaces it; on disk when this returns.
    ///
    /// # Errors
    /// A file that cannot be written: the old one is still there, whole.
    pub fn write(&self, value: &impl Serialize) -> Result<(), StateFileError> {
        let json = serde_json::to_vec(value).expect("states are plain structs with string keys");
        let mut bytes = hex::encode(digest(&SHA256, &json)).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&json);
        Ok(write_atomically(&self.path, &bytes)?)
    }

    /// Removes it; a missing one is fine.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(&self) -> Result<(), StateFileError> {
        Ok(remove_file(&self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_comes_back_and_what_was_changed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "doors.state");
        assert!(file.read::<Vec<String>>().unwrap().is_none());
        file.write(&vec!["main".to_owned()]).unwrap();
        assert_eq!(file.read::<Vec<String>>().unwrap().unwrap(), ["main"]);
        let whole = std::fs::read(file.path()).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(file.path(), &flipped).unwrap();
            assert!(file.read::<Vec<String>>().is_err(), "bit of byte {at}");
            std::fs::write(file.path(), &whole[..at]).unwrap();
            assert!(file.read::<Vec<String>>().is_err(), "cut at {at}");
        }
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(file.read::<Vec<String>>().unwrap().is_none());
    }
}
