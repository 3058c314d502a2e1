//! A tenant's key while another one takes its place: which one seals when, what is sealed anew, and when the old one may go.
//!
//! In: how long ago the newest key was made. Out: how far the change may go. A key opens from the beginning, seals once every hub
//! knows it, and the ones before go only when whoever had read of them before has ended. Deliberately absent: where keys and rows
//! are (`keys::rotation`, `store::resealing`).

use std::time::Duration;

use gallery_log::seal::key_id;
use gallery_log::{KeyId, Purpose};
use uuid::Uuid;

use super::vault::{GROUP_KEY, KEPT_ANSWER, SESSION_FRAME, TenantKeys, USER_LOGIN, USER_TOTP, VaultError};

/// How long a hub believes what it read of a tenant's keys.
pub const BELIEVED: Duration = Duration::from_secs(2);
/// How long before its first seal a key is known: longer than any hub believes what it read.
const KNOWN_BEFORE: Duration = Duration::from_secs(5);
/// From then on no hub seals under the one before, but for whoever read of it earlier and is still at work.
const ALL_SEAL_AFTER: Duration = Duration::from_secs(10);
/// From then on nobody is at work who seals under the key before: a request ends within thirty seconds and its transaction within
/// fifteen more.
pub const NOBODY_AFTER: Duration = Duration::from_secs(60);

/// How far a change of keys may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The newest key opens only.
    Known,
    /// It seals.
    Seals,
    /// What was sealed before may be sealed anew.
    Reseals,
    /// The keys before may go, if nothing is sealed under them.
    Retires,
}

impl Stage {
    /// By the age of the newest key.
    #[must_use]
    pub fn at(age: Duration) -> Self {
        match age {
            age if age < KNOWN_BEFORE => Self::Known,
            age if age < ALL_SEAL_AFTER => Self::Seals,
            age if age < NOBODY_AFTER => Self::Reseals,
            _ => Self::Retires,
        }
    }

    /// The place of the key that seals, among keys that are newest first.
    #[must_use]
    pub fn sealing(self, keys: usize) -> usize {
        usize::from(self == Self::Known && keys > 1)
    }
}

/// What is sealed under a tenant's key in a row that tells object and revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantSeal {
    /// A gallery's digest key.
    DigestKey,
    /// A gallery's credential key.
    CredentialKey,
    /// A device's link key.
    LinkKey,
    /// A snapshot's key.
    SnapshotKey,
    /// A webhook's secret.
    WebhookSecret,
    /// A user's name to log in by.
    Login,
    /// The secret of a user's app.
    Totp,
    /// What a frame gave in a session in which the person is not known.
    Frame,
    /// An answer that is kept to be given again.
    Answer,
    /// The body of a rule.
    Rule,
}

impl TenantSeal {
    fn purpose(self) -> Purpose {
        match self {
            Self::DigestKey => Purpose::DIGEST_KEY,
            Self::CredentialKey => Purpose::CREDENTIAL_KEY,
            Self::LinkKey => Purpose::LINK_KEY,
            Self::SnapshotKey => Purpose::SNAPSHOT_KEY,
            Self::WebhookSecret => Purpose::WEBHOOK_SECRET,
            Self::Login => USER_LOGIN,
            Self::Totp => USER_TOTP,
            Self::Frame => SESSION_FRAME,
            Self::Answer => KEPT_ANSWER,
            Self::Rule => Purpose::RECORD_BODY,
        }
    }
}

impl TenantKeys {
    /// The ids of the keys that do not seal.
    #[must_use]
    pub fn old_ids(&self) -> Vec<KeyId> {
        self.versions[1..].iter().map(gallery_log::SealKey::id).collect()
    }

    /// Whether one of these keys has made a seal.
    #[must_use]
    pub fn knows(&self, sealed: &[u8]) -> bool {
        key_id(sealed).is_ok_and(|id| self.versions.iter().any(|key| key.id() == id))
    }

    /// The same sealed by the key that seals.
    pub fn reseal(&self, what: TenantSeal, object: Uuid, revision: u64, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let plain = self.open(what.purpose(), object, revision, sealed)?;
        self.seal(what.purpose(), object, revision, &plain)
    }

    /// Seals a version of the index key.
    pub fn seal_index_key(&self, version: u32, key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        self.seal(Purpose::BLIND_INDEX_KEY, self.tenant().0, u64::from(version), key)
    }

    /// A version of the index key sealed by the key that seals.
    pub fn reseal_index_key(&self, version: u32, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let plain = self.open(Purpose::BLIND_INDEX_KEY, self.tenant().0, u64::from(version), sealed)?;
        self.seal(Purpose::BLIND_INDEX_KEY, self.tenant().0, u64::from(version), &plain)
    }

    /// Seals the key by which doors know groups.
    pub fn seal_group_key(&self, key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        self.seal(GROUP_KEY, self.tenant().0, 1, key)
    }

    /// The key by which doors know groups, sealed by the key that seals.
    pub fn reseal_group_key(&self, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let plain = self.open(GROUP_KEY, self.tenant().0, 1, sealed)?;
        self.seal(GROUP_KEY, self.tenant().0, 1, &plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{EndpointId, TenantId};
    use crate::index_key::IndexKeys;
    use gallery_log::SealKey;
    use zeroize::Zeroizing;

    fn keys(versions: &[u8]) -> TenantKeys {
        let versions = versions.iter().map(|byte| SealKey::new([*byte; 32])).collect();
        TenantKeys::new(TenantId(Uuid::from_u128(1)), versions, IndexKeys::only(Zeroizing::new([9; 32])))
    }

    #[test]
    fn a_key_is_known_before_it_seals_and_the_last_that_seals_by_the_old_one_has_ended_before_it_goes() {
        let at = |seconds| Stage::at(Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(4), at(5), at(9), at(10), at(59), at(60)].map(|stage| stage.sealing(2)),
            [1, 1, 0, 0, 0, 0, 0]
        );
        assert_eq!(at(0).sealing(1), 0, "there is no other one");
        assert!(
            at(9) < Stage::Reseals && at(10) == Stage::Reseals && at(59) < Stage::Retires && at(60) == Stage::Retires
        );
        assert!(KNOWN_BEFORE > BELIEVED && ALL_SEAL_AFTER > KNOWN_BEFORE + BELIEVED);
    }

    #[test]
    fn what_is_sealed_anew_opens_by_the_new_key_alone() {
        let (before, during, after) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let endpoint = EndpointId(Uuid::from_u128(5));
        let sealed = before.seal_webhook_secret(endpoint, &[7; 32]).unwrap();
        let again = during.reseal(TenantSeal::WebhookSecret, endpoint.0, 1, &sealed).unwrap();
        assert_eq!(*after.open_webhook_secret(endpoint, &again).unwrap(), [7; 32]);
        assert!(after.open_webhook_secret(endpoint, &sealed).is_err());
        assert!(during.reseal(TenantSeal::Totp, endpoint.0, 1, &sealed).is_err(), "another purpose");
        assert!(during.reseal(TenantSeal::WebhookSecret, Uuid::from_u128(6), 1, &sealed).is_err(), "another row's");
    }

    #[test]
    fn a_tenants_own_keys_are_sealed_anew_each_at_its_place() {
        let (before, during, after) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let (index, groups) = (before.seal_index_key(3, &[7; 32]).unwrap(), before.seal_group_key(&[8; 32]).unwrap());
        assert!(before.knows(&index) && during.knows(&index) && !after.knows(&index) && !after.knows(b""));
        let again = during.reseal_index_key(3, &index).unwrap();
        assert!(after.knows(&again) && after.reseal_index_key(3, &again).is_ok());
        assert!(during.reseal_index_key(4, &index).is_err(), "another version's");
        assert!(during.reseal_group_key(&index).is_err() && during.reseal_index_key(1, &groups).is_err());
        assert!(after.reseal_group_key(&during.reseal_group_key(&groups).unwrap()).is_ok());
    }
}
