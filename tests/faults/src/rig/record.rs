//! The calls by which a worker changed its directory, as the recorder wrote them: what modelled power cuts are made of.
//!
//! One record after the other: kind (1 byte), length of the path and of the rest (u32 LE each), offset (u64 LE), path, rest.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A call, or a promise in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes at an offset of a file.
    Write {
        /// Where.
        path: PathBuf,
        /// From here.
        offset: u64,
        /// These.
        bytes: Vec<u8>,
    },
    /// A file made, or made empty.
    Create(PathBuf),
    /// A file cut or lengthened.
    SetLen(PathBuf, u64),
    /// fsync or fdatasync of a file or directory.
    Sync(PathBuf),
    /// One name instead of another.
    Rename(PathBuf, PathBuf),
    /// A file or empty directory gone.
    Remove(PathBuf),
    /// A directory made.
    MakeDir(PathBuf),
    /// The worker was promised this much on a lane; no call.
    Promise {
        /// The ledger's lane.
        lane: usize,
        /// Everything up to here.
        through: u64,
    },
}

impl Op {
    /// The record of this call.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let of = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let (kind, path, offset, rest) = match self {
            Self::Write { path, offset, bytes } => (1, of(path), *offset, bytes.clone()),
            Self::Create(path) => (2, of(path), 0, Vec::new()),
            Self::SetLen(path, length) => (3, of(path), *length, Vec::new()),
            Self::Sync(path) => (4, of(path), 0, Vec::new()),
            Self::Rename(from, to) => (5, of(from), 0, of(to)),
            Self::Remove(path) => (6, of(path), 0, Vec::new()),
            Self::MakeDir(path) => (7, of(path), 0, Vec::new()),
            Self::Promise { lane, through } => (8, Vec::new(), *through, vec![u8::try_from(*lane).unwrap_or(0)]),
        };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("one call writes less than 4 GiB").to_le_bytes();
        let mut record = vec![kind];
        record.extend_from_slice(&length(&path));
        record.extend_from_slice(&length(&rest));
        record.extend_from_slice(&offset.to_le_bytes());
        record.extend_from_slice(&path);
        record.extend_from_slice(&rest);
        record
    }

    /// All records of a recording.
    pub fn decode_all(mut bytes: &[u8]) -> Result<Vec<Self>> {
        let mut ops = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at_checked(17).context("the recording ends within a record")?;
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
            let offset = u64::from_le_bytes(head[9..17].try_into().expect("eight bytes"));
            let (path, rest) = rest.split_at_checked(number(1)).context("the recording ends within a path")?;
            let (more, rest) = rest.split_at_checked(number(5)).context("the recording ends within a write")?;
            let path = PathBuf::from(OsStr::from_bytes(path));
            ops.push(match head[0] {
                1 => Self::Write { path, offset, bytes: more.to_vec() },
                2 => Self::Create(path),
                3 => Self::SetLen(path, offset),
                4 => Self::Sync(path),
                5 => Self::Rename(path, PathBuf::from(OsStr::from_bytes(more))),
                6 => Self::Remove(path),
                7 => Self::MakeDir(path),
                8 => Self::Promise { lane: usize::from(more.first().copied().unwrap_or(0)), through: offset },
                kind => bail!("the recording has a record of kind {kind}"),
            });
            bytes = rest;
        }
        Ok(ops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_reads_back_as_it_was_written() {
        let ops = vec![
            Op::Write { path: "/a/b".into(), offset: 9, bytes: vec![1, 2] },
            Op::Create("/a/c".into()),
            Op::SetLen("/a/c".into(), 77),
            Op::Sync("/a".into()),
            Op::Rename("/a/c".into(), "/a/d".into()),
            Op::Remove("/a/d".into()),
            Op::MakeDir("/e".into()),
            Op::Promise { lane: 3, through: 5 },
        ];
        let bytes: Vec<u8> = ops.iter().flat_map(Op::encode).collect();
        assert_eq!(Op::decode_all(&bytes).unwrap(), ops);
        assert!(Op::decode_all(&bytes[..bytes.len() - 1]).is_err());
    }
}
