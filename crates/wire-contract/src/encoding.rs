//! How bytes, hashes, scores and versions look in JSON.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// Serde and schema for a type that is a string in JSON, by its `Display` and `FromStr`.
macro_rules! string_serde {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}
pub(crate) use string_serde;

/// The payload version 1: written as the number 1, and the only number that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct V1;

impl Serialize for V1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for V1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(de::Error::custom(format_args!(
                "payload version {other} is not known (this program knows 1); update it"
            ))),
        }
    }
}

impl JsonSchema for V1 {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "V1".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": 1 })
    }
}

/// A SHA-256 hash: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash32(pub [u8; 32]);

/// The text is not a hash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash has 64 hex digits, found {found} characters that are not")]
pub struct Hash32Error {
    /// How many characters there were.
    pub found: usize,
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash32({self})")
    }
}

impl FromStr for Hash32 {
    type Err = Hash32Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Hash32Error { found: text.chars().count() })?;
        Ok(Self(bytes))
    }
}

string_serde!(Hash32, "Hash32", "^[0-9a-f]{64}$");

/// Bytes as padded standard base64.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.0))
    }
}

impl FromStr for Bytes {
    type Err = base64::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        STANDARD.decode(text).map(Self)
    }
}

string_serde!(Bytes, "Bytes", "^[A-Za-z0-9+/]*={0,2}$");

/// 32 secret bytes as padded standard base64. Wiped when dropped, never printed, compared in no particular time:
/// compare secrets by HMAC.
#[derive(Clone)]
pub struct SecretBytes(Zeroizing<[u8; 32]>);

/// The text is not 32 bytes in base64. The text itself is not shown, since it may be a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret must be 32 bytes in base64")]
pub struct SecretBytesError;

impl SecretBytes {
    /// Wraps the bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. Never log them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref() == other.0.as_ref()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(***)")
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.expose())))
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes =
            STANDARD.decode(text.as_bytes()).map(Zeroizing::new).map_err(|_| de::Error::custom(SecretBytesError))?;
        let array: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| de::Error::custom(SecretBytesError))?;
        Ok(Self::new(*array))
    }
}

impl JsonSchema for SecretBytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretBytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$" })
    }
}

/// A score, threshold or probability, rounded to four decimals: more would be noise, and f32 printed as f64 is ugly.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default)]
pub struct Score(f64);

impl Score {
    /// Rounds to four decimals; what is not finite becomes 0, since JSON cannot say it.
    pub fn new(value: f64) -> Self {
        if value.is_finite() { Self((value * 1e4).round() / 1e4 + 0.0) } else { Self(0.0) }
    }

    /// The value.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl From<f32> for Score {
    fn from(value: f32) -> Self {
        Self::new(f64::from(value))
    }
}

impl Serialize for Score {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Score {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::new)
    }
}

impl JsonSchema for Score {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Score".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_have_four_decimals() {
        assert_eq!(serde_json::to_string(&Score::from(0.442_f32)).unwrap(), "0.442");
        assert_eq!(serde_json::to_string(&Score::new(-0.000_01)).unwrap(), "0.0");
        assert_eq!(serde_json::to_string(&Score::new(f64::NAN)).unwrap(), "0.0");
        assert_eq!(serde_json::from_str::<Score>("1").unwrap(), Score::new(1.0));
    }

    #[test]
    fn secrets_do_not_print_not_even_in_errors() {
        let secret = SecretBytes::new([0x22; 32]);
        let json = serde_json::to_string(&secret).unwrap();
        assert_eq!(serde_json::from_str::<SecretBytes>(&json).unwrap(), secret);
        assert_eq!(format!("{secret:?}"), "SecretBytes(***)");
        let error = serde_json::from_str::<SecretBytes>("\"c2VjcmV0\"").unwrap_err().to_string();
        assert!(error.contains("32 bytes") && !error.contains("c2Vj"), "{error}");
    }
}
