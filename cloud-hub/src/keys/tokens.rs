//! The keys that sign access tokens: one that signs, and the one before it, which goes on verifying.
//!
//! In: the folder of the hub's keys. Out: tokens, and claims of tokens that are good. A key of its own: whoever gets at it can speak
//! as a user for as long as it is there, but cannot make devices believe anything.

use std::path::Path;

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::access_token::{self, Claims, Known, Untrue};
use super::{KeysError, signing};
use crate::secret_file::{self, SecretFileError};

/// The key that signs.
const FILE: &str = "jwt.p8";
/// The key that signed before, if there is one.
const PREVIOUS: &str = "jwt-previous.p8";

/// The keys of tokens.
pub struct TokenKeys {
    pair: Ed25519KeyPair,
    /// The present one first.
    known: Vec<Known>,
}

impl TokenKeys {
    /// Reads the keys in `dir`, making one at the first start.
    pub(super) fn load_or_make(dir: &Path) -> Result<Self, KeysError> {
        let path = dir.join(FILE);
        let pkcs8 = secret_file::load_or_make(&path, || {
            let document =
                Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| gallery_log::keys::NoRandomness)?;
            Ok::<_, KeysError>(Zeroizing::new(document.as_ref().to_vec()))
        })?;
        let pair = read(&pkcs8, &path)?;
        let mut known = vec![known(&pair)];
        let path = dir.join(PREVIOUS);
        match secret_file::load(&path) {
            Ok(pkcs8) => known.push(self::known(&read(&pkcs8, &path)?)),
            Err(SecretFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { pair, known })
    }

    /// A token of these claims.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        access_token::sign(&self.pair, &self.known[0], claims)
    }

    /// The claims of a token that one of these keys has signed and that is good at `now`.
    pub fn verify(&self, text: &str, now: OffsetDateTime) -> Result<Claims, Untrue> {
        access_token::verify(text, &self.known, now)
    }

    /// The public halves, the present one first.
    #[must_use]
    pub fn public(&self) -> &[Known] {
        &self.known
    }
}

fn read(pkcs8: &[u8], path: &Path) -> Result<Ed25519KeyPair, KeysError> {
    Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| KeysError::Damaged { path: path.to_owned() })
}

fn known(pair: &Ed25519KeyPair) -> Known {
    let public = pair.public_key().as_ref();
    Known::new(signing::id_of(public), public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_the_one_before_it_goes_on_verifying() {
        let dir = tempfile::tempdir().unwrap();
        let first = TokenKeys::load_or_make(dir.path()).unwrap();
        assert_eq!(TokenKeys::load_or_make(dir.path()).unwrap().known[0].kid, first.known[0].kid);
        std::fs::rename(dir.path().join(FILE), dir.path().join(PREVIOUS)).unwrap();
        let second = TokenKeys::load_or_make(dir.path()).unwrap();
        assert_ne!(second.known[0].kid, first.known[0].kid);
        assert_eq!(second.known[1].kid, first.known[0].kid);
    }
}
