//! A tenant's index keys (BI): keyed marks of what must be found but not read, under every key that is in use at once.
//!
//! In: the keys, oldest first. Out: marks. While another key takes the place of one, whoever writes a mark writes it under both and
//! whoever looks for one looks under both: a hub that has not heard of the new key is found by the old mark and finds it, and a unique
//! index over either is enough, since any two hubs have one key in common. Marks of odd versions and of even ones have columns of their
//! own, so that the two never meet in one. Deliberately absent: when a key goes (`keys::index_rotation`), and the columns (`store`).

use ring::{digest, hmac};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::ids::TenantId;

/// Which names of a tenant's people and users are found by marks. They are part of what is marked and never change.
pub mod field {
    /// A person's external id.
    pub const EXTERNAL_ID: &str = "person.external_id";
    /// A person's e-mail address.
    pub const EMAIL: &str = "person.email";
    /// The name by which a user logs in.
    pub const LOGIN: &str = "user.login";
    /// A caller and the `Idempotency-Key` that they sent.
    pub const REQUEST_KEY: &str = "idempotency.key";
    /// What was asked with it.
    pub const REQUEST: &str = "idempotency.request";
    /// Photographs that a template was made of, before people's own keys marked them.
    pub const PHOTOGRAPHS: &str = "template.photographs";
    /// Doors know a group by the beginning of this mark of its name.
    pub(super) const GROUP: &str = "person.group";
    /// Seeds were bound to this mark of their space's name.
    pub(super) const SPACE: &str = "space";
}

/// An index key and its number.
#[derive(Clone)]
pub struct IndexKey {
    /// The number: 1, 2, ...
    pub version: u32,
    /// The key.
    pub key: Zeroizing<[u8; 32]>,
}

/// The index keys of a tenant that are in use.
#[derive(Clone)]
pub struct IndexKeys {
    /// Oldest first; one, or two while one takes the other's place.
    known: Vec<IndexKey>,
    /// The place of the one under which goes what is under one key alone.
    alone: usize,
    /// Doors know groups by it. It stays: another one would be a change of every gallery.
    groups: Zeroizing<[u8; 32]>,
}

/// A value under one index key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which key.
    pub version: u32,
    /// The mark.
    pub value: [u8; 32],
}

/// A value under all keys in use, oldest first. Empty where there is no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(Vec<Mark>);

impl Marks {
    /// The mark in the column of odd versions.
    #[must_use]
    pub fn odd(&self) -> Option<&[u8]> {
        self.of_parity(1)
    }

    /// The mark in the column of even versions.
    #[must_use]
    pub fn even(&self) -> Option<&[u8]> {
        self.of_parity(0)
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Mark] {
        &self.0
    }

    /// All of them as rows have them.
    #[must_use]
    pub fn values(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|mark| mark.value.to_vec()).collect()
    }

    fn of_parity(&self, parity: u32) -> Option<&[u8]> {
        self.0.iter().find(|mark| mark.version % 2 == parity).map(|mark| mark.value.as_slice())
    }
}

impl IndexKeys {
    /// These keys, oldest first; what is under one key alone goes under the one in place `alone`. Without a key of its own, groups are
    /// known by the oldest, as they were before they had one.
    ///
    /// # Panics
    /// If there is none, or no such place: a tenant's first key is made with it.
    #[must_use]
    pub fn new(known: Vec<IndexKey>, alone: usize, groups: Option<Zeroizing<[u8; 32]>>) -> Self {
        assert!(alone < known.len(), "a tenant has at least one index key");
        let groups = groups.unwrap_or_else(|| known[0].key.clone());
        Self { known, alone, groups }
    }

    /// A tenant's only key.
    #[must_use]
    pub fn only(key: Zeroizing<[u8; 32]>) -> Self {
        Self::new(vec![IndexKey { version: 1, key }], 0, None)
    }

    pub(super) fn marks(&self, tenant: TenantId, field: &str, value: &str) -> Marks {
        let mark = |of: &IndexKey| Mark { version: of.version, value: mark(&of.key, tenant, field, value) };
        Marks(self.known.iter().map(mark).collect())
    }

    /// The place among [`Marks::all`] of what is written under one key alone.
    pub(super) fn alone(&self) -> usize {
        self.alone
    }

    pub(super) fn group(&self, tenant: TenantId, name: &str) -> Uuid {
        uuid::Builder::from_custom_bytes(head(mark(&self.groups, tenant, field::GROUP, name))).into_uuid()
    }

    /// The places to which seeds of a space were bound before they had one without a key.
    pub(super) fn spaces(&self, tenant: TenantId, space_id: &str) -> impl Iterator<Item = Uuid> {
        self.known.iter().map(move |of| Uuid::from_bytes(head(mark(&of.key, tenant, field::SPACE, space_id))))
    }

    /// The key by which groups are known.
    #[must_use]
    pub fn groups(&self) -> &[u8; 32] {
        &self.groups
    }
}

/// The place to which the seed of a space is bound: spaces are named by text, places by UUID.
pub(super) fn space_object(tenant: TenantId, space_id: &str) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [b"lintel.space.v1".as_slice(), tenant.0.as_bytes(), space_id.as_bytes()] {
        context.update(&length(part));
        context.update(part);
    }
    let digest = context.finish();
    Uuid::from_bytes(head(digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")))
}

/// HMAC under an index key, separated by field and bound to the tenant.
fn mark(key: &[u8; 32], tenant: TenantId, field: &str, value: &str) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in [tenant.0.as_bytes().as_slice(), field.as_bytes(), value.as_bytes()] {
        context.update(&length(part));
        context.update(part);
    }
    context.sign().as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
}

fn length(part: &[u8]) -> [u8; 8] {
    u64::try_from(part.len()).expect("a usize fits in 64 bits").to_be_bytes()
}

fn head(mark: [u8; 32]) -> [u8; 16] {
    *mark.first_chunk().expect("a mark has 32 bytes")
}

impl std::fmt::Debug for IndexKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let versions: Vec<u32> = self.known.iter().map(|of| of.version).collect();
        write!(f, "IndexKeys({versions:?}, ***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    fn keys(versions: &[u32]) -> IndexKeys {
        let key = |version: &u32| {
            let byte = u8::try_from(*version).unwrap();
            IndexKey { version: *version, key: Zeroizing::new([byte; 32]) }
        };
        IndexKeys::new(versions.iter().map(key).collect(), 0, Some(Zeroizing::new([9; 32])))
    }

    fn marks(keys: &IndexKeys) -> Marks {
        keys.marks(TENANT, field::EMAIL, "ada@example.org")
    }

    #[test]
    fn marks_differ_by_field_value_tenant_and_key() {
        let one = keys(&[1]);
        let of = |keys: &IndexKeys, tenant, field, value| keys.marks(TenantId(Uuid::from_u128(tenant)), field, value);
        let found = [
            of(&one, 1, "email", "a"),
            of(&one, 1, "external_id", "a"),
            of(&one, 1, "email", "b"),
            of(&one, 2, "email", "a"),
            of(&keys(&[2]), 1, "email", "a"),
            of(&one, 1, "ab", "c"),
            of(&one, 1, "a", "bc"),
        ];
        for (place, mark) in found.iter().enumerate() {
            assert!(!found[..place].contains(mark), "{place}");
        }
        assert_eq!(found[0], of(&one, 1, "email", "a"));
    }

    #[test]
    fn whoever_knows_one_key_and_whoever_knows_two_have_a_column_in_common() {
        let (before, during, after) = (marks(&keys(&[1])), marks(&keys(&[1, 2])), marks(&keys(&[2])));
        assert!(before.even().is_none() && after.odd().is_none());
        assert!(before.odd().is_some() && before.odd() == during.odd());
        assert!(after.even().is_some() && after.even() == during.even());
        let later = marks(&keys(&[2, 3]));
        assert_eq!(later.even(), after.even());
        assert!(later.odd().is_some() && later.odd() != before.odd());
        assert!(Marks::default().odd().is_none() && Marks::default().even().is_none());
    }

    #[test]
    fn groups_are_the_same_at_doors_whatever_the_index_keys() {
        assert_eq!(keys(&[1]).group(TENANT, "staff"), keys(&[3]).group(TENANT, "staff"));
        assert_ne!(keys(&[1]).group(TENANT, "staff"), keys(&[1]).group(TENANT, "night"));
        // A tenant of before has no key for them: its first one serves, and is kept as theirs when another one comes.
        let before = IndexKeys::only(Zeroizing::new([1; 32]));
        let kept = IndexKeys::new(keys(&[2]).known, 0, Some(Zeroizing::new(*before.groups())));
        assert_eq!(before.group(TENANT, "staff"), kept.group(TENANT, "staff"));
        assert_eq!(before.group(TENANT, "staff").to_string(), "5845d97e-8873-8917-bc13-f0c1f8399829");
    }

    #[test]
    #[should_panic(expected = "at least one index key")]
    fn there_is_always_one() {
        let _ = IndexKeys::new(Vec::new(), 0, None);
    }
}
