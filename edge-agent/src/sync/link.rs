//! The keys of the wire: K_up for what goes out, K_down for what comes in, and how new ones are taken in.
//!
//! In: [`DeviceKeys`] and the hub's [`LinkAnswer`]. Out: a [`LinkRing`] that wraps and opens payloads, and keys stored
//! before they are used. The previous link epoch still opens what the hub sealed before it changed.

use edge_store::{DeviceKeys, GalleryKeys, Identity, KeysError};
use gallery_log::keys::KeyBytes;
use gallery_log::{DigestKey, GalleryId, Purpose, SealContext, SealError, SealKey, TenantId};
use uuid::Uuid;
use wire_contract::claim::SignedTimeError;
use wire_contract::envelope;
use wire_contract::link::UpKey;
use wire_contract::{DeviceId, DownChannel, LinkAnswer, LinkKeys, Topic, UpChannel};
use zeroize::Zeroizing;

use super::hub_keys;
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
    Gallery(Box<RosterError>),
}

impl From<RosterError> for LinkError {
    fn from(error: RosterError) -> Self {
        Self::Gallery(Box::new(error))
    }
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
/// The answer came over mutual TLS from the hub's own certificate; its time must be signed for `nonce` besides, so that a hub
/// whose signing key was exchanged is noticed. What the answer says of successors must have been learned before. Blocking: it writes and fsyncs.
pub(super) fn take_in(
    answer: &LinkAnswer,
    nonce: Uuid,
    identity: &Identity,
    keys: &DeviceKeys,
    galleries: &Galleries,
) -> Result<(), LinkError> {
    answer.server_time.verify(&hub_keys::pinned(identity), nonce)?;
    store(answer, keys)?;
    // Each on its own: trouble with one must neither keep another one's people out nor, worse, let them in.
    let mut first_error = Ok(());
    for gallery in keys.galleries()? {
        if !answer.galleries.iter().any(|assigned| assigned.gallery.0 == gallery.0) {
            tracing::info!(event = "gallery_withdrawn", gallery = %gallery, "the hub no longer assigns it to this device");
            first_error = first_error.and(galleries.withdraw(gallery));
        }
    }
    for assigned in &answer.galleries {
        first_error = first_error.and(galleries.assign(GalleryId(assigned.gallery.0), &gallery_keys(assigned)));
    }
    first_error.map_err(LinkError::from)
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

#[cfg(test)]
mod tests {
    use wire_contract::{DownChannel, LinkKeys, Topic, UpChannel};

    use super::*;
    use crate::sync::testkit::{Device, GALLERY, NONCE, link_answer, now};

    fn down_topic(device: &Device, channel: DownChannel) -> String {
        let tenant = wire_contract::TenantId(device.identity.tenant);
        Topic::Down { tenant, device: DeviceId(device.identity.device), channel }.to_string()
    }

    fn seal(device: &Device, key: [u8; 32], epoch: u32, topic: &str) -> Vec<u8> {
        let id = DeviceId(device.identity.device);
        let keys = LinkKeys::derive(&key, id, epoch);
        let context = down_context(TenantId(device.identity.tenant), id, epoch, topic);
        SealKey::new(*keys.expose_down()).seal(&context, b"{}").unwrap()
    }

    #[test]
    fn a_message_opens_on_its_own_topic_under_the_present_or_the_previous_key_only() {
        let device = Device::new();
        assert!(LinkRing::load(&device.keys, &device.identity).unwrap().is_none(), "no link yet");
        device.keys.set_link(4, &[4; 32]).unwrap();
        device.keys.set_link(5, &[5; 32]).unwrap();
        let ring = LinkRing::load(&device.keys, &device.identity).unwrap().unwrap();
        assert_eq!(ring.epoch(), 5);
        let (evtack, gallery) = (down_topic(&device, DownChannel::Evtack), down_topic(&device, DownChannel::Gallery));
        assert_eq!(ring.open(&evtack, &seal(&device, [5; 32], 5, &evtack)).unwrap().as_slice(), b"{}");
        assert!(ring.open(&evtack, &seal(&device, [4; 32], 4, &evtack)).is_ok());
        let moved = ring.open(&gallery, &seal(&device, [5; 32], 5, &evtack));
        assert!(matches!(moved, Err(OpenError::Seal(_))), "moved to another topic");
        let unknown = ring.open(&evtack, &seal(&device, [6; 32], 6, &evtack));
        assert!(matches!(unknown, Err(OpenError::UnknownKey)));
        assert!(matches!(ring.open(&evtack, b"{}"), Err(OpenError::Seal(_))));
        assert_eq!(ring.down_channel(&evtack), Some(DownChannel::Evtack));
        let foreign = Topic::Down {
            tenant: wire_contract::TenantId(device.identity.tenant),
            device: DeviceId(device.identity.tenant),
            channel: DownChannel::Evtack,
        };
        assert_eq!(ring.down_channel(&foreign.to_string()), None, "another device's topic");
        assert_eq!(ring.down_channel(&ring.up_topic(UpChannel::Evt)), None);
    }

    #[test]
    fn a_link_gives_galleries_and_takes_them_away() {
        let device = Device::new();
        let mut answer = link_answer(1, &[(GALLERY, 1)]);
        take_in(&answer, NONCE, &device.identity, &device.keys, &device.galleries).unwrap();
        let line = device.galleries.roster().load().lines()[0].clone();
        assert_eq!((line.gallery, line.epoch, line.version), (GALLERY, 1, 0));
        assert!(device.keys.gallery(GALLERY).unwrap().is_some());

        answer = link_answer(2, &[(GALLERY, 3)]);
        take_in(&answer, NONCE, &device.identity, &device.keys, &device.galleries).unwrap();
        assert_eq!(device.galleries.roster().load().lines()[0].epoch, 3);

        answer = link_answer(3, &[]);
        take_in(&answer, NONCE, &device.identity, &device.keys, &device.galleries).unwrap();
        assert!(device.galleries.roster().load().lines().is_empty());
        assert!(device.keys.gallery(GALLERY).unwrap().is_none());
    }

    #[test]
    fn a_link_with_another_hubs_time_or_an_older_epoch_is_refused() {
        let device = Device::new();
        let mut forged = link_answer(1, &[(GALLERY, 1)]);
        forged.server_time.at = now();
        let refused = take_in(&forged, NONCE, &device.identity, &device.keys, &device.galleries);
        assert!(matches!(refused, Err(LinkError::Time(_))));
        assert!(device.keys.link().unwrap().is_none(), "nothing was stored");
        let good = link_answer(4, &[(GALLERY, 2)]);
        take_in(&good, NONCE, &device.identity, &device.keys, &device.galleries).unwrap();
        let older = link_answer(3, &[(GALLERY, 2)]);
        let refused = take_in(&older, NONCE, &device.identity, &device.keys, &device.galleries);
        assert!(matches!(refused, Err(LinkError::Keys(KeysError::OlderEpoch { what: "link", .. }))));
    }
}
