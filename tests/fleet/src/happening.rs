//! The events that simulated devices record: a door that was unlocked, in the words of the wire contract.

use edge_agent::clock::{Clock as _, SystemClock};
use edge_store::{Identity, Position};
use uuid::{NoContext, Uuid};
use wire_contract::event::{CloudEvent, DoorCause, DoorData, Meta, device_source};
use wire_contract::{DeviceId, EventData, EventId, Sequence, StreamId, TenantId, Timestamp};

/// The type of every event that is made here; devices record nothing else of this type.
pub const KIND: &str = "lintel.door.unlocked.v1";

/// A fresh id, sorted by time as the agent's own are.
#[must_use]
pub fn fresh_id() -> Uuid {
    let utc = SystemClock::utc();
    let seconds = u64::try_from(utc.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, utc.nanosecond()))
}

/// The bytes of one event at its place.
#[must_use]
pub fn encode(identity: &Identity, run: Uuid, id: Uuid, position: Position) -> Vec<u8> {
    let clock = SystemClock::default();
    let wall = clock.wall();
    let meta = Meta {
        id: EventId(id),
        source: device_source(TenantId(identity.tenant), DeviceId(identity.device)),
        subject: Some("main".to_owned()),
        time: Timestamp::from(wall.utc),
        stream: StreamId(*position.stream.as_bytes()),
        sequence: Sequence(position.sequence),
        boot: run,
        monotonic_ms: clock.now().as_millis(),
        clock_quality: wall.quality,
    };
    let data = DoorData { door: "main".to_owned(), cause: DoorCause::Agent, decision: None, person: None };
    serde_json::to_vec(&CloudEvent::new(meta, &EventData::DoorUnlocked(data))).expect("an event has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_the_one_that_the_contract_gives() {
        let data = DoorData { door: "main".to_owned(), cause: DoorCause::Agent, decision: None, person: None };
        assert_eq!(EventData::DoorUnlocked(data).to_parts().0, KIND);
    }
}
