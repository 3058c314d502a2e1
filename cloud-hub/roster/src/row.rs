//! One row of a list.

use serde_json::{Map, Value};

/// The longest row: a person with a thousand sites and all that may be said of them has less. As long as the body of a request.
pub(super) const MAX_ROW_BYTES: usize = 64 * 1024;

/// One row: a person, or what is wrong with it.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// What it says of a person, as the body of a request would.
    pub fields: Result<Map<String, Value>, RowError>,
    /// The names of their photographs.
    pub photographs: Vec<String>,
}

/// Why a row says nothing of anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Longer than [`MAX_ROW_BYTES`]; in a table most often a quotation mark without its second one.
    #[error("this row has more than {MAX_ROW_BYTES} bytes: is a quotation mark missing?")]
    TooLong,
    /// Not text.
    #[error("this row is not UTF-8: save the list as UTF-8")]
    NotUtf8,
    /// More or fewer cells than the heading.
    #[error("this row has {found} cells, the heading has {expected}")]
    Cells {
        /// In the row.
        found: usize,
        /// In the heading.
        expected: usize,
    },
    /// No JSON.
    #[error("this line is not JSON: {0}")]
    NotJson(String),
    /// JSON, but no object.
    #[error("this line must be a JSON object")]
    NotAnObject,
    /// Photographs that are no names.
    #[error("photos must be a name or a list of names")]
    Photographs,
}

impl Row {
    pub(super) fn wrong(line: u64, error: RowError) -> Self {
        Self { line, fields: Err(error), photographs: Vec::new() }
    }

    /// A row of what a line says.
    pub(super) fn of(line: u64, mut fields: Map<String, Value>) -> Self {
        let photographs = match fields.remove("photos") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => {
                let names: Option<Vec<String>> = names.into_iter().map(text).collect();
                match names {
                    Some(names) => names,
                    None => return Self::wrong(line, RowError::Photographs),
                }
            }
            Some(_) => return Self::wrong(line, RowError::Photographs),
        };
        Self { line, fields: Ok(fields), photographs }
    }
}

fn text(value: Value) -> Option<String> {
    if let Value::String(text) = value { Some(text) } else { None }
}
