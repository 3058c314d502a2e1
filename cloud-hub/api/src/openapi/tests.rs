//! The document against the program: the table of routes, the checks of handlers, the register of codes, the file.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};
use utoipa::{OpenApi as _, PartialSchema, ToSchema};

use super::problems::named;
use super::{document, text, wire};
use crate::access::ROUTES;
use crate::body::Fields;
use crate::{
    agreements, api_keys, commands, consumers, devices, live_settings, login, me, page, people, recognition, sites,
    tenant_life, twins, users, webhooks,
};

/// Each operation with its method and path.
fn operations(document: &Value) -> Vec<(String, String, &Map<String, Value>)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |path: &String, item: &'_ Value| -> Vec<(String, String)> {
        item.as_object().unwrap().keys().map(|method| (method.to_ascii_uppercase(), path.clone())).collect()
    };
    let all = paths.iter().flat_map(|(path, item)| of(path, item));
    all.map(|(method, path)| {
        let operation = document["paths"][&path][method.to_ascii_lowercase()].as_object().unwrap();
        (method, path, operation)
    })
    .collect()
}

/// An answer, where it is written.
fn whole<'a>(document: &'a Value, answer: &'a Value) -> &'a Value {
    let reference = answer.get("$ref").and_then(Value::as_str);
    reference.map_or(answer, |reference| document.pointer(reference.trim_start_matches('#')).unwrap())
}

/// Every value below one, with its member's name.
fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                visit(name, value);
                walk(value, visit);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

#[test]
fn the_file_is_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
    if std::env::var("LINTEL_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text()).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(file == text(), "{} is of another program: LINTEL_GOLDEN=write writes it", path.display());
}

#[test]
fn every_route_is_documented_and_nothing_else_is() {
    let document = document();
    let documented: BTreeSet<(String, String)> =
        operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
    let routes = ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(documented, routes);
}

#[test]
fn every_operation_says_what_it_answers_and_whom_it_is_for() {
    let document = document();
    let tags: Vec<&str> = document["tags"].as_array().unwrap().iter().filter_map(|tag| tag["name"].as_str()).collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{what}: its operationId is another's too");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.starts_with('`')), "{what}: summary");
        assert!(operation["description"].as_str().is_some_and(|text| text.ends_with('.')), "{what}: description");
        assert!(operation["security"].is_array(), "{what}: security");
        assert!(
            operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(&tag.as_str().unwrap())),
            "{what}: tag"
        );
        let responses = operation["responses"].as_object().unwrap();
        let responses: Vec<_> = responses.iter().map(|(status, answer)| (status, whole(&document, answer))).collect();
        let succeeds = responses.iter().any(|(status, answer)| {
            *status == "204"
                || (status.starts_with('2')
                    && answer["content"].as_object().unwrap().values().all(|content| content["schema"].is_object()))
        });
        assert!(succeeds, "{what}: no success with a schema");
        let problem = |answer: &Value| answer["content"].get(wire_contract::problem::MEDIA_TYPE).is_some();
        assert!(responses.iter().any(|(_, answer)| problem(answer)), "{what}: no problem");
        assert!(
            responses.iter().all(|(_, answer)| answer["description"].as_str().is_some_and(|text| !text.is_empty())),
            "{what}"
        );
    }
}

#[test]
fn no_reference_leads_nowhere() {
    let document = document();
    let mut found = 0;
    walk(&document, &mut |name, value| {
        if let (true, Some(reference)) = (name == "$ref", value.as_str()) {
            found += 1;
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    });
    assert!(found > 100, "there are many: {found}");
}

#[test]
fn entries_of_pages_are_things_and_no_word_has_taken_their_name() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (name, _) in schemas.iter().filter(|(name, _)| name.starts_with("Page_")) {
        let entry = &schemas[name.trim_start_matches("Page_")];
        assert!(entry["properties"].is_object() || entry["oneOf"].is_array(), "{name}: {entry}");
    }
}

#[test]
fn what_the_contract_defines_is_under_the_name_that_is_used() {
    let definitions = wire::definitions();
    for name in wire::NAMES {
        assert!(definitions.contains_key(*name), "{name}");
    }
    // What the contract's types refer to comes with them, and takes no other type's name.
    let annotated = serde_json::to_value(super::Annotated::openapi()).unwrap();
    for name in annotated["components"]["schemas"].as_object().unwrap().keys() {
        assert_eq!(definitions.contains_key(name), wire::NAMES.contains(&name.as_str()), "{name} is two types");
    }
}

#[test]
fn the_codes_of_an_answer_have_its_status() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        for (status, answer) in
            operation["responses"].as_object().unwrap().iter().filter(|(status, _)| status.as_str() >= "400")
        {
            let answer = whole(&document, answer);
            if answer["content"].get(wire_contract::problem::MEDIA_TYPE).is_none() {
                continue;
            }
            let codes = named(answer["description"].as_str().unwrap());
            assert!(!codes.is_empty(), "{method} {path} {status} names no code");
            // A range that cannot be satisfied is an invalid request with a status of its own.
            for code in codes.into_iter().filter(|_| status != "416") {
                let of_code = code.entry().and_then(|entry| entry.http_status).map(|status| status.to_string());
                assert_eq!(of_code.as_ref(), Some(status), "{method} {path}: {code}");
            }
        }
    }
}

/// What a request may hold is said twice: to whoever reads the document, and to the check.
fn same_fields<T: Fields + PartialSchema + ToSchema>() {
    let schema = serde_json::to_value(T::schema()).unwrap();
    let known: BTreeSet<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let required: BTreeSet<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(known, T::KNOWN.iter().copied().collect(), "{}", T::name());
    assert_eq!(required, T::REQUIRED.iter().copied().collect(), "{}", T::name());
    assert_eq!(schema["additionalProperties"], false, "{}", T::name());
}

#[test]
fn the_fields_of_requests_are_those_that_are_checked() {
    same_fields::<agreements::Changes>();
    same_fields::<api_keys::NewApiKey>();
    same_fields::<api_keys::Rotation>();
    same_fields::<consumers::NewConsumer>();
    same_fields::<devices::NewDevice>();
    same_fields::<live_settings::Wanted>();
    same_fields::<people::NewPerson>();
    same_fields::<people::PersonChanges>();
    same_fields::<sites::NewDoor>();
    same_fields::<sites::NewSite>();
    same_fields::<recognition::policy::Policy>();
    same_fields::<login::Acceptance>();
    same_fields::<login::LogIn>();
    same_fields::<login::Refresh>();
    same_fields::<me::Passwords>();
    same_fields::<tenant_life::NewTenant>();
    same_fields::<users::Changes>();
    same_fields::<users::NewUser>();
    same_fields::<webhooks::NewWebhook>();
}

#[test]
fn the_forms_of_commands_have_all_fields_of_commands_and_no_others() {
    let document = document();
    let mut found = BTreeSet::new();
    for form in ["NewDeviceCommand", "NewDoorCommand"] {
        for kind in document["components"]["schemas"][form]["oneOf"].as_array().unwrap() {
            found.extend(kind["properties"].as_object().unwrap().keys().cloned());
        }
    }
    let known: BTreeSet<String> = commands::NewCommand::KNOWN.iter().map(|field| (*field).to_owned()).collect();
    assert_eq!(found, known);
    let settings = &document["components"]["schemas"]["TwinSettings"]["properties"];
    let settings: BTreeSet<&str> = settings.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(settings, twins::Wished::KNOWN.iter().copied().collect());
}

#[test]
fn bounds_that_are_written_twice_are_the_same() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let overlap = api_keys::MAX_OVERLAP.whole_seconds();
    assert_eq!(schemas["Rotation"]["properties"]["overlap_s"]["maximum"], overlap);
    assert_eq!(schemas["NewDevice"]["properties"]["doors"]["maxItems"], devices::MAX_DOORS);
    assert_eq!(schemas["NewPerson"]["properties"]["site_ids"]["maxItems"], people::MAX_SITES);
    for path in ["/v1/people", "/v1/events", "/v1/admin/tenants"] {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        let limit = &parameters.iter().find(|parameter| parameter["name"] == "limit").unwrap()["schema"];
        assert_eq!(
            (&limit["minimum"], &limit["maximum"], &limit["default"]),
            (&1.into(), &page::MAX_LIMIT.into(), &page::DEFAULT_LIMIT.into()),
            "{path}"
        );
    }
}
