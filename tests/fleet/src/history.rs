//! What a fleet tried to record and what was acknowledged to it, one line each, for a judge who comes later.
//!
//! A line is written with one `write` before the attempt and one after the acknowledgement, unbuffered, so that a process
//! that is killed leaves every acknowledgement that it got. The end of the file may be half a line.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use uuid::Uuid;

/// The writer's end.
pub struct History(File);

/// One event's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose.
    pub device: Uuid,
    /// In which stream: 32 hexadecimal digits.
    pub stream: String,
    /// Where in it.
    pub sequence: u64,
}

/// What a history says.
#[derive(Debug, Default)]
pub struct Told {
    /// Every event that was tried, by id; with its place if it was acknowledged.
    pub events: HashMap<Uuid, Option<Place>>,
    /// How many were acknowledged.
    pub acked: u64,
}

impl History {
    /// Appends to a file, making it where there is none.
    pub fn append_to(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        let mut history = Self(file.with_context(|| format!("history {} cannot be written", path.display()))?);
        // A half line of a killed run must not swallow the first one of this run.
        history.0.write_all(b"\n")?;
        Ok(history)
    }

    /// About to record events with these ids.
    pub fn trying(&mut self, ids: &[Uuid]) -> Result<()> {
        let ids: Vec<String> = ids.iter().map(|id| id.simple().to_string()).collect();
        Ok(self.0.write_all(format!("try {}\n", ids.join(",")).as_bytes())?)
    }

    /// They are recorded, from `first` on.
    pub fn acknowledged(&mut self, device: Uuid, stream: &str, first: u64, ids: &[Uuid]) -> Result<()> {
        let ids: Vec<String> = ids.iter().map(|id| id.simple().to_string()).collect();
        let line = format!("ok {} {stream} {first} {}\n", device.simple(), ids.join(","));
        Ok(self.0.write_all(line.as_bytes())?)
    }
}

impl Told {
    /// Reads a history. A place that was given to two events is an error: the store took an acknowledgement back.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("history {}", path.display()))?;
        let mut told = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            told.take(line).with_context(|| format!("in the history's line {line:?}"))?;
        }
        Ok(told)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let mut words = line.split(' ');
        match words.next() {
            Some("try") => {
                // Killed inside the line: the last id is cut, and nothing of this attempt was recorded yet.
                for id in words.next().unwrap_or_default().split(',').filter_map(|id| Uuid::try_parse(id).ok()) {
                    self.events.entry(id).or_insert(None);
                }
            }
            Some("ok") => {
                let parts: Vec<&str> = words.collect();
                // Cut off: nobody saw this acknowledgement whole, so nobody may count on it.
                let [device, stream, first, ids] = parts.as_slice() else { return Ok(()) };
                let (device, first) = (Uuid::try_parse(device)?, first.parse::<u64>()?);
                for (sequence, id) in (first..).zip(ids.split(',')) {
                    let Ok(id) = Uuid::try_parse(id) else { break };
                    let place = Place { device, stream: (*stream).to_owned(), sequence };
                    self.acked += u64::from(matches!(self.events.insert(id, Some(place)), Some(None)));
                }
            }
            // Anything else is the torn end of a killed run.
            _ if line.len() < 3 => {}
            _ => bail!("neither `try` nor `ok`"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_run_leaves_what_it_had_acknowledged() {
        let dir = std::env::temp_dir().join(format!("history-{}", Uuid::new_v4()));
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut history = History::append_to(&dir).unwrap();
        history.trying(&[one, two]).unwrap();
        history.acknowledged(Uuid::from_u128(9), "aa", 5, &[one, two]).unwrap();
        history.trying(&[Uuid::from_u128(3)]).unwrap();
        history.0.write_all(b"o").unwrap();
        History::append_to(&dir).unwrap().trying(&[Uuid::from_u128(4)]).unwrap();
        let told = Told::read(&dir).unwrap();
        assert_eq!((told.acked, told.events.len()), (2, 4));
        assert_eq!(told.events[&two].as_ref().unwrap().sequence, 6);
        assert_eq!(told.events[&Uuid::from_u128(3)], None);
        std::fs::remove_file(dir).unwrap();
    }
}
