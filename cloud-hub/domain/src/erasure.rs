//! The end of a tenant: in which order its tables are emptied, and the receipt that stays.
//!
//! In: the catalogue's tables and which refers to which; what was removed. Out: an order that foreign keys allow, and a signed
//! statement without personal data: which tenant, when, how much, and how far its audit went. The last makes the signed heads
//! that lie outside the database fit what is left in it. Deliberately absent: SQL, and the signing key itself.

use std::collections::{BTreeMap, BTreeSet};

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use time::OffsetDateTime;
use uuid::Uuid;

use super::audit::{Hash, Head, HubKeys, Signature, field, micros};
use super::ids::TenantId;

/// What the first bytes of the signed text say. Another layout of the rest gets another number.
const RECEIPT_V1: &[u8] = b"lintel.tenant.erased.v1";

/// How far the audit of a tenant went: its last head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastHead {
    /// Its number.
    pub number: u64,
    /// Its last entry.
    pub position: u64,
    /// The hash of that.
    pub hash: Hash,
}

impl From<&Head> for LastHead {
    fn from(head: &Head) -> Self {
        Self { number: head.number, position: head.position, hash: head.hash }
    }
}

/// What is said of a tenant that was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Whose end it was.
    pub tenant: TenantId,
    /// When it was ordered and its keys were destroyed.
    pub began_at: OffsetDateTime,
    /// When the last row went.
    pub finished_at: OffsetDateTime,
    /// Keys of people that were destroyed.
    pub person_keys: u64,
    /// Rows that were removed, by table.
    pub removed: BTreeMap<String, u64>,
    /// The last head of its audit; `None` if it never had one.
    pub head: Option<LastHead>,
}

/// The same under the hub's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What is said.
    pub erased: Erased,
    /// The hub's signing key.
    pub key_id: Uuid,
    /// Ed25519 over all of it.
    pub signature: [u8; 64],
}

impl Receipt {
    /// Signs.
    #[must_use]
    pub fn sign(pair: &Ed25519KeyPair, key_id: Uuid, erased: Erased) -> Self {
        let signature = pair.sign(&canonical(&erased, key_id));
        let signature = signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes");
        Self { erased, key_id, signature }
    }

    /// Judges the signature.
    #[must_use]
    pub fn signature(&self, keys: &HubKeys) -> Signature {
        let Some(key) = keys.get(&self.key_id) else { return Signature::UnknownKey };
        let text = canonical(&self.erased, self.key_id);
        let verified = UnparsedPublicKey::new(&ED25519, key).verify(&text, &self.signature);
        if verified.is_ok() { Signature::Good } else { Signature::Bad }
    }
}

/// The bytes that are signed: each part with its length in front.
fn canonical(erased: &Erased, key_id: Uuid) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    field(&mut bytes, RECEIPT_V1);
    field(&mut bytes, erased.tenant.0.as_bytes());
    field(&mut bytes, &micros(erased.began_at).to_be_bytes());
    field(&mut bytes, &micros(erased.finished_at).to_be_bytes());
    field(&mut bytes, &erased.person_keys.to_be_bytes());
    for (table, rows) in &erased.removed {
        field(&mut bytes, table.as_bytes());
        field(&mut bytes, &rows.to_be_bytes());
    }
    // An empty name is no table's: it ends the list.
    field(&mut bytes, b"");
    if let Some(head) = erased.head {
        field(&mut bytes, &head.number.to_be_bytes());
        field(&mut bytes, &head.position.to_be_bytes());
        field(&mut bytes, &head.hash);
    }
    field(&mut bytes, key_id.as_bytes());
    bytes
}

/// A table refers to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The table with the foreign key.
    pub from: String,
    /// The table that it names.
    pub to: String,
}

/// The tables so that each comes before those it refers to; of several that may come, the first by name. `None` if they refer
/// to one another in a circle: then no order of single tables empties them.
#[must_use]
pub fn order(tables: BTreeSet<String>, references: &[Reference]) -> Option<Vec<String>> {
    let mut left = tables;
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let referred = |table: &String| {
            references.iter().any(|key| key.to == *table && key.from != *table && left.contains(&key.from))
        };
        let next = left.iter().find(|table| !referred(table))?.clone();
        left.remove(&next);
        ordered.push(next);
    }
    Some(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair as _;
    use time::macros::datetime;

    fn erased() -> Erased {
        Erased {
            tenant: TenantId(Uuid::from_u128(1)),
            began_at: datetime!(2026-11-29 10:00 UTC),
            finished_at: datetime!(2026-11-29 10:01 UTC),
            person_keys: 2,
            removed: BTreeMap::from([(String::from("person"), 2), (String::from("site"), 1)]),
            head: Some(LastHead { number: 3, position: 40, hash: [5; 32] }),
        }
    }

    #[test]
    fn a_receipt_is_good_under_its_key_and_says_what_was_signed() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let id = Uuid::from_u128(9);
        let keys = HubKeys::from([(id, pair.public_key().as_ref().try_into().unwrap())]);
        let receipt = Receipt::sign(&pair, id, erased());
        assert_eq!(receipt.signature(&keys), Signature::Good);
        assert_eq!(receipt.signature(&HubKeys::new()), Signature::UnknownKey);
        let changes: [fn(&mut Erased); 8] = [
            |erased| erased.tenant = TenantId(Uuid::from_u128(2)),
            |erased| erased.began_at += time::Duration::microseconds(1),
            |erased| erased.finished_at += time::Duration::microseconds(1),
            |erased| erased.person_keys = 1,
            |erased| *erased.removed.get_mut("site").unwrap() = 2,
            |erased| erased.removed.retain(|table, _| table != "site"),
            |erased| erased.head = None,
            |erased| erased.head.as_mut().unwrap().position = 41,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = receipt.clone();
            change(&mut other.erased);
            assert_eq!(other.signature(&keys), Signature::Bad, "change {index}");
        }
    }

    #[test]
    fn tables_come_before_those_they_refer_to() {
        let key = |from: &str, to: &str| Reference { from: from.to_owned(), to: to.to_owned() };
        let tables = || ["tenant", "site", "device", "door", "event"].map(String::from).into_iter().collect();
        let keys = [
            key("site", "tenant"),
            key("door", "device"),
            key("device", "site"),
            key("door", "site"),
            key("site", "site"),
        ];
        assert_eq!(order(tables(), &keys).unwrap(), ["door", "device", "event", "site", "tenant"]);
        let circle = [key("site", "device"), key("device", "site")];
        assert_eq!(order(tables(), &circle), None);
    }
}
