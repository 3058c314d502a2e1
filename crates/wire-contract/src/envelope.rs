//! The envelope of `up` payloads: `0x01 ‖ link epoch (u32, big-endian) ‖ HMAC (32) ‖ payload`.
//!
//! HMAC-SHA256 under K_up over topic, link epoch and payload, each with its length in front; so a broker can drop a
//! message, but neither forge one nor move it to another device or channel.
//!
//! In: a payload and its topic. Out: bytes for MQTT; and back. Telemetry (`up/tele`) goes without envelope.
//! `down` payloads are sealed instead (`gallery_log::seal`), see [`crate::link`].

use ring::hmac;

use crate::link::UpKey;

/// How many bytes the envelope adds.
pub const UP_OVERHEAD: usize = 1 + 4 + 32;

const VERSION: u8 = 1;

/// Why bytes are not an authentic `up` payload.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Shorter than the envelope.
    #[error("up payload has {found} bytes, the envelope alone has {UP_OVERHEAD}")]
    Truncated {
        /// How many bytes there are.
        found: usize,
    },
    /// Longer than any payload may be.
    #[error("up payload has {found} bytes, at most {} are allowed", crate::MAX_PAYLOAD_BYTES)]
    TooLong {
        /// How many bytes there are.
        found: usize,
    },
    /// Made by a newer program.
    #[error("up envelope format {found} is not known (this program knows {VERSION})")]
    UnknownVersion {
        /// The first byte.
        found: u8,
    },
    /// The key is of another epoch than the envelope.
    #[error("up payload is of link epoch {found}, the key of {expected}")]
    OtherEpoch {
        /// The key's epoch.
        expected: u32,
        /// The envelope's epoch.
        found: u32,
    },
    /// Forged, damaged, or sent on another topic.
    #[error("the HMAC of an up payload on {topic} is wrong")]
    NotAuthentic {
        /// The topic on which it came.
        topic: String,
    },
}

/// Wraps `payload` for `topic` under the device's present key.
pub fn wrap_up(key: &UpKey, topic: &str, payload: &[u8]) -> Vec<u8> {
    let tag = hmac::sign(key.hmac(), &signed_bytes(topic, key.epoch(), payload));
    let mut out = Vec::with_capacity(UP_OVERHEAD + payload.len());
    out.push(VERSION);
    out.extend_from_slice(&key.epoch().to_be_bytes());
    out.extend_from_slice(tag.as_ref());
    out.extend_from_slice(payload);
    out
}

/// An `up` payload that was taken apart but not yet verified: it says which key is needed, nothing more.
#[derive(Clone, Copy, Debug)]
pub struct Unverified<'a> {
    link_epoch: u32,
    mac: &'a [u8],
    payload: &'a [u8],
}

/// Takes an `up` payload apart.
pub fn parse_up(bytes: &[u8]) -> Result<Unverified<'_>, EnvelopeError> {
    if let Some(&version) = bytes.first()
        && version != VERSION
    {
        return Err(EnvelopeError::UnknownVersion { found: version });
    }
    if bytes.len() > crate::MAX_PAYLOAD_BYTES {
        return Err(EnvelopeError::TooLong { found: bytes.len() });
    }
    let truncated = EnvelopeError::Truncated { found: bytes.len() };
    let Some((head, payload)) = bytes.split_at_checked(UP_OVERHEAD) else { return Err(truncated) };
    let (epoch, mac) = head[1..].split_first_chunk::<4>().expect("the envelope has 36 bytes after its version");
    Ok(Unverified { link_epoch: u32::from_be_bytes(*epoch), mac, payload })
}

impl<'a> Unverified<'a> {
    /// The link epoch whose K_up is needed. Not authentic before [`Unverified::verify`].
    pub const fn link_epoch(&self) -> u32 {
        self.link_epoch
    }

    /// The payload, if its HMAC under `key` is right for `topic`.
    pub fn verify(&self, key: &UpKey, topic: &str) -> Result<&'a [u8], EnvelopeError> {
        if key.epoch() != self.link_epoch {
            return Err(EnvelopeError::OtherEpoch { expected: key.epoch(), found: self.link_epoch });
        }
        hmac::verify(key.hmac(), &signed_bytes(topic, self.link_epoch, self.payload), self.mac)
            .map_err(|_| EnvelopeError::NotAuthentic { topic: topic.chars().take(200).collect() })?;
        Ok(self.payload)
    }
}

fn signed_bytes(topic: &str, epoch: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + topic.len() + 4 + payload.len());
    for field in [topic.as_bytes(), &epoch.to_be_bytes(), payload] {
        crate::link::push_field(&mut out, field);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::ids::DeviceId;
    use crate::link::LinkKeys;

    const TOPIC: &str = "lintel/v1/x/y/up/evt";

    fn keys(epoch: u32) -> LinkKeys {
        let device = DeviceId(Uuid::from_u128(0x7071_7273_7475_7677_7879_7a7b_7c7d_7e7f));
        LinkKeys::derive(&std::array::from_fn(|i| u8::try_from(i).unwrap()), device, epoch)
    }

    fn open(bytes: &[u8], keys: &LinkKeys, topic: &str) -> Result<Vec<u8>, EnvelopeError> {
        parse_up(bytes)?.verify(keys.up(), topic).map(<[u8]>::to_vec)
    }

    #[test]
    fn keys_are_printed_by_their_epoch_alone() {
        assert_eq!(format!("{:?}", keys(5)), "LinkKeys(epoch 5, ***)");
    }

    // The constants below come from Python's hashlib, not from this code.

    #[test]
    fn keys_and_envelope_have_the_specified_bytes() {
        assert_eq!(
            hex::encode(keys(5).expose_down()),
            "64e3a5103f1f3c12edff4940ba322bd327ecfb23d3a6197dbb42e1467f9e6a24"
        );
        let wrapped = wrap_up(keys(5).up(), TOPIC, b"{}");
        assert_eq!(
            hex::encode(&wrapped),
            "0100000005febfddce0960f29bc5c559aa597243a27fcca8f4264f99c5d5988b8fb4e112b67b7d"
        );
        assert_eq!(wrapped.len(), UP_OVERHEAD + 2);
        assert_eq!(parse_up(&wrapped).unwrap().link_epoch(), 5);
        assert_eq!(open(&wrapped, &keys(5), TOPIC).unwrap(), b"{}");
    }

    #[test]
    fn an_envelope_does_not_fit_another_topic_epoch_or_device() {
        let wrapped = wrap_up(keys(5).up(), TOPIC, b"{}");
        let refused = open(&wrapped, &keys(5), "lintel/v1/x/z/up/evt");
        assert_eq!(refused, Err(EnvelopeError::NotAuthentic { topic: "lintel/v1/x/z/up/evt".into() }));
        assert_eq!(open(&wrapped, &keys(6), TOPIC), Err(EnvelopeError::OtherEpoch { expected: 6, found: 5 }));
        let other = LinkKeys::derive(&[0; 32], DeviceId(Uuid::nil()), 5);
        assert!(matches!(open(&wrapped, &other, TOPIC), Err(EnvelopeError::NotAuthentic { .. })));
        let mut relabelled = wrapped;
        relabelled[4] = 6;
        assert!(matches!(open(&relabelled, &keys(6), TOPIC), Err(EnvelopeError::NotAuthentic { .. })));
    }

    #[test]
    fn other_bytes_are_refused_with_the_reason() {
        assert_eq!(parse_up(&[]).unwrap_err(), EnvelopeError::Truncated { found: 0 });
        assert_eq!(parse_up(&[1; 36]).unwrap_err(), EnvelopeError::Truncated { found: 36 });
        assert_eq!(parse_up(b"{}").unwrap_err(), EnvelopeError::UnknownVersion { found: b'{' });
        let long = vec![1; crate::MAX_PAYLOAD_BYTES + 1];
        assert_eq!(parse_up(&long).unwrap_err(), EnvelopeError::TooLong { found: long.len() });
        let longest = wrap_up(keys(1).up(), TOPIC, &vec![b'x'; crate::MAX_PAYLOAD_BYTES - UP_OVERHEAD]);
        assert_eq!(longest.len(), crate::MAX_PAYLOAD_BYTES);
        assert!(parse_up(&longest).unwrap().verify(keys(1).up(), TOPIC).is_ok(), "as long as a payload may be");
    }

    proptest! {
        #[test]
        fn every_changed_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..40), bit in any::<prop::sample::Index>()) {
            let mut wrapped = wrap_up(keys(5).up(), TOPIC, &payload);
            prop_assert_eq!(open(&wrapped, &keys(5), TOPIC).unwrap(), payload);
            let bit = bit.index(wrapped.len() * 8);
            wrapped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(&wrapped, &keys(5), TOPIC).is_err());
        }
    }
}
