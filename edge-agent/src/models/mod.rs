//! The model packs of this device: which one is in use, which others stand beside it.
//!
//! In: `[models]`. Out: an opened [`ModelPack`], or an error that names the file and what to do. Everything that proves
//! a pack (hashes, shapes, warm-up answers) is `face-runtime`'s. [`shelf`] finds packs, [`install`] adds and removes them,
//! [`proof`] opens one in a process of its own. Packs stand side by side by their `space_id`: a gallery may hold
//! templates of several, and those of the pack in use are searched.

pub mod install;
pub mod proof;
pub mod shelf;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use face_runtime::{ModelPack, PackError, PackOptions, Provider, Runtime, RuntimeError};
use serde::Deserialize;

use shelf::{PackPlace, ShelfError};

/// `[models]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelsConfig {
    /// The manifest of the pack that came with the program.
    pub manifest: PathBuf,
    /// The folder of its weights.
    pub weights: PathBuf,
    /// The folder of the packs that were added.
    pub packs_dir: PathBuf,
    /// The pack in use: `default`, or name or name-version of any pack.
    pub pack: String,
    /// ONNX Runtime's shared library.
    pub onnxruntime: PathBuf,
    /// Where models run, in the order in which it is tried.
    pub providers: Vec<Provider>,
    /// Where TensorRT keeps the engines it has built.
    pub engine_cache_dir: PathBuf,
    /// Sessions of each model.
    pub sessions: usize,
    /// Threads inside one run.
    pub intra_threads: usize,
}

/// Why there are no models.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// ONNX Runtime cannot be loaded.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The pack that is asked for cannot be found.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The pack is refused.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// TensorRT has nowhere to keep its engines.
    #[error("folder {} for engines cannot be made; correct [models] engine_cache_dir", path.display())]
    EngineCache {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Loads ONNX Runtime and opens the pack in use; about half a second on one core, and minutes when TensorRT builds its
/// engines for the first time.
///
/// # Errors
/// [`ModelsError`] for the first thing that is not as the manifest says.
pub fn open(config: &ModelsConfig) -> Result<Arc<ModelPack>, ModelsError> {
    let place = shelf::find(config, &config.pack)?;
    Ok(Arc::new(open_at(config, &place)?))
}

/// As [`open`], for any pack.
///
/// # Errors
/// As [`open`].
pub fn open_at(config: &ModelsConfig, place: &PackPlace) -> Result<ModelPack, ModelsError> {
    let runtime = Runtime::load(&config.onnxruntime)?;
    let options = PackOptions {
        sessions: config.sessions,
        intra_threads: config.intra_threads,
        providers: config.providers.clone(),
        engine_cache_dir: engine_cache(config, &runtime)?,
    };
    Ok(ModelPack::open(&runtime, &place.manifest, &place.weights, &options)?)
}

/// Only TensorRT builds engines; on other devices the folder is not even made.
fn engine_cache(config: &ModelsConfig, runtime: &Runtime) -> Result<Option<PathBuf>, ModelsError> {
    let path: &Path = &config.engine_cache_dir;
    if !config.providers.contains(&Provider::Tensorrt) || !runtime.offers(Provider::Tensorrt) {
        return Ok(None);
    }
    std::fs::create_dir_all(path).map_err(|source| ModelsError::EngineCache { path: path.to_owned(), source })?;
    Ok(Some(path.to_owned()))
}

/// The pack as name and version, for events and status.
#[must_use]
pub fn pack_name(pack: &ModelPack) -> String {
    let manifest = pack.manifest();
    format!("{}-{}", manifest.name, manifest.version)
}

/// Where each model runs, in one line.
#[must_use]
pub fn providers_told(pack: &ModelPack) -> String {
    let told: Vec<String> = pack.providers().iter().map(|(task, report)| format!("{task}={}", report.used)).collect();
    told.join(" ")
}
