//! A snapshot on its way to this device: what has come of it, kept over cuts of the line and of the power.
//!
//! In: the manifest's bytes and the key of the chunks, then the content as it comes. Out: how far it is, and pieces of it to be
//! checked and opened. On disk, in a directory of the gallery's own: `manifest` and `content`, which is sealed as the hub
//! sent it; the key lies among the device's keys, so that destroying it makes the content unreadable.
//!
//! The content is fsynced when it is complete and not before: after a power cut its end may be anything. Whoever goes on with it
//! checks each chunk against the manifest and cuts off what is not right ([`PartialSnapshot::cut`]).
//! Deliberately absent: what manifest and chunks say, and whether they are right.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use gallery_log::{GalleryId, SealKey};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::keys::{DeviceKeys, KeysError};

const MANIFEST: &str = "manifest";
const CONTENT: &str = "content";

/// A snapshot that is being fetched. One owner.
pub struct PartialSnapshot {
    dir: PathBuf,
    keys: DeviceKeys,
    gallery: GalleryId,
    id: Uuid,
    manifest: Vec<u8>,
    key: SealKey,
    content: File,
    held: u64,
}

impl PartialSnapshot {
    /// The one that an earlier run, or an earlier attempt, left; `None` if there is none, or nothing can be done with it.
    pub fn open(dir: &Path, keys: &DeviceKeys, gallery: GalleryId) -> Result<Option<Self>, KeysError> {
        let Some(manifest) = files::read_optional(&dir.join(MANIFEST))? else { return Ok(None) };
        let (id, key) = match keys.snapshot(gallery) {
            Ok(Some(found)) => found,
            // Without its key the content is noise.
            Ok(None) | Err(KeysError::Unsealable { .. } | KeysError::Format { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = dir.join(CONTENT);
        let content = open_content(&path)?;
        let held = content.metadata().map_err(FileError::at("read", &path))?.len();
        Ok(Some(Self { dir: dir.to_owned(), keys: keys.clone(), gallery, id, manifest, key, content, held }))
    }

    /// Begins a snapshot; another one of the gallery is destroyed.
    pub fn begin(
        dir: &Path,
        keys: &DeviceKeys,
        gallery: GalleryId,
        id: Uuid,
        manifest: &[u8],
        key: &[u8; 32],
    ) -> Result<Self, KeysError> {
        Self::destroy_at(dir, keys, gallery)?;
        files::create_private_dir(dir)?;
        keys.set_snapshot(gallery, id, key)?;
        let content = open_content(&dir.join(CONTENT))?;
        // Last: without a manifest there is none.
        files::write_atomically(&dir.join(MANIFEST), manifest)?;
        let (dir, keys, manifest) = (dir.to_owned(), keys.clone(), manifest.to_owned());
        Ok(Self { dir, keys, gallery, id, manifest, key: SealKey::new(*key), content, held: 0 })
    }

    /// The snapshot's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The manifest's bytes, as they were given.
    #[must_use]
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The key of the chunks.
    #[must_use]
    pub fn key(&self) -> &SealKey {
        &self.key
    }

    /// How many bytes of the content are here.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Adds what came next.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let held = self.held;
        let written = self.content.seek(SeekFrom::Start(held)).and_then(|_| self.content.write_all(bytes));
        written.map_err(FileError::at("write", &self.dir.join(CONTENT)))?;
        self.held += bytes.len() as u64;
        Ok(())
    }

    /// A piece of the content.
    pub fn read(&mut self, from: u64, length: usize) -> Result<Vec<u8>, FileError> {
        let mut bytes = vec![0; length];
        let read = self.content.seek(SeekFrom::Start(from)).and_then(|_| self.content.read_exact(&mut bytes));
        read.map_err(FileError::at("read", &self.dir.join(CONTENT)))?;
        Ok(bytes)
    }

    /// Cuts off everything from `at` on.
    pub fn cut(&mut self, at: u64) -> Result<(), FileError> {
        self.content.set_len(at).map_err(FileError::at("cut", &self.dir.join(CONTENT)))?;
        self.held = self.held.min(at);
        Ok(())
    }

    /// Puts what is here on disk.
    pub fn sync(&self) -> Result<(), FileError> {
        self.content.sync_all().map_err(FileError::at("fsync", &self.dir.join(CONTENT)))
    }

    /// Destroys key and content: it was applied, or is good for nothing.
    pub fn destroy(self) -> Result<(), KeysError> {
        let Self { dir, keys, gallery, content, .. } = self;
        drop(content);
        Self::destroy_at(&dir, &keys, gallery)
    }

    /// As [`PartialSnapshot::destroy`], whatever is there. The key goes first: without it the rest is noise.
    pub fn destroy_at(dir: &Path, keys: &DeviceKeys, gallery: GalleryId) -> Result<(), KeysError> {
        keys.destroy_snapshot(gallery)?;
        Ok(files::remove_dir(dir)?)
    }
}

impl std::fmt::Debug for PartialSnapshot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "PartialSnapshot({} of gallery {}, {} bytes held, ***)", self.id, self.gallery, self.held)
    }
}

fn open_content(path: &Path) -> Result<File, FileError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let open = || -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    };
    open().map_err(FileError::at("open", path))
}

pub(crate) fn encode_key(id: Uuid, key: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 + 32));
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(key);
    bytes
}

pub(crate) fn decode_key(bytes: &[u8]) -> Option<(Uuid, SealKey)> {
    let (id, key) = bytes.split_first_chunk::<16>()?;
    Some((Uuid::from_bytes(*id), SealKey::new(key.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GALLERY: GalleryId = GalleryId(Uuid::from_u128(7));
    const ID: Uuid = Uuid::from_u128(9);

    #[test]
    fn what_has_come_is_there_after_a_restart_until_it_is_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let place = dir.path().join("snapshots/one");
        assert!(PartialSnapshot::open(&place, &keys, GALLERY).unwrap().is_none());
        let mut partial = PartialSnapshot::begin(&place, &keys, GALLERY, ID, b"manifest", &[5; 32]).unwrap();
        partial.append(b"abc").unwrap();
        partial.append(b"defgh").unwrap();
        partial.cut(6).unwrap();
        partial.append(b"G").unwrap();
        drop(partial);
        let mut again = PartialSnapshot::open(&place, &keys, GALLERY).unwrap().unwrap();
        assert_eq!((again.id(), again.manifest(), again.held()), (ID, &b"manifest"[..], 7));
        assert_eq!(again.read(2, 5).unwrap(), b"cdefG");
        assert_eq!(again.key().id(), SealKey::new([5; 32]).id());
        again.destroy().unwrap();
        assert!(!place.exists() && keys.snapshot(GALLERY).unwrap().is_none());
    }

    #[test]
    fn without_its_key_there_is_none_and_another_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let place = dir.path().join("one");
        let mut partial = PartialSnapshot::begin(&place, &keys, GALLERY, ID, b"m", &[5; 32]).unwrap();
        partial.append(b"abc").unwrap();
        drop(partial);
        keys.destroy_snapshot(GALLERY).unwrap();
        assert!(PartialSnapshot::open(&place, &keys, GALLERY).unwrap().is_none());
        let other = PartialSnapshot::begin(&place, &keys, GALLERY, Uuid::nil(), b"n", &[6; 32]).unwrap();
        assert_eq!((other.held(), other.manifest()), (0, &b"n"[..]));
    }
}
