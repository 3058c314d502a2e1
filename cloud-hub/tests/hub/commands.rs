//! Commands over the API: who may give which, what the device would get, and how their state is told.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Executor as _;
use uuid::Uuid;

use super::devices::{Device, code, made};
use super::process::{Hub, Tenant, data_dir, read, skipped, skipped_without_models};

/// A device that counts as claimed and connected, and its door.
async fn connected(hub: &Hub, tenant: &Tenant) -> (String, String) {
    let (device, _) = made(hub, tenant, "entrance").await;
    hub.superuser().await.execute("UPDATE device SET state = 'claimed', online = true").await.unwrap();
    let doors = hub.get(tenant, "/v1/doors").await;
    (device, doors["data"][0]["id"].as_str().unwrap().to_owned())
}

async fn unlock(hub: &Hub, tenant: &Tenant, door: &str, body: Value) -> (StatusCode, Value) {
    hub.call(tenant, Method::POST, &format!("/v1/doors/{door}/unlock"), Some(body)).await
}

#[tokio::test]
async fn an_unlock_is_given_once_lives_ten_seconds_and_is_on_record() {
    if skipped("an_unlock_is_given_once_lives_ten_seconds_and_is_on_record") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (device, door) = connected(&hub, &tenant).await;
    let id = Uuid::now_v7().to_string();
    let (status, command) = unlock(&hub, &tenant, &door, json!({ "id": id, "hold_ms": 2000 })).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{command}");
    assert_eq!(
        (&command["id"], &command["device_id"], &command["state"]),
        (&json!(id), &json!(device), &json!("issued"))
    );
    let at = |name: &str| command[name].as_str().unwrap().parse::<wire_contract::Timestamp>().unwrap().unix_ms();
    assert_eq!(at("expires_at") - at("issued_at"), 10_000);

    let again = unlock(&hub, &tenant, &door, json!({ "id": id, "hold_ms": 2000 })).await;
    assert_eq!((again.0, &again.1["issued_at"]), (StatusCode::ACCEPTED, &command["issued_at"]), "one id, one command");
    let other = unlock(&hub, &tenant, &door, json!({ "id": id, "hold_ms": 3000 })).await;
    assert_eq!(code(&other), (409, "conflict"));
    let listed = hub.get(&tenant, &format!("/v1/devices/{device}/commands")).await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let mut rows = hub.superuser().await;
    let given: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_entry WHERE action = 'command.give'")
        .fetch_one(&mut rows)
        .await
        .unwrap();
    assert_eq!(given, 1);

    // Nobody had the last word: after the grace it is unanswered, not forgotten.
    rows.execute("UPDATE command SET issued_at = now() - interval '60 s', expires_at = now() - interval '50 s'")
        .await
        .unwrap();
    assert_eq!(hub.get(&tenant, &format!("/v1/commands/{id}")).await["state"], "unanswered");
    let path = format!("/v1/devices/{device}/commands");
    let (status, refresh) = hub.call(&tenant, Method::POST, &path, Some(json!({ "kind": "refresh" }))).await;
    assert_eq!(
        (status, &refresh["kind"], &refresh["door_id"]),
        (StatusCode::ACCEPTED, &json!("refresh"), &Value::Null)
    );
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_refused_with_what_to_do() {
    if skipped("what_cannot_be_carried_out_is_refused_with_what_to_do") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (tenant, stranger) = (hub.tenant("Acme"), hub.tenant("Other"));
    let (device, door) = connected(&hub, &tenant).await;
    for hold in [0, 60_001] {
        assert_eq!(code(&unlock(&hub, &tenant, &door, json!({ "hold_ms": hold })).await), (422, "invalid_field"));
    }
    assert_eq!(code(&unlock(&hub, &tenant, &door, json!({ "hold": 5 })).await), (422, "unknown_field"));
    let path = format!("/v1/devices/{device}/commands");
    let dance = hub.call(&tenant, Method::POST, &path, Some(json!({ "kind": "dance" }))).await;
    assert_eq!(code(&dance), (422, "invalid_field"));
    let nowhere = Uuid::now_v7().to_string();
    assert_eq!(code(&unlock(&hub, &tenant, &nowhere, json!({})).await), (404, "not_found"));

    // Another tenant sees neither door nor device nor command.
    let (_, command) = unlock(&hub, &tenant, &door, json!({})).await;
    let id = command["id"].as_str().unwrap();
    assert_eq!(code(&unlock(&hub, &stranger, &door, json!({})).await), (404, "not_found"));
    for (method, path, body) in [
        (Method::GET, format!("/v1/commands/{id}"), None),
        (Method::GET, path.clone(), None),
        (Method::POST, path.clone(), Some(json!({ "kind": "refresh" }))),
    ] {
        assert_eq!(code(&hub.call(&stranger, method, &path, body).await), (404, "not_found"), "{path}");
    }

    let site = hub.get(&tenant, "/v1/sites").await["data"][0]["id"].clone();
    let unmanned = hub.made(&tenant, "/v1/doors", json!({ "name": "Gate", "site_id": site })).await;
    let refused = unlock(&hub, &tenant, unmanned["id"].as_str().unwrap(), json!({})).await;
    assert_eq!(code(&refused), (409, "conflict"), "no device drives it");
    hub.superuser().await.execute("UPDATE device SET online = false").await.unwrap();
    assert_eq!(code(&unlock(&hub, &tenant, &door, json!({})).await), (409, "device_offline"));
}

#[tokio::test]
async fn every_kind_is_given_within_its_bounds_over_the_api_and_the_command_line() {
    if skipped("every_kind_is_given_within_its_bounds_over_the_api_and_the_command_line") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (device, door) = connected(&hub, &tenant).await;
    let person = hub.person(&tenant, "P-1").await;
    let (to_device, to_door) = (format!("/v1/devices/{device}/commands"), format!("/v1/doors/{door}/commands"));
    for (path, body) in [
        (&to_device, json!({ "kind": "lockdown", "on": true })),
        (&to_door, json!({ "kind": "lockdown", "on": false })),
        (&to_device, json!({ "kind": "reboot" })),
        (&to_device, json!({ "kind": "reboot", "target": "machine" })),
        (&to_device, json!({ "kind": "log_level", "level": "debug", "for_s": 600 })),
        (&to_device, json!({ "kind": "collect_logs", "max_bytes": 1000 })),
        (&to_door, json!({ "kind": "enrol", "person_id": person, "within_s": 20 })),
    ] {
        let (status, command) = hub.call(&tenant, Method::POST, path, Some(body.clone())).await;
        assert_eq!((status, &command["kind"]), (StatusCode::ACCEPTED, &body["kind"]), "{command}");
        let id = command["id"].as_str().unwrap();
        let read = hub.get(&tenant, &format!("/v1/commands/{id}")).await;
        assert_eq!(read["args"], command["args"], "what was ordered is kept");
    }
    let nobody = Uuid::new_v4();
    for (path, body, wanted) in [
        (&to_device, json!({ "kind": "unlock" }), (422, "invalid_field")),
        (&to_door, json!({ "kind": "reboot" }), (422, "invalid_field")),
        (&to_device, json!({ "kind": "lockdown" }), (422, "invalid_field")),
        (&to_device, json!({ "kind": "refresh", "on": true }), (422, "invalid_field")),
        (&to_device, json!({ "kind": "log_level", "level": "loud" }), (422, "invalid_field")),
        (&to_device, json!({ "kind": "log_level", "level": "info", "for_s": 86_401 }), (422, "invalid_field")),
        (&to_device, json!({ "kind": "collect_logs", "max_bytes": 524_289 }), (422, "invalid_field")),
        (&to_door, json!({ "kind": "enrol", "person_id": nobody }), (404, "not_found")),
        (&to_door, json!({ "kind": "enrol", "person_id": person, "within_s": 121 }), (422, "invalid_field")),
    ] {
        assert_eq!(code(&hub.call(&tenant, Method::POST, path, Some(body.clone())).await), wanted, "{body}");
    }
    let words = ["commands", "send", "lockdown", "--tenant", &tenant.id, "--door", &door];
    let sent = hub.cli(&words);
    assert_eq!(
        (&sent["kind"], &sent["args"], &sent["actor"]),
        (&json!("lockdown"), &json!({ "on": true }), &json!("operator"))
    );
    let listed = hub.cli(&["commands", "list", "--tenant", &tenant.id, "--device", &device]);
    assert_eq!(listed["commands"].as_array().unwrap().len(), 8);
    let shown = hub.cli(&["commands", "show", "--tenant", &tenant.id, sent["id"].as_str().unwrap()]);
    assert_eq!(shown["state"], "issued");
}

/// A claimed device, its id, its chain and its door; counted as connected.
async fn claimed(hub: &Hub, tenant: &Tenant) -> (Device, String, String, String) {
    let (id, token) = made(hub, tenant, "entrance").await;
    let device = Device::new();
    let (_, answer) = device.claim(hub, &token).await;
    let chain = serde_json::from_value::<wire_contract::ClaimAnswer>(answer).unwrap().certificate_chain;
    hub.superuser().await.execute("UPDATE device SET online = true").await.unwrap();
    let doors = hub.get(tenant, "/v1/doors").await;
    (device, id, chain, doors["data"][0]["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_log_is_taken_once_from_the_device_that_was_asked_and_read_by_its_owner_alone() {
    if skipped("a_log_is_taken_once_from_the_device_that_was_asked_and_read_by_its_owner_alone") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (tenant, stranger) = (hub.tenant("Acme"), hub.tenant("Other"));
    let (device, id, chain, _) = claimed(&hub, &tenant).await;
    let path = format!("/v1/devices/{id}/commands");
    let (_, command) = hub.call(&tenant, Method::POST, &path, Some(json!({ "kind": "collect_logs" }))).await;
    let command = command["id"].as_str().unwrap().to_owned();
    let put = async |command: &str, lines: String| {
        let url = format!("{}/v1/device/logs/{command}", hub.https());
        read(device.client(&hub, &chain).put(url).body(lines).send().await.unwrap()).await
    };
    let path = format!("/v1/commands/{command}/logs");
    assert_eq!(code(&hub.call(&tenant, Method::GET, &path, None).await), (404, "not_found"));
    assert_eq!(code(&put(&command, "x".repeat(600_000)).await), (413, "payload_too_large"));
    assert_eq!(put(&command, "{\"event\":\"one\"}\n".into()).await.0, StatusCode::NO_CONTENT);
    assert_eq!(put(&command, "{\"event\":\"other\"}\n".into()).await.0, StatusCode::NO_CONTENT);
    assert_eq!(code(&put(&Uuid::now_v7().to_string(), "x".into()).await), (404, "not_found"));
    let url = format!("{}{path}", hub.https());
    let lines = hub.client().get(url).header("authorization", &tenant.authorization).send().await.unwrap();
    assert_eq!(lines.headers()["content-type"], "application/x-ndjson");
    assert_eq!(lines.text().await.unwrap(), "{\"event\":\"one\"}\n", "the first counts");
    assert_eq!(code(&hub.call(&stranger, Method::GET, &path, None).await), (404, "not_found"));
    let (_, refresh) = hub
        .call(&tenant, Method::POST, &format!("/v1/devices/{id}/commands"), Some(json!({ "kind": "refresh" })))
        .await;
    assert_eq!(put(refresh["id"].as_str().unwrap(), "x".into()).await.0, StatusCode::NOT_FOUND, "no log was asked for");
}

#[tokio::test]
async fn a_face_from_a_door_is_taken_for_whom_it_was_ordered_and_never_for_a_deleted_person() {
    const TEST: &str = "a_face_from_a_door_is_taken_for_whom_it_was_ordered_and_never_for_a_deleted_person";
    if skipped_without_models(TEST) {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (device, _, chain, door) = claimed(&hub, &tenant).await;
    let (anna, ben) = (hub.person(&tenant, "P-1").await, hub.person(&tenant, "P-2").await);
    let order = async |person: &str| {
        let path = format!("/v1/doors/{door}/commands");
        let body = json!({ "kind": "enrol", "person_id": person });
        let (status, command) = hub.call(&tenant, Method::POST, &path, Some(body)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{command}");
        command["id"].as_str().unwrap().to_owned()
    };
    let face = |axis: usize| {
        let mut embedding = [0.0; 512];
        embedding[axis] = 1.0;
        serde_json::to_value(wire_contract::enrol::Template::of(&embedding)).unwrap()
    };
    let send = async |command: &str, person: &str, space: &str, template: Value| {
        let body = json!({
            "v": 1, "command": command, "person": person, "space_id": space, "pack": "test 1", "quality": 0.8,
            "template": template,
        });
        let request = device.client(&hub, &chain).post(format!("{}/v1/device/enrolments", hub.https()));
        read(request.json(&body).send().await.unwrap()).await
    };
    let space = fleet_space();
    let first = order(&anna).await;
    // The models are opened after the hub is ready.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let refused = loop {
        let answer = send(&first, &ben, &space, face(1)).await;
        if code(&answer).1 != "models_unavailable" || std::time::Instant::now() > until {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    assert_eq!(code(&refused), (404, "not_found"), "a device does not choose whom it enrols");
    assert_eq!(code(&send(&first, &anna, "other-space", face(1)).await), (422, "invalid_field"));
    assert_eq!(code(&send(&first, &anna, &space, json!("AAAA")).await), (422, "invalid_field"));
    let (status, taken) = send(&first, &anna, &space, face(1)).await;
    assert_eq!(status, StatusCode::OK, "{taken}");
    let again = send(&first, &anna, &space, face(2)).await;
    assert_eq!((again.0, &again.1["template"]), (StatusCode::OK, &taken["template"]), "one command, one template");
    let second = order(&ben).await;
    assert_eq!(code(&send(&second, &ben, &space, face(1)).await), (409, "duplicate_person"));
    // Deleted between the order and the face: the deletion wins.
    assert_eq!(hub.call(&tenant, Method::DELETE, &format!("/v1/people/{ben}"), None).await.0, StatusCode::NO_CONTENT);
    let gone = send(&second, &ben, &space, face(9)).await;
    assert!(gone.0.is_client_error(), "{gone:?}");
    let mut rows = hub.superuser().await;
    let templates: i64 = sqlx::query_scalar("SELECT count(*) FROM template").fetch_one(&mut rows).await.unwrap();
    assert_eq!(templates, 1);
    let audited: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit_entry WHERE action = 'template.create' AND detail->>'command' IS NOT NULL",
    )
    .fetch_one(&mut rows)
    .await
    .unwrap();
    assert_eq!(audited, 1);
}

/// The space of the default model pack.
fn fleet_space() -> String {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/faceplugin/manifest.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("space_id")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}
