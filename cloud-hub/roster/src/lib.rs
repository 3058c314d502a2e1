//! A list of people as a file from outside, alone or in an archive with photographs.
//!
//! In: bytes that can be sought in, and bounds. Out: rows with their line numbers, each with its fields as JSON or with what is wrong
//! with it, and photographs by name. What is wrong with one row is that row's matter; what is wrong with the file (its heading, its
//! archive) is told before the first row. Memory is bounded by [`Bounds`] whatever the file says of itself: nothing is believed
//! that an archive declares, and nothing of it is ever written by its own name. Deliberately absent: what a person may be (the
//! API's), async, files of its own.

mod archive;
mod lines;
mod row;
mod table;

use std::io::{self, Read, Seek, SeekFrom, Write};

pub use archive::{PhotographError, Photographs, Unfit};
pub use row::{Row, RowError};

/// How much of a file is read.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Files in an archive, folders among them.
    pub entries: usize,
    /// Bytes of the list of people, unpacked.
    pub list_bytes: u64,
    /// Bytes of one photograph, unpacked.
    pub photograph_bytes: u64,
    /// Bytes of everything that is unpacked.
    pub unpacked_bytes: u64,
}

/// Rows of a list: each asks the database.
const MAX_ROWS: u64 = 200_000;

/// What a list is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a heading.
    Csv,
    /// A JSON object a line.
    Jsonl,
    /// An archive with a list of one of the two and photographs.
    Zip,
}

impl Format {
    /// As reports and the audit name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Zip => "zip",
        }
    }
}

/// Why a file is not a list of people, or not one that is taken.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// It cannot be read: the hub's fault, or its disk's.
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
    /// Above a bound.
    #[error("{what} has more than {most} {unit}: send it in parts")]
    TooLarge {
        /// What.
        what: String,
        /// The bound.
        most: u64,
        /// Of what.
        unit: &'static str,
    },
    /// A row without an end.
    #[error("the row that begins on line {line} goes on for more than {most} bytes: is a quotation mark missing?", most = table::LONGEST_ROW)]
    Endless {
        /// Where it begins.
        line: u64,
    },
    /// Written in another encoding.
    #[error("the list is in UTF-16: save it as UTF-8")]
    Utf16,
    /// No row of names on top.
    #[error("the list is empty: its first line names the columns, such as external_id,name,email,groups")]
    NoHeading,
    /// A column that nobody knows.
    #[error("the heading has a column {name:?}: the columns are {known}", known = table::COLUMNS.join(", "))]
    UnknownColumn {
        /// Its name, cut short.
        name: String,
    },
    /// Two columns of one name.
    #[error("the heading has the column {name} twice")]
    ColumnTwice {
        /// Its name.
        name: &'static str,
    },
    /// The column that tells people apart is not there.
    #[error("the heading has no column external_id, by which people are told apart")]
    NoExternalId,
    /// Columns are separated by something else than commas.
    #[error("the heading has one column {name:?}: separate the columns by commas")]
    OneColumn {
        /// Its name, cut short.
        name: String,
    },
    /// The archive.
    #[error("the archive {0}")]
    Archive(Unfit),
}

impl From<io::Error> for RosterError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Somewhere to put bytes and to read them again: a file without a name, or memory.
pub trait Spool: Read + Write + Seek + Send + 'static {}
impl<T: Read + Write + Seek + Send + 'static> Spool for T {}

/// The rows of a list, in their order.
pub struct List<F> {
    rows: Rows<F>,
    count: u64,
}

enum Rows<F> {
    Table(table::Table<F>),
    Lines(lines::Lines<F>),
}

impl<F: Spool> Rows<F> {
    fn open(mut file: F, format: Format) -> Result<Self, RosterError> {
        skip_mark(&mut file)?;
        Ok(match format {
            Format::Jsonl => Self::Lines(lines::Lines::new(file)?),
            _ => Self::Table(table::Table::open(file)?),
        })
    }

    fn next(&mut self) -> io::Result<Option<Row>> {
        match self {
            Self::Table(table) => table.next(),
            Self::Lines(lines) => lines.next(),
        }
    }

    /// What an error of [`Rows::next`] says of the list.
    fn told(&self, error: io::Error) -> RosterError {
        match self {
            Self::Table(table) if table::is_endless(&error) => RosterError::Endless { line: table.next_line() },
            _ => RosterError::Io(error),
        }
    }

    fn rewind(&mut self) -> io::Result<()> {
        match self {
            Self::Table(table) => table.rewind(),
            Self::Lines(lines) => lines.rewind(),
        }
    }
}

/// Opens a file: its heading is checked and its rows counted. `fresh` makes another spool, for the list of an archive.
pub fn open<F: Spool>(
    mut file: F,
    format: Format,
    bounds: Bounds,
    fresh: impl FnOnce() -> io::Result<F>,
) -> Result<(List<F>, Option<Photographs<F>>), RosterError> {
    let (list, format, photographs) = if format == Format::Zip {
        let (mut photographs, list_format) = Photographs::open(file, bounds)?;
        let mut list = fresh()?;
        photographs.copy_list(&mut list)?;
        (list, list_format, Some(photographs))
    } else {
        if file.seek(SeekFrom::End(0))? > bounds.list_bytes {
            let what = String::from("the list");
            return Err(RosterError::TooLarge { what, most: bounds.list_bytes, unit: "bytes" });
        }
        (file, format, None)
    };
    let mut rows = Rows::open(list, format)?;
    let mut count = 0;
    while rows.next().map_err(|error| rows.told(error))?.is_some() {
        count += 1;
        if count > MAX_ROWS {
            return Err(RosterError::TooLarge { what: String::from("the list"), most: MAX_ROWS, unit: "rows" });
        }
    }
    rows.rewind()?;
    Ok((List { rows, count }, photographs))
}

impl<F: Spool> List<F> {
    /// How many rows there are, wrong ones among them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Up to `most` rows more; none at the end.
    pub fn some(&mut self, most: usize) -> io::Result<Vec<Row>> {
        let mut some = Vec::new();
        while some.len() < most
            && let Some(row) = self.rows.next()?
        {
            some.push(row);
        }
        Ok(some)
    }
}

/// What Windows writes before UTF-8 is passed over; UTF-16 is told apart by its own.
fn skip_mark(file: &mut (impl Read + Seek)) -> Result<(), RosterError> {
    file.rewind()?;
    let mut mark = Vec::new();
    file.by_ref().take(3).read_to_end(&mut mark)?;
    if mark.starts_with(&[0xff, 0xfe]) || mark.starts_with(&[0xfe, 0xff]) {
        return Err(RosterError::Utf16);
    }
    if mark != [0xef, 0xbb, 0xbf] {
        file.rewind()?;
    }
    Ok(())
}

/// A name for a message: short and on one line.
fn told(name: &str) -> String {
    name.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
