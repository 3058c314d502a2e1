//! A model pack, opened and proved: every file is the manifest's, and every model answers as it should.
//!
//! In: a manifest, the directory with the weights, a [`Runtime`]. Out: a [`ModelPack`], which implements all of
//! `face-core`'s model traits with `&self`. The order of the checks is the point: length and SHA-256 before ONNX
//! Runtime parses a byte, names and shapes before the first run, the warm-up answer before the first frame. A model is
//! loaded from the very bytes that were hashed, so a file swapped in between changes nothing.
//!
//! Nothing is downloaded and nothing is repaired here: a pack is right or it is refused.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};
use ring::digest;

use crate::manifest::{Manifest, ManifestError, ModelFile, Task};
use crate::runtime::{NoProvider, Provider, ProviderReport, Runtime, SessionOptions};
use crate::session::{InferenceError, PoolUse, SessionPool};
use crate::warm_up::{self, WrongAnswer};

/// Why a pack was refused. Every message names the file; the sources say what exactly differed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The manifest cannot be opened.
    #[error("model manifest {}: cannot be read; check [models] manifest", path.display())]
    ManifestUnreadable {
        /// Path of the manifest.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The manifest is there and wrong.
    #[error("model manifest {}: refused", path.display())]
    Manifest {
        /// Path of the manifest.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ManifestError,
    },
    /// A model file cannot be opened.
    #[error("model {}: cannot be read; run scripts/setup, or check [models] weights", path.display())]
    FileUnreadable {
        /// Path of the file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A model file is shorter or longer than the manifest says, as after a broken download.
    #[error("model {}: has {found} bytes, the manifest says {expected}; fetch it again (scripts/setup does for the default pack)", path.display())]
    WrongSize {
        /// Path of the file.
        path: PathBuf,
        /// Length found, capped at one byte more than expected.
        found: u64,
        /// Length in the manifest.
        expected: u64,
    },
    /// A model file has the right length and other bytes.
    #[error("model {}: sha256 is {found}, the manifest says {expected}; fetch it again (scripts/setup does for the default pack)", path.display())]
    WrongHash {
        /// Path of the file.
        path: PathBuf,
        /// Hash found.
        found: String,
        /// Hash in the manifest.
        expected: String,
    },
    /// No execution provider took the model.
    #[error("model {}: ONNX Runtime cannot run it; the file, the library or [models] providers must be changed", path.display())]
    NotRunnable {
        /// Path of the file.
        path: PathBuf,
        /// What each provider said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Inputs or outputs of the model are not the manifest's.
    #[error("model {}: expected {expected}, found {found}; the manifest does not belong to this file", path.display())]
    WrongShape {
        /// Path of the file.
        path: PathBuf,
        /// What the manifest says.
        expected: String,
        /// What the model has.
        found: String,
    },
    /// The model gave another answer to its warm-up question.
    #[error("model {}: wrong warm-up answer; this build of ONNX Runtime or this provider computes something else, use another", path.display())]
    WrongAnswer {
        /// Path of the file.
        path: PathBuf,
        /// Which figure differs.
        #[source]
        source: WrongAnswer,
    },
    /// The warm-up run itself failed.
    #[error("model {}: the warm-up run failed", path.display())]
    WarmUpFailed {
        /// Path of the file.
        path: PathBuf,
        /// Why.
        #[source]
        source: InferenceError,
    },
    /// The manifest is consistent, but this program cannot use what it describes.
    #[error("model {}: cannot be used for {task}: {problem}", path.display())]
    Unsupported {
        /// Path of the file.
        path: PathBuf,
        /// The task it is given for.
        task: Task,
        /// Why not.
        problem: &'static str,
    },
    /// An option makes no sense.
    #[error("model options: {0}")]
    Options(&'static str),
}

/// How a pack is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackOptions {
    /// Sessions of each model, that is, how many threads may run it at the same time. At least 1.
    pub sessions: usize,
    /// Threads inside one run. At least 1.
    pub intra_threads: usize,
    /// Providers in the order in which they are tried.
    pub providers: Vec<Provider>,
    /// Where TensorRT keeps the engines it has built; none means that they are built at every start.
    pub engine_cache_dir: Option<PathBuf>,
}

impl Default for PackOptions {
    /// One session with one thread: on a door's two cores, capture and decoding need the other one.
    fn default() -> Self {
        Self { sessions: 1, intra_threads: 1, providers: Provider::PREFERENCE.to_vec(), engine_cache_dir: None }
    }
}

/// An opened pack. Share it by `Arc`; every method takes `&self`.
pub struct ModelPack {
    manifest: Manifest,
    pools: Pools,
    providers: Vec<(Task, ProviderReport)>,
}

/// One pool for each task.
pub(crate) struct Pools {
    pub(crate) detect: SessionPool,
    pub(crate) landmark: SessionPool,
    pub(crate) feature: SessionPool,
    pub(crate) liveness: SessionPool,
    pub(crate) eye: SessionPool,
    pub(crate) pose: SessionPool,
}

impl ModelPack {
    /// Opens and proves a pack: reads `manifest`, then every model in the directory `weights`.
    ///
    /// Takes about half a second for the default pack on one core.
    ///
    /// # Errors
    /// [`PackError`] for the first thing that differs from the manifest. Nothing of a refused pack stays in use.
    pub fn open(runtime: &Runtime, manifest: &Path, weights: &Path, options: &PackOptions) -> Result<Self, PackError> {
        let text = std::fs::read_to_string(manifest)
            .map_err(|source| PackError::ManifestUnreadable { path: manifest.to_owned(), source })?;
        let parsed =
            Manifest::parse(&text).map_err(|source| PackError::Manifest { path: manifest.to_owned(), source })?;
        Self::open_manifest(runtime, parsed, weights, options)
    }

    /// As [`ModelPack::open`], with a manifest already parsed.
    ///
    /// # Errors
    /// [`PackError`], as `open`.
    pub fn open_manifest(
        runtime: &Runtime,
        manifest: Manifest,
        weights: &Path,
        options: &PackOptions,
    ) -> Result<Self, PackError> {
        if options.sessions == 0 || options.intra_threads == 0 {
            return Err(PackError::Options("sessions and intra_threads must be at least 1"));
        }
        crate::models::check_contracts(&manifest, weights)?;
        let opener = Opener { runtime, weights, options };
        let mut providers = Vec::new();
        let mut pool = |task| -> Result<SessionPool, PackError> {
            let (pool, report) = opener.open(manifest.file(task))?;
            providers.push((task, report));
            Ok(pool)
        };
        let pools = Pools {
            detect: pool(Task::Detect)?,
            landmark: pool(Task::Landmark)?,
            feature: pool(Task::Feature)?,
            liveness: pool(Task::Liveness)?,
            eye: pool(Task::Eye)?,
            pose: pool(Task::Pose)?,
        };
        log_providers(&manifest, &providers);
        Ok(Self { manifest, pools, providers })
    }

    /// The manifest that every file was checked against.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Which provider runs each model, and why those before it do not. For `doctor` and the log.
    #[must_use]
    pub fn providers(&self) -> &[(Task, ProviderReport)] {
        &self.providers
    }

    /// How the sessions of one model have been used since the pack was opened.
    #[must_use]
    pub fn usage(&self, task: Task) -> PoolUse {
        self.pool(task).usage()
    }

    pub(crate) fn pools(&self) -> &Pools {
        &self.pools
    }

    /// The sessions of one model, for measurements that want to run the bare tensors.
    #[must_use]
    pub fn pool(&self, task: Task) -> &SessionPool {
        match task {
            Task::Detect => &self.pools.detect,
            Task::Landmark => &self.pools.landmark,
            Task::Feature => &self.pools.feature,
            Task::Liveness => &self.pools.liveness,
            Task::Eye => &self.pools.eye,
            Task::Pose => &self.pools.pose,
        }
    }
}

impl std::fmt::Debug for ModelPack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelPack")
            .field("name", &self.manifest.name)
            .field("version", &self.manifest.version)
            .field("space_id", &self.manifest.space_id)
            .finish_non_exhaustive()
    }
}

/// One line for the pack and one for each provider that is not used; the reason is the same for all models mostly, so
/// it is logged once.
fn log_providers(manifest: &Manifest, reports: &[(Task, ProviderReport)]) {
    let mut told = Vec::new();
    for (task, report) in reports {
        for skipped in &report.skipped {
            if !told.contains(&skipped) {
                tracing::info!(provider = %skipped.provider, %task, reason = %skipped.reason, "provider not used");
                told.push(skipped);
            }
        }
    }
    let used: Vec<String> = reports.iter().map(|(task, report)| format!("{task}={}", report.used)).collect();
    tracing::info!(pack = %manifest.name, version = %manifest.version, space = %manifest.space_id, models = %used.join(" "), "model pack opened");
}

/// What is needed to open any file of the pack.
struct Opener<'a> {
    runtime: &'a Runtime,
    weights: &'a Path,
    options: &'a PackOptions,
}

impl Opener<'_> {
    fn open(&self, file: &ModelFile) -> Result<(SessionPool, ProviderReport), PackError> {
        let path = self.weights.join(&file.path);
        let bytes = read_verified(&path, file)?;
        let not_runnable = |source| PackError::NotRunnable { path: path.clone(), source };
        let mut options = SessionOptions {
            intra_threads: self.options.intra_threads,
            providers: self.options.providers.clone(),
            engine_cache_dir: self.options.engine_cache_dir.clone(),
        };
        let boxed = |source: NoProvider| not_runnable(Box::new(source));
        let (first, report) = self.runtime.open_session(&bytes, &options).map_err(boxed)?;
        check_signature(&path, file, &first)?;
        // The other sessions run where the first one does: one model on two kinds of processor would give two answers.
        options.providers = vec![report.used];
        let mut sessions = vec![first];
        for _ in 1..self.options.sessions {
            sessions.push(self.runtime.open_session(&bytes, &options).map_err(boxed)?.0);
        }
        let pool =
            SessionPool::new(file.clone(), sessions).map_err(|source| not_runnable(source.to_string().into()))?;
        check_warm_up(&path, &pool, self.options.sessions)?;
        Ok((pool, report))
    }
}

/// Reads a model, at most one byte more than it should have, and compares length and hash.
fn read_verified(path: &Path, file: &ModelFile) -> Result<Vec<u8>, PackError> {
    let unreadable = |source| PackError::FileUnreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let reader = File::open(path).map_err(unreadable)?;
    reader.take(file.size_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let found = bytes.len() as u64;
    if found != file.size_bytes {
        return Err(PackError::WrongSize { path: path.to_owned(), found, expected: file.size_bytes });
    }
    let found = hex::encode(digest::digest(&digest::SHA256, &bytes));
    if found != file.sha256 {
        return Err(PackError::WrongHash { path: path.to_owned(), found, expected: file.sha256.clone() });
    }
    Ok(bytes)
}

/// Compares the names, types and shapes of the session's inputs and outputs with the manifest.
fn check_signature(path: &Path, file: &ModelFile, session: &Session) -> Result<(), PackError> {
    let describe = |name: &str, shape: &[i64]| format!("{name}: f32 {shape:?}");
    let dimensions =
        |shape: &[usize]| shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect::<Vec<_>>();
    let found = |outlets: &[ort::value::Outlet]| {
        let mut all: Vec<String> = outlets
            .iter()
            .map(|outlet| match outlet.dtype() {
                ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => describe(outlet.name(), shape),
                other => format!("{}: {other:?}", outlet.name()),
            })
            .collect();
        all.sort();
        all.join(", ")
    };
    let mut outputs: Vec<String> =
        file.outputs.iter().map(|output| describe(&output.name, &dimensions(&output.shape))).collect();
    outputs.sort();
    let inputs = describe(&file.input.name, &dimensions(&file.input.shape));
    for (kind, expected, found) in
        [("input", inputs, found(session.inputs())), ("output", outputs.join(", "), found(session.outputs()))]
    {
        if expected != found {
            let path = path.to_owned();
            return Err(PackError::WrongShape { path, expected: format!("{kind} {expected}"), found });
        }
    }
    Ok(())
}

/// Asks every session of the pool the known question. It also pays for the first run's allocations before a frame waits.
fn check_warm_up(path: &Path, pool: &SessionPool, n_sessions: usize) -> Result<(), PackError> {
    let file = pool.file();
    for _ in 0..n_sessions {
        let verdict = pool
            .run(
                |_, tensor| {
                    warm_up::fill_question(&file.input, file.warm_up.seed, tensor);
                    Ok(())
                },
                |outputs| {
                    let mut answers = file.outputs.iter().enumerate();
                    Ok(answers.try_for_each(|(index, output)| {
                        warm_up::check_answer(file, &output.name, outputs.values(index))
                    }))
                },
            )
            .map_err(|source| PackError::WarmUpFailed { path: path.to_owned(), source })?;
        verdict.map_err(|source| PackError::WrongAnswer { path: path.to_owned(), source })?;
    }
    Ok(())
}
