//! Keys in use: what they seal, and to which place each seal is bound.
//!
//! In: unwrapped keys, which `keys` makes. Out: sealed and opened bytes, keyed marks. This is the one page that
//! says which key and which additional data belong to what the hub stores; the seal itself is gallery-log's.
//! Deliberately absent: where keys are kept and how they are wrapped (`keys`), and a way to print one.

use gallery_log::keys::NoRandomness;
use gallery_log::seal::key_id;
use gallery_log::{Purpose, SealContext, SealError, SealKey};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::ids::{DeviceId, EndpointId, GalleryId, SessionId, SnapshotId, TenantId, UserId};
use super::index_key::{IndexKeys, Marks, space_object};
use super::people::ProfileError;

/// The name by which a user of the dashboard logs in.
pub(super) const USER_LOGIN: Purpose = Purpose::new("user.login");
/// The secret in a user's authenticator app.
pub(super) const USER_TOTP: Purpose = Purpose::new("user.totp");
/// What a frame of an open session gave.
pub(super) const SESSION_FRAME: Purpose = Purpose::new("session.frame");
/// The key by which doors know groups.
pub const GROUP_KEY: Purpose = Purpose::new("key.groups");
/// An answer that is kept to be given again.
pub(super) const KEPT_ANSWER: Purpose = Purpose::new("idempotency.answer");

/// Sealing or opening failed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The seal did not open, or none could be made.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// What was sealed is not what it should be.
    #[error("unsealed {0} has the wrong length")]
    Length(&'static str),
    /// The versions of a person's key are not in the order in which they were made.
    #[error("the versions of a person's key are out of order")]
    Order,
    /// The profile inside is not one.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// A tenant's keys: every version of TK that may still be needed, and the index keys.
#[derive(Clone)]
pub struct TenantKeys {
    tenant: TenantId,
    /// The first seals, all open.
    pub(super) versions: Vec<SealKey>,
    index: IndexKeys,
}

/// The tenant's id in the type of the seal's additional data.
#[must_use]
pub fn seal_tenant(tenant: TenantId) -> gallery_log::TenantId {
    gallery_log::TenantId(tenant.0)
}

impl TenantKeys {
    /// Keys of `tenant`; of `versions`, at least one, the first seals.
    ///
    /// # Panics
    /// If `versions` is empty: a tenant without a key cannot exist, its first key is made with it.
    #[must_use]
    pub fn new(tenant: TenantId, versions: Vec<SealKey>, index: IndexKeys) -> Self {
        assert!(!versions.is_empty(), "a tenant has at least one key");
        Self { tenant, versions, index }
    }

    /// Whose keys these are.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The marks of a value that must be found but not read ([`super::index_key`]), one for each index key in use.
    #[must_use]
    pub fn marks(&self, field: &str, value: &str) -> Marks {
        self.index.marks(self.tenant, field, value)
    }

    /// Which of the marks a row has that has one alone.
    #[must_use]
    pub fn alone(&self) -> usize {
        self.index.alone()
    }

    /// The id by which doors know a group: names stay in the hub.
    #[must_use]
    pub fn group(&self, name: &str) -> Uuid {
        self.index.group(self.tenant, name)
    }

    /// The index keys.
    #[must_use]
    pub fn index(&self) -> &IndexKeys {
        &self.index
    }

    /// Seals a gallery's digest key.
    pub fn seal_gdk(&self, gallery: GalleryId, epoch: u32, key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        self.seal(Purpose::DIGEST_KEY, gallery.0, u64::from(epoch), key)
    }

    /// Opens a gallery's digest key.
    pub fn open_gdk(&self, gallery: GalleryId, epoch: u32, sealed: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        self.open_key(Purpose::DIGEST_KEY, gallery.0, u64::from(epoch), sealed)
    }

    /// Seals a gallery's credential key.
    pub fn seal_ck(&self, gallery: GalleryId, epoch: u32, key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        self.seal(Purpose::CREDENTIAL_KEY, gallery.0, u64::from(epoch), key)
    }

    /// Opens a gallery's credential key.
    pub fn open_ck(&self, gallery: GalleryId, epoch: u32, sealed: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        self.open_key(Purpose::CREDENTIAL_KEY, gallery.0, u64::from(epoch), sealed)
    }

    /// Seals a device's link key.
    pub fn seal_link(&self, device: DeviceId, link_epoch: u32, key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        self.seal(Purpose::LINK_KEY, device.0, u64::from(link_epoch), key)
    }

    /// Opens a device's link key.
    pub fn open_link(
        &self,
        device: DeviceId,
        link_epoch: u32,
        sealed: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        self.open_key(Purpose::LINK_KEY, device.0, u64::from(link_epoch), sealed)
    }

    /// Seals a snapshot's key.
    pub fn seal_snapshot_key(&self, snapshot: SnapshotId, key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        self.seal(Purpose::SNAPSHOT_KEY, snapshot.0, 1, key)
    }

    /// Opens a snapshot's key.
    pub fn open_snapshot_key(&self, snapshot: SnapshotId, sealed: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        self.open_key(Purpose::SNAPSHOT_KEY, snapshot.0, 1, sealed)
    }

    /// Seals a webhook endpoint's signing secret.
    pub fn seal_webhook_secret(&self, endpoint: EndpointId, secret: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        self.seal(Purpose::WEBHOOK_SECRET, endpoint.0, 1, secret)
    }

    /// Opens a webhook endpoint's signing secret.
    pub fn open_webhook_secret(&self, endpoint: EndpointId, sealed: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        self.open_key(Purpose::WEBHOOK_SECRET, endpoint.0, 1, sealed)
    }

    /// Seals a version of the rotation seed of an embedding space.
    pub fn seal_rotation_seed(&self, space_id: &str, version: u32, seed: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        self.seal(Purpose::ROTATION_SEED, space_object(self.tenant, space_id), u64::from(version), seed)
    }

    /// Opens a version of the rotation seed of an embedding space. One of before is bound to a mark of the space's name.
    pub fn open_rotation_seed(
        &self,
        space_id: &str,
        version: u32,
        sealed: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let open = |object| self.open_key(Purpose::ROTATION_SEED, object, u64::from(version), sealed);
        let here = open(space_object(self.tenant, space_id));
        if here.is_ok() {
            return here;
        }
        self.index.spaces(self.tenant, space_id).find_map(|object| open(object).ok()).map_or(here, Ok)
    }

    /// Whether a seed is bound to a mark of its space's name, and goes with the index key if it is not sealed anew.
    #[must_use]
    pub fn is_seed_of_before(&self, space_id: &str, version: u32, sealed: &[u8]) -> bool {
        let place = space_object(self.tenant, space_id);
        self.open_key(Purpose::ROTATION_SEED, place, u64::from(version), sealed).is_err()
    }

    /// Seals the name by which a user logs in.
    pub fn seal_login(&self, user: UserId, login: &str) -> Result<Vec<u8>, VaultError> {
        self.seal(USER_LOGIN, user.0, 1, login.as_bytes())
    }

    /// Opens the name by which a user logs in.
    pub fn open_login(&self, user: UserId, sealed: &[u8]) -> Result<Zeroizing<String>, VaultError> {
        let plain = self.open(USER_LOGIN, user.0, 1, sealed)?;
        String::from_utf8(plain.to_vec()).map(Zeroizing::new).map_err(|_| VaultError::Length("login"))
    }

    /// Seals the secret in a user's authenticator app.
    pub fn seal_totp(&self, user: UserId, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(USER_TOTP, user.0, 1, secret)
    }

    /// Opens the secret in a user's authenticator app.
    pub fn open_totp(&self, user: UserId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(USER_TOTP, user.0, 1, sealed)
    }

    /// Seals what a frame of a session gave in which the person is not known yet.
    pub fn seal_frame(&self, session: SessionId, number: u32, body: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(SESSION_FRAME, session.0, u64::from(number), body)
    }

    /// Opens what a frame of such a session gave.
    pub fn open_frame(&self, session: SessionId, number: u32, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(SESSION_FRAME, session.0, u64::from(number), sealed)
    }

    /// Seals an answer that is kept to be given again: it may have secrets that are shown once.
    pub fn seal_answer(&self, attempt: Uuid, answer: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(KEPT_ANSWER, attempt, 1, answer)
    }

    /// Opens an answer that was kept.
    pub fn open_answer(&self, attempt: Uuid, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(KEPT_ANSWER, attempt, 1, sealed)
    }

    /// Seals the body of a rule record: rules are the tenant's and no person's.
    pub fn seal_rule(&self, rule: Uuid, revision: u32, body: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(Purpose::RECORD_BODY, rule, u64::from(revision), body)
    }

    /// Opens the body of a rule record.
    pub fn open_rule(&self, rule: Uuid, revision: u32, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(Purpose::RECORD_BODY, rule, u64::from(revision), sealed)
    }

    pub(super) fn seal(
        &self,
        purpose: Purpose,
        object: Uuid,
        revision: u64,
        plain: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        Ok(self.versions[0].seal(&SealContext::new(purpose, seal_tenant(self.tenant), object, revision), plain)?)
    }

    pub(super) fn open(
        &self,
        purpose: Purpose,
        object: Uuid,
        revision: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let wanted = key_id(sealed)?;
        let key = self.versions.iter().find(|key| key.id() == wanted).unwrap_or(&self.versions[0]);
        Ok(key.open(&SealContext::new(purpose, seal_tenant(self.tenant), object, revision), sealed)?)
    }

    fn open_key(
        &self,
        purpose: Purpose,
        object: Uuid,
        revision: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let plain = self.open(purpose, object, revision, sealed)?;
        plain.as_slice().try_into().map(Zeroizing::new).map_err(|_| VaultError::Length("key"))
    }
}

impl std::fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TenantKeys({}, ***)", self.tenant)
    }
}

#[cfg(test)]
mod tests;
