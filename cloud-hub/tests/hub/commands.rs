//! Commands over the API: who may give which, what the device would get, and how their state is told.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Executor as _;
use uuid::Uuid;

use super::devices::{code, made};
use super::process::{Hub, Tenant, data_dir, skipped};

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
