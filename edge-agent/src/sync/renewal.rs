//! This device's next certificate: when to ask for it, and the asking.
//!
//! In: the identity with its certificate, the time. Out: a [`Term`] that says when the renewal is due, and a new
//! [`Identity`], already on the disk. A certificate is renewed at half its life, a little later by chance so that devices
//! claimed on one day do not come on one day, with a new key. Until the hub first sees the new certificate the old one
//! stays good there, so that a power cut anywhere in between leaves an identity that works.
//!
//! Deliberately absent: retries (the driver's), and the link keys that come with the new certificate (fetched as ever).

use std::path::Path;

use edge_store::{Identity, IdentityError};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::digest::{SHA256, digest};
use time::OffsetDateTime;
use url::Url;
use uuid::Uuid;
use wire_contract::{RenewalRequest, Timestamp, V1};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::claim::{self, ClaimError};
use super::https::{HttpsError, Hub};
use super::hub_keys;
use super::tls::{self, Now, TlsError};
use super::{Timing, tls::spki_sha256};

/// The share of its life after which a certificate is renewed.
const DUE_AFTER: f64 = 0.5;
/// The share of its life over which devices spread: nine days of ninety.
const SPREAD: f64 = 0.1;

/// Why there is no next certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewalError {
    /// The hub's address in the identity is not one.
    #[error("hub address {found} is not a URL; claim the device again")]
    Address {
        /// The address.
        found: String,
        /// Why.
        #[source]
        source: url::ParseError,
    },
    /// The present certificate makes no TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The hub did not answer, or refused.
    #[error(transparent)]
    Hub(#[from] HttpsError),
    /// The answer is not acceptable, or no key could be made.
    #[error(transparent)]
    Answer(#[from] ClaimError),
    /// The new identity could not be written; the old one is in use.
    #[error("the renewed identity was not written")]
    Store(#[from] IdentityError),
}

/// The life of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    start: OffsetDateTime,
    end: OffsetDateTime,
    /// Where in the spread this certificate lies, in thousandths: the same at each start of the agent.
    place: u16,
}

impl Term {
    /// The term of an identity's certificate; `None` when it cannot be read, which a stored identity's always can.
    ///
    /// It begins with the hub's time of the answer that brought it: certificates are dated back a little.
    #[must_use]
    pub fn of(identity: &Identity) -> Option<Self> {
        let chain = identity.chain();
        let leaf = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let answered = OffsetDateTime::from_unix_timestamp(identity.signed_time).ok()?;
        let hash = digest(&SHA256, leaf);
        let place = u16::from_be_bytes([hash.as_ref()[0], hash.as_ref()[1]]) % 1000;
        let (start, end) = (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
        Some(Self { start: start.max(answered).min(end), end, place })
    }

    /// Serial number (lower-case hex, as the hub's registry spells it) and end of an identity's certificate.
    #[must_use]
    pub fn serial_and_end(identity: &Identity) -> Option<(String, OffsetDateTime)> {
        let chain = identity.chain();
        let (_, parsed) = X509Certificate::from_der(chain.first()?).ok()?;
        Some((parsed.tbs_certificate.serial.to_str_radix(16), parsed.validity().not_after.to_datetime()))
    }

    /// When to ask for the next one.
    #[must_use]
    pub fn due(&self) -> OffsetDateTime {
        self.start + (self.end - self.start) * (DUE_AFTER + SPREAD * f64::from(self.place) / 1000.0)
    }

    /// When this one ends.
    #[must_use]
    pub fn end(&self) -> OffsetDateTime {
        self.end
    }

    /// Whether so little is left that somebody should look: a quarter of the life, while half of it was for trying.
    #[must_use]
    pub fn is_late(&self, now: OffsetDateTime) -> bool {
        now >= self.end - (self.end - self.start) * 0.25
    }
}

/// Asks for the next certificate under the present one, checks it and stores the identity with it.
pub(super) async fn renew(
    identity: &Identity,
    state_dir: &Path,
    now: Now,
    timing: Timing,
) -> Result<Identity, RenewalError> {
    let found = &identity.hub_url;
    let base: Url = found.parse().map_err(|source| RenewalError::Address { found: found.clone(), source })?;
    let hub = Hub::new(tls::mutual(identity, now)?, base, timing.connect_timeout)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(ClaimError::Key)?;
    let csr = claim::request_pem(&key, &identity.device.to_string()).map_err(ClaimError::Key)?;
    let nonce = Uuid::new_v4();
    let answer = hub.renew(&RenewalRequest { v: V1, csr, nonce: Some(nonce) }).await?;
    let next = accept(identity, &key, &answer, nonce)?;
    let (stored, state_dir) = (next.clone(), state_dir.to_owned());
    tokio::task::spawn_blocking(move || stored.store(&state_dir)).await.expect("storing does not panic")?;
    Ok(next)
}

/// Checks that the answer is for this device and key under the root that was pinned at the claim. The signing keys that
/// were pinned then stay, with those that they lead to: an answer is no way to bring in others. Those that the hub no longer names
/// go, once the answer is known to be the hub's.
fn accept(
    present: &Identity,
    key: &KeyPair,
    answer: &wire_contract::ClaimAnswer,
    nonce: Uuid,
) -> Result<Identity, ClaimError> {
    let root = present.root().first().and_then(|root| spki_sha256(root));
    claim::check_certificates(answer, root, key)?;
    claim::check_owner(answer, present.tenant, present.device)?;
    let known = hub_keys::learned(present, &answer.successions).unwrap_or_else(|| present.clone());
    let time = answer.server_time.verify(&hub_keys::pinned(&known), nonce)?;
    Ok(Identity {
        hub_url: answer.hub_url.to_string(),
        broker: edge_store::Broker { host: answer.broker.host.clone(), port: answer.broker.port },
        signed_time: time.unix_seconds().max(present.signed_time),
        key_pem: Zeroizing::new(key.serialize_pem()),
        chain_pem: answer.certificate_chain.clone(),
        ..hub_keys::without_retired(known, answer)
    })
}

/// As [`Term::end`] and [`Term::due`], for people.
pub(super) fn shown(term: Option<Term>) -> (Option<Timestamp>, Option<Timestamp>) {
    (term.map(|term| term.end().into()), term.map(|term| term.due().into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::Duration;

    use super::*;

    const DAY: Duration = Duration::days(1);

    fn term(days: i64, place: u16) -> Term {
        let start = OffsetDateTime::UNIX_EPOCH;
        Term { start, end: start + DAY * (days as f64), place }
    }

    #[test]
    fn a_certificate_is_renewed_at_half_its_life_and_devices_spread_over_nine_days() {
        let first = term(90, 0);
        assert_eq!(first.due() - first.start, DAY * 45);
        assert!(term(90, 999).due() - first.due() > DAY * 8.9);
        assert!(!first.is_late(first.due()) && first.is_late(first.end() - DAY * 22));
    }

    proptest! {
        /// Ten years of one device whose every request is answered within `delay` hours: never without a certificate.
        #[test]
        fn forty_renewals_leave_no_gap(places in proptest::collection::vec(0_u16..1000, 40), delay in 0_i64..24 * 30) {
            let mut now = OffsetDateTime::UNIX_EPOCH;
            for place in places {
                let term = Term { start: now, end: now + DAY * 90, place };
                prop_assert!(term.due() > now && term.due() < term.end());
                now = term.due() + Duration::hours(delay);
                prop_assert!(now < term.end());
            }
            prop_assert!(now - OffsetDateTime::UNIX_EPOCH < Duration::days(365 * 10 + 40 * 31));
        }
    }
}
