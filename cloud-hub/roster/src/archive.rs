//! Archives (ZIP) with a list of people and photographs beside it.
//!
//! Bounded in everything: how much is read to learn what there is, how many files there are, how much each gives when unpacked, and
//! all of them together. Sizes that the archive declares are only good for refusing it sooner. Names are keys to look photographs up
//! by and never paths; one that would lead out of a folder says that the archive was not made for this, and refuses it whole.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zip::CompressionMethod;
use zip::ZipArchive;
use zip::read::ZipFileEntry;
use zip::result::ZipError;

use super::{Bounds, Format, RosterError, told};

/// What may be read to learn what is in an archive: a directory of as many files as are allowed, with long names.
const DIRECTORY_BYTES: u64 = 32 << 20;
/// The longest name of a file.
const MAX_NAME_BYTES: usize = 512;
/// The list, by its name.
const LISTS: [(&str, Format); 2] = [("people.csv", Format::Csv), ("people.jsonl", Format::Jsonl)];

/// What is wrong with an archive. Each reads on after "the archive".
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It is none, or a damaged one.
    #[error("is no ZIP that can be read: {0}")]
    Unreadable(String),
    /// A trailer for more files and bytes than may be sent, whose numbers are believed before they are looked at.
    #[error("is a ZIP64: pack it as an ordinary ZIP, which is enough for 65,535 files and 4 GiB")]
    Zip64,
    /// Two files of one name: which is meant?
    #[error("has two files of one name")]
    NameTwice,
    /// A name that leads elsewhere.
    #[error("has a file with the name {name:?}: names lead neither out of the archive nor to a fixed place")]
    Name {
        /// The name, cut short.
        name: String,
    },
    /// A link.
    #[error("has a link {name:?}: only files are taken")]
    Link {
        /// Its name, cut short.
        name: String,
    },
    /// Nobody gave the password.
    #[error("has the file {name:?} encrypted: send it without a password")]
    Encrypted {
        /// Its name, cut short.
        name: String,
    },
    /// Packed in a way that is not known.
    #[error("has the file {name:?} packed by another method than deflate: pack it as an ordinary ZIP")]
    Method {
        /// Its name, cut short.
        name: String,
    },
    /// No list.
    #[error("has neither people.csv nor people.jsonl")]
    NoList,
    /// More than one.
    #[error("has more than one list: leave one of people.csv and people.jsonl in it")]
    TwoLists,
}

/// Why a photograph cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PhotographError {
    /// Nobody put it in.
    #[error("the archive has no file {name:?}")]
    Missing {
        /// What was asked for, cut short.
        name: String,
    },
    /// Larger than one may be, or all of them are.
    #[error("{name:?} unpacks to more than {most} bytes")]
    TooLarge {
        /// Its name, cut short.
        name: String,
        /// The bound.
        most: u64,
    },
    /// All together are too much.
    #[error("the files of this archive unpack to more than {most} bytes in all")]
    AllTooLarge {
        /// The bound.
        most: u64,
    },
    /// What is packed is damaged.
    #[error("{name:?} is damaged in the archive")]
    Damaged {
        /// Its name, cut short.
        name: String,
    },
}

/// The files of an archive beside its list.
pub struct Photographs<F> {
    archive: ZipArchive<Metered<F>>,
    by_name: HashMap<String, usize>,
    list: usize,
    bounds: Bounds,
    unpacked: u64,
}

/// Whether a place where the directory's end may stand is announced as a ZIP64's. The number of files that such an end claims would be
/// made room for before a single one is looked at; an ordinary one claims 65,535 at most.
fn has_zip64_trailer(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    const LOCATOR: &[u8] = b"PK\x06\x07";
    const END: &[u8] = b"PK\x05\x06";
    const BETWEEN: usize = 20;
    file.rewind()?;
    let (mut piece, mut kept) = (vec![0; 256 << 10], 0);
    loop {
        let read = file.read(&mut piece[kept..])?;
        let filled = kept + read;
        let mut searched = &piece[..filled];
        while searched.len() >= BETWEEN + END.len() {
            let Some(at) = searched.windows(LOCATOR.len()).position(|four| four == LOCATOR) else { break };
            if searched.get(at + BETWEEN..at + BETWEEN + END.len()) == Some(END) {
                file.rewind()?;
                return Ok(true);
            }
            searched = &searched[at + 1..];
        }
        if read == 0 {
            file.rewind()?;
            return Ok(false);
        }
        // The next piece may have the rest of a trailer.
        kept = filled.min(BETWEEN + END.len());
        piece.copy_within(filled - kept..filled, 0);
    }
}

impl<F: Read + Seek> Photographs<F> {
    /// Learns what there is, and refuses what is not fit. Nothing is unpacked yet.
    pub(super) fn open(mut file: F, bounds: Bounds) -> Result<(Self, Format), RosterError> {
        if has_zip64_trailer(&mut file)? {
            return Err(RosterError::Archive(Unfit::Zip64));
        }
        let allowance = Arc::new(AtomicU64::new(DIRECTORY_BYTES));
        let metered = Metered { inner: file, allowance: Arc::clone(&allowance) };
        let archive = ZipArchive::new(metered).map_err(|error| unreadable(error, &allowance))?;
        // From here on reads are bounded by what is unpacked.
        allowance.store(u64::MAX, Ordering::Relaxed);
        if archive.len() > bounds.entries {
            let what = String::from("the archive");
            return Err(RosterError::TooLarge { what, most: bounds.entries as u64, unit: "files" });
        }
        if archive.has_duplicate_names() {
            return Err(RosterError::Archive(Unfit::NameTwice));
        }
        let (mut names, mut declared) = (HashMap::new(), 0_u64);
        for index in 0..archive.len() {
            let entry = archive.by_index_data(index).map_err(|error| unreadable(error, &allowance))?;
            let Some(name) = fit(&entry).map_err(RosterError::Archive)? else { continue };
            declared = declared.saturating_add(entry.size());
            if names.insert(name, index).is_some() {
                return Err(RosterError::Archive(Unfit::NameTwice));
            }
        }
        if declared > bounds.unpacked_bytes {
            let what = String::from("what the archive unpacks to");
            return Err(RosterError::TooLarge { what, most: bounds.unpacked_bytes, unit: "bytes" });
        }
        let (list, folder, format) = find_list(&names).map_err(RosterError::Archive)?;
        let beside = |(name, index): (String, usize)| Some((name.strip_prefix(&folder)?.to_owned(), index));
        let by_name = names.into_iter().filter(|(_, index)| *index != list).filter_map(beside).collect();
        Ok((Self { archive, by_name, list, bounds, unpacked: 0 }, format))
    }

    /// Unpacks the list.
    pub(super) fn copy_list(&mut self, into: &mut impl Write) -> Result<(), RosterError> {
        let most = self.bounds.list_bytes.min(self.bounds.unpacked_bytes);
        let damaged = |error: &dyn std::fmt::Display| {
            RosterError::Archive(Unfit::Unreadable(format!("its list of people is damaged ({error})")))
        };
        let entry = self.archive.by_index(self.list).map_err(|error| damaged(&error))?;
        let mut reader = entry.take(most + 1);
        let mut piece = vec![0; 64 << 10];
        loop {
            // Told apart: what is read is the archive's fault, what is written the hub's.
            let read = reader.read(&mut piece).map_err(|error| damaged(&error))?;
            if read == 0 {
                return Ok(());
            }
            self.unpacked += read as u64;
            if self.unpacked > most {
                return Err(RosterError::TooLarge { what: String::from("the list"), most, unit: "bytes" });
            }
            into.write_all(&piece[..read])?;
        }
    }

    /// Whether there is a photograph of this name, beside the list.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(plain(name))
    }

    /// How many files there are beside the list.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// Unpacks a photograph.
    pub fn read(&mut self, name: &str) -> Result<Vec<u8>, PhotographError> {
        let index = *self.by_name.get(plain(name)).ok_or_else(|| PhotographError::Missing { name: told(name) })?;
        let (one, all) = (self.bounds.photograph_bytes, self.bounds.unpacked_bytes);
        let most = one.min(all.saturating_sub(self.unpacked));
        let damaged = || PhotographError::Damaged { name: told(name) };
        let entry = self.archive.by_index(index).map_err(|_| damaged())?;
        let mut bytes = Vec::new();
        let read = entry.take(most + 1).read_to_end(&mut bytes);
        // What was unpacked before it turned out to be damaged was work too.
        self.unpacked = self.unpacked.saturating_add(bytes.len() as u64);
        read.map_err(|_| damaged())?;
        if bytes.len() as u64 <= most {
            Ok(bytes)
        } else if most < one {
            Err(PhotographError::AllTooLarge { most: all })
        } else {
            Err(PhotographError::TooLarge { name: told(name), most: one })
        }
    }
}

/// `./ada.jpg` is `ada.jpg`.
fn plain(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

/// The name of a file that is taken; `None` for folders and for what a Mac adds.
fn fit(entry: &ZipFileEntry<'_>) -> Result<Option<String>, Unfit> {
    let raw = entry.name_raw();
    let name = entry.name().map_err(|_| Unfit::Name { name: told(&String::from_utf8_lossy(raw)) })?.into_owned();
    let leads_elsewhere = name.is_empty()
        || raw.len() > MAX_NAME_BYTES
        || name.starts_with('/')
        || name.contains(['\\', ':'])
        || name.chars().any(char::is_control)
        || name.split('/').any(|part| part == "..");
    if leads_elsewhere {
        return Err(Unfit::Name { name: told(&name) });
    }
    if entry.is_symlink() {
        return Err(Unfit::Link { name: told(&name) });
    }
    if entry.is_dir() || name.starts_with("__MACOSX/") || name.ends_with(".DS_Store") {
        return Ok(None);
    }
    if entry.encrypted() {
        return Err(Unfit::Encrypted { name: told(&name) });
    }
    if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(Unfit::Method { name: told(&name) });
    }
    Ok(Some(plain(&name).to_owned()))
}

/// The list, and the folder that it is in: whoever packs a folder has its name before each file.
fn find_list(names: &HashMap<String, usize>) -> Result<(usize, String, Format), Unfit> {
    let mut found = None;
    for (name, index) in names {
        let (folder, file) = name.rsplit_once('/').map_or(("", name.as_str()), |(folder, file)| (folder, file));
        let Some((_, format)) = LISTS.into_iter().find(|(list, _)| *list == file) else { continue };
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        if found.replace((*index, folder, format)).is_some() {
            return Err(Unfit::TwoLists);
        }
    }
    found.ok_or(Unfit::NoList)
}

fn unreadable(error: ZipError, allowance: &AtomicU64) -> RosterError {
    if allowance.load(Ordering::Relaxed) == 0 {
        let what = String::from("the directory of the archive");
        return RosterError::TooLarge { what, most: DIRECTORY_BYTES, unit: "bytes" };
    }
    RosterError::Archive(Unfit::Unreadable(match error {
        ZipError::InvalidArchive(why) => told(&why),
        ZipError::UnsupportedArchive(why) => told(why),
        other => told(&other.to_string()),
    }))
}

/// A reader that stops when so much was read.
struct Metered<F> {
    inner: F,
    allowance: Arc<AtomicU64>,
}

impl<F: Read> Read for Metered<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.load(Ordering::Relaxed);
        if left == u64::MAX {
            return self.inner.read(into);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 && !into.is_empty() {
            return Err(io::Error::other("the directory is too long"));
        }
        let read = self.inner.read(&mut into[..most])?;
        self.allowance.store(left - read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl<F: Seek> Seek for Metered<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
