//! How another signing key of the hub (HSK) takes the place of one that devices have pinned: the one before vouches for it.
//!
//! In: the keys that a device pinned, and statements of the hub. Out: the keys that it may believe ([`trusted`]). Statements stand
//! outside of what is signed in an answer, since they are needed to judge its signature; each bears its own.
//! A device that slept through several changes follows them one after the other, so the hub sends all that there ever were.
//! Deliberately absent: when a key before is no longer believed (the programs), and where keys are kept.

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair, UnparsedPublicKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::claim::HubKey;
use crate::encoding::Bytes;
use crate::link::push_field;
use crate::time::Timestamp;

/// Statements of one answer that are looked at, and that the hub sends: the keys of sixteen years, if they change each season. It bounds what
/// a device computes for whoever answers.
pub const MAX_SUCCESSIONS: usize = 64;

/// The id of a signing key: the beginning of the SHA-256 of its public half, as a UUID of version 8.
#[must_use]
pub fn hub_key_id(public_key: &[u8]) -> Uuid {
    let hash = digest(&SHA256, public_key);
    let (head, _) = hash.as_ref().split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    uuid::Builder::from_custom_bytes(*head).into_uuid()
}

/// A key of the hub says that another one is the hub's too. Ed25519 over (`lintel.hub-key.v1`, id of the key before, id and public half of
/// the new one, Unix milliseconds), each with its length in front.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Succession {
    /// The new key. Its id follows from its public half.
    pub key: HubKey,
    /// The key before, which signs this.
    pub predecessor: Uuid,
    /// When it was signed, by the hub's clock; for people.
    pub at: Timestamp,
    /// Ed25519, 64 bytes.
    pub signature: Bytes,
}

impl Succession {
    /// Vouches for a key with the one before.
    #[must_use]
    pub fn sign(before: &Ed25519KeyPair, predecessor: Uuid, public_key: &[u8], at: Timestamp) -> Self {
        let key = HubKey { key_id: hub_key_id(public_key), public_key: Bytes(public_key.to_vec()) };
        let signature = before.sign(&signed_bytes(predecessor, &key, at));
        Self { key, predecessor, at, signature: Bytes(signature.as_ref().to_vec()) }
    }

    /// Whether `before` says so, of a key that can be one.
    #[must_use]
    pub fn is_of(&self, before: &HubKey) -> bool {
        let public_key = &self.key.public_key.0;
        self.predecessor == before.key_id
            && public_key.len() == ED25519_PUBLIC_KEY_LEN
            && self.key.key_id == hub_key_id(public_key)
            && UnparsedPublicKey::new(&ED25519, &before.public_key.0)
                .verify(&signed_bytes(self.predecessor, &self.key, self.at), &self.signature.0)
                .is_ok()
    }
}

/// The pinned keys and those that they lead to, in whatever order the statements come.
///
/// A statement that is not good, or that leads on from a key that is not trusted, brings nothing and spoils nothing: a device that was
/// claimed late is sent the statements of before, too. What has a signature of a key that is not here is refused by whoever verifies it.
#[must_use]
pub fn trusted(pinned: &[HubKey], successions: &[Succession]) -> Vec<HubKey> {
    let mut keys = pinned.to_vec();
    let mut at = 0;
    while let Some(before) = keys.get(at).cloned() {
        at += 1;
        for of in successions.iter().take(MAX_SUCCESSIONS).filter(|of| of.predecessor == before.key_id) {
            // One that is known by this id stays what it is.
            if keys.iter().all(|key| key.key_id != of.key.key_id) && of.is_of(&before) {
                keys.push(of.key.clone());
            }
        }
    }
    keys
}

fn signed_bytes(predecessor: Uuid, key: &HubKey, at: Timestamp) -> Vec<u8> {
    let mut out = Vec::new();
    for field in [
        &b"lintel.hub-key.v1"[..],
        predecessor.as_bytes(),
        key.key_id.as_bytes(),
        &key.public_key.0,
        &at.unix_ms().to_be_bytes(),
    ] {
        push_field(&mut out, field);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use ring::signature::KeyPair as _;

    use super::*;

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn key(seed: u8) -> HubKey {
        let public_key = Bytes(pair(seed).public_key().as_ref().to_vec());
        HubKey { key_id: hub_key_id(&public_key.0), public_key }
    }

    fn at() -> Timestamp {
        Timestamp::from_unix_ms(1_795_343_851_042)
    }

    fn from_to(before: u8, next: u8) -> Succession {
        Succession::sign(&pair(before), key(before).key_id, &key(next).public_key.0, at())
    }

    /// Keys 0 to `length`, each of which vouches for the next.
    fn chain(length: u8) -> Vec<Succession> {
        (0..length).map(|before| from_to(before, before + 1)).collect()
    }

    #[test]
    fn one_key_leads_to_the_next_and_not_back() {
        let link = [from_to(1, 2)];
        assert_eq!(trusted(&[key(1)], &link), [key(1), key(2)]);
        assert_eq!(trusted(&[key(2)], &link), [key(2)]);
        assert_eq!(trusted(&[], &link), []);
        assert_eq!(trusted(&[key(1)], &[]), [key(1)]);
    }

    #[test]
    fn the_statements_of_another_branch_or_of_before_spoil_nothing() {
        let all = [from_to(1, 2), from_to(2, 3), from_to(3, 4), from_to(2, 9), from_to(4, 2)];
        assert_eq!(trusted(&[key(3)], &all), [key(3), key(4), key(2), key(9)], "a circle ends");
        assert_eq!(trusted(&[key(3)], &all[..4]), [key(3), key(4)]);
    }

    #[test]
    fn a_key_that_is_pinned_is_not_exchanged_for_another_one_with_its_id() {
        let pinned = [key(1), HubKey { key_id: key(2).key_id, ..key(7) }];
        assert_eq!(trusted(&pinned, &[from_to(1, 2)]), pinned);
    }

    #[test]
    fn no_more_statements_are_looked_at_than_a_hub_sends() {
        let mut many = vec![from_to(1, 2); MAX_SUCCESSIONS];
        many.push(from_to(2, 3));
        assert_eq!(trusted(&[key(1)], &many), [key(1), key(2)]);
    }

    /// What may be wrong with one statement.
    #[derive(Debug, Clone, Copy)]
    enum Wrong {
        Signature(Index),
        PublicKey(Index),
        Time,
        Signer,
        Predecessor,
        KeyId,
        Short,
    }

    fn wrong() -> impl Strategy<Value = Wrong> {
        prop_oneof![
            any::<Index>().prop_map(Wrong::Signature),
            any::<Index>().prop_map(Wrong::PublicKey),
            Just(Wrong::Time),
            Just(Wrong::Signer),
            Just(Wrong::Predecessor),
            Just(Wrong::KeyId),
            Just(Wrong::Short),
        ]
    }

    fn flip(bytes: &mut Bytes, bit: Index) {
        let bit = bit.index(bytes.0.len() * 8);
        bytes.0[bit / 8] ^= 1 << (bit % 8);
    }

    fn spoil(link: &mut Succession, number: u8, wrong: Wrong) {
        match wrong {
            Wrong::Signature(bit) => flip(&mut link.signature, bit),
            Wrong::PublicKey(bit) => flip(&mut link.key.public_key, bit),
            Wrong::Time => link.at = Timestamp::from_unix_ms(link.at.unix_ms() + 1),
            // A stranger who names the right key before.
            Wrong::Signer => {
                *link = Succession::sign(&pair(200), link.predecessor, &key(number + 1).public_key.0, at());
            }
            // The good statement of a stranger, who says to be the key before.
            Wrong::Predecessor => {
                let foreign = from_to(200, number + 1);
                *link = Succession { predecessor: link.predecessor, ..foreign };
            }
            // Signed by the key before, but for another name.
            Wrong::KeyId => {
                link.key.key_id = Uuid::from_u128(5);
                let bytes = signed_bytes(link.predecessor, &link.key, link.at);
                link.signature = Bytes(pair(number).sign(&bytes).as_ref().to_vec());
            }
            Wrong::Short => *link = Succession::sign(&pair(number), link.predecessor, &[1; 31], at()),
        }
    }

    proptest! {
        /// A whole chain is followed in any order; a broken one up to where it breaks, and nothing behind that is trusted.
        #[test]
        fn a_chain_is_followed_as_far_as_it_is_good(
            length in 1_u8..12,
            broken in proptest::option::of((any::<Index>(), wrong())),
            order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut links = chain(length);
            let mut reached = length;
            if let Some((place, wrong)) = broken {
                let place = u8::try_from(place.index(usize::from(length))).unwrap();
                spoil(&mut links[usize::from(place)], place, wrong);
                reached = place;
            }
            let shuffled: Vec<Succession> = order.iter().filter_map(|place| links.get(*place).cloned()).collect();
            let expected: Vec<HubKey> = (0..=reached).map(key).collect();
            prop_assert_eq!(trusted(&[key(0)], &shuffled), expected);
        }
    }
}
