//! How a device gets its identity and keeps it: the token that an operator carries to it, its requests, the hub's answer.
//!
//! In: the token's text, and JSON over TLS 1.3. Out: typed values whose secrets do not print.
//! The device checks that the hub's chain ends in the root that the token names *before* it sends the secret.
//! Deliberately absent: TLS and certificates themselves (the programs), and clocks ([`ClaimToken::check_time`] takes one).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::encoding::{Bytes, Hash32, SecretBytes, V1};
use crate::ids::{ClaimId, DeviceId, TenantId};
use crate::link::push_field;
use crate::succession::Succession;
use crate::time::Timestamp;

/// What a claim token begins with.
pub const TOKEN_PREFIX: &str = "lintel-claim-v1.";
/// How long a token is valid: long enough to walk to a door, short enough to be useless when it is found later.
pub const TOKEN_LIFETIME_SECONDS: i64 = 15 * 60;
/// Longest serial number of a device, in bytes.
pub const MAX_SERIAL_BYTES: usize = 128;
/// Longest certificate request, in bytes; a P-256 request has about 500.
pub const MAX_CSR_BYTES: usize = 8 * 1024;
/// Longest token text, in bytes; a usual one has about 400.
const MAX_TOKEN_BYTES: usize = 4 * 1024;

/// The claim token: `lintel-claim-v1.` and base64url of its JSON. It is a secret until it is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimToken {
    /// Where the hub is (https).
    #[schemars(with = "String")]
    pub hub_url: Url,
    /// SHA-256 of the SubjectPublicKeyInfo of the hub's root certificate.
    pub root_spki_sha256: Hash32,
    /// Which claim it is.
    pub claim_id: ClaimId,
    /// What proves that the device was given the token.
    pub secret: SecretBytes,
    /// When it was made, in Unix seconds.
    pub iat: i64,
    /// When it ends, in Unix seconds.
    pub exp: i64,
}

/// Why a token is not one, or may not be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error("a claim token begins with `{TOKEN_PREFIX}`; copy the whole line that the hub printed")]
    Prefix,
    /// It is not base64url, or too long.
    #[error("the claim token is damaged (not base64url); copy the whole line that the hub printed")]
    Encoding,
    /// Its content is not what it should be.
    #[error("the claim token's content is not valid; ask the operator for a new one")]
    Content(#[source] serde_json::Error),
    /// The hub's address is not https.
    #[error("the claim token names the hub address {found}, which is not https")]
    NotHttps {
        /// The address.
        found: Url,
    },
    /// It is no longer valid.
    #[error("the claim token ended at {exp}, it is now {now}; ask the operator for a new one")]
    Expired {
        /// When it ended.
        exp: Timestamp,
        /// What the clock shows.
        now: Timestamp,
    },
}

impl ClaimToken {
    /// The text to be carried to the device.
    pub fn encode(&self) -> Zeroizing<String> {
        let json = Zeroizing::new(serde_json::to_vec(self).expect("a token is a plain struct"));
        Zeroizing::new(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(&*json)))
    }

    /// Checks the end of the token's life against a clock that is at least trusted not to run behind it: the caller
    /// passes the higher of its clock and its floor (of which `iat` is a part, so a clock before `iat` is no error).
    pub fn check_time(&self, now: Timestamp) -> Result<(), TokenError> {
        if now.unix_seconds() < self.exp {
            return Ok(());
        }
        Err(TokenError::Expired { exp: Timestamp::from_unix_ms(self.exp.saturating_mul(1000)), now })
    }
}

impl FromStr for ClaimToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.trim().strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Prefix)?;
        if encoded.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Encoding);
        }
        let json = URL_SAFE_NO_PAD.decode(encoded).map(Zeroizing::new).map_err(|_| TokenError::Encoding)?;
        let token: Self = serde_json::from_slice(&json).map_err(TokenError::Content)?;
        if token.hub_url.scheme() != "https" {
            return Err(TokenError::NotHttps { found: token.hub_url });
        }
        Ok(token)
    }
}

/// `POST /v1/claims`. Unknown fields are rejected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Payload version.
    pub v: V1,
    /// The claim, from the token.
    pub claim_id: ClaimId,
    /// The secret, from the token.
    pub secret: SecretBytes,
    /// The device's serial number, for people to read. 1 to 128 bytes.
    #[schemars(length(min = 1, max = MAX_SERIAL_BYTES))]
    pub serial: String,
    /// PKCS#10 in PEM, P-256, self-signed. Its subject is ignored. 1 to 8,192 bytes.
    #[schemars(length(min = 1, max = MAX_CSR_BYTES))]
    pub csr: String,
}

/// A request with a field of a wrong size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} has {found} bytes, 1 to {max} are allowed")]
pub struct ClaimRequestError {
    /// The field.
    pub field: &'static str,
    /// How many bytes it has.
    pub found: usize,
    /// How many it may have.
    pub max: usize,
}

impl ClaimRequest {
    /// Checks the sizes; signature and key of the request are the hub's to check.
    pub fn check(&self) -> Result<(), ClaimRequestError> {
        check_size("serial", &self.serial, MAX_SERIAL_BYTES)?;
        check_size("csr", &self.csr, MAX_CSR_BYTES)
    }
}

/// `POST /v1/device/renewal`, with the device's present certificate. Unknown fields are rejected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewalRequest {
    /// Payload version.
    pub v: V1,
    /// PKCS#10 in PEM, P-256, self-signed, for a new key. Its subject is ignored. 1 to 8,192 bytes.
    #[schemars(length(min = 1, max = MAX_CSR_BYTES))]
    pub csr: String,
    /// Random: what the time in the answer is to be signed for. Without one it is signed for the device id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Uuid>,
}

impl RenewalRequest {
    /// Checks the size; signature and key of the request are the hub's to check.
    pub fn check(&self) -> Result<(), ClaimRequestError> {
        check_size("csr", &self.csr, MAX_CSR_BYTES)
    }
}

fn check_size(field: &'static str, text: &str, max: usize) -> Result<(), ClaimRequestError> {
    let found = text.len();
    if (1..=max).contains(&found) { Ok(()) } else { Err(ClaimRequestError { field, found, max }) }
}

/// Where the broker listens for devices. Its certificate is for `host`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BrokerAddress {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// One of the hub's signing keys (HSK).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HubKey {
    /// Its name.
    pub key_id: Uuid,
    /// Ed25519 public key, 32 bytes.
    pub public_key: Bytes,
}

/// The hub's answer to a claim, and to a renewal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClaimAnswer {
    /// Payload version.
    pub v: V1,
    /// The tenant.
    pub tenant: TenantId,
    /// The device: common name of the certificate, user name and client id at the broker.
    pub device: DeviceId,
    /// The device's certificate and the device CA's, PEM, leaf first.
    pub certificate_chain: String,
    /// The root certificate, PEM. Its key must be the one that the token names.
    pub root: String,
    /// The hub's signing keys, to be pinned: the present one, and those before it that a hub may still sign with.
    pub hub_keys: Vec<HubKey>,
    /// Where the hub's HTTPS is from now on.
    #[schemars(with = "String")]
    pub hub_url: Url,
    /// Where the broker is.
    pub broker: BrokerAddress,
    /// The hub's time, signed for this claim (nonce = claim id), or for this device's renewal (its own nonce).
    pub server_time: SignedTime,
    /// By which the signing keys that the device pinned lead to the present one; none as long as it was never replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub successions: Vec<Succession>,
}

/// The hub's time, signed by an HSK over (`lintel.time.v1`, nonce, Unix milliseconds), each with its length in front.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SignedTime {
    /// The time.
    pub at: Timestamp,
    /// What it was signed for: the claim id, or the nonce of the device that fetches a link or renews its certificate
    /// (without one, the device id).
    pub nonce: Uuid,
    /// The HSK.
    pub key_id: Uuid,
    /// Ed25519, 64 bytes.
    pub signature: Bytes,
}

/// A signed time that is not what it claims to be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedTimeError {
    /// Signed for something else, perhaps replayed.
    #[error("the hub's time was signed for {found}, expected {expected}")]
    OtherNonce {
        /// What it should have been signed for.
        expected: Uuid,
        /// What it was signed for.
        found: Uuid,
    },
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

impl SignedTime {
    /// Signs a time.
    pub fn sign(key_pair: &Ed25519KeyPair, key_id: Uuid, nonce: Uuid, at: Timestamp) -> Self {
        let signature = key_pair.sign(&time_bytes(nonce, at));
        Self { at, nonce, key_id, signature: Bytes(signature.as_ref().to_vec()) }
    }

    /// The time, if a pinned key signed it for `nonce`.
    pub fn verify(&self, keys: &[HubKey], nonce: Uuid) -> Result<Timestamp, SignedTimeError> {
        if self.nonce != nonce {
            return Err(SignedTimeError::OtherNonce { expected: nonce, found: self.nonce });
        }
        let unknown = SignedTimeError::UnknownKey { found: self.key_id };
        let key = keys.iter().find(|key| key.key_id == self.key_id).ok_or(unknown)?;
        UnparsedPublicKey::new(&ED25519, &key.public_key.0)
            .verify(&time_bytes(nonce, self.at), &self.signature.0)
            .map_err(|_| SignedTimeError::NotAuthentic)?;
        Ok(self.at)
    }
}

fn time_bytes(nonce: Uuid, at: Timestamp) -> Vec<u8> {
    let mut out = Vec::new();
    for field in [&b"lintel.time.v1"[..], nonce.as_bytes(), &at.unix_ms().to_be_bytes()] {
        push_field(&mut out, field);
    }
    out
}

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair as _;

    use super::*;

    fn token() -> ClaimToken {
        ClaimToken {
            hub_url: "https://127.0.0.1:8443".parse().unwrap(),
            root_spki_sha256: Hash32([1; 32]),
            claim_id: ClaimId(Uuid::from_u128(5)),
            secret: SecretBytes::new([2; 32]),
            iat: 1000,
            exp: 1000 + TOKEN_LIFETIME_SECONDS,
        }
    }

    #[test]
    fn a_token_survives_the_way_to_the_device_and_does_not_print_its_secret() {
        let text = token().encode();
        assert_eq!(format!(" {}\n", *text).parse::<ClaimToken>().unwrap(), token());
        assert!(!format!("{:?}", token()).contains("AgIC"));
        assert!(format!("{:?}", token()).contains("SecretBytes(***)"));
    }

    #[test]
    fn damaged_tokens_say_what_to_do() {
        let text = token().encode();
        let parse = |text: &str| text.parse::<ClaimToken>().unwrap_err();
        assert!(matches!(parse("lintel-claim-v2.abc"), TokenError::Prefix));
        assert!(matches!(parse(&format!("{}*", *text)), TokenError::Encoding));
        assert!(matches!(parse(&text[..text.len() - 4]), TokenError::Content(_)));
        assert!(matches!(parse(&format!("{TOKEN_PREFIX}{}", "A".repeat(5000))), TokenError::Encoding));
        let plain = ClaimToken { hub_url: "http://127.0.0.1".parse().unwrap(), ..token() };
        assert!(matches!(parse(&plain.encode()), TokenError::NotHttps { .. }));
    }

    #[test]
    fn a_token_ends_when_it_says() {
        assert!(token().check_time(Timestamp::from_unix_ms(1_899_999)).is_ok());
        let ended = token().check_time(Timestamp::from_unix_ms(1_900_000));
        assert!(matches!(ended, Err(TokenError::Expired { .. })));
        assert!(token().check_time(Timestamp::from_unix_ms(0)).is_ok(), "a clock behind iat is the caller's to raise");
    }

    #[test]
    fn a_signed_time_counts_for_one_nonce_and_pinned_keys_only() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let (key_id, nonce) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let keys = [HubKey { key_id, public_key: Bytes(pair.public_key().as_ref().to_vec()) }];
        let at = Timestamp::from_unix_ms(1_795_343_851_042);
        let signed = SignedTime::sign(&pair, key_id, nonce, at);
        assert_eq!(signed.verify(&keys, nonce), Ok(at));
        let other = Uuid::from_u128(3);
        assert_eq!(signed.verify(&keys, other), Err(SignedTimeError::OtherNonce { expected: other, found: nonce }));
        assert_eq!(signed.verify(&[], nonce), Err(SignedTimeError::UnknownKey { found: key_id }));
        let moved = SignedTime { at: Timestamp::from_unix_ms(1), ..signed.clone() };
        assert_eq!(moved.verify(&keys, nonce), Err(SignedTimeError::NotAuthentic));
        let renamed = SignedTime { nonce: other, ..signed };
        assert_eq!(renamed.verify(&keys, other), Err(SignedTimeError::NotAuthentic));
    }

    #[test]
    fn request_sizes_are_bounded() {
        let request = ClaimRequest {
            v: V1,
            claim_id: ClaimId(Uuid::from_u128(5)),
            secret: SecretBytes::new([2; 32]),
            serial: "LT-1".into(),
            csr: "pem".into(),
        };
        assert_eq!(request.check(), Ok(()));
        let serial = ClaimRequest { serial: String::new(), ..request.clone() };
        assert_eq!(serial.check(), Err(ClaimRequestError { field: "serial", found: 0, max: MAX_SERIAL_BYTES }));
        let csr = ClaimRequest { csr: "x".repeat(MAX_CSR_BYTES + 1), ..request };
        assert_eq!(csr.check(), Err(ClaimRequestError { field: "csr", found: MAX_CSR_BYTES + 1, max: MAX_CSR_BYTES }));
    }
}
