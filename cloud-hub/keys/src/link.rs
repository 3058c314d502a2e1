//! Link keys at work: what a device says is verified under K_up, what it is told is sealed under K_down.
//!
//! In: a device's stored link keys (the present one and the one before it). Out: verified payloads and sealed
//! messages. A device that fetched a new key but was cut off before it could store it still speaks with the old one:
//! it is answered under the key that it last used, as far as this process has heard it.

use std::collections::HashMap;
use std::sync::Arc;

use gallery_log::{Purpose, SealContext, SealKey};
use parking_lot::Mutex;
use wire_contract::envelope::{EnvelopeError, parse_up};
use wire_contract::{DownChannel, LinkKeys, Topic};

use super::{Custody, KeysError};
use hub_domain::ids::{DeviceId, TenantId};
use hub_domain::message::{Outgoing, down};
use hub_domain::vault::{VaultError, seal_tenant};
use hub_store::{StoreError, TenantTx, devices};

/// The link keys of all devices. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeviceLinks {
    custody: Custody,
    /// The epoch that each device last proved to use. One small entry per device heard of; lost at a restart, when
    /// the present key is the right guess.
    in_use: Arc<Mutex<HashMap<DeviceId, u32>>>,
}

/// The accepted keys of one device, the present one first.
#[derive(Clone, Debug)]
pub struct Accepted {
    device: DeviceId,
    keys: Vec<LinkKeys>,
}

impl DeviceLinks {
    /// Link keys from this custody.
    #[must_use]
    pub fn new(custody: Custody) -> Self {
        Self { custody, in_use: Arc::default() }
    }

    /// The custody behind it.
    #[must_use]
    pub fn custody(&self) -> &Custody {
        &self.custody
    }

    /// The keys that are accepted from a device now. Empty for one that never claimed.
    pub async fn accepted(&self, tx: &mut TenantTx, device: DeviceId) -> Result<Accepted, KeysError> {
        let keys = self.custody.keyring.tenant(tx).await?;
        let mut accepted = Vec::new();
        for link in devices::links(tx, device, self.custody.clock.now()).await? {
            let key = keys.open_link(device, link.epoch, &link.sealed)?;
            accepted.push(LinkKeys::derive(&key, wire_contract::DeviceId(device.0), link.epoch));
        }
        Ok(Accepted { device, keys: accepted })
    }

    /// The same for several devices. Only those are in it that may speak: registered with the transaction's tenant, and claimed.
    pub async fn accepted_of(
        &self,
        tx: &mut TenantTx,
        ids: &[DeviceId],
    ) -> Result<HashMap<DeviceId, Accepted>, KeysError> {
        let keys = self.custody.keyring.tenant(tx).await?;
        let mut all = HashMap::new();
        for (device, links) in devices::links_of(tx, ids, self.custody.clock.now()).await? {
            let mut accepted = Vec::with_capacity(links.len());
            for link in links {
                let key = keys.open_link(device, link.epoch, &link.sealed)?;
                accepted.push(LinkKeys::derive(&key, wire_contract::DeviceId(device.0), link.epoch));
            }
            all.insert(device, Accepted { device, keys: accepted });
        }
        Ok(all)
    }

    /// The payload of an `up` message, if one of the accepted keys made its envelope for this topic.
    pub fn verify<'a>(&self, accepted: &Accepted, topic: &Topic, bytes: &'a [u8]) -> Result<&'a [u8], EnvelopeError> {
        let unverified = parse_up(bytes)?;
        let found = unverified.link_epoch();
        let Some(key) = accepted.keys.iter().find(|key| key.epoch() == found) else {
            return Err(EnvelopeError::OtherEpoch {
                expected: accepted.keys.first().map_or(0, LinkKeys::epoch),
                found,
            });
        };
        let payload = unverified.verify(key.up(), &topic.to_string())?;
        self.in_use.lock().insert(accepted.device, found);
        Ok(payload)
    }

    /// The epoch of the key that [`DeviceLinks::seal`] would take; none for a device that never claimed.
    #[must_use]
    pub fn epoch_in_use(&self, accepted: &Accepted) -> Option<u32> {
        let used = self.in_use.lock().get(&accepted.device).copied();
        let key = accepted.keys.iter().find(|key| Some(key.epoch()) == used).or(accepted.keys.first());
        key.map(LinkKeys::epoch)
    }

    /// Seals a message for a device.
    pub fn seal(
        &self,
        tenant: TenantId,
        accepted: &Accepted,
        channel: DownChannel,
        plain: &[u8],
    ) -> Result<Outgoing, KeysError> {
        let device = accepted.device;
        let used = self.in_use.lock().get(&device).copied();
        let key = accepted
            .keys
            .iter()
            .find(|key| Some(key.epoch()) == used)
            .or(accepted.keys.first())
            .ok_or(StoreError::NotFound { what: "link key of device", id: device.0 })?;
        let topic = down(tenant, device, channel);
        let spelled = topic.to_string();
        let context = SealContext::new(Purpose::MQTT_DOWN, seal_tenant(tenant), device.0, u64::from(key.epoch()))
            .with_topic(&spelled);
        let payload = SealKey::new(*key.expose_down()).seal(&context, plain).map_err(VaultError::from)?;
        Ok(Outgoing { topic, payload })
    }
}
