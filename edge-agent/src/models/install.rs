//! Adding a pack from a folder, and removing one.
//!
//! In: a folder with `manifest.toml` and the files it names. Out: the same under `packs_dir`, proved, whole or not at all.
//! What is proved is the copy, so a file swapped in the source meanwhile changes nothing. Deliberately absent: taking a
//! pack into use, which the configuration says.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use face_runtime::Manifest;
use rustix::fs::{FlockOperation, flock};

use super::ModelsConfig;
use super::proof::{Proof, ProofError, prove};
use super::shelf::{self, DEFAULT_PACK, MANIFEST_FILE, PackPlace, ShelfError, full_name};

/// Why nothing was added or removed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The manifest of the folder is missing or wrong.
    #[error("{0}")]
    Manifest(String),
    /// A pack may not take the name that stands for the shipped one.
    #[error("a pack cannot be called {DEFAULT_PACK}: that name stands for the pack that came with the program")]
    ReservedName,
    /// Another pack of the same name and version is there.
    #[error(
        "{name} is there already, with another manifest; give this one another version, or `edge-agent models remove {name}` first"
    )]
    Exists {
        /// Name and version.
        name: String,
    },
    /// The copy is not what its manifest says.
    #[error("{name} is refused")]
    Refused {
        /// Name and version.
        name: String,
        /// Why.
        source: ProofError,
    },
    /// The system refuses.
    #[error("{}", path.display())]
    Files {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else is adding or removing.
    #[error("another `edge-agent models` is changing {}: try again when it has ended", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The pack in use must stay.
    #[error("{name} is in use ([models] pack): take another pack into use first")]
    InUse {
        /// Name and version.
        name: String,
    },
    /// The default pack belongs to the installation.
    #[error("{name} came with the program and is not removed; remove the program's package instead")]
    Shipped {
        /// Name and version.
        name: String,
    },
    /// The name does not say which pack.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
}

/// What adding came to.
#[derive(Debug)]
pub struct Added {
    /// Name and version.
    pub name: String,
    /// Where it stands now.
    pub dir: PathBuf,
    /// What it is and runs on.
    pub proof: Proof,
    /// Whether the very same pack was there before, so that nothing had to be copied.
    pub was_there: bool,
}

/// Copies a pack onto the shelf and proves it there. `step` is told what is being done.
///
/// # Errors
/// [`InstallError`]; nothing of the pack is left behind then.
pub fn add(config: &ModelsConfig, source: &Path, mut step: impl FnMut(&str)) -> Result<Added, InstallError> {
    let from = PackPlace::folder(source);
    let manifest = shelf::read_manifest(&from.manifest).map_err(InstallError::Manifest)?;
    if manifest.name == DEFAULT_PACK {
        return Err(InstallError::ReservedName);
    }
    let name = full_name(&manifest);
    let _lock = lock(&config.packs_dir)?;
    let dir = config.packs_dir.join(&name);
    if dir.exists() {
        return already_there(config, &from, dir, name);
    }
    let building = config.packs_dir.join(format!(".adding-{name}"));
    // Left by an attempt that was cut off; the lock says that nobody is at it now.
    remove_tree(&building)?;
    let proof = copy(&from, &manifest, &building, &mut step).and_then(|()| {
        step("examining");
        let refused = |source| InstallError::Refused { name: name.clone(), source };
        prove(config, &PackPlace::folder(&building)).map_err(refused)
    });
    let proof = match proof {
        Ok(proof) => proof,
        Err(error) => {
            remove_tree(&building)?;
            return Err(error);
        }
    };
    fs::rename(&building, &dir).map_err(at(&dir))?;
    sync(&config.packs_dir)?;
    Ok(Added { name, dir, proof, was_there: false })
}

fn already_there(config: &ModelsConfig, from: &PackPlace, dir: PathBuf, name: String) -> Result<Added, InstallError> {
    let read = |path: &Path| fs::read(path).map_err(at(path));
    if read(&from.manifest)? != read(&dir.join(MANIFEST_FILE))? {
        return Err(InstallError::Exists { name });
    }
    let proof = prove(config, &PackPlace::folder(&dir));
    let proof = proof.map_err(|source| InstallError::Refused { name: name.clone(), source })?;
    Ok(Added { name, dir, proof, was_there: true })
}

/// Only what the manifest names is taken, each file to its last byte on the disk.
fn copy(from: &PackPlace, manifest: &Manifest, to: &Path, step: &mut impl FnMut(&str)) -> Result<(), InstallError> {
    fs::create_dir_all(to).map_err(at(to))?;
    copy_file(&from.manifest, &to.join(MANIFEST_FILE), shelf::MAX_MANIFEST_BYTES)?;
    for file in manifest.files() {
        step(&format!("copying {}", file.path.display()));
        copy_file(&from.weights.join(&file.path), &to.join(&file.path), file.size_bytes)?;
    }
    sync(to)
}

/// One byte more than allowed is copied too, so that the proof sees that the file is too long.
fn copy_file(from: &Path, to: &Path, max_bytes: u64) -> Result<(), InstallError> {
    let source = File::open(from).map_err(at(from))?;
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let mut target = File::create_new(to).map_err(at(to))?;
    io::copy(&mut io::Read::take(source, max_bytes + 1), &mut target).map_err(at(to))?;
    target.sync_all().map_err(at(to))
}

/// Takes a pack off the shelf. The running agent keeps what it has in memory.
///
/// # Errors
/// [`InstallError`] for the pack in use, the default one, or one that is not there.
pub fn remove(config: &ModelsConfig, asked: &str) -> Result<String, InstallError> {
    let place = shelf::find(config, asked)?;
    let packs = shelf::list(config)?;
    let pack = packs.iter().find(|pack| pack.place == place).ok_or_else(|| ShelfError::Unknown {
        asked: asked.to_owned(),
        known: packs.iter().map(shelf::Shelved::full_name).collect::<Vec<_>>().join(", "),
    })?;
    let name = pack.full_name();
    if pack.is_default {
        return Err(InstallError::Shipped { name });
    }
    // A pack in use that cannot be found is not this one.
    if shelf::find(config, &config.pack).is_ok_and(|in_use| in_use == place) {
        return Err(InstallError::InUse { name });
    }
    let _lock = lock(&config.packs_dir)?;
    let going = config.packs_dir.join(format!(".removing-{name}"));
    remove_tree(&going)?;
    // Off the shelf in one step: a pack of which half is gone must not be found.
    fs::rename(&place.weights, &going).map_err(at(&place.weights))?;
    sync(&config.packs_dir)?;
    remove_tree(&going)?;
    Ok(name)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError + use<> {
    let path = path.to_owned();
    move |source| InstallError::Files { path, source }
}

fn lock(dir: &Path) -> Result<File, InstallError> {
    fs::create_dir_all(dir).map_err(at(dir))?;
    let path = dir.join(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(InstallError::Busy { path: dir.to_owned() }),
        Err(error) => Err(at(&path)(error.into())),
    }
}

fn remove_tree(dir: &Path) -> Result<(), InstallError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(dir)(error)),
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> Result<(), InstallError> {
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(at(dir))
}
