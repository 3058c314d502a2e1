//! The pepper, and while it is being replaced the one before and the one after, each in a file of its own.
//!
//! ```text
//! pepper.key           makes MACs of secrets, and is tried
//! pepper-next.key      is tried; made by the first half of a rotation, and copied to the other hubs if there are some
//! pepper-previous.key  is tried, until the operator forgets it
//! ```
//!
//! In: the folder of the keys, and secrets as their owners show them. Out: MACs, and by which pepper one was made. Nobody but the owner
//! of a secret has it, so that nothing can be made anew before it is shown. The files are read again every two seconds: another hub may
//! have begun, and what it makes cannot say so. A secret is held against every pepper there is, whichever fits, in constant time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use ring::hmac;
use tokio::time::Instant;

use super::KeysError;
use super::keyring::tag;
use super::succession::{Succession, Successive};
use hub_store::credentials::NewMac;

/// How long the files are believed to be as they were read.
const BELIEVED: Duration = Duration::from_secs(2);

/// Which pepper, as rows name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PepperId(pub(super) [u8; 16]);

struct Pepper {
    id: PepperId,
    key: hmac::Key,
    is_previous: bool,
}

/// The peppers of one hub.
pub(super) struct Peppers {
    files: Succession,
    /// The one that makes MACs first, and when they were read.
    known: RwLock<(Arc<Vec<Pepper>>, Instant)>,
}

/// By which pepper a MAC was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MadeBy {
    pub(super) pepper: PepperId,
    /// It is one that is to be forgotten.
    pub(super) is_previous: bool,
}

impl Peppers {
    /// Reads the peppers in `dir`, making the first one if there is none.
    pub(super) fn open(dir: &Path) -> Result<Self, KeysError> {
        let files = Succession::open(dir, "pepper")?;
        let known = RwLock::new((Arc::new(read(&files)?), Instant::now()));
        Ok(Self { files, known })
    }

    /// The one that makes MACs.
    pub(super) fn current(&self) -> PepperId {
        self.known()[0].id
    }

    /// The MAC of a message.
    pub(super) fn tag(&self, message: &[u8]) -> [u8; 32] {
        tag(&self.known()[0].key, message)
    }

    /// The MAC of a message, and which pepper makes it.
    pub(super) fn make(&self, message: &[u8]) -> NewMac {
        let known = self.known();
        NewMac { mac: tag(&known[0].key, message), pepper: known[0].id.0 }
    }

    /// The MACs that a message may have been given, the present one first.
    pub(super) fn tags(&self, message: &[u8]) -> Vec<[u8; 32]> {
        self.known().iter().map(|pepper| tag(&pepper.key, message)).collect()
    }

    /// By which pepper this MAC of the message was made, if by any.
    pub(super) fn made_by(&self, message: &[u8], mac: &[u8]) -> Option<MadeBy> {
        let mut found = None;
        for pepper in self.known().iter() {
            // All of them, whichever fits.
            if hmac::verify(&pepper.key, message, mac).is_ok() {
                found = Some(MadeBy { pepper: pepper.id, is_previous: pepper.is_previous });
            }
        }
        found
    }

    /// Makes the next pepper, unless there is one.
    pub(super) fn prepare(&self) -> Result<(), KeysError> {
        self.files.prepare()?;
        self.read_again().map(drop)
    }

    /// Puts the next pepper in the place of the present one, which goes on being tried. Nothing changes if there is no next one.
    pub(super) fn switch(&self) -> Result<(), KeysError> {
        self.files.switch(KeysError::PepperUnderWay)?;
        self.read_again().map(drop)
    }

    /// Destroys the pepper before: what was made by it fits no more.
    pub(super) fn forget(&self) -> Result<(), KeysError> {
        self.files.end()?;
        self.read_again().map(drop)
    }

    /// Whether there is a pepper that is to be forgotten.
    pub(super) fn has_previous(&self) -> bool {
        self.files.has_previous()
    }

    /// Whether there is a pepper that is to take the place of the present one.
    pub(super) fn has_next(&self) -> bool {
        self.files.has_next()
    }

    fn known(&self) -> Arc<Vec<Pepper>> {
        let (known, read) = { self.known.read().clone() };
        if read.elapsed() < BELIEVED {
            return known;
        }
        // Files that cannot be read for a moment are as they were.
        self.read_again().unwrap_or(known)
    }

    fn read_again(&self) -> Result<Arc<Vec<Pepper>>, KeysError> {
        let peppers = Arc::new(read(&self.files)?);
        *self.known.write() = (Arc::clone(&peppers), Instant::now());
        Ok(peppers)
    }
}

fn read(files: &Succession) -> Result<Vec<Pepper>, KeysError> {
    let pepper = |of: Successive| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, of.key.as_slice());
        let id = *tag(&key, b"lintel.pepper.id.v1").first_chunk().expect("a tag has 32 bytes");
        Pepper { id: PepperId(id), key, is_previous: of.is_previous }
    };
    Ok(files.read()?.into_iter().map(pepper).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: &str = "pepper.key";
    const NEXT: &str = "pepper-next.key";

    #[test]
    fn what_was_made_before_fits_until_the_pepper_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let peppers = Peppers::open(dir.path()).unwrap();
        let (first, mac) = (peppers.current(), peppers.tag(b"secret"));
        let fits = |peppers: &Peppers| peppers.made_by(b"secret", &mac);
        peppers.prepare().unwrap();
        assert_eq!((peppers.current(), fits(&peppers).unwrap().is_previous), (first, false));
        peppers.switch().unwrap();
        assert_eq!(fits(&peppers), Some(MadeBy { pepper: first, is_previous: true }));
        assert!(peppers.current() != first && peppers.tag(b"secret") != mac && peppers.has_previous());
        assert_eq!(peppers.tags(b"secret"), [peppers.tag(b"secret"), mac]);
        assert!(peppers.made_by(b"other", &mac).is_none());
        // A restart between any two steps, and the same step again.
        peppers.switch().unwrap();
        assert!(fits(&Peppers::open(dir.path()).unwrap()).is_some());
        peppers.prepare().unwrap();
        assert!(matches!(peppers.switch(), Err(KeysError::PepperUnderWay)), "two rotations do not mix");
        peppers.forget().unwrap();
        assert!(fits(&peppers).is_none() && !peppers.has_previous());
    }

    #[test]
    fn a_pepper_that_another_hub_has_begun_with_is_found_within_seconds() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Peppers::open(one.path()).unwrap();
        std::fs::copy(one.path().join(CURRENT), other.path().join(CURRENT)).unwrap();
        let second = Peppers::open(other.path()).unwrap();
        first.prepare().unwrap();
        std::fs::copy(one.path().join(NEXT), other.path().join(NEXT)).unwrap();
        first.switch().unwrap();
        let read = second.known.read().1.checked_sub(BELIEVED).unwrap();
        second.known.write().1 = read;
        let made_by = second.made_by(b"secret", &first.tag(b"secret")).unwrap();
        assert!(!made_by.is_previous && made_by.pepper == first.current() && made_by.pepper != second.current());
    }
}
