//! Configuration text from several places, merged without forgetting where each value was written.
//!
//! In: named TOML texts and environment variables, weakest first. Out: one tree whose spans lead back to the file and
//! line ([`Layers::origin`]). Knows nothing of which keys are valid; that is the parent module's part.
//!
//! The trick: every text gets its own range of one long virtual text, and the parser's spans are shifted by the start
//! of that range. A span in a merged tree therefore still says which text it came from.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

type Key<'t> = Spanned<DeString<'t>>;
/// A value with its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file, at a line counted from 1.
    File {
        /// The file's path as it was given.
        name: String,
        /// Line, from 1.
        line: usize,
    },
    /// In an environment variable of this name.
    Environment {
        /// The variable's name.
        variable: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
        }
    }
}

/// What an environment variable sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A key at the top, such as `schema_version`.
    Whole {
        /// The key.
        section: String,
    },
    /// A key of a section, such as `log.level`.
    Key {
        /// The section.
        section: String,
        /// The key.
        key: String,
    },
    /// A key of the element of an array of tables that has this id, such as `door[main].hold`.
    Element {
        /// The array's name.
        section: String,
        /// The element's id.
        id: String,
        /// The key.
        key: String,
    },
}

/// A text that is not TOML.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SyntaxError {
    /// Where.
    pub origin: Origin,
    /// The parser's words.
    pub message: String,
}

#[derive(Debug)]
struct Source<'t> {
    name: &'t str,
    text: &'t str,
    start: usize,
    environment: bool,
}

/// The texts read so far and what they add up to.
#[derive(Debug, Default)]
pub(super) struct Layers<'t> {
    sources: Vec<Source<'t>>,
    next_start: usize,
    merged: DeTable<'t>,
}

impl<'t> Layers<'t> {
    /// Adds a file's text over what is there. Tables merge key by key; arrays of tables merge element by element on `id`.
    ///
    /// # Errors
    /// The first syntax error, with its line.
    pub(super) fn add_file(&mut self, name: &'t str, text: &'t str) -> Result<(), SyntaxError> {
        let start = self.register(name, text, false);
        let tree = DeTable::parse(text).map_err(|error| self.syntax_error(start, &error))?;
        merge_table(&mut self.merged, shift_table(tree.into_inner(), start));
        Ok(())
    }

    /// Adds one environment variable that sets one key. A value that is not TOML (a bare word, a path) counts as a string.
    pub(super) fn add_environment(&mut self, variable: &'t str, place: &Place, text: &'t str) {
        let start = self.register(variable, text, true);
        let span = start..start + text.len();
        let table_of = |key: &str, value| {
            let mut table = DeTable::new();
            table.insert(Spanned::new(span.clone(), DeString::Owned(key.to_owned())), value);
            table
        };
        let value = DeValue::parse(text).map_or_else(
            |_| Spanned::new(span.clone(), DeValue::String(text.into())),
            |value| shift_value(value, start),
        );
        let inner = match place {
            Place::Whole { section } => table_of(section, value),
            Place::Key { section, key } => {
                table_of(section, Spanned::new(span.clone(), DeValue::Table(table_of(key, value))))
            }
            Place::Element { section, id, key } => {
                let mut element = table_of(key, value);
                let id = DeValue::String(DeString::Owned(id.clone()));
                element.insert(Spanned::new(span.clone(), "id".into()), Spanned::new(span.clone(), id));
                let list = std::iter::once(Spanned::new(span.clone(), DeValue::Table(element))).collect();
                table_of(section, Spanned::new(span.clone(), DeValue::Array(list)))
            }
        };
        merge_table(&mut self.merged, inner);
    }

    /// Takes a top-level entry out of the merged tree.
    pub(super) fn take(&mut self, section: &str) -> Option<Value<'t>> {
        self.merged.remove(section)
    }

    /// What all texts add up to.
    #[must_use]
    pub(super) fn merged(&self) -> &DeTable<'t> {
        &self.merged
    }

    /// The place that a span of the merged tree was written at; `None` for a span that no text holds.
    #[must_use]
    pub(super) fn origin(&self, span: &Range<usize>) -> Option<Origin> {
        let source = self.sources.iter().rev().find(|source| source.start <= span.start)?;
        if source.environment {
            return Some(Origin::Environment { variable: source.name.to_owned() });
        }
        let offset = (span.start - source.start).min(source.text.len());
        let line = 1 + source.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
        Some(Origin::File { name: source.name.to_owned(), line })
    }

    fn register(&mut self, name: &'t str, text: &'t str, environment: bool) -> usize {
        let start = self.next_start;
        self.next_start += text.len() + 1;
        self.sources.push(Source { name, text, start, environment });
        start
    }

    fn syntax_error(&self, start: usize, error: &toml::de::Error) -> SyntaxError {
        let offset = error.span().map_or(0, |span| span.start);
        let origin =
            self.origin(&(start + offset..start + offset)).expect("the text was registered just before it was parsed");
        SyntaxError { origin, message: error.message().to_owned() }
    }
}

/// Puts `over` on top of `base`: what `over` sets wins, what it does not mention stays.
pub(super) fn merge_table<'t>(base: &mut DeTable<'t>, over: DeTable<'t>) {
    for (key, value) in over {
        match base.get_mut(&key) {
            Some(present) => merge_value(present, value),
            None => {
                base.insert(key, value);
            }
        }
    }
}

fn merge_value<'t>(base: &mut Value<'t>, over: Value<'t>) {
    let span = over.span();
    match (base.get_mut(), over.into_inner()) {
        (DeValue::Table(base), DeValue::Table(over)) => merge_table(base, over),
        (DeValue::Array(base), DeValue::Array(over)) if base.iter().chain(over.iter()).all(|e| id_of(e).is_some()) => {
            // Only elements of the layers below are merged with: an id that one text uses twice stays twice, for the check.
            let below = base.len();
            for element in over {
                match base.iter_mut().take(below).find(|present| id_of(present) == id_of(&element)) {
                    Some(present) => merge_value(present, element),
                    None => base.push(element),
                }
            }
        }
        (_, over) => *base = Spanned::new(span, over),
    }
}

/// The `id` of an element of an array of tables.
#[must_use]
pub(super) fn id_of<'a>(element: &'a Value<'_>) -> Option<&'a str> {
    element.get_ref().as_table()?.get("id")?.get_ref().as_str()
}

fn shift(span: &Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}

fn shift_key(key: Key<'_>, by: usize) -> Key<'_> {
    Spanned::new(shift(&key.span(), by), key.into_inner())
}

fn shift_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    table.into_iter().map(|(key, value)| (shift_key(key, by), shift_value(value, by))).collect()
}

fn shift_value(value: Value<'_>, by: usize) -> Value<'_> {
    let span = shift(&value.span(), by);
    let inner = match value.into_inner() {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(|element| shift_value(element, by)).collect()),
        DeValue::Table(table) => DeValue::Table(shift_table(table, by)),
        plain => plain,
    };
    Spanned::new(span, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(tree: &'a DeTable<'_>, section: &str, key: &str) -> &'a Value<'a> {
        let table = tree[section].get_ref().as_table().expect("a table");
        // The lifetime only shortens: the tree outlives the borrow.
        table.get(key).expect("the key is set")
    }

    #[test]
    fn later_layers_win_and_keep_their_place() {
        let mut layers = Layers::default();
        layers.add_file("a.toml", "[log]\nlevel = \"info\"\ntarget = \"auto\"\n").unwrap();
        layers.add_file("b.toml", "\n[log]\nlevel = \"warn\"\n").unwrap();
        let place = Place::Key { section: "log".into(), key: "target".into() };
        layers.add_environment("LINTEL__LOG__TARGET", &place, "stderr");
        let level = at(layers.merged(), "log", "level");
        assert_eq!(level.get_ref().as_str(), Some("warn"));
        assert_eq!(layers.origin(&level.span()).unwrap().to_string(), "b.toml:3");
        let target = at(layers.merged(), "log", "target");
        assert_eq!(target.get_ref().as_str(), Some("stderr"));
        assert_eq!(layers.origin(&target.span()).unwrap().to_string(), "environment variable LINTEL__LOG__TARGET");
    }

    #[test]
    fn elements_merge_by_id_and_new_ones_are_added() {
        let mut layers = Layers::default();
        layers.add_file("a", "[[door]]\nid = \"main\"\nhold = \"3s\"\ncamera = \"front\"\n").unwrap();
        layers.add_file("b", "[[door]]\nid = \"main\"\nhold = \"5s\"\n[[door]]\nid = \"side\"\n").unwrap();
        let doors = layers.merged()["door"].get_ref().as_array().unwrap();
        assert_eq!(doors.len(), 2);
        let main = doors[0].get_ref().as_table().unwrap();
        assert_eq!(main["hold"].get_ref().as_str(), Some("5s"));
        assert_eq!(main["camera"].get_ref().as_str(), Some("front"));
    }

    #[test]
    fn a_syntax_error_names_file_and_line() {
        let mut layers = Layers::default();
        layers.add_file("good.toml", "[log]\n").unwrap();
        let error = layers.add_file("bad.toml", "[log]\nlevel = \n").unwrap_err();
        assert_eq!(error.origin.to_string(), "bad.toml:2");
    }
}
