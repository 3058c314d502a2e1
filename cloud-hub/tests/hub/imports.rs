//! Many people from a file: over the network and by the command line, with real photographs, wrong rows, quotas and broken lines.

use std::io::{Cursor, Write as _};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use zip::write::{SimpleFileOptions, ZipWriter};

use super::process::{Hub, Tenant, command, data_dir, demo_picture, output, read, skipped, skipped_without_models};

fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(demo_picture(name)).unwrap()
}

/// Sends a file, once the one before has ended.
async fn send(hub: &Hub, tenant: &Tenant, query: &str, kind: &str, body: Vec<u8>) -> reqwest::Response {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let request = hub.client().post(format!("{}/v1/people/imports{query}", hub.https()));
        let request = request.header("authorization", &tenant.authorization).header("content-type", kind);
        let answer = request.timeout(Duration::from_secs(300)).body(body.clone()).send().await.unwrap();
        if answer.status() != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > until {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Report {
    rows: Vec<Value>,
    summary: Value,
}

impl Report {
    fn results(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row["result"].as_str().unwrap()).collect()
    }

    fn row(&self, external_id: &str) -> &Value {
        self.rows.iter().find(|row| row["external_id"] == external_id).unwrap()
    }
}

async fn import(hub: &Hub, tenant: &Tenant, query: &str, kind: &str, body: impl Into<Vec<u8>>) -> Report {
    let answer = send(hub, tenant, query, kind, body.into()).await;
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{text}");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap();
    assert_eq!((&lines[0]["type"], &summary["type"]), (&json!("begin"), &json!("summary")), "{text}");
    let rows = lines.split_off(1);
    assert_eq!(lines[0]["rows"], json!(rows.len()), "{text}");
    Report { rows, summary }
}

async fn refused(hub: &Hub, tenant: &Tenant, query: &str, kind: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let (status, problem) = read(send(hub, tenant, query, kind, body.into()).await).await;
    (status.as_u16(), problem)
}

#[tokio::test]
async fn wrong_rows_among_good_ones_are_told_and_the_others_go_on() {
    if skipped("wrong_rows_among_good_ones_are_told_and_the_others_go_on") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    hub.site(&tenant).await;
    let table = "\u{feff}external_id,name,email,groups,valid_until\n\
        E-1,Ada,ada@example.org,staff;night,2027-01-31T00:00:00Z\n\
        E-2,,,,\n\
        E-3,Cleo,nobody,,\n\
        E-1,Twin,,,\n\
        E-4,Dora\n\
        E-5,Eve,,,tomorrow\n\
        E-6,Fay,,,\n";
    let dry = import(&hub, &tenant, "?dry_run=true", "text/csv", table).await;
    assert_eq!(dry.results(), ["created", "refused", "refused", "refused", "refused", "refused", "created"]);
    assert_eq!(hub.get(&tenant, "/v1/people").await["data"], json!([]), "a dry run changes nothing");

    let report = import(&hub, &tenant, "", "text/csv", table).await;
    assert_eq!(report.results(), dry.results());
    let told: Vec<(u64, &str)> = report
        .rows
        .iter()
        .filter(|row| row["result"] == "refused")
        .map(|row| (row["line"].as_u64().unwrap(), row["problem"]["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [(3, "invalid_field"), (4, "invalid_field"), (5, "conflict"), (6, "invalid_request"), (7, "invalid_field")]
    );
    assert_eq!(report.rows[1]["problem"]["errors"][0]["pointer"], "/name", "{}", report.rows[1]);
    assert!(report.rows[3]["problem"]["detail"].as_str().unwrap().contains("line 2"));
    let counts = ["rows", "created", "refused"].map(|name| report.summary[name].as_u64().unwrap());
    assert_eq!((counts, &report.summary["complete"]), ([7, 2, 5], &json!(true)));
    let ada = hub.get(&tenant, &format!("/v1/people/{}", report.row("E-1")["person_id"].as_str().unwrap())).await;
    assert_eq!((&ada["groups"], &ada["valid_until"]), (&json!(["night", "staff"]), &json!("2027-01-31T00:00:00.000Z")));

    // The same once more; then other words, as lines; then not at all.
    let again = import(&hub, &tenant, "", "text/csv", table).await;
    assert_eq!((again.results()[0], again.results()[6]), ("unchanged", "unchanged"));
    let lines = "{\"external_id\": \"E-1\", \"email\": null}\n{\"external_id\": \"E-7\"}\n{\"external_id\": \"E-8\", \"name\": \"Gia\", \"age\": 7}\n";
    let changed = import(&hub, &tenant, "", "application/x-ndjson", lines).await;
    assert_eq!(changed.results(), ["updated", "refused", "refused"]);
    assert_eq!(changed.rows[1]["problem"]["errors"][0]["pointer"], "/name", "whoever is new has a name");
    assert_eq!(changed.rows[2]["problem"]["code"], "unknown_field");
    let ada = hub.get(&tenant, &format!("/v1/people/{}", ada["id"].as_str().unwrap())).await;
    assert_eq!(
        (&ada["name"], &ada["email"], &ada["groups"]),
        (&json!("Ada"), &Value::Null, &json!(["night", "staff"]))
    );
    let other = "external_id,name\nE-1,Otherwise\nE-9,Hal\n";
    let skip = import(&hub, &tenant, "?on_existing=skip", "text/csv", other).await;
    assert_eq!(skip.results(), ["skipped", "created"]);
    let refuse = import(&hub, &tenant, "?on_existing=refuse", "text/csv", other).await;
    assert_eq!(refuse.results(), ["refused", "refused"]);

    // Single people have entries of their own, and the import has two.
    let mut told = Value::Null;
    for _ in 0..50 {
        told = hub.get(&tenant, "/v1/audit?action=person.imported&limit=200").await;
        if told["data"].as_array().unwrap().len() == 6 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(told["data"][1]["detail"]["created"], json!(2), "{told}");
    let made = hub.get(&tenant, "/v1/audit?action=person.create").await;
    assert_eq!(made["data"].as_array().unwrap().len(), 3, "{made}");
}

#[tokio::test]
async fn files_that_are_not_fit_are_refused_before_the_first_row() {
    if skipped("files_that_are_not_fit_are_refused_before_the_first_row") {
        return;
    }
    let dir = data_dir();
    let mut serve = super::process::serve(dir.path());
    serve.env("LINTEL__IMPORTS__MAX_BYTES", "2000000");
    let hub = Hub::from_command(serve, dir.path());
    let tenant = hub.tenant("Acme");
    let list = b"external_id,name,photos\nE-1,Ada,ada.jpg\n".as_slice();
    let traversal = packed(&[("people.csv", list), ("../../ada.jpg", b"x")]);
    // A thousandth of its size.
    let bomb = packed(&[("people.csv", list), ("ada.jpg", &vec![0; 64 << 20])]);
    assert!(bomb.len() < 100_000);
    for (what, query, kind, body, status, code) in [
        ("another kind", "", "application/json", b"[]".to_vec(), 415, "unsupported_media_type"),
        ("a column", "", "text/csv", b"external_id,age\n".to_vec(), 422, "unknown_field"),
        ("no external id", "", "text/csv", b"name\nAda\n".to_vec(), 422, "missing_field"),
        ("UTF-16", "", "text/csv", b"\xff\xfee\0".to_vec(), 422, "invalid_field"),
        ("a large file", "", "text/csv", vec![b'x'; 2_000_001], 413, "payload_too_large"),
        ("a traversal", "", "application/zip", traversal, 422, "invalid_field"),
        ("a bomb", "", "application/zip", bomb, 413, "payload_too_large"),
        ("no archive", "", "application/zip", b"rubbish".to_vec(), 422, "invalid_field"),
        ("a parameter", "?on_existing=replace", "text/csv", b"external_id\n".to_vec(), 400, "invalid_request"),
    ] {
        let (found, problem) = refused(&hub, &tenant, query, kind, body).await;
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{what}: {problem}");
    }
    let alone = import(&hub, &tenant, "", "text/csv", list).await;
    assert_eq!(alone.rows[0]["problem"]["errors"][0]["pointer"], "/photos", "{}", alone.rows[0]);
    assert_eq!(hub.get(&tenant, "/v1/people").await["data"], json!([]));
    let left: Vec<_> = std::fs::read_dir(dir.path().join("imports")).unwrap().collect();
    assert!(left.is_empty(), "no file has a name: {left:?}");
}

#[tokio::test]
async fn photographs_are_enrolled_once_whatever_the_number_of_runs() {
    if skipped_without_models("photographs_are_enrolled_once_whatever_the_number_of_runs") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    hub.site(&tenant).await;
    let table = b"external_id,name,photos\n\
        E-1,Barack,obama.jpg;obama2.jpg\n\
        E-2,Joe,photos/biden.jpg\n\
        E-3,Twin,obama3.jpg\n\
        E-4,Nobody,grey.png\n\
        E-5,Missing,none.jpg\n\
        E-6,Plain,\n\
        E-7,Bomb,zeros.jpg\n";
    let mut grey = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(640, 480, image::Rgb([90, 120, 150]))
        .write_to(&mut grey, image::ImageFormat::Png)
        .unwrap();
    let zeros = vec![0; 9 << 20];
    let archive = packed(&[
        ("staff/obama.jpg", &picture("obama.jpg")),
        ("staff/obama2.jpg", &picture("obama2.jpg")),
        ("staff/obama3.jpg", &picture("obama3.jpg")),
        ("staff/photos/biden.jpg", &picture("biden.jpg")),
        ("staff/grey.png", grey.get_ref()),
        ("staff/zeros.jpg", &zeros),
        ("staff/people.csv", table),
    ]);
    let dry = import(&hub, &tenant, "?dry_run=true", "application/zip", archive.clone()).await;
    assert_eq!(dry.summary["enrolled"], json!(3), "the twin cannot be known yet: {}", dry.summary);
    assert_eq!(hub.get(&tenant, "/v1/people").await["data"], json!([]));

    let report = import(&hub, &tenant, "", "application/zip", archive.clone()).await;
    let expected = ["created", "created", "created", "created", "refused", "created", "created"];
    assert_eq!(report.results(), expected);
    // Rows are worked at together: of the two who look the same, either may be the first.
    let fate = |id: &str| report.row(id)["enrolment"].clone();
    let same = [fate("E-1"), fate("E-3")];
    let refused: Vec<&Value> = same.iter().filter(|one| one["result"] == "refused").collect();
    assert_eq!(refused.len(), 1, "{same:?}");
    assert_eq!(refused[0]["problem"]["code"], "duplicate_person");
    let first = if fate("E-1")["result"] == "enrolled" { "E-1" } else { "E-3" };
    assert_eq!(refused[0]["problem"]["duplicate"]["person"], report.row(first)["person_id"], "{refused:?}");
    assert_eq!(fate("E-2")["photographs"][0]["file"], "photos/biden.jpg");
    assert!(fate("E-2")["photographs"][0]["quality"].as_f64().unwrap() > 0.0);
    assert_eq!((&fate("E-4")["result"], &fate("E-4")["problem"]["code"]), (&json!("refused"), &json!("no_face")));
    assert_eq!(fate("E-4")["photographs"][0]["reasons"], json!(["no_face"]));
    let missing = report.row("E-5");
    assert_eq!((&missing["problem"]["code"], &missing["line"]), (&json!("missing_field"), &json!(6)), "{missing}");
    assert!(missing.to_string().contains("none.jpg"));
    assert_eq!(fate("E-6"), Value::Null);
    assert_eq!(fate("E-7")["problem"]["code"], "photo_too_large");

    // The same file once more: nothing changes, no template is made.
    let again = import(&hub, &tenant, "", "application/zip", archive.clone()).await;
    assert_eq!(again.results().iter().filter(|one| **one == "unchanged").count(), 6);
    assert_eq!((&again.summary["enrolled"], &again.summary["enrolled_before"]), (&json!(0), &json!(2)));
    let id = report.row(first)["person_id"].as_str().unwrap();
    let person = hub.get(&tenant, &format!("/v1/people/{id}")).await;
    assert_eq!(person["templates"].as_array().unwrap().len(), 1);
    assert_eq!(person["templates"][0]["id"], again.row(first)["enrolment"]["template_id"]);

    // Without the permission to enrol there is no archive, and a list alone works.
    let key = hub.cli(&["api-keys", "create", "--tenant", &tenant.id, "--role", "owner", "--scope", "people:write"]);
    let authorization = format!("ApiKey {}:{}", key["id"].as_str().unwrap(), key["secret"].as_str().unwrap());
    let narrow = Tenant { authorization, ..tenant.clone() };
    let (status, problem) = refused_by(&hub, &narrow, archive).await;
    assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{problem}");
    import(&hub, &narrow, "", "text/csv", "external_id,name\nE-1,Barack\n").await;
}

async fn refused_by(hub: &Hub, tenant: &Tenant, archive: Vec<u8>) -> (u16, Value) {
    refused(hub, tenant, "", "application/zip", archive).await
}

#[tokio::test]
async fn a_broken_line_ends_an_import_at_a_row_and_the_file_goes_on_from_there() {
    if skipped("a_broken_line_ends_an_import_at_a_row_and_the_file_goes_on_from_there") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    hub.site(&tenant).await;
    let rows = 1_500;
    let mut table = String::from("external_id,name,groups\n");
    table.extend((0..rows).map(|n| format!("E-{n},Person {n},staff\n")));
    let answer = send(&hub, &tenant, "", "text/csv", table.clone().into_bytes()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (mut chunks, mut lines) = (answer.bytes_stream(), 0);
    while lines < 200 {
        lines += chunks.next().await.unwrap().unwrap().iter().filter(|byte| **byte == b'\n').count();
    }
    drop(chunks);
    let began = Instant::now();
    let rest = import(&hub, &tenant, "", "text/csv", table).await;
    let took = began.elapsed();
    let count = |name: &str| rest.summary[name].as_u64().unwrap();
    assert_eq!((count("rows"), count("refused")), (rows, 0), "{}", rest.summary);
    assert!(count("unchanged") >= 199 && count("created") > 0, "{}", rest.summary);
    assert!(took < Duration::from_secs(240), "{took:?}");
    let mut database = hub.superuser().await;
    let people: i64 = sqlx::query_scalar("SELECT count(*) FROM person").fetch_one(&mut database).await.unwrap();
    assert_eq!(people, i64::try_from(rows).unwrap());
    let cut: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit_entry WHERE action = 'person.imported' AND (detail::jsonb->>'complete') = 'false'",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(cut, 1, "the end of the first is in the audit");
}

#[tokio::test]
async fn a_quota_in_the_middle_refuses_the_rows_above_it() {
    if skipped("a_quota_in_the_middle_refuses_the_rows_above_it") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    hub.cli(&["tenants", "set", &tenant.id, "--quota", "people=5"]);
    let table: String =
        std::iter::once(String::from("external_id,name\n")).chain((0..9).map(|n| format!("E-{n},P\n"))).collect();
    for query in ["?dry_run=true", ""] {
        let report = import(&hub, &tenant, query, "text/csv", table.clone()).await;
        let counts = ["created", "refused"].map(|name| report.summary[name].as_u64().unwrap());
        assert_eq!(counts, [5, 4], "{query}: {}", report.summary);
        let refused = report.rows.iter().filter(|row| row["result"] == "refused");
        assert!(refused.map(|row| &row["problem"]["code"]).all(|code| code == "quota_reached"));
    }
    // Whoever is there already is no more.
    let again = import(&hub, &tenant, "", "text/csv", table).await;
    assert_eq!(again.summary["unchanged"], json!(5));
}

#[tokio::test]
async fn the_command_line_knows_people_and_imports_them() {
    if skipped("the_command_line_knows_people_and_imports_them") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let line = |words: &[&str]| {
        let all: Vec<&str> =
            ["people", words[0], "--tenant", &tenant.id].into_iter().chain(words[1..].iter().copied()).collect();
        hub.cli(&all)
    };
    let ada = line(&["add", "E-1", "Ada", "--email", "ada@example.org", "--group", "staff"]);
    let id = ada["id"].as_str().unwrap();
    let changed = line(&["change", id, "--name", "Countess", "--no-email", "--group", "night"]);
    assert_eq!(
        (&changed["name"], &changed["email"], &changed["groups"]),
        (&json!("Countess"), &Value::Null, &json!(["night"]))
    );
    assert_eq!(line(&["show", id])["external_id"], "E-1");
    assert_eq!(line(&["list", "--external-id", "E-1"])["data"][0]["id"], json!(id));
    assert_eq!(line(&["list", "--external-id", "E-2"])["data"], json!([]));

    let file = dir.path().join("staff.csv");
    std::fs::write(&file, "external_id,name\nE-1,Ada\nE-2,\nE-3,Cleo\n").unwrap();
    let run = |more: &[&str]| {
        let mut command = command(dir.path());
        command.args(["people", "import", "--tenant", &tenant.id, file.to_str().unwrap()]).args(more);
        let output = output(command);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, dry) = run(&["--dry-run"]);
    assert_eq!(code, Some(1), "{dry}");
    assert!(dry.contains("E-2") && dry.contains("invalid_field") && dry.contains("/name"), "{dry}");
    assert_eq!(line(&["list"])["data"].as_array().unwrap().len(), 1);
    std::fs::write(&file, "external_id,name\nE-1,Ada\nE-3,Cleo\n").unwrap();
    let (code, text) = run(&["-o", "json"]);
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((code, &summary["updated"], &summary["created"]), (Some(0), &json!(1), &json!(1)), "{text}");

    let delete = |confirm: &str| {
        let mut command = command(dir.path());
        command.args(["people", "delete", "--tenant", &tenant.id, id, "--confirm", confirm]);
        output(command).status.success()
    };
    assert!(!delete("E-3"), "somebody else's external id");
    assert!(delete("E-1"));
    assert_eq!(line(&["list"])["data"].as_array().unwrap().len(), 1);
}
