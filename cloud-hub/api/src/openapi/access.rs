//! Who may call what, written into the document from the one table of it.

use serde_json::{Map, Value, json};

use crate::access::{Audience, ROUTES};

/// The names of `components.securitySchemes`.
const API_KEY: &str = "ApiKey";
const DEVICE: &str = "Device";
const BEARER: &str = "Bearer";
const COOKIE: &str = "Cookie";
const SESSION: &str = "SessionToken";
const PLATFORM_KEY: &str = "PlatformKey";

/// How callers show who they are.
pub(super) fn schemes() -> Value {
    json!({
        API_KEY: {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`ApiKey <id>:<secret>`, as `cloud-hub api-keys create` or `POST /v1/api-keys` showed it once.",
        },
        BEARER: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The access token of a user who logged in (`POST /v1/login`); good for ten minutes.",
        },
        COOKIE: {
            "type": "apiKey",
            "in": "cookie",
            "name": crate::auth::COOKIE,
            "description": "A browser's log-in (`POST /v1/login` with `cookie`). What changes something needs the header `X-CSRF-Token` too.",
        },
        SESSION: {
            "type": "apiKey",
            "in": "header",
            "name": "X-Session-Token",
            "description": "The `token` of a session, as it was shown once when the session was opened. It opens that session and nothing else, and ends with it. Not together with `Authorization`.",
        },
        PLATFORM_KEY: {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`PlatformKey <id>:<secret>`, as `cloud-hub admins create` showed it once. It opens what is below `/v1/admin` and nothing of any tenant.",
        },
        DEVICE: {
            "type": "mutualTLS",
            "description": "The client certificate that a device got at its claim (`POST /v1/claims`), or at its last renewal.",
        },
    })
}

/// Writes into each operation of the table whom it is for.
pub(super) fn write(paths: &mut Map<String, Value>) {
    for (method, path, audience) in ROUTES {
        let operation = paths.get_mut(*path).and_then(|item| item.get_mut(method.to_ascii_lowercase()));
        // A route without documentation is a test's to find, not a reason for a hub not to start.
        if let Some(operation) = operation.and_then(Value::as_object_mut) {
            one(operation, *audience);
        }
    }
}

fn one(operation: &mut Map<String, Value>, audience: Audience) {
    let (security, sentence) = match audience {
        Audience::Open => (json!([]), String::from("Open to anybody.")),
        Audience::Device => (json!([{ DEVICE: [] }]), String::from("For devices, with their certificate.")),
        Audience::User | Audience::UserSettingUp => {
            (json!([{ BEARER: [] }, { COOKIE: [] }]), String::from("For users who have logged in, about themselves."))
        }
        Audience::Platform(permission) => {
            operation.insert(String::from("x-lintel-permission"), json!(permission.as_str()));
            let sentence = format!("For platform administrators. Needs the permission `{permission}`.");
            (json!([{ PLATFORM_KEY: [] }]), sentence)
        }
        Audience::Session(permission) => {
            operation.insert(String::from("x-lintel-permission"), json!(permission.as_str()));
            (
                json!([{ API_KEY: [] }, { BEARER: [] }, { COOKIE: [] }, { SESSION: [] }]),
                format!("Needs the permission `{permission}`, or this session's token."),
            )
        }
        Audience::Key(permission) => {
            operation.insert(String::from("x-lintel-permission"), json!(permission.as_str()));
            (json!([{ API_KEY: [] }, { BEARER: [] }, { COOKIE: [] }]), format!("Needs the permission `{permission}`."))
        }
    };
    operation.insert(String::from("security"), security);
    let said = operation.get("description").and_then(Value::as_str).unwrap_or_default();
    let said = if said.is_empty() { sentence } else { format!("{said}\n\n{sentence}") };
    operation.insert(String::from("description"), Value::String(said));
}
