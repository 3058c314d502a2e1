//! A whole gallery in chunks: live records, one behind the other, each with its length in front (u32, big-endian).
//!
//! In: records. Out: the plaintext of a chunk, which is then sealed for its place ([`crate::seal::SnapshotPlace`]); and
//! records again. A chunk is never longer than [`MAX_CHUNK_BYTES`], so that neither end holds more of a gallery than that.
//! Deliberately absent: which records are live, files, hashes and signatures of the whole (`wire-contract`).

use crate::lengths::{Reader, push_field};
use crate::record::{MAX_BODY_LEN, Record, RecordError};

/// The longest plaintext of a chunk: some 120 templates. Long enough that hash, seal and length are nothing beside it, short
/// enough that what a cut line costs, and what both ends hold in memory, is small.
pub const MAX_CHUNK_BYTES: usize = 256 * 1024;

/// The longest record in a chunk: 55 bytes of fields and the body.
const MAX_RECORD_BYTES: usize = 55 + MAX_BODY_LEN;

/// Why bytes are not a chunk.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Longer than any chunk.
    #[error("a chunk has {found} bytes, at most {MAX_CHUNK_BYTES} are allowed")]
    TooLong {
        /// How many bytes there are.
        found: usize,
    },
    /// A record is cut off.
    #[error("the chunk ends within record {index}")]
    Truncated {
        /// The record's place in the chunk.
        index: usize,
    },
    /// A record that is none.
    #[error("record {index} of the chunk")]
    Record {
        /// Its place in the chunk.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
}

/// A chunk in the making.
#[derive(Debug, Default)]
pub struct ChunkBuilder {
    bytes: Vec<u8>,
    records: u32,
}

impl ChunkBuilder {
    /// Adds a record; false, with nothing changed, when it does not fit any more.
    pub fn push(&mut self, record: &Record) -> Result<bool, RecordError> {
        let encoded = record.encode()?;
        if self.bytes.len() + 4 + encoded.len() > MAX_CHUNK_BYTES {
            return Ok(false);
        }
        push_field(&mut self.bytes, &encoded);
        self.records += 1;
        Ok(true)
    }

    /// How many records are in it.
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// The chunk's plaintext.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The records of a chunk's plaintext. Every byte must belong to one.
pub fn decode_chunk(bytes: &[u8]) -> Result<Vec<Record>, ChunkError> {
    if bytes.len() > MAX_CHUNK_BYTES {
        return Err(ChunkError::TooLong { found: bytes.len() });
    }
    let (mut reader, mut records) = (Reader(bytes), Vec::new());
    while !reader.is_empty() {
        let index = records.len();
        let truncated = ChunkError::Truncated { index };
        let Some(length) = reader.u32().and_then(|length| usize::try_from(length).ok()) else { return Err(truncated) };
        let Some(encoded) = reader.take(length) else { return Err(truncated) };
        if length > MAX_RECORD_BYTES {
            let source = RecordError::BodyTooLong { found: length };
            return Err(ChunkError::Record { index, source });
        }
        records.push(Record::decode(encoded).map_err(|source| ChunkError::Record { index, source })?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::{GalleryId, RecordId};
    use crate::record::{Kind, Op};

    fn record(n: u128, body: usize) -> Record {
        Record {
            gallery: GalleryId(Uuid::from_u128(1)),
            epoch: 1,
            version: 1,
            op: Op::Put,
            kind: Kind::Template,
            id: RecordId(Uuid::from_u128(n)),
            rev: 1,
            body: vec![7; body],
        }
    }

    #[test]
    fn records_come_back_and_no_chunk_is_too_long() {
        for body in [0, 2_086, MAX_BODY_LEN] {
            let (mut chunk, mut taken) = (ChunkBuilder::default(), Vec::new());
            for n in 0..10_000 {
                if !chunk.push(&record(n, body)).unwrap() {
                    break;
                }
                taken.push(record(n, body));
            }
            assert_eq!(chunk.records() as usize, taken.len());
            let bytes = chunk.finish();
            assert!(bytes.len() <= MAX_CHUNK_BYTES && bytes.len() + 4 + 55 + body > MAX_CHUNK_BYTES);
            assert_eq!(decode_chunk(&bytes).unwrap(), taken);
        }
        assert_eq!(decode_chunk(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_chunk_is_refused_with_the_place() {
        let mut chunk = ChunkBuilder::default();
        for n in 0..2 {
            chunk.push(&record(n, 3)).unwrap();
        }
        let bytes = chunk.finish();
        assert_eq!(decode_chunk(&bytes[..bytes.len() - 1]), Err(ChunkError::Truncated { index: 1 }));
        assert_eq!(decode_chunk(&[0, 0]), Err(ChunkError::Truncated { index: 0 }));
        let mut wrong = bytes.clone();
        wrong[4] = 9;
        let source = RecordError::UnknownVersion { found: 9 };
        assert_eq!(decode_chunk(&wrong), Err(ChunkError::Record { index: 0, source }));
        let found = MAX_CHUNK_BYTES + 1;
        assert_eq!(decode_chunk(&vec![0; found]), Err(ChunkError::TooLong { found }));
    }

    #[test]
    fn a_record_that_is_longer_than_any_is_refused_by_its_length_alone() {
        let chunk_of = |length: usize| {
            let mut bytes = u32::try_from(length).unwrap().to_be_bytes().to_vec();
            bytes.resize(4 + length, 0);
            decode_chunk(&bytes)
        };
        let too_long = 55 + MAX_BODY_LEN + 1;
        let source = RecordError::BodyTooLong { found: too_long };
        assert_eq!(chunk_of(too_long), Err(ChunkError::Record { index: 0, source }));
        let source = RecordError::UnknownVersion { found: 0 };
        assert_eq!(chunk_of(too_long - 1), Err(ChunkError::Record { index: 0, source }), "that one is looked into");
    }

    #[test]
    fn a_full_chunk_takes_no_more_and_stays_as_it_is() {
        // Records of 55 bytes and a body, each with 4 bytes of length in front.
        let mut chunk = ChunkBuilder::default();
        while chunk.push(&record(1, 1024 - 59)).unwrap() {}
        assert_eq!(chunk.records(), 256, "they fill it to the last byte");
        assert_eq!(chunk.push(&record(2, 0)), Ok(false));
        let bytes = chunk.finish();
        assert_eq!(bytes.len(), MAX_CHUNK_BYTES);
        assert_eq!(decode_chunk(&bytes).unwrap().len(), 256);
    }
}
