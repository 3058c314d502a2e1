//! Administrators of the platform: who may make, agree with, suspend and end tenants, and is no user of any of them.
//!
//! In: a header value, `PlatformKey id:secret`, and the name of a role. Out: the key's id and its 256-bit secret, and what the role
//! allows. The scheme has a word of its own, so that nobody takes such a key for a tenant's. Whether a key is right is decided by whoever
//! holds the pepper (`keys`) and the stored MAC (`store`). Deliberately absent: anything that a tenant's people have.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::api_key::{halves_of, text_of};
use super::ids::PlatformKeyId;
use super::permission::UnknownWord;

/// The word before the key in `Authorization`.
pub const SCHEME: &str = "PlatformKey";

/// A key as an administrator holds it.
pub struct PlatformKey {
    /// The public half: names the row.
    pub id: PlatformKeyId,
    /// The secret half, 256 random bits.
    pub secret: Zeroizing<[u8; 32]>,
}

/// What stands behind the scheme is no key. Deliberately says little.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("platform key is malformed")]
pub struct MalformedKey;

impl PlatformKey {
    /// The key of a header value; `None` if the value is of another scheme. The scheme is matched without regard to case, as RFC 9110 asks.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Result<Self, MalformedKey>> {
        let (scheme, halves) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let halves = halves_of(halves).map(|(id, secret)| Self { id: PlatformKeyId(id), secret });
        Some(halves.ok_or(MalformedKey))
    }

    /// The secret half as text, shown to its owner exactly once.
    #[must_use]
    pub fn secret_text(&self) -> Zeroizing<String> {
        text_of(&self.secret)
    }
}

impl fmt::Debug for PlatformKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformKey({}:***)", self.id)
    }
}

/// One thing that may be allowed on the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformPermission {
    /// See tenants, what was agreed upon with them, which memory serves them, and the hub's settings.
    Read,
    /// Make, change, suspend and end tenants, and change the hub's settings.
    Write,
}

impl PlatformPermission {
    /// As refusals and documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "platform:read",
            Self::Write => "platform:write",
        }
    }
}

impl fmt::Display for PlatformPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an administrator is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformRole {
    /// Runs the platform.
    Administrator,
    /// Looks and changes nothing.
    Auditor,
}

impl PlatformRole {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Administrator, Self::Auditor];

    /// As keys and documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::Auditor => "auditor",
        }
    }

    /// Whether it allows this.
    #[must_use]
    pub const fn allows(self, permission: PlatformPermission) -> bool {
        matches!((self, permission), (Self::Administrator, _) | (Self::Auditor, PlatformPermission::Read))
    }
}

impl fmt::Display for PlatformRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PlatformRole {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.iter().copied().find(|role| role.as_str() == word);
        found.ok_or_else(|| UnknownWord::new(word, Self::ALL.iter().map(|role| role.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::api_key::{ApiKey, ApiKeyError};

    fn key() -> PlatformKey {
        PlatformKey { id: PlatformKeyId(Uuid::from_u128(7)), secret: Zeroizing::new([9; 32]) }
    }

    #[test]
    fn a_key_round_trips_through_the_header_and_is_not_printed() {
        let key = key();
        let read = PlatformKey::from_header(&format!("platformkey {}:{}", key.id, key.secret_text().as_str()));
        let read = read.unwrap().unwrap();
        assert_eq!((read.id, *read.secret), (key.id, *key.secret));
        assert!(!format!("{key:?}").contains(key.secret_text().as_str()));
    }

    #[test]
    fn roles_and_what_they_may_are_said_as_documents_name_them() {
        let said = [PlatformPermission::Read, PlatformPermission::Write].map(|permission| permission.to_string());
        assert_eq!(said, ["platform:read", "platform:write"]);
        assert_eq!(PlatformRole::Auditor.to_string(), "auditor");
    }

    #[test]
    fn neither_kind_of_key_is_taken_for_the_other() {
        let halves = format!("{}:{}", key().id, key().secret_text().as_str());
        assert!(PlatformKey::from_header(&format!("ApiKey {halves}")).is_none());
        assert_eq!(ApiKey::from_header(&format!("PlatformKey {halves}")).unwrap_err(), ApiKeyError::Scheme);
        for malformed in
            ["PlatformKey", "PlatformKey x", "PlatformKey x:", &format!("PlatformKey {}:AAAA", Uuid::nil())]
        {
            assert_eq!(PlatformKey::from_header(malformed).unwrap().unwrap_err(), MalformedKey, "{malformed}");
        }
        assert!(PlatformKey::from_header("").is_none() && PlatformKey::from_header("Bearer x").is_none());
    }

    #[test]
    fn an_auditor_reads_and_an_administrator_does_both() {
        use PlatformPermission::{Read, Write};
        let may = |role: PlatformRole| (role.allows(Read), role.allows(Write));
        assert_eq!(may(PlatformRole::Administrator), (true, true));
        assert_eq!(may(PlatformRole::Auditor), (true, false));
        for role in PlatformRole::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
        }
        assert!("owner".parse::<PlatformRole>().is_err());
    }
}
