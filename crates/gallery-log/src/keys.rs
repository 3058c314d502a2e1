//! Keys: made from the system's randomness, derived by HKDF-SHA256, wiped from memory when dropped.
//!
//! In: a parent key and the words that say what the child is for. Out: 32 bytes in [`Zeroizing`], or a key type.
//! Deliberately absent: where keys are kept, and which key is under which (protocol.md, "Keys").

use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::lengths::push_field;

/// The length of every symmetric key here, in bytes.
pub const KEY_LEN: usize = 32;

/// 32 secret bytes that are wiped when dropped.
pub type KeyBytes = Zeroizing<[u8; KEY_LEN]>;

/// The operating system gave no random bytes; nothing secret may be made until it does.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random generator failed; no key or nonce can be made")]
pub struct NoRandomness;

/// A new random key of 256 bits.
pub fn random_key() -> Result<KeyBytes, NoRandomness> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    SystemRandom::new().fill(bytes.as_mut()).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Derives a key by HKDF-SHA256 with `salt` (a fixed label of the use), from `parent`, for the given `context`.
///
/// The context's fields are length-prefixed, so `["ab", "c"]` and `["a", "bc"]` give different keys.
pub fn derive(parent: &[u8; KEY_LEN], salt: &str, context: &[&[u8]]) -> KeyBytes {
    let mut info = Vec::new();
    for field in context {
        push_field(&mut info, field);
    }
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt.as_bytes()).extract(parent);
    let mut out = Zeroizing::new([0; KEY_LEN]);
    prk.expand(&[&info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(out.as_mut()))
        .expect("32 bytes is exactly one HKDF-SHA256 block, which is always allowed");
    out
}

/// GDK: the key of a gallery's digest, so that a root tells nothing about the bodies to whoever lacks it.
///
/// A new GDK means a new epoch of the gallery.
#[derive(Clone)]
pub struct DigestKey(KeyBytes);

impl DigestKey {
    /// Wraps the 32 bytes that came from the hub or from the device's own store.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A new random key.
    pub fn random() -> Result<Self, NoRandomness> {
        random_key().map(Self)
    }

    /// The bytes, to be sealed or sent over mutual TLS. Never log them.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    pub(crate) fn mac(&self, body: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_ref());
        let tag = hmac::sign(&key, body);
        tag.as_ref().try_into().expect("an HMAC-SHA256 tag has 32 bytes")
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_separates_derived_keys() {
        let parent = [7; KEY_LEN];
        let keys = [
            derive(&parent, "salt", &[b"ab", b"c"]),
            derive(&parent, "salt", &[b"a", b"bc"]),
            derive(&parent, "other", &[b"ab", b"c"]),
            derive(&[8; KEY_LEN], "salt", &[b"ab", b"c"]),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
        assert_eq!(keys[0], derive(&parent, "salt", &[b"ab", b"c"]));
    }

    #[test]
    fn derivation_is_hkdf_as_specified() {
        // From Python's hashlib, not from this code.
        let parent = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let expected = "e9be1e56aa79860c5ad7ca89f1c4579574ed1c18eb8a95c0181110d1196abc0c";
        assert_eq!(hex::encode(derive(&parent, "salt", &[b"ab", b"c"])), expected);
    }

    #[test]
    fn a_digest_key_is_the_bytes_it_was_made_of_and_a_random_one_is_nobody_elses() {
        let bytes = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(DigestKey::new(bytes).expose(), &bytes);
        let (one, other) = (DigestKey::random().unwrap(), DigestKey::random().unwrap());
        assert_ne!(one.expose(), other.expose());
        assert_ne!(random_key().unwrap(), random_key().unwrap());
    }

    #[test]
    fn a_digest_keys_mac_is_hmac_sha256() {
        // RFC 4231 has no key of 32 bytes; this is from Python's hmac, not from this code.
        let mac = DigestKey::new([0x55; 32]).mac(b"one");
        assert_eq!(hex::encode(mac), "6f505957339bc0519bcb0a82e5677a94d96b79d6800f773670252e87c0841fd6");
    }

    #[test]
    fn keys_do_not_print() {
        assert_eq!(format!("{:?}", DigestKey::new([1; 32])), "DigestKey(***)");
    }
}
