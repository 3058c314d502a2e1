//! An event on its way into the tenant's feed.
//!
//! In: the id, type and body that an edge or the hub itself wrote. Out: the values that the event table is keyed
//! by. The CloudEvents JSON is wire-contract's; here it is opaque text that is kept as it came.

use time::OffsetDateTime;

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
    pub body: serde_json::Value,
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
    pub body: serde_json::Value,
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
