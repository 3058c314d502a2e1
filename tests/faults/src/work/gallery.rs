//! The gallery's side of the durability rows: a hub that writes the same log every time, and the check against its roots.

use std::path::Path;

use anyhow::Result;
use edge_store::{DeviceKeys, GalleryKeys, GalleryOpened, GalleryStore};
use gallery_log::{DigestKey, GalleryId, Kind, Log, Op, Record, RecordId, Root};

/// The gallery that all rows use.
#[must_use]
pub fn id() -> GalleryId {
    GalleryId::from_bytes([7; 16])
}

/// Its keys.
#[must_use]
pub fn keys() -> GalleryKeys {
    GalleryKeys { epoch: 3, digest: DigestKey::new([9; 32]), credential: [4; 32].into() }
}

/// The store below `dir`, with its keys.
pub fn open(dir: &Path) -> Result<(GalleryStore, GalleryOpened)> {
    let device = DeviceKeys::open(&dir.join("keys"), None)?;
    Ok(GalleryStore::open(&dir.join("gallery"), &device, id(), &keys())?)
}

/// The hub's log, version by version, with the root after each. The same every time.
pub struct Hub {
    log: Log,
}

impl Hub {
    /// A hub that has published nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { log: Log::new(id(), keys().epoch) }
    }

    /// A hub that has published `version`.
    #[must_use]
    pub fn at_version(version: u64) -> Self {
        let mut hub = Self::new();
        while hub.log.version() < version {
            hub.publish();
        }
        hub
    }

    /// The root of what it has published.
    #[must_use]
    pub fn root(&mut self) -> Root {
        self.log.root()
    }

    /// The next record: mostly a new entry of the size of a template, every fifth a deletion of an older one.
    pub fn publish(&mut self) -> (Record, Root) {
        let version = self.log.version() + 1;
        let deletes = version.is_multiple_of(5);
        let subject = record_id(if deletes { version - 3 } else { version });
        let kind = match (deletes, version.is_multiple_of(2)) {
            (true, _) => self.log.entry(subject).map_or(Kind::Person, |entry| entry.kind),
            (false, true) => Kind::Person,
            (false, false) => Kind::Template,
        };
        let record = Record {
            gallery: id(),
            epoch: keys().epoch,
            version,
            op: if deletes { Op::Del } else { Op::Put },
            kind,
            id: subject,
            rev: if deletes { 2 } else { 1 },
            body: if deletes { Vec::new() } else { body(version) },
        };
        self.log.apply(&record, &keys().digest).expect("this log is written by its own rules");
        (record, self.log.root())
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

fn record_id(version: u64) -> RecordId {
    RecordId::from_bytes((u128::from(version) << 64 | 0x5a).to_be_bytes())
}

fn body(version: u64) -> Vec<u8> {
    vec![u8::try_from(version % 251).unwrap_or(0); 2100]
}
