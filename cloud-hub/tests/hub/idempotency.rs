//! `Idempotency-Key` at a running hub: asked again, answered again, made once.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::process::{Hub, Tenant, data_dir, read, skipped};

const KEY: &str = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";

async fn post(hub: &Hub, tenant: &Tenant, path: &str, key: &str, body: Value) -> Response {
    let request = hub.client().request(Method::POST, format!("{}{path}", hub.https()));
    let request = request.header("authorization", &tenant.authorization).header("idempotency-key", key);
    request.json(&body).send().await.unwrap()
}

fn replayed(answer: &Response) -> bool {
    answer.headers().get("idempotency-replayed").is_some_and(|value| value == "true")
}

async fn refused(hub: &Hub, tenant: &Tenant, path: &str, key: &str, body: Value) -> (u16, String) {
    let (status, problem) = read(post(hub, tenant, path, key, body).await).await;
    (status.as_u16(), problem["code"].as_str().unwrap_or_default().to_owned())
}

fn site(name: &str) -> Value {
    json!({ "name": name, "time_zone": "UTC" })
}

fn start(dir: &Path) -> (Hub, Tenant) {
    let hub = Hub::start(dir);
    let tenant = hub.tenant("Acme");
    (hub, tenant)
}

#[tokio::test]
async fn whoever_asks_again_is_answered_again_and_nothing_is_made_twice() {
    if skipped("whoever_asks_again_is_answered_again_and_nothing_is_made_twice") {
        return;
    }
    let dir = data_dir();
    let (hub, acme) = start(dir.path());
    let other = hub.tenant("Other");
    let person = json!({ "name": "Ada", "external_id": "a-1" });
    let first = post(&hub, &acme, "/v1/people", KEY, person.clone()).await;
    assert!(!replayed(&first));
    let etag = first.headers()["etag"].clone();
    let (status, made) = read(first).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let again = post(&hub, &acme, "/v1/people", KEY.trim_matches('"'), person.clone()).await;
    assert!(replayed(&again));
    assert_eq!(again.headers()["etag"], etag);
    assert_eq!(read(again).await, (StatusCode::CREATED, made.clone()));
    assert_eq!(hub.get(&acme, "/v1/people").await["data"].as_array().unwrap().len(), 1);
    // Another request under it, another operation, another caller, another tenant.
    let wrong = refused(&hub, &acme, "/v1/people", KEY, json!({ "name": "Bob", "external_id": "b" })).await;
    assert_eq!(wrong, (422, String::from("idempotency_key_reused")));
    let wrong = refused(&hub, &acme, "/v1/sites", KEY, site("HQ")).await;
    assert_eq!(wrong, (422, String::from("idempotency_key_reused")));
    let key = hub.made(&acme, "/v1/api-keys", json!({ "name": "second" })).await;
    let second = Tenant {
        id: acme.id.clone(),
        authorization: format!("ApiKey {}:{}", key["id"].as_str().unwrap(), key["secret"].as_str().unwrap()),
    };
    assert!(!replayed(&post(&hub, &second, "/v1/people", KEY, json!({ "name": "Bob", "external_id": "b" })).await));
    assert!(!replayed(&post(&hub, &other, "/v1/people", KEY, person.clone()).await));
    // A refusal is an outcome too, told with the id of the request that it answers.
    let doubled = post(&hub, &acme, "/v1/people", "twice", person.clone()).await;
    let (status, problem) = read(doubled).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    let again = post(&hub, &acme, "/v1/people", "twice", person).await;
    assert!(replayed(&again));
    let (status, told) = read(again).await;
    assert_eq!((status, &told["code"], &told["detail"]), (StatusCode::CONFLICT, &problem["code"], &problem["detail"]));
    assert_ne!(told["trace_id"], problem["trace_id"]);
    // What cannot be a key.
    let long = "k".repeat(256);
    for key in ["", "a b", "\"open", long.as_str()] {
        let wrong = refused(&hub, &acme, "/v1/sites", key, site("HQ")).await;
        assert_eq!(wrong, (400, String::from("invalid_request")), "{key:?}");
    }
    // Without a right there is no claim, and nothing is said of the key.
    hub.cli(&["tenants", "suspend", &acme.id]);
    let wrong = refused(&hub, &acme, "/v1/people", KEY, json!({})).await;
    assert_eq!(wrong, (403, String::from("tenant_suspended")));
}

#[tokio::test]
async fn secrets_shown_once_are_kept_sealed_and_go_with_whom_they_are_about() {
    if skipped("secrets_shown_once_are_kept_sealed_and_go_with_whom_they_are_about") {
        return;
    }
    let dir = data_dir();
    let (hub, acme) = start(dir.path());
    let mut database = hub.superuser().await;
    let made = read(post(&hub, &acme, "/v1/api-keys", "key", json!({ "name": "k" })).await).await;
    assert_eq!(made.0, StatusCode::CREATED);
    assert_eq!(read(post(&hub, &acme, "/v1/api-keys", "key", json!({ "name": "k" })).await).await, made);
    let person = json!({ "name": "Zacharias Quux", "external_id": "z" });
    let (_, ada) = read(post(&hub, &acme, "/v1/people", "ada", person.clone()).await).await;
    let rows: Vec<(bool, Option<Vec<u8>>)> =
        sqlx::query_as("SELECT changed, answer_sealed FROM idempotency_key").fetch_all(&mut database).await.unwrap();
    assert_eq!(rows.len(), 2);
    let secret = made.1["secret"].as_str().unwrap();
    for (changed, sealed) in &rows {
        assert!(changed);
        let text = String::from_utf8_lossy(sealed.as_ref().unwrap()).into_owned();
        assert!(!text.contains(secret) && !text.contains("Zacharias"), "an answer lies there in the clear");
    }
    // Who is deleted is not told of again, and not made again.
    let id = ada["id"].as_str().unwrap();
    assert_eq!(hub.call(&acme, Method::DELETE, &format!("/v1/people/{id}"), None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(refused(&hub, &acme, "/v1/people", "ada", person).await, (409, String::from("idempotency_no_answer")));
    let kept: Vec<Option<Vec<u8>>> =
        sqlx::query_scalar("SELECT answer_sealed FROM idempotency_key WHERE $1 = ANY(about)")
            .bind(uuid::Uuid::parse_str(id).unwrap())
            .fetch_all(&mut database)
            .await
            .unwrap();
    assert_eq!(kept, [None]);
    let (keys, bytes): (i32, i64) =
        sqlx::query_as("SELECT keys, bytes FROM idempotency_use").fetch_one(&mut database).await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT sum(octet_length(answer_sealed)) FROM idempotency_key")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!((keys, bytes), (2, kept));
    // As many as there may be: the next one is told so, and the same without a key is served.
    sqlx::query("UPDATE idempotency_use SET keys = 20000").execute(&mut database).await.unwrap();
    assert_eq!(refused(&hub, &acme, "/v1/sites", "full", site("HQ")).await, (429, String::from("rate_limited")));
    hub.site(&acme).await;
    // A door does not stay shut over it: there is no such door, and that is what is said.
    let unlock = format!("/v1/doors/{}/unlock", uuid::Uuid::new_v4());
    assert_eq!(refused(&hub, &acme, &unlock, "full", json!({})).await, (404, String::from("not_found")));
}

#[tokio::test]
async fn a_client_that_goes_away_finds_its_answer_and_a_hub_that_dies_tells_no_lies() {
    if skipped("a_client_that_goes_away_finds_its_answer_and_a_hub_that_dies_tells_no_lies") {
        return;
    }
    let dir = data_dir();
    let (hub, acme) = start(dir.path());
    let mut database = hub.superuser().await;
    // The change waits for a lock, as it may in a busy database; the client does not.
    let mut holder = hub.superuser().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE site IN EXCLUSIVE MODE").execute(&mut holder).await.unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(1), post(&hub, &acme, "/v1/sites", "gone", site("HQ"))).await;
    assert!(asked.is_err());
    assert_eq!(
        refused(&hub, &acme, "/v1/sites", "gone", site("HQ")).await,
        (409, String::from("idempotency_in_progress"))
    );
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    let answered = loop {
        let answer = post(&hub, &acme, "/v1/sites", "gone", site("HQ")).await;
        if answer.status() != StatusCode::CONFLICT {
            break answer;
        }
        assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(replayed(&answered));
    assert_eq!(answered.status(), StatusCode::CREATED);
    assert_eq!(hub.get(&acme, "/v1/sites").await["data"].as_array().unwrap().len(), 1);
    // The rows that a hub leaves which dies between its commit and the answer, and of one that dies before.
    let left = |changed: bool| {
        format!(
            "UPDATE idempotency_key SET status = NULL, answer_sealed = NULL, held_until = now(), changed = {changed}"
        )
    };
    sqlx::raw_sql(sqlx::AssertSqlSafe(left(true))).execute(&mut database).await.unwrap();
    assert_eq!(
        refused(&hub, &acme, "/v1/sites", "gone", site("HQ")).await,
        (409, String::from("idempotency_no_answer"))
    );
    assert_eq!(hub.get(&acme, "/v1/sites").await["data"].as_array().unwrap().len(), 1);
    // It is carried out: there is a site of that name by now.
    sqlx::raw_sql(sqlx::AssertSqlSafe(left(false))).execute(&mut database).await.unwrap();
    assert_eq!(refused(&hub, &acme, "/v1/sites", "gone", site("HQ")).await, (409, String::from("conflict")));
}
