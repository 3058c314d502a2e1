//! The keys of the wire: K_up for what goes out, K_down for what comes in, and how new ones are taken in.
//!
//! In: [`DeviceKeys`] and the hub's [`LinkAnswer`]. Out: a [`LinkRing`] that wraps and opens payloads, and keys stored
//! before they are used. The previous link epoch still opens what the hub sealed before it changed.

use edge_store::{DeviceKeys, GalleryKeys, Identity, KeysError};
use gallery_log::keys::KeyBytes;
use gallery_log::{DigestKey, GalleryId, Purpose, SealContext, SealError, SealKey, TenantId};
use wire_contract::claim::{HubKey, SignedTimeError};
use wire_contract::envelope;
use wire_contract::link::UpKey;
use wire_contract::{Bytes, DeviceId, DownChannel, LinkAnswer, LinkKeys, Topic, UpChannel};
use zeroize::Zeroizing;

use crate::gallery::{Galleries, RosterError};

/// Why a link answer was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The time in it is not the hub's.
    #[error("the link answer's signed time is not authentic")]
    Time(#[from] SignedTimeError),
    /// A key could not be stored, or is older than the present one.
    #[error("link and gallery keys not stored")]
    Keys(#[from] KeysError),
    /// A gallery could not be opened.
    #[error(transparent)]
    Gallery(#[from] RosterError),
}

/// Why a `down` payload is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The hub seals under a key that this device has not fetched yet.
    #[error("sealed under a link key that this device does not have")]
    UnknownKey,
    /// Not a seal, or not for this topic.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The keys of the present link epoch and of the one before.
#[derive(Debug)]
pub(super) struct LinkRing {
    tenant: TenantId,
    device: DeviceId,
    up: UpKey,
    downs: Vec<(u32, SealKey)>,
}

impl LinkRing {
    /// The ring of the stored link keys; `None` before the first link.
    pub(super) fn load(keys: &DeviceKeys, identity: &Identity) -> Result<Option<Self>, KeysError> {
        let Some(stored) = keys.link()? else { return Ok(None) };
        let device = DeviceId(identity.device);
        let current = LinkKeys::derive(&stored.current.key, device, stored.current.epoch);
        let mut downs = vec![(current.epoch(), SealKey::new(*current.expose_down()))];
        if let Some(previous) = &stored.previous {
            let previous = LinkKeys::derive(&previous.key, device, previous.epoch);
            downs.push((previous.epoch(), SealKey::new(*previous.expose_down())));
        }
        let tenant = TenantId(identity.tenant);
        Ok(Some(Self { tenant, device, up: current.up().clone(), downs }))
    }

    /// The present link epoch.
    pub(super) fn epoch(&self) -> u32 {
        self.up.epoch()
    }

    /// The topic of an `up` channel.
    pub(super) fn up_topic(&self, channel: UpChannel) -> String {
        let tenant = wire_contract::TenantId(self.tenant.0);
        Topic::Up { tenant, device: self.device, channel }.to_string()
    }

    /// Wraps a payload for `topic`.
    pub(super) fn wrap(&self, topic: &str, payload: &[u8]) -> Vec<u8> {
        envelope::wrap_up(&self.up, topic, payload)
    }

    /// Which of this device's `down` channels a topic is; `None` for any other topic.
    pub(super) fn down_channel(&self, topic: &str) -> Option<DownChannel> {
        match topic.parse() {
            Ok(Topic::Down { tenant, device, channel }) if tenant.0 == self.tenant.0 && device == self.device => {
                Some(channel)
            }
            _ => None,
        }
    }

    /// Opens what the hub sealed for `topic`.
    pub(super) fn open(&self, topic: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let wanted = gallery_log::seal::key_id(sealed)?;
        let (epoch, key) = self.downs.iter().find(|(_, key)| key.id() == wanted).ok_or(OpenError::UnknownKey)?;
        Ok(key.open(&down_context(self.tenant, self.device, *epoch, topic), sealed)?)
    }
}

fn down_context(tenant: TenantId, device: DeviceId, epoch: u32, topic: &str) -> SealContext<'_> {
    SealContext::new(Purpose::MQTT_DOWN, tenant, device.0, u64::from(epoch)).with_topic(topic)
}

/// Stores the keys of an answer and gives each gallery its store; galleries that are not in it are destroyed.
///
/// The answer came over mutual TLS from the hub's own certificate; its time is checked besides, so that a hub whose
/// signing key was exchanged is noticed. Blocking: it writes and fsyncs.
pub(super) fn take_in(
    answer: &LinkAnswer,
    identity: &Identity,
    keys: &DeviceKeys,
    galleries: &Galleries,
) -> Result<(), LinkError> {
    answer.server_time.verify(&pinned_keys(identity), identity.device)?;
    store(answer, keys)?;
    for assigned in &answer.galleries {
        galleries.assign(GalleryId(assigned.gallery.0), &gallery_keys(assigned))?;
    }
    for gallery in keys.galleries()? {
        if !answer.galleries.iter().any(|assigned| assigned.gallery.0 == gallery.0) {
            tracing::info!(event = "gallery_withdrawn", gallery = %gallery, "the hub no longer assigns it to this device");
            galleries.withdraw(gallery)?;
        }
    }
    Ok(())
}

/// Stores the keys of an answer. Keys first, use afterwards.
pub(super) fn store(answer: &LinkAnswer, keys: &DeviceKeys) -> Result<(), KeysError> {
    keys.set_link(answer.link_epoch, answer.link_key.expose())?;
    for assigned in &answer.galleries {
        keys.set_gallery(GalleryId(assigned.gallery.0), &gallery_keys(assigned))?;
    }
    Ok(())
}

fn gallery_keys(assigned: &wire_contract::link::LinkGallery) -> GalleryKeys {
    GalleryKeys {
        epoch: assigned.epoch,
        digest: DigestKey::new(*assigned.gdk.expose()),
        credential: KeyBytes::new(*assigned.ck.expose()),
    }
}

/// The identity's pinned signing keys, as the wire contract has them. An id that is no UUID can have signed nothing.
fn pinned_keys(identity: &Identity) -> Vec<HubKey> {
    let keys = identity.hub_keys.iter();
    keys.filter_map(|key| Some(HubKey { key_id: key.key_id.parse().ok()?, public_key: Bytes(key.public_key.to_vec()) }))
        .collect()
}
