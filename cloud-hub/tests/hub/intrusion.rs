//! Callers who behave as intruders would, at a running hub: each signal once, told to the tenant, and felt by the caller.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::process::{Hub, Tenant, data_dir, serve, skipped};

fn start(dir: &Path) -> Hub {
    let mut command = serve(dir);
    for (name, value) in
        [("REFUSED", "5"), ("NETWORKS", "3"), ("PROBES", "6"), ("PEOPLE", "10"), ("PEOPLE_SHARE", "0.9")]
    {
        command.env(format!("LINTEL__INTRUSION__{name}"), value);
    }
    Hub::from_command(command, dir)
}

async fn second_key(hub: &Hub, tenant: &Tenant) -> Tenant {
    let made = hub.made(tenant, "/v1/api-keys", json!({ "name": "second" })).await;
    let authorization = format!("ApiKey {}:{}", made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    Tenant { id: tenant.id.clone(), authorization }
}

fn key_id(tenant: &Tenant) -> &str {
    tenant.authorization.strip_prefix("ApiKey ").unwrap().split_once(':').unwrap().0
}

/// The signals in the tenant's audit, once there are so many; nobody waits for them but a test.
async fn signals(hub: &Hub, tenant: &Tenant, many: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let page = hub.get(tenant, "/v1/audit?action=intrusion.signal&limit=200").await;
        let found = page["data"].as_array().unwrap();
        if found.len() >= many || begun.elapsed() > Duration::from_secs(10) {
            return found.clone();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Whether the caller's reads are in a bucket of their own.
async fn is_tightened(hub: &Hub, tenant: &Tenant) -> bool {
    let request = hub.client().get(format!("{}/v1/tenant", hub.https()));
    let answer = request.header("authorization", &tenant.authorization).send().await.unwrap();
    answer.headers()["ratelimit-policy"].to_str().unwrap().contains("\"caller\"")
}

#[tokio::test]
async fn whoever_asks_for_ids_that_are_not_there_is_told_of_and_slowed_down() {
    if skipped("whoever_asks_for_ids_that_are_not_there_is_told_of_and_slowed_down") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let acme = hub.tenant("Acme");
    let (other, watcher) = (hub.tenant("Other"), second_key(&hub, &acme).await);
    let theirs = hub.person(&other, "theirs").await;
    // The same one again and again is a program that has not heard of a deletion.
    for _ in 0..30 {
        assert_eq!(hub.call(&acme, Method::GET, &format!("/v1/people/{theirs}"), None).await.0, StatusCode::NOT_FOUND);
    }
    assert!(!is_tightened(&hub, &acme).await);
    for _ in 0..30 {
        hub.call(&acme, Method::GET, &format!("/v1/people/{}", Uuid::new_v4()), None).await;
    }
    let told = signals(&hub, &watcher, 1).await;
    assert_eq!(told.len(), 1, "{told:?}");
    let (id, detail) = (key_id(&acme), &told[0]["detail"]);
    assert_eq!((told[0]["object_id"].as_str(), told[0]["object_kind"].as_str()), (Some(id), Some("api_key")));
    assert_eq!((detail["signal"].as_str(), detail["count"].as_u64()), (Some("cross_tenant_probing"), Some(6)));
    let events = hub.get(&watcher, "/v1/events").await;
    let events: Vec<&Value> = events["data"].as_array().unwrap().iter().collect();
    let alarm = events.iter().find(|event| event["type"] == "lintel.tamper.intrusion.v1").unwrap();
    assert_eq!((&alarm["data"]["caller"], &alarm["data"]["signal"]), (&json!(id), &detail["signal"]));
    // The caller alone, and doors open all the same.
    assert!(is_tightened(&hub, &acme).await && !is_tightened(&hub, &watcher).await);
    assert!(!is_tightened(&hub, &other).await);
    let door = format!("/v1/doors/{}/unlock", Uuid::nil());
    for _ in 0..20 {
        let (status, _) = hub.call(&acme, Method::POST, &door, Some(json!({}))).await;
        assert_ne!(status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(signals(&hub, &other, 0).await, [] as [Value; 0]);
}

#[tokio::test]
async fn whoever_looks_at_nearly_everybody_is_told_of() {
    if skipped("whoever_looks_at_nearly_everybody_is_told_of") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let acme = hub.tenant("Acme");
    let watcher = second_key(&hub, &acme).await;
    for number in 0..14 {
        hub.person(&acme, &format!("p-{number}")).await;
    }
    // Twelve of fourteen are below nine tenths.
    hub.get(&acme, "/v1/people?limit=12").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(signals(&hub, &watcher, 0).await, [] as [Value; 0]);
    hub.get(&acme, "/v1/people?limit=12").await;
    let told = signals(&hub, &watcher, 1).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["detail"], json!({ "signal": "template_scraping", "count": 24 }));
    assert!(is_tightened(&hub, &acme).await);
    hub.get(&acme, "/v1/people").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(signals(&hub, &watcher, 1).await.len(), 1, "once within its window");
}

#[tokio::test]
async fn wrong_secrets_for_a_key_are_told_to_its_tenant_and_do_it_no_harm() {
    if skipped("wrong_secrets_for_a_key_are_told_to_its_tenant_and_do_it_no_harm") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let (acme, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    let guess = Tenant { id: acme.id.clone(), authorization: format!("ApiKey {}:{}", key_id(&acme), "A".repeat(43)) };
    for _ in 0..8 {
        assert_eq!(hub.call(&guess, Method::GET, "/v1/tenant", None).await.0, StatusCode::UNAUTHORIZED);
    }
    let told = signals(&hub, &acme, 1).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["detail"], json!({ "signal": "authentication_burst", "count": 5 }));
    assert_eq!(told[0]["object_id"].as_str(), Some(key_id(&acme)));
    assert!(!is_tightened(&hub, &acme).await);
    assert_eq!(signals(&hub, &other, 0).await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_key_that_comes_from_many_networks_is_told_of() {
    if skipped("a_key_that_comes_from_many_networks_is_told_of") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let acme = hub.tenant("Acme");
    let watcher = second_key(&hub, &acme).await;
    // All of 127.0.0.0/8 is this machine: 127.0.N.1 is a network for each N.
    let from = async |network: u8| {
        let address = IpAddr::from([127, 0, network, 1]);
        let client = hub.client_builder().local_address(address).build().unwrap();
        let request = client.get(format!("{}/v1/tenant", hub.https())).header("authorization", &acme.authorization);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    };
    // The key was used from here before.
    for network in [1, 2, 1, 0, 2, 2] {
        from(network).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(signals(&hub, &watcher, 0).await, [] as [Value; 0]);
    for network in [3, 4, 5] {
        from(network).await;
    }
    let told = signals(&hub, &watcher, 1).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["detail"], json!({ "signal": "impossible_travel", "count": 4 }));
    assert!(is_tightened(&hub, &acme).await);
}
