//! Twins over the API and the command line: checked before they are taken, changed by whoever has read them, shown with what
//! differs.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::devices::made;
use super::process::{Hub, Tenant, command, data_dir, output, read, skipped};

async fn put(hub: &Hub, tenant: &Tenant, device: &str, tag: Option<&str>, body: Value) -> (StatusCode, Value) {
    let url = format!("{}/v1/devices/{device}/twin", hub.https());
    let mut request = hub.client().put(url).header("authorization", &tenant.authorization).json(&body);
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    read(request.send().await.unwrap()).await
}

fn code(answer: &(StatusCode, Value)) -> (u16, &str) {
    (answer.0.as_u16(), answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_wish_is_checked_versioned_and_changed_only_by_whoever_has_read_it() {
    if skipped("a_wish_is_checked_versioned_and_changed_only_by_whoever_has_read_it") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (tenant, stranger) = (hub.tenant("Acme"), hub.tenant("Other"));
    let (device, _) = made(&hub, &tenant, "entrance").await;
    let path = format!("/v1/devices/{device}/twin");
    let empty = hub.get(&tenant, &path).await;
    assert_eq!((&empty["standing"], &empty["desired"]), (&json!("unset"), &Value::Null));

    let hold = |ms: u32| json!({ "door": { "main": { "hold_ms": ms } } });
    assert_eq!(code(&put(&hub, &tenant, &device, None, hold(900)).await), (428, "precondition_required"));
    for wrong in [
        json!({ "door": { "main": { "actuator": "gpio" } } }),
        json!({ "door": { "main": { "hold_ms": 0 } } }),
        json!({ "policy": { "default": { "liveness": "off" } } }),
        // What no device can have as an id, and no database as text.
        json!({ "policy": { "a\0": {} } }),
    ] {
        assert_eq!(code(&put(&hub, &tenant, &device, Some("\"0\""), wrong).await), (422, "invalid_field"));
    }
    let wrong = put(&hub, &tenant, &device, Some("\"0\""), json!({ "hub": {} })).await;
    assert_eq!(code(&wrong), (422, "unknown_field"));
    let (status, first) = put(&hub, &tenant, &device, Some("\"0\""), hold(900)).await;
    assert_eq!((status, &first["desired"]["version"]), (StatusCode::OK, &json!(1)), "{first}");
    assert_eq!(first["standing"], "pending");
    let difference = json!([{ "path": "door.main.hold_ms", "desired": 900, "reported": null }]);
    assert_eq!(first["difference"], difference);
    assert_eq!(code(&put(&hub, &tenant, &device, Some("\"0\""), hold(800)).await), (412, "precondition_failed"));
    let (_, same) = put(&hub, &tenant, &device, Some("\"1\""), hold(900)).await;
    assert_eq!(same["desired"]["version"], 1, "the same wish is no new version");
    let (_, second) = put(&hub, &tenant, &device, Some("\"1\""), hold(800)).await;
    assert_eq!(second["desired"]["version"], 2);
    let url = format!("{}{path}", hub.https());
    let answer = hub.client().get(url).header("authorization", &tenant.authorization).send().await.unwrap();
    assert_eq!(answer.headers()["etag"], "\"2\"");
    let versions = hub.get(&tenant, &format!("{path}/versions")).await;
    assert_eq!(versions["data"].as_array().unwrap().len(), 2);
    assert_eq!(hub.call(&stranger, Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(put(&hub, &stranger, &device, Some("*"), hold(100)).await.0, StatusCode::NOT_FOUND);
    let mut rows = hub.superuser().await;
    let audited: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_entry WHERE action = 'twin.set'")
        .fetch_one(&mut rows)
        .await
        .unwrap();
    assert_eq!(audited, 2);

    // The command line lays one setting over those that are wished.
    let words = ["devices", "twin", "set", "--tenant", &tenant.id, &device, "log.level=debug"];
    let set = hub.cli(&words);
    let wanted = json!({ "door": { "main": { "hold_ms": 800 } }, "log": { "level": "debug" } });
    assert_eq!((&set["desired"]["version"], &set["desired"]["settings"]), (&json!(3), &wanted));
    let diff = hub.cli(&["devices", "twin", "diff", "--tenant", &tenant.id, &device]);
    assert_eq!(diff["difference"].as_array().unwrap().len(), 2);
    let mut wrong = command(dir.path());
    wrong.args(["devices", "twin", "set", "--tenant", &tenant.id, &device, "log.level=loud"]);
    let refused = output(wrong);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("loud"));
}
