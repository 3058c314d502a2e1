//! What is known of people, over the network: changed by its revision, found by what it is.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::process::{Hub, Tenant, data_dir, read, skipped};

async fn patch(hub: &Hub, tenant: &Tenant, id: &str, tag: Option<&str>, body: Value) -> (StatusCode, Value) {
    let mut request = hub.client().patch(format!("{}/v1/people/{id}", hub.https())).json(&body);
    request = request.header("authorization", &tenant.authorization);
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn people_are_changed_by_their_revision_and_found_by_what_they_have() {
    if skipped("people_are_changed_by_their_revision_and_found_by_what_they_have") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (acme, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    let new = json!({
        "external_id": "E-1", "name": "Ada", "email": "ada@example.org", "groups": ["visitors", "night", "night"],
        "valid_until": "2027-01-31T00:00:00.999Z",
    });
    let made = hub.made(&acme, "/v1/people", new).await;
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["groups"], &made["revision"]), (&json!(["night", "visitors"]), &json!(1)));
    assert_eq!((&made["valid_from"], &made["valid_until"]), (&Value::Null, &json!("2027-01-31T00:00:00.000Z")));

    let renamed = json!({ "name": "Countess", "valid_until": null });
    let (status, problem) = patch(&hub, &acme, id, None, renamed.clone()).await;
    assert_eq!((status, &problem["code"]), (StatusCode::PRECONDITION_REQUIRED, &json!("precondition_required")));
    for stale in ["\"7\"", "x"] {
        let (status, problem) = patch(&hub, &acme, id, Some(stale), renamed.clone()).await;
        assert_eq!((status, &problem["code"]), (StatusCode::PRECONDITION_FAILED, &json!("precondition_failed")));
    }
    let (status, changed) = patch(&hub, &acme, id, Some("\"1\""), renamed.clone()).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!((&changed["revision"], &changed["name"]), (&json!(2), &json!("Countess")));
    assert_eq!((&changed["valid_until"], &changed["email"]), (&Value::Null, &json!("ada@example.org")));
    let (_, again) = patch(&hub, &acme, id, Some("*"), renamed).await;
    assert_eq!(again["revision"], json!(2), "the same again changes nothing");
    for wrong in
        [json!({ "name": null }), json!({ "email": "x" }), json!({ "groups": vec!["g"; 33] }), json!({ "nmae": "x" })]
    {
        let (status, problem) = patch(&hub, &acme, id, Some("*"), wrong.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}: {problem}");
    }
    let (status, _) = patch(&hub, &other, id, Some("*"), json!({ "name": "Mine" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "another tenant's person");

    let second = hub.person(&acme, "E-2").await;
    let (status, _) = patch(&hub, &acme, &second, Some("*"), json!({ "external_id": "E-1" })).await;
    assert_eq!(status, StatusCode::CONFLICT);
    for (query, expected) in [
        ("external_id=E-1", vec![id]),
        ("external_id=E-2", vec![second.as_str()]),
        ("email=ada@example.org", vec![id]),
        ("email=ada@example.org&external_id=E-2", vec![]),
        ("external_id=E-3", vec![]),
    ] {
        let page = hub.get(&acme, &format!("/v1/people?{query}")).await;
        let found: Vec<&str> = page["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{query}");
    }
    assert_eq!(hub.get(&other, "/v1/people?external_id=E-1").await["data"], json!([]));
}
