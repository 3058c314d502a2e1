//! The packs there are: the one that came with the program, and those that were added, each in a folder of its own.
//!
//! In: `[models]`. Out: [`Shelved`] packs with what their manifests say, and [`find`] by name. Reads manifests and file
//! sizes only; whether the bytes are right is for [`super::proof`] and for opening.

use std::fs;
use std::path::{Path, PathBuf};

use face_runtime::Manifest;

use super::ModelsConfig;
use crate::logging::chain;

/// The name of the pack that came with the program, whatever it is called itself.
pub const DEFAULT_PACK: &str = "default";
/// The manifest inside a pack's folder.
pub const MANIFEST_FILE: &str = "manifest.toml";
/// Longest manifest that is read: a hundred times the default pack's.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// Where a pack's parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackPlace {
    /// Its manifest.
    pub manifest: PathBuf,
    /// The folder of its weights.
    pub weights: PathBuf,
}

impl PackPlace {
    /// A pack with everything in one folder.
    #[must_use]
    pub fn folder(dir: &Path) -> Self {
        Self { manifest: dir.join(MANIFEST_FILE), weights: dir.to_owned() }
    }
}

/// A pack on the shelf.
#[derive(Debug)]
pub struct Shelved {
    /// Where it is.
    pub place: PackPlace,
    /// Whether it came with the program.
    pub is_default: bool,
    /// What its manifest says, or why that cannot be read.
    pub manifest: Result<Manifest, String>,
}

impl Shelved {
    fn new(place: PackPlace, is_default: bool) -> Self {
        let manifest = read_manifest(&place.manifest);
        Self { place, is_default, manifest }
    }

    /// Name and version, or the folder's name when the manifest cannot be read.
    #[must_use]
    pub fn full_name(&self) -> String {
        match &self.manifest {
            Ok(manifest) => full_name(manifest),
            Err(_) => self.place.weights.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    fn is_called(&self, name: &str) -> bool {
        let own = self.manifest.as_ref().is_ok_and(|manifest| manifest.name == name);
        own || self.full_name() == name || (self.is_default && name == DEFAULT_PACK)
    }

    /// The first file that is missing or has another length than the manifest says.
    #[must_use]
    pub fn incomplete(&self) -> Option<String> {
        let manifest = self.manifest.as_ref().ok()?;
        manifest.files().iter().find_map(|file| match fs::metadata(self.place.weights.join(&file.path)) {
            Ok(found) if found.len() == file.size_bytes => None,
            Ok(found) => {
                Some(format!("{} has {} bytes instead of {}", file.path.display(), found.len(), file.size_bytes))
            }
            Err(error) => Some(format!("{}: {error}", file.path.display())),
        })
    }
}

/// Name and version as one word, which is also the folder's name.
#[must_use]
pub fn full_name(manifest: &Manifest) -> String {
    format!("{}-{}", manifest.name, manifest.version)
}

/// Why a pack is not found.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The folder of the added packs cannot be read.
    #[error("folder {} of the model packs cannot be read; correct [models] packs_dir", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No pack has that name.
    #[error("there is no model pack {asked}; there is {known}. `edge-agent models add DIR` adds one")]
    Unknown {
        /// The name asked for.
        asked: String,
        /// The names there are.
        known: String,
    },
    /// Several versions have that name.
    #[error("{asked} may be {candidates}: name the version too")]
    Ambiguous {
        /// The name asked for.
        asked: String,
        /// Who has it.
        candidates: String,
    },
}

/// Every pack, the default one first, then by name.
///
/// # Errors
/// When the folder of the added packs exists and cannot be read. A pack whose manifest is wrong is listed with the reason.
pub fn list(config: &ModelsConfig) -> Result<Vec<Shelved>, ShelfError> {
    let default = PackPlace { manifest: config.manifest.clone(), weights: config.weights.clone() };
    let mut packs = vec![Shelved::new(default, true)];
    let unreadable = |source| ShelfError::Unreadable { path: config.packs_dir.clone(), source };
    let entries = match fs::read_dir(&config.packs_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(packs),
        Err(error) => return Err(unreadable(error)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        // A name with a dot in front is a pack that is being added or removed.
        if !entry.file_name().to_string_lossy().starts_with('.') && entry.path().is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    packs.extend(folders.iter().map(|folder| Shelved::new(PackPlace::folder(folder), false)));
    Ok(packs)
}

/// The one pack of this name: `default`, a name, or name-version.
///
/// # Errors
/// [`ShelfError`] when there is none, or when several versions have the name.
pub fn find(config: &ModelsConfig, asked: &str) -> Result<PackPlace, ShelfError> {
    if asked == DEFAULT_PACK {
        // Found even when its manifest is missing: opening it then says which file that is.
        return Ok(PackPlace { manifest: config.manifest.clone(), weights: config.weights.clone() });
    }
    let packs = list(config)?;
    let names = |packs: &[&Shelved]| packs.iter().map(|pack| pack.full_name()).collect::<Vec<_>>().join(", ");
    let found: Vec<&Shelved> = packs.iter().filter(|pack| pack.is_called(asked)).collect();
    match found.as_slice() {
        [one] => Ok(one.place.clone()),
        [] => Err(ShelfError::Unknown { asked: asked.to_owned(), known: names(&packs.iter().collect::<Vec<_>>()) }),
        several => Err(ShelfError::Ambiguous { asked: asked.to_owned(), candidates: names(several) }),
    }
}

/// Reads and checks a manifest; the error is a whole sentence.
pub(super) fn read_manifest(path: &Path) -> Result<Manifest, String> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_MANIFEST_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(format!("{}: is longer than {MAX_MANIFEST_BYTES} bytes, which no manifest is", path.display()));
    }
    Manifest::parse(&text).map_err(|error| format!("{}: {}", path.display(), chain(&error)))
}
