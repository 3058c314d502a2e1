//! How far a store has come, kept outside the store, so that a store which went back in time is noticed.
//!
//! In: a short payload and the watermark key. Out: the newest payload that was durably written, or the reason why
//! none can be trusted. sled silently drops everything behind a flipped bit, and any engine can be handed an old copy
//! of its files; both look like a healthy, shorter store from inside.
//!
//! The file has two slots, each in a 4 KiB block of its own, written in turn and in place. A torn write leaves the
//! other slot whole; a write needs no new block, so it succeeds on a full disk, where a deletion matters most; and it
//! costs one fdatasync where a temporary file, a rename and a directory cost three syncs. The file itself is made by
//! the usual temporary file, fsync, rename, fsync of the directory.
//! Deliberately absent: what the payload means.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ring::hmac;

use crate::files::{self, FileError};

/// One slot a block: the largest unit that common devices and file systems write as a whole.
const SLOT_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"LNTLWM01";
/// magic 8, counter 8, payload length 2, HMAC 32.
const OVERHEAD_BYTES: usize = 8 + 8 + 2 + 32;
const MAX_PAYLOAD_BYTES: usize = 512;

/// Why a watermark file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkError {
    /// The file exists, but no slot in it carries a valid HMAC.
    #[error("watermark {path}: neither slot carries a valid HMAC", path = .0.display())]
    Forged(PathBuf),
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// An open watermark file.
pub(crate) struct Watermark {
    path: PathBuf,
    file: File,
    key: hmac::Key,
    label: Vec<u8>,
    counter: u64,
}

impl Watermark {
    /// Opens the file and returns its newest valid payload; `None` when there is no file.
    ///
    /// `label` names what is marked (store and object): it goes into the HMAC, so that one store's watermark is not
    /// accepted for another.
    pub(crate) fn open(path: &Path, key: &hmac::Key, label: &[u8]) -> Result<Option<(Self, Vec<u8>)>, WatermarkError> {
        let Some(bytes) = files::read_optional(path)? else { return Ok(None) };
        let newest = bytes
            .chunks_exact(SLOT_BYTES)
            .take(2)
            .enumerate()
            .filter_map(|(index, slot)| read_slot(slot, key, label).map(|(counter, payload)| (index, counter, payload)))
            // A slot is only ever written at the place its counter says, so a copied slot is no newer one.
            .filter(|(index, counter, _)| slot_of(*counter) == *index)
            .max_by_key(|(_, counter, _)| *counter);
        let Some((_, counter, payload)) = newest else { return Err(WatermarkError::Forged(path.to_path_buf())) };
        let file = open_for_writing(path)?;
        Ok(Some((Self { path: path.to_path_buf(), file, key: key.clone(), label: label.to_vec(), counter }, payload)))
    }

    /// Makes a fresh file with a first payload, durably; an older file of the name is replaced.
    pub(crate) fn create(path: &Path, key: &hmac::Key, label: &[u8], payload: &[u8]) -> Result<Self, WatermarkError> {
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        bytes[..SLOT_BYTES].copy_from_slice(&slot(0, payload, key, label));
        files::write_atomically(path, &bytes)?;
        let file = open_for_writing(path)?;
        Ok(Self { path: path.to_path_buf(), file, key: key.clone(), label: label.to_vec(), counter: 0 })
    }

    /// Writes the next payload into the older slot; returns when it is on disk.
    pub(crate) fn advance(&mut self, payload: &[u8]) -> Result<(), WatermarkError> {
        let counter = self.counter + 1;
        let bytes = slot(counter, payload, &self.key, &self.label);
        let offset = slot_of(counter) * SLOT_BYTES;
        self.file.write_all_at(&bytes, offset as u64).map_err(FileError::at("write", &self.path))?;
        self.file.sync_data().map_err(FileError::at("fsync", &self.path))?;
        self.counter = counter;
        Ok(())
    }
}

fn open_for_writing(path: &Path) -> Result<File, FileError> {
    OpenOptions::new().write(true).open(path).map_err(FileError::at("open", path))
}

fn slot_of(counter: u64) -> usize {
    usize::from(counter % 2 == 1)
}

fn slot(counter: u64, payload: &[u8], key: &hmac::Key, label: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= MAX_PAYLOAD_BYTES, "a watermark is a few numbers, not {} bytes", payload.len());
    let length = u16::try_from(payload.len()).expect("bounded by the assertion above");
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&counter.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    let tag = hmac::sign(key, &authenticated(&bytes, label));
    bytes.extend_from_slice(tag.as_ref());
    bytes.resize(SLOT_BYTES, 0);
    bytes
}

fn read_slot(slot: &[u8], key: &hmac::Key, label: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (head, rest) = slot.split_at_checked(18)?;
    let counter = u64::from_be_bytes(head[8..16].try_into().ok()?);
    let length = usize::from(u16::from_be_bytes(head[16..18].try_into().ok()?));
    if length > SLOT_BYTES - OVERHEAD_BYTES {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(length)?;
    let tag = rest.get(..32)?;
    hmac::verify(key, &authenticated(&slot[..18 + length], label), tag).ok()?;
    Some((counter, payload.to_vec()))
}

fn authenticated(bytes: &[u8], label: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(8 + label.len() + bytes.len());
    all.extend_from_slice(&(label.len() as u64).to_be_bytes());
    all.extend_from_slice(label);
    all.extend_from_slice(bytes);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
    }

    fn marked(dir: &Path, payloads: &[&[u8]]) -> PathBuf {
        let path = dir.join("watermark");
        let mut mark = Watermark::create(&path, &key(), b"label", payloads[0]).unwrap();
        for payload in &payloads[1..] {
            mark.advance(payload).unwrap();
        }
        path
    }

    fn read(path: &Path) -> Result<Option<Vec<u8>>, WatermarkError> {
        Watermark::open(path, &key(), b"label").map(|opened| opened.map(|(_, payload)| payload))
    }

    #[test]
    fn the_newest_payload_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        for n in 1..=5 {
            let payloads: Vec<&[u8]> = [b"a" as &[u8], b"bb", b"ccc", b"d", b"e"][..n].to_vec();
            let path = marked(dir.path(), &payloads);
            assert_eq!(read(&path).unwrap().unwrap(), payloads[n - 1]);
        }
    }

    #[test]
    fn a_missing_file_is_no_watermark() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_torn_newest_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = marked(dir.path(), &[b"old", b"new"]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT_BYTES + 19] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
    }

    #[test]
    fn a_file_without_a_valid_slot_is_forged_not_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = marked(dir.path(), &[b"only"]);
        for content in [vec![], vec![0; 2 * SLOT_BYTES], vec![0xff; 100]] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(read(&path), Err(WatermarkError::Forged(_))));
        }
    }

    #[test]
    fn another_label_or_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = marked(dir.path(), &[b"only"]);
        assert!(Watermark::open(&path, &key(), b"other").is_err());
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        assert!(Watermark::open(&path, &other, b"label").is_err());
    }

    #[test]
    fn a_slot_copied_to_the_other_place_is_not_newer() {
        let dir = tempfile::tempdir().unwrap();
        let path = marked(dir.path(), &[b"one", b"two", b"three"]);
        let mut bytes = std::fs::read(&path).unwrap();
        let (even, odd) = bytes.split_at_mut(SLOT_BYTES);
        even.copy_from_slice(odd);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
    }
}
