//! Who may have a claim: the first public key that shows the secret in time, and the same key again.
//!
//! In: the stored claim and what a device sends. Out: a ruling. The database repeats the rule in one statement
//! (`store::claims::bind`), because two devices may race; this function says what the loser is told.

use time::{Duration, OffsetDateTime};

/// How long a claim token lives, by protocol.md.
pub const LIFETIME: Duration = Duration::minutes(15);

/// A claim as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// HMAC of the secret under the hub's pepper.
    pub secret_mac: [u8; 32],
    /// The end of its life.
    pub expires_at: OffsetDateTime,
    /// SHA-256 of the SubjectPublicKeyInfo that owns it, once one does.
    pub bound_spki: Option<[u8; 32]>,
    /// Whether no claim was made for the device after it.
    pub newest: bool,
}

/// What a device gets to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// The claim was free: bind it to this key and issue.
    Bind,
    /// The same key asks again: issue again, nothing else changes.
    Retry,
    /// The secret is wrong; told as "unknown", so that claim ids cannot be probed.
    Unknown,
    /// The token is too old.
    Expired,
    /// Another key owns the claim: 409 and a security event.
    Used,
}

/// Rules on a claim. `secret_matches` must come of a constant-time comparison of MACs.
///
/// The owner may retry after the expiry too: its first answer may have been lost on the way, and the key proves
/// that it is the same device. Only of the newest claim, though: once the operator made another, other hardware may
/// have the device's place. A stranger learns nothing from an expired token but that it expired.
#[must_use]
pub fn rule(claim: &Claim, secret_matches: bool, spki: &[u8; 32], now: OffsetDateTime) -> Ruling {
    if !secret_matches {
        return Ruling::Unknown;
    }
    match claim.bound_spki {
        Some(owner) if owner == *spki && claim.newest && now < claim.expires_at + LIFETIME => Ruling::Retry,
        Some(owner) if owner != *spki => Ruling::Used,
        Some(_) => Ruling::Expired,
        None if now >= claim.expires_at => Ruling::Expired,
        None => Ruling::Bind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const MINE: [u8; 32] = [1; 32];
    const ANOTHERS: [u8; 32] = [2; 32];

    fn claim(bound: Option<[u8; 32]>) -> Claim {
        Claim { secret_mac: [0; 32], expires_at: START + LIFETIME, bound_spki: bound, newest: true }
    }

    #[test]
    fn the_first_key_wins_and_may_retry() {
        assert_eq!(rule(&claim(None), true, &MINE, START), Ruling::Bind);
        assert_eq!(rule(&claim(Some(MINE)), true, &MINE, START), Ruling::Retry);
        assert_eq!(rule(&claim(Some(MINE)), true, &MINE, START + LIFETIME), Ruling::Retry);
    }

    #[test]
    fn an_older_claim_is_nobodys_to_retry() {
        let older = Claim { newest: false, ..claim(Some(MINE)) };
        assert_eq!(rule(&older, true, &MINE, START), Ruling::Expired);
        assert_eq!(rule(&older, true, &ANOTHERS, START), Ruling::Used);
    }

    #[test]
    fn another_key_is_told_that_the_claim_is_used() {
        assert_eq!(rule(&claim(Some(ANOTHERS)), true, &MINE, START), Ruling::Used);
    }

    #[test]
    fn a_wrong_secret_learns_nothing() {
        for bound in [None, Some(MINE), Some(ANOTHERS)] {
            assert_eq!(rule(&claim(bound), false, &MINE, START), Ruling::Unknown);
            assert_eq!(rule(&claim(bound), false, &MINE, START + LIFETIME), Ruling::Unknown);
        }
    }

    #[test]
    fn a_token_expires_at_its_very_instant_and_the_owners_retry_one_lifetime_later() {
        let end = START + LIFETIME;
        assert_eq!(rule(&claim(None), true, &MINE, end - Duration::milliseconds(1)), Ruling::Bind);
        assert_eq!(rule(&claim(None), true, &MINE, end), Ruling::Expired);
        assert_eq!(rule(&claim(Some(MINE)), true, &MINE, end + LIFETIME), Ruling::Expired);
    }
}
