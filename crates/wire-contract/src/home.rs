//! What a Home Assistant is told of a device: its discovery message, and the states that follow from events.
//!
//! In: a device with its doors, and events as the feed has them. Out: topics and payloads in Home Assistant's words
//! (<https://www.home-assistant.io/integrations/mqtt/>, device discovery). Only what the hub really knows is announced: relays,
//! decisions, alerts. Deliberately absent: door contacts and pictures, which no event tells of, and names of people.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::event::{CloudEvent, EventData};
use crate::ids::{DeviceId, TenantId};
use crate::topic::{HomeDevice, HomeDoor, Topic};

/// What opens a door, said on its [`HomeDoor::Set`] topic.
pub const UNLOCK: &str = "UNLOCK";
const LOCKED: &str = "LOCKED";
const UNLOCKED: &str = "UNLOCKED";
const ONLINE: &str = "online";
const OFFLINE: &str = "offline";
const GRANTED: &str = "granted";
const DENIED: &str = "denied";
/// The words of the alert entity: the third of the event type.
const ALERTS: [&str; 6] = [
    "camera_stalled",
    "camera_recovered",
    "stream_conflict",
    "claim_reused",
    "gallery_diverged",
    "gallery_older_epoch",
];

/// A door of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Door {
    /// Its id at the hub.
    pub id: Uuid,
    /// Its id in the agent's configuration, by which events name it.
    pub local_id: String,
    /// What people call it.
    pub name: String,
}

/// A device as it is announced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announced {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id.
    pub device: DeviceId,
    /// What people call it.
    pub name: String,
    /// The agent's version, once it has said it.
    pub agent_version: Option<String>,
    /// Its doors.
    pub doors: Vec<Door>,
    /// Whether Home Assistant may open them.
    pub may_unlock: bool,
}

/// A message for Home Assistant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Where it goes.
    pub topic: Topic,
    /// What it says; empty takes back what the broker keeps.
    pub payload: Vec<u8>,
}

impl Announced {
    /// The discovery message. `hub_version` is that of the program that says it.
    pub fn discovery(&self, hub_version: &str) -> Said {
        let mut device = json!({
            "identifiers": [format!("lintel-{}", self.device)],
            "name": self.name,
            "manufacturer": "Lintel",
            "model": "edge-agent",
        });
        if let Some(version) = &self.agent_version {
            device["sw_version"] = json!(version);
        }
        let mut components: Map<String, Value> = self.doors.iter().flat_map(|door| self.components(door)).collect();
        components.insert(
            "alert".to_owned(),
            json!({
                "platform": "event",
                "unique_id": format!("lintel-{}-alert", self.device),
                "name": "Alert",
                "state_topic": self.of_device(HomeDevice::Alert),
                "event_types": ALERTS,
            }),
        );
        let message = json!({
            "device": device,
            "origin": { "name": "Lintel", "sw_version": hub_version },
            "availability": [{
                "topic": self.of_device(HomeDevice::Availability),
                "payload_available": ONLINE,
                "payload_not_available": OFFLINE,
            }],
            "qos": 1,
            "components": components,
        });
        Said { topic: Topic::Discovery { device: self.device }, payload: message.to_string().into_bytes() }
    }

    fn of_device(&self, what: HomeDevice) -> String {
        Topic::HomeDevice { tenant: self.tenant, device: self.device, what }.to_string()
    }

    fn components(&self, door: &Door) -> Vec<(String, Value)> {
        let topic =
            |what| Topic::HomeDoor { tenant: self.tenant, device: self.device, door: door.id, what }.to_string();
        let (id, name) = (door.id, &door.name);
        // Home Assistant's lock cannot be without a command; without the right to one it is a sensor. Two keys, since an entity
        // does not change its platform.
        let lock = if self.may_unlock {
            json!({
                "platform": "lock",
                "unique_id": format!("lintel-{id}-lock"),
                "name": format!("{name} lock"),
                "state_topic": topic(HomeDoor::Lock),
                "state_locked": LOCKED,
                "state_unlocked": UNLOCKED,
                "command_topic": topic(HomeDoor::Set),
                "payload_lock": "LOCK",
                "payload_unlock": UNLOCK,
                "optimistic": false,
                "retain": false,
            })
        } else {
            json!({
                "platform": "binary_sensor",
                "unique_id": format!("lintel-{id}-unlocked"),
                "name": format!("{name} lock"),
                "device_class": "lock",
                "state_topic": topic(HomeDoor::Lock),
                "payload_on": UNLOCKED,
                "payload_off": LOCKED,
            })
        };
        let person = json!({
            "platform": "sensor",
            "unique_id": format!("lintel-{id}-person"),
            "name": format!("{name} last person"),
            "icon": "mdi:account",
            "state_topic": topic(HomeDoor::Person),
        });
        let access = json!({
            "platform": "event",
            "unique_id": format!("lintel-{id}-access"),
            "name": format!("{name} access"),
            "state_topic": topic(HomeDoor::Access),
            "event_types": [GRANTED, DENIED],
        });
        let lock_key = if self.may_unlock { "lock" } else { "unlocked" };
        vec![(format!("{lock_key}_{id}"), lock), (format!("person_{id}"), person), (format!("access_{id}"), access)]
    }

    /// Whether it is connected.
    pub fn availability(&self, online: bool) -> Said {
        let what = HomeDevice::Availability;
        let payload = if online { ONLINE } else { OFFLINE };
        Said { topic: Topic::HomeDevice { tenant: self.tenant, device: self.device, what }, payload: payload.into() }
    }

    /// What takes everything back that the broker keeps of the device.
    pub fn withdrawal(&self) -> Vec<Said> {
        let (tenant, device) = (self.tenant, self.device);
        let of_doors = self.doors.iter().flat_map(|door| {
            let of_door = |what| Topic::HomeDoor { tenant, device, door: door.id, what };
            [of_door(HomeDoor::Lock), of_door(HomeDoor::Person)]
        });
        // The announcement last: what it names is gone by then.
        let availability = Topic::HomeDevice { tenant, device, what: HomeDevice::Availability };
        let topics = of_doors.chain([availability, Topic::Discovery { device }]);
        topics.map(|topic| Said { topic, payload: Vec::new() }).collect()
    }

    /// What an event of this device, or of the hub about it, tells Home Assistant; nothing for most.
    pub fn states(&self, event: &CloudEvent) -> Vec<Said> {
        // A type of a newer agent means nothing here.
        let Ok(data) = event.typed() else { return Vec::new() };
        let time = event.time;
        match data {
            EventData::AccessGranted(access) => {
                let told = json!({
                    "event_type": GRANTED, "person": access.person, "camera": access.camera,
                    "decision": access.decision, "time": time,
                });
                let person =
                    access.person.map(|person| self.of_door(&access.door, HomeDoor::Person, person.to_string()));
                let access = self.of_door(&access.door, HomeDoor::Access, told.to_string());
                [Some(access), person].into_iter().flatten().flatten().collect()
            }
            EventData::AccessDenied(access) => {
                let told = json!({
                    "event_type": DENIED, "reason": access.reason.code, "camera": access.camera,
                    "decision": access.decision, "time": time,
                });
                self.of_door(&access.door, HomeDoor::Access, told.to_string()).into_iter().collect()
            }
            EventData::DoorUnlocked(door) => self.of_door(&door.door, HomeDoor::Lock, UNLOCKED).into_iter().collect(),
            EventData::DoorLocked(door) => self.of_door(&door.door, HomeDoor::Lock, LOCKED).into_iter().collect(),
            _ => self.alert(event).into_iter().collect(),
        }
    }

    fn of_door(&self, local_id: &str, what: HomeDoor, payload: impl Into<Vec<u8>>) -> Option<Said> {
        let door = self.doors.iter().find(|door| door.local_id == local_id)?.id;
        let topic = Topic::HomeDoor { tenant: self.tenant, device: self.device, door, what };
        Some(Said { topic, payload: payload.into() })
    }

    fn alert(&self, event: &CloudEvent) -> Option<Said> {
        let mut words = event.kind.split('.').skip(1);
        let (class, what) = (words.next()?, words.next()?);
        let word = if class == "camera" { format!("camera_{what}") } else { what.to_owned() };
        let word = ALERTS.into_iter().find(|alert| *alert == word)?;
        let told = json!({ "event_type": word, "camera": event.data["camera"], "time": event.time });
        let topic = Topic::HomeDevice { tenant: self.tenant, device: self.device, what: HomeDevice::Alert };
        Some(Said { topic, payload: told.to_string().into_bytes() })
    }
}
