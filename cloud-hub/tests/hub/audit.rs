//! The audit as its users meet it: over the network, on the command line, and in the folder of heads.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Executor as _;

use super::process::{Hub, Tenant, command, data_dir, output, serve, skipped};

/// The entries of an action, once there are `count` of them. What was committed is there within a second.
async fn entries(hub: &Hub, tenant: &Tenant, action: &str, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let page = hub.get(tenant, &format!("/v1/audit?action={action}")).await;
        let found = page["data"].as_array().unwrap().clone();
        if found.len() >= count {
            assert!(begun.elapsed() < Duration::from_secs(2), "{action} after {:?}", begun.elapsed());
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{action}: {page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn whoever_looks_at_people_or_at_the_audit_is_in_the_audit() {
    if skipped("whoever_looks_at_people_or_at_the_audit_is_in_the_audit") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let actor = tenant.authorization.strip_prefix("ApiKey ").unwrap().split_once(':').unwrap().0.to_owned();
    let person = hub.person(&tenant, "E-1").await;
    hub.get(&tenant, &format!("/v1/people/{person}")).await;
    hub.get(&tenant, "/v1/people").await;
    hub.get(&tenant, &format!("/v1/people/{person}/negative-anchors")).await;
    let read = &entries(&hub, &tenant, "person.read", 1).await[0];
    assert_eq!((&read["object_id"], &read["actor"]), (&json!(person), &json!(format!("api_key:{actor}"))));
    entries(&hub, &tenant, "person.list", 1).await;
    entries(&hub, &tenant, "anchor.read", 1).await;
    let (status, _) = hub.call(&tenant, Method::DELETE, &format!("/v1/people/{person}"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    entries(&hub, &tenant, "person.erase", 1).await;
    entries(&hub, &tenant, "audit.read", 1).await;

    // Filters, cursors, and what is no filter.
    let about = hub.get(&tenant, &format!("/v1/audit?object={person}&limit=2")).await;
    assert_eq!(about["data"].as_array().unwrap().len(), 2);
    let next = format!("/v1/audit?object={person}&limit=200&cursor={}", about["next_cursor"].as_str().unwrap());
    let rest = hub.get(&tenant, &next).await;
    let actions: Vec<&str> =
        rest["data"].as_array().unwrap().iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert!(actions.contains(&"person.delete") && actions.contains(&"person.erase"), "{actions:?}");
    for wrong in ["action=person.reed", "from=yesterday", "cursor=x", "colour=red", "limit=0"] {
        let (status, problem) = hub.call(&tenant, Method::GET, &format!("/v1/audit?{wrong}"), None).await;
        assert!(status.is_client_error(), "{wrong}: {problem}");
    }
    let none = hub.get(&tenant, "/v1/audit?until=2020-01-01T00:00:00Z").await;
    assert_eq!(none["data"], json!([]));

    // A copy, by the network and on the machine.
    let request = hub.client().get(format!("{}/v1/audit/export", hub.https()));
    let answer = request.header("authorization", &tenant.authorization).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["position"], json!(index + 1));
        assert!(index == 0 || line["previous_hash"] == lines[index - 1]["hash"]);
    }
    assert_eq!(entries(&hub, &tenant, "audit.export", 1).await.len(), 1, "once a request");
    let mut export = command(dir.path());
    export.args(["audit", "export", "--tenant", &tenant.id, "--format", "csv", "--action", "person.read"]);
    let csv = String::from_utf8(output(export).stdout).unwrap();
    assert_eq!(csv.lines().count(), 2, "{csv}");
    let listed = hub.cli(&["audit", "list", "--tenant", &tenant.id, "--action", "audit.export"]);
    assert!(
        listed["data"].as_array().unwrap().iter().any(|entry| entry["actor"] == "operator")
            || listed["data"].as_array().unwrap().len() == 1
    );

    // Others do not see it, and whoever may only keep people in step does not either.
    let other = hub.tenant("Other");
    assert!(!hub.get(&other, "/v1/audit").await.to_string().contains(&person));
    let key = hub.made(&tenant, "/v1/api-keys", json!({ "name": "sync", "role": "integrator" })).await;
    let authorization = format!("ApiKey {}:{}", key["id"].as_str().unwrap(), key["secret"].as_str().unwrap());
    let sync = Tenant { id: tenant.id.clone(), authorization };
    let (status, _) = hub.call(&sync, Method::GET, "/v1/audit", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn verify_says_well_until_somebody_cuts_the_end_off() {
    if skipped("verify_says_well_until_somebody_cuts_the_end_off") {
        return;
    }
    let (dir, evidence) = (data_dir(), tempfile::tempdir().unwrap());
    let heads = evidence.path().join("hub-1");
    let start = || {
        let mut command = serve(dir.path());
        command.env("LINTEL__AUDIT__HEADS", &heads).env("LINTEL__AUDIT__HEADS_EVERY", "1s");
        Hub::from_command(command, dir.path())
    };
    let hub = start();
    let tenant = hub.tenant("Acme");
    for number in 0..5 {
        hub.person(&tenant, &format!("E-{number}")).await;
    }
    // A clean stop signs everything; the next life goes on from there.
    assert!(hub.stop().success());
    let hub = start();
    let verify = |more: &[&str]| {
        let mut verify = command(dir.path());
        verify.env("LINTEL__AUDIT__HEADS", &heads).args(["audit", "verify", "-o", "json"]).args(more);
        let output = output(verify);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), serde_json::from_str::<Value>(&text).unwrap_or(json!(error)))
    };
    let (code, report) = verify(&[]);
    assert_eq!((code, &report["ok"]), (0, &json!(true)), "{report}");
    let of_tenant = report["tenants"].as_array().unwrap().iter().find(|one| one["tenant"] == tenant.id).unwrap();
    assert!(of_tenant["covered"].as_u64().unwrap() >= 6, "{report}");
    let health =
        hub.client().get(format!("{}/health/detailed", hub.https())).send().await.unwrap().text().await.unwrap();
    assert!(health.contains(r#"{"name":"audit","status":"pass"}"#), "{health}");

    let mut superuser = hub.superuser().await;
    superuser.execute("SET session_replication_role = replica").await.unwrap();
    superuser
        .execute("DELETE FROM audit_entry WHERE chain_position = (SELECT max(chain_position) FROM audit_entry)")
        .await
        .unwrap();
    let (code, report) = verify(&["--tenant", &tenant.id]);
    assert_eq!((code, &report["tenants"][0]["findings"][0]["kind"]), (1, &json!("tail_missing")), "{report}");
    let (code, report) = verify(&["--heads", "/nonexistent"]);
    assert_eq!(code, 1, "{report}");
}
