//! The OpenAPI document of the REST API, made from the program.
//!
//! In: what each handler says of itself (`#[utoipa::path]`) and its types (`ToSchema`), the table of [`access`](super::access),
//! the schemas of the wire's contract. Out: OpenAPI 3.1 as JSON, the same text each time. `docs/reference/openapi.json` holds it as
//! a file; a test keeps both equal (`LINTEL_GOLDEN=write` writes it). Deliberately absent: any second list of who may call what.

mod access;
pub(super) mod forms;
mod idempotency;
pub(super) mod kinds;
mod named;
mod problems;
#[cfg(test)]
mod tests;
pub(super) mod texts;
pub(super) mod wire;
pub(super) mod words;

use std::sync::LazyLock;

use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Map, Value, json};
use utoipa::OpenApi as _;

use super::fixed::Fixed;
use super::{
    admin, anchors, answers, api_keys, audit, claims, commands, consumers, devices, enrolments, events, health,
    hub_time, imports, login, me, people, reader, recognition, renewals, roles, sessions, sites, snapshots, tenants,
    totp, twins, users, webhooks,
};

const ABOUT: &str = include_str!("about.md");

/// Subjects, in the order in which a reader meets them.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Lintel cloud hub", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    servers((url = "/", description = "The hub that this document came from")),
    tags(
        (name = "tenant", description = "What was agreed upon with the tenant, and how much of it is used."),
        (name = "api keys", description = "Keys of programs: made with a role, narrowed by scopes, rotated, revoked."),
        (name = "users", description = "People who log in: made, invited to choose a password, changed, deleted."),
        (name = "roles", description = "What there is to be given to keys and users: the program's roles, and those that the tenant made."),
        (name = "log-in", description = "A name and a password become tokens or a cookie."),
        (name = "sites and doors", description = "Where the doors are."),
        (name = "devices", description = "Door-side devices: made, claimed, seen with the state of their galleries, revoked."),
        (name = "twins", description = "How a device is to be set up, and how it is."),
        (name = "commands", description = "Doors opened or locked down from afar, devices told to do something now."),
        (name = "people", description = "Who may be recognised."),
        (name = "enrolment", description = "Photographs that become templates, and pictures of who somebody is not."),
        (name = "recognition", description = "Photographs and templates compared: what is on a picture, whether it is them, who it is."),
        (name = "sessions", description = "Somebody before a camera: enrolled, verified or identified frame by frame, with a challenge, by a kiosk that holds nothing but the session's token."),
        (name = "audit", description = "Who did what, and who looked at whom."),
        (name = "events", description = "What happened, by page or as it happens."),
        (name = "consumers", description = "Programs that read the feed at the broker."),
        (name = "webhooks", description = "Where events are sent to, signed."),
        (name = "platform", description = "Tenants and the hub itself, for platform administrators: what is of no tenant, and nothing that a tenant has."),
        (name = "for devices", description = "What a device asks of the hub. Not for integrators; device and hub check more than this document says (docs/protocol.md)."),
        (name = "health", description = "For probes. Each path works with a slash at its end too."),
        (name = "reference", description = "This document, and a page that shows it."),
    ),
    paths(
        tenants::get, recognition::policy::get_policy, recognition::policy::put_policy, totp::get_policy, totp::put_policy,
        sessions::settings::get, sessions::settings::put,
        api_keys::create, api_keys::list, api_keys::get, api_keys::revoke, api_keys::rotate,
        users::create, users::list, users::get, users::change, users::delete, users::invite, users::take_totp,
        roles::create, roles::list, roles::get, roles::change, roles::delete,
        login::login, login::refresh, login::accept, login::jwks, me::get, me::change_password, me::log_out,
        totp::begin, totp::confirm, totp::remove,
        sites::create_site, sites::list_sites, sites::get_site, sites::create_door, sites::list_doors,
        devices::create, devices::list, devices::get, devices::revoke, devices::create_claim_token,
        twins::get, twins::put, twins::versions,
        commands::create, commands::list, commands::unlock, commands::create_at_door, commands::get, commands::logs,
        people::create, imports::create, people::list, people::get, people::change, people::delete,
        enrolments::create, anchors::create, anchors::list, anchors::delete,
        recognition::pictures::detect, recognition::pictures::quality, recognition::pictures::liveness, recognition::pictures::embed, recognition::pair::compare,
        recognition::people::verify, recognition::people::identify, recognition::people::search,
        sessions::open::enrolment, sessions::open::authentication, sessions::list, sessions::get, sessions::frames::add,
        sessions::decide::complete, sessions::cancel,
        audit::list, audit::export,
        events::list, events::stream,
        consumers::create, consumers::list, consumers::rotate, consumers::delete,
        webhooks::create, webhooks::list, webhooks::delete,
        admin::tenants::create, admin::tenants::list, admin::tenants::get, admin::tenants::change, admin::tenants::suspend,
        admin::tenants::resume, admin::tenants::delete, admin::search_paths::list,
        admin::settings::get, admin::settings::put, admin::settings::history,
        claims::claim, claims::link, hub_time::tell, renewals::renew, answers::enrol, answers::put_logs,
        snapshots::manifest, snapshots::content,
        health::ready, health::live, health::detailed,
        get, reader::page, reader::script, reader::style,
    ),
    // What only parameters and answers from one place refer to.
    components(schemas(texts::ClassList, texts::FeedCursor, texts::IdCursor, wire::Problem)),
)]
struct Annotated;

/// Other names of probes: path, the same, the id of its operation.
const SAME: [(&str, &str, &str); 3] = [
    ("/health/ready", "/health", "get_health"),
    ("/health/ready", "/readyz", "get_readyz"),
    ("/health/live", "/livez", "get_livez"),
];

/// The document.
pub(super) fn document() -> Value {
    let mut document = serde_json::to_value(Annotated::openapi()).expect("a document of plain structs is JSON");
    document["info"]["description"] = json!(ABOUT);
    document["components"]["securitySchemes"] = access::schemes();
    document["components"]["responses"] = problems::shared_answers();
    let schemas = document["components"]["schemas"].as_object_mut().expect("there are schemas");
    schemas.extend(wire::definitions());
    refer_in_pages(schemas);
    both_or_neither(&mut schemas["NewDoor"], ["device_id", "local_id"]);
    let paths = document["paths"].as_object_mut().expect("there are paths");
    for (path, same, id) in SAME {
        let mut item = paths[path].clone();
        item["get"]["operationId"] = json!(id);
        paths.insert(same.to_owned(), item);
    }
    access::write(paths);
    idempotency::write(paths);
    problems::write(paths);
    plain_text(&mut document);
    document
}

/// The document as the file and the API have it.
#[must_use]
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("a value is JSON");
    text.push('\n');
    text
}

/// A page's entries are written out where they are of a generic type; they are a schema of their own already.
fn refer_in_pages(schemas: &mut Map<String, Value>) {
    for (name, page) in schemas.iter_mut() {
        if let Some(entry) = name.strip_prefix("Page_") {
            page["properties"]["data"]["items"] = json!({ "$ref": format!("#/components/schemas/{entry}") });
        }
    }
}

/// Two members that are given together or not at all.
fn both_or_neither(schema: &mut Value, members: [&str; 2]) {
    let of = |kind: &str| {
        members.map(|member| (member.to_owned(), json!({ "type": kind }))).into_iter().collect::<Map<_, _>>()
    };
    schema["oneOf"] = json!([
        { "title": "both", "properties": of("string"), "required": members },
        { "title": "neither", "properties": of("null") },
    ]);
}

/// Doc comments become descriptions: links to items of the program mean nothing outside it.
fn plain_text(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`");
            }
            members.values_mut().for_each(plain_text);
        }
        Value::Array(items) => items.iter_mut().for_each(plain_text),
        _ => {}
    }
}

static SERVED: LazyLock<Fixed> = LazyLock::new(|| Fixed::new("application/json", text().into_bytes()));

/// `GET /v1/openapi.json`
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "get_openapi", tag = "reference",
    summary = "This document",
    description = "OpenAPI 3.1. `cloud-hub openapi` prints the same without a hub that runs.",
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` of what the client has")),
    responses(
        (status = 200, description = "The document", content_type = "application/json", body = Object,
            headers(("ETag" = String, description = "Of this version of the program"))),
        (status = 304, description = "It is what the client has"),
    ),
)]
pub(super) async fn get(headers: HeaderMap) -> Response {
    SERVED.answer(&headers)
}
