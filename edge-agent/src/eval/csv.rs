//! Comma-separated rows and the lines that they begin on.
//!
//! In: text. Out: rows of fields; spaces round a field do not count, blank lines are skipped, `"a,b"` is one field and
//! `""` inside it a quote. Deliberately absent: what the columns mean (`lists`), files.

/// A quote that no other one closes, and the line it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenQuote {
    pub(crate) line: usize,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Line that it begins on, from 1.
    pub(crate) line: usize,
    pub(crate) fields: Vec<String>,
}

/// Reads every row. A byte order mark before the first one and a carriage return at the end of a line are dropped.
pub(crate) fn rows(text: &str) -> Result<Vec<Row>, OpenQuote> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows = Vec::new();
    let mut row = Row { line: 1, fields: Vec::new() };
    let mut field = Field::default();
    let mut line = 1;
    let mut opened_on = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if opened_on.is_some() && characters.next_if_eq(&'"').is_some() => field.text.push('"'),
            '"' if opened_on.is_some() => opened_on = None,
            '"' if field.text.trim().is_empty() && !field.quoted => {
                field = Field { text: String::new(), quoted: true };
                opened_on = Some(line);
            }
            ',' if opened_on.is_none() => row.fields.push(std::mem::take(&mut field).finish()),
            '\n' => {
                line += 1;
                if opened_on.is_some() {
                    field.text.push('\n');
                } else {
                    row.fields.push(std::mem::take(&mut field).finish());
                    push(&mut rows, std::mem::replace(&mut row, Row { line, fields: Vec::new() }));
                }
            }
            other => field.text.push(other),
        }
    }
    if let Some(line) = opened_on {
        return Err(OpenQuote { line });
    }
    row.fields.push(field.finish());
    push(&mut rows, row);
    Ok(rows)
}

fn push(rows: &mut Vec<Row>, row: Row) {
    if row.fields.len() > 1 || row.fields.iter().any(|field| !field.is_empty()) {
        rows.push(row);
    }
}

#[derive(Default)]
struct Field {
    text: String,
    quoted: bool,
}

impl Field {
    /// A quoted field keeps its spaces; what stands between the closing quote and the comma is only trimmed off.
    fn finish(self) -> String {
        if self.quoted { self.text.trim_end_matches('\r').to_owned() } else { self.text.trim().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(text: &str) -> Vec<(usize, Vec<String>)> {
        rows(text).unwrap().into_iter().map(|row| (row.line, row.fields)).collect()
    }

    #[test]
    fn rows_know_their_lines_and_blank_lines_do_not_count() {
        let told = fields("\u{feff}a,b\r\n\r\n x , y \n\n1,\n");
        let expected = [(1, ["a", "b"]), (3, ["x", "y"]), (5, ["1", ""])];
        assert_eq!(told, expected.map(|(line, row)| (line, row.map(str::to_owned).to_vec())));
    }

    #[test]
    fn a_quoted_field_may_hold_commas_quotes_and_line_ends() {
        assert_eq!(
            fields("\"a,\"\"b\"\"\nc\",2\n3,4"),
            [(1, vec!["a,\"b\"\nc".to_owned(), "2".to_owned()]), (3, vec!["3".to_owned(), "4".to_owned()])]
        );
    }

    #[test]
    fn a_quote_that_nobody_closes_is_named_by_its_line() {
        assert_eq!(rows("a,b\n\"c,d\n1,2\n"), Err(OpenQuote { line: 2 }));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_lines_grow(text in "[a,\"\r\n ]{0,60}") {
            if let Ok(rows) = rows(&text) {
                prop_assert!(rows.windows(2).all(|pair| pair[0].line < pair[1].line));
            }
        }

        #[test]
        fn what_is_quoted_comes_back(field in "[a,\" ]{1,12}", other in "[a-z]{1,5}") {
            let text = format!("\"{}\",{other}\n", field.replace('"', "\"\""));
            prop_assert_eq!(fields(&text), [(1, vec![field, other])]);
        }
    }
}
