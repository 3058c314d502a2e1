//! Names on the wire: UUIDs with types of their own, streams and sequences.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::encoding::string_serde;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

id! {
    /// A customer of the hub.
    TenantId
}
id! {
    /// A device: the common name of its certificate, its MQTT user name and its client id.
    DeviceId
}
id! {
    /// A gallery of people for one site or door group.
    GalleryId
}
id! {
    /// A person. On a device it is also the record id of the person in the gallery's log.
    PersonId
}
id! {
    /// An event, UUIDv7. Also the `webhook-id` of its deliveries.
    EventId
}
id! {
    /// A command to a device, UUIDv7.
    CommandId
}
id! {
    /// One issue of a claim token.
    ClaimId
}

/// Names one outbox file of a device: 16 random bytes, written as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

/// The text is not a stream id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stream id has 32 lower-case hex digits, found `{found}`")]
pub struct StreamIdError {
    /// What was found.
    pub found: String,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

impl FromStr for StreamId {
    type Err = StreamIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || StreamIdError { found: text.chars().take(80).collect() };
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(error());
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| error())?;
        Ok(Self(bytes))
    }
}

string_serde!(StreamId, "StreamId", "^[0-9a-f]{32}$");

/// The place of an event in its stream: 1, 2, 3 and so on, never reset. Written as a string of 20 digits, so that it
/// sorts as text and survives JSON readers that keep numbers as doubles. 0 means "nothing yet" in acknowledgements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sequence(pub u64);

/// The text is not a sequence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sequence has 20 decimal digits and fits 64 bits, found `{found}`")]
pub struct SequenceError {
    /// What was found.
    pub found: String,
}

impl Sequence {
    /// Nothing yet.
    pub const ZERO: Self = Self(0);

    /// The sequence after this one. At a million events a second it would take 584,000 years to run out.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

impl FromStr for Sequence {
    type Err = SequenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || SequenceError { found: text.chars().take(80).collect() };
        if text.len() != 20 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        text.parse().map(Self).map_err(|_| error())
    }
}

string_serde!(Sequence, "Sequence", "^[0-9]{20}$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_twenty_digits() {
        assert_eq!(Sequence(812).to_string(), "00000000000000000812");
        assert_eq!("18446744073709551615".parse(), Ok(Sequence(u64::MAX)));
        assert_eq!("00000000000000000812".parse(), Ok(Sequence(812)));
        for text in ["812", "+0000000000000000812", "18446744073709551616", "0000000000000000081x", ""] {
            assert!(text.parse::<Sequence>().is_err(), "{text}");
        }
    }

    #[test]
    fn streams_are_32_lower_case_hex_digits() {
        assert_eq!(format!("{:?}", StreamId([0xab; 16])), format!("StreamId({})", "ab".repeat(16)));
        let stream = StreamId([0xab; 16]);
        assert_eq!(stream.to_string().parse(), Ok(stream));
        for text in ["ab", &"AB".repeat(16), &"ab".repeat(17), &"xy".repeat(16)] {
            assert!(text.parse::<StreamId>().is_err(), "{text}");
        }
    }
}
