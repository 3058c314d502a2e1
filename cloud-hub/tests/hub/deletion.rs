//! The end of a tenant as its operator sees it: refused, shown, ordered, finished after a kill, and proved.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::process::{Hub, Tenant, command, data_dir, output, serve, signal, skipped};

/// A head of the audit takes a second here, and its first one goes with it.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(dir: &Path) -> Hub {
    let mut command = serve(dir);
    command.env("LINTEL__AUDIT__HEADS_EVERY", "1s");
    Hub::from_command(command, dir)
}

fn refused(dir: &Path, arguments: &[&str]) -> String {
    let mut command = command(dir);
    command.args(arguments);
    let output = output(command);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn rows(shown: &Value, table: &str) -> u64 {
    let rows = shown["rows"].as_array().unwrap().iter().find(|rows| rows["table"] == table);
    rows.map_or(0, |rows| rows["rows"].as_u64().unwrap())
}

async fn status(hub: &Hub, tenant: &Tenant) -> StatusCode {
    hub.call(tenant, Method::GET, "/v1/people", None).await.0
}

#[tokio::test]
async fn a_tenant_ends_by_its_name_and_the_audit_stays_well() {
    if skipped("a_tenant_ends_by_its_name_and_the_audit_stays_well") {
        return;
    }
    let dir = data_dir();
    let mut hub = start(dir.path());
    let (acme, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    hub.site(&acme).await;
    hub.person(&acme, "E-1").await;
    let kept = hub.person(&other, "E-1").await;
    let id = acme.id.as_str();

    // What would go is told and nothing goes.
    let shown = hub.cli(&["tenants", "delete", id, "--dry-run"]);
    assert_eq!((rows(&shown, "person"), rows(&shown, "site"), &shown["state"]), (1, 1, &json!("active")));
    assert!(refused(dir.path(), &["tenants", "delete", id, "--confirm", "Acme"]).contains("suspend it first"));
    hub.cli(&["tenants", "suspend", id]);
    assert!(refused(dir.path(), &["tenants", "delete", id, "--confirm", "acme"]).contains("not the tenant's name"));
    assert!(refused(dir.path(), &["tenants", "delete", id]).contains("--confirm"));
    assert_eq!(status(&hub, &acme).await, StatusCode::FORBIDDEN, "suspended, and nothing else");

    let ordered = hub.cli(&["tenants", "delete", id, "--confirm", "Acme"]);
    assert!(["deleting", "erased"].iter().any(|state| ordered["state"] == *state), "{ordered}");
    assert_eq!(status(&hub, &acme).await, StatusCode::UNAUTHORIZED);
    // Killed with whatever is left; the next life goes on.
    signal(&hub.child, Signal::KILL);
    hub.child.wait().unwrap();
    let hub = start(dir.path());
    assert_eq!(status(&hub, &acme).await, StatusCode::UNAUTHORIZED);
    let begun = Instant::now();
    let shown = loop {
        let shown = hub.cli(&["tenants", "show", id]);
        if shown["state"] == "erased" {
            break shown;
        }
        assert_eq!(shown["state"], "deleting");
        let message = refused(dir.path(), &["tenants", "resume", id]);
        assert!(
            message.contains("being deleted") || hub.cli(&["tenants", "show", id])["state"] == "erased",
            "{message}"
        );
        assert!(begun.elapsed() < PATIENCE, "{shown}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    assert_eq!((&shown["receipt"]["person_keys_destroyed"], &shown["rows_left"]), (&json!(1), &json!(0)));
    assert_eq!(shown["receipt"]["rows_removed"]["person"], json!(1));

    // The neighbour is served, alone, and both audits are well.
    let tenants = hub.cli(&["tenants", "list"]);
    let ids: Vec<&Value> = tenants["tenants"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [&json!(other.id)]);
    assert_eq!(hub.get(&other, &format!("/v1/people/{kept}")).await["external_id"], "E-1");
    let begun = Instant::now();
    loop {
        let mut verify = command(dir.path());
        verify.args(["audit", "verify", "-o", "json"]);
        let verified: Value = serde_json::from_slice(&output(verify).stdout).unwrap();
        let of_acme = verified["tenants"].as_array().unwrap().iter().find(|one| one["tenant"] == json!(id)).unwrap();
        assert!(of_acme["erased_at"].is_string(), "{of_acme}");
        if verified["ok"] == true {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{verified}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
