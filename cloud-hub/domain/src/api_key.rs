//! `Authorization: ApiKey id:secret`, taken apart.
//!
//! In: a header value. Out: the key's id and its 256-bit secret. Whether they are right is decided by whoever
//! holds the pepper (`keys`) and the stored MAC (`store`). No logging here: the type prints as `***`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::ids::ApiKeyId;

/// An API key as the client holds it.
pub struct ApiKey {
    /// The public half: names the row.
    pub id: ApiKeyId,
    /// The secret half, 256 random bits.
    pub secret: Zeroizing<[u8; 32]>,
}

/// A header that is no API key. Deliberately says little.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// Another scheme, or none.
    #[error("authorization is not of the form `ApiKey id:secret`")]
    Scheme,
    /// The id is no UUID or the secret not 32 bytes of base64url.
    #[error("api key is malformed")]
    Malformed,
}

impl ApiKey {
    /// Parses a header value. The scheme is matched without regard to case, as RFC 9110 asks.
    pub fn from_header(value: &str) -> Result<Self, ApiKeyError> {
        let (scheme, halves) = value.split_once(' ').ok_or(ApiKeyError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("ApiKey") {
            return Err(ApiKeyError::Scheme);
        }
        let (id, secret) = halves_of(halves).ok_or(ApiKeyError::Malformed)?;
        Ok(Self { id: ApiKeyId(id), secret })
    }

    /// The secret half as text, shown to its owner exactly once.
    #[must_use]
    pub fn secret_text(&self) -> Zeroizing<String> {
        text_of(&self.secret)
    }
}

/// `id:secret`, taken apart.
pub(crate) fn halves_of(text: &str) -> Option<(Uuid, Zeroizing<[u8; 32]>)> {
    let (id, secret) = text.trim().split_once(':')?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).ok()?);
    let secret = <[u8; 32]>::try_from(secret.as_slice()).ok()?;
    Some((Uuid::parse_str(id).ok()?, Zeroizing::new(secret)))
}

/// A secret as its owner gets it.
pub(crate) fn text_of(secret: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(secret))
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}:***)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_round_trips_through_the_header() {
        let key = ApiKey { id: ApiKeyId(Uuid::from_u128(7)), secret: Zeroizing::new([9; 32]) };
        let header = format!("apikey {}:{}", key.id, key.secret_text().as_str());
        let read = ApiKey::from_header(&header).unwrap();
        assert_eq!((read.id, *read.secret), (key.id, *key.secret));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let key = ApiKey { id: ApiKeyId(Uuid::nil()), secret: Zeroizing::new([9; 32]) };
        assert!(!format!("{key:?}").contains(key.secret_text().as_str()));
    }

    #[test]
    fn malformed_headers_are_told_apart_from_other_schemes() {
        let id = Uuid::nil();
        for (header, error) in [
            (String::new(), ApiKeyError::Scheme),
            ("Bearer x".into(), ApiKeyError::Scheme),
            ("ApiKey".into(), ApiKeyError::Scheme),
            ("ApiKey x".into(), ApiKeyError::Malformed),
            (format!("ApiKey {id}:"), ApiKeyError::Malformed),
            (format!("ApiKey {id}:AAAA"), ApiKeyError::Malformed),
            (format!("ApiKey nobody:{}", "A".repeat(43)), ApiKeyError::Malformed),
        ] {
            assert_eq!(ApiKey::from_header(&header).unwrap_err(), error, "{header}");
        }
    }
}
