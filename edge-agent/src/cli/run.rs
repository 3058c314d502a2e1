//! `edge-agent run`.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use edge_store::Identity;
use wire_contract::Code;

use super::{Exit, output};
use crate::config::{ConfigErrors, Loaded, Sources};
use crate::control::{self, Ask};
use crate::logging::{self, LogDesk};
use crate::twin::{Desired, Refusal, TwinStore};
use crate::wiring::{self, After, Start};

/// `plain` is the configuration without the hub's settings.
pub(super) fn run(plain: Loaded, sources: Sources) -> Exit {
    // Asked now: after an update of the package the path of a running program is no longer its own.
    let program = std::env::current_exe();
    let log = logging::init(&plain.config.log);
    let start = with_twin(plain, sources, log);
    start.log.configure(&start.config.log.level);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::problem(&format!("the program cannot start its threads: {error}"));
            return Exit::Failure;
        }
    };
    let result = runtime.block_on(wiring::run(start));
    // Blocking calls that hang (a dead disk) must not keep the process: everything that counts has been flushed.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(After::Stop) => Exit::Success,
        Ok(After::Restart) => restart(program),
        Err(error) => {
            tracing::error!(event = "agent_failed", error = format!("{error:#}"), "the agent stops");
            Exit::Failure
        }
    }
}

/// The same program in the same process: whoever supervises it, or nobody, sees it go on.
fn restart(program: std::io::Result<std::path::PathBuf>) -> Exit {
    let failed = match program {
        Ok(program) => std::process::Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    tracing::error!(event = "not_restarted", error = %failed, "the agent stops; its supervisor starts it");
    Exit::Failure
}

/// The configuration with the hub's settings, as far as it makes one with them.
fn with_twin(plain: Loaded, sources: Sources, log: LogDesk) -> Start {
    let alone = |twin, sources, log, plain: Loaded| Start { config: plain.config, sources, twin, desired: None, log };
    // Another agent that runs here works by what is kept; this one is about to be told so.
    let runs = control::ask(&plain.config.agent.runtime_dir, Ask::Status).is_ok();
    let kept = if runs { None } else { store(&plain.config.agent.state_dir) };
    let Some(mut store) = kept else { return alone(None, sources, log, plain) };
    // On trial, the last that worked, and then none: each is tried at most once.
    while let Some(desired) = store.start() {
        match sources.load(Some(&desired.layer())) {
            Ok(loaded) => {
                return Start { config: loaded.config, sources, twin: Some(store), desired: Some(desired), log };
            }
            Err(errors) => store.give_up(unfit(&desired, &errors)),
        }
    }
    alone(Some(store), sources, log, plain)
}

fn unfit(desired: &Desired, errors: &ConfigErrors) -> Refusal {
    Refusal { code: Code::TwinInvalid, reason: format!("{}: {errors}", desired.layer().name) }
}

/// What is kept of the twin; none without an identity, which the start itself examines.
pub(super) fn store(state_dir: &Path) -> Option<TwinStore> {
    let identity = Identity::load(state_dir).ok().flatten()?;
    Some(TwinStore::open(state_dir, identity.device))
}
