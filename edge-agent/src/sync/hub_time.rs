//! Learning the time from the hub when this device's own clock is not to be believed.
//!
//! In: the identity with its pinned signing keys, the clock. Out: a clock that the hub has told the time, and what it said of its keys. It is the only
//! call whose certificates are not held against the clock: they must lead to the pinned root, for this name and use, be
//! good at one and the same moment, not have ended before what is known to be past, and be good at the very time that the
//! answer brings ([`tls::undated`]). The answer is signed for 32 random bytes of ours, so that no older one fits.
//! Deliberately absent: retries (the driver's), and any other call: with dates that cannot be judged nothing else is said.

use std::time::Duration;

use edge_store::Identity;
use ring::rand::{SecureRandom as _, SystemRandom};
use url::Url;
use wire_contract::hub_time::{HubTimeError, HubTimeRequest, Nonce};
use wire_contract::succession::trusted;
use wire_contract::{Succession, V1};

use super::https::{HttpsError, Hub};
use super::hub_keys;
use super::tls::{self, DatesError, TlsError};
use crate::clock::{SharedClock, TimeRefused};

/// Why the time was not learned.
#[derive(Debug, thiserror::Error)]
pub(super) enum TellError {
    /// The hub's address in the identity is not one.
    #[error("hub address {found} is not a URL; claim the device again")]
    Address {
        /// The address.
        found: String,
        /// Why.
        #[source]
        source: url::ParseError,
    },
    /// The system has no random bytes.
    #[error("no random bytes for the question")]
    NoRandomness,
    /// The identity makes no TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The hub did not answer, or refused.
    #[error(transparent)]
    Hub(#[from] HttpsError),
    /// Not the pinned hub's answer to this question.
    #[error(transparent)]
    Answer(#[from] HubTimeError),
    /// The hub's certificate is not good at the time that the hub tells.
    #[error(transparent)]
    Dates(#[from] DatesError),
    /// The clock knows better.
    #[error(transparent)]
    Refused(#[from] TimeRefused),
}

/// Asks the hub for the time and gives it to the clock. A key of the hub that the pinned ones lead to is believed; what the answer said of it
/// is returned, to be kept.
pub(super) async fn learn(
    identity: &Identity,
    clock: &SharedClock,
    timeout: Duration,
) -> Result<Vec<Succession>, TellError> {
    let found = &identity.hub_url;
    let base: Url = found.parse().map_err(|source| TellError::Address { found: found.clone(), source })?;
    let (config, dates) = tls::undated(identity, clock.known_past())?;
    let hub = Hub::new(config, base, timeout)?;
    let mut nonce = [0; 32];
    SystemRandom::new().fill(&mut nonce).map_err(|_| TellError::NoRandomness)?;
    let nonce = Nonce(nonce);
    let asked = clock.now();
    let answer = hub.time(&HubTimeRequest { v: V1, nonce }).await?;
    let at = answer.verify(&trusted(&hub_keys::pinned(identity), &answer.successions), &nonce)?;
    dates.hold_at(at)?;
    clock.hub_said(at.to_offset_date_time(), asked)?;
    Ok(answer.successions)
}

#[cfg(test)]
mod tests;
