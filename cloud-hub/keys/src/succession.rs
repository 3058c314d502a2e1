//! A key of the hub's own that another one follows, in three files.
//!
//! ```text
//! NAME.key           in use
//! NAME-next.key      made by the first half of a rotation, and copied to the other hubs if there are some
//! NAME-previous.key  the one before, until nobody needs it
//! ```
//!
//! In: the folder of the keys and the names. Out: keys, the one in use first. A crash between any two steps leaves files with which
//! everything goes on, and the same rotation with them. Deliberately absent: what a key is for, and when one before is needed no more.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::KeysError;
use super::keyring::{exact, key_file};
use hub_host::secret_file::{self, SecretFileError};

/// The files of one key.
pub(super) struct Succession {
    current: PathBuf,
    next: PathBuf,
    previous: PathBuf,
    /// One step of a rotation at a time.
    changing: Mutex<()>,
}

/// One of the keys that there are.
pub(super) struct Successive {
    pub(super) key: Zeroizing<[u8; 32]>,
    /// It is the one before.
    pub(super) is_previous: bool,
}

impl Succession {
    /// The files of the key `name` in `dir`; the first key is made if there is none.
    pub(super) fn open(dir: &Path, name: &str) -> Result<Self, KeysError> {
        let file = |which: &str| dir.join(format!("{name}{which}.key"));
        let (current, next, previous) = (file(""), file("-next"), file("-previous"));
        key_file(current.clone())?;
        Ok(Self { current, next, previous, changing: Mutex::default() })
    }

    /// The keys that there are: the one in use, the next one, the one before.
    pub(super) fn read(&self) -> Result<Vec<Successive>, KeysError> {
        let mut keys = Vec::new();
        for path in [&self.current, &self.next, &self.previous] {
            match secret_file::load(path) {
                Ok(bytes) => {
                    let key = exact(&bytes).map_err(|_| KeysError::Damaged { path: path.clone() })?;
                    keys.push(Successive { key, is_previous: path == &self.previous });
                }
                Err(SecretFileError::Io { source, .. })
                    if path != &self.current && source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(keys)
    }

    /// Makes the next key, unless there is one.
    pub(super) fn prepare(&self) -> Result<(), KeysError> {
        let _alone = self.changing.lock();
        key_file(self.next.clone()).map(drop)
    }

    /// Puts the next key in the place of the one in use, which is kept. Nothing changes if there is no next one; `under_way` if another
    /// one is still kept.
    pub(super) fn switch(&self, under_way: KeysError) -> Result<(), KeysError> {
        let _alone = self.changing.lock();
        if !self.next.exists() {
            return Ok(());
        }
        let present = Zeroizing::new(key_file(self.current.clone())?.to_vec());
        let kept = secret_file::load_or_make(&self.previous, || Ok::<_, KeysError>(present.clone()))?;
        if kept != present {
            return Err(under_way);
        }
        // Again, if a crash left it: it is as old as the change.
        secret_file::replace(&self.previous, &kept)?;
        Ok(secret_file::put_in_place(&self.next, &self.current)?)
    }

    /// Destroys the key before.
    pub(super) fn end(&self) -> Result<(), KeysError> {
        let _alone = self.changing.lock();
        Ok(secret_file::destroy(&self.previous)?)
    }

    /// Whether there is a key that is to take the place of the one in use.
    pub(super) fn has_next(&self) -> bool {
        self.next.exists()
    }

    /// Whether there is a key before.
    pub(super) fn has_previous(&self) -> bool {
        self.previous.exists()
    }

    /// When the one in use took the place of the one before.
    pub(super) fn switched_at(&self) -> Option<OffsetDateTime> {
        std::fs::metadata(&self.previous).and_then(|file| file.modified()).ok().map(OffsetDateTime::from)
    }
}
