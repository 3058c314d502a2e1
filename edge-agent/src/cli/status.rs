//! `outbox status`, `gallery status`, `status`: questions to the running agent.

use super::{Exit, Output, output};
use crate::config::Config;
use crate::control::{Ask, ControlError, ask};
use crate::logging::chain;

pub(super) fn outbox(config: &Config, output: Output) -> Exit {
    print(config, Ask::OutboxStatus, output)
}

pub(super) fn gallery(config: &Config, output: Output) -> Exit {
    print(config, Ask::GalleryStatus, output)
}

pub(super) fn agent(config: &Config, output: Output) -> Exit {
    print(config, Ask::Status, output)
}

fn print(config: &Config, question: Ask, output: Output) -> Exit {
    match ask(&config.agent.runtime_dir, question) {
        Ok(value) => output::object(&value, output),
        Err(error) => {
            output::problem(&chain(&error));
            match error {
                ControlError::NotRunning { .. } | ControlError::NoAnswer { .. } => Exit::Unavailable,
                ControlError::Denied { .. } | ControlError::Refused { .. } => Exit::Failure,
            }
        }
    }
}
