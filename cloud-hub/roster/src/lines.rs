//! Lists of a JSON object a line.

use std::io::{self, BufRead as _, BufReader, Read, Seek, SeekFrom};

use serde_json::Value;

use super::row::{MAX_ROW_BYTES, Row, RowError};

/// Reads such a list. Lines without anything on them are passed over.
pub(super) struct Lines<F> {
    reader: BufReader<F>,
    /// Where the first line begins: behind a byte order mark.
    start: u64,
    line: u64,
}

impl<F: Read + Seek> Lines<F> {
    /// Of a file that is at its first line.
    pub(super) fn new(mut file: F) -> io::Result<Self> {
        let start = file.stream_position()?;
        Ok(Self { reader: BufReader::new(file), start, line: 0 })
    }

    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.line = 0;
        self.reader.seek(SeekFrom::Start(self.start)).map(drop)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Row>> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            // With its end, and one more to see that there is more.
            let most = MAX_ROW_BYTES as u64 + 2;
            if self.reader.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if bytes.last() != Some(&b'\n') && bytes.len() as u64 == most {
                self.reader.skip_until(b'\n')?;
                return Ok(Some(Row::wrong(self.line, RowError::TooLong)));
            }
            let line = bytes.trim_ascii();
            if !line.is_empty() {
                return Ok(Some(read(self.line, line)));
            }
        }
    }
}

fn read(number: u64, line: &[u8]) -> Row {
    let Ok(text) = std::str::from_utf8(line) else { return Row::wrong(number, RowError::NotUtf8) };
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Row::of(number, fields),
        Ok(_) => Row::wrong(number, RowError::NotAnObject),
        Err(error) => Row::wrong(number, RowError::NotJson(error.to_string())),
    }
}
