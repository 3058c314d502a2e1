//! What the hub sends to a collector: the very spans of its answers, whatever became of the collector meanwhile, and nothing of anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parking_lot::Mutex;
use prost::Message as _;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::process::{Hub, Tenant, data_dir, demo_picture, output, read, serve, skipped, skipped_without_models};

/// Longer than batches are gathered and tried again.
const WITHIN: Duration = Duration::from_secs(15);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that keeps what it was sent, byte by byte, and answers what it is told to.
#[derive(Clone, Default)]
struct Collector {
    taken: Arc<Mutex<Vec<Bytes>>>,
    /// The next answers; then 200.
    answers: Arc<Mutex<Vec<StatusCode>>>,
}

impl Collector {
    async fn listen(&self, address: SocketAddr) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(take).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let address = collector.listen("127.0.0.1:0".parse().unwrap()).await;
        (collector, address)
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.taken.lock().iter().map(|bytes| ExportTraceServiceRequest::decode(bytes.clone()).unwrap()).collect()
    }

    /// All spans, in their order.
    fn spans(&self) -> Vec<Span> {
        let scopes =
            self.requests().into_iter().flat_map(|request| request.resource_spans).flat_map(|of| of.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The spans of requests: their parts left out.
    fn servers(&self) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.kind == SpanKind::Server as i32).collect()
    }

    /// Waits until so many requests have come.
    async fn wait_for(&self, n: usize) -> Vec<Span> {
        let until = Instant::now() + WITHIN;
        while self.servers().len() < n {
            assert!(Instant::now() < until, "{} of {n} requests", self.servers().len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.servers()
    }
}

async fn take(State(collector): State<Collector>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!((uri.path(), headers["content-type"].to_str().unwrap()), ("/v1/traces", "application/x-protobuf"));
    let answer = collector.answers.lock().pop().unwrap_or(StatusCode::OK);
    if answer.is_success() {
        collector.taken.lock().push(body);
    }
    answer
}

fn start(dir: &Path, collector: SocketAddr, more: &[(&str, &str)]) -> Hub {
    let mut command = serve(dir);
    command
        .env("LINTEL__TRACES__ENDPOINT", format!("http://{collector}"))
        .env("LINTEL__METRICS__LISTEN", "127.0.0.1:0")
        .envs(more.iter().copied());
    Hub::from_command(command, dir)
}

/// Asks, as a caller with this `traceparent`; the `traceparent` of the answer in its fields.
async fn ask(hub: &Hub, tenant: &Tenant, path: &str, parent: Option<&str>) -> Vec<String> {
    let mut request = hub.client().get(format!("{}{path}", hub.https())).header("authorization", &tenant.authorization);
    request = request.header("user-agent", "Kenari").header("tracestate", "kenari=1");
    if let Some(parent) = parent {
        request = request.header("traceparent", parent);
    }
    let answer = request.send().await.unwrap();
    answer.headers()["traceparent"].to_str().unwrap().split('-').map(str::to_owned).collect()
}

fn attributes(of: &[KeyValue]) -> BTreeMap<String, Value> {
    let value = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::IntValue(number)) => json!(number),
        other => panic!("{other:?}"),
    };
    of.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

fn events(dir: &Path, event: &str) -> usize {
    let log = std::fs::read_to_string(dir.join("hub.log")).unwrap();
    log.lines().filter(|line| line.contains(&format!("\"event\":\"{event}\""))).count()
}

/// How many spans the hub says it has sent or dropped.
async fn counted(hub: &Hub, outcome: &str) -> u64 {
    let text = hub.client().get(hub.ready["metrics"].as_str().unwrap()).send().await.unwrap().text().await.unwrap();
    let series = format!("lintel_hub_trace_spans_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).expect(&text).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_those_of_the_answers_and_name_nobody() {
    if skipped("spans_are_those_of_the_answers_and_name_nobody") {
        return;
    }
    let (collector, address) = Collector::start().await;
    let dir = data_dir();
    let hub = start(dir.path(), address, &[("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")]);
    let acme = hub.tenant("Acme");
    let body = json!({ "external_id": "e-kenari", "name": "Kenari Rahasia", "email": "kenari@example.org" });
    let url = format!("{}/v1/people", hub.https());
    let made =
        hub.client().post(&url).header("authorization", &acme.authorization).header("idempotency-key", "kenari-1");
    let (status, made) = read(made.json(&body).send().await.unwrap()).await;
    assert_eq!(status.as_u16(), 201, "{made}");
    let person = made["id"].as_str().unwrap();
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let told = [
        ask(&hub, &acme, &format!("/v1/people/{person}"), Some(&parent)).await,
        ask(&hub, &acme, "/v1/people?external_id=e-kenari", None).await,
        ask(&hub, &acme, "/kenari", None).await,
    ];
    // A caller's own word for a method, and a probe that goes well.
    hub.call(&acme, Method::from_bytes(b"KENARI").unwrap(), "/v1/people", None).await;
    hub.get(&acme, "/health/live").await;

    let servers = collector.wait_for(5).await;
    let spans = collector.spans();
    let names: Vec<&str> = servers.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["POST /v1/people", "GET /v1/people/{id}", "GET /v1/people", "GET", "HTTP /v1/people"]);
    for (span, told) in servers[1..].iter().zip(&told) {
        assert_eq!((hex::encode(&span.trace_id), hex::encode(&span.span_id)), (told[1].clone(), told[2].clone()));
        assert_eq!(told[3], "01", "sampled");
    }
    assert_eq!((told[0][1].as_str(), hex::encode(&servers[1].parent_span_id)), (TRACE, PARENT.to_owned()));
    assert!([0, 2, 3, 4].iter().all(|index| servers[*index].parent_span_id.is_empty()), "traces that began here");
    let (host, port) = hub.address().rsplit_once(':').unwrap();
    let got = attributes(&servers[1].attributes);
    let expected = json!({
        "http.request.method": "GET", "http.route": "/v1/people/{id}", "http.response.status_code": 200,
        "url.scheme": "https", "server.address": host, "server.port": port.parse::<u16>().unwrap(),
        "network.protocol.version": "2", "lintel.client_id": acme.id,
    });
    assert_eq!(json!(got), expected);
    let unknown = attributes(&servers[3].attributes);
    assert_eq!((&unknown["http.response.status_code"], unknown.get("http.route")), (&json!(404), None));
    assert_eq!(attributes(&servers[4].attributes)["http.request.method"], "_OTHER");
    for span in &servers {
        assert!(span.start_time_unix_nano < span.end_time_unix_nano);
        assert_eq!((span.trace_state.as_str(), span.status.as_ref().unwrap().code), ("", 0));
    }
    // What took time in them, in a task that carries a request on too.
    for server in &servers[..3] {
        let parts: Vec<&Span> = spans.iter().filter(|span| span.parent_span_id == server.span_id).collect();
        assert!(!parts.is_empty() && parts.iter().all(|part| part.name == "database transaction"), "{parts:?}");
        let within = |part: &Span| {
            part.trace_id == server.trace_id
                && part.start_time_unix_nano >= server.start_time_unix_nano
                && part.end_time_unix_nano <= server.end_time_unix_nano
        };
        assert!(parts.iter().all(|part| within(part)), "{server:?} {parts:?}");
    }
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| span.span_id.as_slice()).collect();
    assert_eq!(ids.len(), spans.len());
    let resource = attributes(&collector.requests()[0].resource_spans[0].resource.as_ref().unwrap().attributes);
    assert_eq!(
        (&resource["service.name"], &resource["deployment.environment.name"]),
        (&json!("cloud-hub"), &json!("test"))
    );
    let until = Instant::now() + WITHIN;
    while counted(&hub, "sent").await != spans.len() as u64 {
        assert!(Instant::now() < until, "{} are counted of {}", counted(&hub, "sent").await, spans.len());
    }

    // No id of a person or a key, no name, no path, no header: neither as text nor as the bytes of an id.
    let (key, secret) = acme.authorization.strip_prefix("ApiKey ").unwrap().split_once(':').unwrap();
    let sent = collector.taken.lock().concat();
    let holds = |secret: &[u8]| sent.windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret));
    assert!(holds(acme.id.as_bytes()) && holds(b"/v1/people/{id}"), "what is sent can be found");
    for id in [person, key] {
        let id: uuid::Uuid = id.parse().unwrap();
        for text in [id.to_string().into_bytes(), id.simple().to_string().into_bytes(), id.as_bytes().to_vec()] {
            assert!(!holds(&text), "{id} is in what was sent");
        }
    }
    for word in ["kenari", "rahasia", "example.org", secret, "external_id", "health"] {
        assert!(!holds(word.as_bytes()), "{word} is in what was sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_decision_is_followed_and_the_share_is_of_the_others() {
    if skipped("a_callers_decision_is_followed_and_the_share_is_of_the_others") {
        return;
    }
    let (collector, address) = Collector::start().await;
    let dir = data_dir();
    let hub = start(dir.path(), address, &[("LINTEL__TRACES__SAMPLE", "0")]);
    let acme = hub.tenant("Acme");
    let unsampled = ask(&hub, &acme, "/v1/people", Some(&format!("00-{TRACE}-{PARENT}-00"))).await;
    let begun_here = ask(&hub, &acme, "/v1/people", None).await;
    assert_eq!((unsampled[3].as_str(), begun_here[3].as_str()), ("00", "00"), "and the answer says so");
    let sampled = ask(&hub, &acme, "/v1/people", Some(&format!("00-{TRACE}-{PARENT}-01"))).await;
    let servers = collector.wait_for(1).await;
    assert_eq!(hex::encode(&servers[0].span_id), sampled[2]);
    // At its end it sends whatever it has: of the other two, nothing.
    assert!(hub.stop().success());
    assert_eq!(collector.servers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_no_request_and_is_found_again() {
    if skipped("a_collector_that_is_away_costs_no_request_and_is_found_again") {
        return;
    }
    // A port that nobody listens at, until later.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = data_dir();
    let hub = start(dir.path(), address, &[]);
    let acme = hub.tenant("Acme");
    let asked = Instant::now();
    let missed = ask(&hub, &acme, "/v1/people", None).await;
    let until = Instant::now() + WITHIN;
    while events(dir.path(), "spans_not_taken") == 0 {
        assert!(Instant::now() < until, "nothing was said");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let during = Instant::now();
    let later = ask(&hub, &acme, "/v1/people", None).await;
    assert!(during.elapsed() < Duration::from_secs(1), "{:?}", during.elapsed());

    let collector = Collector::default();
    // It begins with trouble of its own, after which the same batch may come again.
    collector.answers.lock().push(StatusCode::SERVICE_UNAVAILABLE);
    collector.listen(address).await;
    let servers = collector.wait_for(2).await;
    let ids: Vec<String> = servers.iter().map(|span| hex::encode(&span.span_id)).collect();
    assert_eq!(ids, [missed[2].clone(), later[2].clone()], "none is missing, {:?} after the first", asked.elapsed());
    assert_eq!((counted(&hub, "dropped").await, events(dir.path(), "spans_taken_again")), (0, 1));

    // What a collector refuses is not tried again, and counted.
    collector.answers.lock().push(StatusCode::BAD_REQUEST);
    ask(&hub, &acme, "/kenari", None).await;
    let until = Instant::now() + WITHIN;
    while counted(&hub, "dropped").await == 0 {
        assert!(Instant::now() < until, "nothing was dropped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let last = ask(&hub, &acme, "/kenari", None).await;
    let servers = collector.wait_for(3).await;
    assert_eq!(hex::encode(&servers[2].span_id), last[2]);
    assert_eq!(counted(&hub, "dropped").await, 1);
    assert_eq!(events(dir.path(), "spans_not_taken"), 1, "one warning in a while");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_stops_sends_what_waits_and_waits_for_nobody() {
    if skipped("a_hub_that_stops_sends_what_waits_and_waits_for_nobody") {
        return;
    }
    let (collector, address) = Collector::start().await;
    let dir = data_dir();
    let hub = start(dir.path(), address, &[]);
    let acme = hub.tenant("Acme");
    let told = ask(&hub, &acme, "/v1/people", None).await;
    assert_eq!(collector.servers().len(), 0, "it is still waited for others");
    assert!(hub.stop().success());
    let servers = collector.servers();
    assert_eq!(servers.iter().map(|span| hex::encode(&span.span_id)).collect::<Vec<_>>(), [told[2].as_str()]);

    // Accepts and never answers.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = start(dir.path(), dead.local_addr().unwrap(), &[]);
    ask(&hub, &acme, "/v1/people", None).await;
    let stopping = Instant::now();
    assert!(hub.stop().success());
    assert!(stopping.elapsed() < Duration::from_secs(5), "the stop took {:?}", stopping.elapsed());
    assert_eq!((events(dir.path(), "spans_lost"), events(dir.path(), "task_cut_off")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_recognition_takes_its_time_for_is_told() {
    if skipped_without_models("what_recognition_takes_its_time_for_is_told") {
        return;
    }
    let (collector, address) = Collector::start().await;
    let dir = data_dir();
    let hub = start(dir.path(), address, &[]);
    let acme = hub.tenant("Acme");
    let person = hub.person(&acme, "o").await;
    for (path, name, picture) in [
        (format!("/v1/people/{person}/enrolments"), "photo", "obama.jpg"),
        (String::from("/v1/recognition/identify"), "image", "obama2.jpg"),
    ] {
        let form = Form::new().part(name, Part::bytes(std::fs::read(demo_picture(picture)).unwrap()));
        let request = hub.client().post(format!("{}{path}", hub.https())).header("authorization", &acme.authorization);
        let (status, answer) = read(request.multipart(form).send().await.unwrap()).await;
        assert!(status.is_success(), "{answer}");
    }
    let servers = collector.wait_for(3).await;
    let spans = collector.spans();
    let parts = |server: &Span| -> BTreeSet<String> {
        spans.iter().filter(|span| span.parent_span_id == server.span_id).map(|span| span.name.clone()).collect()
    };
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    assert_eq!(servers[2].name, "POST /v1/recognition/identify");
    assert!(parts(&servers[1]).is_superset(&named(&["database transaction", "models"])), "{spans:?}");
    assert_eq!(parts(&servers[2]), named(&["database transaction", "models", "search"]));
}

#[test]
fn a_receiver_that_spans_must_not_go_to_is_told_with_its_key() {
    let dir = data_dir();
    let mut command = serve(dir.path());
    command.env("LINTEL__TRACES__ENDPOINT", "http://192.0.2.1:4318");
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("traces.endpoint: plain http"), "{said}");
}
