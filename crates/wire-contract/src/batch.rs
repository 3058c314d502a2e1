//! Batches on `up/evt`: one stream, contiguous sequences, at most 128 events, at most 64 KiB with the envelope.
//!
//! In: the JSON of events as the outbox holds them ([`BatchBuilder`]), or a payload ([`Batch::decode`]). Out: the other.
//! The builder works on the stored bytes, so that an event goes out exactly as it was recorded.
//! Deliberately absent: which events to send and when; that is the agent's `sync`.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::MAX_PAYLOAD_BYTES;
use crate::encoding::V1;
use crate::envelope::UP_OVERHEAD;
use crate::event::{CloudEvent, EventFault};
use crate::ids::{Sequence, StreamId};

/// Most events in one batch.
pub const MAX_BATCH_EVENTS: usize = 128;
/// Longest JSON of one batch, in bytes: the payload's limit less the envelope.
pub const MAX_BATCH_BYTES: usize = MAX_PAYLOAD_BYTES - UP_OVERHEAD;
/// Most batches of one device that may be unacknowledged at a time.
pub const MAX_BATCHES_IN_FLIGHT: usize = 4;

/// The batch as it travels.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Batch {
    /// Payload version.
    pub v: V1,
    /// The stream of every event in it.
    pub stream: StreamId,
    /// The events, at least one, in the order of their sequences.
    pub events: Vec<CloudEvent>,
}

/// Why a batch may not be sent, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// More bytes than a batch may have.
    #[error("batch has {found} bytes, at most {MAX_BATCH_BYTES} are allowed")]
    TooLong {
        /// How many bytes there are.
        found: usize,
    },
    /// Not JSON, or not of this shape.
    #[error("batch is not valid JSON of version 1")]
    Malformed(#[source] serde_json::Error),
    /// No events.
    #[error("batch of stream {stream} has no events")]
    Empty {
        /// The stream.
        stream: StreamId,
    },
    /// More events than a batch may have.
    #[error("batch of stream {stream} has {found} events, at most {MAX_BATCH_EVENTS} are allowed")]
    TooMany {
        /// The stream.
        stream: StreamId,
        /// How many there are.
        found: usize,
    },
    /// An event of another stream, or of none.
    #[error("event {index} of a batch of stream {stream} belongs to another stream")]
    OtherStream {
        /// The stream.
        stream: StreamId,
        /// The event's index.
        index: usize,
    },
    /// An event that no hub could store; see [`crate::event::CloudEvent::check`].
    #[error("event {index} of a batch of stream {stream} cannot be stored")]
    Event {
        /// The stream.
        stream: StreamId,
        /// The event's index.
        index: usize,
        /// Why.
        #[source]
        source: EventFault,
    },
    /// Two events of one id.
    #[error("event {index} of a batch of stream {stream} has the id of another event in it")]
    RepeatedId {
        /// The stream.
        stream: StreamId,
        /// The event's index.
        index: usize,
    },
    /// A gap, a repetition, or a sequence that is missing or 0.
    #[error("event {index} of a batch of stream {stream} does not have the next sequence")]
    NotContiguous {
        /// The stream.
        stream: StreamId,
        /// The event's index.
        index: usize,
    },
}

impl Batch {
    /// Reads and checks a payload (without its envelope).
    pub fn decode(json: &[u8]) -> Result<Self, BatchError> {
        if json.len() > MAX_BATCH_BYTES {
            return Err(BatchError::TooLong { found: json.len() });
        }
        let batch: Self = serde_json::from_slice(json).map_err(BatchError::Malformed)?;
        batch.check()?;
        Ok(batch)
    }

    /// Writes a payload, after the same checks.
    pub fn encode(&self) -> Result<Vec<u8>, BatchError> {
        self.check()?;
        let json = serde_json::to_vec(self).map_err(BatchError::Malformed)?;
        if json.len() > MAX_BATCH_BYTES {
            return Err(BatchError::TooLong { found: json.len() });
        }
        Ok(json)
    }

    /// The stream that a payload names, if that much of it can be read: for the answer to a batch that is refused.
    pub fn stream_of(json: &[u8]) -> Option<StreamId> {
        #[derive(Deserialize)]
        struct Named {
            stream: StreamId,
        }
        // As the builder writes it, which also serves where what follows is no JSON.
        let built = json.strip_prefix(HEAD.as_bytes()).and_then(|rest| rest.get(..32));
        let built = built.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| hex.parse().ok());
        built.or_else(|| serde_json::from_slice::<Named>(json).ok().map(|named| named.stream))
    }

    /// First and last sequence.
    pub fn range(&self) -> Result<(Sequence, Sequence), BatchError> {
        let at = |event: Option<&CloudEvent>| event.and_then(|e| e.sequence);
        match (at(self.events.first()), at(self.events.last())) {
            (Some(first), Some(last)) => Ok((first, last)),
            _ => Err(BatchError::Empty { stream: self.stream }),
        }
    }

    fn check(&self) -> Result<(), BatchError> {
        let stream = self.stream;
        if self.events.is_empty() {
            return Err(BatchError::Empty { stream });
        }
        if self.events.len() > MAX_BATCH_EVENTS {
            return Err(BatchError::TooMany { stream, found: self.events.len() });
        }
        let (mut last, mut ids) = (None::<Sequence>, HashSet::new());
        for (index, event) in self.events.iter().enumerate() {
            if event.stream != Some(stream) {
                return Err(BatchError::OtherStream { stream, index });
            }
            let follows = match (event.sequence, last) {
                (Some(sequence), None) => sequence > Sequence::ZERO,
                (Some(sequence), Some(last)) => last.0.checked_add(1) == Some(sequence.0),
                (None, _) => false,
            };
            if !follows {
                return Err(BatchError::NotContiguous { stream, index });
            }
            last = event.sequence;
            event.check().map_err(|source| BatchError::Event { stream, index, source })?;
            if !ids.insert(event.id) {
                return Err(BatchError::RepeatedId { stream, index });
            }
        }
        Ok(())
    }
}

/// Builds a batch from the stored JSON of events, as many as fit.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    json: Vec<u8>,
    max_bytes: usize,
    first: Option<Sequence>,
    last: Sequence,
    n_events: usize,
}

/// What became of an event that was offered to a [`BatchBuilder`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Push {
    /// It is in the batch.
    Taken,
    /// The batch is full; send it and offer the event to the next one.
    Full,
    /// It does not follow the last event; send the batch and offer the event to the next one.
    Gap,
    /// It does not fit any batch; the outbox should have refused it ([`crate::event::MAX_EVENT_BYTES`]).
    TooLong,
}

const HEAD: &str = r#"{"v":1,"stream":""#;
const TAIL: &[u8] = b"]}";

impl BatchBuilder {
    /// A batch without events, of the usual size.
    pub fn new(stream: StreamId) -> Self {
        Self::within(stream, MAX_BATCH_BYTES)
    }

    /// A batch without events that will have at most `max_bytes` of JSON, for a broker that takes less than usual.
    /// A first event is always taken, however long, so that the line cannot be blocked here.
    pub fn within(stream: StreamId, max_bytes: usize) -> Self {
        let json = format!(r#"{HEAD}{stream}","events":["#).into_bytes();
        let max_bytes = max_bytes.min(MAX_BATCH_BYTES);
        Self { json, max_bytes, first: None, last: Sequence::ZERO, n_events: 0 }
    }

    /// Offers the next event: its sequence and its JSON object, which is not looked into.
    pub fn push(&mut self, sequence: Sequence, event_json: &[u8]) -> Push {
        if event_json.len() > crate::event::MAX_EVENT_BYTES {
            return Push::TooLong;
        }
        if self.first.is_some() && self.last.next() != sequence {
            return Push::Gap;
        }
        let comma = usize::from(self.first.is_some());
        let length = self.json.len() + comma + event_json.len() + TAIL.len();
        if self.first.is_some() && (self.n_events == MAX_BATCH_EVENTS || length > self.max_bytes) {
            return Push::Full;
        }
        if comma == 1 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(event_json);
        self.first.get_or_insert(sequence);
        self.last = sequence;
        self.n_events += 1;
        Push::Taken
    }

    /// The payload with its first and last sequence, or `None` when it has no events.
    pub fn finish(mut self) -> Option<(Sequence, Sequence, Vec<u8>)> {
        let first = self.first?;
        self.json.extend_from_slice(TAIL);
        Some((first, self.last, self.json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId([0xab; 16]);

    /// An event as an outbox would hold it, `padding` bytes longer than the shortest.
    fn event(sequence: u64, padding: usize) -> Vec<u8> {
        let json = serde_json::json!({
            "specversion": "1.0",
            "id": format!("018f3c1e-0000-7000-8000-{sequence:012}"),
            "source": "/tenants/t/devices/d",
            "type": "lintel.face.appeared.v1",
            "time": "2026-11-22T10:37:31.042Z",
            "datacontenttype": "application/json",
            "stream": STREAM,
            "sequence": Sequence(sequence),
            "data": { "camera": "x".repeat(padding), "track": 1 },
        });
        json.to_string().into_bytes()
    }

    fn batch(sequences: &[u64]) -> Batch {
        let events = sequences.iter().map(|n| serde_json::from_slice(&event(*n, 1)).unwrap()).collect();
        Batch { v: V1, stream: STREAM, events }
    }

    #[test]
    fn a_built_batch_is_read_as_what_went_in() {
        let mut builder = BatchBuilder::new(STREAM);
        for n in 5..8 {
            assert_eq!(builder.push(Sequence(n), &event(n, 1)), Push::Taken);
        }
        let (first, last, json) = builder.finish().unwrap();
        assert_eq!((first, last), (Sequence(5), Sequence(7)));
        let read = Batch::decode(&json).unwrap();
        assert_eq!(read, batch(&[5, 6, 7]));
        assert_eq!(read.range().unwrap(), (first, last));
        assert_eq!(Batch::decode(&read.encode().unwrap()).unwrap(), read);
    }

    #[test]
    fn a_builder_takes_128_events_and_64_kib_and_not_one_byte_more() {
        let mut many = BatchBuilder::new(STREAM);
        let taken = (1..).take_while(|n| many.push(Sequence(*n), &event(*n, 1)) == Push::Taken).count();
        assert_eq!(taken, MAX_BATCH_EVENTS);

        let empty = BatchBuilder::new(STREAM).json.len() + TAIL.len();
        let half = MAX_BATCH_BYTES / 2;
        let first = event(1, half - event(1, 0).len());
        let room = MAX_BATCH_BYTES - empty - half - 1;
        for (extra, expected) in [(0, Push::Taken), (1, Push::Full)] {
            let mut builder = BatchBuilder::new(STREAM);
            assert_eq!(builder.push(Sequence(1), &first), Push::Taken);
            let second = event(2, room + extra - event(2, 0).len());
            assert_eq!(builder.push(Sequence(2), &second), expected);
            let (_, _, json) = builder.finish().unwrap();
            assert!(json.len() <= MAX_BATCH_BYTES && Batch::decode(&json).is_ok());
            assert_eq!(json.len() == MAX_BATCH_BYTES, expected == Push::Taken);
        }
    }

    #[test]
    fn a_broker_that_takes_less_gets_less_but_never_nothing() {
        let mut small = BatchBuilder::within(STREAM, 10);
        assert_eq!(small.push(Sequence(1), &event(1, 1)), Push::Taken);
        assert_eq!(small.push(Sequence(2), &event(2, 1)), Push::Full);
        let mut pair = BatchBuilder::within(STREAM, 2 * event(1, 1).len() + 100);
        let taken = (1..).take_while(|n| pair.push(Sequence(*n), &event(*n, 1)) == Push::Taken).count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn a_builder_stops_at_gaps_and_at_events_that_never_fit() {
        let mut builder = BatchBuilder::new(STREAM);
        assert_eq!(builder.push(Sequence(1), &vec![b' '; crate::event::MAX_EVENT_BYTES + 1]), Push::TooLong);
        assert_eq!(builder.push(Sequence(1), &event(1, 1)), Push::Taken);
        assert_eq!(builder.push(Sequence(3), &event(3, 1)), Push::Gap);
        assert_eq!(builder.push(Sequence(1), &event(1, 1)), Push::Gap);
        assert_eq!(BatchBuilder::new(STREAM).finish(), None);
    }

    #[test]
    fn the_stream_of_a_broken_batch_can_be_told() {
        let mut builder = BatchBuilder::new(STREAM);
        builder.push(Sequence(1), b"{\"id\":");
        let (_, _, json) = builder.finish().unwrap();
        assert!(Batch::decode(&json).is_err());
        assert_eq!(Batch::stream_of(&json), Some(STREAM));
        let other = format!(r#"{{"events":[7],"v":9,"stream":"{STREAM}"}}"#);
        assert_eq!(Batch::stream_of(other.as_bytes()), Some(STREAM));
        assert_eq!(Batch::stream_of(b"{\"v\":1}"), None);
        assert_eq!(Batch::stream_of(b""), None);
    }

    #[test]
    fn a_batch_may_be_as_long_as_it_may_be_on_both_ends_and_no_longer() {
        let full: Vec<u64> = (1..=128).collect();
        let json = batch(&full).encode().unwrap();
        assert_eq!(Batch::decode(&json).unwrap().events.len(), MAX_BATCH_EVENTS);
        // Two events, of which the second fills the rest to the last byte.
        let padded = |padding: usize| {
            let mut padded = batch(&[1, 2]);
            padded.events[0].data = serde_json::json!({ "camera": "x".repeat(MAX_BATCH_BYTES / 2) });
            padded.events[1].data = serde_json::json!({ "camera": "x".repeat(padding) });
            padded
        };
        let room = MAX_BATCH_BYTES - padded(0).encode().unwrap().len();
        let json = padded(room).encode().unwrap();
        assert_eq!(json.len(), MAX_BATCH_BYTES);
        assert_eq!(Batch::decode(&json).unwrap(), padded(room));
        let found = MAX_BATCH_BYTES + 1;
        assert!(matches!(padded(room + 1).encode(), Err(BatchError::TooLong { found: at }) if at == found));
    }

    #[test]
    fn batches_that_break_the_rules_are_refused_by_name() {
        let refused = |batch: &Batch| Batch::decode(&serde_json::to_vec(batch).unwrap()).unwrap_err();
        assert!(matches!(refused(&batch(&[])), BatchError::Empty { .. }));
        assert!(matches!(refused(&batch(&[1, 3])), BatchError::NotContiguous { index: 1, .. }));
        assert!(matches!(refused(&batch(&[2, 2])), BatchError::NotContiguous { index: 1, .. }));
        assert!(matches!(refused(&batch(&[2, 1])), BatchError::NotContiguous { index: 1, .. }));
        assert!(matches!(refused(&batch(&[0, 1])), BatchError::NotContiguous { index: 0, .. }));
        let many: Vec<u64> = (1..=129).collect();
        assert!(matches!(refused(&batch(&many)), BatchError::TooMany { found: 129, .. }));
        let mut mixed = batch(&[1, 2]);
        mixed.events[1].stream = Some(StreamId([1; 16]));
        assert!(matches!(refused(&mixed), BatchError::OtherStream { index: 1, .. }));
        let mut twice = batch(&[1, 2]);
        twice.events[1].id = twice.events[0].id;
        assert!(matches!(refused(&twice), BatchError::RepeatedId { index: 1, .. }));
        for kind in [
            "",
            "lintel",
            "lintel.access",
            "lintel.access.granted",
            "lintel.Access.x.v1",
            "lintel.a\u{0}.x.v1",
            "lintel.a\n.x.v1",
            "lintel..x.v1",
        ] {
            let mut odd = batch(&[1, 2]);
            odd.events[1].kind = kind.to_owned();
            let error = refused(&odd);
            assert!(matches!(error, BatchError::Event { index: 1, source: EventFault::Type, .. }), "{kind:?}: {error}");
        }
        let mut poisoned = batch(&[1]);
        poisoned.events[0].data = serde_json::json!({ "lid": [{ "an\u{0}gle": 12 }] });
        assert!(matches!(refused(&poisoned), BatchError::Event { index: 0, source: EventFault::Nul, .. }));
        let mut none = batch(&[1]);
        none.events[0].sequence = None;
        assert!(matches!(refused(&none), BatchError::NotContiguous { index: 0, .. }));
        assert!(matches!(Batch::decode(b"{"), Err(BatchError::Malformed(_))));
        assert!(matches!(Batch::decode(&vec![b'['; MAX_BATCH_BYTES + 1]), Err(BatchError::TooLong { .. })));
        assert!(matches!(Batch::decode(&vec![b'['; 10_000]), Err(BatchError::Malformed(_))));
    }
}
