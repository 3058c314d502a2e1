//! `X-Session-Token`, taken apart: whose session it is, which one, and a secret.
//!
//! In: a header value. Out: the ids and the 256-bit secret. Whether they are right is decided by whoever holds the pepper (`keys`) and
//! the stored MAC (`store`). The tenant is in it so that a token is looked up in its tenant's rows and nowhere else.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::ids::{SessionId, TenantId};

/// Bytes of a token: two ids and the secret.
const BYTES: usize = 64;

/// A session's token as its holder has it.
pub struct SessionToken {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub session: SessionId,
    /// 256 random bits.
    pub secret: Zeroizing<[u8; 32]>,
}

/// A text that is no token. Deliberately says nothing more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("session token is malformed")]
pub struct Malformed;

impl SessionToken {
    /// Reads a header's value. One token has one spelling.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed)?);
        let bytes: &[u8; BYTES] = bytes.as_slice().try_into().map_err(|_| Malformed)?;
        let id = |from: usize| Uuid::from_slice(&bytes[from..from + 16]).map_err(|_| Malformed);
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(&bytes[32..]);
        Ok(Self { tenant: TenantId(id(0)?), session: SessionId(id(16)?), secret })
    }

    /// The text, shown once.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        bytes[..16].copy_from_slice(self.tenant.0.as_bytes());
        bytes[16..32].copy_from_slice(self.session.0.as_bytes());
        bytes[32..].copy_from_slice(self.secret.as_slice());
        Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionToken({}:***)", self.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> SessionToken {
        let (tenant, session) = (TenantId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)));
        SessionToken { tenant, session, secret: Zeroizing::new([7; 32]) }
    }

    #[test]
    fn a_token_reads_back_and_has_one_spelling() {
        let text = token().text();
        let read = SessionToken::parse(&text).unwrap();
        assert_eq!((read.tenant, read.session, *read.secret), (token().tenant, token().session, [7; 32]));
        let (head, last) = text.split_at(text.len() - 1);
        for wrong in [String::new(), format!("{}=", *text), format!("{} ", *text), head.to_owned(), format!("{head}-")]
        {
            assert_eq!(SessionToken::parse(&wrong).err(), Some(Malformed), "{wrong} {last}");
        }
    }

    #[test]
    fn a_token_prints_without_its_secret() {
        assert!(!format!("{:?}", token()).contains('7'));
    }
}
