//! A device's certificate, and what it is worth when it is shown: everything, its renewal alone, or nothing.
//!
//! In: what the registry holds, what was shown, the time. Out: a [`Standing`]. That the device authority signed the
//! certificate is the handshake's business.

use time::{Duration, OffsetDateTime};

/// How long after its end a certificate may still renew itself: a door that was without power for a month comes back
/// without anybody walking to it.
pub const RENEWABLE_AFTER_END: Duration = Duration::days(30);

/// A certificate that was issued to a device, as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub spki_sha256: [u8; 32],
    /// Its serial number: 40 digits, lower-case hex.
    pub serial: String,
    /// Its end.
    pub expires_at: OffsetDateTime,
    /// Who issued it: SHA-256 of that authority's public key.
    pub issuer: [u8; 32],
}

/// What the registry holds of a device's certificates.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// Whether the device has an identity at all.
    pub claimed: bool,
    /// The serial number of the present certificate.
    pub present: Option<&'a str>,
    /// The one that a renewal offered and nobody has shown yet.
    pub next: Option<&'a str>,
}

/// What was shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its serial number.
    pub serial: &'a str,
    /// Its end.
    pub expires_at: OffsetDateTime,
}

/// What the certificate is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The present one.
    Present,
    /// The offered one, shown for the first time: it becomes the present one.
    Next,
    /// One of the two, but it has ended: good for a renewal alone.
    Ended,
    /// Nothing: replaced, revoked, or ended too long ago.
    Nothing,
}

/// Judges a certificate.
#[must_use]
pub fn standing(held: Held<'_>, shown: Shown<'_>, now: OffsetDateTime) -> Standing {
    let present = held.present == Some(shown.serial);
    let next = held.next == Some(shown.serial);
    if !held.claimed || !(present || next) || now >= shown.expires_at + RENEWABLE_AFTER_END {
        Standing::Nothing
    } else if now >= shown.expires_at {
        Standing::Ended
    } else if present {
        Standing::Present
    } else {
        Standing::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const HELD: Held<'_> = Held { claimed: true, present: Some("a1"), next: Some("b2") };

    fn judged(held: Held<'_>, serial: &str, now: OffsetDateTime) -> Standing {
        standing(held, Shown { serial, expires_at: END }, now)
    }

    #[test]
    fn the_present_and_the_offered_certificate_count_and_no_other() {
        let before = END - Duration::seconds(1);
        assert_eq!(judged(HELD, "a1", before), Standing::Present);
        assert_eq!(judged(HELD, "b2", before), Standing::Next);
        assert_eq!(judged(HELD, "c3", before), Standing::Nothing);
        assert_eq!(judged(Held { next: None, ..HELD }, "b2", before), Standing::Nothing);
        for serial in ["a1", "b2"] {
            assert_eq!(judged(Held { claimed: false, ..HELD }, serial, before), Standing::Nothing);
        }
    }

    #[test]
    fn an_ended_certificate_renews_for_thirty_days_and_does_nothing_else() {
        for serial in ["a1", "b2"] {
            assert_eq!(judged(HELD, serial, END), Standing::Ended);
            assert_eq!(judged(HELD, serial, END + Duration::days(30) - Duration::seconds(1)), Standing::Ended);
            assert_eq!(judged(HELD, serial, END + Duration::days(30)), Standing::Nothing);
        }
    }
}
