//! Link keys: what a device and the hub share, so that the broker between them need not be trusted.
//!
//! The device fetches [`LinkAnswer`] over mutual TLS; LK in it gives K_up (HMAC of `up` payloads) and K_down (seal of
//! `down` payloads) by HKDF-SHA256 with salt `lintel.link.v1` and info (direction, device, link epoch), each field with
//! its length in front. The hub accepts the previous link epoch for 24 hours.
//!
//! A `down` payload is a seal under K_down with purpose `mqtt.down`, the tenant, object = device, revision = link epoch,
//! and the topic.

use ring::{hkdf, hmac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::claim::SignedTime;
use crate::encoding::{SecretBytes, V1};
use crate::ids::{DeviceId, GalleryId};
use crate::succession::Succession;

const SALT: &[u8] = b"lintel.link.v1";

/// K_up of one link epoch.
#[derive(Clone)]
pub struct UpKey {
    epoch: u32,
    key: hmac::Key,
}

impl UpKey {
    /// The link epoch it belongs to.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) const fn hmac(&self) -> &hmac::Key {
        &self.key
    }
}

impl std::fmt::Debug for UpKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UpKey(epoch {}, ***)", self.epoch)
    }
}

/// K_up and K_down of one device and link epoch.
#[derive(Clone)]
pub struct LinkKeys {
    up: UpKey,
    down: Zeroizing<[u8; 32]>,
}

impl LinkKeys {
    /// Derives both keys from LK.
    pub fn derive(link_key: &[u8; 32], device: DeviceId, link_epoch: u32) -> Self {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(link_key);
        let expand = |direction: &str| {
            let mut info = Vec::new();
            for field in [direction.as_bytes(), device.0.as_bytes(), &link_epoch.to_be_bytes()] {
                push_field(&mut info, field);
            }
            let mut out = Zeroizing::new([0; 32]);
            prk.expand(&[&info], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(out.as_mut()))
                .expect("32 bytes is one HKDF-SHA256 block, which is always allowed");
            out
        };
        let up = hmac::Key::new(hmac::HMAC_SHA256, expand("up").as_ref());
        Self { up: UpKey { epoch: link_epoch, key: up }, down: expand("down") }
    }

    /// The link epoch.
    pub const fn epoch(&self) -> u32 {
        self.up.epoch
    }

    /// The key of [`crate::envelope`].
    pub const fn up(&self) -> &UpKey {
        &self.up
    }

    /// The bytes of K_down, for a `gallery_log::SealKey`. Never log them.
    pub fn expose_down(&self) -> &[u8; 32] {
        &self.down
    }
}

impl std::fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkKeys(epoch {}, ***)", self.epoch())
    }
}

/// A gallery that the device serves, with the keys for its digest and its credentials.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LinkGallery {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch; records of another are refused.
    pub epoch: u32,
    /// The digest key (GDK) of this epoch.
    pub gdk: SecretBytes,
    /// The credential key (CK) of this epoch.
    pub ck: SecretBytes,
}

/// What `GET /v1/device/link` answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LinkAnswer {
    /// Payload version.
    pub v: V1,
    /// Counts the link keys of this device.
    pub link_epoch: u32,
    /// LK, from which both link keys are derived.
    pub link_key: SecretBytes,
    /// The hub's epoch; higher after a restore from a backup.
    pub hub_epoch: u32,
    /// The galleries that the device serves; it drops all others.
    pub galleries: Vec<LinkGallery>,
    /// The hub's time, signed for the nonce in the query, or for the device id without one.
    pub server_time: SignedTime,
    /// By which the signing keys that the device pinned lead to the present one; none as long as it was never replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub successions: Vec<Succession>,
}

pub(crate) fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    let length = u32::try_from(field.len()).expect("fields are bounded by the 64 KiB payload");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(field);
}
