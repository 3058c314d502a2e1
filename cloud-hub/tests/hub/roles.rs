//! Who may call what: every route with a key of every role, keys that make keys, and tenants that are not served.

use cloud_hub::api::access::{Audience, ROUTES};
use cloud_hub::domain::permission::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::process::{Hub, Tenant, data_dir, skipped};

/// The same tenant by another key.
async fn key(hub: &Hub, tenant: &Tenant, wanted: Value) -> Tenant {
    let made = hub.made(tenant, "/v1/api-keys", wanted).await;
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    Tenant { id: tenant.id.clone(), authorization: format!("ApiKey {}:{}", text("id"), text("secret")) }
}

/// The status alone: a stream of events has no end.
async fn status(hub: &Hub, authorization: Option<&str>, method: &str, pattern: &str) -> StatusCode {
    let nil = uuid::Uuid::nil().to_string();
    let path = pattern.replace("{id}", &nil).replace("{anchor}", &nil).replace("{command}", &nil);
    let method: Method = method.parse().unwrap();
    let mut request = hub.client().request(method, format!("{}{path}", hub.https()));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn every_role_may_do_what_it_is_there_for_and_nothing_else() {
    if skipped("every_role_may_do_what_it_is_there_for_and_nothing_else") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let owner = hub.tenant("Acme");
    let (mut allowed, mut refused) = (0, 0);
    for role in Role::ALL {
        let name = role.as_str();
        let caller = key(&hub, &owner, json!({ "name": name, "role": name })).await;
        for (method, pattern, audience) in ROUTES {
            let (Audience::Key(permission) | Audience::Session(permission)) = audience else { continue };
            let found = status(&hub, Some(&caller.authorization), method, pattern).await;
            assert_ne!(found, StatusCode::UNAUTHORIZED, "{name}: {method} {pattern}");
            let may = role.permissions().allow(*permission);
            assert_eq!(found != StatusCode::FORBIDDEN, may, "{name}: {method} {pattern} answered {found}");
            if may { allowed += 1 } else { refused += 1 }
        }
    }
    assert!(allowed > 100 && refused > 50, "{allowed} allowed, {refused} refused");
    // Nobody at all without a key, and no key opens what is a device's.
    for (method, pattern, audience) in ROUTES {
        let expected = match audience {
            Audience::Open => continue,
            Audience::Key(_)
            | Audience::Session(_)
            | Audience::User
            | Audience::UserSettingUp
            | Audience::Platform(_) => status(&hub, None, method, pattern).await,
            Audience::Device => status(&hub, Some(&owner.authorization), method, pattern).await,
        };
        assert_eq!(expected, StatusCode::UNAUTHORIZED, "{method} {pattern}");
    }
    // A refusal says what is missing, and to whom it matters.
    let auditor = key(&hub, &owner, json!({ "name": "looks", "role": "auditor" })).await;
    let body = json!({ "external_id": "x", "name": "x" });
    let (status, problem) = hub.call(&auditor, Method::POST, "/v1/people", Some(body)).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::FORBIDDEN, Some("forbidden")));
    assert!(problem["detail"].as_str().unwrap().contains("people:write"), "{problem}");
}

#[tokio::test]
async fn nobody_gives_away_more_than_they_have() {
    if skipped("nobody_gives_away_more_than_they_have") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let owner = hub.tenant("Acme");
    let scopes = json!(["api_keys:write", "api_keys:read", "events:read"]);
    let issuer = key(&hub, &owner, json!({ "name": "issuer", "role": "owner", "scopes": scopes })).await;
    // Within its rights, and beyond them.
    let reader = json!({ "name": "reader", "role": "auditor", "scopes": ["events:read"] });
    let reader = key(&hub, &issuer, reader).await;
    hub.get(&reader, "/v1/events").await;
    let (status, problem) = hub.call(&issuer, Method::POST, "/v1/api-keys", Some(json!({ "name": "more" }))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(problem["detail"].as_str().unwrap().contains("people:write"), "{problem}");
    // Nor by rotating somebody else's.
    let first = owner.authorization.strip_prefix("ApiKey ").unwrap().split_once(':').unwrap().0.to_owned();
    let (status, _) = hub.call(&issuer, Method::POST, &format!("/v1/api-keys/{first}/rotate"), Some(json!({}))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    // What makes no sense is told, field by field.
    for (body, pointer) in [
        (json!({ "name": "x", "role": "root" }), "/role"),
        (json!({ "name": "x", "role": "auditor", "scopes": ["people:write"] }), "/scopes/0"),
        (json!({ "name": "x", "scopes": ["people:read", "people:burn"] }), "/scopes/1"),
        (json!({ "name": "x", "scopes": [] }), "/scopes"),
        (json!({ "name": "x", "expires_at": "2001-01-01T00:00:00Z" }), "/expires_at"),
    ] {
        let (status, problem) = hub.call(&owner, Method::POST, "/v1/api-keys", Some(body)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert!(problem["errors"].to_string().contains(pointer), "{pointer}: {problem}");
    }
}

#[tokio::test]
async fn a_rotated_and_a_revoked_key_by_rest_and_by_command_line() {
    if skipped("a_rotated_and_a_revoked_key_by_rest_and_by_command_line") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let owner = hub.tenant("Acme");
    let old = key(&hub, &owner, json!({ "name": "sheet", "role": "integrator" })).await;
    let id = old.authorization.strip_prefix("ApiKey ").unwrap().split_once(':').unwrap().0.to_owned();
    let path = format!("/v1/api-keys/{id}/rotate");
    let (status, _) = hub.call(&owner, Method::POST, &path, Some(json!({ "overlap_s": 99_999_999 }))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let new = hub.made(&owner, &path, json!({ "overlap_s": 3600 })).await;
    hub.get(&old, "/v1/people").await;
    let replaced = hub.get(&owner, &format!("/v1/api-keys/{id}")).await;
    assert_eq!(replaced["replaced_by"], new["id"]);
    assert!(replaced["last_used_at"].is_string() && replaced["expires_at"].is_string(), "{replaced}");
    assert!(!replaced.to_string().contains(new["secret"].as_str().unwrap()));
    // At once, by the command line.
    let id = new["id"].as_str().unwrap();
    let rotated = hub.cli(&["api-keys", "rotate", "--tenant", &owner.id, id, "--overlap-s", "0"]);
    let ended =
        Tenant { id: owner.id.clone(), authorization: format!("ApiKey {id}:{}", new["secret"].as_str().unwrap()) };
    let (status, _) = hub.call(&ended, Method::GET, "/v1/people", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let path = format!("/v1/api-keys/{}", rotated["id"].as_str().unwrap());
    let (status, _) = hub.call(&owner, Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let listed = hub.cli(&["api-keys", "list", "--tenant", &owner.id]);
    let roles: Vec<&str> =
        listed["api_keys"].as_array().unwrap().iter().map(|key| key["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["owner", "integrator", "integrator", "integrator"]);
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_and_a_full_one_told_so() {
    if skipped("a_suspended_tenant_is_refused_and_a_full_one_told_so") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (tenant, neighbour) = (hub.tenant("Acme"), hub.tenant("Neighbour"));
    let request = hub.client().get(format!("{}/v1/events/stream", hub.https()));
    let mut stream = request.header("authorization", &tenant.authorization).send().await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    let suspended = hub.cli(&["tenants", "suspend", &tenant.id]);
    assert_eq!(suspended["state"], "suspended");
    let (status, problem) = hub.call(&tenant, Method::GET, "/v1/people", None).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::FORBIDDEN, Some("tenant_suspended")));
    hub.get(&neighbour, "/v1/people").await;
    // A stream that was open ends too.
    let end = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while stream.chunk().await.unwrap_or_default().is_some() {}
    });
    end.await.expect("the stream ends");
    assert_eq!(hub.cli(&["tenants", "resume", &tenant.id])["state"], "active");
    hub.get(&tenant, "/v1/people").await;
    // One place for people.
    let agreed = hub.cli(&["tenants", "set", &tenant.id, "--tier", "basic", "--quota", "people=1"]);
    assert_eq!((&agreed["usage"]["people"]["quota"], &agreed["usage"]["devices"]["quota"]), (&json!(1), &json!(10)));
    hub.made(&tenant, "/v1/people", json!({ "external_id": "1", "name": "First" })).await;
    let body = json!({ "external_id": "2", "name": "Second" });
    let (status, problem) = hub.call(&tenant, Method::POST, "/v1/people", Some(body)).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::FORBIDDEN, Some("quota_reached")));
    assert!(problem["detail"].as_str().unwrap().contains("1 people"), "{problem}");
    let seen = hub.get(&tenant, "/v1/tenant").await;
    assert_eq!(seen["usage"]["people"], json!({ "used": 1, "quota": 1 }));
    hub.cli(&["tenants", "set", &tenant.id, "--quota", "people=tier"]);
    assert_eq!(hub.cli(&["tenants", "show", &tenant.id])["usage"]["people"]["quota"], 500);
    // A word that is no tier is told by name.
    let mut wrong = super::process::command(dir.path());
    wrong.args(["tenants", "set", &tenant.id, "--tier", "gold"]);
    let output = super::process::output(wrong);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("`gold` is no tier"));
}
