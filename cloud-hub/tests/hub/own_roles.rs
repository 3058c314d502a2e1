//! Roles that a tenant makes: given to keys and users, changed for all who have them, and never mightier than their maker.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::login::{bearer, log_in, user};
use super::process::{Hub, Tenant, data_dir, skipped};

async fn key(hub: &Hub, tenant: &Tenant, role: &str) -> (String, Tenant) {
    let made = hub.made(tenant, "/v1/api-keys", json!({ "name": role, "role": role })).await;
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let authorization = format!("ApiKey {}:{}", text("id"), text("secret"));
    (text("id"), Tenant { id: tenant.id.clone(), authorization })
}

#[tokio::test]
async fn a_role_of_a_tenants_own_is_given_changed_and_kept_while_somebody_has_it() {
    if skipped("a_role_of_a_tenants_own_is_given_changed_and_kept_while_somebody_has_it") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (owner, neighbour) = (hub.tenant("Acme"), hub.tenant("Neighbour"));
    for (body, pointer) in [
        (json!({ "name": "owner", "permissions": ["events:read"] }), "/name"),
        (json!({ "name": "Reception", "permissions": ["events:read"] }), "/name"),
        (json!({ "name": "x", "permissions": [] }), "/permissions"),
        (json!({ "name": "x", "permissions": ["events:read", "doors:burn"] }), "/permissions/1"),
    ] {
        let (status, problem) = hub.call(&owner, Method::POST, "/v1/roles", Some(body)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert!(problem["errors"].to_string().contains(pointer), "{pointer}: {problem}");
    }
    let wanted = json!({
        "name": "reception", "description": "Front desk", "permissions": ["people:read", "people:write", "events:read"],
    });
    let made = hub.made(&owner, "/v1/roles", wanted.clone()).await;
    assert_eq!(hub.call(&owner, Method::POST, "/v1/roles", Some(wanted)).await.0, StatusCode::CONFLICT);
    let id = made["id"].as_str().unwrap();
    assert_eq!(hub.get(&owner, &format!("/v1/roles/{id}")).await, hub.get(&owner, "/v1/roles/reception").await);
    let listed = hub.get(&owner, "/v1/roles").await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 6, "{listed}");
    // Another tenant's is not there, under either name.
    for named in [id, "reception"] {
        let path = format!("/v1/roles/{named}");
        assert_eq!(hub.call(&neighbour, Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
        assert_eq!(hub.call(&neighbour, Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND);
    }
    let body = json!({ "name": "x", "role": "reception" });
    assert_eq!(
        hub.call(&neighbour, Method::POST, "/v1/api-keys", Some(body)).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    // What it allows and nothing else, for a key and for a user.
    let (key_id, desk) = key(&hub, &owner, "reception").await;
    let user_id = user(&hub, &owner, "ada", "reception").await;
    let ada = bearer(&owner, &log_in(&hub, &owner, "ada").await);
    assert_eq!(hub.get(&ada, "/v1/me").await["user"]["role"], "reception");
    let status = async |who: &Tenant, path: &str| hub.call(who, Method::GET, path, None).await.0;
    for who in [&desk, &ada] {
        assert_eq!(status(who, "/v1/people").await, StatusCode::OK);
        assert_eq!(status(who, "/v1/devices").await, StatusCode::FORBIDDEN);
    }
    // Changed, and called otherwise: at once, for both, with what they hold.
    let change = json!({ "name": "front-desk", "permissions": ["devices:read"] });
    let changed = hub.call(&owner, Method::PATCH, "/v1/roles/reception", Some(change)).await;
    assert_eq!((changed.0, &changed.1["description"]), (StatusCode::OK, &json!("Front desk")));
    for who in [&desk, &ada] {
        assert_eq!(status(who, "/v1/people").await, StatusCode::FORBIDDEN);
        assert_eq!(status(who, "/v1/devices").await, StatusCode::OK);
    }
    assert_eq!(status(&owner, "/v1/roles/reception").await, StatusCode::NOT_FOUND);
    // While somebody has it, it stays; a key that has ended does not hold it.
    let (refused, problem) = hub.call(&owner, Method::DELETE, "/v1/roles/front-desk", None).await;
    assert_eq!(refused, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().unwrap().contains("1 users and 1 keys"), "{problem}");
    hub.call(&owner, Method::DELETE, &format!("/v1/api-keys/{key_id}"), None).await;
    let body = json!({ "role": "auditor" });
    hub.call(&owner, Method::PATCH, &format!("/v1/users/{user_id}"), Some(body)).await;
    let gone = hub.call(&owner, Method::DELETE, "/v1/roles/front-desk", None).await;
    assert_eq!(gone.0, StatusCode::NO_CONTENT, "{}", gone.1);
    assert_eq!(hub.get(&owner, &format!("/v1/api-keys/{key_id}")).await["role"], "front-desk", "what it was");
    let body = json!({ "name": "x", "role": "front-desk" });
    assert_eq!(hub.call(&owner, Method::POST, "/v1/api-keys", Some(body)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn nobody_makes_gives_or_changes_a_role_above_their_own() {
    if skipped("nobody_makes_gives_or_changes_a_role_above_their_own") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let owner = hub.tenant("Acme");
    let (_, administrator) = key(&hub, &owner, "administrator").await;
    let mighty = json!({ "name": "mighty", "permissions": ["events:read", "api_keys:write"] });
    let small = json!({ "name": "small", "permissions": ["events:read"] });
    let refused = async |method: Method, path: &str, body: Option<Value>| {
        let (status, problem) = hub.call(&administrator, method, path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("api_keys:write"), "{problem}");
    };
    refused(Method::POST, "/v1/roles", Some(mighty.clone())).await;
    hub.made(&administrator, "/v1/roles", small).await;
    refused(Method::PATCH, "/v1/roles/small", Some(json!({ "permissions": ["api_keys:write"] }))).await;
    // One that somebody mightier made: not given, not changed even to less, not deleted.
    hub.made(&owner, "/v1/roles", mighty).await;
    refused(Method::POST, "/v1/users", Some(json!({ "login": "eve", "role": "mighty" }))).await;
    let made = hub.made(&administrator, "/v1/users", json!({ "login": "eve", "role": "small" })).await;
    let eve = format!("/v1/users/{}", made["id"].as_str().unwrap());
    refused(Method::PATCH, &eve, Some(json!({ "role": "mighty" }))).await;
    refused(Method::PATCH, "/v1/roles/mighty", Some(json!({ "permissions": ["events:read"] }))).await;
    refused(Method::DELETE, "/v1/roles/mighty", None).await;
    // Nor over whoever has it.
    hub.call(&owner, Method::PATCH, &eve, Some(json!({ "role": "mighty" }))).await;
    refused(Method::DELETE, &eve, None).await;
    // Nor over keys: whoever may end some may not end those that allow more.
    hub.made(&owner, "/v1/roles", json!({ "name": "locksmith", "permissions": ["api_keys:write"] })).await;
    let (locksmith_id, locksmith) = key(&hub, &owner, "locksmith").await;
    let (above, _) = key(&hub, &owner, "owner").await;
    for (method, path) in
        [(Method::DELETE, format!("/v1/api-keys/{above}")), (Method::POST, format!("/v1/api-keys/{above}/rotate"))]
    {
        let (status, problem) = hub.call(&locksmith, method, &path, Some(json!({}))).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {problem}");
    }
    assert_eq!(hub.get(&owner, &format!("/v1/api-keys/{above}")).await["revoked_at"], Value::Null);
    let own = format!("/v1/api-keys/{locksmith_id}");
    assert_eq!(hub.call(&locksmith, Method::DELETE, &own, None).await.0, StatusCode::NO_CONTENT);
    // The program's own stay as they are, whoever asks.
    for (method, body) in [(Method::PATCH, Some(json!({ "description": "x" }))), (Method::DELETE, None)] {
        assert_eq!(hub.call(&owner, method, "/v1/roles/auditor", body).await.0, StatusCode::CONFLICT);
    }
}
