//! The outbox: the only copy of an event until the hub has committed it.
//!
//! In: event bytes, in order, and the hub's acknowledgements. Out: the same events, in the same order, numbered from 1
//! without a hole, until the hub has them. [`Outbox::append`] returns only after a durable commit; nothing but
//! [`Outbox::acknowledge`] makes an event stop being pending (a broker's PUBACK proves nothing).
//!
//! The engine is redb: copy-on-write pages, one fsync a commit. Events are sealed under the outbox key with stream and
//! sequence in the additional data, so that none can be changed, moved or taken from another outbox unnoticed, and a
//! watermark file outside says how far the stream had come, so that an old copy of the file is noticed too. Whenever
//! the file cannot be trusted it is renamed aside and a new stream begins: numbers are never given out twice.
//!
//! Invariant: sequences in the file are contiguous. What must be shed is refused *before* it gets a number.
//! Deliberately absent: what an event means, the wire format, the clock (time is an argument), the network.

mod engine;
mod file;
mod line;
mod sealing;
mod types;

pub use types::{
    Acknowledged, BadStreamId, CorruptPart, Entry, Opened, OutboxError, OutboxOptions, OutboxStats, Position, Priority,
    Renewal, RenewalReason, ShedReason, StreamId,
};

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::files::{self, DirLock};
use crate::keys::OutboxKeys;
use engine::Engine;
use file::Located;
use line::{Group, Line, Ticket};
use sealing::Sealer;

/// One event on the wire is at most this long: a batch is at most 64 KiB, and its envelope needs room too.
pub const MAX_EVENT_BYTES: usize = 48 * 1024;

/// An open outbox. Share it by `Arc`: every method takes `&self`.
///
/// Dropping it loses nothing, since whatever was acknowledged to the caller is already on disk.
pub struct Outbox {
    dir: PathBuf,
    options: OutboxOptions,
    sealer: Sealer,
    /// Taken for the time of a commit. Whoever takes both locks takes this one first.
    state: Mutex<State>,
    /// Taken for moments, also while a commit goes on.
    line: Mutex<Line>,
    shed: AtomicU64,
    _lock: DirLock,
}

/// What the mutex guards: the engine, absent after a full disk until it can be opened again.
struct State {
    engine: Slot,
}

enum Slot {
    Open(Box<Engine>),
    /// The disk was full in the middle of a commit; the next call opens the file again and cuts off what was never
    /// acknowledged, i.e. everything behind `last`.
    Closed {
        stream: StreamId,
        last: u64,
    },
    /// A commit failed in a way after which the page cache may lie (a failed fsync drops dirty pages), so that only a
    /// new process may trust the file.
    Failed,
}

impl Outbox {
    /// Opens the outbox in `dir`, making it where there is none.
    ///
    /// A file that cannot be trusted (corrupt, older than its watermark, foreign) is renamed aside and a new stream
    /// begins; [`Opened::Renewed`] says why and where the old file is, so that the caller can raise an alarm. Fails when
    /// another process has it open, and when the directory cannot be written.
    pub fn open(
        dir: &Path,
        keys: &OutboxKeys,
        options: OutboxOptions,
        now: SystemTime,
    ) -> Result<(Self, Opened), OutboxError> {
        files::create_private_dir(dir)?;
        let lock = DirLock::take(dir)?.ok_or_else(|| OutboxError::InUse { dir: dir.to_path_buf() })?;
        let sealer = Sealer::new(keys);
        let (engine, opened) = match file::locate(dir, &sealer)? {
            Located::Intact(engine) => (engine, Opened::Intact),
            Located::Nothing => (file::begin(dir, &sealer)?, Opened::New),
            Located::Untrusted(reason) => {
                let moved_to = file::set_aside(dir, now)?;
                let engine = file::begin(dir, &sealer)?;
                (engine, Opened::Renewed(Renewal { reason, moved_to }))
            }
        };
        let state = Mutex::new(State { engine: Slot::Open(engine) });
        let (line, shed) = (Mutex::default(), AtomicU64::new(0));
        Ok((Self { dir: dir.to_path_buf(), options, sealer, state, line, shed, _lock: lock }, opened))
    }

    /// Appends one event and returns its position once it is on disk.
    ///
    /// `encode` gets the position that the event will have and returns its bytes (at most [`MAX_EVENT_BYTES`]). After an
    /// error the event is *not* recorded and its number is given to the next one.
    pub fn append(
        &self,
        now: SystemTime,
        priority: Priority,
        encode: impl FnOnce(Position) -> Vec<u8>,
    ) -> Result<Position, OutboxError> {
        let mut stream = None;
        let range = self.append_batch(
            now,
            priority,
            std::iter::once(|position: Position| {
                stream = Some(position.stream);
                encode(position)
            }),
        )?;
        let stream = stream.expect("append_batch calls the encoder of each event it records");
        Ok(Position { stream, sequence: *range.start() })
    }

    /// Appends several events in one durable commit (one fsync for all) and returns their sequences.
    ///
    /// All or none are recorded; no events give an empty range. `now` is kept with each entry for
    /// [`OutboxStats::oldest_pending_at`] and retention. Callers on several threads share commits: what arrives while one
    /// is written goes into the next together.
    pub fn append_batch<F: FnOnce(Position) -> Vec<u8>>(
        &self,
        now: SystemTime,
        priority: Priority,
        events: impl IntoIterator<Item = F>,
    ) -> Result<RangeInclusive<u64>, OutboxError> {
        let (range, ticket) = self.join(now, priority, events)?;
        if range.is_empty() {
            return Ok(range);
        }
        let mut state = self.state();
        if ticket.get().is_none() {
            let group = self.line().take();
            self.commit(&mut state, group);
        }
        let path = file::database_path(&self.dir);
        match ticket.get() {
            Some(Ok(())) => Ok(range),
            Some(Err(error)) => Err(error.shared(&path)),
            // Only a panic between the two lines above could leave a ticket empty.
            None => Err(OutboxError::Failed { path }),
        }
    }

    /// Gives the events their numbers and puts them into the line for the next commit.
    fn join<F: FnOnce(Position) -> Vec<u8>>(
        &self,
        now: SystemTime,
        priority: Priority,
        events: impl IntoIterator<Item = F>,
    ) -> Result<(RangeInclusive<u64>, Ticket), OutboxError> {
        let mut line = self.open_line()?;
        let (next, bytes) = line.tail().expect("the line was just opened and is locked");
        if let Some(reason) = self.no_room(bytes, priority)? {
            self.shed.fetch_add(1, Ordering::Relaxed);
            return Err(OutboxError::Shed { reason });
        }
        let mut encoded = Vec::new();
        for (sequence, encode) in (next.sequence..).zip(events) {
            let event = encode(Position { sequence, ..next });
            if event.len() > MAX_EVENT_BYTES {
                return Err(OutboxError::TooLarge { bytes: event.len() });
            }
            encoded.push(event);
        }
        let range = next.sequence..=(next.sequence + encoded.len() as u64 - 1);
        Ok((range, line.join(now, encoded)))
    }

    /// The line, opened behind the last event on disk if it was closed.
    fn open_line(&self) -> Result<MutexGuard<'_, Line>, OutboxError> {
        let line = self.line();
        if line.tail().is_some() {
            return Ok(line);
        }
        drop(line);
        let mut state = self.state();
        let engine = self.engine(&mut state)?;
        let mut line = self.line();
        line.open(engine.stream(), engine.last(), engine.bytes());
        Ok(line)
    }

    /// Writes a group from the line, and tells everybody in it what became of it.
    fn commit(&self, state: &mut State, group: Group) {
        if group.waiting.is_empty() {
            return;
        }
        let result =
            self.engine(state).and_then(|engine| engine.append(&self.sealer, &group.waiting, self.options.quota_bytes));
        let result = self.settle(state, result);
        if let Err(error) = &result {
            self.close_line(error);
        }
        // The first word counts; nobody else has one for this group.
        let _ = group.ticket.set(result);
    }

    /// Fails everybody in the line: their numbers would leave a hole.
    fn close_line(&self, error: &OutboxError) {
        let group = self.line().close();
        let _ = group.ticket.set(Err(error.shared(&file::database_path(&self.dir))));
    }

    /// The events after `after` (exclusive), in order: at most `max_events`, and at most `max_bytes` of event bytes, but
    /// always one if there is one, so that a long event cannot block the line.
    ///
    /// Pass the acknowledged sequence to send from the start of what is pending, or the last one sent to send on.
    /// An entry that cannot be read or unsealed is [`OutboxError::Corrupt`]: call [`Outbox::begin_new_stream`] then.
    pub fn pending(&self, after: u64, max_events: usize, max_bytes: usize) -> Result<Vec<Entry>, OutboxError> {
        let mut state = self.state();
        let engine = self.engine(&mut state)?;
        engine.read(&self.sealer, after.max(engine.acknowledged()), max_events, max_bytes)
    }

    /// As [`Outbox::pending`], but with the acknowledged events that are still kept: everything after `after` that is on
    /// disk, for `outbox list`.
    pub fn kept(&self, after: u64, max_events: usize, max_bytes: usize) -> Result<Vec<Entry>, OutboxError> {
        let mut state = self.state();
        let engine = self.engine(&mut state)?;
        engine.read(&self.sealer, after.max(engine.first().saturating_sub(1)), max_events, max_bytes)
    }

    /// Takes the hub's word that it has committed everything up to `through`.
    ///
    /// Idempotent; an acknowledgement for another stream or for less than is known already changes nothing. `through`
    /// ahead of what was ever appended is refused: somebody else writes under our name.
    pub fn acknowledge(&self, stream: StreamId, through: u64, now: SystemTime) -> Result<Acknowledged, OutboxError> {
        let mut state = self.state();
        let engine = self.engine(&mut state)?;
        if stream != engine.stream() {
            return Ok(Acknowledged::OtherStream);
        }
        if through > engine.last() {
            return Ok(Acknowledged::Ahead { last: engine.last() });
        }
        let result = engine.acknowledge(&self.sealer, through, now, self.options.retention, self.options.quota_bytes);
        self.settle(&mut state, result)
    }

    /// Goes back to what a restored hub has: everything after `through` that is still kept becomes pending again.
    ///
    /// Only a `hub_epoch` above the last one does so (an old acknowledgement that arrives late must not). Returns the
    /// sequence after which events are pending now; it is above `through` when some were no longer kept.
    pub fn rewind(&self, hub_epoch: u64, stream: StreamId, through: u64) -> Result<u64, OutboxError> {
        let mut state = self.state();
        let engine = self.engine(&mut state)?;
        if stream != engine.stream() || hub_epoch <= engine.hub_epoch() {
            return Ok(engine.acknowledged());
        }
        let result = engine.rewind(&self.sealer, hub_epoch, through);
        self.settle(&mut state, result)
    }

    /// The highest hub epoch seen by [`Outbox::rewind`]; 0 at first.
    pub fn hub_epoch(&self) -> Result<u64, OutboxError> {
        let mut state = self.state();
        self.engine(&mut state).map(|engine| engine.hub_epoch())
    }

    /// Sets the file aside and begins a new stream: after a re-claim, the hub's verdict `conflict`, or a corrupt entry.
    ///
    /// The old file keeps what was pending in it; its place is in the answer. Three such files are kept, the newest.
    pub fn begin_new_stream(&self, now: SystemTime) -> Result<Option<PathBuf>, OutboxError> {
        let mut state = self.state();
        // Whoever has a number of the old stream is recorded in it, or told that it was not.
        let group = self.line().close();
        self.commit(&mut state, group);
        // The file must be closed before it is renamed, or redb would go on writing to it on drop.
        state.engine = Slot::Failed;
        let moved_to = file::set_aside(&self.dir, now)?;
        state.engine = Slot::Open(file::begin(&self.dir, &self.sealer)?);
        Ok(moved_to)
    }

    /// The stream and how far it has come: what `outbox status` prints.
    pub fn stats(&self) -> Result<OutboxStats, OutboxError> {
        let mut state = self.state();
        let engine = self.engine(&mut state)?;
        let oldest = match engine.read(&self.sealer, engine.acknowledged(), 1, 0) {
            // The figures are needed most when an entry is damaged: they say how many are set aside with it.
            Err(OutboxError::Corrupt { .. }) => Vec::new(),
            read => read?,
        };
        Ok(OutboxStats {
            stream: engine.stream(),
            last_sequence: engine.last(),
            acknowledged_through: engine.acknowledged(),
            pending: engine.last() - engine.acknowledged(),
            oldest_kept: engine.first(),
            oldest_pending_at: oldest.first().map(|entry| entry.recorded_at),
            bytes: engine.bytes(),
            quota_bytes: self.options.quota_bytes,
            shed: self.shed.load(Ordering::Relaxed),
        })
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // A panic of an encoder leaves the line as it was: events join it only when all are encoded.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held (redb on a broken page) leaves either the old state or an engine that refuses:
        // both are safe to go on with.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine, opened again if the disk was full before.
    fn engine<'s>(&self, state: &'s mut State) -> Result<&'s mut Engine, OutboxError> {
        if let Slot::Closed { stream, last } = state.engine {
            state.engine = Slot::Open(file::reopen(&self.dir, &self.sealer, stream, last)?);
        }
        match &mut state.engine {
            Slot::Open(engine) => Ok(engine),
            Slot::Closed { .. } | Slot::Failed => Err(OutboxError::Failed { path: file::database_path(&self.dir) }),
        }
    }

    /// Closes the engine after a failed commit, so that no later call builds upon a half-written one.
    fn settle<T>(&self, state: &mut State, result: Result<T, OutboxError>) -> Result<T, OutboxError> {
        let Slot::Open(engine) = &state.engine else { return result };
        let (stream, last) = (engine.stream(), engine.last());
        match &result {
            Ok(_) => {
                self.line().correct(engine.bytes());
                return result;
            }
            Err(OutboxError::DiskFull { .. }) => state.engine = Slot::Closed { stream, last },
            Err(OutboxError::Storage { .. } | OutboxError::Corrupt { .. }) => state.engine = Slot::Failed,
            Err(_) => return result,
        }
        if let Err(error) = &result {
            self.close_line(error);
        }
        result
    }

    fn no_room(&self, bytes: u64, priority: Priority) -> Result<Option<ShedReason>, OutboxError> {
        if priority == Priority::MustKeep {
            return Ok(None);
        }
        if bytes >= self.options.quota_bytes {
            return Ok(Some(ShedReason::Quota { quota_bytes: self.options.quota_bytes }));
        }
        let free_bytes = files::free_bytes(&self.dir)?;
        Ok((free_bytes < self.options.low_space_bytes).then_some(ShedReason::LowSpace { free_bytes }))
    }
}
