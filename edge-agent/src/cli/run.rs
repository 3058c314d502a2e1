//! `edge-agent run`.

use super::{Exit, output};
use crate::config::Config;
use crate::{logging, wiring};

pub(super) fn run(config: Config) -> Exit {
    logging::init(&config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::problem(&format!("the program cannot start its threads: {error}"));
            return Exit::Failure;
        }
    };
    let result = runtime.block_on(wiring::run(config));
    // Blocking calls that hang (a dead disk) must not keep the process: everything that counts has been flushed.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => Exit::Success,
        Err(error) => {
            tracing::error!(event = "agent_failed", error = format!("{error:#}"), "the agent stops");
            Exit::Failure
        }
    }
}
