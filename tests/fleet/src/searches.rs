//! What each device's own search finds, from the moment on at which it finds it: how long a change of people takes until no
//! edge goes by what was before.
//!
//! In: probes (embeddings of people who will be enrolled), and the devices' rosters, as their doors would search them.
//! Out: a line for each device and probe whenever what the search says has changed. Each change of a roster is searched, and
//! nothing in between is: a search costs microseconds, and a roster changes only as a whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use edge_agent::clock::SystemClock;
use edge_agent::gallery::{Galleries, Roster};
use face_core::{Embedding, Gallery as _, Similarity};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A probe is the embedding of the very photograph that is enrolled; the hub's rounding costs less than this. Two people
/// are never so alike.
const THE_SAME: f32 = 0.98;

/// A face to look for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What it is called in the lines.
    pub name: String,
    /// 512 numbers.
    pub embedding: Vec<f32>,
}

/// One thing that a search has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// Whose search.
    pub device: usize,
    /// What was looked for.
    pub probe: String,
    /// As whom it was found; nobody from now on, when none.
    pub person: Option<Uuid>,
}

/// The probes and the file to which the findings go.
#[derive(Clone)]
pub struct Searches {
    probes: Arc<Vec<(String, Embedding)>>,
    file: Arc<Mutex<File>>,
}

impl Searches {
    /// Reads probes (a JSON array) and makes the file anew.
    pub fn open(probes: &Path, findings: &Path) -> Result<Self> {
        let text = std::fs::read(probes).with_context(|| format!("probes {}", probes.display()))?;
        let read: Vec<Probe> = serde_json::from_slice(&text).with_context(|| format!("probes {}", probes.display()))?;
        let probes = read
            .into_iter()
            .map(|probe| {
                let embedding = Embedding::from_slice(&probe.embedding).with_context(|| probe.name.clone())?;
                Ok((probe.name, embedding))
            })
            .collect::<Result<Vec<_>>>()?;
        let file = File::create(findings).with_context(|| format!("findings {}", findings.display()))?;
        Ok(Self { probes: Arc::new(probes), file: Arc::new(Mutex::new(file)) })
    }

    /// Searches a device's roster whenever it changes, until its galleries are gone.
    pub async fn watch(self, device: usize, galleries: Arc<Galleries>) {
        let (roster, mut changes) = (galleries.roster(), galleries.changes());
        // The stores may be dropped while this waits; the last one ends the watch.
        drop(galleries);
        let mut before = HashMap::new();
        loop {
            if let Err(error) = self.note(device, &roster.load(), &mut before) {
                tracing::error!(error = %format!("{error:#}"), "findings cannot be written");
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn note(&self, device: usize, roster: &Roster, before: &mut HashMap<String, Uuid>) -> Result<()> {
        for (name, embedding) in self.probes.iter() {
            let best = roster.snapshot().search(embedding, 1).into_iter().next();
            let found = best.filter(|row| row.similarity >= Similarity::new(THE_SAME)).map(|row| row.person.0);
            if before.get(name).copied() == found {
                continue;
            }
            match found {
                Some(person) => before.insert(name.clone(), person),
                None => before.remove(name),
            };
            let person = found.map_or_else(|| "-".to_owned(), |person| person.to_string());
            let line = format!("{} {device} {person} {name}\n", micros(SystemTime::from(SystemClock::utc()))?);
            self.file.lock().write_all(line.as_bytes())?;
        }
        Ok(())
    }
}

/// Microseconds since 1970: what findings are dated with.
pub fn micros(at: SystemTime) -> Result<u64> {
    Ok(u64::try_from(at.duration_since(SystemTime::UNIX_EPOCH)?.as_micros())?)
}

/// Reads what was found so far; half a line at the end is left for the next time.
pub fn read(findings: &Path) -> Result<Vec<Found>> {
    let text = std::fs::read_to_string(findings).with_context(|| format!("findings {}", findings.display()))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| parse(line).with_context(|| format!("in the findings' line {line:?}"))).collect()
}

fn parse(line: &str) -> Result<Found> {
    let mut words = line.splitn(4, ' ');
    let (Some(at), Some(device), Some(person), Some(probe)) = (words.next(), words.next(), words.next(), words.next())
    else {
        bail!("four words were expected");
    };
    let person = (person != "-").then(|| Uuid::try_parse(person)).transpose()?;
    Ok(Found { at_us: at.parse()?, device: device.parse()?, probe: probe.to_owned(), person })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_waits_for_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("17 3 {} Ann B.\n18 3 - Ann B.\n19 4", Uuid::from_u128(7))).unwrap();
        let found = read(file.path()).unwrap();
        let expected = |at_us, person| Found { at_us, device: 3, probe: "Ann B.".to_owned(), person };
        assert_eq!(found, [expected(17, Some(Uuid::from_u128(7))), expected(18, None)]);
    }

    #[test]
    fn a_line_that_says_nothing_is_an_error() {
        assert!(parse("17 3 nobody Ann").is_err());
        assert!(parse("17 3").is_err());
    }
}
