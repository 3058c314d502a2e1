//! `cloud-hub sessions`: what the operator of the machine sees of sessions, and how they end one.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::process::{Hub, command, data_dir, output, read, skipped};

#[tokio::test]
async fn the_operator_lists_looks_at_and_ends_sessions() {
    if skipped("the_operator_lists_looks_at_and_ends_sessions") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (acme, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    let mut opened = Vec::new();
    for _ in 0..3 {
        opened.push(hub.made(&acme, "/v1/sessions/authentication", json!({ "kind": "identification" })).await);
    }
    let id = opened[1]["session"]["id"].as_str().unwrap();
    let first = hub.cli(&["sessions", "list", "--tenant", &acme.id, "--limit", "2"]);
    assert_eq!(first["data"].as_array().unwrap().len(), 2);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = hub.cli(&["sessions", "list", "--tenant", &acme.id, "--limit", "2", "--cursor", cursor]);
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &json!(null)));
    assert_eq!(hub.cli(&["sessions", "list", "--tenant", &other.id])["data"], json!([]));
    assert_eq!(hub.cli(&["sessions", "show", "--tenant", &acme.id, id])["session"]["state"], "initialized");
    let ended = hub.cli(&["sessions", "end", "--tenant", &acme.id, id]);
    assert_eq!((&ended["session"]["id"], &ended["session"]["state"]), (&json!(id), &json!("cancelled")));
    // Its token opens nothing any more, and the operator is in the audit.
    let token = opened[1]["token"].as_str().unwrap();
    let request = hub.client().request(Method::GET, format!("{}/v1/sessions/{id}", hub.https()));
    let (status, _) = read(request.header("x-session-token", token).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let begun = Instant::now();
    let ended = loop {
        let page = hub.get(&acme, "/v1/audit?action=session.end").await;
        if let Some(entry) = page["data"].as_array().unwrap().first() {
            break entry.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "no entry of the audit");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(ended["actor"], "operator");
    // What has ended, and what is another tenant's, is refused with its reason.
    for (tenant, reason) in [(&acme, "clashes with"), (&other, "no such session")] {
        let mut again = command(dir.path());
        again.args(["sessions", "end", "--tenant", &tenant.id, id]);
        let refused = output(again);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains(reason), "{said}");
    }
}
