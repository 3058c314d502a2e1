//! One entry of a gallery's log, and its canonical bytes.
//!
//! In: fields, or bytes from a store or a message. Out: a [`Record`] whose sizes are checked.
//! Deliberately absent: whether it may follow the entry before it ([`crate::log`]), and what its body says ([`crate::body`]).

use crate::ids::{GalleryId, RecordId};
use crate::lengths::Reader;

/// The longest body, in bytes. One record must fit a 64 KiB message in base64 with its seal; a template has about 2.1 KiB.
pub const MAX_BODY_LEN: usize = 32 * 1024;

const RECORD_VERSION: u8 = 1;

/// What a record does to its id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Op {
    /// Adds the entry, or replaces it by a higher revision.
    Put = 1,
    /// Removes the entry for ever.
    Del = 2,
}

/// What kind of thing an entry is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A person's state, groups and validity.
    Person = 1,
    /// One embedding of a person.
    Template = 2,
    /// A keyed hash of a PIN, card or code.
    Credential = 3,
    /// A schedule, holiday or policy.
    Rule = 4,
    /// One embedding that is known not to be a person who resembles it.
    Anchor = 5,
}

impl Op {
    /// The byte in canonical form.
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The operation with this byte.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Del),
            _ => None,
        }
    }
}

impl Kind {
    /// Every kind, in byte order.
    pub const ALL: [Self; 5] = [Self::Person, Self::Template, Self::Credential, Self::Rule, Self::Anchor];

    /// The byte in canonical form and in the leaf.
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The kind with this byte.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Person),
            2 => Some(Self::Template),
            3 => Some(Self::Credential),
            4 => Some(Self::Rule),
            5 => Some(Self::Anchor),
            _ => None,
        }
    }
}

/// One entry of a gallery's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The gallery it belongs to.
    pub gallery: GalleryId,
    /// The gallery's epoch; a restored hub or a new digest key raises it.
    pub epoch: u32,
    /// Its place in the log: 1, 2, 3 and so on within the epoch.
    pub version: u64,
    /// What it does.
    pub op: Op,
    /// What kind of thing `id` is.
    pub kind: Kind,
    /// The entry that it is about.
    pub id: RecordId,
    /// The revision of the entry; every record about an id has a higher one than the record before.
    pub rev: u32,
    /// The plaintext body, byte for byte as first written; empty for `del`. See [`crate::Body`].
    pub body: Vec<u8>,
}

/// Why bytes are not a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than the fields need.
    #[error("record is truncated: {found} bytes")]
    Truncated {
        /// How many bytes there are.
        found: usize,
    },
    /// More bytes than the fields need.
    #[error("record has {extra} bytes after its end")]
    Trailing {
        /// How many there are too many.
        extra: usize,
    },
    /// Written by a newer program.
    #[error("record format {found} is not known (this program knows {RECORD_VERSION})")]
    UnknownVersion {
        /// The first byte.
        found: u8,
    },
    /// Neither put nor del.
    #[error("record operation {found} is not known")]
    UnknownOp {
        /// The byte.
        found: u8,
    },
    /// A kind from a newer program.
    #[error("record kind {found} is not known")]
    UnknownKind {
        /// The byte.
        found: u8,
    },
    /// The body is longer than [`MAX_BODY_LEN`].
    #[error("record body has {found} bytes, at most {MAX_BODY_LEN} are allowed")]
    BodyTooLong {
        /// How many bytes there are.
        found: usize,
    },
    /// A deletion carries nothing.
    #[error("a del record must have an empty body, found {found} bytes")]
    DelWithBody {
        /// How many bytes there are.
        found: usize,
    },
}

impl Record {
    /// The canonical bytes: `0x01 ‖ gallery (16) ‖ epoch (u32) ‖ version (u64) ‖ op ‖ kind ‖ id (16) ‖ rev (u32) ‖ body
    /// length (u32) ‖ body`, numbers big-endian. [`Record::decode`] accepts exactly these.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        check_body(self.op, self.body.len())?;
        let length = u32::try_from(self.body.len()).expect("MAX_BODY_LEN is far below 4 GiB");
        let mut out = Vec::with_capacity(55 + self.body.len());
        out.push(RECORD_VERSION);
        out.extend_from_slice(self.gallery.as_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.version.to_be_bytes());
        out.push(self.op.as_byte());
        out.push(self.kind.as_byte());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.rev.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.body);
        Ok(out)
    }

    /// Reads canonical bytes. Anything else, even one byte too many, is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let truncated = RecordError::Truncated { found: bytes.len() };
        let mut reader = Reader(bytes);
        let mut fields = || -> Option<_> {
            Some((
                reader.u8()?,
                reader.array()?,
                reader.u32()?,
                reader.u64()?,
                reader.u8()?,
                reader.u8()?,
                reader.array()?,
                reader.u32()?,
                reader.u32()?,
            ))
        };
        let (format, gallery, epoch, version, op, kind, id, rev, length) = fields().ok_or(truncated)?;
        if format != RECORD_VERSION {
            return Err(RecordError::UnknownVersion { found: format });
        }
        let op = Op::from_byte(op).ok_or(RecordError::UnknownOp { found: op })?;
        let kind = Kind::from_byte(kind).ok_or(RecordError::UnknownKind { found: kind })?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        check_body(op, length)?;
        let body = reader.take(length).ok_or(RecordError::Truncated { found: bytes.len() })?.to_vec();
        if !reader.is_empty() {
            return Err(RecordError::Trailing { extra: reader.0.len() });
        }
        Ok(Self {
            gallery: GalleryId::from_bytes(gallery),
            epoch,
            version,
            op,
            kind,
            id: RecordId::from_bytes(id),
            rev,
            body,
        })
    }
}

pub(crate) fn check_body(op: Op, length: usize) -> Result<(), RecordError> {
    if length > MAX_BODY_LEN {
        return Err(RecordError::BodyTooLong { found: length });
    }
    if op == Op::Del && length > 0 {
        return Err(RecordError::DelWithBody { found: length });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_byte_is_read_as_what_wrote_it_and_no_other_is_read() {
        for (byte, kind) in (1..).zip(Kind::ALL) {
            assert_eq!((kind.as_byte(), Kind::from_byte(byte)), (byte, Some(kind)));
        }
        for (byte, op) in [(1, Op::Put), (2, Op::Del)] {
            assert_eq!((op.as_byte(), Op::from_byte(byte)), (byte, Some(op)));
        }
        assert!([0, 6, 255].iter().all(|byte| Kind::from_byte(*byte).is_none()));
        assert!([0, 3, 255].iter().all(|byte| Op::from_byte(*byte).is_none()));
    }

    fn record() -> Record {
        Record {
            gallery: GalleryId(Uuid::from_u128(0x6061_6263_6465_6667_6869_6a6b_6c6d_6e6f)),
            epoch: 3,
            version: 9,
            op: Op::Put,
            kind: Kind::Template,
            id: RecordId(Uuid::from_u128(0x4041_4243_4445_4647_4849_4a4b_4c4d_4e4f)),
            rev: 4,
            body: b"abc".to_vec(),
        }
    }

    #[test]
    fn the_canonical_bytes_are_as_specified() {
        let bytes = record().encode().unwrap();
        assert_eq!(
            hex::encode(&bytes),
            "01606162636465666768696a6b6c6d6e6f0000000300000000000000090102404142434445464748494a4b4c4d4e4f\
             0000000400000003616263"
        );
        assert_eq!(Record::decode(&bytes), Ok(record()));
    }

    #[test]
    fn other_bytes_are_refused_with_the_reason() {
        let bytes = record().encode().unwrap();
        let changed = |at: usize, to: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = to;
            Record::decode(&bytes)
        };
        assert_eq!(changed(0, 2), Err(RecordError::UnknownVersion { found: 2 }));
        assert_eq!(changed(29, 3), Err(RecordError::UnknownOp { found: 3 }));
        assert_eq!(changed(30, 0), Err(RecordError::UnknownKind { found: 0 }));
        assert_eq!(changed(29, 2), Err(RecordError::DelWithBody { found: 3 }));
        assert_eq!(changed(54, 2), Err(RecordError::Trailing { extra: 1 }));
        assert_eq!(changed(54, 4), Err(RecordError::Truncated { found: 58 }));
        assert_eq!(changed(52, 1), Err(RecordError::BodyTooLong { found: 65539 }));
        let long = Record { body: vec![0; MAX_BODY_LEN + 1], ..record() };
        assert_eq!(long.encode(), Err(RecordError::BodyTooLong { found: MAX_BODY_LEN + 1 }));
        assert_eq!(Record { op: Op::Del, ..record() }.encode(), Err(RecordError::DelWithBody { found: 3 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..120), valid in any::<bool>()) {
            let mut bytes = bytes;
            if valid {
                // Random bytes are hardly ever a record; start from one and overwrite its tail.
                let mut whole = record().encode().unwrap();
                let n = bytes.len().min(whole.len());
                let at = whole.len() - n;
                whole[at..].copy_from_slice(&bytes[..n]);
                bytes = whole;
            }
            if let Ok(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode().unwrap(), bytes);
            }
        }
    }
}
