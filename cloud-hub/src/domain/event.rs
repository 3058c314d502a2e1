//! An event on its way into the tenant's feed.
//!
//! In: the id, type and body that an edge or the hub itself wrote. Out: the values that the event table is keyed
//! by. The CloudEvents JSON is wire-contract's; here it is opaque text that is kept as it came.

use serde_json::Value;
use time::OffsetDateTime;
use wire_contract::{CloudEvent, EventData};

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
    /// The whole CloudEvents JSON.
    pub body: Value,
}

impl NewEvent {
    /// An event that the hub itself makes.
    #[must_use]
    pub fn from_hub(id: EventId, subject: Option<String>, now: OffsetDateTime, data: &EventData) -> Self {
        Self::of(&CloudEvent::from_hub(wire_contract::EventId(id.0), subject, now.into(), data), now)
    }

    /// An alarm that the hub raises: of a type that only the hub makes, with plain data.
    #[must_use]
    pub fn alarm(id: EventId, kind: Alarm, subject: Option<String>, now: OffsetDateTime, data: Value) -> Self {
        let mut event = CloudEvent {
            specversion: wire_contract::event::SpecVersion::V1_0,
            id: wire_contract::EventId(id.0),
            source: wire_contract::event::HUB_SOURCE.to_owned(),
            kind: kind.kind().to_owned(),
            subject,
            time: now.into(),
            datacontenttype: "application/json".to_owned(),
            stream: None,
            sequence: None,
            boot: None,
            monoms: None,
            clockq: None,
            data,
        };
        event.data["alarm"] = Value::Bool(true);
        Self::of(&event, now)
    }

    fn of(event: &CloudEvent, now: OffsetDateTime) -> Self {
        Self {
            id: EventId(event.id.0),
            kind: event.kind.clone(),
            origin: None,
            occurred_at: now,
            body: serde_json::to_value(event).expect("an event is a plain struct with string keys"),
        }
    }
}

/// What the hub alone notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A committed sequence came again with another id: two devices use one identity, or an outbox was rolled back.
    StreamConflict,
    /// A claim was shown by a second key.
    ClaimReused,
    /// A device's gallery has another root than the log at the same version, or an epoch that it cannot have.
    GalleryDiverged,
}

impl Alarm {
    /// The event type.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::StreamConflict => "lintel.tamper.stream_conflict.v1",
            Self::ClaimReused => "lintel.tamper.claim_reused.v1",
            Self::GalleryDiverged => "lintel.tamper.gallery_diverged.v1",
        }
    }
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
#[derive(Clone, Debug, PartialEq)]
pub struct FeedEvent {
    /// Its place in the tenant's feed, from 1; the order of commit.
    pub position: u64,
    /// CloudEvents `id`.
    pub id: EventId,
    /// The second segment of the type.
    pub class: String,
    /// The whole CloudEvents JSON.
    pub body: Value,
}

/// The class of an event type: its second segment (`access` of `lintel.access.granted.v1`).
/// A type that is not of that shape has the class `system`, so that it is seen and not lost.
#[must_use]
pub fn class_of(kind: &str) -> &str {
    let mut segments = kind.split('.');
    match (segments.next(), segments.next(), segments.next()) {
        (Some("lintel"), Some(class), Some(_)) if !class.is_empty() => class,
        _ => "system",
    }
}

#[cfg(test)]
mod tests {
    use super::class_of;

    #[test]
    fn the_class_is_the_second_segment() {
        assert_eq!(class_of("lintel.access.granted.v1"), "access");
        assert_eq!(class_of("lintel.system.gallery_rebuilt.v1"), "system");
        for odd in ["", "lintel", "lintel.access", "other.access.v1", "lintel..v1"] {
            assert_eq!(class_of(odd), "system", "{odd}");
        }
    }
}
