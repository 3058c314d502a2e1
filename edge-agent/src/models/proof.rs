//! Opening a pack in a process of its own: ONNX Runtime's parser reads the files of strangers there, not here.
//!
//! In: a pack's place. Out: what every model runs on, or why the pack is refused. The child limits its own memory and
//! processor time before it loads anything; a file that makes ONNX Runtime crash, loop or swallow memory ends the child.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use face_runtime::{Provider, Runtime};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::shelf::PackPlace;
use super::{ModelsConfig, open_at, pack_name};
use crate::logging::chain;

/// Address space of the child. The default pack needs under 1 GiB of it; GPUs map far more than they use, see [`limits`].
const MAX_MEMORY_BYTES: u64 = 4 << 30;
/// Processor time of the child; the default pack needs half a second.
const MAX_CPU_S: u64 = 120;
/// How long the child may take by the clock. TensorRT builds its engines here, which takes minutes on a small device.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Longest answer of the child.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// What a proved pack is and runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Name and version.
    pub pack: String,
    /// The embedding space.
    pub space_id: String,
    /// Each model.
    pub models: Vec<ProvedModel>,
}

/// One model of a proved pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedModel {
    /// What it is for.
    pub task: String,
    /// Where it runs.
    pub provider: String,
    /// Where it does not run, and why.
    pub skipped: Vec<String>,
}

/// Why a pack is not proved.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The child could not be started or heard.
    #[error("the pack cannot be examined in a process of its own")]
    Child(#[source] std::io::Error),
    /// The pack is refused; the child's own words.
    #[error("{0}")]
    Refused(String),
    /// ONNX Runtime did not survive it.
    #[error("ONNX Runtime does not survive this pack (signal {signal}): it is refused, and nothing else is harmed")]
    Crashed {
        /// The signal that ended the child.
        signal: i32,
    },
    /// It took too long.
    #[error("opening the pack took longer than {} minutes: it is refused", LIMIT.as_secs() / 60)]
    TooSlow,
}

/// The child's answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Proved(Proof),
    Refused(String),
}

/// Opens the pack in a child process with the program's own code and says what came of it.
///
/// # Errors
/// [`ProofError`].
pub fn prove(config: &ModelsConfig, place: &PackPlace) -> Result<Proof, ProofError> {
    let question = serde_json::to_string(&Question::new(config, place)).expect("paths of a configuration are UTF-8");
    let mut child = Command::new(std::env::current_exe().map_err(ProofError::Child)?)
        .args(["models", "prove", &question])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(ProofError::Child)?;
    let mut answer = Vec::new();
    let reader = child.stdout.take().expect("standard output is piped");
    let listening = std::thread::spawn(move || {
        let result = reader.take(MAX_ANSWER_BYTES).read_to_end(&mut answer);
        result.map(|_| answer)
    });
    let status = wait(&mut child)?;
    let answer = listening.join().expect("reading does not panic").map_err(ProofError::Child)?;
    if let Some(signal) = status.signal() {
        return Err(ProofError::Crashed { signal });
    }
    match serde_json::from_slice(&answer) {
        Ok(Answer::Proved(proof)) => Ok(proof),
        Ok(Answer::Refused(reason)) => Err(ProofError::Refused(reason)),
        Err(_) => Err(ProofError::Refused(format!("opening it ended without an answer ({status})"))),
    }
}

fn wait(child: &mut std::process::Child) -> Result<std::process::ExitStatus, ProofError> {
    #[expect(clippy::disallowed_methods, reason = "bounds a child process; nothing is decided by it")]
    let now = Instant::now;
    let until = now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().map_err(ProofError::Child)? {
            return Ok(status);
        }
        if now() >= until {
            // Gone already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
            return Err(ProofError::TooSlow);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the child is told: the part of `[models]` that opening needs.
#[derive(Serialize, Deserialize)]
struct Question {
    manifest: std::path::PathBuf,
    weights: std::path::PathBuf,
    onnxruntime: std::path::PathBuf,
    providers: Vec<Provider>,
    engine_cache_dir: std::path::PathBuf,
}

impl Question {
    fn new(config: &ModelsConfig, place: &PackPlace) -> Self {
        Self {
            manifest: place.manifest.clone(),
            weights: place.weights.clone(),
            onnxruntime: config.onnxruntime.clone(),
            providers: config.providers.clone(),
            engine_cache_dir: config.engine_cache_dir.clone(),
        }
    }
}

/// The child's side: limits itself, opens the pack, returns the line to print.
#[must_use]
pub fn answer(question: &str) -> String {
    let answer = match serde_json::from_str::<Question>(question) {
        Ok(question) => examined(question),
        Err(error) => Answer::Refused(format!("the question is not understood: {error}")),
    };
    serde_json::to_string(&answer).expect("an answer is plain text")
}

fn examined(question: Question) -> Answer {
    // The library is the operator's own; only what it is given to read is a stranger's.
    let runtime = match Runtime::load(&question.onnxruntime) {
        Ok(runtime) => runtime,
        Err(error) => return Answer::Refused(chain(&error)),
    };
    if let Err(error) = limits(&runtime, &question.providers) {
        return Answer::Refused(format!("memory and processor time cannot be limited: {error}"));
    }
    let config = ModelsConfig {
        manifest: question.manifest.clone(),
        weights: question.weights.clone(),
        packs_dir: std::path::PathBuf::new(),
        pack: super::shelf::DEFAULT_PACK.to_owned(),
        onnxruntime: question.onnxruntime,
        providers: question.providers,
        engine_cache_dir: question.engine_cache_dir,
        sessions: 1,
        intra_threads: 1,
    };
    let place = PackPlace { manifest: question.manifest, weights: question.weights };
    match open_at(&config, &place) {
        Ok(pack) => {
            let models = pack.providers().iter().map(|(task, report)| ProvedModel {
                task: task.to_string(),
                provider: report.used.to_string(),
                skipped: report.skipped.iter().map(|one| format!("{}: {}", one.provider, one.reason)).collect(),
            });
            let space_id = pack.manifest().space_id.clone();
            Answer::Proved(Proof { pack: pack_name(&pack), space_id, models: models.collect() })
        }
        Err(error) => Answer::Refused(chain(&error)),
    }
}

/// A GPU's driver maps more address space than any limit that would still protect; there only the time is bounded.
fn limits(runtime: &Runtime, providers: &[Provider]) -> std::io::Result<()> {
    let limited = |bound: u64| Rlimit { current: Some(bound), maximum: Some(bound) };
    setrlimit(Resource::Core, limited(0))?;
    let gpu = |provider: &Provider| *provider != Provider::Cpu && runtime.offers(*provider);
    if !providers.iter().any(gpu) {
        setrlimit(Resource::As, limited(MAX_MEMORY_BYTES))?;
        setrlimit(Resource::Cpu, limited(MAX_CPU_S))?;
    }
    Ok(())
}
