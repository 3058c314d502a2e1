//! What a power cut may leave of a recording: the model of a disk that writes when it likes.
//!
//! In: the calls of a recording up to the cut. Out: one of the states that the disk may be in. What was fsynced is there. Of
//! the writes since, each 512-byte sector is there or not, by chance, in no order. Names (made, renamed, removed files)
//! come in order, as from a journal, from the last one that a directory's fsync made durable to any later one.
//! Deliberately absent: what the files mean.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::random::Random;
use super::record::Op;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// A file's content: what is on the disk for certain, and what may be.
#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// A name that came, moved or went.
enum Naming {
    File(PathBuf, usize),
    Dir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// A disk while a recording is played to it.
#[derive(Default)]
pub struct Disk {
    inodes: Vec<Inode>,
    /// Names as the running program sees them.
    names: HashMap<PathBuf, usize>,
    namings: Vec<Naming>,
    /// So many namings are on the disk for certain.
    durable_namings: usize,
}

impl Disk {
    /// Plays the calls to a disk that was empty.
    #[must_use]
    pub fn after(ops: &[Op]) -> Self {
        let mut disk = Self::default();
        for op in ops {
            disk.play(op);
        }
        disk
    }

    fn play(&mut self, op: &Op) {
        match op {
            Op::Write { path, offset, bytes } => {
                let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
                self.change(path, Change::Write { offset, bytes: bytes.clone() });
            }
            Op::SetLen(path, length) => {
                self.change(path, Change::SetLen(usize::try_from(*length).unwrap_or(usize::MAX)));
            }
            Op::Create(path) if self.names.contains_key(path) => self.change(path, Change::SetLen(0)),
            Op::Create(path) => {
                self.inodes.push(Inode::default());
                self.names.insert(path.clone(), self.inodes.len() - 1);
                self.namings.push(Naming::File(path.clone(), self.inodes.len() - 1));
            }
            Op::Sync(path) => match self.names.get(path) {
                Some(inode) => self.inodes[*inode].sync(),
                // A directory: a journal is written in order, so that all names until now are durable.
                None => self.durable_namings = self.namings.len(),
            },
            Op::Rename(from, to) => {
                rename(&mut self.names, from, to);
                self.namings.push(Naming::Rename(from.clone(), to.clone()));
            }
            Op::Remove(path) => {
                self.names.remove(path);
                self.namings.push(Naming::Remove(path.clone()));
            }
            Op::MakeDir(path) => self.namings.push(Naming::Dir(path.clone())),
            Op::Promise { .. } => {}
        }
    }

    fn change(&mut self, path: &Path, change: Change) {
        // A file that was removed while it was open has no name, and nobody will ever see what is written to it.
        if let Some(inode) = self.names.get(path) {
            self.inodes[*inode].pending.push(change);
        }
    }

    /// How many changes a cut may take away.
    #[must_use]
    pub fn loose(&self) -> usize {
        let pending = self.names.values().map(|inode| self.inodes[*inode].pending.len()).sum::<usize>();
        pending + self.namings.len() - self.durable_namings
    }

    /// Writes one of the possible states below `to`; `root` is where the recording was made.
    pub fn cut(&self, root: &Path, to: &Path, random: &mut Random) -> Result<()> {
        let loose = (self.namings.len() - self.durable_namings) as u64;
        let there = self.durable_namings + usize::try_from(random.below(loose + 1))?;
        let mut names = HashMap::new();
        for naming in &self.namings[..there] {
            match naming {
                Naming::File(path, inode) => drop(names.insert(path.clone(), Some(*inode))),
                Naming::Dir(path) => drop(names.insert(path.clone(), None)),
                Naming::Rename(from, old) => rename(&mut names, from, old),
                Naming::Remove(path) => drop(names.remove(path)),
            }
        }
        let place = |path: &Path| path.strip_prefix(root).map(|below| to.join(below));
        for (path, inode) in &names {
            match inode {
                None => fs::create_dir_all(place(path)?)?,
                Some(inode) => {
                    let path = place(path)?;
                    fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
                    fs::write(&path, self.inodes[*inode].cut(random))?;
                    // All that the stores write is private, and a key that is not is refused.
                    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
                }
            }
        }
        Ok(())
    }
}

/// Moves a name, and with a directory's name all that is below it.
fn rename<T: Copy>(names: &mut HashMap<PathBuf, T>, from: &Path, to: &Path) {
    let moved: Vec<PathBuf> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
    for name in moved {
        if let (Some(what), Ok(below)) = (names.remove(&name), name.strip_prefix(from)) {
            let target = if below.as_os_str().is_empty() { to.to_path_buf() } else { to.join(below) };
            names.insert(target, what);
        }
    }
}

impl Inode {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
                Change::SetLen(length) => self.durable.resize(length, 0),
            }
        }
    }

    /// What may be found of it: each pending write wholly, not at all, or in some of its sectors.
    fn cut(&self, random: &mut Random) -> Vec<u8> {
        let mut found = self.durable.clone();
        for change in &self.pending {
            match change {
                Change::SetLen(length) if random.chance(50) => found.resize(*length, 0),
                Change::SetLen(_) => {}
                Change::Write { offset, bytes } => {
                    let (whole, none) = (random.chance(40), random.chance(40));
                    let mut at = 0;
                    while at < bytes.len() {
                        // Sectors are those of the file, not of the write.
                        let end = bytes.len().min(((offset + at) / SECTOR + 1) * SECTOR - offset);
                        if whole || (!none && random.chance(50)) {
                            put(&mut found, offset + at, &bytes[at..end]);
                        }
                        at = end;
                    }
                }
            }
        }
        found
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &str, text: &str) -> Op {
        Op::Write { path: path.into(), offset: 0, bytes: text.into() }
    }

    /// Everything that a hundred cuts leave of `/r/a` after these calls.
    fn left(ops: &[Op]) -> std::collections::HashSet<Option<Vec<u8>>> {
        let disk = Disk::after(ops);
        (0..100)
            .map(|seed| {
                let dir = tempfile::tempdir().unwrap();
                disk.cut(Path::new("/r"), dir.path(), &mut Random::new(seed)).unwrap();
                fs::read(dir.path().join("a")).ok()
            })
            .collect()
    }

    #[test]
    fn what_was_synced_is_there_and_nothing_else_is_certain() {
        let [create, sync, sync_dir] = [Op::Create("/r/a".into()), Op::Sync("/r/a".into()), Op::Sync("/r".into())];
        let certain = left(&[create.clone(), write("/r/a", "one"), sync.clone(), sync_dir.clone()]);
        assert_eq!(certain, [Some(b"one".to_vec())].into());
        let unsynced = left(&[create.clone(), write("/r/a", "one"), sync_dir]);
        assert_eq!(unsynced, [Some(b"one".to_vec()), Some(Vec::new())].into());
        let nameless = left(&[create, write("/r/a", "one"), sync]);
        assert_eq!(nameless, [Some(b"one".to_vec()), None].into());
    }

    #[test]
    fn a_rename_is_there_or_not() {
        let [old, new] = ["/r/a", "/r/b"].map(PathBuf::from);
        let ops = [
            Op::Create(old.clone()),
            write("/r/a", "old"),
            Op::Sync(old.clone()),
            Op::Create(new.clone()),
            write("/r/b", "new"),
            Op::Sync(new.clone()),
            Op::Sync("/r".into()),
            Op::Rename(new, old),
        ];
        assert_eq!(left(&ops), [Some(b"old".to_vec()), Some(b"new".to_vec())].into());
    }
}
