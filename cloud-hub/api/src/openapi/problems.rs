//! Answers that are no success: those that many routes share, from one place, and the form of all of them.
//!
//! A handler's own annotation says only what it alone answers, by status and a description that names the codes. What
//! follows from the kind of a route (a key, an id in the path, a body) is added here.

use serde_json::{Map, Value, json};
use wire_contract::{Code, Problem, problem};

use crate::LONG;

/// One shared answer.
struct Shared {
    /// In `components.responses`.
    name: &'static str,
    status: &'static str,
    text: &'static str,
}

const fn shared(name: &'static str, status: &'static str, text: &'static str) -> Shared {
    Shared { name, status, text }
}

const UNREADABLE: Shared =
    shared("InvalidRequest", "400", "`invalid_request`: the path, the query or the body cannot be read.");
const NO_KEY: Shared =
    shared("NoKey", "401", "`unauthorized`: no key and no log-in, or one that is unknown, wrong, revoked or expired.");
const MAY_NOT: Shared = shared(
    "NotAllowed",
    "403",
    "`forbidden`: the key or the user does not have the permission, which `detail` names; or a cookie came without its `X-CSRF-Token`. `tenant_suspended`: the tenant's keys and users are refused for now. `totp_setup_required`: the user must set up a second factor first. `feature_off`: the tenant does not have what this is a part of.",
);
const NO_PLATFORM_KEY: Shared = shared(
    "NoPlatformKey",
    "401",
    "`unauthorized`: no key of the platform, or one that is unknown, wrong, revoked or expired; a tenant's is none.",
);
const NOT_AS_AUDITOR: Shared =
    shared("NotAllowedOnPlatform", "403", "`forbidden`: the key does not have the permission, which `detail` names.");
const NO_DEVICE: Shared = shared("NoDevice", "401", "`unauthorized`: no certificate of a device was shown.");
const NOT_THIS_DEVICE: Shared = shared(
    "NotThisDevice",
    "403",
    "`device_revoked`: the certificate is not the device's present one. `certificate_expired`: it has ended; it opens nothing but its renewal.",
);
const NOT_THERE: Shared = shared("NotFound", "404", "`not_found`: there is no such thing, or it is another tenant's.");
const TOO_LARGE: Shared =
    shared("PayloadTooLarge", "413", "`payload_too_large`: the body is larger than this route takes.");
const OTHER_TYPE: Shared = shared(
    "UnsupportedMediaType",
    "415",
    "`unsupported_media_type`: the body is of another type than this route takes.",
);
const WRONG_FIELD: Shared = shared(
    "InvalidField",
    "422",
    "`invalid_field`, `missing_field`, `unknown_field`: `errors` has each of them with its place.",
);
const TOO_OFTEN: Shared = shared(
    "RateLimited",
    "429",
    "`rate_limited`: a limit of the tenant or the key is used up, or too many keys of this address were refused; come again after `Retry-After` seconds.",
);
const FAULT: Shared =
    shared("Internal", "500", "`internal`: a fault of the hub; its log has the cause under the `trace_id`.");
const AWAY: Shared = shared(
    "Unavailable",
    "503",
    "`unavailable`: the database does not answer; come again after `Retry-After` seconds.",
);
const TOO_SLOW: Shared =
    shared("Timeout", "504", "`timeout`: the hub took too long; whether it was done is to be looked up.");

const ALL: [&Shared; 15] = [
    &UNREADABLE,
    &NO_KEY,
    &MAY_NOT,
    &NO_PLATFORM_KEY,
    &NOT_AS_AUDITOR,
    &NO_DEVICE,
    &NOT_THIS_DEVICE,
    &NOT_THERE,
    &TOO_LARGE,
    &OTHER_TYPE,
    &WRONG_FIELD,
    &TOO_OFTEN,
    &FAULT,
    &AWAY,
    &TOO_SLOW,
];

/// Those that many routes share, for `components.responses`.
pub(super) fn shared_answers() -> Value {
    let answer = |shared: &Shared| {
        let mut answer = json!({ "description": shared.text });
        form(shared.status, &mut answer);
        (shared.name.to_owned(), answer)
    };
    ALL.into_iter().map(answer).collect::<Map<_, _>>().into()
}

/// Completes every operation.
pub(super) fn write(paths: &mut Map<String, Value>) {
    for (path, item) in paths {
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
            complete(path, operation);
        }
    }
}

fn complete(path: &str, operation: &mut Map<String, Value>) {
    let shared = of(path, operation);
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else { return };
    for Shared { name, status, text } in shared {
        let Some(answer) = responses.get_mut(*status) else {
            responses.insert((*status).to_owned(), json!({ "$ref": format!("#/components/responses/{name}") }));
            continue;
        };
        // An answer in another form than a problem (health) says all that there is to say.
        if answer.get("content").is_none() {
            let own = answer["description"].as_str().unwrap_or_default();
            answer["description"] = json!(format!("{own} {text}"));
        }
    }
    for (status, answer) in responses.iter_mut().filter(|(status, _)| status.as_str() >= "400") {
        if answer.get("content").is_none() && answer.get("$ref").is_none() {
            form(status, answer);
        }
    }
}

/// What follows from what an operation takes.
fn of(path: &str, operation: &Map<String, Value>) -> Vec<&'static Shared> {
    let audience = |scheme: &str| {
        operation["security"].as_array().is_some_and(|all| all.iter().any(|one| one.get(scheme).is_some()))
    };
    let parameters = operation.get("parameters").and_then(Value::as_array);
    let in_place = |place: &str| parameters.is_some_and(|all| all.iter().any(|one| one["in"] == place));
    let body = |kind: &str| operation.get("requestBody").is_some_and(|body| body["content"].get(kind).is_some());
    let mut shared = vec![&FAULT];
    if audience("Bearer") {
        shared.extend([&NO_KEY, &MAY_NOT, &TOO_OFTEN, &AWAY]);
    }
    if audience("PlatformKey") {
        shared.extend([&NO_PLATFORM_KEY, &NOT_AS_AUDITOR, &TOO_OFTEN, &AWAY]);
    }
    if audience("Device") {
        shared.extend([&NO_DEVICE, &NOT_THIS_DEVICE, &AWAY]);
    }
    if in_place("path") {
        shared.extend([&UNREADABLE, &NOT_THERE]);
    }
    if in_place("query") {
        shared.push(&UNREADABLE);
    }
    if body("application/json") || body("multipart/form-data") {
        shared.extend([&UNREADABLE, &TOO_LARGE, &OTHER_TYPE, &WRONG_FIELD]);
    }
    if !LONG.contains(&path) {
        shared.push(&TOO_SLOW);
    }
    shared.sort_by_key(|shared| shared.status);
    shared.dedup_by_key(|shared| shared.status);
    shared
}

/// The form of a problem, the codes that its description names, and an example of the first.
fn form(status: &str, answer: &mut Value) {
    let codes = named(answer["description"].as_str().unwrap_or_default());
    let mut content = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
    if let Some(first) = codes.first() {
        content["example"] = json!(Problem::of(*first));
        answer["x-lintel-codes"] = json!(codes);
    }
    let header = |text: &str, kind: &str| json!({ "description": text, "required": true, "schema": { "type": kind } });
    match status {
        "401" if codes == [Code::Unauthorized] => {
            answer["headers"]["WWW-Authenticate"] =
                header("`ApiKey, Bearer`; below `/v1/admin` `PlatformKey`", "string");
        }
        "429" => answer["headers"]["Retry-After"] = header("Seconds.", "integer"),
        "503" if codes.contains(&Code::Unavailable) => {
            answer["headers"]["Retry-After"] = header("Seconds.", "integer");
            answer["headers"]["Retry-After"]["required"] = json!(codes == [Code::Unavailable]);
        }
        _ => {}
    }
    answer["content"] = json!({ problem::MEDIA_TYPE: content });
}

/// The words in backticks that are codes of the register.
pub(super) fn named(text: &str) -> Vec<Code> {
    let words = text.split('`').skip(1).step_by(2);
    words.filter_map(|word| Code::ALL.iter().copied().find(|code| code.as_str() == word)).collect()
}
