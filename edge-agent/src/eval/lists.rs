//! The lists that a measurement is made from: pairs of pictures, and which picture shows whom.
//!
//! In: the text of a CSV file. Out: [`Pairs`] or [`Labels`], with pictures as indices into [`Pictures`], or a
//! [`ListError`] that names file, line and what to do. Deliberately absent: files, and who is the same person as whom
//! (`people`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::csv::{self, Row};

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {problem}", file.display())]
pub struct ListError {
    /// The list.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: ListProblem,
}

/// What is wrong with a line of a list, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListProblem {
    /// A quote is opened and never closed.
    #[error("a quote is opened and never closed: close it, or write it twice if it belongs to the name")]
    OpenQuote,
    /// The first line is not the header.
    #[error("the header is {found:?}: the first line must be {expected}")]
    Header {
        /// The first line found.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// There is nothing below the header.
    #[error("the list has no rows: write one for each {subject} below the header")]
    Empty {
        /// What a row stands for.
        subject: &'static str,
    },
    /// A row has more or fewer columns than the header.
    #[error("the row has {found} columns, the header has {expected}: a name with a comma needs quotes")]
    Columns {
        /// Columns of the row.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// A field that must say something is empty.
    #[error("{column} is empty")]
    Blank {
        /// Name of the column.
        column: &'static str,
    },
    /// The column `same` is neither 1 nor 0.
    #[error("same is {found:?}: write 1 for one person and 0 for two people")]
    Same {
        /// What it is.
        found: String,
    },
    /// A pair of one picture.
    #[error("a picture is paired with itself: remove the line")]
    Itself,
    /// All rows have one fold.
    #[error(
        "fold {fold:?} is alone, but its threshold comes from the other folds: use at least two folds, or leave the column out"
    )]
    LoneFold {
        /// Its name.
        fold: String,
    },
    /// A picture is labelled twice.
    #[error("picture {path} was listed already, on line {first}: remove one of the two lines")]
    Twice {
        /// The picture.
        path: String,
        /// Where it was.
        first: usize,
    },
    /// A picture is not in the folder.
    #[error("picture {path} is not in {}: correct the line, or give the right folder with --images", images.display())]
    Missing {
        /// The picture.
        path: String,
        /// The folder.
        images: PathBuf,
    },
    /// A picture of the pairs has no label.
    #[error("picture {path} has no line in {}: add it, or name another list with --labels", labels.display())]
    Unlabelled {
        /// The picture.
        path: String,
        /// The list of labels.
        labels: PathBuf,
    },
    /// The row contradicts rows before it or the labels.
    #[error("the row says {said}, the other rows and the labels say the opposite: correct whichever is wrong")]
    Contradiction {
        /// What the row says.
        said: &'static str,
    },
    /// A presentation is neither live nor an attack.
    #[error("label is {found:?}: write live for a living person and attack for anything that pretends to be one")]
    Label {
        /// What it is.
        found: String,
    },
    /// A presentation is not in the folder.
    #[error("{path} is not in {}: correct the line, or give the right folder with --root", root.display())]
    MissingClip {
        /// The picture or video.
        path: String,
        /// The folder.
        root: PathBuf,
    },
    /// Nothing to confuse a person with.
    #[error("no two pictures are known to show two people, so that false accepts cannot be counted: add some")]
    NoImpostors,
    /// Nothing to recognise.
    #[error("no two pictures are known to show one person, so that true accepts cannot be counted: add some")]
    NoGenuine,
}

/// The pictures of a list, each once, and where it was named first.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    pub(crate) paths: Vec<String>,
    pub(crate) first_lines: Vec<usize>,
    index: HashMap<String, usize>,
}

impl Pictures {
    /// The picture's index; the flag says whether it is new.
    fn add(&mut self, path: &str, line: usize) -> (usize, bool) {
        if let Some(index) = self.index.get(path) {
            return (*index, false);
        }
        let index = self.paths.len();
        self.paths.push(path.to_owned());
        self.first_lines.push(line);
        self.index.insert(path.to_owned(), index);
        (index, true)
    }

    pub(crate) fn index_of(&self, path: &str) -> Option<usize> {
        self.index.get(path).copied()
    }
}

/// One row of a list of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) line: usize,
    pub(crate) pictures: [usize; 2],
    pub(crate) same: bool,
    /// Number of its fold, when the list has folds.
    pub(crate) fold: Option<usize>,
}

/// A list `a,b,same[,fold]`.
#[derive(Debug)]
pub(crate) struct Pairs {
    pub(crate) pictures: Pictures,
    pub(crate) rows: Vec<Pair>,
}

/// A list `path,person`.
#[derive(Debug)]
pub(crate) struct Labels {
    pub(crate) pictures: Pictures,
    /// Number of the person on each picture.
    pub(crate) people: Vec<usize>,
    pub(crate) n_people: usize,
}

impl Pairs {
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, ListError> {
        let list = List { file };
        let (header, rows) = list.rows(text, "a,b,same or a,b,same,fold", |header| {
            header == ["a", "b", "same"] || header == ["a", "b", "same", "fold"]
        })?;
        let mut pictures = Pictures::default();
        let mut folds: HashMap<String, usize> = HashMap::new();
        let mut pairs = Vec::with_capacity(rows.len());
        for row in &rows {
            list.columns(row, header.len())?;
            let mut side =
                |index: usize| list.filled(row, index, ["a", "b"][index]).map(|path| pictures.add(path, row.line).0);
            let pair = [side(0)?, side(1)?];
            if pair[0] == pair[1] {
                return Err(list.error(row.line, ListProblem::Itself));
            }
            let same = match row.fields[2].as_str() {
                "1" => true,
                "0" => false,
                other => return Err(list.error(row.line, ListProblem::Same { found: other.to_owned() })),
            };
            let fold = match row.fields.get(3) {
                None => None,
                Some(_) => {
                    let (name, next) = (list.filled(row, 3, "fold")?, folds.len());
                    Some(*folds.entry(name.to_owned()).or_insert(next))
                }
            };
            pairs.push(Pair { line: row.line, pictures: pair, same, fold });
        }
        let Some(first) = pairs.first() else { return Err(list.error(1, ListProblem::Empty { subject: "pair" })) };
        if folds.len() == 1 {
            let fold = folds.into_keys().next().unwrap_or_default();
            return Err(list.error(first.line, ListProblem::LoneFold { fold }));
        }
        Ok(Self { pictures, rows: pairs })
    }
}

/// Whether a text is a list of pairs, and whether it is one of labels. For whoever wants to know without the pictures.
#[must_use]
pub fn readable(text: &str) -> (bool, bool) {
    let file = Path::new("list.csv");
    (Pairs::parse(file, text).is_ok(), Labels::parse(file, text).is_ok())
}

impl Labels {
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, ListError> {
        let list = List { file };
        let (_, rows) = list.rows(text, "path,person", |header| header == ["path", "person"])?;
        let mut pictures = Pictures::default();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut people = Vec::with_capacity(rows.len());
        for row in &rows {
            list.columns(row, 2)?;
            let path = list.filled(row, 0, "path")?;
            let (index, new) = pictures.add(path, row.line);
            if !new {
                let problem = ListProblem::Twice { path: path.to_owned(), first: pictures.first_lines[index] };
                return Err(list.error(row.line, problem));
            }
            let next = numbers.len();
            people.push(*numbers.entry(list.filled(row, 1, "person")?.to_owned()).or_insert(next));
        }
        if people.is_empty() {
            return Err(list.error(1, ListProblem::Empty { subject: "picture" }));
        }
        Ok(Self { pictures, people, n_people: numbers.len() })
    }
}

/// Whether a living person stands before the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// A living person.
    Live,
    /// A picture, a screen, a mask.
    Attack,
}

impl Label {
    /// Its name in lists and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Attack => "attack",
        }
    }
}

/// One row of a list of presentations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presentation {
    pub(crate) line: usize,
    pub(crate) path: String,
    pub(crate) label: Label,
    /// The kind of attack; empty for a living person.
    pub(crate) species: String,
}

/// A list `path,label,species`.
#[derive(Debug)]
pub(crate) struct Presentations(pub(crate) Vec<Presentation>);

impl Presentations {
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, ListError> {
        let list = List { file };
        let expected = ["path", "label", "species"];
        let (_, rows) = list.rows(text, "path,label,species", |header| header == expected)?;
        let mut first_lines: HashMap<String, usize> = HashMap::new();
        let mut presentations = Vec::with_capacity(rows.len());
        for row in &rows {
            list.columns(row, expected.len())?;
            let path = list.filled(row, 0, "path")?.to_owned();
            if let Some(first) = first_lines.insert(path.clone(), row.line) {
                return Err(list.error(row.line, ListProblem::Twice { path, first }));
            }
            let label = match list.filled(row, 1, "label")? {
                "live" => Label::Live,
                "attack" => Label::Attack,
                other => return Err(list.error(row.line, ListProblem::Label { found: other.to_owned() })),
            };
            let species = if label == Label::Attack { list.filled(row, 2, "species")? } else { "" };
            presentations.push(Presentation { line: row.line, path, label, species: species.to_owned() });
        }
        if presentations.is_empty() {
            return Err(list.error(1, ListProblem::Empty { subject: "picture or video" }));
        }
        Ok(Self(presentations))
    }
}

/// A list being read.
struct List<'a> {
    file: &'a Path,
}

impl List<'_> {
    fn error(&self, line: usize, problem: ListProblem) -> ListError {
        ListError { file: self.file.to_owned(), line, problem }
    }

    /// The header and the rows below it.
    fn rows(
        &self,
        text: &str,
        expected: &'static str,
        is_header: impl Fn(&[String]) -> bool,
    ) -> Result<(Vec<String>, Vec<Row>), ListError> {
        let mut rows = csv::rows(text).map_err(|quote| self.error(quote.line, ListProblem::OpenQuote))?;
        let header = if rows.is_empty() { Vec::new() } else { rows.remove(0).fields };
        if !is_header(&header) {
            // A wrong file may be a picture: its first "line" is cut short.
            let found = header.join(",").chars().take(80).collect();
            return Err(self.error(1, ListProblem::Header { found, expected }));
        }
        Ok((header, rows))
    }

    fn columns(&self, row: &Row, expected: usize) -> Result<(), ListError> {
        let found = row.fields.len();
        if found == expected { Ok(()) } else { Err(self.error(row.line, ListProblem::Columns { found, expected })) }
    }

    fn filled<'r>(&self, row: &'r Row, index: usize, column: &'static str) -> Result<&'r str, ListError> {
        let field = row.fields[index].as_str();
        if field.is_empty() { Err(self.error(row.line, ListProblem::Blank { column })) } else { Ok(field) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs_problem(text: &str) -> (usize, String) {
        let error = Pairs::parse(Path::new("pairs.csv"), text).expect_err("accepted");
        assert!(error.to_string().starts_with(&format!("pairs.csv:{}: ", error.line)), "{error}");
        (error.line, error.problem.to_string())
    }

    #[test]
    fn pairs_name_each_picture_once() {
        let pairs = Pairs::parse(Path::new("p"), "a,b,same,fold\nx,y,1,one\ny,z,0,two\n").unwrap();
        assert_eq!(pairs.pictures.paths, ["x", "y", "z"]);
        assert_eq!(pairs.pictures.first_lines, [2, 2, 3]);
        assert_eq!(pairs.rows[1], Pair { line: 3, pictures: [1, 2], same: false, fold: Some(1) });
        assert_eq!(pairs.pictures.index_of("z"), Some(2));
    }

    #[test]
    fn each_useless_list_of_pairs_is_refused_by_its_line() {
        for (text, line, part) in [
            ("", 1, "the first line must be a,b,same"),
            ("a,b\nx,y\n", 1, "the first line must be a,b,same or a,b,same,fold"),
            ("a,b,same\n", 1, "no rows"),
            ("a,b,same\nx,y\n", 2, "2 columns, the header has 3"),
            ("a,b,same\nx,y,1\nx,,1\n", 3, "b is empty"),
            ("a,b,same\nx,y,yes\n", 2, "write 1 for one person"),
            ("a,b,same\n\nx,x,1\n", 3, "paired with itself"),
            ("a,b,same,fold\nx,y,1,7\nx,z,0,7\n", 2, "fold \"7\" is alone"),
            ("a,b,same\n\"x,y,1\n", 2, "never closed"),
        ] {
            let (found, problem) = pairs_problem(text);
            assert_eq!(found, line, "{text:?}: {problem}");
            assert!(problem.contains(part), "{text:?}: {problem}");
        }
    }

    #[test]
    fn each_useless_list_of_presentations_is_refused_by_its_line() {
        for (text, line, part) in [
            ("path,label\nx,live\n", 1, "the first line must be path,label,species"),
            ("path,label,species\n", 1, "write one for each picture or video"),
            ("path,label,species\nx,live,\ny,alive,\n", 3, "label is \"alive\": write live"),
            ("path,label,species\nx,attack,\n", 2, "species is empty"),
            ("path,label,species\n,live,\n", 2, "path is empty"),
            ("path,label,species\nx,live,\nx,attack,print\n", 3, "listed already, on line 2"),
            ("path,label,species\nx,live\n", 2, "2 columns, the header has 3"),
        ] {
            let error = Presentations::parse(Path::new("list.csv"), text).expect_err("accepted");
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
        let read = Presentations::parse(Path::new("l"), "path,label,species\nx,live,\ny,attack,print\n").unwrap().0;
        assert_eq!((read[0].label, read[1].label), (Label::Live, Label::Attack));
        assert_eq!((read[0].species.as_str(), read[1].species.as_str()), ("", "print"));
    }

    #[test]
    fn labels_number_the_people_and_refuse_a_picture_twice() {
        let labels = Labels::parse(Path::new("l"), "path,person\nx,Ann\ny,Ben\nz,Ann\n").unwrap();
        assert_eq!((labels.people, labels.n_people), (vec![0, 1, 0], 2));
        let error = Labels::parse(Path::new("l"), "path,person\nx,Ann\ny,Ben\nx,Ben\n").expect_err("accepted");
        assert_eq!((error.line, error.problem), (4, ListProblem::Twice { path: "x".to_owned(), first: 2 }));
    }
}
