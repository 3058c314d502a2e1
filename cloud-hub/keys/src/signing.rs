//! HSK: the hub's Ed25519 key, which devices pin at their claim, with what the keys before it said of their successors.
//!
//! In: a key and its past, as [`super::signing_keys`] reads them. Out: signatures, and what devices must be told to believe them.

use std::path::Path;

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::claim::{HubKey, SignedTime};
use wire_contract::succession::MAX_SUCCESSIONS;
use wire_contract::{Bytes, HubTime, Nonce, SnapshotManifest, Succession};

use super::KeysError;
use super::signing_keys::{FILE, History};
use hub_domain::audit::{Hash, Head};
use hub_domain::erasure::{Erased, Receipt};
use hub_domain::ids::TenantId;
use hub_host::secret_file;

pub use wire_contract::succession::hub_key_id as id_of;

/// The key that signs what devices must believe of the hub.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    id: Uuid,
    history: History,
}

impl SigningKey {
    /// The public half of the key in a hub's folder of keys, by its id; nothing is made. For whoever verifies.
    pub fn public_in(keys_dir: &Path) -> Result<(Uuid, [u8; 32]), KeysError> {
        let path = keys_dir.join(FILE);
        let key = Self::read(&secret_file::load(&path)?, &path)?;
        Ok((key.id, key.pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes")))
    }

    /// The key of a PKCS#8 file, without a past.
    pub(super) fn read(pkcs8: &[u8], path: &Path) -> Result<Self, KeysError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| KeysError::Damaged { path: path.to_owned() })?;
        Ok(Self { id: id_of(pair.public_key().as_ref()), pair, history: History::default() })
    }

    /// The same key with its past.
    pub(super) fn with(self, history: History) -> Self {
        Self { history, ..self }
    }

    /// Its id, as signatures name it.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The public half, as devices pin it.
    #[must_use]
    pub fn public(&self) -> HubKey {
        HubKey { key_id: self.id, public_key: Bytes(self.pair.public_key().as_ref().to_vec()) }
    }

    /// The keys that a device is to pin: this one, and those before it that another hub may sign with still.
    #[must_use]
    pub fn valid(&self) -> Vec<HubKey> {
        let before = self.history.predecessors.iter().rev().filter(|before| !before.retired).map(|before| &before.key);
        std::iter::once(self.public()).chain(before.filter(|key| key.key_id != self.id).cloned()).collect()
    }

    /// What leads from each key that there ever was to its successor, the oldest first: the last ones, if there are more than a device
    /// looks at.
    #[must_use]
    pub fn successions(&self) -> &[Succession] {
        let all = &self.history.successions;
        &all[all.len().saturating_sub(MAX_SUCCESSIONS)..]
    }

    /// Vouches for the key that is to take this one's place.
    pub(super) fn vouch_for(&self, next: &Self, now: OffsetDateTime) -> Succession {
        Succession::sign(&self.pair, self.id, next.pair.public_key().as_ref(), now.into())
    }

    /// The time, signed for one asker.
    #[must_use]
    pub fn sign_time(&self, nonce: Uuid, now: OffsetDateTime) -> SignedTime {
        SignedTime::sign(&self.pair, self.id, nonce, now.into())
    }

    /// The time, signed for one question, and what leads to this key.
    #[must_use]
    pub fn tell_time(&self, nonce: Nonce, now: OffsetDateTime) -> HubTime {
        let time = HubTime::sign(&self.pair, self.id, nonce, now.into());
        HubTime { successions: self.successions().to_vec(), ..time }
    }

    /// How far a tenant's audit goes, signed: its head of this number.
    #[must_use]
    pub fn sign_head(&self, tenant: TenantId, number: u64, last: (u64, Hash), now: OffsetDateTime) -> Head {
        Head::sign(&self.pair, self.id, tenant, number, last, now)
    }

    /// What is said of a tenant that was erased, signed.
    #[must_use]
    pub fn sign_receipt(&self, erased: Erased) -> Receipt {
        Receipt::sign(&self.pair, self.id, erased)
    }

    /// A snapshot's manifest, signed.
    #[must_use]
    pub fn sign_manifest(&self, manifest: SnapshotManifest) -> SnapshotManifest {
        manifest.signed(&self.pair, self.id)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, ***)", self.id)
    }
}
