//! Files that are looked through for vectors that are known.
//!
//! In: embeddings, and folders. Out: how alike the likest window is to any of them, and in which file and form somebody is. What a window
//! is and how it is compared stands in the crate `vector-scan`, which is built for speed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use vector_scan::{Form, Seen};

/// A file that has somebody.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub file: PathBuf,
    /// How the window was read.
    pub form: Form,
    /// How alike it is.
    pub cosine: f32,
}

/// The embeddings that are looked for, and what was looked at.
pub struct Scan {
    of: vector_scan::Scan,
    /// Bytes of files.
    pub bytes: u64,
    /// All that was seen together.
    pub seen: Seen,
    /// Who is somebody's; one a file and form.
    pub found: Vec<Found>,
}

impl Scan {
    /// Looks for these embeddings in every form.
    #[must_use]
    pub fn of(embeddings: &[Vec<f32>]) -> Self {
        Self { of: vector_scan::Scan::of(embeddings), bytes: 0, seen: Seen::default(), found: Vec::new() }
    }

    /// Looks for vectors in the form alone in which Postgres has them.
    #[must_use]
    pub fn as_stored(self) -> Self {
        Self { of: self.of.as_stored(), ..self }
    }

    /// How alike the likest window is, in whatever form.
    #[must_use]
    pub fn likest(&self) -> f32 {
        Form::ALL.into_iter().map(|form| self.seen.likest(form)).fold(0.0, f32::max)
    }

    /// Looks through every file below `folder`, or through the file that it is. What is removed meanwhile is not there.
    pub fn look(&mut self, place: &Path) -> Result<()> {
        let mut files = Vec::new();
        files_of(place, &mut files).with_context(|| place.display().to_string())?;
        let (next, of) = (AtomicUsize::new(0), &self.of);
        let work = || {
            let mut done = Vec::new();
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Ok(content) = fs::read(file) {
                    done.push((file.clone(), content.len() as u64, of.look(&content)));
                }
            }
            done
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let done = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a scan panicked")))
                .collect::<Vec<_>>()
        });
        for of_worker in done {
            for (file, bytes, seen) in of_worker? {
                self.bytes += bytes;
                self.seen.merge(&seen);
                self.found.extend(seen.found().map(|(form, cosine)| Found { file: file.clone(), form, cosine }));
            }
        }
        Ok(())
    }
}

fn files_of(place: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(kind) if kind.is_dir() => {
            for entry in fs::read_dir(place)? {
                files_of(&entry?.path(), files)?;
            }
        }
        Ok(kind) if kind.is_file() => files.push(place.to_owned()),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_that_has_somebody_is_named_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let somebody: Vec<f32> = (0..512_u32).map(|at| ((at * 7_919 % 1_013) as f32 - 506.0) / 9_000.0).collect();
        let raw: Vec<u8> = somebody.iter().flat_map(|x| x.to_le_bytes()).collect();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/has"), [b"before", &raw[..]].concat()).unwrap();
        fs::write(dir.path().join("digits"), hex::encode(&raw)).unwrap();
        fs::write(dir.path().join("nobody"), vec![b'x'; 5_000]).unwrap();
        let named = |mut scan: Scan| {
            scan.look(dir.path()).unwrap();
            let mut names: Vec<_> = scan.found.iter().map(|found| found.file.file_name().unwrap().to_owned()).collect();
            names.sort();
            (names, scan.bytes)
        };
        assert_eq!(
            named(Scan::of(std::slice::from_ref(&somebody))),
            (vec!["digits".into(), "has".into()], 2_054 + 4_096 + 5_000)
        );
        assert_eq!(named(Scan::of(std::slice::from_ref(&somebody)).as_stored()).0, ["has"]);
        let mut gone = Scan::of(&[somebody]);
        gone.look(&dir.path().join("gone")).unwrap();
        assert_eq!(gone.bytes, 0);
    }
}
