//! Galleries on the wire: what a device reports, and what the hub sends.
//!
//! In and out: JSON on `up/gallery` (in the envelope) and `down/gallery` (sealed). The records in it become
//! `gallery_log::Record`s in the programs; this crate does not know that type.
//! An unknown `type` is read as `Unknown`, to be logged and ignored.
//! What is said where both ends differ is [`crate::healing`]'s; a whole gallery at once is [`crate::snapshot`]'s.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::MAX_PAYLOAD_BYTES;
use crate::encoding::{Bytes, Hash32, V1};
use crate::healing::{GalleryBuckets, GalleryCompare, GalleryHashes};
use crate::ids::GalleryId;
use crate::snapshot::SnapshotOffer;

/// A down payload must leave room for its seal (45 bytes); 64 are kept for it.
pub const MAX_DOWN_JSON_BYTES: usize = MAX_PAYLOAD_BYTES - 64;

/// What a device does with a gallery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GalleryCondition {
    /// Searches are answered from it.
    Ready,
    /// It was thrown away, is not complete, or is known to differ from the hub's; doors deny meanwhile.
    Rebuilding,
}

/// One gallery, as the snapshot has it that the device searches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryState {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The last version applied; 0 when it is empty and the hub shall send everything.
    pub version: u64,
    /// The root at that version.
    pub root: Hash32,
    /// What the device does with it.
    pub condition: GalleryCondition,
}

/// `up/gallery`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GalleryUp {
    /// All galleries of the device: on connect, after changes (at most one a second), every 60 s.
    State {
        /// Payload version.
        v: V1,
        /// The galleries.
        galleries: Vec<GalleryState>,
    },
    /// The bucket hashes of one gallery that is known to differ: at once, and again with each report until it is healed.
    Hashes(GalleryHashes),
    /// Something that this program does not know.
    #[serde(other)]
    Unknown,
}

/// What a record does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordOp {
    /// Add or replace.
    Put,
    /// Remove for ever.
    Del,
}

/// What a record is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A person's state.
    Person,
    /// An embedding.
    Template,
    /// A keyed hash of a PIN, card or code.
    Credential,
    /// A schedule, holiday or policy.
    Rule,
    /// An embedding that is known not to be the person whom it resembles. A device of before this kind refuses the message.
    Anchor,
}

/// One record of the log. Gallery and epoch are those of the message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryRecord {
    /// Its version.
    pub version: u64,
    /// What it does.
    pub op: RecordOp,
    /// What it is about.
    pub kind: RecordKind,
    /// The entry.
    pub id: Uuid,
    /// The entry's revision.
    pub rev: u32,
    /// The plaintext body, byte for byte (empty for `del`).
    pub body: Bytes,
}

/// A run of records: contiguous versions, `from` first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryRecords {
    /// Payload version.
    pub v: V1,
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version of the first record.
    pub from: u64,
    /// The records, at least one.
    pub records: Vec<GalleryRecord>,
    /// The root after the last record.
    pub root: Hash32,
}

/// The order to throw a gallery away and begin again at version 0.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryRebuild {
    /// Payload version.
    pub v: V1,
    /// The gallery.
    pub gallery: GalleryId,
    /// The epoch to begin with; when it is new to the device, it fetches its link first.
    pub epoch: u32,
    /// Why, as a code of the register.
    pub reason: crate::Code,
    /// The report that it answers. A device that stands elsewhere by now does not obey, so that the order can be delivered
    /// again, by whomever, without emptying what was filled since. Absent only in an order for an epoch that is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<GalleryStand>,
}

/// Where a device said that a gallery of its stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryStand {
    /// The version.
    pub version: u64,
    /// The root at that version.
    pub root: Hash32,
}

/// `down/gallery`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GalleryDown {
    /// Records to apply.
    Records(GalleryRecords),
    /// Throw away and begin again.
    Rebuild(GalleryRebuild),
    /// What was reported is not what the hub has: say the bucket hashes.
    Compare(GalleryCompare),
    /// The buckets that differ, whole.
    Buckets(GalleryBuckets),
    /// There is a snapshot to be fetched over HTTPS.
    Snapshot(SnapshotOffer),
    /// Something that this program does not know.
    #[serde(other)]
    Unknown,
}

/// Why a run of records cannot be what the hub meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// No record at all.
    #[error("gallery {gallery}: a message of records has none")]
    Empty {
        /// The gallery.
        gallery: GalleryId,
    },
    /// Versions with a gap, or not beginning at `from`.
    #[error("gallery {gallery}: record {found} stands where {expected} was announced")]
    NotContiguous {
        /// The gallery.
        gallery: GalleryId,
        /// The version that should stand there.
        expected: u64,
        /// The version that does.
        found: u64,
    },
}

impl GalleryRecords {
    /// Checks that the versions are contiguous from `from` on.
    pub fn check(&self) -> Result<(), RecordsError> {
        if self.records.is_empty() {
            return Err(RecordsError::Empty { gallery: self.gallery });
        }
        for (expected, record) in (self.from..).zip(&self.records) {
            if record.version != expected {
                return Err(RecordsError::NotContiguous { gallery: self.gallery, expected, found: record.version });
            }
        }
        Ok(())
    }
}

/// How many of `records`, from the first on, fit one message. At least 1 when there is any: a single record always
/// fits, since bodies are limited to 32 KiB.
pub fn records_that_fit(records: &[GalleryRecord]) -> usize {
    // Type, version, gallery, epoch, from and root with their names take less than this.
    const FRAME: usize = 320;
    fit_beside(records, FRAME)
}

/// How many of `records` fit one message whose other fields take `frame` bytes; at least 1 when there is any.
pub(crate) fn fit_beside(records: &[GalleryRecord], frame: usize) -> usize {
    // All fields of a record but the body, with 20-digit numbers and a comma.
    const RECORD: usize = 160;
    let mut used = frame;
    let fitting = records.iter().take_while(|record| {
        used += RECORD + record.body.0.len().div_ceil(3) * 4;
        used <= MAX_DOWN_JSON_BYTES
    });
    fitting.count().max(usize::from(!records.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(version: u64, body: usize) -> GalleryRecord {
        let body = Bytes(vec![0xff; body]);
        GalleryRecord { version, op: RecordOp::Put, kind: RecordKind::Credential, id: Uuid::max(), rev: u32::MAX, body }
    }

    fn message(records: Vec<GalleryRecord>) -> GalleryRecords {
        let from = records.first().map_or(1, |r| r.version);
        GalleryRecords { v: V1, gallery: GalleryId(Uuid::max()), epoch: u32::MAX, from, records, root: Hash32([1; 32]) }
    }

    #[test]
    fn what_is_said_to_fit_does() {
        for body in [0, 1, 100, 2086, 32 * 1024] {
            let records: Vec<_> = (0..1000).map(|i| record(u64::MAX - 1000 + i, body)).collect();
            let n = records_that_fit(&records);
            let json = serde_json::to_vec(&GalleryDown::Records(message(records[..n].to_vec()))).unwrap();
            assert!(json.len() <= MAX_DOWN_JSON_BYTES, "{n} bodies of {body} bytes: {}", json.len());
            assert!(n >= 1 && (n == 1000 || json.len() > MAX_DOWN_JSON_BYTES / 2), "{n} of {body} are too few");
        }
        assert_eq!(records_that_fit(&[]), 0);
    }

    #[test]
    fn gaps_are_named() {
        let gallery = GalleryId(Uuid::max());
        assert_eq!(message(vec![record(4, 0), record(5, 0)]).check(), Ok(()));
        let gap = message(vec![record(4, 0), record(6, 0)]).check();
        assert_eq!(gap, Err(RecordsError::NotContiguous { gallery, expected: 5, found: 6 }));
        assert_eq!(message(vec![]).check(), Err(RecordsError::Empty { gallery }));
        let mut late = message(vec![record(4, 0)]);
        late.from = 3;
        assert_eq!(late.check(), Err(RecordsError::NotContiguous { gallery, expected: 3, found: 4 }));
    }
}
