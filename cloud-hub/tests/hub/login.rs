//! Users: invited, logged in with tokens or a cookie, locked out, and what ends a log-in.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::process::{Hub, Tenant, data_dir, read, skipped};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// Makes a user who has chosen [`PASSWORD`]; their id.
pub(crate) async fn user(hub: &Hub, tenant: &Tenant, login: &str, role: &str) -> String {
    let made = hub.cli(&["users", "create", "--tenant", &tenant.id, login, "--role", role]);
    let body = json!({ "invitation": made["invitation"], "password": PASSWORD });
    let (status, answer) = post(hub, "/v1/login/invitation", body).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
    made["id"].as_str().unwrap().to_owned()
}

/// `POST` of somebody who is nobody yet.
pub(crate) async fn post(hub: &Hub, path: &str, body: Value) -> (StatusCode, Value) {
    read(hub.client().post(format!("{}{path}", hub.https())).json(&body).send().await.unwrap()).await
}

pub(crate) fn words(tenant: &Tenant, login: &str, password: &str) -> Value {
    json!({ "tenant": tenant.id, "login": login, "password": password })
}

/// Logs in by tokens.
pub(crate) async fn log_in(hub: &Hub, tenant: &Tenant, login: &str) -> Value {
    let (status, answer) = post(hub, "/v1/login", words(tenant, login, PASSWORD)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

/// The same tenant by an access token.
pub(crate) fn bearer(tenant: &Tenant, granted: &Value) -> Tenant {
    let token = granted["access_token"].as_str().unwrap();
    Tenant { id: tenant.id.clone(), authorization: format!("Bearer {token}") }
}

async fn status(hub: &Hub, caller: &Tenant, path: &str) -> StatusCode {
    hub.call(caller, Method::GET, path, None).await.0
}

/// The one entry of an action, once it is sealed.
async fn audited(hub: &Hub, tenant: &Tenant, action: &str) -> Value {
    for _ in 0..200 {
        let mut page = hub.get(tenant, &format!("/v1/audit?action={action}")).await;
        if let Some([entry]) = page["data"].as_array_mut().map(Vec::as_mut_slice) {
            return entry.take();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no entry of {action}")
}

#[tokio::test]
async fn a_refresh_token_that_is_shown_twice_ends_its_log_in() {
    if skipped("a_refresh_token_that_is_shown_twice_ends_its_log_in") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (tenant, neighbour) = (hub.tenant("Acme"), hub.tenant("Neighbour"));
    let id = user(&hub, &tenant, "Ada@Example.org", "administrator").await;
    // However the name is written; but not with another password, nor at the neighbour's.
    let granted = log_in(&hub, &tenant, "ada@EXAMPLE.org").await;
    for body in [words(&tenant, "ada@example.org", "something else!"), words(&neighbour, "ada@example.org", PASSWORD)] {
        let (status, problem) = post(&hub, "/v1/login", body).await;
        assert_eq!((status, problem["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("unauthorized")));
    }
    let ada = bearer(&tenant, &granted);
    let me = hub.get(&ada, "/v1/me").await;
    assert_eq!((&me["user"]["id"], &me["user"]["role"]), (&json!(id), &json!("administrator")));
    assert!(me["csrf_token"].is_null() && me["permissions"].to_string().contains("users:write"), "{me}");
    // What they do is theirs in the audit; what they may not is told.
    hub.site(&ada).await;
    assert_eq!(audited(&hub, &tenant, "site.create").await["actor"], format!("user:{id}"));
    let (refused, problem) = hub.call(&ada, Method::POST, "/v1/api-keys", Some(json!({ "name": "x" }))).await;
    assert_eq!(refused, StatusCode::FORBIDDEN);
    assert!(problem["detail"].as_str().unwrap().contains("this user"), "{problem}");
    assert_eq!(status(&hub, &tenant, "/v1/me").await, StatusCode::FORBIDDEN, "a key is no user");
    // Refreshed, and then the old one once more.
    let refresh = |granted: &Value| json!({ "refresh_token": granted["refresh_token"] });
    let (ok, next) = post(&hub, "/v1/login/refresh", refresh(&granted)).await;
    assert_eq!(ok, StatusCode::OK, "{next}");
    assert_ne!(next["refresh_token"], granted["refresh_token"]);
    let other = log_in(&hub, &tenant, "ada@example.org").await;
    assert_eq!(status(&hub, &bearer(&tenant, &next), "/v1/me").await, StatusCode::OK);
    assert_eq!(post(&hub, "/v1/login/refresh", refresh(&granted)).await.0, StatusCode::UNAUTHORIZED);
    for token in [&granted, &next] {
        assert_eq!(status(&hub, &bearer(&tenant, token), "/v1/me").await, StatusCode::UNAUTHORIZED);
        assert_eq!(post(&hub, "/v1/login/refresh", refresh(token)).await.0, StatusCode::UNAUTHORIZED);
    }
    // Another log-in of hers is another matter, until she logs out of it.
    assert_eq!(status(&hub, &bearer(&tenant, &other), "/v1/me").await, StatusCode::OK);
    let (gone, _) = hub.call(&bearer(&tenant, &other), Method::POST, "/v1/logout", None).await;
    assert_eq!(gone, StatusCode::NO_CONTENT);
    assert_eq!(status(&hub, &bearer(&tenant, &other), "/v1/me").await, StatusCode::UNAUTHORIZED);
    assert_eq!(post(&hub, "/v1/login/refresh", refresh(&other)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(audited(&hub, &tenant, "user.token_reused").await["object_id"], json!(id));
}

#[tokio::test]
async fn a_name_is_locked_whether_or_not_somebody_has_it() {
    if skipped("a_name_is_locked_whether_or_not_somebody_has_it") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    user(&hub, &tenant, "ada", "auditor").await;
    user(&hub, &tenant, "bob", "auditor").await;
    let mut told = Vec::new();
    for login in ["ada", "nobody"] {
        for _ in 0..5 {
            let (status, problem) = post(&hub, "/v1/login", words(&tenant, login, "something else!")).await;
            told.push((login, status, problem["detail"].clone()));
        }
        // Now not even the right one is looked at.
        let request = hub.client().post(format!("{}/v1/login", hub.https())).json(&words(&tenant, login, PASSWORD));
        let answer = request.send().await.unwrap();
        let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((50..=61).contains(&wait), "{wait}");
        told.push((login, answer.status(), json!(read(answer).await.1["code"])));
    }
    let (ada, nobody) = told.split_at(6);
    for (one, other) in ada.iter().zip(nobody) {
        assert_eq!((one.1, &one.2), (other.1, &other.2));
    }
    assert!(ada[..5].iter().all(|(_, status, _)| *status == StatusCode::UNAUTHORIZED), "{told:?}");
    assert_eq!(ada[5].1, StatusCode::TOO_MANY_REQUESTS);
    log_in(&hub, &tenant, "bob").await;
}

#[tokio::test]
async fn a_cookie_changes_nothing_without_its_token() {
    if skipped("a_cookie_changes_nothing_without_its_token") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    user(&hub, &tenant, "ada", "owner").await;
    let mut body = words(&tenant, "ada", PASSWORD);
    body["cookie"] = json!(true);
    let answer = hub.client().post(format!("{}/v1/login", hub.https())).json(&body).send().await.unwrap();
    let line = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for attribute in ["__Host-lintel=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(line.contains(attribute), "{attribute}");
    }
    let cookie = line.split(';').next().unwrap().to_owned();
    let (_, granted) = read(answer).await;
    assert!(granted["access_token"].is_null() && granted["refresh_token"].is_null());
    let csrf = granted["csrf_token"].as_str().unwrap().to_owned();
    let call = async |method: Method, path: &str, token: Option<&str>| {
        let mut request = hub.client().request(method, format!("{}{path}", hub.https())).header("cookie", &cookie);
        request = request.json(&json!({ "name": "HQ", "time_zone": "Asia/Jakarta" }));
        if let Some(token) = token {
            request = request.header("x-csrf-token", token);
        }
        read(request.send().await.unwrap()).await
    };
    let (status, me) = call(Method::GET, "/v1/me", None).await;
    assert_eq!((status, me["csrf_token"].as_str()), (StatusCode::OK, Some(csrf.as_str())));
    let mut wrong = csrf.clone().into_bytes();
    wrong[0] ^= 1;
    for token in [None, Some(""), Some(&csrf[1..]), Some(std::str::from_utf8(&wrong).unwrap())] {
        let (status, problem) = call(Method::POST, "/v1/sites", token).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{token:?}: {problem}");
    }
    assert_eq!(call(Method::POST, "/v1/sites", Some(&csrf)).await.0, StatusCode::CREATED);
    // A cookie is no token of either kind.
    let value = cookie.split_once('=').unwrap().1;
    let refresh = post(&hub, "/v1/login/refresh", json!({ "refresh_token": value })).await;
    assert_eq!(refresh.0, StatusCode::UNAUTHORIZED);
    assert_eq!(call(Method::POST, "/v1/logout", Some(&csrf)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(call(Method::GET, "/v1/me", None).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nobody_becomes_an_owner_by_way_of_one() {
    if skipped("nobody_becomes_an_owner_by_way_of_one") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let owner = user(&hub, &tenant, "owner", "owner").await;
    user(&hub, &tenant, "ada", "administrator").await;
    let ada = bearer(&tenant, &log_in(&hub, &tenant, "ada").await);
    for (method, path, body) in [
        (Method::POST, String::from("/v1/users"), Some(json!({ "login": "eve", "role": "owner" }))),
        (Method::POST, format!("/v1/users/{owner}/password"), None),
        (Method::PATCH, format!("/v1/users/{owner}"), Some(json!({ "state": "disabled" }))),
        (Method::DELETE, format!("/v1/users/{owner}"), None),
    ] {
        let (status, problem) = hub.call(&ada, method, &path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {problem}");
    }
    // Within her rights: made, and disabled, which ends what they hold.
    let made = hub.made(&ada, "/v1/users", json!({ "login": "Bob", "role": "operator" })).await;
    let body = json!({ "invitation": made["invitation"], "password": "short" });
    assert_eq!(post(&hub, "/v1/login/invitation", body).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let body = json!({ "invitation": made["invitation"], "password": PASSWORD });
    assert_eq!(post(&hub, "/v1/login/invitation", body.clone()).await.0, StatusCode::NO_CONTENT);
    assert_eq!(post(&hub, "/v1/login/invitation", body).await.0, StatusCode::UNAUTHORIZED, "once");
    let again = json!({ "login": "bob", "role": "operator" });
    assert_eq!(hub.call(&ada, Method::POST, "/v1/users", Some(again)).await.0, StatusCode::CONFLICT);
    let bob = bearer(&tenant, &log_in(&hub, &tenant, "bob").await);
    let change = async |body: Value| {
        let path = format!("/v1/users/{}", made["id"].as_str().unwrap());
        hub.call(&ada, Method::PATCH, &path, Some(body)).await
    };
    assert_eq!(change(json!({ "role": "auditor" })).await.1["role"], "auditor");
    assert_eq!(status(&hub, &bob, "/v1/me").await, StatusCode::UNAUTHORIZED, "a token of another role");
    let bob = bearer(&tenant, &log_in(&hub, &tenant, "bob").await);
    assert_eq!(status(&hub, &bob, "/v1/me").await, StatusCode::OK);
    assert_eq!(change(json!({ "state": "disabled" })).await.1["state"], "disabled");
    assert_eq!(status(&hub, &bob, "/v1/me").await, StatusCode::UNAUTHORIZED);
    assert_eq!(post(&hub, "/v1/login", words(&tenant, "bob", PASSWORD)).await.0, StatusCode::UNAUTHORIZED);
    // Her own password: the other log-ins end, this one goes on.
    let other = bearer(&tenant, &log_in(&hub, &tenant, "ada").await);
    let wrong = json!({ "old_password": "something else!", "new_password": "another good one" });
    assert_eq!(hub.call(&ada, Method::POST, "/v1/me/password", Some(wrong)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let right = json!({ "old_password": PASSWORD, "new_password": "another good one" });
    assert_eq!(hub.call(&ada, Method::POST, "/v1/me/password", Some(right)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(status(&hub, &other, "/v1/me").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&hub, &ada, "/v1/me").await, StatusCode::OK);
    // Nothing of names or passwords is in the database or the log as it is.
    let mut database = hub.superuser().await;
    let plain: bool = sqlx::query_scalar("SELECT bool_or(position('bob'::bytea IN login_sealed) > 0) FROM app_user")
        .fetch_one(&mut database)
        .await
        .unwrap();
    let log = std::fs::read_to_string(dir.path().join("hub.log")).unwrap();
    assert!(!plain && !log.contains(PASSWORD) && !log.contains("another good one"));
    // A suspended tenant's users wait, as its keys do.
    hub.cli(&["tenants", "suspend", &tenant.id]);
    assert_eq!(status(&hub, &ada, "/v1/me").await, StatusCode::FORBIDDEN);
    assert_eq!(post(&hub, "/v1/login", words(&tenant, "owner", PASSWORD)).await.1["code"], "tenant_suspended");
}
