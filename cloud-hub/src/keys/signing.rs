//! HSK: the hub's Ed25519 key, which devices pin at their claim.

use std::path::Path;

use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::claim::{HubKey, SignedTime};
use wire_contract::{Bytes, HubTime, Nonce, SnapshotManifest};
use zeroize::Zeroizing;

use super::KeysError;
use crate::domain::audit::{Hash, Head};
use crate::domain::erasure::{Erased, Receipt};
use crate::domain::ids::TenantId;
use crate::secret_file;

/// The key's file in the folder of the hub's keys.
pub(super) const FILE: &str = "signing.p8";

/// The id of a signing key: the beginning of the hash of its public half, as a UUID of version 8.
#[must_use]
pub fn id_of(public: &[u8]) -> Uuid {
    let hash = digest(&SHA256, public);
    let (head, _) = hash.as_ref().split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    uuid::Builder::from_custom_bytes(*head).into_uuid()
}

/// The key that signs what devices must believe of the hub.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    id: Uuid,
}

impl SigningKey {
    /// Reads the key's PKCS#8 file, making it first if there is none.
    pub(super) fn load_or_make(path: &Path) -> Result<Self, KeysError> {
        let pkcs8 = secret_file::load_or_make(path, || {
            let document =
                Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| gallery_log::keys::NoRandomness)?;
            Ok::<_, KeysError>(Zeroizing::new(document.as_ref().to_vec()))
        })?;
        Self::read(&pkcs8, path)
    }

    /// The public half of the key in a hub's folder of keys, by its id; nothing is made. For whoever verifies.
    pub fn public_in(keys_dir: &Path) -> Result<(Uuid, [u8; 32]), KeysError> {
        let path = keys_dir.join(FILE);
        let key = Self::read(&secret_file::load(&path)?, &path)?;
        Ok((key.id, key.pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes")))
    }

    fn read(pkcs8: &[u8], path: &Path) -> Result<Self, KeysError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| KeysError::Damaged { path: path.to_owned() })?;
        Ok(Self { id: id_of(pair.public_key().as_ref()), pair })
    }

    /// The public half, as devices pin it.
    #[must_use]
    pub fn public(&self) -> HubKey {
        HubKey { key_id: self.id, public_key: Bytes(self.pair.public_key().as_ref().to_vec()) }
    }

    /// The time, signed for one asker.
    #[must_use]
    pub fn sign_time(&self, nonce: Uuid, now: OffsetDateTime) -> SignedTime {
        SignedTime::sign(&self.pair, self.id, nonce, now.into())
    }

    /// The time, signed for one question.
    #[must_use]
    pub fn tell_time(&self, nonce: Nonce, now: OffsetDateTime) -> HubTime {
        HubTime::sign(&self.pair, self.id, nonce, now.into())
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
