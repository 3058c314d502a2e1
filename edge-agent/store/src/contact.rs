//! When this device was last in contact with its hub, kept outside the galleries that depend on it.
//!
//! In: the hub's time at a contact, and how long the device has run since. Out: the same after a restart; or that the file is
//! there and cannot be believed. Written in place into two slots with an HMAC, as the watermarks are: a torn write leaves the
//! one before, a full disk takes it. Deliberately absent: what follows from it.

use std::path::Path;
use std::time::Duration;

use crate::keys::{DeviceKeys, KeysError};
use crate::watermark::{Watermark, WatermarkError};

const FILE: &str = "contact";
const LABEL: &[u8] = b"contact";
const FORMAT: u8 = 1;

/// A contact, and what has passed since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// The hub's time of it, in Unix seconds.
    pub at: i64,
    /// How long the device has run since, by its monotonic clock, over all its runs.
    pub run: Duration,
    /// That it was so long ago that the galleries were destroyed.
    pub over: bool,
}

/// What [`ContactFile::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactFound {
    /// What was kept last.
    Kept(Contact),
    /// No file: a device that has just been claimed, or that an older agent served.
    Nothing,
    /// A file that this device has not written.
    Forged,
}

/// The open file.
pub struct ContactFile {
    mark: Option<Watermark>,
    path: std::path::PathBuf,
    key: ring::hmac::Key,
}

impl ContactFile {
    /// Opens it in the device's state directory.
    pub fn open(state_dir: &Path, keys: &DeviceKeys) -> Result<(Self, ContactFound), ContactError> {
        let (path, key) = (state_dir.join(FILE), keys.watermark()?);
        let (mark, found) = match Watermark::open(&path, &key, LABEL) {
            Ok(Some((mark, payload))) => {
                (Some(mark), Contact::decode(&payload).map_or(ContactFound::Forged, ContactFound::Kept))
            }
            Ok(None) => (None, ContactFound::Nothing),
            Err(WatermarkError::Forged(_)) => (None, ContactFound::Forged),
            Err(error) => return Err(error.into()),
        };
        Ok((Self { mark, path, key }, found))
    }

    /// Keeps a contact; it is on disk when this returns.
    pub fn keep(&mut self, contact: &Contact) -> Result<(), ContactError> {
        match &mut self.mark {
            Some(mark) => mark.advance(&contact.encode())?,
            None => self.mark = Some(Watermark::create(&self.path, &self.key, LABEL, &contact.encode())?),
        }
        Ok(())
    }
}

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ContactError {
    /// Its key.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The file.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
}

impl Contact {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT, u8::from(self.over)];
        bytes.extend_from_slice(&self.at.to_be_bytes());
        bytes.extend_from_slice(&u64::try_from(self.run.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[FORMAT, over], rest) = bytes.split_first_chunk::<2>()? else { return None };
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let run = Duration::from_millis(u64::from_be_bytes(rest.try_into().ok()?));
        Some(Self { at: i64::from_be_bytes(*at), run, over: over != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_there_after_a_restart_and_a_strange_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let (mut file, found) = ContactFile::open(dir.path(), &keys).unwrap();
        assert_eq!(found, ContactFound::Nothing);
        let mut contact = Contact { at: 1_795_000_000, run: Duration::from_millis(7), over: false };
        for n in 0..3 {
            contact.run += Duration::from_secs(n);
            file.keep(&contact).unwrap();
        }
        contact.over = true;
        file.keep(&contact).unwrap();
        let (_, found) = ContactFile::open(dir.path(), &keys).unwrap();
        assert_eq!(found, ContactFound::Kept(contact));
        std::fs::write(dir.path().join(FILE), vec![0; 8192]).unwrap();
        let (mut file, found) = ContactFile::open(dir.path(), &keys).unwrap();
        assert_eq!(found, ContactFound::Forged);
        file.keep(&contact).unwrap();
        assert_eq!(ContactFile::open(dir.path(), &keys).unwrap().1, ContactFound::Kept(contact));
    }
}
