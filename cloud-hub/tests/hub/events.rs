//! The feed: pages and the live stream, taken up again without loss or repetition.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::login::{bearer, log_in, user};
use super::process::{Hub, Tenant, data_dir, skipped};

/// Makes and deletes `n` people: one event each.
async fn deletions(hub: &Hub, tenant: &Tenant, name: &str, n: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for index in 0..n {
        let person = hub.person(tenant, &format!("{name}-{index}")).await;
        let (status, _) = hub.call(tenant, Method::DELETE, &format!("/v1/people/{person}"), None).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        ids.push(person);
    }
    ids
}

/// An open stream and what has come of it.
struct Stream {
    answer: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(hub: &Hub, tenant: &Tenant, last_event_id: Option<&str>, query: &str) -> Self {
        let url = format!("{}/v1/events/stream{query}", hub.https());
        let mut request = hub.client().get(url).header("authorization", &tenant.authorization);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert!(!answer.headers().contains_key("content-encoding"));
        Self { answer, text: String::new() }
    }

    /// The next event: its id and body.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                    return (id.to_owned(), serde_json::from_str(data).unwrap());
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(15), self.answer.chunk()).await;
            let chunk = chunk.expect("an event within 15 s").unwrap().expect("the stream goes on");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn people(&mut self, n: usize) -> Vec<(String, String)> {
        let mut people = Vec::new();
        for _ in 0..n {
            let (id, event) = self.next().await;
            people.push((id, event["subject"].as_str().unwrap().to_owned()));
        }
        people
    }
}

fn subjects(page: &Value) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|event| event["subject"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_stream_is_taken_up_where_it_was_left() {
    if skipped("a_stream_is_taken_up_where_it_was_left") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (tenant, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    let before = deletions(&hub, &tenant, "before", 2).await;

    // Without a cursor a stream begins now.
    let mut live = Stream::open(&hub, &tenant, None, "").await;
    deletions(&hub, &other, "other", 1).await;
    let first = deletions(&hub, &tenant, "first", 3).await;
    let seen = live.people(3).await;
    assert_eq!(seen.iter().map(|(_, person)| person.clone()).collect::<Vec<_>>(), first);

    // The connection is lost after the second; more happens; the client comes back with the last id it has.
    drop(live);
    let second = deletions(&hub, &tenant, "second", 2).await;
    let mut resumed = Stream::open(&hub, &tenant, Some(&seen[1].0), "").await;
    let again: Vec<String> = resumed.people(3).await.into_iter().map(|(_, person)| person).collect();
    assert_eq!(again, [&first[2..], &second[..]].concat());

    // From the very beginning, and then live: each once, in order.
    let mut whole = Stream::open(&hub, &tenant, None, "?cursor=AQAAAAAAAAAA").await;
    let third = deletions(&hub, &tenant, "third", 1).await;
    let all: Vec<String> = whole.people(8).await.into_iter().map(|(_, person)| person).collect();
    assert_eq!(all, [&before[..], &first[..], &second[..], &third[..]].concat());

    // Other classes only, and pages of the same feed.
    let mut filtered = Stream::open(&hub, &tenant, None, "?cursor=AQAAAAAAAAAA&class=person").await;
    assert_eq!(filtered.people(1).await[0].1, before[0]);
    let page = hub.get(&tenant, "/v1/events?limit=5").await;
    assert_eq!(subjects(&page), all[..5]);
    let next = page["next_cursor"].as_str().unwrap();
    let rest = hub.get(&tenant, &format!("/v1/events?limit=5&cursor={next}")).await;
    assert_eq!(subjects(&rest), all[5..]);
    assert_eq!(rest["next_cursor"], Value::Null);
    assert_eq!(hub.get(&tenant, "/v1/events?class=access").await["data"], json!([]));
    let page = hub.get(&tenant, "/v1/events?limit=5&class=access,person,person").await;
    assert_eq!(subjects(&page), all[..5], "a class that is named twice is told once");
}

#[tokio::test]
async fn a_stream_survives_a_restart_of_the_hub_by_its_cursor() {
    if skipped("a_stream_survives_a_restart_of_the_hub_by_its_cursor") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let mut stream = Stream::open(&hub, &tenant, None, "").await;
    let first = deletions(&hub, &tenant, "first", 1).await;
    let seen = stream.people(1).await;
    assert_eq!(seen[0].1, first[0]);
    // An open stream does not hold up the stop.
    let stopping = std::time::Instant::now();
    assert!(hub.stop().success());
    assert!(stopping.elapsed() < Duration::from_secs(5));
    let hub = Hub::start(dir.path());
    let second = deletions(&hub, &tenant, "second", 1).await;
    let mut resumed = Stream::open(&hub, &tenant, Some(&seen[0].0), "").await;
    assert_eq!(resumed.people(1).await[0].1, second[0]);
}

#[tokio::test]
async fn a_stream_with_much_to_tell_ends_too_when_its_key_is_revoked() {
    if skipped("a_stream_with_much_to_tell_ends_too_when_its_key_is_revoked") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    // More than the buffers between hub and client hold: the stream must read again after the key is gone.
    let fill = "INSERT INTO event (tenant_id, id, position, type, class, occurred_at, body)
                SELECT tenant_id, gen_random_uuid(), n, 'lintel.system.test.v1', 'system', now(),
                       jsonb_build_object('n', n, 'filling', repeat('x', 2000))
                FROM tenant, generate_series(1, 20000) n";
    sqlx::Executor::execute(&mut hub.superuser().await, fill).await.unwrap();
    let mut stream = Stream::open(&hub, &tenant, None, "?cursor=AQAAAAAAAAAA").await;
    assert_eq!(stream.next().await.1["n"], 1);
    let key = tenant.authorization.strip_prefix("ApiKey ").unwrap().split_once(':').unwrap().0.to_owned();
    let mut revoke = super::process::command(dir.path());
    revoke.args(["api-keys", "revoke", "--tenant", &tenant.id, &key]);
    assert!(super::process::output(revoke).status.success());
    let mut told = 0;
    while let Some(chunk) = stream.answer.chunk().await.unwrap() {
        told += chunk.len();
    }
    assert!(told < 20_000 * 2_000, "the whole feed was told after the key was revoked");
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked() {
    if skipped("a_stream_ends_when_its_key_is_revoked") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let mut stream = Stream::open(&hub, &tenant, None, "").await;
    let key = tenant.authorization.strip_prefix("ApiKey ").unwrap().split_once(':').unwrap().0.to_owned();
    let mut revoke = super::process::command(dir.path());
    revoke.args(["api-keys", "revoke", "--tenant", &tenant.id, &key]);
    assert!(super::process::output(revoke).status.success());
    let ended = async { while stream.answer.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(8), ended).await.expect("the stream ends within seconds");
}

#[tokio::test]
async fn what_was_begun_by_a_token_ends_when_its_key_is_somebody_elses_too() {
    if skipped("what_was_begun_by_a_token_ends_when_its_key_is_somebody_elses_too") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    user(&hub, &tenant, "ada@example.org", "owner").await;
    let ada = bearer(&tenant, &log_in(&hub, &tenant, "ada@example.org").await);
    let mut by_key = Stream::open(&hub, &tenant, None, "").await;
    let mut by_token = Stream::open(&hub, &ada, None, "").await;
    // The key before is not somebody else's: nobody notices.
    hub.cli(&["keys", "rotate-jwt"]);
    for name in ["now", "later"] {
        let gone = deletions(&hub, &tenant, name, 1).await;
        assert_eq!(by_token.people(1).await[0].1, gone[0]);
        assert_eq!(by_key.people(1).await[0].1, gone[0]);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    hub.cli(&["keys", "rotate-jwt", "--revoke-old"]);
    let ended = async { while by_token.answer.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(8), ended).await.expect("the stream ends within seconds");
    // Whoever logs in again has a token of the new key.
    let ada = bearer(&tenant, &log_in(&hub, &tenant, "ada@example.org").await);
    let mut again = Stream::open(&hub, &ada, None, "").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let gone = deletions(&hub, &tenant, "again", 1).await;
    assert_eq!((&again.people(1).await[0].1, &by_key.people(1).await[0].1), (&gone[0], &gone[0]));
}
