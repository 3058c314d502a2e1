//! Seals and unseals what the outbox file holds: the head and the entries.
//!
//! An entry's plaintext is its time (ms since 1970, u64 BE) and the event; its additional data is stream and sequence.
//! The head's plaintext is fixed-length numbers; it has no stream in its additional data, since it is what tells it.

use std::time::{Duration, SystemTime};

use gallery_log::{Purpose, SealContext, SealKey, TenantId};
use ring::hmac;
use uuid::Uuid;

use super::types::{CorruptPart, Entry, StreamId};
use crate::keys::OutboxKeys;
use crate::seal::SealingError;

const HEAD: Purpose = Purpose::new("store.outbox-head");
const HEAD_FORMAT: u16 = 1;

/// Everything about the stream but its entries. Written in each commit, in the same transaction as what it tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub stream: StreamId,
    /// Oldest entry kept; `last + 1` when none is.
    pub first: u64,
    /// Newest entry ever appended; 0 when none was.
    pub last: u64,
    pub acknowledged: u64,
    pub hub_epoch: u64,
    /// Sealed bytes of the entries kept.
    pub bytes: u64,
}

impl Head {
    pub(super) fn new(stream: StreamId) -> Self {
        Self { stream, first: 1, last: 0, acknowledged: 0, hub_epoch: 0, bytes: 0 }
    }

    pub(super) fn count(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

pub(super) struct Sealer {
    key: SealKey,
    pub(super) watermark: hmac::Key,
}

impl Sealer {
    pub(super) fn new(keys: &OutboxKeys) -> Self {
        Self { key: keys.entries.clone(), watermark: keys.watermark.clone() }
    }

    pub(super) fn seal_head(&self, head: &Head) -> Result<Vec<u8>, SealingError> {
        let mut plain = Vec::with_capacity(2 + 16 + 5 * 8);
        plain.extend_from_slice(&HEAD_FORMAT.to_be_bytes());
        plain.extend_from_slice(head.stream.as_bytes());
        for number in [head.first, head.last, head.acknowledged, head.hub_epoch, head.bytes] {
            plain.extend_from_slice(&number.to_be_bytes());
        }
        Ok(self.key.seal(&head_context(), &plain)?)
    }

    pub(super) fn open_head(&self, sealed: &[u8]) -> Result<Head, CorruptPart> {
        let plain = self.key.open(&head_context(), sealed).map_err(|_| CorruptPart::Head)?;
        let (format, rest) = plain.split_first_chunk::<2>().ok_or(CorruptPart::Head)?;
        let found = u16::from_be_bytes(*format);
        if found != HEAD_FORMAT {
            return Err(CorruptPart::Version { found, known: HEAD_FORMAT });
        }
        let (stream, rest) = rest.split_first_chunk::<16>().ok_or(CorruptPart::Head)?;
        let numbers: Vec<u64> =
            rest.chunks_exact(8).filter_map(|chunk| Some(u64::from_be_bytes(chunk.try_into().ok()?))).collect();
        let [first, last, acknowledged, hub_epoch, bytes] = numbers[..] else { return Err(CorruptPart::Head) };
        Ok(Head { stream: StreamId::from_bytes(*stream), first, last, acknowledged, hub_epoch, bytes })
    }

    pub(super) fn seal_entry(
        &self,
        stream: StreamId,
        sequence: u64,
        at: SystemTime,
        event: &[u8],
    ) -> Result<Vec<u8>, SealingError> {
        let mut plain = Vec::with_capacity(8 + event.len());
        plain.extend_from_slice(&unix_ms(at).to_be_bytes());
        plain.extend_from_slice(event);
        Ok(self.key.seal(&entry_context(stream, sequence), &plain)?)
    }

    pub(super) fn open_entry(&self, stream: StreamId, sequence: u64, sealed: &[u8]) -> Result<Entry, CorruptPart> {
        let wrong = CorruptPart::Seal { sequence };
        let plain = self.key.open(&entry_context(stream, sequence), sealed).map_err(|_| wrong)?;
        let (at, event) = plain.split_first_chunk::<8>().ok_or(wrong)?;
        let recorded_at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::from_be_bytes(*at));
        Ok(Entry { sequence, recorded_at, event: event.to_vec() })
    }
}

/// Milliseconds since 1970; a clock before that counts as 1970.
pub(super) fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn head_context() -> SealContext<'static> {
    SealContext::new(HEAD, TenantId(Uuid::nil()), Uuid::nil(), 0)
}

fn entry_context(stream: StreamId, sequence: u64) -> SealContext<'static> {
    SealContext::new(Purpose::OUTBOX_ENTRY, TenantId(Uuid::nil()), Uuid::from_bytes(*stream.as_bytes()), sequence)
}
