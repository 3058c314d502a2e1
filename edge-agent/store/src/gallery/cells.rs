//! What a gallery store writes: sealed entries, the sealed head, and the watermark's payload.
//!
//! Key of an entry: `0x01 ‖ id`. Value: `version (u64 BE) ‖ seal(record)`; the version stands outside because it is part
//! of the additional data, so that an older value of the same entry does not open as the newer one. A deleted id keeps
//! its `del` record: ids are never used again. Key of the head: `0x00`. Key of the note that something was deleted in this
//! generation, whose bytes sled still has: `0x02`.

use gallery_log::{GalleryId, Kind, Log, Purpose, Record, RecordId, Root, SealContext, SealKey, TenantId};
use uuid::Uuid;

use crate::seal::SealingError;

pub(super) const HEAD_KEY: &[u8] = &[0];
pub(super) const ENTRY_PREFIX: &[u8] = &[1];
pub(super) const REMAINS_KEY: &[u8] = &[2];
/// A template: 512 × 4 bytes, its fields, record header and seal.
pub(super) const TYPICAL_ENTRY_BYTES: u64 = 2200;

const HEAD: Purpose = Purpose::new("store.gallery-head");
const HEAD_FORMAT: u16 = 1;

/// Where the gallery is: sealed in the store, and repeated in the watermark outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub epoch: u32,
    pub version: u64,
    pub root: Root,
    /// Live entries.
    pub live: u64,
}

/// What the watermark holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub generation: u64,
    pub head: Head,
}

impl Head {
    pub(super) fn of(log: &mut Log) -> Self {
        Self { epoch: log.epoch(), version: log.version(), root: log.root(), live: log.live() as u64 }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + 4 + 8 + 32 + 8);
        bytes.extend_from_slice(&HEAD_FORMAT.to_be_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&self.root.0);
        bytes.extend_from_slice(&self.live.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first_chunk::<2>()?;
        let (epoch, rest) = rest.split_first_chunk::<4>()?;
        let (version, rest) = rest.split_first_chunk::<8>()?;
        let (root, rest) = rest.split_first_chunk::<32>()?;
        let live: [u8; 8] = rest.try_into().ok()?;
        (u16::from_be_bytes(*format) == HEAD_FORMAT).then(|| Self {
            epoch: u32::from_be_bytes(*epoch),
            version: u64::from_be_bytes(*version),
            root: Root(*root),
            live: u64::from_be_bytes(live),
        })
    }
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.generation.to_be_bytes().to_vec();
        bytes.extend(self.head.encode());
        bytes
    }

    /// `None` for the mark of another program version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk::<8>()?;
        Some(Self { generation: u64::from_be_bytes(*generation), head: Head::decode(rest)? })
    }
}

pub(super) fn entry_key(id: RecordId) -> [u8; 17] {
    let mut key = [0; 17];
    key[0] = ENTRY_PREFIX[0];
    key[1..].copy_from_slice(id.as_bytes());
    key
}

pub(super) fn seal_entry(key: &SealKey, record: &Record) -> Result<Vec<u8>, SealingError> {
    let plain = zeroize::Zeroizing::new(
        record.encode().expect("the log has checked the record's length before it let it come this far"),
    );
    let mut value = record.version.to_be_bytes().to_vec();
    value.extend(key.seal(&entry_context(record.id, record.version), &plain)?);
    Ok(value)
}

/// `None` when the value is not what was sealed for this key.
pub(super) fn open_entry(key: &SealKey, row: &[u8], value: &[u8], gallery: GalleryId) -> Option<Record> {
    let id = RecordId::from_bytes(row.get(1..)?.try_into().ok()?);
    let (version, sealed) = value.split_first_chunk::<8>()?;
    let version = u64::from_be_bytes(*version);
    let plain = key.open(&entry_context(id, version), sealed).ok()?;
    let record = Record::decode(&plain).ok()?;
    (record.id == id && record.version == version && record.gallery == gallery).then_some(record)
}

pub(super) fn seal_head(
    key: &SealKey,
    gallery: GalleryId,
    generation: u64,
    head: &Head,
) -> Result<Vec<u8>, SealingError> {
    Ok(key.seal(&head_context(gallery, generation), &head.encode())?)
}

pub(super) fn open_head(key: &SealKey, gallery: GalleryId, generation: u64, sealed: &[u8]) -> Option<Head> {
    Head::decode(&key.open(&head_context(gallery, generation), sealed).ok()?)
}

/// How many entries of each kind there are, in the order of [`Kind::ALL`].
pub(super) type Counts = [u64; Kind::ALL.len()];

/// The place of a kind in [`Counts`].
pub(super) fn index_of(kind: Kind) -> usize {
    usize::from(kind.as_byte() - 1)
}

fn entry_context(id: RecordId, version: u64) -> SealContext<'static> {
    SealContext::new(Purpose::STORED_RECORD, TenantId(Uuid::nil()), id.0, version)
}

fn head_context(gallery: GalleryId, generation: u64) -> SealContext<'static> {
    SealContext::new(HEAD, TenantId(Uuid::nil()), gallery.0, generation)
}
