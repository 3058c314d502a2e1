//! What the rule tests share: times, events, a hub's log. What breaks the stores is the fault lab's (tests/faults).

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use edge_store::{GalleryKeys, Outbox};
use gallery_log::{DigestKey, GalleryId, Kind, Log, Op, Record, RecordId, Root};

/// A time that tests give.
pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
}

/// Copies a directory and everything in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The event that the tests record at a sequence: of varying length, so that pages fill unevenly.
pub(crate) fn event_at(sequence: u64) -> Vec<u8> {
    let length = 40 + usize::try_from(sequence * 37 % 900).unwrap();
    let mut event = format!("event {sequence} ").into_bytes();
    event.resize(length, b'.');
    event
}

/// Everything that the outbox still has, checked to be what was recorded. Fails on a hole, a change or a doubling.
pub(crate) fn check_outbox(outbox: &Outbox) -> u64 {
    let mut last = outbox.stats().unwrap().acknowledged_through;
    loop {
        let entries = outbox.pending(last, 100, 1 << 20).unwrap();
        if entries.is_empty() {
            return last;
        }
        for entry in entries {
            assert_eq!(entry.sequence, last + 1);
            assert_eq!(entry.event, event_at(entry.sequence));
            last = entry.sequence;
        }
    }
}

pub(crate) fn gallery() -> GalleryId {
    GalleryId::from_bytes([7; 16])
}

pub(crate) fn gallery_keys() -> GalleryKeys {
    GalleryKeys { epoch: 3, digest: DigestKey::new([9; 32]), credential: [4; 32].into() }
}

/// The hub's side of the tests: the same log, with the root after each version.
pub(crate) struct Hub {
    log: Log,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { log: Log::new(gallery(), gallery_keys().epoch) }
    }

    /// The record of this version, of a hub that has given none yet.
    pub(crate) fn nth(mut self, version: u64) -> Record {
        (1..version).for_each(|_| drop(self.next()));
        self.next().0
    }

    /// The next record: mostly a new entry of the size of a template, every fifth a deletion of an older one.
    pub(crate) fn next(&mut self) -> (Record, Root) {
        let version = self.log.version() + 1;
        let deletes = version.is_multiple_of(5);
        let subject = if deletes { version - 3 } else { version };
        let kind = if version.is_multiple_of(2) != deletes { Kind::Person } else { Kind::Template };
        let body = match (deletes, kind) {
            (true, _) => Vec::new(),
            (false, _) => body(version),
        };
        let record = Record {
            gallery: gallery(),
            epoch: gallery_keys().epoch,
            version,
            op: if deletes { Op::Del } else { Op::Put },
            kind: if deletes { self.log.entry(id(subject)).unwrap().kind } else { kind },
            id: id(subject),
            rev: if deletes { 2 } else { 1 },
            body,
        };
        self.log.apply(&record, &gallery_keys().digest).unwrap();
        (record, self.log.root())
    }
}

fn id(version: u64) -> RecordId {
    RecordId::from_bytes((u128::from(version) << 64 | 0x5a).to_be_bytes())
}

fn body(version: u64) -> Vec<u8> {
    vec![u8::try_from(version % 251).unwrap(); 2100]
}
