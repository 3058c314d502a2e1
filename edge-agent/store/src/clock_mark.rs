//! What time it is at least, kept over restarts, so that a clock that fell back is noticed.
//!
//! In: a [`ClockMark`] now and then. Out: the one that an earlier run left. The file is a watermark as the stores' own:
//! two slots under the device's watermark key, fsynced, never lowered. Deliberately absent: clocks, and what a mark that
//! cannot be read means (whoever opens it goes on with less knowledge, and says so).

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::keys::{DeviceKeys, KeysError};
use crate::watermark::{Watermark, WatermarkError};

const FILE: &str = "clock";
const LABEL: &[u8] = b"lintel.clock.v1";
/// floor 8, whether something was proven 1, boot 16, UTC 8, monotonic time 8.
const PAYLOAD_BYTES: usize = 8 + 1 + 16 + 8 + 8;

/// What a run of the agent knew about the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockMark {
    /// Certainly past, in Unix milliseconds.
    pub floor_ms: i64,
    /// The last time that was proven; counts within its boot only.
    pub proven: Option<ProvenTime>,
}

/// A time that was proven, by what the monotonic clock of a boot showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenTime {
    /// The kernel's name of the boot.
    pub boot: Uuid,
    /// UTC, in Unix milliseconds.
    pub utc_ms: i64,
    /// `CLOCK_MONOTONIC` at that time.
    pub mono_ns: u64,
}

/// Why a mark could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ClockStoreError {
    /// The watermark key.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The file.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
}

/// The file of the mark.
pub struct ClockStore {
    path: PathBuf,
    key: ring::hmac::Key,
    file: Option<Watermark>,
    last: Option<ClockMark>,
}

impl ClockStore {
    /// Opens the mark in the state folder. The second value says why an earlier mark could not be believed; the store
    /// then begins anew.
    ///
    /// # Errors
    /// When the key or the file cannot be read.
    pub fn open(state_dir: &Path, keys: &DeviceKeys) -> Result<(Self, Option<WatermarkError>), ClockStoreError> {
        let (path, key) = (state_dir.join(FILE), keys.watermark()?);
        match Watermark::open(&path, &key, LABEL) {
            Ok(Some((file, payload))) => {
                let last = decode(&payload);
                Ok((Self { path, key, file: Some(file), last }, None))
            }
            Ok(None) => Ok((Self { path, key, file: None, last: None }, None)),
            Err(forged @ WatermarkError::Forged(_)) => Ok((Self { path, key, file: None, last: None }, Some(forged))),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets what was known: a device that is claimed anew learns the time anew, and a hub that was years ahead once
    /// must not be with it for ever.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn forget(state_dir: &Path) -> Result<(), crate::FileError> {
        crate::files::destroy_file(&state_dir.join(FILE))
    }

    /// What the last run left, or this one wrote last.
    #[must_use]
    pub fn last(&self) -> Option<ClockMark> {
        self.last
    }

    /// Writes a mark; returns when it is on the disk. The floor is never lowered.
    ///
    /// # Errors
    /// When the operating system refuses; the last mark stands.
    pub fn advance(&mut self, mark: ClockMark) -> Result<(), WatermarkError> {
        let floor_ms = self.last.map_or(mark.floor_ms, |last| last.floor_ms.max(mark.floor_ms));
        let mark = ClockMark { floor_ms, ..mark };
        match &mut self.file {
            Some(file) => file.advance(&encode(&mark))?,
            None => self.file = Some(Watermark::create(&self.path, &self.key, LABEL, &encode(&mark))?),
        }
        self.last = Some(mark);
        Ok(())
    }
}

fn encode(mark: &ClockMark) -> Vec<u8> {
    let nothing = ProvenTime { boot: Uuid::nil(), utc_ms: 0, mono_ns: 0 };
    let proven = mark.proven.unwrap_or(nothing);
    let mut out = Vec::with_capacity(PAYLOAD_BYTES);
    out.extend_from_slice(&mark.floor_ms.to_be_bytes());
    out.push(u8::from(mark.proven.is_some()));
    out.extend_from_slice(proven.boot.as_bytes());
    out.extend_from_slice(&proven.utc_ms.to_be_bytes());
    out.extend_from_slice(&proven.mono_ns.to_be_bytes());
    out
}

/// `None` for a payload of another version of this program: what it knew is not known here.
fn decode(payload: &[u8]) -> Option<ClockMark> {
    let (floor, rest) = payload.split_first_chunk::<8>()?;
    let (is_proven, rest) = rest.split_first()?;
    let (boot, rest) = rest.split_first_chunk::<16>()?;
    let (utc, rest) = rest.split_first_chunk::<8>()?;
    let mono: [u8; 8] = rest.try_into().ok()?;
    let proven = ProvenTime {
        boot: Uuid::from_bytes(*boot),
        utc_ms: i64::from_be_bytes(*utc),
        mono_ns: u64::from_be_bytes(mono),
    };
    Some(ClockMark { floor_ms: i64::from_be_bytes(*floor), proven: (*is_proven == 1).then_some(proven) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(floor_ms: i64) -> ClockMark {
        let proven = ProvenTime { boot: Uuid::from_u128(7), utc_ms: floor_ms + 5, mono_ns: 42 };
        ClockMark { floor_ms, proven: Some(proven) }
    }

    #[test]
    fn a_mark_comes_back_and_its_floor_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let (mut store, doubt) = ClockStore::open(dir.path(), &keys).unwrap();
        assert!(doubt.is_none() && store.last().is_none(), "the first run knows nothing");
        store.advance(mark(1000)).unwrap();
        store.advance(ClockMark { floor_ms: 900, proven: None }).unwrap();
        drop(store);
        let (store, _) = ClockStore::open(dir.path(), &keys).unwrap();
        assert_eq!(store.last(), Some(ClockMark { floor_ms: 1000, proven: None }));
        drop(store);
        ClockStore::forget(dir.path()).unwrap();
        assert!(ClockStore::open(dir.path(), &keys).unwrap().0.last().is_none());
    }

    #[test]
    fn a_mark_that_somebody_wrote_is_not_believed_and_the_store_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let (mut store, _) = ClockStore::open(dir.path(), &keys).unwrap();
        store.advance(mark(1000)).unwrap();
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (mut store, doubt) = ClockStore::open(dir.path(), &keys).unwrap();
        assert!(matches!(doubt, Some(WatermarkError::Forged(_))));
        assert_eq!(store.last(), None);
        store.advance(mark(2000)).unwrap();
        assert_eq!(ClockStore::open(dir.path(), &keys).unwrap().0.last(), Some(mark(2000)));
    }
}
