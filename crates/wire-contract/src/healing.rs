//! What hub and device say to one another about a gallery that differs: which buckets do, and those buckets whole.
//!
//! In and out: JSON on `up/gallery` and `down/gallery`, beside [`crate::gallery`]'s.
//!
//! ```text
//! device                                    hub
//!   state (version, root) ────────────────►  another root than this version had
//!   stops searching it    ◄──────── compare
//!   hashes (256)          ────────────────►  those of its present version
//!   replaces, reports     ◄──── buckets 1..n
//! ```
//!
//! A device that finds out by itself (records do not lead to their root) begins with `hashes`. Every message names the
//! place that it is about, so that one which is delivered again, or late, does nothing.
//! Deliberately absent: what a bucket is, and how its hash is made (`gallery_log::digest`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoding::{Bytes, Hash32, V1};
use crate::gallery::{GalleryRecord, fit_beside};
use crate::ids::GalleryId;

/// How many buckets a gallery has.
pub const BUCKETS: usize = 256;

/// The bodies of one healing together, at most: a device keeps them in memory until the last part is there. That is some
/// 4,000 templates; where more differ, a rebuild costs no more and needs no memory.
pub const MAX_HEALING_BYTES: usize = 8 << 20;

/// Parts of one healing at most. Any two parts that follow one another hold more than 48 KiB together, so that
/// [`MAX_HEALING_BYTES`] make fewer than 350.
pub const MAX_PARTS: u16 = 512;

/// `down/gallery`: the root that a device reported is not the one that the hub has for this version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryCompare {
    /// Payload version.
    pub v: V1,
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version that was reported.
    pub version: u64,
    /// The root that was reported. A device that stands elsewhere by now ignores the message.
    pub root: Hash32,
}

/// `up/gallery`: the bucket hashes of a gallery that is known to differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryHashes {
    /// Payload version.
    pub v: V1,
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version of the device's store.
    pub version: u64,
    /// The 256 hashes of 32 bytes, in order. As one string they are 11 KiB, as 256 they would be 17.
    pub buckets: Bytes,
}

/// `down/gallery`: a part of the buckets that differ, whole as they are at `version`. A device replaces them in one step
/// when it has all parts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryBuckets {
    /// Payload version.
    pub v: V1,
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version that the gallery has afterwards.
    pub version: u64,
    /// The root that it has afterwards.
    pub root: Hash32,
    /// Which buckets are replaced, ascending; the same in each part. None when only the version differs.
    pub buckets: Vec<u8>,
    /// The number of this part, from 0.
    pub part: u16,
    /// How many parts there are.
    pub parts: u16,
    /// Every live entry of those buckets that this part brings, as the record that last wrote it.
    pub records: Vec<GalleryRecord>,
}

/// Why a message cannot be what the other end meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealingError {
    /// Not 256 hashes.
    #[error("gallery {gallery}: {found} bytes of bucket hashes, expected {expected}", expected = BUCKETS * 32)]
    Hashes {
        /// The gallery.
        gallery: GalleryId,
        /// How many bytes there are.
        found: usize,
    },
    /// Buckets twice, or not in order.
    #[error("gallery {gallery}: the buckets are not in ascending order")]
    Buckets {
        /// The gallery.
        gallery: GalleryId,
    },
    /// A part that there cannot be.
    #[error("gallery {gallery}: part {part} of {parts} (at most {MAX_PARTS})")]
    Part {
        /// The gallery.
        gallery: GalleryId,
        /// Its number.
        part: u16,
        /// How many there are said to be.
        parts: u16,
    },
}

impl GalleryHashes {
    /// The message that says these hashes.
    pub fn of(gallery: GalleryId, epoch: u32, version: u64, hashes: &[[u8; 32]; BUCKETS]) -> Self {
        Self { v: V1, gallery, epoch, version, buckets: Bytes(hashes.as_flattened().to_vec()) }
    }

    /// The hashes.
    pub fn hashes(&self) -> Result<Box<[[u8; 32]; BUCKETS]>, HealingError> {
        let wrong = HealingError::Hashes { gallery: self.gallery, found: self.buckets.0.len() };
        let (hashes, rest) = self.buckets.0.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(wrong);
        }
        hashes.to_vec().into_boxed_slice().try_into().map_err(|_| wrong)
    }
}

impl GalleryBuckets {
    /// Checks what can be seen of one part alone.
    pub fn check(&self) -> Result<(), HealingError> {
        let (gallery, part, parts) = (self.gallery, self.part, self.parts);
        if part >= parts || parts > MAX_PARTS {
            return Err(HealingError::Part { gallery, part, parts });
        }
        if !self.buckets.is_sorted_by(|a, b| a < b) {
            return Err(HealingError::Buckets { gallery });
        }
        Ok(())
    }

    /// Splits a healing, given as one part with all records, into parts that fit a message each.
    pub fn split(self) -> Vec<Self> {
        // The fields of a record message, and up to 256 numbers of up to three digits with a comma.
        const FRAME: usize = 320 + 60 + 256 * 4;
        let mut rest = self.records.as_slice();
        let mut runs = Vec::new();
        while runs.is_empty() || !rest.is_empty() {
            let (run, more) = rest.split_at(fit_beside(rest, FRAME));
            runs.push(run.to_vec());
            rest = more;
        }
        let parts = u16::try_from(runs.len()).unwrap_or(u16::MAX);
        let numbered = (0..parts).zip(runs);
        numbered.map(|(part, records)| Self { part, parts, records, buckets: self.buckets.clone(), ..self }).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::gallery::{GalleryDown, MAX_DOWN_JSON_BYTES, RecordKind, RecordOp};

    const GALLERY: GalleryId = GalleryId(Uuid::max());

    fn whole(count: usize, body: usize) -> GalleryBuckets {
        let record = |version: usize| GalleryRecord {
            version: u64::MAX - version as u64,
            op: RecordOp::Put,
            kind: RecordKind::Credential,
            id: Uuid::max(),
            rev: u32::MAX,
            body: Bytes(vec![0xff; body]),
        };
        GalleryBuckets {
            v: V1,
            gallery: GALLERY,
            epoch: u32::MAX,
            version: u64::MAX,
            root: Hash32([1; 32]),
            buckets: (0..=255).collect(),
            part: 0,
            parts: 1,
            records: (0..count).map(record).collect(),
        }
    }

    #[test]
    fn every_part_fits_a_message_and_together_they_are_the_whole() {
        for (count, body) in [(0, 0), (1, 32 * 1024), (4_000, 2_086), (255, 32 * 1024), (30_000, 40)] {
            let healing = whole(count, body);
            let parts = healing.clone().split();
            assert!(parts.len() <= usize::from(MAX_PARTS), "{} parts of {count} bodies of {body} bytes", parts.len());
            for (number, part) in parts.iter().enumerate() {
                assert_eq!(part.check(), Ok(()));
                assert_eq!((usize::from(part.part), usize::from(part.parts)), (number, parts.len()));
                let json = serde_json::to_vec(&GalleryDown::Buckets(part.clone())).unwrap();
                assert!(json.len() <= MAX_DOWN_JSON_BYTES, "{} bytes of {body}", json.len());
            }
            let joined: Vec<_> = parts.into_iter().flat_map(|part| part.records).collect();
            assert_eq!(joined, healing.records);
        }
    }

    #[test]
    fn impossible_parts_are_named() {
        let parts = |part, parts| GalleryBuckets { part, parts, ..whole(0, 0) }.check();
        let named = |part, parts| Err(HealingError::Part { gallery: GALLERY, part, parts });
        assert_eq!(parts(0, 0), named(0, 0));
        assert_eq!(parts(2, 2), named(2, 2));
        assert_eq!(parts(0, MAX_PARTS + 1), named(0, MAX_PARTS + 1));
        let twice = GalleryBuckets { buckets: vec![1, 1], ..whole(0, 0) };
        assert_eq!(twice.check(), Err(HealingError::Buckets { gallery: GALLERY }));
    }

    #[test]
    fn hashes_come_back_and_another_number_of_them_is_refused() {
        let mut hashes = [[0; 32]; BUCKETS];
        hashes[255] = [7; 32];
        let said = GalleryHashes::of(GALLERY, 1, 2, &hashes);
        assert_eq!(said.hashes().as_deref(), Ok(&hashes));
        for found in [0, 32 * 255, 32 * 256 + 1] {
            let wrong = GalleryHashes { buckets: Bytes(vec![0; found]), ..said.clone() };
            assert_eq!(wrong.hashes(), Err(HealingError::Hashes { gallery: GALLERY, found }));
        }
    }
}
