//! Keys of platform administrators: made, ended, and recognised by the MAC of their secrets. Nothing of them is believed without asking
//! the database: there is little such traffic, and a key that is revoked on one hub has ended on all of them.

use gallery_log::keys::random_key;
use time::OffsetDateTime;

use super::api_keys::renewed;
use super::{Custody, KeysError};
use hub_domain::ids::PlatformKeyId;
use hub_domain::platform::{PlatformKey, PlatformRole};
use hub_store::credentials::LAST_USED_WITHIN;
use hub_store::platform_keys::{self, NewPlatformKey};

/// A key to be made.
#[derive(Clone, Debug)]
pub struct WantedPlatformKey {
    /// Whose it is, or what it is for.
    pub name: String,
    /// What it may do.
    pub role: PlatformRole,
    /// When it ends by itself, if it does.
    pub expires_at: Option<OffsetDateTime>,
}

impl Custody {
    /// Makes a key of the platform; its secret is in the answer and nowhere else.
    pub async fn create_platform_key(&self, wanted: WantedPlatformKey, actor: &str) -> Result<PlatformKey, KeysError> {
        let key = PlatformKey { id: PlatformKeyId(self.clock.new_id()), secret: random_key()? };
        let mac = self.keyring.platform_key_mac(key.id, &key.secret);
        let WantedPlatformKey { name, role, expires_at } = wanted;
        let row = NewPlatformKey { id: key.id, name, role, mac, created_at: self.clock.now(), expires_at };
        platform_keys::create(&self.db, &row).await?;
        tracing::warn!(event = "platform_key_created", key = %key.id, %role, actor, "there is another key of the platform");
        Ok(key)
    }

    /// Ends a key at once, on every hub.
    pub async fn revoke_platform_key(&self, key: PlatformKeyId, actor: &str) -> Result<(), KeysError> {
        platform_keys::revoke(&self.db, key, self.clock.now()).await?;
        tracing::warn!(event = "platform_key_revoked", %key, actor, "a key of the platform has ended");
        Ok(())
    }

    /// What a key may do; `None` if it is unknown, wrong, revoked or expired, which callers must not tell apart.
    pub async fn recognise_platform_key(&self, key: &PlatformKey) -> Result<Option<PlatformRole>, KeysError> {
        let now = self.clock.now();
        let found = platform_keys::admission(&self.db, key.id, now).await?;
        let Some(found) = found else { return Ok(None) };
        let Some(made_by) = self.keyring.platform_key_made_by(key.id, &key.secret, &found.mac) else { return Ok(None) };
        let anew = || self.keyring.platform_key_mac(key.id, &key.secret);
        if let Some(anew) = renewed(found.mac, found.pepper, made_by, anew) {
            platform_keys::renew(&self.db, key.id, &found.mac, anew).await?;
        }
        if found.last_used_at.is_none_or(|last| now - last >= LAST_USED_WITHIN) {
            platform_keys::used(&self.db, key.id, now).await?;
        }
        Ok(Some(found.role))
    }
}
