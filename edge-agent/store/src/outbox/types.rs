//! What the outbox takes and gives: positions, entries, options, figures, errors.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::files::FileError;
use crate::seal::SealingError;
use crate::watermark::WatermarkError;

/// Names one run of sequences; random per outbox file. Printed as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId([u8; 16]);

impl StreamId {
    /// Wraps 16 bytes, e.g. those of a parsed acknowledgement.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "StreamId({self})")
    }
}

/// A stream id that is not 32 hex digits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream id is not 32 hex digits")]
pub struct BadStreamId;

impl FromStr for StreamId {
    type Err = BadStreamId;

    fn from_str(text: &str) -> Result<Self, BadStreamId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| BadStreamId)?;
        Ok(Self(bytes))
    }
}

/// Where an event stands: with the device, its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The outbox file's stream.
    pub stream: StreamId,
    /// From 1, contiguous, never reset within a stream.
    pub sequence: u64,
}

/// May an event be refused when room runs out?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Recorded as long as the disk takes it: access decisions, gaps.
    MustKeep,
    /// Refused first when the quota is reached or the disk runs low: camera, system and face events.
    MayShed,
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShedReason {
    /// The entries fill the quota.
    Quota {
        /// The quota, bytes.
        quota_bytes: u64,
    },
    /// The file system has less room than [`OutboxOptions::low_space_bytes`].
    LowSpace {
        /// What is left, bytes.
        free_bytes: u64,
    },
}

impl fmt::Display for ShedReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota { quota_bytes } => write!(out, "its quota of {quota_bytes} bytes is used up"),
            Self::LowSpace { free_bytes } => write!(out, "the disk has only {free_bytes} bytes left"),
        }
    }
}

/// How much is kept and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxOptions {
    /// Sealed bytes kept, pending and acknowledged together. Above it acknowledged entries go first, then
    /// [`Priority::MayShed`] is refused. The file takes up to three times as much (10.5 MB of events measured 27 MB),
    /// since redb never writes over what the last commit needs.
    pub quota_bytes: u64,
    /// Below this much free disk [`Priority::MayShed`] is refused.
    pub low_space_bytes: u64,
    /// Acknowledged entries stay at least this long (unless the quota needs their room), for a hub restored from a backup.
    pub retention: Duration,
}

impl Default for OutboxOptions {
    /// 256 MiB is about 250,000 events of 1 KiB: a busy door's week offline. 64 MiB of free disk is kept for
    /// what must be recorded. 24 h of retention is the protocol's minimum.
    fn default() -> Self {
        Self { quota_bytes: 256 << 20, low_space_bytes: 64 << 20, retention: Duration::from_secs(24 * 3600) }
    }
}

/// One recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the stream.
    pub sequence: u64,
    /// When it was appended, by the time the caller gave (millisecond precision).
    pub recorded_at: SystemTime,
    /// The bytes, as appended.
    pub event: Vec<u8>,
}

/// How [`crate::Outbox::open`] found the file.
#[derive(Debug)]
pub enum Opened {
    /// The stream goes on.
    Intact,
    /// There was none: a first stream has begun.
    New,
    /// There was one that cannot be trusted: alarm. A new stream has begun.
    Renewed(Renewal),
}

/// Why a new stream had to begin, and what became of the old file.
#[derive(Debug)]
pub struct Renewal {
    /// What was wrong.
    pub reason: RenewalReason,
    /// Where the old file is now; `None` when it was gone.
    pub moved_to: Option<PathBuf>,
}

impl Renewal {
    /// How many events the hub may lack at most; `None` when nothing tells.
    #[must_use]
    pub fn may_lack(&self) -> Option<u64> {
        match self.reason {
            RenewalReason::Missing { last } | RenewalReason::RolledBack { expected: last, .. } => Some(last),
            _ => None,
        }
    }
}

impl fmt::Display for Renewal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; a new stream has begun", self.reason)?;
        match &self.moved_to {
            Some(path) => write!(out, "; the old file is kept as {}", path.display()),
            None => Ok(()),
        }
    }
}

/// Why an outbox file cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum RenewalReason {
    /// The watermark says that there was one.
    #[error("the outbox file is gone although {last} events had been recorded")]
    Missing {
        /// The watermark's last sequence.
        last: u64,
    },
    /// There is a file, but nothing says how far it had come.
    #[error("the outbox has no watermark beside it")]
    NoWatermark,
    /// The watermark's HMAC is wrong.
    #[error("the outbox's watermark cannot be trusted")]
    Watermark(#[source] WatermarkError),
    /// The file is of another stream than its watermark: swapped, or an old copy.
    #[error("the outbox is of stream {found}, its watermark of {expected}")]
    Foreign {
        /// The watermark's stream.
        expected: StreamId,
        /// The file's stream.
        found: StreamId,
    },
    /// The file has fewer events than were recorded: an old copy, or damage that the engine took for a torn end.
    #[error("the outbox ends at {found}, but {expected} events had been recorded")]
    RolledBack {
        /// The watermark's last sequence.
        expected: u64,
        /// The file's last sequence.
        found: u64,
    },
    /// The engine or our own checks refuse the file.
    #[error("the outbox is corrupt")]
    Corrupt(#[source] Box<OutboxError>),
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// This many events are no longer pending.
    Advanced(u64),
    /// It said nothing new.
    Known,
    /// It was for a stream that is not this file's.
    OtherStream,
    /// It was for events that this outbox never recorded: another device (a clone) writes under our identity.
    Ahead {
        /// The last sequence that there is.
        last: u64,
    },
}

/// The figures of `outbox status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxStats {
    /// The stream.
    pub stream: StreamId,
    /// The newest sequence; 0 before the first event.
    pub last_sequence: u64,
    /// What the hub has committed; 0 before the first acknowledgement.
    pub acknowledged_through: u64,
    /// Events that the hub has not acknowledged.
    pub pending: u64,
    /// The oldest sequence still kept (acknowledged ones stay for a while).
    pub oldest_kept: u64,
    /// When the oldest pending event was recorded; `None` also when it cannot be read.
    pub oldest_pending_at: Option<SystemTime>,
    /// Sealed bytes kept.
    pub bytes: u64,
    /// The limit on `bytes`.
    pub quota_bytes: u64,
    /// Appends refused for lack of room since the outbox was opened.
    pub shed: u64,
}

/// Why an outbox operation failed. Nothing that failed was recorded.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The lock is held.
    #[error("outbox {dir}: another process has it open; stop that one first", dir = .dir.display())]
    InUse {
        /// The outbox directory.
        dir: PathBuf,
    },
    /// The disk, its quota or its inodes are used up.
    #[error("outbox {path}: no space left on the disk; free some, recording resumes by itself", path = .path.display())]
    DiskFull {
        /// The database file.
        path: PathBuf,
        /// The engine's error.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// An event of low priority was refused.
    #[error("event not recorded: {reason}")]
    Shed {
        /// Why.
        reason: ShedReason,
    },
    /// An event is too long to be ever sent.
    #[error("event not recorded: {bytes} bytes, more than {limit}", limit = super::MAX_EVENT_BYTES)]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// An entry is missing, cannot be unsealed, or the head contradicts the entries.
    #[error("outbox {path}: {what}", path = .path.display())]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What contradicts what.
        what: CorruptPart,
    },
    /// The engine failed.
    #[error("outbox {path}: {what} failed", path = .path.display())]
    Storage {
        /// The database file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The engine's error.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// An earlier commit failed for another reason than a full disk.
    #[error("outbox {path}: an earlier write failed, nothing is recorded until the program is restarted; check the disk", path = .path.display())]
    Failed {
        /// The database file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The watermark could not be read.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// Sealing failed (no randomness).
    #[error(transparent)]
    Sealing(#[from] SealingError),
}

/// The part of an outbox file that is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptPart {
    /// No head, or one whose seal is wrong.
    #[error("its head cannot be unsealed")]
    Head,
    /// Head of a newer program.
    #[error("its format is version {found}, this program knows {known}; update the program")]
    Version {
        /// In the file.
        found: u16,
        /// Known here.
        known: u16,
    },
    /// Entries and head disagree.
    #[error("entries {first}..={last} should be there, but {count} are")]
    Count {
        /// Head: oldest kept.
        first: u64,
        /// Head: newest.
        last: u64,
        /// Entries found.
        count: u64,
    },
    /// A hole.
    #[error("entry {sequence} is missing")]
    Missing {
        /// Which.
        sequence: u64,
    },
    /// A wrong seal.
    #[error("entry {sequence} cannot be unsealed")]
    Seal {
        /// Which.
        sequence: u64,
    },
    /// The engine panicked on what it read.
    #[error("the engine gave up while reading it")]
    Panic,
}

impl OutboxError {
    /// The same error for another of those whose events were in the same commit.
    pub(super) fn shared(&self, path: &Path) -> Self {
        match self {
            Self::DiskFull { path, source } => Self::DiskFull { path: path.clone(), source: Arc::clone(source) },
            Self::Storage { path, what, source } => {
                Self::Storage { path: path.clone(), what, source: Arc::clone(source) }
            }
            Self::Corrupt { path, what } => Self::Corrupt { path: path.clone(), what: *what },
            Self::Sealing(error) => Self::Sealing(error.clone()),
            // A commit ends in no other way; whatever it was, nothing is recorded.
            _ => Self::Failed { path: path.to_path_buf() },
        }
    }

    /// True when freeing disk space is what helps.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::File(error) => error.is_disk_full(),
            _ => false,
        }
    }
}
