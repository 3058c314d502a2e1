//! `guidance`: what a display beside each door should show, once or at each change.
//!
//! One line a door; with `-o json` one object a line, with the texts in every language. Each line is flushed: a display
//! program reads them from a pipe.

use std::collections::HashMap;
use std::io::Write as _;

use serde_json::Value;

use super::{Exit, Output, output, status};
use crate::config::Config;
use crate::control::{Ask, ask};

pub(super) fn guidance(follow: bool, config: &Config, output: Output) -> Exit {
    let (mut change, mut shown) = (0, HashMap::<String, Value>::new());
    loop {
        let answer = match ask(&config.agent.runtime_dir, Ask::Guidance { after: change }) {
            Ok(answer) => answer,
            Err(error) => return status::refused(&error),
        };
        for door in answer["doors"].as_array().into_iter().flatten() {
            let name = door["door"].as_str().unwrap_or_default().to_owned();
            if shown.get(&name) == Some(door) {
                continue;
            }
            if !print(&line(door, output)) {
                return Exit::Success;
            }
            shown.insert(name, door.clone());
        }
        if !follow {
            if shown.is_empty() && output != Output::Json {
                output::problem("this agent has no doors");
            }
            return Exit::Success;
        }
        change = answer["change"].as_u64().unwrap_or(0);
    }
}

/// False when nobody reads any more.
fn print(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

fn line(door: &Value, output: Output) -> String {
    if output == Output::Json {
        return door.to_string();
    }
    let text = |name: &str| door[name].as_str().unwrap_or_default();
    let english = door["text"]["en"].as_str().unwrap_or_default();
    let what = match text("state") {
        "prompt" => format!("{} of {}: {english}", door["step"], door["steps"]),
        "failed" => format!("{}: {english}", text("code")),
        state => state.to_owned(),
    };
    format!("{}  {what}", text("door"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_for_people_or_for_programs() {
        let door = json!({
            "door": "main", "state": "prompt", "prompt": "nod", "step": 2, "steps": 3, "within_ms": 4000,
            "text": {"en": "Nod, then look ahead.", "id": "…"},
        });
        assert_eq!(line(&door, Output::Table), "main  2 of 3: Nod, then look ahead.");
        assert_eq!(serde_json::from_str::<Value>(&line(&door, Output::Json)).unwrap(), door);
        let failed = json!({"door": "main", "state": "failed", "code": "challenge_timeout", "text": {"en": "Look."}});
        assert_eq!(line(&failed, Output::Table), "main  challenge_timeout: Look.");
        assert_eq!(line(&json!({"door": "main", "state": "idle", "text": null}), Output::Table), "main  idle");
    }
}
