//! The model pack that this program runs on.
//!
//! In: `[models]`. Out: an opened [`ModelPack`], or an error that names the file and what to do. Everything that proves
//! a pack (hashes, shapes, warm-up answers) is `face-runtime`'s.

use std::path::PathBuf;
use std::sync::Arc;

use face_runtime::{ModelPack, PackError, PackOptions, Runtime, RuntimeError};
use serde::Deserialize;

/// `[models]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelsConfig {
    /// The pack's manifest.
    pub manifest: PathBuf,
    /// The folder of its weights.
    pub weights: PathBuf,
    /// ONNX Runtime's shared library.
    pub onnxruntime: PathBuf,
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
    /// The pack is refused.
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// Loads ONNX Runtime and opens the pack; about half a second on one core.
///
/// # Errors
/// [`ModelsError`] for the first thing that is not as the manifest says.
pub fn open(config: &ModelsConfig) -> Result<Arc<ModelPack>, ModelsError> {
    let runtime = Runtime::load(&config.onnxruntime)?;
    let options =
        PackOptions { sessions: config.sessions, intra_threads: config.intra_threads, ..PackOptions::default() };
    Ok(Arc::new(ModelPack::open(&runtime, &config.manifest, &config.weights, &options)?))
}

/// The pack as name and version, for events and status.
#[must_use]
pub fn pack_name(pack: &ModelPack) -> String {
    let manifest = pack.manifest();
    format!("{}-{}", manifest.name, manifest.version)
}
