//! The folder of signed heads: one file a month, one line a head, only ever added to.
//!
//! In: heads. Out: lines of JSON that are on the disk when the call returns; and all heads of a folder again. The folder may be
//! a mount elsewhere, so that whoever has the database does not have it too. A line that a crash cut off stays: the next
//! call ends it and writes the head again, and a reader knows it by that.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;
use wire_contract::Succession;

use crate::domain::audit::Head;
use crate::domain::ids::TenantId;

/// The version of a line.
const V: u8 = 1;
/// Longer than any line of ours.
const MAX_LINE: usize = 4096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u8,
    tenant: Uuid,
    number: u64,
    position: u64,
    hash: String,
    at: String,
    key: Uuid,
    signature: String,
}

/// A head as a line, without its end.
#[must_use]
pub fn line(head: &Head) -> String {
    let line = Line {
        v: V,
        tenant: head.tenant.0,
        number: head.number,
        position: head.position,
        hash: hex::encode(head.hash),
        at: head.at.format(&Rfc3339).unwrap_or_default(),
        key: head.key_id,
        signature: hex::encode(head.signature),
    };
    serde_json::to_string(&line).expect("a line is a plain struct")
}

/// The head of a line; `None` if it is none. Whether it is true is not asked here.
#[must_use]
pub fn parse(text: &str) -> Option<Head> {
    let line: Line = serde_json::from_str(text).ok().filter(|line: &Line| line.v == V)?;
    let (mut hash, mut signature) = ([0; 32], [0; 64]);
    hex::decode_to_slice(line.hash, &mut hash).ok()?;
    hex::decode_to_slice(line.signature, &mut signature).ok()?;
    Some(Head {
        tenant: TenantId(line.tenant),
        number: line.number,
        position: line.position,
        hash,
        at: OffsetDateTime::parse(&line.at, &Rfc3339).ok()?,
        key_id: line.key,
        signature,
    })
}

/// Adds heads to the files of their months. When this returns they are on the disk; when it fails some may be, and writing
/// them again is right.
pub fn append(dir: &Path, heads: &[Head]) -> io::Result<()> {
    let mut months: BTreeMap<String, String> = BTreeMap::new();
    for head in heads {
        let (year, month) = (head.at.year(), u8::from(head.at.month()));
        let lines = months.entry(format!("{year:04}-{month:02}.jsonl")).or_default();
        lines.push_str(&line(head));
        lines.push('\n');
    }
    if !dir.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
    }
    for (name, lines) in months {
        append_to(dir, &dir.join(name), &lines)?;
    }
    Ok(())
}

/// What beside heads leads from each signing key to its successor: whoever verifies elsewhere has the first one perhaps.
const SUCCESSIONS: &str = "signing-successions.json";

#[derive(Serialize, Deserialize)]
struct Successions {
    v: u8,
    successions: Vec<Succession>,
}

/// Adds what leads from one signing key to another to the folder, where it is not there yet. Several hubs may share one.
pub fn publish_successions(dir: &Path, known: &[Succession]) -> io::Result<()> {
    let mut successions = successions(dir)?;
    let is_new =
        |of: &&Succession| !successions.iter().any(|there| there.predecessor == of.predecessor && there.key == of.key);
    let new: Vec<Succession> = known.iter().filter(is_new).cloned().collect();
    if new.is_empty() {
        return Ok(());
    }
    successions.extend(new);
    let json = serde_json::to_vec_pretty(&Successions { v: V, successions }).map_err(io::Error::other)?;
    let (path, temporary) = (dir.join(SUCCESSIONS), dir.join(format!("{SUCCESSIONS}.new-{}", std::process::id())));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
    file.write_all(&json)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(dir)?.sync_all()
}

/// What a folder of heads says of signing keys. None of it is believed but for its signatures; a file that cannot be read says nothing.
pub fn successions(dir: &Path) -> io::Result<Vec<Succession>> {
    match fs::read(dir.join(SUCCESSIONS)) {
        Ok(bytes) => {
            let read = serde_json::from_slice::<Successions>(&bytes).ok().filter(|read| read.v == V);
            Ok(read.map(|read| read.successions).unwrap_or_default())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn append_to(dir: &Path, path: &Path, lines: &str) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    let mut bytes = Vec::with_capacity(lines.len() + 1);
    if !ends_its_line(&mut file)? {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(lines.as_bytes());
    file.write_all(&bytes)?;
    file.sync_all()?;
    if is_new {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn ends_its_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// What is in folders of heads.
#[derive(Debug, Default)]
pub struct Found {
    /// The heads of each tenant, in the order of files and lines.
    pub heads: BTreeMap<TenantId, Vec<Head>>,
    /// Lines that are no heads, as `file:line`.
    pub bad_lines: Vec<String>,
}

impl Found {
    /// Adds what is in a folder, of one tenant if it is named. About 200 bytes of memory a head. A folder that is not there is empty.
    pub fn read(&mut self, dir: &Path, tenant: Option<TenantId>) -> io::Result<()> {
        let mut files: Vec<PathBuf> = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?,
        };
        files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        files.sort();
        files.iter().try_for_each(|path| self.read_file(path, tenant))
    }

    fn read_file(&mut self, path: &Path, tenant: Option<TenantId>) -> io::Result<()> {
        let mut reader = BufReader::new(File::open(path)?);
        // Lines that may be the beginning of one that was written again.
        let mut cut_off: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            let whole = bytes.pop_if(|last| *last == b'\n').is_some();
            match std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= MAX_LINE).and_then(parse) {
                Some(head) => {
                    cut_off.retain(|(_, beginning)| !bytes.starts_with(beginning));
                    if tenant.is_none_or(|wanted| wanted == head.tenant) {
                        self.heads.entry(head.tenant).or_default().push(head);
                    }
                }
                // The end of the file is being written, or was when the hub was killed: its head is written again.
                None if !whole => {}
                None => cut_off.push((number, bytes.clone())),
            }
        }
        self.bad_lines.extend(cut_off.iter().map(|(number, _)| format!("{}:{number}", path.display())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn head(number: u64, at: OffsetDateTime) -> Head {
        Head {
            tenant: TenantId(Uuid::from_u128(1)),
            number,
            position: number * 10,
            hash: [3; 32],
            at,
            key_id: Uuid::from_u128(2),
            signature: [4; 64],
        }
    }

    fn found(dir: &Path) -> Found {
        let mut found = Found::default();
        found.read(dir, None).unwrap();
        found
    }

    #[test]
    fn heads_are_read_back_by_month() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        assert!(found(&folder).heads.is_empty(), "a folder that is not there is empty");
        let heads = [
            head(1, datetime!(2026-11-30 23:59:59.999999 UTC)),
            head(2, datetime!(2026-12-01 00:00 UTC)),
            head(3, datetime!(2026-12-01 00:01 UTC)),
        ];
        append(&folder, &heads[..2]).unwrap();
        append(&folder, &heads[2..]).unwrap();
        let read = found(&folder);
        assert_eq!((read.heads[&heads[0].tenant].as_slice(), read.bad_lines.len()), (&heads[..], 0));
        assert!(folder.join("2026-11.jsonl").is_file() && folder.join("2026-12.jsonl").is_file());
        let mut other = Found::default();
        other.read(&folder, Some(TenantId(Uuid::nil()))).unwrap();
        assert!(other.heads.is_empty());
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_no_fault_once_it_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (head(1, datetime!(2026-11-01 00:00 UTC)), head(2, datetime!(2026-11-01 00:01 UTC)));
        append(dir.path(), &[one]).unwrap();
        let path = dir.path().join("2026-11.jsonl");
        let whole = line(&two);
        for cut in [1, 40, whole.len() - 1] {
            let before = fs::read(&path).unwrap();
            fs::write(&path, [&before[..], &whole.as_bytes()[..cut]].concat()).unwrap();
            assert_eq!(found(dir.path()).bad_lines, Vec::<String>::new(), "not yet written again");
            append(dir.path(), std::slice::from_ref(&two)).unwrap();
            assert_eq!(found(dir.path()).bad_lines, Vec::<String>::new());
        }
        assert_eq!(found(dir.path()).heads[&two.tenant].len(), 4);
        // Another line is a fault, wherever it stands.
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{before}{{}}\n")).unwrap();
        assert_eq!(found(dir.path()).bad_lines.len(), 1);
    }

    #[test]
    fn what_is_no_line_of_ours_is_none() {
        let good = line(&head(1, datetime!(2026-11-01 00:00 UTC)));
        assert_eq!(parse(&good), Some(head(1, datetime!(2026-11-01 00:00 UTC))));
        let changes = [
            ("\"v\":1", "\"v\":2"),
            ("\"number\"", "\"nummer\""),
            ("0303", "03"),
            ("T00:00:00Z", ""),
            ("0404", "zz04"),
        ];
        for (from, to) in changes {
            assert!(good.contains(from), "{from}");
            assert_eq!(parse(&good.replacen(from, to, 1)), None, "{to}");
        }
    }
}
