//! The redb file of one stream: entries, head, and the commits that change both together.
//!
//! Every change is one transaction with immediate durability, and the watermark outside follows it. The engine never
//! looks at what happened before it was opened: that is `file`'s part.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition,
};

use super::line::Waiting;
use super::sealing::{Head, Sealer, unix_ms};
use super::types::{Acknowledged, CorruptPart, Entry, OutboxError, StreamId};
use crate::files;
use crate::watermark::Watermark;

/// Sequence → sealed entry.
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
/// One row, 0 → sealed head.
const HEAD: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("head");
/// Minute of an acknowledgement (since 1970) → its `through`. Only retention reads it, and never beyond the head's
/// acknowledged sequence, so a damaged row can at worst shorten retention.
const ACKNOWLEDGED: TableDefinition<'_, u64, u64> = TableDefinition::new("acknowledged");

/// redb keeps this many bytes of pages in memory: pending reads are sequential and appends touch one leaf, so more
/// would only take memory from the models.
const CACHE_BYTES: usize = 4 << 20;
/// Entries removed in one commit, so that a long-awaited acknowledgement does not hold up the next append for long.
const MAX_PRUNED: u64 = 1024;

pub(super) struct Engine {
    path: PathBuf,
    db: Database,
    head: Head,
    mark: Watermark,
    mark_is_behind: bool,
}

/// The tables of a write transaction.
struct Tables<'txn> {
    entries: Table<'txn, u64, &'static [u8]>,
    acknowledged: Table<'txn, u64, u64>,
}

/// An opened file whose head has been read, not yet compared with its watermark.
pub(super) struct Found {
    pub(super) db: Database,
    pub(super) head: Head,
}

impl Engine {
    /// Makes a database file with an empty stream in it. The caller makes its name durable.
    pub(super) fn create(path: &Path, sealer: &Sealer, stream: StreamId) -> Result<(), OutboxError> {
        let head = sealer.seal_head(&Head::new(stream))?;
        guarded(path, "create", || {
            let db = builder().create(path)?;
            write(&db, &head, |_| Ok(()))
        })
    }

    /// Opens a file and reads its head; checks that the engine finds it sound and that no entry is missing.
    pub(super) fn find(path: &Path, sealer: &Sealer) -> Result<Found, OutboxError> {
        let corrupt = |what| OutboxError::Corrupt { path: path.to_path_buf(), what };
        let (db, sealed, count, keys) = guarded(path, "open", || {
            let mut db = builder().open(path)?;
            if !db.check_integrity()? {
                tracing::warn!(path = %path.display(), "the outbox file needed repair");
            }
            let txn = db.begin_read()?;
            let sealed = txn.open_table(HEAD)?.get(0)?.map(|value| value.value().to_vec());
            let entries = txn.open_table(ENTRIES)?;
            let keys = (entries.first()?.map(|(key, _)| key.value()), entries.last()?.map(|(key, _)| key.value()));
            let count = entries.len()?;
            drop((entries, txn));
            Ok((db, sealed, count, keys))
        })?;
        let head = sealer.open_head(&sealed.unwrap_or_default()).map_err(corrupt)?;
        let expected = if head.count() == 0 { (None, None) } else { (Some(head.first), Some(head.last)) };
        if count != head.count()
            || keys != expected
            || head.acknowledged > head.last
            || head.first > head.acknowledged + 1
        {
            return Err(corrupt(CorruptPart::Count { first: head.first, last: head.last, count }));
        }
        Ok(Found { db, head })
    }

    pub(super) fn new(path: &Path, found: Found, mark: Watermark) -> Self {
        Self { path: path.to_path_buf(), db: found.db, head: found.head, mark, mark_is_behind: false }
    }

    pub(super) fn stream(&self) -> StreamId {
        self.head.stream
    }

    pub(super) fn last(&self) -> u64 {
        self.head.last
    }

    pub(super) fn first(&self) -> u64 {
        self.head.first
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.head.acknowledged
    }

    pub(super) fn hub_epoch(&self) -> u64 {
        self.head.hub_epoch
    }

    pub(super) fn bytes(&self) -> u64 {
        self.head.bytes
    }

    /// Appends the events in one commit; returns when they are on disk. They were given the numbers after the last one.
    pub(super) fn append(&mut self, sealer: &Sealer, events: &[Waiting], quota_bytes: u64) -> Result<(), OutboxError> {
        let first = self.head.last + 1;
        let mut sealed = Vec::with_capacity(events.len());
        for (sequence, event) in (first..).zip(events) {
            sealed.push(sealer.seal_entry(self.head.stream, sequence, event.at, &event.event)?);
        }
        let mut head = self.head;
        head.last += sealed.len() as u64;
        head.bytes += sealed.iter().map(|entry| entry.len() as u64).sum::<u64>();
        // The room of what the hub already has goes first when the quota is reached.
        let prunable = if head.bytes > quota_bytes { head.acknowledged } else { 0 };
        self.commit(sealer, "append", head, |tables, head| {
            for (sequence, entry) in (first..).zip(&sealed) {
                tables.entries.insert(sequence, entry.as_slice())?;
            }
            prune(tables, head, prunable, |head| head.bytes > quota_bytes)
        })?;
        self.advance_mark();
        Ok(())
    }

    /// Moves the acknowledged sequence up and drops what has been kept long enough.
    pub(super) fn acknowledge(
        &mut self,
        sealer: &Sealer,
        through: u64,
        now: SystemTime,
        retention: Duration,
        quota_bytes: u64,
    ) -> Result<Acknowledged, OutboxError> {
        let newly = through.saturating_sub(self.head.acknowledged);
        if newly == 0 {
            return Ok(Acknowledged::Known);
        }
        let mut head = self.head;
        head.acknowledged = through;
        let minute = unix_ms(now) / 60_000;
        let expired_before = minute.saturating_sub(retention.as_secs().div_ceil(60));
        self.commit(sealer, "acknowledge", head, |tables, head| {
            tables.acknowledged.insert(minute, through)?;
            let expired = tables.acknowledged.range(..expired_before)?.next_back().transpose()?;
            let expired = expired.map(|(minute, through)| (minute.value(), through.value()));
            if let Some((minute, through)) = expired {
                prune(tables, head, through.min(head.acknowledged), |_| true)?;
                tables.acknowledged.retain_in(..minute, |_, _| false)?;
            }
            let acknowledged = head.acknowledged;
            prune(tables, head, acknowledged, |head| head.bytes > quota_bytes)
        })?;
        Ok(Acknowledged::Advanced(newly))
    }

    /// Makes everything after `through` pending again, as far as it is kept.
    pub(super) fn rewind(&mut self, sealer: &Sealer, hub_epoch: u64, through: u64) -> Result<u64, OutboxError> {
        let mut head = self.head;
        head.hub_epoch = hub_epoch;
        head.acknowledged = through.max(head.first - 1).min(head.last);
        self.commit(sealer, "rewind", head, |_, _| Ok(()))?;
        Ok(self.head.acknowledged)
    }

    /// Cuts off what a failed commit may have left behind `last`, since the caller was told that it is not recorded.
    pub(super) fn truncate(&mut self, sealer: &Sealer, last: u64) -> Result<(), OutboxError> {
        if self.head.last <= last {
            return Ok(());
        }
        let mut head = self.head;
        head.last = last;
        self.commit(sealer, "truncate", head, |tables, head| {
            let mut cut = 0;
            tables.entries.retain_in(last + 1.., |_, entry| {
                cut += entry.len() as u64;
                false
            })?;
            head.bytes = head.bytes.saturating_sub(cut);
            Ok(())
        })
    }

    /// Entries after `after`, in order, within the limits but at least one if there is one.
    pub(super) fn read(
        &self,
        sealer: &Sealer,
        after: u64,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, OutboxError> {
        let sealed = guarded(&self.path, "read", || {
            let entries = self.db.begin_read()?.open_table(ENTRIES)?;
            let mut sealed = Vec::new();
            let mut bytes = 0;
            for row in entries.range(after + 1..=self.head.last.max(after))?.take(max_events) {
                let (sequence, entry) = row?;
                bytes += entry.value().len();
                if bytes > max_bytes && !sealed.is_empty() {
                    break;
                }
                sealed.push((sequence.value(), entry.value().to_vec()));
            }
            Ok(sealed)
        })?;
        let corrupt = |what| OutboxError::Corrupt { path: self.path.clone(), what };
        if sealed.is_empty() && after < self.head.last && max_events > 0 {
            return Err(corrupt(CorruptPart::Missing { sequence: after + 1 }));
        }
        (after + 1..)
            .zip(sealed)
            .map(|(expected, (sequence, entry))| match sequence == expected {
                true => sealer.open_entry(self.head.stream, sequence, &entry).map_err(corrupt),
                false => Err(corrupt(CorruptPart::Missing { sequence: expected })),
            })
            .collect()
    }

    fn commit(
        &mut self,
        sealer: &Sealer,
        what: &'static str,
        mut head: Head,
        change: impl FnOnce(&mut Tables<'_>, &mut Head) -> Result<(), redb::Error>,
    ) -> Result<(), OutboxError> {
        guarded(&self.path, what, || {
            let mut txn = self.db.begin_write()?;
            // The promise of the outbox: when `commit` returns, the events are on disk.
            txn.set_durability(Durability::Immediate)?;
            {
                let mut tables =
                    Tables { entries: txn.open_table(ENTRIES)?, acknowledged: txn.open_table(ACKNOWLEDGED)? };
                change(&mut tables, &mut head)?;
            }
            let sealed = sealer.seal_head(&head).map_err(std::io::Error::other)?;
            txn.open_table(HEAD)?.insert(0, sealed.as_slice())?;
            txn.commit()?;
            Ok(())
        })?;
        self.head = head;
        Ok(())
    }

    /// Tells the watermark how far the stream has come.
    ///
    /// A failure is not the append's: the events *are* on disk. It is logged once and made good by the next append.
    fn advance_mark(&mut self) {
        let result = self.mark.advance(&mark_of(&self.head));
        match &result {
            Err(error) if !self.mark_is_behind => {
                tracing::error!(path = %self.path.display(), error = %error, "the outbox's watermark could not be written");
            }
            _ => {}
        }
        self.mark_is_behind = result.is_err();
    }
}

/// What the watermark says of a stream.
pub(super) fn mark_of(head: &Head) -> Vec<u8> {
    let mut payload = head.stream.as_bytes().to_vec();
    payload.extend_from_slice(&head.last.to_be_bytes());
    payload
}

fn write(
    db: &Database,
    head: &[u8],
    change: impl FnOnce(&mut Tables<'_>) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    change(&mut Tables { entries: txn.open_table(ENTRIES)?, acknowledged: txn.open_table(ACKNOWLEDGED)? })?;
    txn.open_table(HEAD)?.insert(0, head)?;
    Ok(txn.commit()?)
}

/// Removes entries from the oldest on, through `through` at most, while `more` says so.
fn prune(
    tables: &mut Tables<'_>,
    head: &mut Head,
    through: u64,
    more: impl Fn(&Head) -> bool,
) -> Result<(), redb::Error> {
    for _ in 0..MAX_PRUNED {
        if head.first > through || !more(head) {
            break;
        }
        let removed = tables.entries.remove(head.first)?.map_or(0, |entry| entry.value().len() as u64);
        head.bytes = head.bytes.saturating_sub(removed);
        head.first += 1;
    }
    Ok(())
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Runs the engine and translates what goes wrong. redb may panic on a page that a bit flip made senseless.
fn guarded<T>(path: &Path, what: &'static str, run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, OutboxError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(translated(path, what, error)),
        Err(_) => Err(OutboxError::Corrupt { path: path.to_path_buf(), what: CorruptPart::Panic }),
    }
}

fn translated(path: &Path, what: &'static str, error: redb::Error) -> OutboxError {
    let path = path.to_path_buf();
    match error {
        redb::Error::Io(source) if files::is_disk_full(&source) => {
            OutboxError::DiskFull { path, source: Arc::new(source) }
        }
        redb::Error::DatabaseAlreadyOpen => OutboxError::InUse { dir: path },
        other => OutboxError::Storage { path, what, source: Arc::new(other) },
    }
}
