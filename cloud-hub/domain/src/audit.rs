//! The audit's evidence: entries in a chain of hashes for each tenant, and signed heads of the chains.
//!
//! In: entries as the database has them. Out: bytes that two programs make alike, hashes, signatures. An entry's hash covers
//! every column of it, its place, and the hash of the one before; the first link is bound to the tenant. A head says, under
//! the hub's key, how far a tenant's chain went at a moment; kept outside the database, it makes a chain that was made anew,
//! or cut off at its end, differ from what was once signed. Judging is [`verifier`]'s.
//!
//! Deliberately absent: SQL, files, the signing key itself, and whether what an entry says was true when it was written.

pub mod action;
pub mod finding;
pub mod verifier;

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

use super::ids::TenantId;

/// A SHA-256.
pub type Hash = [u8; 32];

/// What the first bytes of each hashed or signed text say. Another layout of the rest gets another number.
const ENTRY_V1: &[u8] = b"lintel.audit.entry.v1";
const CHAIN_V1: &[u8] = b"lintel.audit.chain.v1";
const HEAD_V1: &[u8] = b"lintel.audit.head.v1";

/// JSON within JSON that is still put in order; what is deeper is taken byte by byte as it stands. Ours has two levels.
const MAX_DEPTH: usize = 32;

/// An entry as it stands in the database, without its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub tenant: TenantId,
    /// Its id.
    pub id: Uuid,
    /// When its transaction began.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: String,
    /// Did what.
    pub action: String,
    /// To what kind of thing.
    pub object_kind: String,
    /// To which.
    pub object_id: Option<Uuid>,
    /// What else matters: JSON, as the database prints it.
    pub detail: String,
}

/// A place in a tenant's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// From 1, without gaps.
    pub position: u64,
    /// The hash of the entry before; of the first one [`genesis`].
    pub previous: Hash,
    /// The hash of this entry at this place.
    pub hash: Hash,
}

/// A sealed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What it says.
    pub entry: Entry,
    /// Where it stands.
    pub link: Link,
}

/// What the first entry of a tenant follows.
#[must_use]
pub fn genesis(tenant: TenantId) -> Hash {
    let mut bytes = Vec::new();
    field(&mut bytes, CHAIN_V1);
    field(&mut bytes, tenant.0.as_bytes());
    sha256(&bytes)
}

impl Entry {
    /// The bytes that are hashed: every column, the place and the hash before, each with its length in front.
    #[must_use]
    pub fn canonical(&self, position: u64, previous: &Hash) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256 + self.detail.len());
        field(&mut bytes, ENTRY_V1);
        field(&mut bytes, self.tenant.0.as_bytes());
        field(&mut bytes, &position.to_be_bytes());
        field(&mut bytes, previous);
        field(&mut bytes, self.id.as_bytes());
        field(&mut bytes, &micros(self.at).to_be_bytes());
        field(&mut bytes, self.actor.as_bytes());
        field(&mut bytes, self.action.as_bytes());
        field(&mut bytes, self.object_kind.as_bytes());
        field(&mut bytes, self.object_id.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]));
        match canonical_json(&self.detail) {
            Some(json) => field(&mut bytes, json.as_bytes()),
            // No JSON of ours. Taken as it stands it still has one hash; the mark keeps the two kinds apart.
            None => field(&mut bytes, &[b"\0", self.detail.as_bytes()].concat()),
        }
        bytes
    }

    /// The entry at a place behind an entry of this hash.
    #[must_use]
    pub fn link(&self, position: u64, previous: Hash) -> Link {
        Link { position, previous, hash: sha256(&self.canonical(position, &previous)) }
    }
}

/// Puts entries in a row behind the last link of the tenant's chain, if there is one.
#[must_use]
pub fn chain(tenant: TenantId, last: Option<(u64, Hash)>, entries: &[Entry]) -> Vec<Link> {
    let (mut position, mut previous) = last.unwrap_or_else(|| (0, genesis(tenant)));
    let place = |entry: &Entry| {
        position += 1;
        let link = entry.link(position, previous);
        previous = link.hash;
        link
    };
    entries.iter().map(place).collect()
}

/// How far a tenant's chain went, signed by the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whose.
    pub tenant: TenantId,
    /// Which of the tenant's heads, from 1 without gaps: a line that is missing from a file is seen by it.
    pub number: u64,
    /// The last entry.
    pub position: u64,
    /// Its hash.
    pub hash: Hash,
    /// When it was signed, to the microsecond.
    pub at: OffsetDateTime,
    /// The hub's signing key.
    pub key_id: Uuid,
    /// Ed25519 over all of the above.
    pub signature: [u8; 64],
}

/// The public halves of the hub's signing keys, by their ids.
pub type HubKeys = BTreeMap<Uuid, [u8; 32]>;

/// What a signature of a head came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// It is the hub's.
    Good,
    /// It is not, or the head says something else than what was signed.
    Bad,
    /// Nobody here knows the key.
    UnknownKey,
}

impl Head {
    /// Signs how far a chain went.
    #[must_use]
    pub fn sign(
        pair: &Ed25519KeyPair,
        key_id: Uuid,
        tenant: TenantId,
        number: u64,
        (position, hash): (u64, Hash),
        at: OffsetDateTime,
    ) -> Self {
        // What the file says to the microsecond must be what was signed.
        let at = at.replace_microsecond(at.microsecond()).unwrap_or(at);
        let mut head = Self { tenant, number, position, hash, at, key_id, signature: [0; 64] };
        head.signature = pair.sign(&head.canonical()).as_ref().try_into().expect("an Ed25519 signature has 64 bytes");
        head
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160);
        field(&mut bytes, HEAD_V1);
        field(&mut bytes, self.tenant.0.as_bytes());
        field(&mut bytes, &self.number.to_be_bytes());
        field(&mut bytes, &self.position.to_be_bytes());
        field(&mut bytes, &self.hash);
        field(&mut bytes, &micros(self.at).to_be_bytes());
        field(&mut bytes, self.key_id.as_bytes());
        bytes
    }

    /// Judges the signature.
    #[must_use]
    pub fn signature(&self, keys: &HubKeys) -> Signature {
        let Some(key) = keys.get(&self.key_id) else { return Signature::UnknownKey };
        let verified = UnparsedPublicKey::new(&ED25519, key).verify(&self.canonical(), &self.signature);
        if verified.is_ok() { Signature::Good } else { Signature::Bad }
    }
}

/// JSON with the members of each object in the order of their names and nothing between the tokens. Numbers stay as they are
/// written: two that a reader takes for one are still two. `None` if it is no JSON, or deeper than ours ever is.
fn canonical_json(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    put_json(serde_json::from_str(text).ok()?, 0, &mut out)?;
    Some(out)
}

fn put_json(value: &RawValue, depth: usize, out: &mut String) -> Option<()> {
    let text = value.get().trim();
    if depth > MAX_DEPTH {
        return None;
    }
    match text.as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            out.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(&name).ok()?);
                out.push(':');
                put_json(value, depth + 1, out)?;
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            out.push('[');
            for (index, value) in items.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                put_json(value, depth + 1, out)?;
            }
            out.push(']');
        }
        // Two spellings of one text are one text.
        b'"' => out.push_str(&serde_json::to_string(&serde_json::from_str::<String>(text).ok()?).ok()?),
        _ => out.push_str(text),
    }
    Some(())
}

/// The database keeps times to the microsecond.
pub(super) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000)).expect("times that the database holds fit")
}

/// A part of what is hashed or signed, with its length in front.
pub(super) fn field(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(value.len()).expect("a column has a gigabyte at most").to_be_bytes());
    bytes.extend_from_slice(value);
}

fn sha256(bytes: &[u8]) -> Hash {
    digest(&SHA256, bytes).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    fn entry() -> Entry {
        Entry {
            tenant: TenantId(Uuid::from_u128(1)),
            id: Uuid::from_u128(2),
            at: datetime!(2026-11-29 10:00:00.123456 UTC),
            actor: String::from("operator"),
            action: String::from("person.create"),
            object_kind: String::from("person"),
            object_id: Some(Uuid::from_u128(3)),
            detail: String::from(r#"{"galleries": 1}"#),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_first_version() {
        // Written down once, by another program from the description alone: one that hashes otherwise would find every chain that is there edited.
        let link = entry().link(1, genesis(entry().tenant));
        assert_eq!(
            hex::encode(genesis(entry().tenant)),
            "82b8409e2126df9638342d87fa53d4d239c3aca13054b0dd9765bb9173ae1d57"
        );
        assert_eq!(hex::encode(link.hash), "d740f640715e272f20672074857ae345e460ac5f1ece1d4bc135a5600dcff90d");
    }

    #[test]
    fn every_column_and_the_place_are_in_the_hash() {
        let genesis = genesis(entry().tenant);
        let hash = entry().link(1, genesis).hash;
        let changes: [fn(&mut Entry); 9] = [
            |entry| entry.tenant = TenantId(Uuid::from_u128(9)),
            |entry| entry.id = Uuid::from_u128(9),
            |entry| entry.at += time::Duration::microseconds(1),
            |entry| entry.actor.push('x'),
            |entry| entry.action = String::from("person.creat"),
            |entry| entry.object_kind.insert(0, 'e'),
            |entry| entry.object_id = None,
            |entry| entry.detail = String::from(r#"{"galleries": 1.0}"#),
            |entry| entry.detail = String::from("not json"),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut changed = entry();
            change(&mut changed);
            assert_ne!(changed.link(1, genesis).hash, hash, "change {index}");
        }
        assert_ne!(entry().link(2, genesis).hash, hash);
        assert_ne!(entry().link(1, [0; 32]).hash, hash);
    }

    #[test]
    fn json_is_put_in_order_and_its_numbers_stay_as_written() {
        let order = |text| canonical_json(text).unwrap();
        assert_eq!(
            order(r#"{ "b": [1, {"d": null, "c": true}], "a": "\u0041" }"#),
            r#"{"a":"A","b":[1,{"c":true,"d":null}]}"#
        );
        assert_eq!(order(r#"{"n": 0.10000000000000000001}"#), r#"{"n":0.10000000000000000001}"#);
        assert_eq!(canonical_json("{"), None);
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(canonical_json(&deep), None, "and no stack is overrun");
    }

    #[test]
    fn a_head_is_good_under_its_key_alone_and_says_what_was_signed() {
        use ring::signature::KeyPair as _;
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let (id, at) = (Uuid::from_u128(5), datetime!(2026-11-29 10:00:00.123456789 UTC));
        let head = Head::sign(&pair, id, entry().tenant, 1, (3, [8; 32]), at);
        let keys = HubKeys::from([(id, pair.public_key().as_ref().try_into().unwrap())]);
        assert_eq!(head.signature(&keys), Signature::Good);
        assert_eq!(head.at, datetime!(2026-11-29 10:00:00.123456 UTC));
        let changes: [fn(&mut Head); 6] = [
            |head| head.tenant = TenantId(Uuid::from_u128(9)),
            |head| head.number = 2,
            |head| head.position = 4,
            |head| head.hash[0] ^= 1,
            |head| head.at += time::Duration::microseconds(1),
            |head| head.signature[0] ^= 1,
        ];
        for change in changes {
            let mut changed = head.clone();
            change(&mut changed);
            assert_eq!(changed.signature(&keys), Signature::Bad);
        }
        assert_eq!(Head { key_id: Uuid::nil(), ..head }.signature(&keys), Signature::UnknownKey);
    }

    proptest! {
        #[test]
        fn columns_do_not_run_into_one_another(actor in ".{0,8}", action in ".{0,8}", at in 0_usize..8) {
            let both: Vec<char> = actor.chars().chain(action.chars()).collect();
            let (left, right) = both.split_at(at.min(both.len()));
            let (left, right): (String, String) = (left.iter().collect(), right.iter().collect());
            let one = Entry { actor: actor.clone(), action: action.clone(), ..entry() };
            let other = Entry { actor: left.clone(), action: right, ..entry() };
            prop_assert_eq!(one.link(1, [0; 32]) == other.link(1, [0; 32]), actor == left);
        }

        #[test]
        fn any_detail_has_a_hash(detail in ".*") {
            let entry = Entry { detail, ..entry() };
            prop_assert_eq!(entry.link(1, [0; 32]), entry.link(1, [0; 32]));
        }
    }
}
