//! Access tokens: JWTs (RFC 7519) with an EdDSA signature, of exactly the form in which this program writes them.
//!
//! In: claims and a key, or a text and the keys that are known. Out: a text, or claims. The header of a token is not interpreted
//! but compared, byte for byte, with the headers that this program writes: there is no algorithm to choose, no address to fetch a
//! key from, no extension to ignore. Claims are read into fixed types, after the signature. Deliberately absent: where keys are
//! kept (`keys::tokens`), and whether the log-in behind a token goes on (`keys::logins`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// Who made a token. The key says which hub it was; the word says what kind of thing.
pub(super) const ISSUER: &str = "urn:lintel:hub";
/// Whom a token is for.
pub(super) const AUDIENCE: &str = "urn:lintel:api";
/// How long a token is good. What it opens may end sooner: its log-in is looked at too.
pub const LIFE: Duration = Duration::minutes(10);
/// By how much the clocks of two hubs may differ.
const LEEWAY_S: i64 = 5;
/// Ours have some 600 bytes.
const MAX_BYTES: usize = 2048;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// [`ISSUER`].
    pub iss: String,
    /// [`AUDIENCE`].
    pub aud: String,
    /// The user.
    pub sub: Uuid,
    /// Whose user.
    pub tenant: Uuid,
    /// The user's role when it was made.
    pub role: String,
    /// The log-in that it was made of.
    pub login: Uuid,
    /// Its own id.
    pub jti: Uuid,
    /// When it was made; seconds since 1970, as the next two.
    pub iat: i64,
    /// From when on it is good.
    pub nbf: i64,
    /// Until when.
    pub exp: i64,
}

/// Why a text is no token that is good now. For tests and the log's counts; callers are told none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrue {
    /// Not three parts in base64url, or too long.
    #[error("is not of the form of a token")]
    Form,
    /// A header that this program does not write, or one of a key that is not known (any more).
    #[error("has another header")]
    Header,
    /// A signature of another key, or of other bytes.
    #[error("has a wrong signature")]
    Signature,
    /// Claims that are missing, too many, twice, or of another type.
    #[error("has other claims")]
    Claims,
    /// By or for somebody else.
    #[error("is not of this hub, or not for this API")]
    Stranger,
    /// Not yet, or no longer, or of a life that this program does not give.
    #[error("is not good now")]
    Time,
}

/// The public half of a key, with the header of its tokens.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name.
    pub kid: Uuid,
    /// 32 bytes.
    pub public: Vec<u8>,
    header: String,
}

impl Known {
    /// A key by its public half.
    #[must_use]
    pub fn new(kid: Uuid, public: &[u8]) -> Self {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"at+jwt"}}"#));
        Self { kid, public: public.to_vec(), header }
    }
}

/// Writes a token.
#[must_use]
pub(super) fn sign(pair: &Ed25519KeyPair, known: &Known, claims: &Claims) -> String {
    debug_assert_eq!(pair.public_key().as_ref(), known.public);
    let claims = serde_json::to_vec(claims).expect("plain values are JSON");
    let signed = format!("{}.{}", known.header, URL_SAFE_NO_PAD.encode(claims));
    let signature = pair.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// Reads a token that is good at `now`, and says which key has signed it.
pub(super) fn verify(text: &str, keys: &[Known], now: OffsetDateTime) -> Result<(Claims, Uuid), Untrue> {
    if text.len() > MAX_BYTES {
        return Err(Untrue::Form);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(Untrue::Form)?;
    let (header, claims) = signed.split_once('.').ok_or(Untrue::Form)?;
    let key = keys.iter().find(|key| key.header == header).ok_or(Untrue::Header)?;
    // The engine refuses padding and bits that no byte needs: a token has one spelling.
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Untrue::Form)?;
    UnparsedPublicKey::new(&ED25519, &key.public)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| Untrue::Signature)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Untrue::Form)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Untrue::Claims)?;
    if claims.iss != ISSUER || claims.aud != AUDIENCE {
        return Err(Untrue::Stranger);
    }
    if is_good(&claims, now.unix_timestamp()) { Ok((claims, key.kid)) } else { Err(Untrue::Time) }
}

fn is_good(claims: &Claims, now: i64) -> bool {
    let Claims { iat, nbf, exp, .. } = *claims;
    let begun = iat <= now + LEEWAY_S && nbf <= now + LEEWAY_S;
    // Whatever is signed, nothing is good for longer than this program makes it.
    let short = exp.checked_sub(iat).is_some_and(|life| (1..=LIFE.whole_seconds()).contains(&life)) && nbf >= iat;
    begun && short && exp > now.saturating_sub(LEEWAY_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(iat: i64, nbf: i64, exp: i64) -> Claims {
        let (iss, aud, role) = (String::from(ISSUER), String::from(AUDIENCE), String::from("owner"));
        let id = Uuid::nil();
        Claims { iss, aud, sub: id, tenant: id, role, login: id, jti: id, iat, nbf, exp }
    }

    #[test]
    fn a_token_is_good_for_its_life_and_a_little_more() {
        let (now, life) = (1_000_000, LIFE.whole_seconds());
        for (iat, nbf, exp, good) in [
            (now, now, now + life, true),
            (now - life, now - life, now, true),
            (now - life - 4, now - life - 4, now - 4, true),
            (now - life - 5, now - life - 5, now - 5, false),
            (now + 5, now + 5, now + 6, true),
            (now + 6, now + 6, now + 7, false),
            (now, now + 6, now + life, false),
            (now, now - 1, now + life, false),
            (now, now, now + life + 1, false),
            (now, now, now, false),
            (i64::MIN, i64::MIN, i64::MAX, false),
            (now, now, i64::MAX, false),
        ] {
            assert_eq!(is_good(&claims(iat, nbf, exp), now), good, "{iat} {nbf} {exp}");
        }
    }

    #[test]
    fn what_was_signed_reads_back_under_its_own_key_alone() {
        let make = || {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
            let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
            let known = Known::new(Uuid::from_u128(7), pair.public_key().as_ref());
            (pair, known)
        };
        let ((pair, known), (_, other)) = (make(), make());
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(1);
        let made = claims(86_400, 86_400, 87_000);
        let token = sign(&pair, &known, &made);
        assert_eq!(verify(&token, std::slice::from_ref(&known), now), Ok((made, Uuid::from_u128(7))));
        assert_eq!(verify(&token, &[other], now), Err(Untrue::Signature));
        assert_eq!(verify(&token, &[], now), Err(Untrue::Header));
        assert_eq!(verify(&token.replace('.', ""), &[known], now), Err(Untrue::Form));
    }
}
