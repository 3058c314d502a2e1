//! What a worker was promised, in memory that it shares with whoever kills it.
//!
//! A few numbers in a mapped file: the kernel keeps what was stored there when the worker is killed, and storing costs no
//! system call, so that the ledger neither slows the worker nor shows among the system calls that a row counts.
//! Deliberately absent: durability. The ledger must lie on a disk whose power is not cut.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};

/// Lanes: one for each writer, one for the gallery, one for whatever else a worker tells.
pub const LANES: usize = 16;
/// Promised there at a worker's own end: the calls by which it has changed its directory.
pub const CALLS_LANE: usize = LANES - 1;
/// Promised there at a worker's own end: its fsyncs; begun: how many of them were made to fail.
pub const SYNCS_LANE: usize = LANES - 2;
const BYTES: usize = LANES * 2 * size_of::<AtomicU64>();

/// The mapped numbers: for each lane how much was begun and how much was promised.
pub struct Ledger {
    numbers: NonNull<AtomicU64>,
}

// SAFETY: the memory is only ever accessed as atomics, and unmapped when the one owner is dropped.
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

/// What a ledger said at one moment, by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Handed to the store.
    pub begun: [u64; LANES],
    /// Promised by the store.
    pub acked: [u64; LANES],
}

impl Copied {
    /// Everything that was promised in all lanes.
    #[must_use]
    pub fn all_acked(&self) -> u64 {
        self.acked.iter().sum()
    }
}

impl Ledger {
    /// Maps the file, making it (all zero) where there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("ledger {}", path.display()))?;
        file.set_len(BYTES as u64)?;
        let (protection, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: the file is open for both, and has the length that is mapped.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, kind, file.as_raw_fd(), 0) };
        ensure!(mapped != libc::MAP_FAILED, "cannot map {}: {}", path.display(), std::io::Error::last_os_error());
        let numbers = NonNull::new(mapped.cast()).context("mmap gave null")?;
        Ok(Self { numbers })
    }

    /// Notes that the lane's next `more` things are handed over.
    pub fn begin(&self, lane: usize, more: u64) {
        self.number(lane, 0).fetch_add(more, Ordering::SeqCst);
    }

    /// Notes that the lane was promised everything up to `through`.
    pub fn promise(&self, lane: usize, through: u64) {
        self.number(lane, 1).store(through, Ordering::SeqCst);
    }

    /// How all lanes stand.
    #[must_use]
    pub fn copy(&self) -> Copied {
        // Promises first: read the other way round, a promise could appear without its beginning.
        let acked = std::array::from_fn(|lane| self.number(lane, 1).load(Ordering::SeqCst));
        Copied { begun: std::array::from_fn(|lane| self.number(lane, 0).load(Ordering::SeqCst)), acked }
    }

    /// Makes all lanes zero, before the next worker starts.
    pub fn clear(&self) {
        for lane in 0..LANES {
            self.number(lane, 0).store(0, Ordering::SeqCst);
            self.number(lane, 1).store(0, Ordering::SeqCst);
        }
    }

    fn number(&self, lane: usize, which: usize) -> &AtomicU64 {
        assert!(lane < LANES, "there are {LANES} lanes, no lane {lane}");
        // SAFETY: the index is below LANES * 2, which is how many numbers are mapped; the mapping is page-aligned and
        // lives as long as `self`.
        unsafe { self.numbers.add(lane * 2 + which).as_ref() }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // SAFETY: this is the address and length that mmap gave, and nothing borrows from it any more.
        unsafe { libc::munmap(self.numbers.as_ptr().cast(), BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_notes_another_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (one, other) = (Ledger::open(&path).unwrap(), Ledger::open(&path).unwrap());
        one.begin(3, 2);
        one.promise(3, 1);
        let copied = other.copy();
        assert_eq!((copied.begun[3], copied.acked[3], copied.all_acked()), (2, 1, 1));
        other.clear();
        assert_eq!(one.copy().all_acked(), 0);
    }
}
