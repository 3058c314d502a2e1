//! Notices that a file has been replaced.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What tells one content of a path from another: an atomic rename changes the inode, writing in place the time or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileVersion {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl FileVersion {
    /// The version that lies at `path` now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        if !meta.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_onto_the_path_and_a_write_are_both_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip");
        assert!(FileVersion::of(&path).is_err());
        fs::write(&path, "one").unwrap();
        let first = FileVersion::of(&path).unwrap();
        assert_eq!(FileVersion::of(&path).unwrap(), first);
        fs::write(dir.path().join("new"), "two").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let second = FileVersion::of(&path).unwrap();
        assert_ne!(first, second);
        fs::write(&path, "three").unwrap();
        assert_ne!(FileVersion::of(&path).unwrap(), second);
    }

    #[test]
    fn a_directory_is_no_clip() {
        assert!(FileVersion::of(Path::new("/")).is_err());
    }
}
