//! Keys that are replaced from the command line of a running hub: everybody is let in and found meanwhile, and it says what is left.

use serde_json::{Value, json};

use super::process::{Hub, data_dir, serve, skipped};

/// What the status says of a key.
fn told<'a>(status: &'a Value, key: &str) -> &'a Value {
    let keys = status["keys"].as_array().unwrap();
    keys.iter().find(|told| told["key"].as_str().unwrap().ends_with(key)).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn index_keys_seeds_and_the_pepper_are_replaced_by_command() {
    if skipped("index_keys_seeds_and_the_pepper_are_replaced_by_command") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::from_command(serve(dir.path()), dir.path());
    let (tenant, other) = (hub.tenant("Acme"), hub.tenant("Neighbour"));
    let person = json!({ "name": "Ada Lovelace", "external_id": "E-1", "email": "ada@example.org" });
    let (status, _) = hub.call(&tenant, reqwest::Method::POST, "/v1/people", Some(person.clone())).await;
    assert_eq!(status, reqwest::StatusCode::CREATED);

    let all = hub.cli(&["keys", "rotate", "blind-index"]);
    for of in [&tenant, &other] {
        assert_eq!(told(&all, &format!("{} blind-index 2", of.id))["state"], "in use");
    }
    assert_eq!(told(&all, &format!("{} blind-index 1", tenant.id))["left"], 1);
    let one = hub.cli(&["keys", "rotate", "seeds", "--tenant", &tenant.id]);
    assert_eq!(told(&one, "seed 2"), &Value::Null, "it has no vector yet");
    let one = hub.cli(&["keys", "rotate", "people", "--tenant", &tenant.id]);
    let people = format!("{} people", tenant.id);
    assert_eq!((&told(&one, &people)["state"], &told(&one, &people)["left"]), (&json!("taking over"), &json!(1)));
    assert_eq!(told(&one, &format!("{} people", other.id)), &Value::Null);
    assert_eq!(told(&hub.cli(&["keys", "status", &tenant.id]), &people)["left"], 1);
    let site = hub.site(&tenant).await;
    let one = hub.cli(&["keys", "rotate", "galleries", "--tenant", &tenant.id]);
    assert_eq!(told(&one, "epoch 2")["state"], "in use", "{one}, of site {site}");
    let status = hub.cli(&["keys", "status", &tenant.id]);
    assert_eq!(told(&status, "epoch 2")["key"], told(&one, "epoch 2")["key"]);
    let found = hub.get(&tenant, "/v1/people?email=ada@example.org").await;
    assert_eq!(found["data"][0]["external_id"], "E-1");
    let (status, problem) = hub.call(&tenant, reqwest::Method::POST, "/v1/people", Some(person)).await;
    assert_eq!(status, reqwest::StatusCode::CONFLICT, "{problem}");

    let before = hub.cli(&["keys", "rotate", "pepper"]);
    assert_eq!(told(&before, "pepper-previous.key")["left"], 2);
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    hub.get(&tenant, "/v1/people").await;
    assert_eq!(told(&hub.cli(&["keys", "status"]), "pepper-previous.key")["left"], 1);
    let ends = hub.cli(&["keys", "retire-pepper", "--dry-run"]);
    assert_eq!((&ends["api_keys"], &ends["forgotten"]), (&json!(1), &json!(false)));
    let ends = hub.cli(&["keys", "retire-pepper", "--confirm", "1"]);
    assert_eq!(ends["forgotten"], true);
    hub.get(&tenant, "/v1/people").await;
    let (status, _) = hub.call(&other, reqwest::Method::GET, "/v1/people", None).await;
    assert_eq!(status, reqwest::StatusCode::UNAUTHORIZED);
}
