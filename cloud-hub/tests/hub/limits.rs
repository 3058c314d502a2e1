//! How much a tenant, a key and an address may ask of a running hub, and what two hubs count together.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloud_hub::domain::limit::{Class, Rate, Span};
use cloud_hub::limit::{Asked, Bucket, Limiter, Shared};
use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::process::{Hub, Tenant, data_dir, skipped};

/// Asks until it is told to wait; how often it was answered, and the refusal.
async fn exhaust(hub: &Hub, tenant: &Tenant, most: usize) -> (usize, reqwest::Response) {
    let client = hub.client();
    for answered in 0..=most {
        let request = client.get(format!("{}/v1/sites", hub.https())).header("authorization", &tenant.authorization);
        let answer = request.send().await.unwrap();
        if answer.status() != StatusCode::OK {
            return (answered, answer);
        }
    }
    panic!("{most} requests were answered, and the next one too");
}

fn header<'a>(answer: &'a reqwest::Response, name: &str) -> &'a str {
    answer.headers().get(name).unwrap_or_else(|| panic!("no {name}: {:?}", answer.headers())).to_str().unwrap()
}

#[tokio::test]
async fn a_tenant_is_told_what_is_left_and_when_to_come_back_and_its_doors_open_all_the_same() {
    if skipped("a_tenant_is_told_what_is_left_and_when_to_come_back_and_its_doors_open_all_the_same") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (acme, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    let person = hub.person(&acme, "p").await;
    hub.cli(&["tenants", "set", &acme.id, "--requests-per-hour", "60"]);
    // Ten of the sixty at once, and one more every minute.
    let (answered, refusal) = exhaust(&hub, &acme, 10).await;
    assert_eq!((answered, refusal.status()), (10, StatusCode::TOO_MANY_REQUESTS));
    assert!(header(&refusal, "ratelimit-policy").contains("\"hour\";q=10;w=600"), "{:?}", refusal.headers());
    assert!(header(&refusal, "ratelimit").contains("\"hour\";r=0;t="), "{:?}", refusal.headers());
    let wait: u64 = header(&refusal, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let problem: serde_json::Value = refusal.json().await.unwrap();
    assert_eq!(problem["code"], "rate_limited");
    assert!(problem["detail"].as_str().unwrap().contains("\"hour\""), "{problem}");
    // Nobody else waits, no door does, and nor does a deletion.
    hub.get(&other, "/v1/sites").await;
    let door = format!("/v1/doors/{}/unlock", Uuid::nil());
    let (status, _) = hub.call(&acme, Method::POST, &door, Some(json!({}))).await;
    assert_ne!(status, StatusCode::TOO_MANY_REQUESTS);
    let (status, _) = hub.call(&acme, Method::DELETE, &format!("/v1/people/{person}"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    // What was agreed upon anew holds at once.
    hub.cli(&["tenants", "set", &acme.id, "--requests-per-hour", "tier"]);
    let tenant = hub.get(&acme, "/v1/tenant").await;
    assert_eq!(tenant["requests"], json!({ "per_hour": null, "per_day": null }));
}

#[tokio::test]
async fn a_key_has_a_limit_of_its_own_and_features_are_switched() {
    if skipped("a_key_has_a_limit_of_its_own_and_features_are_switched") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let owner = hub.tenant("Acme");
    let made = hub.made(&owner, "/v1/api-keys", json!({ "name": "sheet", "requests_per_hour": 3 })).await;
    let authorization = format!("ApiKey {}:{}", made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let sheet = Tenant { id: owner.id.clone(), authorization };
    let (answered, refusal) = exhaust(&hub, &sheet, 3).await;
    assert_eq!(answered, 3);
    assert!(header(&refusal, "ratelimit").contains("\"key\";r=0"), "{:?}", refusal.headers());
    hub.get(&owner, "/v1/sites").await;
    let (status, problem) =
        hub.call(&owner, Method::POST, "/v1/api-keys", Some(json!({ "name": "x", "requests_per_hour": 0 }))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    // Without a feature what is there can be looked at and taken down.
    let webhook = json!({ "url": "https://127.0.0.1:1/", "events": ["*"] });
    let (status, made) = hub.call(&owner, Method::POST, "/v1/webhooks", Some(webhook.clone())).await;
    let made = (status == StatusCode::CREATED).then_some(made);
    hub.cli(&["tenants", "set", &owner.id, "--feature", "webhooks=off"]);
    let (status, problem) = hub.call(&owner, Method::POST, "/v1/webhooks", Some(webhook)).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::FORBIDDEN, Some("feature_off")), "{problem}");
    hub.get(&owner, "/v1/webhooks").await;
    if let Some(made) = made {
        let path = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
        assert_eq!(hub.call(&owner, Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    }
    assert_eq!(hub.get(&owner, "/v1/tenant").await["features"]["webhooks"], false);
}

#[tokio::test]
async fn an_address_whose_keys_are_refused_is_not_listened_to_for_a_while() {
    if skipped("an_address_whose_keys_are_refused_is_not_listened_to_for_a_while") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let owner = hub.tenant("Acme");
    let client = hub.client();
    let mut refused = 0;
    let answer = loop {
        let guess = format!("ApiKey {}:{}", Uuid::new_v4(), "A".repeat(43));
        let request = client.get(format!("{}/v1/sites", hub.https())).header("authorization", guess);
        // A header that names another address is anybody's to write.
        let answer = request.header("x-forwarded-for", format!("192.0.2.{refused}")).send().await.unwrap();
        if answer.status() != StatusCode::UNAUTHORIZED {
            break answer;
        }
        refused += 1;
        assert!(refused < 100);
    };
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!((30..=33).contains(&refused), "{refused}");
    assert!(header(&answer, "retry-after").parse::<u64>().unwrap() <= 2);
    // After the time it names, a good key is let in.
    let begun = Instant::now();
    while hub.call(&owner, Method::GET, "/v1/sites", None).await.0 != StatusCode::OK {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A store of its own, stopped when dropped. Debian's package of tools holds the server; it goes by the name it is called.
struct Store(Child);

impl Store {
    fn start(dir: &Path) -> Self {
        let child = Command::new("/usr/bin/redis-check-rdb")
            .arg0("redis-server")
            .args(["--port", "0", "--unixsocket"])
            .arg(dir.join("store.sock"))
            .args(["--save", "", "--dir"])
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let store = Self(child);
        let begun = Instant::now();
        while !dir.join("store.sock").exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the store does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        store
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn two_hubs_count_together_and_each_by_itself_while_the_store_is_away() {
    let test = "two_hubs_count_together_and_each_by_itself_while_the_store_is_away";
    if !Path::new("/usr/bin/redis-check-rdb").exists() {
        eprintln!("SKIPPED {test}: redis-tools is missing: run scripts/setup");
        return;
    }
    let dir = data_dir();
    let store = Store::start(dir.path());
    let url = format!("redis+unix://{}", dir.path().join("store.sock").display());
    let hubs = [0, 1].map(|_| Limiter::new(Some(Shared::new(&url).unwrap())));
    let class =
        |burst| Asked { bucket: Bucket::Class(Class::Read), rate: Rate::new(1, Duration::from_secs(3_600), burst) };
    let tenant = Uuid::new_v4();
    let mut admitted = 0;
    for number in 0..40 {
        admitted += usize::from(hubs[number % 2].take(tenant, &[class(10)]).await[0].admits);
    }
    assert_eq!(admitted, 10, "of both together");
    assert_eq!(hubs[0].shared_answers(), Some(true));
    // In all buckets or in none, there too.
    let (both, tenant) = ([class(10), Asked { bucket: Bucket::Span(Span::Hour), ..class(1) }], Uuid::new_v4());
    assert!(hubs[0].take(tenant, &both).await.iter().all(|standing| standing.admits));
    let refused = hubs[1].take(tenant, &both).await;
    assert!(refused[0].admits && !refused[1].admits && refused[1].wait > 3_500_000_000, "{refused:?}");
    assert_eq!(hubs[1].take(tenant, &[class(10)]).await[0].remaining, 8);
    // Exactly what the rate says, by the store's clock.
    let (fast, tenant) = (
        Asked { bucket: Bucket::Class(Class::Write), rate: Rate::new(200, Duration::from_secs(1), 5) },
        Uuid::new_v4(),
    );
    let (begun, mut admitted) = (Instant::now(), 0.0);
    while begun.elapsed() < Duration::from_secs(2) {
        admitted += f64::from(u8::from(hubs[0].take(tenant, &[fast]).await[0].admits));
    }
    let most = 5.0 + 200.0 * begun.elapsed().as_secs_f64();
    assert!(admitted <= most && admitted > 0.8 * most, "{admitted} of {most}");
    // Away: each has a full bucket of its own, and nobody waits long.
    drop(store);
    let (tenant, begun) = (Uuid::new_v4(), Instant::now());
    let mut admitted = 0;
    for number in 0..40 {
        admitted += usize::from(hubs[number % 2].take(tenant, &[class(10)]).await[0].admits);
    }
    assert_eq!(admitted, 20, "each by itself");
    assert_eq!(hubs[0].shared_answers(), Some(false));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Back: together again.
    let _ = std::fs::remove_file(dir.path().join("store.sock"));
    let _store = Store::start(dir.path());
    let begun = Instant::now();
    while hubs.iter().any(|hub| hub.shared_answers() == Some(false)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the store is back, and nobody noticed");
        tokio::time::sleep(Duration::from_millis(200)).await;
        for hub in &hubs {
            hub.take(Uuid::new_v4(), &[class(10)]).await;
        }
    }
}
