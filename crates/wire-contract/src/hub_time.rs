//! The hub's time for a device that cannot believe its own clock: `POST /v1/time`.
//!
//! In: 32 random bytes of the device. Out: the same bytes with the hub's time, signed by a key that the device pinned at
//! its claim. It is the one request for which a device does not hold the dates of the hub's certificate against its own
//! clock; it holds them against the answer instead. Anybody may ask, and learns nothing but the time.
//! Deliberately absent: who asks, TLS, clocks.

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::claim::HubKey;
use crate::encoding::{Bytes, V1, string_serde};
use crate::link::push_field;
use crate::succession::Succession;
use crate::time::Timestamp;

/// 32 random bytes that make an answer the answer to one question: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 32]);

/// The text is not a nonce.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a nonce has 64 hex digits, found {found} characters that are not")]
pub struct NonceError {
    /// How many characters there were.
    pub found: usize,
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({self})")
    }
}

impl FromStr for Nonce {
    type Err = NonceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NonceError { found: text.chars().count() })?;
        Ok(Self(bytes))
    }
}

string_serde!(Nonce, "Nonce", "^[0-9a-f]{64}$");

/// `POST /v1/time`. Unknown fields are rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubTimeRequest {
    /// Payload version.
    pub v: V1,
    /// Random, new for each question.
    pub nonce: Nonce,
}

/// The hub's time, signed by an HSK over (`lintel.hub-time.v1`, nonce, Unix milliseconds), each with its length in front.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HubTime {
    /// Payload version.
    pub v: V1,
    /// The question's.
    pub nonce: Nonce,
    /// The time.
    pub time: Timestamp,
    /// The HSK.
    pub key_id: Uuid,
    /// Ed25519, 64 bytes.
    pub signature: Bytes,
    /// By which the signing keys that the device pinned lead to the present one; none as long as it was never replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub successions: Vec<Succession>,
}

/// A time that is not the hub's answer to this question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HubTimeError {
    /// An answer to another question, perhaps replayed.
    #[error("the hub's time answers another question")]
    OtherNonce,
    /// Signed by a key that is not pinned.
    #[error("the hub's time was signed by key {found}, which is not pinned")]
    UnknownKey {
        /// The key.
        found: Uuid,
    },
    /// The signature is wrong.
    #[error("the signature of the hub's time is wrong")]
    NotAuthentic,
}

impl HubTime {
    /// Signs a time.
    pub fn sign(key_pair: &Ed25519KeyPair, key_id: Uuid, nonce: Nonce, time: Timestamp) -> Self {
        let signature = key_pair.sign(&signed_bytes(&nonce, time));
        Self { v: V1, nonce, time, key_id, signature: Bytes(signature.as_ref().to_vec()), successions: Vec::new() }
    }

    /// The time, if a pinned key signed it for this question.
    pub fn verify(&self, keys: &[HubKey], nonce: &Nonce) -> Result<Timestamp, HubTimeError> {
        if self.nonce != *nonce {
            return Err(HubTimeError::OtherNonce);
        }
        let unknown = HubTimeError::UnknownKey { found: self.key_id };
        let key = keys.iter().find(|key| key.key_id == self.key_id).ok_or(unknown)?;
        UnparsedPublicKey::new(&ED25519, &key.public_key.0)
            .verify(&signed_bytes(nonce, self.time), &self.signature.0)
            .map_err(|_| HubTimeError::NotAuthentic)?;
        Ok(self.time)
    }
}

fn signed_bytes(nonce: &Nonce, time: Timestamp) -> Vec<u8> {
    let mut out = Vec::new();
    for field in [&b"lintel.hub-time.v1"[..], &nonce.0, &time.unix_ms().to_be_bytes()] {
        push_field(&mut out, field);
    }
    out
}

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair as _;

    use super::*;
    use crate::claim::SignedTime;

    #[test]
    fn a_hubs_time_counts_for_one_question_and_pinned_keys_only() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key_id = Uuid::from_u128(1);
        let keys = [HubKey { key_id, public_key: Bytes(pair.public_key().as_ref().to_vec()) }];
        let (nonce, other) = (Nonce([2; 32]), Nonce([3; 32]));
        let at = Timestamp::from_unix_ms(1_795_343_851_042);
        let signed = HubTime::sign(&pair, key_id, nonce, at);
        assert_eq!(signed.verify(&keys, &nonce), Ok(at));
        assert_eq!(signed.verify(&keys, &other), Err(HubTimeError::OtherNonce));
        assert_eq!(signed.verify(&[], &nonce), Err(HubTimeError::UnknownKey { found: key_id }));
        let moved = HubTime { time: Timestamp::from_unix_ms(1), ..signed.clone() };
        assert_eq!(moved.verify(&keys, &nonce), Err(HubTimeError::NotAuthentic));
        let renamed = HubTime { nonce: other, ..signed };
        assert_eq!(renamed.verify(&keys, &other), Err(HubTimeError::NotAuthentic));
    }

    #[test]
    fn a_time_that_was_signed_for_a_claim_is_no_answer_here() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key_id = Uuid::from_u128(1);
        let keys = [HubKey { key_id, public_key: Bytes(pair.public_key().as_ref().to_vec()) }];
        let at = Timestamp::from_unix_ms(5);
        let claimed = SignedTime::sign(&pair, key_id, Uuid::from_u128(9), at);
        let posed = HubTime { signature: claimed.signature, ..HubTime::sign(&pair, key_id, Nonce([0; 32]), at) };
        assert_eq!(posed.verify(&keys, &Nonce([0; 32])), Err(HubTimeError::NotAuthentic));
    }
}
