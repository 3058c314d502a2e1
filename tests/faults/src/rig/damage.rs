//! Damage to the files of a state directory: what bad memory, a dying disk, a careless copy or a curious hand leaves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::random::Random;

/// Kinds of damage, all as likely.
const KINDS: [Kind; 7] =
    [Kind::FlipBit, Kind::Truncate, Kind::ZeroPage, Kind::Lengthen, Kind::Remove, Kind::Swap, Kind::OldCopy];
const PAGE: usize = 4096;

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One bit is another.
    FlipBit,
    /// Its end is gone.
    Truncate,
    /// A page of it is zero.
    ZeroPage,
    /// There is rubbish behind it.
    Lengthen,
    /// It is gone.
    Remove,
    /// It and another one have changed places.
    Swap,
    /// It is as it was some time ago.
    OldCopy,
}

/// One damage, to be told when it was not noticed.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Which file, below the directory.
    pub file: PathBuf,
    /// What was done.
    pub kind: Kind,
    /// Where in the file, or with which other.
    pub at: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?} of {} {}", self.kind, self.file.display(), self.at)
    }
}

/// Damages one of the files below `dir`, each as likely as the next; `older` is an earlier state of the same directory.
/// `None` when what was drawn changes nothing (an old copy that is no other).
pub fn damage(dir: &Path, older: &Path, random: &mut Random) -> Result<Option<Damage>> {
    let files = files_below(dir)?;
    let pick = |random: &mut Random| files[usize::try_from(random.below(files.len() as u64)).unwrap_or(0)].clone();
    let path = pick(random);
    let kind = KINDS[usize::try_from(random.below(KINDS.len() as u64)).unwrap_or(0)];
    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let file = path.strip_prefix(dir)?.to_path_buf();
    let place = usize::try_from(random.below(bytes.len().max(1) as u64)).unwrap_or(0);
    let (changed, at) = match kind {
        Kind::FlipBit if !bytes.is_empty() => {
            let bit = random.below(8);
            let mut changed = bytes.clone();
            changed[place] ^= 1 << bit;
            (changed, format!("byte {place} bit {bit}"))
        }
        Kind::Truncate => (bytes[..place].to_vec(), format!("to {place} bytes")),
        Kind::ZeroPage => {
            let begin = place / PAGE * PAGE;
            (with_zero_page(&bytes, begin), format!("from byte {begin}"))
        }
        Kind::Lengthen => {
            let more = 1 + random.below(2 * PAGE as u64);
            let rubbish = (0..more).map(|_| random.next().to_le_bytes()[0]);
            (bytes.iter().copied().chain(rubbish).collect(), format!("by {more} bytes"))
        }
        Kind::Remove => {
            fs::remove_file(&path)?;
            return Ok(Some(Damage { file, kind, at: String::new() }));
        }
        Kind::Swap => {
            let other = pick(random);
            let theirs = fs::read(&other)?;
            fs::write(&other, &bytes)?;
            (theirs, format!("with {}", other.strip_prefix(dir)?.display()))
        }
        Kind::OldCopy => match fs::read(older.join(&file)) {
            Ok(old) => (old, String::new()),
            // It is younger than the copy.
            Err(_) => return Ok(None),
        },
        Kind::FlipBit => return Ok(None),
    };
    if changed == bytes {
        return Ok(None);
    }
    fs::write(&path, changed)?;
    Ok(Some(Damage { file, kind, at }))
}

fn with_zero_page(bytes: &[u8], begin: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let end = changed.len().min(begin + PAGE);
    changed[begin..end].fill(0);
    changed
}

/// All files below a directory, sorted.
pub fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// Copies a directory and everything in it.
pub fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy_dir(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_damaged_is_no_longer_the_same() {
        let (dir, older) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut random = Random::new(1);
        for round in 0..200_u64 {
            for name in ["a", "b"] {
                fs::write(dir.path().join(name), format!("{name}{round}").repeat(2000)).unwrap();
                fs::write(older.path().join(name), name).unwrap();
            }
            let before: Vec<_> = files_below(dir.path()).unwrap().iter().map(|path| fs::read(path).ok()).collect();
            let done = damage(dir.path(), older.path(), &mut random).unwrap();
            let after: Vec<_> = ["a", "b"].iter().map(|name| fs::read(dir.path().join(name)).ok()).collect();
            assert_eq!(done.is_some(), before != after, "{done:?}");
        }
    }
}
