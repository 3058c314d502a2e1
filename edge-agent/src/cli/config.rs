//! `config check` and `config show`.

use serde_json::json;

use super::{Exit, Output, output, run};
use crate::config::{Loaded, Sources};
use crate::twin::Desired;

/// Reached only when everything was read and fits together.
pub(super) fn check(loaded: &Loaded, output: Output) -> Exit {
    let config = &loaded.config;
    let (cameras, doors) = (config.cameras.len(), config.doors.len());
    let warnings = config.warnings();
    match output {
        Output::Json => {
            output::object(&json!({"ok": true, "cameras": cameras, "doors": doors, "warnings": warnings}), output)
        }
        Output::Table | Output::Toml => {
            let warned: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
            output::text(&format!("{warned}the configuration is good: {cameras} camera(s), {doors} door(s)\n"))
        }
    }
}

/// With the hub's settings, for whoever may read the state directory.
pub(super) fn show(loaded: &Loaded, sources: &Sources, output: Output) -> Exit {
    let twin = run::store(&loaded.config.agent.state_dir).and_then(|store| store.in_use().map(Desired::layer));
    let with = twin.as_ref().map(|twin| sources.load(Some(twin)));
    let mut text = match &with {
        None => loaded.show(output.into(), None),
        Some(Ok(with)) => with.show(output.into(), twin.as_ref()),
        Some(Err(errors)) => {
            output::problem(&format!("shown without the settings of the hub, which do not fit:\n{errors}"));
            loaded.show(output.into(), None)
        }
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    output::text(&text)
}
