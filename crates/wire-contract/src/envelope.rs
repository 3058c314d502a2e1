//! The envelope of `up` payloads: `0x01 ‖ link epoch (u32, big-endian) ‖ HMAC (32) ‖ payload`.
//!
//! HMAC-SHA256 under K_up over topic, link epoch and payload, each with its length in front; so a broker can drop a
//! message, but neither forge one nor move it to another device or channel.
//!
//! In: a payload and its topic. Out: bytes for MQTT; and back. Telemetry (`up/tele`) goes without envelope.
//! `down` payloads are sealed instead (`gallery_log::seal`), see [`DownContext`](crate::link).

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
