//! Checking a webhook's signature as a receiver would, by the letter of Standard Webhooks 1.0.0.
//!
//! Written from the specification and not shared with the hub, so that a mistake in the signer does not pass here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::launcher::Receiver;

/// Whether the signature header carries a valid `v1` signature of id, timestamp and body under `whsec_…`.
pub fn signature_is_valid(secret: &str, id: &str, timestamp: &str, body: &str, header: &str) -> bool {
    let Some(Ok(key)) = secret.strip_prefix("whsec_").map(|text| STANDARD.decode(text)) else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signed = format!("{id}.{timestamp}.{body}");
    header
        .split(' ')
        .filter_map(|part| part.strip_prefix("v1,"))
        .any(|text| STANDARD.decode(text).is_ok_and(|tag| hmac::verify(&key, signed.as_bytes(), &tag).is_ok()))
}

impl Receiver {
    /// How many deliveries arrived, how many distinct ids they have, and how many carry a wrong signature.
    pub fn count(&self, secret: &str) -> anyhow::Result<Count> {
        let deliveries = self.deliveries()?;
        let ids: std::collections::BTreeSet<String> = deliveries.iter().map(|delivery| delivery.id.clone()).collect();
        let wrong = deliveries
            .iter()
            .filter(|d| !signature_is_valid(secret, &d.id, &d.timestamp, &d.body, &d.signature))
            .count();
        Ok(Count { deliveries: deliveries.len(), ids, wrong_signatures: wrong })
    }
}

/// What a receiver has seen.
#[derive(Debug)]
pub struct Count {
    /// Requests, repetitions included.
    pub deliveries: usize,
    /// Distinct values of `webhook-id`.
    pub ids: std::collections::BTreeSet<String>,
    /// Requests whose signature does not hold.
    pub wrong_signatures: usize,
}

#[cfg(test)]
mod tests {
    use super::signature_is_valid;

    // The example of the Standard Webhooks specification.
    const SECRET: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl";
    const BODY: &str = r#"{"event_type":"ping","data":{"success":true}}"#;
    const SIGNATURE: &str = "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=";

    #[test]
    fn the_specifications_own_example_is_valid() {
        assert!(signature_is_valid(SECRET, "msg_loFOjxBNrRLzqYUf", "1731705121", BODY, SIGNATURE));
    }

    #[test]
    fn another_body_or_id_is_not() {
        assert!(!signature_is_valid(SECRET, "msg_loFOjxBNrRLzqYUf", "1731705121", "{}", SIGNATURE));
        assert!(!signature_is_valid(SECRET, "msg_other", "1731705121", BODY, SIGNATURE));
    }
}
