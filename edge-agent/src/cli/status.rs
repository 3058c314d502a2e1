//! `outbox status`, `outbox list`, `gallery status`, `status`: questions to the running agent.

use serde_json::json;

use super::{Exit, Output, output};
use crate::config::Config;
use crate::control::{Ask, ControlError, ask};
use crate::logging::chain;

pub(super) fn outbox(config: &Config, output: Output) -> Exit {
    print(config, Ask::OutboxStatus, output)
}

/// Asks page by page, so that no answer is long.
pub(super) fn outbox_list(config: &Config, output: Output) -> Exit {
    let mut entries = Vec::new();
    let mut after = 0;
    loop {
        let mut page = match ask(&config.agent.runtime_dir, Ask::OutboxList { after }) {
            Ok(page) => page,
            Err(error) => return refused(&error),
        };
        if let Some(rows) = page["entries"].as_array_mut() {
            entries.append(rows);
        }
        match page["next"].as_u64() {
            Some(next) if next > after => after = next,
            _ => return output::object(&json!({"stream": page["stream"], "entries": entries}), output),
        }
    }
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
        Err(error) => refused(&error),
    }
}

pub(super) fn refused(error: &ControlError) -> Exit {
    output::problem(&chain(error));
    match error {
        ControlError::NotRunning { .. } | ControlError::NoAnswer { .. } => Exit::Unavailable,
        // It runs, but cannot say yet: as while it starts.
        ControlError::Refused { code, .. } if code == "unavailable" => Exit::Unavailable,
        ControlError::Denied { .. } | ControlError::Refused { .. } => Exit::Failure,
    }
}
