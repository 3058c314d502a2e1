//! Vectors in files: every window of bytes that could be one, as f32, f16, bf16 or i8, and what text hides of them.
//!
//! In: embeddings that are known, and a folder. Out: how alike the likest window is to any of them, and where it lies. Halves are
//! compared and not wholes: Postgres cuts a long value into pieces of some two kilobytes, and the first half of a vector is in one.
//! Text is read as base64, as hexadecimal digits and as lists of numbers. What is compressed or encrypted is not found; of Postgres
//! nothing is, since pgvector's type is stored as it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Components of half an embedding.
const HALF: usize = 256;
/// From here on a half is somebody's. Halves of strangers are alike to 0.4 once in ten thousand million, by chance.
const SOMEBODYS: f32 = 0.4;
/// The same of bytes, of which every place in a file is one that could be a vector.
const SOMEBODYS_I8: f32 = 0.5;
/// Components that are multiplied at once.
const LANES: usize = 16;
/// A quarter of a half that is alike to 0.5 has an eighth of it; this is a third of that.
const HARDLY: f32 = 0.04;
/// Of so many first components all must be of a size that components have.
const LOOKED_AT: usize = 16;
/// A file is read in pieces of so many bytes, which overlap by a window.
const PIECE: usize = 8 << 20;
const OVERLAP: usize = 4 * HALF;

/// A window that is somebody's.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub file: PathBuf,
    /// How the window was read.
    pub kind: &'static str,
    /// How alike it is.
    pub cosine: f32,
}

/// The embeddings that are looked for, and what was looked at.
pub struct Scan {
    halves: Vec<[f32; HALF]>,
    as_stored: bool,
    /// Bytes of files.
    pub bytes: u64,
    /// Windows that were compared.
    pub windows: u64,
    /// The likest of all, whether or not it is somebody's.
    pub likest: f32,
    /// Those that are somebody's; one a file and kind.
    pub found: Vec<Found>,
}

impl Scan {
    /// Looks for these embeddings, of any length that is a whole vector's.
    #[must_use]
    pub fn of(embeddings: &[Vec<f32>]) -> Self {
        let halves = embeddings.iter().flat_map(|embedding| embedding.chunks_exact(HALF)).map(unit).collect();
        Self { halves, as_stored: false, bytes: 0, windows: 0, likest: 0.0, found: Vec::new() }
    }

    /// Looks for vectors in the form alone in which Postgres has them.
    #[must_use]
    pub fn as_stored(mut self) -> Self {
        self.as_stored = true;
        self
    }

    /// Looks through every file below `folder`. What is removed meanwhile is not there.
    pub fn folder(&mut self, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            match fs::symlink_metadata(&path) {
                Ok(kind) if kind.is_dir() => self.folder(&path)?,
                Ok(kind) if kind.is_file() => self.file(&path)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks through a file.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let Ok(content) = fs::read(path) else { return Ok(()) };
        self.bytes += content.len() as u64;
        let mut from = 0;
        while from < content.len() {
            let to = content.len().min(from + PIECE + OVERLAP);
            self.binary(path, &content[from..to]);
            from += PIECE;
        }
        if !self.as_stored {
            self.text(path, &content);
        }
        Ok(())
    }

    fn binary(&mut self, path: &Path, bytes: &[u8]) {
        self.each(path, "f32", bytes, 4, SOMEBODYS, |four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        if self.as_stored {
            return;
        }
        self.each(path, "f16", bytes, 2, SOMEBODYS, |two| half(u16::from_le_bytes([two[0], two[1]])));
        self.each(path, "bf16", bytes, 2, SOMEBODYS, |two| {
            f32::from_bits(u32::from(u16::from_le_bytes([two[0], two[1]])) << 16)
        });
        self.each(path, "i8", bytes, 1, SOMEBODYS_I8, |one| f32::from(i8::from_le_bytes([one[0]])));
    }

    fn each(
        &mut self,
        path: &Path,
        kind: &'static str,
        bytes: &[u8],
        width: usize,
        somebodys: f32,
        read: impl Fn(&[u8]) -> f32,
    ) {
        let mut window = [0.0; HALF];
        for at in 0..(bytes.len() + 1).saturating_sub(width * HALF) {
            let here = &bytes[at..at + width * HALF];
            if !could_be(here, width, &read) {
                continue;
            }
            for (component, raw) in window.iter_mut().zip(here.chunks_exact(width)) {
                *component = read(raw);
            }
            self.compare(path, kind, &window, somebodys);
        }
    }

    fn compare(&mut self, path: &Path, kind: &'static str, window: &[f32; HALF], somebodys: f32) {
        let norm = dot(window, window).sqrt();
        if !norm.is_finite() || norm < 1e-12 {
            return;
        }
        self.windows += 1;
        for half in &self.halves {
            // What is not alike at all in its first quarter is not looked at to its end.
            if kind == "i8" && dot(&half[..LANES * 4], &window[..LANES * 4]) < HARDLY * norm {
                continue;
            }
            let cosine = dot(half, window) / norm;
            self.likest = self.likest.max(cosine);
            if cosine > somebodys && !self.found.iter().any(|found| found.file == path && found.kind == kind) {
                self.found.push(Found { file: path.to_owned(), kind, cosine });
            }
        }
    }

    /// What text hides: runs that are base64 or hexadecimal digits, and lists of numbers.
    fn text(&mut self, path: &Path, content: &[u8]) {
        for run in runs(content, is_base64, HALF).filter(|run| !run.iter().all(u8::is_ascii_hexdigit)) {
            // Where the text of the value begins in the run is not known.
            for shift in 0..4.min(run.len()) {
                let whole = &run[shift..run.len() - (run.len() - shift) % 4];
                if let Ok(bytes) = STANDARD_NO_PAD.decode(plus_and_slash(whole)) {
                    self.binary(path, &bytes);
                }
            }
        }
        for run in runs(content, |byte| byte.is_ascii_hexdigit(), 2 * HALF) {
            for shift in 0..2 {
                let whole = &run[shift..run.len() - (run.len() - shift) % 2];
                if let Ok(bytes) = hex::decode(whole) {
                    self.binary(path, &bytes);
                }
            }
        }
        for run in runs(content, |byte| b"0123456789+-.eE, \t\n\r".contains(&byte), 2 * HALF) {
            let numbers: Vec<f32> = String::from_utf8_lossy(run)
                .split([',', ' ', '\t', '\n', '\r'])
                .filter(|word| !word.is_empty())
                .map(|word| word.parse().unwrap_or(f32::NAN))
                .collect();
            for window in numbers.windows(HALF) {
                if window.iter().all(|x| x.is_finite()) {
                    self.compare(path, "numbers", window.try_into().expect("a window of that length"), SOMEBODYS);
                }
            }
        }
    }
}

/// Whether the first components could be a vector's: most of them not zero, none of a size that no component has, and of both signs,
/// which text is not.
fn could_be(bytes: &[u8], width: usize, read: &impl Fn(&[u8]) -> f32) -> bool {
    let (mut zeros, mut negative) = (0, 0);
    for raw in bytes.chunks_exact(width).take(LOOKED_AT) {
        let component = read(raw);
        let size = component.abs();
        if size == 0.0 {
            zeros += 1;
        } else if !(1e-9..=1e4).contains(&size) {
            return false;
        }
        negative += usize::from(component < 0.0);
    }
    zeros <= LOOKED_AT / 4 && negative > 0 && negative < LOOKED_AT - zeros
}

/// In lanes, which the compiler keeps in one register.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in one.chunks_exact(LANES).zip(other.chunks_exact(LANES)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

fn unit(half: &[f32]) -> [f32; HALF] {
    let norm = half.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    std::array::from_fn(|index| half[index] / norm)
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2_f32.powi(-24),
        31 => f32::INFINITY,
        _ => (1.0 + fraction / 1024.0) * 2_f32.powi(exponent - 15),
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

fn plus_and_slash(text: &[u8]) -> Vec<u8> {
    let letter = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    text.iter().map(letter).collect()
}

fn runs(content: &[u8], of: impl Fn(u8) -> bool, at_least: usize) -> impl Iterator<Item = &[u8]> {
    content.split(move |byte| !of(*byte)).filter(move |run| run.len() >= at_least)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody; deterministic, and unlike others.
    fn somebody(seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        let mut component = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (f64::from(state) / f64::from(u32::MAX) - 0.5) as f32 / 13.0
        };
        (0..2 * HALF).map(|_| component()).collect()
    }

    fn found(content: &[u8]) -> Vec<&'static str> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), content).unwrap();
        let mut scan = Scan::of(&[somebody(1)]);
        scan.folder(dir.path()).unwrap();
        scan.found.iter().map(|found| found.kind).collect()
    }

    fn f32s(of: &[f32]) -> Vec<u8> {
        of.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn somebody_is_found_in_every_form_and_a_stranger_in_none() {
        let them = somebody(1);
        let f16 = |x: &f32| {
            let bits = x.to_bits();
            let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
            if exponent <= 0 {
                0
            } else {
                (bits >> 16 & 0x8000) as u16 | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16
            }
        };
        let i8s: Vec<u8> = them.iter().map(|x| (x * 3_000.0) as i8 as u8).collect();
        let forms: [(&str, Vec<u8>); 7] = [
            ("f32", f32s(&them)),
            ("f16", them.iter().flat_map(|x| f16(x).to_le_bytes()).collect()),
            ("bf16", them.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect()),
            ("i8", i8s),
            ("f32", STANDARD_NO_PAD.encode(f32s(&them)).into_bytes()),
            ("f32", hex::encode(f32s(&them)).into_bytes()),
            ("numbers", format!("[{}]", them.iter().map(f32::to_string).collect::<Vec<_>>().join(", ")).into_bytes()),
        ];
        for (kind, form) in forms {
            for before in [0, 1, 3] {
                let content = [b"x\0{\"z"[..before].to_vec(), form.clone(), b"}more".to_vec()].concat();
                assert!(found(&content).contains(&kind), "{kind} after {before}: {:?}", found(&content));
            }
        }
        assert!(found(&f32s(&somebody(2))).is_empty());
        assert!(found(&f32s(&them)[..4 * HALF - 1]).is_empty(), "less than half");
        assert_eq!(found(&f32s(&them)[..4 * HALF]), ["f32"]);
    }
}
