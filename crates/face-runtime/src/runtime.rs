//! ONNX Runtime's shared library, loaded once per process from a path, and the choice of execution provider.
//!
//! In: the path of `libonnxruntime.so`. Out: a [`Runtime`], which sessions are made from, and for each pack a
//! [`ProviderReport`] that says which provider runs it and why each one before it does not. Nothing is looked for on
//! the library path and nothing is downloaded: the operator named one file, and that file or nothing is used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::ep::{self, ExecutionProvider};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::denormals::DenormalsAreZero;

/// Why ONNX Runtime could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such file, or it cannot be reached.
    #[error("ONNX Runtime library {}: cannot be opened; run scripts/setup or set the path in [models] onnxruntime", path.display())]
    Missing {
        /// The path that was given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is there, but it is not an ONNX Runtime that this program can use.
    #[error("ONNX Runtime library {}: cannot be used; a build of ONNX Runtime 1.{} or later for this processor is needed", path.display(), ort::MINOR_VERSION)]
    Unusable {
        /// The path that was given.
        path: PathBuf,
        /// What the loader said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A process can hold one ONNX Runtime only.
    #[error("ONNX Runtime library {}: this process has already loaded {}", asked.display(), loaded.display())]
    AlreadyLoaded {
        /// The path that was given now.
        asked: PathBuf,
        /// The path that was loaded before.
        loaded: PathBuf,
    },
}

/// A loaded ONNX Runtime. Cheap to clone; the library stays loaded until the process ends.
#[derive(Debug, Clone)]
pub struct Runtime {
    environment: ort::environment::Environment,
    library: PathBuf,
}

/// ONNX Runtime allows one environment a process, for ever; it is kept here because `ort` itself only remembers it
/// weakly and would refuse to make a second one after the first is dropped.
static LOADED: OnceLock<Runtime> = OnceLock::new();

/// Held while loading, so that two threads do not both try.
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Loads the shared library at `library`, or gives back the one already loaded from there.
    ///
    /// # Errors
    /// [`RuntimeError`]: the file is missing, is no ONNX Runtime, is too old, or another one is already loaded.
    pub fn load(library: &Path) -> Result<Self, RuntimeError> {
        let path =
            library.canonicalize().map_err(|source| RuntimeError::Missing { path: library.to_owned(), source })?;
        let _guard = LOADING.lock();
        if let Some(runtime) = LOADED.get() {
            return if runtime.library == path {
                Ok(runtime.clone())
            } else {
                Err(RuntimeError::AlreadyLoaded { asked: path, loaded: runtime.library.clone() })
            };
        }
        let runtime = Self { environment: open_environment(&path)?, library: path };
        Ok(LOADED.get_or_init(|| runtime).clone())
    }

    /// The file that was loaded, with symbolic links resolved.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// ONNX Runtime's own line about its build: version, commit, flags.
    #[must_use]
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }

    /// Whether the library was built with this provider. Says nothing of the hardware: that shows when a model is opened.
    #[must_use]
    pub fn offers(&self, provider: Provider) -> bool {
        provider.is_built_in().unwrap_or(false)
    }

    /// A builder with the options that every session shares.
    fn session_builder(&self, options: &SessionOptions) -> ort::Result<SessionBuilder> {
        Ok(Session::builder(&self.environment)?
            .with_log_level(LogLevel::Error)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(options.intra_threads)?
            .with_inter_threads(1)?
            // Idle threads of ONNX Runtime spin by default: a door that nobody stands at would cost a whole core.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // For its worker threads; the calling one is seen to at each run.
            .with_flush_to_zero()?
            // All shapes are fixed, so one planned block serves every run and the arena cannot grow.
            .with_memory_pattern(true)?
            // A model from memory has no folder; one that refers to outside data must fail, not read our files.
            .with_config_entry("session.model_external_initializers_file_folder_path", NO_FOLDER)?)
    }

    /// Makes a session of `model` on the first provider in `options` that takes it.
    ///
    /// The error is that of the CPU provider, or of the last one asked if the CPU was not allowed.
    pub(crate) fn open_session(
        &self,
        model: &[u8],
        options: &SessionOptions,
    ) -> Result<(Session, ProviderReport), NoProvider> {
        let mut skipped = Vec::new();
        for &provider in &options.providers {
            match self.try_provider(model, options, provider) {
                Ok(session) => return Ok((session, ProviderReport { used: provider, skipped })),
                Err(reason) => skipped.push(SkippedProvider { provider, reason }),
            }
        }
        Err(NoProvider(skipped))
    }

    fn try_provider(&self, model: &[u8], options: &SessionOptions, provider: Provider) -> Result<Session, String> {
        if !provider.is_built_in().map_err(|error| error.to_string())? {
            return Err(format!("the library was built without it ({})", self.library.display()));
        }
        let mut builder = self.session_builder(options).map_err(|error| error.to_string())?;
        provider.register(&mut builder, options).map_err(|error| format!("cannot be started: {error}"))?;
        // ONNX Runtime sets the control word of whoever makes its first session, and never puts it back.
        let _put_back = DenormalsAreZero::here();
        builder.commit_from_memory(model).map_err(|error| format!("refuses the model: {error}"))
    }
}

/// A folder that cannot exist, because `/dev/null` is not a folder.
const NO_FOLDER: &str = "/dev/null/no-external-data";

fn open_environment(path: &Path) -> Result<ort::environment::Environment, RuntimeError> {
    let unusable =
        |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Unusable { path: path.to_owned(), source };
    let environment = ort::init_from(path)
        .map_err(|error| unusable(error.to_string().into()))?
        .with_name("lintel")
        .with_telemetry(false)
        .build()
        .map_err(|error| unusable(error.to_string().into()))?;
    // `ort` opens the environment at the verbose level; the flood would be formatted and then thrown away.
    environment.set_log_level(LogLevel::Warning);
    tracing::info!(library = %path.display(), build = ort::info(), "onnx runtime loaded");
    Ok(environment)
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// NVIDIA TensorRT: engines built for the very GPU.
    Tensorrt,
    /// NVIDIA CUDA.
    Cuda,
    /// The processor; always there.
    Cpu,
}

impl Provider {
    /// The order in which providers are tried unless the operator says otherwise.
    pub const PREFERENCE: [Self; 3] = [Self::Tensorrt, Self::Cuda, Self::Cpu];

    fn is_built_in(self) -> ort::Result<bool> {
        match self {
            Self::Tensorrt => ep::TensorRT::is_available(),
            Self::Cuda => ep::CUDA::is_available(),
            Self::Cpu => Ok(true),
        }
    }

    fn register(self, builder: &mut SessionBuilder, options: &SessionOptions) -> ort::Result<()> {
        match self {
            Self::Tensorrt => {
                let mut provider = ep::TensorRT::default();
                if let Some(folder) = &options.engine_cache_dir {
                    let folder = folder.display().to_string();
                    provider = provider.with_engine_cache(true).with_engine_cache_path(&folder);
                    provider = provider.with_timing_cache(true).with_timing_cache_path(&folder);
                }
                provider.register(builder)
            }
            Self::Cuda => ep::CUDA::default().register(builder),
            Self::Cpu => Ok(()),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tensorrt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        })
    }
}

/// Which provider runs a model, and why those before it in the order do not. Kept for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderReport {
    /// The provider that runs the model.
    pub used: Provider,
    /// Those that were tried first.
    pub skipped: Vec<SkippedProvider>,
}

/// A provider that was tried and is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedProvider {
    /// The provider.
    pub provider: Provider,
    /// Why it is not used, in words for the operator.
    pub reason: String,
}

/// No provider in the list took the model.
#[derive(Debug)]
pub(crate) struct NoProvider(pub(crate) Vec<SkippedProvider>);

impl fmt::Display for NoProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the list of providers is empty");
        }
        for (index, skipped) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", skipped.provider, skipped.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for NoProvider {}

/// How sessions are made.
#[derive(Debug, Clone)]
pub(crate) struct SessionOptions {
    pub(crate) intra_threads: usize,
    pub(crate) providers: Vec<Provider>,
    pub(crate) engine_cache_dir: Option<PathBuf>,
}
