//! An event on its way into the tenant's feed.
//!
//! In: the id, type and body that an edge or the hub itself wrote. Out: the values that the event table is keyed
//! by. The CloudEvents JSON is wire-contract's; here it is opaque text that is kept as it came.

use serde_json::value::RawValue;
use time::OffsetDateTime;
use wire_contract::{CloudEvent, EventClass, EventData};

use super::ids::{DeviceId, EventId};

/// One event, ready to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// CloudEvents `id`, also the `webhook-id`.
    pub id: EventId,
    /// CloudEvents `type`: `lintel.access.granted.v1`.
    pub kind: String,
    /// Where it came from; `None` for the hub's own.
    pub origin: Option<Origin>,
    /// CloudEvents `time`.
    pub occurred_at: OffsetDateTime,
    /// The whole CloudEvents JSON, as text: it is written once and looked into by nobody on its way.
    pub body: String,
}

impl NewEvent {
    /// An event that the hub itself makes.
    #[must_use]
    pub fn from_hub(id: EventId, subject: Option<String>, now: OffsetDateTime, data: &EventData) -> Self {
        Self::of(&CloudEvent::from_hub(wire_contract::EventId(id.0), subject, now.into(), data), now)
    }

    fn of(event: &CloudEvent, now: OffsetDateTime) -> Self {
        Self { id: EventId(event.id.0), kind: event.kind.clone(), origin: None, occurred_at: now, body: json(event) }
    }
}

/// The text under which an event is kept.
#[must_use]
pub fn json(event: &CloudEvent) -> String {
    serde_json::to_string(event).expect("an event is a plain struct with string keys")
}

/// The identity of a device's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Which device.
    pub device: DeviceId,
    /// Which outbox of it: 32 lower-case hex digits.
    pub stream: String,
    /// Its place in that outbox, from 1.
    pub sequence: u64,
}

/// A stored event as consumers read it.
#[derive(Clone, Debug)]
pub struct FeedEvent {
    /// Its place in the tenant's feed, from 1; the order of commit.
    pub position: u64,
    /// CloudEvents `id`.
    pub id: EventId,
    /// The device that it came from, by the registry; `None` for the hub's own.
    pub device: Option<DeviceId>,
    /// The second segment of the type.
    pub class: String,
    /// The whole CloudEvents JSON, as it is stored.
    pub body: Box<RawValue>,
}

/// The class under which an event is stored. A type that is of no class known to this program has `system`, so that it
/// is seen and not lost.
#[must_use]
pub fn class_of(kind: &str) -> EventClass {
    wire_contract::event::class_of(kind).unwrap_or(EventClass::System)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_second_segment_and_one_that_the_feed_has_a_topic_for() {
        assert_eq!(class_of("lintel.access.granted.v1"), EventClass::Access);
        assert_eq!(class_of("lintel.system.gallery_rebuilt.v1"), EventClass::System);
        for odd in ["", "lintel", "lintel.access", "other.access.v1", "lintel..v1", "lintel.parking.entered.v1"] {
            assert_eq!(class_of(odd), EventClass::System, "{odd}");
        }
    }
}
