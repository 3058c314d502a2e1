//! Webhooks end to end: from an event's commit to a receiver on loopback that checks signatures for itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Executor as _;

use super::process::{Hub, Tenant, data_dir, skipped};

#[derive(Clone)]
struct Delivery {
    id: String,
    timestamp: i64,
    signature: String,
    body: Vec<u8>,
    at: Instant,
}

/// A receiver that answers what it is told to and keeps what came.
#[derive(Clone)]
struct Receiver {
    seen: Arc<Mutex<Vec<Delivery>>>,
    answers: Arc<Mutex<Vec<StatusCode>>>,
    address: SocketAddr,
}

impl Receiver {
    /// Answers `answers` in turn, then 204.
    async fn start(answers: &[StatusCode]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            seen: Arc::default(),
            answers: Arc::new(Mutex::new(answers.iter().rev().copied().collect())),
            address: listener.local_addr().unwrap(),
        };
        let app = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn seen(&self) -> Vec<Delivery> {
        self.seen.lock().clone()
    }

    async fn wait_for(&self, n: usize, within: Duration) -> Vec<Delivery> {
        let until = Instant::now() + within;
        while self.seen.lock().len() < n {
            assert!(Instant::now() < until, "{} of {n} deliveries after {within:?}", self.seen.lock().len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.seen()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    receiver.seen.lock().push(Delivery {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp").parse().unwrap(),
        signature: header("webhook-signature"),
        body: body.to_vec(),
        at: Instant::now(),
    });
    receiver.answers.lock().pop().unwrap_or(StatusCode::NO_CONTENT)
}

/// Standard Webhooks 1.0.0, written from the specification with another implementation of SHA-256 than the hub's.
fn is_signed(secret: &str, delivery: &Delivery) -> bool {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let message = [format!("{}.{}.", delivery.id, delivery.timestamp).into_bytes(), delivery.body.clone()].concat();
    let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &message)));
    delivery.signature.split(' ').any(|signature| signature == expected)
}

/// RFC 2104 by the letter, over `openssl dgst`'s SHA-256.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{}", hex::encode(key)), "-binary"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(message).unwrap();
    child.wait_with_output().unwrap().stdout
}

async fn webhook(hub: &Hub, tenant: &Tenant, url: &str) -> Value {
    hub.made(tenant, "/v1/webhooks", json!({ "url": url })).await
}

/// One event: a person is made and deleted. Returns their id.
async fn event(hub: &Hub, tenant: &Tenant, name: &str) -> String {
    let person = hub.person(tenant, name).await;
    let (status, _) = hub.call(tenant, Method::DELETE, &format!("/v1/people/{person}"), None).await;
    assert_eq!(status.as_u16(), 204);
    person
}

#[tokio::test]
async fn an_event_reaches_a_receiver_signed_and_is_tried_again_until_it_does() {
    if skipped("an_event_reaches_a_receiver_signed_and_is_tried_again_until_it_does") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (tenant, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    let receiver = Receiver::start(&[StatusCode::INTERNAL_SERVER_ERROR]).await;
    let made = webhook(&hub, &tenant, &receiver.url()).await;
    let secret = made["secret"].as_str().unwrap();
    // The secret is shown once.
    assert!(!hub.get(&tenant, "/v1/webhooks").await.to_string().contains("whsec_"));

    let committed = Instant::now();
    let person = event(&hub, &tenant, "a").await;
    event(&hub, &other, "not for this receiver").await;
    let deliveries = receiver.wait_for(2, Duration::from_secs(20)).await;
    assert!(
        deliveries[0].at - committed < Duration::from_secs(1),
        "first try after {:?}",
        deliveries[0].at - committed
    );
    assert_eq!(deliveries[0].id, deliveries[1].id, "the same event under the same id");
    assert!(deliveries[1].at - deliveries[0].at > Duration::from_secs(4), "the schedule's five seconds");
    for delivery in &deliveries {
        assert!(is_signed(secret, delivery), "{delivery:?}", delivery = delivery.signature);
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        assert_eq!(body["type"], "lintel.person.deleted.v1");
        assert_eq!(body["data"]["subject"], json!(person));
        assert_eq!(body["data"]["event_id"], json!(delivery.id));
    }
    let mut forged = deliveries[0].clone();
    forged.body.push(b' ');
    assert!(!is_signed(secret, &forged), "the check can fail");
    // The feed has the same id.
    let events = hub.get(&tenant, "/v1/events").await;
    assert_eq!(events["data"][0]["id"], json!(deliveries[0].id));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(receiver.seen().len(), 2, "delivered once and no more");
}

#[tokio::test]
async fn a_dead_endpoint_delays_nobody_and_a_gone_one_ends() {
    if skipped("a_dead_endpoint_delays_nobody_and_a_gone_one_ends") {
        return;
    }
    let dir = data_dir();
    let mut command = super::process::serve(dir.path());
    // Two tasks in all: if the dead endpoint could take both, the living one would wait.
    command.env("LINTEL__WEBHOOKS__WORKERS", "2").env("LINTEL__WEBHOOKS__PER_ENDPOINT", "1");
    let hub = Hub::from_command(command, dir.path());
    let tenant = hub.tenant("Acme");
    // Accepts and never answers.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    webhook(&hub, &tenant, &format!("http://{}/", dead.local_addr().unwrap())).await;
    let living = Receiver::start(&[]).await;
    webhook(&hub, &tenant, &living.url()).await;
    let gone = Receiver::start(&[StatusCode::GONE]).await;
    let gone_id = webhook(&hub, &tenant, &gone.url()).await["id"].clone();

    let begun = Instant::now();
    for n in 0..5 {
        event(&hub, &tenant, &format!("p{n}")).await;
    }
    let deliveries = living.wait_for(5, Duration::from_secs(8)).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let ids: BTreeSet<&String> = deliveries.iter().map(|delivery| &delivery.id).collect();
    assert_eq!(ids.len(), 5);
    gone.wait_for(1, Duration::from_secs(8)).await;
    let until = Instant::now() + Duration::from_secs(5);
    while hub.get(&tenant, "/v1/webhooks").await.to_string().contains(gone_id.as_str().unwrap()) {
        assert!(Instant::now() < until, "410 ends the endpoint");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gone.seen().len(), 1, "nothing more is sent to it");
}

#[tokio::test]
async fn many_endpoints_of_one_tenant_take_no_more_tasks_than_there_are_and_nobody_elses_turn() {
    if skipped("many_endpoints_of_one_tenant_take_no_more_tasks_than_there_are_and_nobody_elses_turn") {
        return;
    }
    let dir = data_dir();
    let mut command = super::process::serve(dir.path());
    command.env("LINTEL__WEBHOOKS__WORKERS", "3").env("LINTEL__WEBHOOKS__PER_ENDPOINT", "2");
    let hub = Hub::from_command(command, dir.path());
    let (many, other) = (hub.tenant("Many"), hub.tenant("Other"));
    let slow = Slow::start(Duration::from_millis(300)).await;
    for _ in 0..20 {
        webhook(&hub, &many, &slow.url()).await;
    }
    let receiver = Receiver::start(&[]).await;
    webhook(&hub, &other, &receiver.url()).await;
    for n in 0..5 {
        event(&hub, &many, &format!("p{n}")).await;
    }
    let (before, all) = (slow.answered(), 100);
    event(&hub, &other, "theirs").await;
    receiver.wait_for(1, Duration::from_secs(30)).await;
    let after = slow.answered();
    assert!(before + 20 < all, "so little was left that this shows nothing");
    assert!(after < before + 15, "{} deliveries of the other tenant came first", after - before);
    let begun = Instant::now();
    while slow.answered() < all {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {all} deliveries", slow.answered());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!((2..=3).contains(&slow.most_at_once()), "{} at once, of three", slow.most_at_once());
}

#[tokio::test]
async fn outcomes_that_wait_for_each_other_leave_connections_for_requests() {
    if skipped("outcomes_that_wait_for_each_other_leave_connections_for_requests") {
        return;
    }
    let dir = data_dir();
    let mut command = super::process::serve(dir.path());
    command.env("LINTEL__DATABASE__MAX_CONNECTIONS", "6");
    let hub = Hub::from_command(command, dir.path());
    let tenant = hub.tenant("Acme");
    let (slow, endpoints) = (Slow::start(Duration::from_secs(4)).await, 8);
    for _ in 0..endpoints {
        webhook(&hub, &tenant, &slow.url()).await;
    }
    event(&hub, &tenant, "a").await;
    let begun = Instant::now();
    while slow.most_at_once() < endpoints {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} attempts", slow.most_at_once());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What every outcome of the tenant changes is held up.
    let mut holder = hub.superuser().await;
    holder.execute("BEGIN; SELECT FROM route_due WHERE kind = 'webhook' FOR UPDATE").await.unwrap();
    while slow.answered() < endpoints {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} answered", slow.answered());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let waiting: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)) AND query LIKE '%route_due%'",
    )
    .fetch_one(&mut holder)
    .await
    .unwrap();
    assert!(waiting > 0, "no outcome waits, so that this shows nothing");
    let asked = tokio::time::timeout(Duration::from_secs(5), hub.get(&tenant, "/v1/events")).await;
    assert!(asked.is_ok(), "a request waits for a connection");
    holder.execute("ROLLBACK").await.unwrap();
    let begun = Instant::now();
    let left = "SELECT count(*) FROM webhook_delivery WHERE state <> 'delivered'";
    while sqlx::query_scalar::<_, i64>(left).fetch_one(&mut holder).await.unwrap() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "not every outcome is written down");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A receiver that takes its time, and counts.
#[derive(Clone)]
struct Slow {
    takes: Duration,
    address: SocketAddr,
    /// Now, most at once, answered.
    counts: Arc<Mutex<(u32, u32, u32)>>,
}

impl Slow {
    async fn start(takes: Duration) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let slow = Self { takes, address: listener.local_addr().unwrap(), counts: Arc::default() };
        let app = Router::new().fallback(Self::take).with_state(slow.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        slow
    }

    async fn take(State(slow): State<Self>) -> StatusCode {
        {
            let mut counts = slow.counts.lock();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        tokio::time::sleep(slow.takes).await;
        let mut counts = slow.counts.lock();
        counts.0 -= 1;
        counts.2 += 1;
        StatusCode::NO_CONTENT
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn most_at_once(&self) -> u32 {
        self.counts.lock().1
    }

    fn answered(&self) -> u32 {
        self.counts.lock().2
    }
}

#[tokio::test]
async fn deliveries_survive_a_kill_of_the_hub() {
    if skipped("deliveries_survive_a_kill_of_the_hub") {
        return;
    }
    let dir = data_dir();
    let mut hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let receiver = Receiver::start(&[StatusCode::SERVICE_UNAVAILABLE; 3]).await;
    webhook(&hub, &tenant, &receiver.url()).await;
    for n in 0..3 {
        event(&hub, &tenant, &format!("p{n}")).await;
    }
    receiver.wait_for(3, Duration::from_secs(8)).await;
    super::process::signal(&hub.child, rustix::process::Signal::KILL);
    hub.child.wait().unwrap();
    drop(hub);
    let hub = Hub::start(dir.path());
    let expected: BTreeSet<String> = hub.get(&tenant, "/v1/events").await["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(expected.len(), 3);
    let deliveries = receiver.wait_for(6, Duration::from_secs(60)).await;
    let delivered: BTreeSet<String> = deliveries[3..].iter().map(|delivery| delivery.id.clone()).collect();
    assert_eq!(delivered, expected);
}
