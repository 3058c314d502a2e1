//! Passwords: Argon2id, a few at once, away from the async workers.
//!
//! In: what was typed, and what is stored. Out: whether they fit, or what to store. Somebody who is not there costs the same time:
//! [`Passwords::fits`] without a stored password computes all the same.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use gallery_log::keys::NoRandomness;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use super::KeysError;

const SALT: usize = 16;
const HASH: usize = 32;
/// What is stored: salt, then hash.
pub(super) const STORED: usize = SALT + HASH;
/// OWASP's first choice for Argon2id. With [`AT_ONCE`] this bounds what log-ins may take of the memory.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Computed at once; each takes some 20 ms of a processor.
const AT_ONCE: usize = 2;
/// Those that may wait for a place. Beyond it people are told to come again instead of waiting for nothing.
const WAITING: usize = 64;

/// Places for computations.
#[derive(Debug)]
pub(super) struct Passwords {
    places: Semaphore,
    queue: Arc<Semaphore>,
}

/// A place in the queue. Whoever counts attempts takes one first: what is not looked at is no failure.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE), queue: Arc::new(Semaphore::new(AT_ONCE + WAITING)) }
    }
}

impl Passwords {
    /// A place in the queue, unless too many wait.
    pub(super) fn place(&self) -> Result<Place, KeysError> {
        let permit = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| KeysError::TooManyPasswords)?;
        Ok(Place { _permit: permit })
    }

    /// What to store of a password.
    pub(super) async fn hash(&self, password: Zeroizing<String>) -> Result<[u8; STORED], KeysError> {
        let mut salt = [0_u8; SALT];
        SystemRandom::new().fill(&mut salt).map_err(|_| NoRandomness)?;
        let hash = self.compute(self.place()?, password, salt).await?;
        let mut stored = [0; STORED];
        stored[..SALT].copy_from_slice(&salt);
        stored[SALT..].copy_from_slice(hash.as_slice());
        Ok(stored)
    }

    /// Whether a password is the one of which this is stored; never without one, and no sooner.
    pub(super) async fn fits(
        &self,
        place: Place,
        password: Zeroizing<String>,
        stored: Option<[u8; STORED]>,
    ) -> Result<bool, KeysError> {
        let (salt, wanted) = stored.as_ref().map_or((&[0; SALT][..], &[0; HASH][..]), |stored| stored.split_at(SALT));
        let salt = salt.try_into().expect("it was split there");
        let hash = self.compute(place, password, salt).await?;
        Ok(same(hash.as_slice(), wanted) && stored.is_some())
    }

    async fn compute(
        &self,
        _waiting: Place,
        password: Zeroizing<String>,
        salt: [u8; SALT],
    ) -> Result<Zeroizing<[u8; HASH]>, KeysError> {
        let _turn = self.places.acquire().await.map_err(|_| KeysError::Crashed)?;
        let computed = tokio::task::spawn_blocking(move || {
            let params = Params::new(MEMORY_KIB, PASSES, 1, Some(HASH)).expect("these parameters are within bounds");
            let mut hash = Zeroizing::new([0; HASH]);
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(password.as_bytes(), &salt, hash.as_mut_slice())
                .map(|()| hash)
        });
        computed.await.map_err(|_| KeysError::Crashed)?.map_err(|_| KeysError::Crashed)
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ: their MACs are compared.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, other);
    hmac::verify(&key, one, hmac::sign(&key, other).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_what_was_stored_of_it_and_nothing_else_does() {
        let passwords = Passwords::default();
        let typed = |text: &str| Zeroizing::new(text.to_owned());
        let stored = passwords.hash(typed("correct horse")).await.unwrap();
        assert!(passwords.fits(passwords.place().unwrap(), typed("correct horse"), Some(stored)).await.unwrap());
        assert!(!passwords.fits(passwords.place().unwrap(), typed("correct horsf"), Some(stored)).await.unwrap());
        assert!(!passwords.fits(passwords.place().unwrap(), typed("correct horse"), None).await.unwrap());
        assert_ne!(passwords.hash(typed("correct horse")).await.unwrap(), stored, "a salt of its own");
    }
}
