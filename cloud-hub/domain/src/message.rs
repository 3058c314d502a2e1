//! A message from or to a device, on its way between the broker's connection and those who deal with it.
//!
//! `publish` owns the connection and `ingest` the events; they do not know each other and meet in these two types.

use wire_contract::topic::HomeDoor;
use wire_contract::{DownChannel, EventClass, Topic, UpChannel};

use super::ids::{DeviceId, DoorId, TenantId};

/// A message that came from the broker. Nothing of it is authentic yet, not even the ids in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The tenant that the topic names.
    pub tenant: TenantId,
    /// The device that the topic names.
    pub device: DeviceId,
    /// What it is about.
    pub channel: UpChannel,
    /// The payload, in its envelope.
    pub payload: Vec<u8>,
}

/// A message for the broker, sealed or public as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub topic: Topic,
    /// What it says.
    pub payload: Vec<u8>,
}

/// What a Home Assistant wants of a door. The broker's access lines say that it is of that tenant; the rest is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The tenant that the topic names.
    pub tenant: TenantId,
    /// The device that the topic names.
    pub device: DeviceId,
    /// The door that the topic names.
    pub door: DoorId,
    /// The word.
    pub word: Vec<u8>,
}

impl Wish {
    /// Reads a topic; `None` for one on which nobody wishes anything.
    #[must_use]
    pub fn on(topic: &str, word: &[u8]) -> Option<Self> {
        match topic.parse() {
            Ok(Topic::HomeDoor { tenant, device, door, what: HomeDoor::Set }) => Some(Self {
                tenant: TenantId(tenant.0),
                device: DeviceId(device.0),
                door: DoorId(door),
                word: word.to_vec(),
            }),
            _ => None,
        }
    }
}

impl Incoming {
    /// Reads a topic; `None` for one that no device writes.
    #[must_use]
    pub fn on(topic: &str, payload: Vec<u8>) -> Option<Self> {
        match topic.parse() {
            Ok(Topic::Up { tenant, device, channel }) => {
                Some(Self { tenant: TenantId(tenant.0), device: DeviceId(device.0), channel, payload })
            }
            _ => None,
        }
    }

    /// The topic it came on.
    #[must_use]
    pub fn topic(&self) -> Topic {
        Topic::Up {
            tenant: wire_contract::TenantId(self.tenant.0),
            device: wire_contract::DeviceId(self.device.0),
            channel: self.channel,
        }
    }
}

/// The topic on which a device reads `channel`.
#[must_use]
pub fn down(tenant: TenantId, device: DeviceId, channel: DownChannel) -> Topic {
    Topic::Down { tenant: wire_contract::TenantId(tenant.0), device: wire_contract::DeviceId(device.0), channel }
}

/// The topic on which consumers read a class of events.
#[must_use]
pub fn feed(tenant: TenantId, class: EventClass) -> Topic {
    Topic::Feed { tenant: wire_contract::TenantId(tenant.0), class }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));
    const DEVICE: DeviceId = DeviceId(Uuid::from_u128(2));

    #[test]
    fn what_a_device_says_is_read_with_its_topic_and_nothing_else_is() {
        for channel in UpChannel::ALL.iter().copied() {
            let said = Incoming { tenant: TENANT, device: DEVICE, channel, payload: b"said".to_vec() };
            assert_eq!(Incoming::on(&said.topic().to_string(), b"said".to_vec()), Some(said));
        }
        for channel in DownChannel::ALL.iter().copied() {
            assert_eq!(
                Incoming::on(&down(TENANT, DEVICE, channel).to_string(), Vec::new()),
                None,
                "the hub's own word"
            );
        }
        for class in EventClass::ALL.iter().copied() {
            assert_eq!(Incoming::on(&feed(TENANT, class).to_string(), Vec::new()), None);
        }
        assert_eq!(Incoming::on("", Vec::new()), None);
    }

    #[test]
    fn topics_name_the_tenant_before_the_device() {
        let (tenant, device) = (TENANT.0, DEVICE.0);
        assert_eq!(down(TENANT, DEVICE, DownChannel::Cmd).to_string(), format!("lintel/v1/{tenant}/{device}/down/cmd"));
        let feed = feed(TENANT, EventClass::Access).to_string();
        assert!(feed.starts_with(&format!("lintel/v1/{tenant}/_feed/")), "{feed}");
    }

    #[test]
    fn a_wish_is_read_from_the_topic_for_wishes_alone() {
        let (tenant, device, door) =
            (wire_contract::TenantId(TENANT.0), wire_contract::DeviceId(DEVICE.0), Uuid::from_u128(3));
        for what in HomeDoor::ALL.iter().copied() {
            let topic = Topic::HomeDoor { tenant, device, door, what }.to_string();
            let wish = Wish { tenant: TENANT, device: DEVICE, door: DoorId(door), word: b"UNLOCK".to_vec() };
            assert_eq!(Wish::on(&topic, b"UNLOCK"), (what == HomeDoor::Set).then_some(wish), "{topic}");
            assert_eq!(Incoming::on(&topic, b"UNLOCK".to_vec()), None, "no device says that");
        }
    }
}
