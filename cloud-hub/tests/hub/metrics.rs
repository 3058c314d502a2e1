//! What the hub tells Prometheus: all that its table has, exactly what was done, and nothing of anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cloud_hub::metrics::all;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::process::{Hub, Tenant, data_dir, demo_picture, output, read, serve, skipped, skipped_without_models};

/// Told of a person, an address and a tenant, and never to be seen again.
const CANARY: &str = "Kenari";

fn start(dir: &Path) -> Hub {
    let mut command = serve(dir);
    command.env("LINTEL__METRICS__LISTEN", "127.0.0.1:0");
    Hub::from_command(command, dir)
}

/// The text of a scrape.
async fn scrape(hub: &Hub) -> String {
    let answer = hub.client().get(hub.ready["metrics"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    answer.text().await.unwrap()
}

/// Every series with its number.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// By how much each series has grown.
fn grown(before: &str, after: &str) -> BTreeMap<String, f64> {
    let before = series(before);
    let mut grown = series(after);
    for (name, value) in &mut grown {
        *value -= before.get(name).copied().unwrap_or_default();
    }
    grown
}

fn requests(method: &str, route: &str, status: &str) -> String {
    format!("lintel_hub_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_what_was_done_is_counted_and_nobody_is_named() {
    if skipped("exactly_what_was_done_is_counted_and_nobody_is_named") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let acme = hub.tenant(&format!("{CANARY} Corp"));
    let before = scrape(&hub).await;
    let body = json!({ "external_id": "e-kenari", "name": format!("{CANARY} Rahasia"), "email": "kenari@example.org" });
    let person = hub.made(&acme, "/v1/people", body).await["id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        hub.get(&acme, &format!("/v1/people/{person}")).await;
    }
    let (key, _) = acme.authorization.split_once(':').unwrap();
    let wrong = Tenant { authorization: format!("{key}:{}", "A".repeat(43)), ..acme.clone() };
    for _ in 0..2 {
        assert_eq!(hub.call(&wrong, Method::GET, "/v1/people", None).await.0, StatusCode::UNAUTHORIZED);
    }
    let nobody = Tenant { authorization: String::from("Basic a2VuYXJp"), ..acme.clone() };
    assert_eq!(hub.call(&nobody, Method::GET, "/v1/people", None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(hub.call(&acme, Method::GET, "/v1/me", None).await.0, StatusCode::FORBIDDEN);
    let after = scrape(&hub).await;

    let grown = grown(&before, &after);
    for (name, count) in [
        (requests("POST", "/v1/people", "2xx"), 1.0),
        (requests("GET", "/v1/people/{id}", "2xx"), 3.0),
        (requests("GET", "/v1/people", "4xx"), 3.0),
        (String::from("lintel_hub_http_request_duration_seconds_count{method=\"GET\",route=\"/v1/people/{id}\"}"), 3.0),
        (String::from("lintel_hub_authentication_failures_total{kind=\"api_key\"}"), 2.0),
        (String::from("lintel_hub_authentication_failures_total{kind=\"malformed\"}"), 1.0),
        (String::from("lintel_hub_authentication_failures_total{kind=\"token\"}"), 0.0),
        (String::from("lintel_hub_usage_requests_total{tier=\"enterprise\",class=\"read\"}"), 3.0),
        (String::from("lintel_hub_usage_requests_total{tier=\"enterprise\",class=\"write\"}"), 1.0),
        (String::from("lintel_hub_http_handler_panics_total"), 0.0),
        (String::from("lintel_hub_http_requests_in_flight"), 0.0),
        (String::from("lintel_hub_database_errors_total{kind=\"other\"}"), 0.0),
    ] {
        assert_eq!(grown.get(&name).copied(), Some(count), "{name}\n{after}");
    }
    let lookups = |result| grown[&format!("lintel_hub_cache_lookups_total{{cache=\"api_keys\",result=\"{result}\"}}")];
    assert_eq!(lookups("hit") + lookups("miss"), 7.0, "every key that was shown was looked for once");
    assert!(lookups("miss") >= 1.0);
    let now = series(&after);
    for (name, value) in [
        ("lintel_hub_tenants", 1.0),
        ("lintel_hub_api_keys", 1.0),
        ("lintel_hub_devices", 0.0),
        ("lintel_hub_ready", 1.0),
        ("lintel_hub_database_up", 1.0),
        ("lintel_hub_database_connections_max", 16.0),
        ("lintel_hub_limit_shared_up", -1.0),
    ] {
        assert_eq!(now.get(name).copied(), Some(value), "{name}");
    }
    for more_than_nothing in
        ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds", "process_threads"]
    {
        assert!(now[more_than_nothing] > 1.0, "{more_than_nothing}");
    }
    let key = key.strip_prefix("ApiKey ").unwrap();
    for secret in [CANARY, "kenari", "example.org", key, &acme.id, &person, "a2VuYXJp", "127.0.0.1"] {
        assert!(!after.to_lowercase().contains(&secret.to_lowercase()), "{secret} is in the metrics:\n{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_nobody_has_make_no_series() {
    if skipped("paths_that_nobody_has_make_no_series") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let acme = hub.tenant("Acme");
    let ask = async |path: &str, method: Method| hub.call(&acme, method, path, None).await.0;
    assert_eq!(ask("/v1/nothing", Method::GET).await, StatusCode::NOT_FOUND);
    assert_eq!(ask("/v1/people/0", Method::GET).await.as_u16() / 100, 4);
    let before = scrape(&hub).await;
    for number in 0..20 {
        assert_eq!(ask(&format!("/v1/nothing/{number}?kenari={number}"), Method::GET).await, StatusCode::NOT_FOUND);
        assert_eq!(ask(&format!("/v1/people/{number}"), Method::GET).await.as_u16() / 100, 4);
    }
    let after = scrape(&hub).await;
    let names = |text: &str| series(text).into_keys().filter(|name| name.contains("route=")).collect::<BTreeSet<_>>();
    assert_eq!(names(&after), names(&before), "no series more");
    assert_eq!(grown(&before, &after)[&requests("GET", "none", "4xx")], 20.0);
    ask("/v1/nothing", Method::from_bytes(b"KENARI").unwrap()).await;
    let after = scrape(&hub).await;
    assert!(after.contains(&requests("other", "none", "4xx")) && !after.contains("KENARI"), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_rules_and_dashboard_ask_for_is_told() {
    if skipped("whatever_rules_and_dashboard_ask_for_is_told") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    hub.get(&hub.tenant("Acme"), "/v1/people").await;
    let text = scrape(&hub).await;
    let told: BTreeSet<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    for metric in all().iter().flat_map(|(_, metrics)| metrics.iter()) {
        let bucket = format!("{}_bucket", metric.name);
        assert!(told.contains(metric.name) || told.contains(bucket.as_str()), "{} is not told", metric.name);
        assert!(text.contains(&format!("# HELP {} ", metric.name)), "{} is not explained", metric.name);
    }
    let missing =
        |text: &str| names_in(text).into_iter().filter(|name| !told.contains(name.as_str())).collect::<Vec<_>>();
    assert_eq!(
        missing("rate(lintel_hub_http_request_total[5m])"),
        ["lintel_hub_http_request_total"],
        "a wrong name is found"
    );
    for (file, some) in [("prometheus/hub.rules.yml", 15), ("grafana/hub.json", 40)] {
        let asked = std::fs::read_to_string(monitoring(file)).unwrap();
        assert_eq!(missing(&expressions(file, &asked)), Vec::<String>::new(), "{file} asks for what no hub tells");
        assert!(names_in(&expressions(file, &asked)).len() >= some, "{file}");
    }
    // And the other way round: whatever is told can be seen.
    let dashboard = std::fs::read_to_string(monitoring("grafana/hub.json")).unwrap();
    let shown = names_in(&expressions("grafana/hub.json", &dashboard));
    let unseen = all().into_iter().flat_map(|(_, metrics)| metrics).map(|metric| metric.name);
    let unseen: Vec<_> = unseen
        .filter(|name| name.starts_with("lintel_hub_") && !shown.iter().any(|shown| shown.starts_with(name)))
        .collect();
    assert_eq!(unseen, Vec::<&str>::new(), "the dashboard does not show them");
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_against_metrics_and_rules() {
    let test = "promtool_has_nothing_against_metrics_and_rules";
    if Command::new("promtool").arg("--version").output().is_err() {
        return eprintln!("SKIPPED {test}: promtool is missing: run scripts/setup");
    }
    let promtool = |arguments: &[&str], input: &str| {
        let mut command = Command::new("promtool");
        command.args(arguments).current_dir(monitoring("prometheus"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    for arguments in [&["check", "rules", "hub.rules.yml"][..], &["test", "rules", "hub.rules.test.yml"]] {
        let (fine, said) = promtool(arguments, "");
        assert!(fine, "{arguments:?}: {said}");
    }
    if skipped(test) {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    hub.get(&hub.tenant("Acme"), "/v1/people").await;
    let text = scrape(&hub).await;
    let (fine, said) = promtool(&["check", "metrics"], &text);
    assert!(fine && said.is_empty(), "{said}");
    let (fine, said) = promtool(
        &["check", "metrics"],
        &text.replacen(
            "# TYPE lintel_hub_http_requests_total counter",
            "# TYPE lintel_hub_http_requests_total gauge",
            1,
        ),
    );
    assert!(!fine && said.contains("lintel_hub_http_requests_total"), "it looks: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn recognition_is_counted_by_what_came_of_it() {
    if skipped_without_models("recognition_is_counted_by_what_came_of_it") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let acme = hub.tenant("Acme");
    let person = hub.person(&acme, "o").await;
    let before = scrape(&hub).await;
    let send = async |path: &str, name: &'static str, bytes: Vec<u8>| {
        let form = Form::new().part(name, Part::bytes(bytes));
        let request = hub.client().post(format!("{}{path}", hub.https())).header("authorization", &acme.authorization);
        read(request.multipart(form).send().await.unwrap()).await
    };
    let picture = |name: &str| std::fs::read(demo_picture(name)).unwrap();
    let (status, answer) = send(&format!("/v1/people/{person}/enrolments"), "photo", picture("obama.jpg")).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    for (name, decision) in [("obama2.jpg", "known"), ("obama2.jpg", "known"), ("biden.jpg", "unknown")] {
        let (_, answer) = send("/v1/recognition/identify", "image", picture(name)).await;
        assert_eq!(answer["decision"], decision, "{answer}");
    }
    let (status, _) = send("/v1/recognition/identify", "image", b"no picture".to_vec()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let after = scrape(&hub).await;
    let grown = grown(&before, &after);
    for (name, count) in [
        ("runs_total{operation=\"enrol\",outcome=\"answered\"}", 1.0),
        ("runs_total{operation=\"identify\",outcome=\"answered\"}", 3.0),
        ("runs_total{operation=\"identify\",outcome=\"refused\"}", 1.0),
        ("duration_seconds_count{operation=\"identify\"}", 4.0),
        ("decisions_total{operation=\"identify\",decision=\"yes\"}", 2.0),
        ("decisions_total{operation=\"identify\",decision=\"unknown\"}", 1.0),
        ("models_duration_seconds_count", 5.0),
        ("queue_requests{pool=\"photographs\"}", 0.0),
    ] {
        assert_eq!(grown.get(&format!("lintel_hub_recognition_{name}")).copied(), Some(count), "{name}\n{after}");
    }
    assert_eq!(grown["lintel_hub_quality_refusals_total{reason=\"photo_unreadable\"}"], 1.0);
    assert_eq!(grown["lintel_hub_gallery_cache_galleries"], 1.0);
    assert!(grown["lintel_hub_gallery_cache_bytes"] > 2_000.0);
    assert_eq!(grown["lintel_hub_cache_lookups_total{cache=\"galleries\",result=\"hit\"}"], 2.0, "{after}");
    let looked: f64 = ["attack", "insufficient"]
        .iter()
        .map(|verdict| grown[&format!("lintel_hub_liveness_verdicts_total{{verdict=\"{verdict}\"}}")])
        .sum();
    assert_eq!(looked, 3.0);
}

#[test]
fn a_port_that_is_taken_is_told_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = data_dir();
    let mut command = serve(dir.path());
    command.env("LINTEL__METRICS__LISTEN", taken.local_addr().unwrap().to_string());
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("metrics.listen") && said.contains("127.0.0.1"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_through_answer_and_log() {
    if skipped("a_trace_goes_through_answer_and_log") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    assert_eq!(hub.ready["metrics"], Value::Null, "nowhere unless an address says where");
    let acme = hub.tenant("Acme");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = async |parents: &[String]| {
        let mut request =
            hub.client().get(format!("{}/v1/people", hub.https())).header("authorization", &acme.authorization);
        for parent in parents {
            request = request.header("traceparent", parent);
        }
        let answer = request.header("tracestate", "rojo=1").send().await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (header("traceparent").unwrap(), header("tracestate"))
    };
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let (told, state) = ask(std::slice::from_ref(&parent)).await;
    let fields: Vec<&str> = told.split('-').collect();
    assert_eq!((fields[0], fields[1], fields[2].len(), fields[3]), ("00", trace, 16, "01"));
    assert_ne!(fields[2], "00f067aa0ba902b7", "the hub's own span");
    assert_eq!(state.as_deref(), Some("rojo=1"));
    for wrong in [vec![], vec![parent.to_uppercase()], vec![parent.clone(), parent.clone()]] {
        let (told, state) = ask(&wrong).await;
        assert!(!told.contains(trace) && told.len() == 55 && state.is_none(), "{wrong:?}: {told} {state:?}");
    }
    let log = std::fs::read_to_string(dir.path().join("hub.log")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours: Vec<Value> = lines.filter(|line| line["trace_id"] == trace).collect();
    let request = ours.iter().find(|line| line["event"] == "request").expect(&log);
    assert_eq!((&request["span_id"], &request["client_id"]), (&json!(fields[2]), &json!(acme.id)));
    assert!(request["request_id"].is_string() && request["processing_time"].is_f64(), "{request}");
}

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring").join(file)
}

/// What a file asks Prometheus for.
fn expressions(file: &str, text: &str) -> String {
    if !file.ends_with(".json") {
        return text.to_owned();
    }
    fn collect(value: &Value, found: &mut String) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if let (true, Some(text)) = (name == "expr" || name == "query", value.as_str()) {
                        found.push_str(text);
                        found.push('\n');
                    }
                    collect(value, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = String::new();
    collect(&serde_json::from_str(text).unwrap(), &mut found);
    found
}

/// Names of metrics in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("lintel_hub_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}
