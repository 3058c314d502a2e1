//! The hub's signing keys that this device believes, and how it comes to believe another one.
//!
//! In: the identity with the keys that were pinned, and the hub's statements beside an answer. Out: an identity with the keys that these
//! lead to, or without those that the hub signs with no more. The statements are judged before the signature of the answer that brings
//! them, since it may be the first of a key that nobody has seen; they bear signatures of their own.
//! Deliberately absent: the disk (the driver's, the renewal's), and what is signed.

use edge_store::{HubKey as Pinned, Identity};
use wire_contract::claim::HubKey;
use wire_contract::succession::{Succession, trusted};
use wire_contract::{Bytes, ClaimAnswer};

/// The identity's pinned keys, as the wire contract has them. An id that is no UUID can have signed nothing.
pub(super) fn pinned(identity: &Identity) -> Vec<HubKey> {
    identity.hub_keys.iter().filter_map(as_told).collect()
}

/// The identity with the keys that its own lead to; `None` if it has them all.
pub(super) fn learned(identity: &Identity, successions: &[Succession]) -> Option<Identity> {
    let known = pinned(identity);
    let new: Vec<Pinned> = trusted(&known, successions).iter().skip(known.len()).filter_map(as_pinned).collect();
    if new.is_empty() {
        return None;
    }
    Some(Identity { hub_keys: [identity.hub_keys.clone(), new].concat(), ..identity.clone() })
}

/// The identity without the keys that a renewal's answer no longer names. One goes only where it leads to a key that is named: a hub that
/// names others, and has nothing to show for it, takes none away.
pub(super) fn without_retired(identity: Identity, answer: &ClaimAnswer) -> Identity {
    let is_named = |key: &HubKey| answer.hub_keys.contains(key);
    let stays = |key: &Pinned| {
        as_told(key).is_none_or(|key| {
            let leads_on = || trusted(std::slice::from_ref(&key), &answer.successions).iter().any(is_named);
            is_named(&key) || !leads_on()
        })
    };
    let hub_keys = identity.hub_keys.iter().filter(|key| stays(key)).cloned().collect();
    Identity { hub_keys, ..identity }
}

fn as_told(key: &Pinned) -> Option<HubKey> {
    Some(HubKey { key_id: key.key_id.parse().ok()?, public_key: Bytes(key.public_key.to_vec()) })
}

fn as_pinned(key: &HubKey) -> Option<Pinned> {
    Some(Pinned { key_id: key.key_id.to_string(), public_key: key.public_key.0.as_slice().try_into().ok()? })
}
