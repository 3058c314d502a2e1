//! Lists of comma-separated values, with the names of the columns on top.
//!
//! A column that is not there says nothing of anybody; an empty cell takes away. Several groups, sites or photographs stand in one
//! cell, separated by semicolons.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::{ByteRecord, Position, Reader, ReaderBuilder, Terminator};
use serde_json::{Map, Value};

use super::row::{MAX_ROW_BYTES, Row, RowError};
use super::{RosterError, told};

/// Every column that is known.
pub(super) const COLUMNS: [&str; 8] =
    ["external_id", "name", "email", "groups", "site_ids", "valid_from", "valid_until", "photos"];
/// Columns whose cells are lists.
const LISTS: [&str; 3] = ["groups", "site_ids", "photos"];
/// Columns whose empty cells take away; the others must say something.
const OPTIONAL: [&str; 3] = ["email", "valid_from", "valid_until"];

/// A row of so many cells is wrong, and what it took of the memory is given back.
const MANY_CELLS: usize = 1_000;
/// What is read of one row at most. A row of nothing but commas takes sixteen times its length in memory.
pub(super) const LONGEST_ROW: u64 = 1 << 20;

/// A file of which a row is read at a time.
struct Rationed<F> {
    inner: F,
    left: Arc<AtomicU64>,
}

impl<F: Read> Read for Rationed<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Endless));
        }
        let most = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut into[..most])?;
        self.left.fetch_sub(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl<F: Seek> Seek for Rationed<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a row of the list has no end")]
struct Endless;

/// Whether reading ended because a row did not.
pub(super) fn is_endless(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Endless>())
}

/// Reads such a list. Lines without anything on them are passed over.
pub(super) struct Table<F> {
    reader: Reader<Rationed<F>>,
    /// What may be read until the row ends.
    left: Arc<AtomicU64>,
    columns: Vec<&'static str>,
    /// Where the first row begins.
    start: Position,
    record: ByteRecord,
    /// Where the file ends, if its last line has no end.
    open_end: Option<u64>,
}

impl<F: Read + Seek> Table<F> {
    /// Of a file that is at its heading.
    pub(super) fn open(mut file: F) -> Result<Self, RosterError> {
        let offset = file.stream_position()?;
        let length = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if length > offset {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let open_end = (last != [b'\n']).then_some(length);
        file.seek(SeekFrom::Start(offset))?;
        // Of CRLF the reader would leave the line feed to the next row, and count its line too low.
        let end = Terminator::Any(b'\n');
        let mut reader = ReaderBuilder::new();
        reader.has_headers(false).flexible(true).terminator(end);
        let left = Arc::new(AtomicU64::new(LONGEST_ROW));
        let mut reader = reader.from_reader(Rationed { inner: file, left: Arc::clone(&left) });
        let mut record = ByteRecord::new();
        let read = reader.read_byte_record(&mut record).map_err(failed);
        if !read.map_err(|error| if is_endless(&error) { RosterError::Endless { line: 1 } } else { error.into() })? {
            return Err(RosterError::NoHeading);
        }
        let columns = columns(&record)?;
        // The reader counts from where it began.
        let mut start = reader.position().clone();
        start.set_byte(start.byte() + offset);
        Ok(Self { reader, left, columns, start, record, open_end })
    }

    /// The line after the last row that was read.
    pub(super) fn next_line(&self) -> u64 {
        self.reader.position().line()
    }

    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.reader.seek(self.start.clone()).map_err(failed)
    }

    /// The line on which the row begins that was just read: counted back from its end, for the reader passes over empty lines first.
    fn line(&self) -> u64 {
        let within = self.record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
        let ended = u64::from(self.open_end != Some(self.reader.position().byte()));
        self.reader.position().line().saturating_sub(within + ended).max(1)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Row>> {
        loop {
            self.left.store(LONGEST_ROW, Ordering::Relaxed);
            if !self.reader.read_byte_record(&mut self.record).map_err(failed)? {
                return Ok(None);
            }
            if self.record.as_slice() != b"\r" {
                break;
            }
        }
        let line = self.line();
        if self.record.as_slice().len() > MAX_ROW_BYTES {
            // What it took is given back.
            self.record = ByteRecord::new();
            return Ok(Some(Row::wrong(line, RowError::TooLong)));
        }
        let (found, expected) = (self.record.len(), self.columns.len());
        if found > MANY_CELLS {
            self.record = ByteRecord::new();
        }
        if found != expected {
            return Ok(Some(Row::wrong(line, RowError::Cells { found, expected })));
        }
        let mut fields = Map::new();
        for (number, (column, cell)) in self.columns.iter().zip(&self.record).enumerate() {
            let cell = if number + 1 == expected { whole(cell) } else { cell };
            let Ok(cell) = std::str::from_utf8(cell) else { return Ok(Some(Row::wrong(line, RowError::NotUtf8))) };
            fields.insert((*column).to_owned(), value(column, cell));
        }
        Ok(Some(Row::of(line, fields)))
    }
}

/// The last cell of a row, without the carriage return of its line.
fn whole(cell: &[u8]) -> &[u8] {
    cell.strip_suffix(b"\r").unwrap_or(cell)
}

fn value(column: &str, cell: &str) -> Value {
    if LISTS.contains(&column) {
        let items = cell.split(';').map(str::trim).filter(|item| !item.is_empty());
        return items.map(Value::from).collect();
    }
    if cell.is_empty() && OPTIONAL.contains(&column) { Value::Null } else { Value::from(cell) }
}

fn columns(heading: &ByteRecord) -> Result<Vec<&'static str>, RosterError> {
    let mut columns = Vec::new();
    for cell in heading {
        let name = String::from_utf8_lossy(whole(cell));
        let Some(column) = COLUMNS.into_iter().find(|column| *column == name.trim()) else {
            let name = told(&name);
            return Err(if heading.len() == 1 && name.contains(['\t', ';', '|']) {
                RosterError::OneColumn { name }
            } else {
                RosterError::UnknownColumn { name }
            });
        };
        if columns.contains(&column) {
            return Err(RosterError::ColumnTwice { name: column });
        }
        columns.push(column);
    }
    if columns.contains(&"external_id") { Ok(columns) } else { Err(RosterError::NoExternalId) }
}

/// Bytes are read as they are and rows may be of any length, so only reading itself fails.
fn failed(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
