//! `config check` and `config show`.

use serde_json::json;

use super::{Exit, Output, output};
use crate::config::Loaded;

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

pub(super) fn show(loaded: &Loaded, output: Output) -> Exit {
    let mut text = loaded.show(output.into());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    output::text(&text)
}
