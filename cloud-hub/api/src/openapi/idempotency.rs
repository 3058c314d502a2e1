//! `Idempotency-Key`, written into the operations that take it.

use serde_json::{Map, Value, json};

use crate::idempotency::TAKES;
use hub_domain::idempotency::MAX_KEY;

const ABOUT: &str = "Makes it safe to send the request again: under one key of one caller it is carried out once, and whoever asks again is answered as the first time (docs/guides/api.md). A string in quotes (RFC 8941), or the same without.";
const CONFLICT: &str = "`idempotency_in_progress`: the request with this key is being carried out; come again after `Retry-After` seconds. `idempotency_no_answer`: it was carried out, or may have been, and there is no answer to give again; `detail` says which.";
const REUSED: &str = "`idempotency_key_reused`: the key was sent with another request.";

/// Writes it into each operation of the table.
pub(super) fn write(paths: &mut Map<String, Value>) {
    for (path, _) in TAKES {
        let operation = paths.get_mut(*path).and_then(|item| item.get_mut("post"));
        // An operation without documentation is a test's to find.
        if let Some(operation) = operation.and_then(Value::as_object_mut) {
            one(operation);
        }
    }
}

fn one(operation: &mut Map<String, Value>) {
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "required": false,
            "description": ABOUT,
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_KEY,
                "pattern": r#"^("([ !#-\[\]-~]|\\["\\])+"|[A-Za-z0-9._~:+/=-]+)$"#,
            },
            "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
        }));
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (_, answer) in responses.iter_mut().filter(|(status, _)| status.starts_with('2')) {
        answer["headers"]["Idempotency-Replayed"] = json!({
            "description": "There if this answer was given before.",
            "schema": { "type": "string", "enum": ["true"] },
        });
    }
    for (status, text) in [("409", CONFLICT), ("422", REUSED)] {
        let answer = responses.entry(status).or_insert_with(|| json!({ "description": "" }));
        let own = answer["description"].as_str().unwrap_or_default();
        answer["description"] = json!(format!("{own} {text}").trim_start());
    }
}
