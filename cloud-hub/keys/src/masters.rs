//! The master key, and while it is being replaced the one before and the one after, each in a file of its own.
//!
//! ```text
//! master.key           seals and opens
//! master-next.key      opens; made by the first half of a rotation, and copied to the other hubs if there are some
//! master-previous.key  opens, until nothing is sealed under it any more
//! ```
//!
//! In: the folder of the keys. Out: seals. A crash between any two steps leaves files with which everything opens, and the same
//! rotation goes on with them. A seal under a key that is not known makes the files be read again: another hub may have begun.
//! Deliberately absent: which rows there are to be sealed anew (`keys::rotation`).

use std::path::Path;
use std::sync::Arc;

use gallery_log::seal::{KeyId, key_id};
use gallery_log::{SealContext, SealKey};
use parking_lot::RwLock;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::KeysError;
use super::succession::Succession;
use hub_domain::vault::VaultError;

/// The master keys of one hub.
pub(super) struct Masters {
    files: Succession,
    /// The one that seals first.
    known: RwLock<Arc<Vec<SealKey>>>,
}

impl Masters {
    /// Reads the keys in `dir`, making the first one if there is none.
    pub(super) fn open(dir: &Path) -> Result<Self, KeysError> {
        let files = Succession::open(dir, "master")?;
        let known = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, known })
    }

    /// The id of the key that seals.
    pub(super) fn current(&self) -> KeyId {
        self.known.read()[0].id()
    }

    /// Seals under the present key.
    pub(super) fn seal(&self, context: &SealContext<'_>, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        Ok(self.known.read()[0].seal(context, plain)?)
    }

    /// Opens what any of the keys has sealed.
    pub(super) fn unseal(&self, context: &SealContext<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        let wanted = key_id(sealed).map_err(VaultError::from)?;
        let of = |keys: &[SealKey]| keys.iter().find(|key| key.id() == wanted).cloned();
        let known = of(&self.known.read());
        let key = match known {
            Some(key) => key,
            None => of(&self.read_again()?).ok_or(KeysError::OtherMaster(wanted))?,
        };
        Ok(key.open(context, sealed).map_err(VaultError::from)?)
    }

    /// The same under the present key, if it was sealed under another one.
    pub(super) fn reseal(&self, context: &SealContext<'_>, sealed: &[u8]) -> Result<Option<Vec<u8>>, KeysError> {
        if key_id(sealed) == Ok(self.current()) {
            return Ok(None);
        }
        Ok(Some(self.seal(context, &self.unseal(context, sealed)?)?))
    }

    /// Makes the next key, unless there is one.
    pub(super) fn prepare(&self) -> Result<(), KeysError> {
        self.files.prepare()?;
        self.read_again().map(drop)
    }

    /// Puts the next key in the place of the present one, which goes on opening. Nothing changes if there is no next one.
    pub(super) fn switch(&self) -> Result<(), KeysError> {
        self.files.switch(KeysError::MasterUnderWay)?;
        self.read_again().map(drop)
    }

    /// Destroys the key before. Everything must have been sealed anew.
    pub(super) fn retire(&self) -> Result<(), KeysError> {
        self.files.end()?;
        self.read_again().map(drop)
    }

    /// Whether there is a key that is to be retired.
    pub(super) fn has_previous(&self) -> bool {
        self.files.has_previous()
    }

    /// When this hub began to seal under another key than the one before.
    pub(super) fn switched_at(&self) -> Option<OffsetDateTime> {
        self.files.switched_at()
    }

    /// Whether there is a key that is to take the place of the present one.
    pub(super) fn has_next(&self) -> bool {
        self.files.has_next()
    }

    fn read_again(&self) -> Result<Arc<Vec<SealKey>>, KeysError> {
        let keys = Arc::new(read(&self.files)?);
        *self.known.write() = Arc::clone(&keys);
        Ok(keys)
    }
}

fn read(files: &Succession) -> Result<Vec<SealKey>, KeysError> {
    Ok(files.read()?.into_iter().map(|of| SealKey::new(*of.key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gallery_log::{Purpose, TenantId};
    use uuid::Uuid;

    const CURRENT: &str = "master.key";
    const NEXT: &str = "master-next.key";
    const PREVIOUS: &str = "master-previous.key";

    fn context() -> SealContext<'static> {
        SealContext::new(Purpose::TENANT_KEY, TenantId(Uuid::from_u128(1)), Uuid::from_u128(1), 1)
    }

    #[test]
    fn a_rotation_opens_everything_at_each_step_and_the_old_key_is_gone_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let masters = Masters::open(dir.path()).unwrap();
        let (first, sealed) = (masters.current(), masters.seal(&context(), b"key").unwrap());
        let opens = |masters: &Masters| masters.unseal(&context(), &sealed).is_ok_and(|plain| *plain == b"key");
        masters.prepare().unwrap();
        assert!(opens(&masters) && masters.current() == first);
        masters.switch().unwrap();
        assert!(opens(&masters) && masters.current() != first && masters.has_previous());
        masters.switch().unwrap();
        let again = masters.reseal(&context(), &sealed).unwrap().unwrap();
        assert!(masters.reseal(&context(), &again).unwrap().is_none());
        // A crash between any two steps: whoever starts anew finds all keys.
        assert!(opens(&Masters::open(dir.path()).unwrap()));
        masters.retire().unwrap();
        assert!(matches!(masters.unseal(&context(), &sealed), Err(KeysError::OtherMaster(id)) if id == first));
        assert_eq!(*masters.unseal(&context(), &again).unwrap(), b"key");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no other key is left");
    }

    #[test]
    fn a_crash_before_the_new_key_is_in_its_place_is_made_good_and_two_rotations_are_not_mixed() {
        let dir = tempfile::tempdir().unwrap();
        let masters = Masters::open(dir.path()).unwrap();
        let (first, sealed) = (masters.current(), masters.seal(&context(), b"key").unwrap());
        masters.prepare().unwrap();
        std::fs::copy(dir.path().join(CURRENT), dir.path().join(PREVIOUS)).unwrap();
        let masters = Masters::open(dir.path()).unwrap();
        assert_eq!(masters.current(), first);
        masters.switch().unwrap();
        assert_ne!(masters.current(), first);
        assert!(masters.unseal(&context(), &sealed).is_ok());
        masters.prepare().unwrap();
        assert!(matches!(masters.switch(), Err(KeysError::MasterUnderWay)));
        assert!(masters.unseal(&context(), &sealed).is_ok());
    }

    #[test]
    fn a_key_that_another_hub_has_begun_with_is_found_when_it_is_needed() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Masters::open(one.path()).unwrap();
        std::fs::copy(one.path().join(CURRENT), other.path().join(CURRENT)).unwrap();
        let second = Masters::open(other.path()).unwrap();
        first.prepare().unwrap();
        std::fs::copy(one.path().join(NEXT), other.path().join(NEXT)).unwrap();
        first.switch().unwrap();
        let sealed = first.seal(&context(), b"key").unwrap();
        assert_eq!(*second.unseal(&context(), &sealed).unwrap(), b"key");
    }
}
