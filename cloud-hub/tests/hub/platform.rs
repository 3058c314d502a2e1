//! Platform administrators over the network: the life of a tenant and of a key, and who is nobody to whom.

use std::path::Path;
use std::time::{Duration, Instant};

use cloud_hub::api::access::{Audience, ROUTES};
use cloud_hub::domain::platform::PlatformPermission;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::process::{Hub, Tenant, data_dir, demo_picture, read, serve, skipped, skipped_without_models};

/// A head of the audit takes a second here.
const PATIENCE: Duration = Duration::from_secs(60);

/// More refusals than an address may have otherwise.
fn start(dir: &Path) -> Hub {
    let mut command = serve(dir);
    command.env("LINTEL__LIMITS__REFUSED_KEYS_PER_MINUTE", "10000").env("LINTEL__AUDIT__HEADS_EVERY", "1s");
    Hub::from_command(command, dir)
}

/// A key of the platform, of no tenant.
fn admin(hub: &Hub, role: &str) -> Tenant {
    let made = hub.cli(&["admins", "create", role, "--role", role]);
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    Tenant { id: text("id"), authorization: format!("PlatformKey {}:{}", text("id"), text("secret")) }
}

/// The tenant of an answer, with its first key.
fn tenant_of(made: &Value) -> Tenant {
    let text = |pointer: &str| made.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let authorization = format!("ApiKey {}:{}", text("/api_key/id"), text("/api_key/secret"));
    Tenant { id: text("/tenant/id"), authorization }
}

fn path_of(pattern: &str) -> String {
    ["{id}", "{anchor}", "{command}"]
        .iter()
        .fold(pattern.to_owned(), |path, name| path.replace(name, &Uuid::nil().to_string()))
}

/// What a route of the table answers to whoever shows this, without what tells requests apart.
async fn refusal(hub: &Hub, headers: &[(&str, &str)], method: &str, pattern: &str) -> (StatusCode, Value, String) {
    let method: Method = method.parse().unwrap();
    let mut request = hub.client().request(method, format!("{}{}", hub.https(), path_of(pattern)));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    let (status, mut problem) = read(answer).await;
    problem["trace_id"].take();
    (status, problem, challenge.unwrap_or_default())
}

fn wrong(authorization: &str) -> String {
    format!("{}:{}", authorization.split_once(':').unwrap().0, "A".repeat(43))
}

#[tokio::test]
async fn an_administrator_makes_changes_suspends_and_ends_a_tenant() {
    if skipped("an_administrator_makes_changes_suspends_and_ends_a_tenant") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let admin = admin(&hub, "administrator");
    let made = hub.made(&admin, "/v1/admin/tenants", json!({ "name": "Acme", "tier": "professional" })).await;
    let acme = tenant_of(&made);
    assert_eq!(hub.get(&acme, "/v1/tenant").await["tier"], "professional");
    hub.person(&acme, "E-1").await;
    let of_acme = format!("/v1/admin/tenants/{}", acme.id);
    let call = async |method, path: &str, body| hub.call(&admin, method, path, body).await;

    // Whatever the socket's commands can change, by the same words.
    let changes = json!({
        "tier": "basic", "quotas": { "people": 7, "devices": null }, "requests": { "per_hour": 6_000 },
        "features": { "recognition": true },
    });
    let (status, changed) = call(Method::PATCH, &of_acme, Some(changes)).await;
    assert_eq!((status, &changed["tier"]), (StatusCode::OK, &json!("basic")));
    assert_eq!(
        (&changed["usage"]["people"], &changed["requests"]["per_hour"]),
        (&json!({ "used": 1, "quota": 7 }), &json!(6_000))
    );
    assert_eq!(hub.cli(&["tenants", "show", &acme.id]), changed);
    for wrong in [json!({ "quotas": { "cats": 1 } }), json!({ "tier": "golden" }), json!({ "name": "Other" })] {
        assert_eq!(call(Method::PATCH, &of_acme, Some(wrong)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }

    // Its key was used a moment ago, and is refused at once.
    let (status, suspended) = call(Method::POST, &format!("{of_acme}/suspend"), None).await;
    assert_eq!((status, &suspended["state"]), (StatusCode::OK, &json!("suspended")));
    let (status, problem) = hub.call(&acme, Method::GET, "/v1/tenant", None).await;
    assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("tenant_suspended")));
    assert_eq!(call(Method::POST, &format!("{of_acme}/resume"), None).await.0, StatusCode::OK);
    hub.get(&acme, "/v1/tenant").await;

    // All of it is in the tenant's own audit, with who did it.
    let actor = format!("platform:{}", admin.id);
    let begun = Instant::now();
    let expected = ["api_key.create", "tenant.agree", "tenant.create", "tenant.resume", "tenant.suspend"];
    loop {
        let page = hub.get(&acme, "/v1/audit?limit=200").await;
        let by_admin = page["data"].as_array().unwrap().iter().filter(|entry| entry["actor"] == json!(actor));
        let mut actions: Vec<&str> = by_admin.map(|entry| entry["action"].as_str().unwrap()).collect();
        actions.sort_unstable();
        if actions == expected {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{page}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // The end: only of a suspended one, by its name.
    let confirmed = format!("{of_acme}?confirm=Acme");
    assert_eq!(call(Method::DELETE, &confirmed, None).await.0, StatusCode::CONFLICT);
    call(Method::POST, &format!("{of_acme}/suspend"), None).await;
    assert_eq!(call(Method::DELETE, &of_acme, None).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        call(Method::DELETE, &format!("{of_acme}?confirm=acme"), None).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(hub.call(&acme, Method::GET, "/v1/tenant", None).await.0, StatusCode::FORBIDDEN, "and nothing else");
    let (status, ordered) = call(Method::DELETE, &confirmed, None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{ordered}");
    assert_eq!(hub.call(&acme, Method::GET, "/v1/tenant", None).await.0, StatusCode::UNAUTHORIZED);
    let begun = Instant::now();
    let receipt = loop {
        let shown = hub.get(&admin, &of_acme).await;
        if shown["state"] == "erased" {
            break shown["receipt"].clone();
        }
        assert!(begun.elapsed() < PATIENCE, "{shown}");
        let status = call(Method::POST, &format!("{of_acme}/resume"), None).await.0;
        assert_eq!(status, StatusCode::CONFLICT, "there is no way back");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    assert_eq!((&receipt["person_keys_destroyed"], &receipt["rows_removed"]["person"]), (&json!(1), &json!(1)));
    assert_eq!(hub.get(&admin, "/v1/admin/tenants").await["data"], json!([]));
    assert_eq!(call(Method::GET, &format!("/v1/admin/tenants/{}", Uuid::nil()), None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn tenants_come_a_page_at_a_time() {
    if skipped("tenants_come_a_page_at_a_time") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let auditor = admin(&hub, "auditor");
    let made: Vec<String> = ["one", "two", "three"].iter().map(|name| hub.tenant(name).id).collect();
    let mut path = String::from("/v1/admin/tenants?limit=2");
    let mut seen = Vec::new();
    loop {
        let page = hub.get(&auditor, &path).await;
        let data = page["data"].as_array().unwrap();
        assert!((1..=2).contains(&data.len()), "{page}");
        seen.extend(data.iter().map(|tenant| tenant["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/admin/tenants?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn an_auditor_looks_and_changes_nothing() {
    if skipped("an_auditor_looks_and_changes_nothing") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let (auditor, acme) = (admin(&hub, "auditor"), hub.tenant("Acme"));
    let (mut looked, mut refused) = (0, 0);
    for (method, pattern, audience) in ROUTES {
        let Audience::Platform(needed) = audience else { continue };
        let path = pattern.replace("{id}", &acme.id);
        let body = (*method == "POST" || *method == "PATCH" || *method == "PUT").then(|| json!({}));
        let (status, answer) = hub.call(&auditor, method.parse().unwrap(), &path, body).await;
        if *needed == PlatformPermission::Read {
            assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
            looked += 1;
            continue;
        }
        assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{method} {path}");
        assert!(answer["detail"].as_str().unwrap().contains("platform:write"), "{answer}");
        refused += 1;
    }
    assert_eq!((looked, refused), (5, 6));
    assert_eq!(hub.get(&auditor, &format!("/v1/admin/tenants/{}", acme.id)).await["state"], "active");
}

#[tokio::test]
async fn a_tenants_key_is_nobody_to_the_platform() {
    if skipped("a_tenants_key_is_nobody_to_the_platform") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let (owner, admin) = (hub.tenant("Acme"), admin(&hub, "administrator"));
    let session = hub.made(&owner, "/v1/sessions/authentication", json!({ "kind": "identification" })).await;
    let session = session["token"].as_str().unwrap();
    // The owner's key, also where a platform key belongs, and a session's token.
    let disguised = owner.authorization.replace("ApiKey", "PlatformKey");
    let mut asked = 0;
    for (method, pattern, audience) in ROUTES {
        let Audience::Platform(_) = audience else { continue };
        let as_wrong = refusal(&hub, &[("authorization", wrong(&admin.authorization).as_str())], method, pattern).await;
        assert_eq!((as_wrong.0, as_wrong.2.as_str()), (StatusCode::UNAUTHORIZED, "PlatformKey"), "{method} {pattern}");
        for header in [
            ("authorization", owner.authorization.as_str()),
            ("authorization", disguised.as_str()),
            ("authorization", "Bearer x"),
            ("x-session-token", session),
        ] {
            assert_eq!(refusal(&hub, &[header], method, pattern).await, as_wrong, "{method} {pattern} {}", header.0);
            asked += 1;
        }
    }
    assert_eq!(asked, 44);
    hub.get(&owner, "/v1/tenant").await;
}

#[tokio::test]
async fn a_platform_key_is_nobody_to_tenants() {
    if skipped("a_platform_key_is_nobody_to_tenants") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let (owner, admin) = (hub.tenant("Acme"), admin(&hub, "administrator"));
    let disguised = admin.authorization.replace("PlatformKey", "ApiKey");
    let mut asked = 0;
    for (method, pattern, audience) in ROUTES {
        if matches!(audience, Audience::Open | Audience::Device | Audience::Platform(_)) {
            continue;
        }
        let as_wrong = refusal(&hub, &[("authorization", wrong(&owner.authorization).as_str())], method, pattern).await;
        assert_eq!(as_wrong.0, StatusCode::UNAUTHORIZED, "{method} {pattern}");
        for authorization in [&admin.authorization, &disguised] {
            let refused = refusal(&hub, &[("authorization", authorization.as_str())], method, pattern).await;
            assert_eq!(refused, as_wrong, "{method} {pattern}");
            asked += 1;
        }
    }
    assert!(asked > 100, "{asked}");
    hub.get(&admin, "/v1/admin/tenants").await;
}

#[tokio::test]
async fn whoever_guesses_at_the_platform_is_not_listened_to_and_is_told_of() {
    if skipped("whoever_guesses_at_the_platform_is_not_listened_to_and_is_told_of") {
        return;
    }
    let dir = data_dir();
    let mut command = serve(dir.path());
    command.env("LINTEL__LIMITS__REFUSED_KEYS_PER_MINUTE", "6").env("LINTEL__INTRUSION__REFUSED", "4");
    let hub = Hub::from_command(command, dir.path());
    let (admin, owner) = (admin(&hub, "administrator"), hub.tenant("Acme"));
    let guess = Tenant { id: String::new(), authorization: wrong(&admin.authorization) };
    let status = async |caller: &Tenant, path| hub.call(caller, Method::GET, path, None).await.0;
    for _ in 0..4 {
        assert_eq!(status(&guess, "/v1/admin/tenants").await, StatusCode::UNAUTHORIZED);
    }
    // What is good elsewhere counts as what is good nowhere.
    assert_eq!(status(&owner, "/v1/admin/tenants").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&admin, "/v1/tenant").await, StatusCode::UNAUTHORIZED);
    for (caller, path) in [(&guess, "/v1/admin/tenants"), (&admin, "/v1/admin/tenants"), (&owner, "/v1/tenant")] {
        assert_eq!(status(caller, path).await, StatusCode::TOO_MANY_REQUESTS);
    }
    let begun = Instant::now();
    let told = |log: &str| log.lines().any(|line| line.contains("intrusion_signal") && line.contains(&admin.id));
    while !told(&std::fs::read_to_string(dir.path().join("hub.log")).unwrap()) {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody is told of a burst");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_platform_key_is_made_used_and_ended() {
    if skipped("a_platform_key_is_made_used_and_ended") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let made = hub.cli(&["admins", "create", "billing", "--role", "auditor", "--expires-in", "30"]);
    assert!(made["expires_at"].is_string(), "{made}");
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let key = Tenant { id: text("id"), authorization: format!("PlatformKey {}:{}", text("id"), text("secret")) };
    let second = admin(&hub, "administrator");
    let listed = || {
        let listed = hub.cli(&["admins", "list"])["admins"].clone();
        assert!(!listed.to_string().contains(&text("secret")), "a secret is listed");
        listed[0].clone()
    };
    assert_eq!(
        (&listed()["name"], &listed()["role"], &listed()["last_used_at"]),
        (&json!("billing"), &json!("auditor"), &Value::Null)
    );
    hub.get(&key, "/v1/admin/tenants").await;
    assert!(listed()["last_used_at"].is_string());
    let status = async |caller: &Tenant| hub.call(caller, Method::GET, "/v1/admin/tenants", None).await.0;
    // Its time is over.
    let mut database = hub.superuser().await;
    let end = "UPDATE platform_key SET expires_at = now() - interval '1 second' WHERE id = $1::uuid";
    sqlx::query(end).bind(&second.id).execute(&mut database).await.unwrap();
    assert_eq!(status(&second).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&key).await, StatusCode::OK);
    hub.cli(&["admins", "revoke", &key.id]);
    assert_eq!(status(&key).await, StatusCode::UNAUTHORIZED);
    assert!(listed()["revoked_at"].is_string());
    let log = std::fs::read_to_string(dir.path().join("hub.log")).unwrap();
    assert!(log.contains("platform_key_created") && log.contains("platform_key_revoked"));
    assert!(!log.contains(&text("secret")));
}

#[tokio::test]
async fn settings_are_changed_over_the_network_and_it_is_known_by_whom() {
    if skipped("settings_are_changed_over_the_network_and_it_is_known_by_whom") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let admin = admin(&hub, "administrator");
    let put = async |body| hub.call(&admin, Method::PUT, "/v1/admin/settings", Some(body)).await;
    let changes = json!({ "intrusion.probes": 50, "intrusion.people_share": 0.25 });
    let (status, dry) = put(json!({ "changes": changes, "dry_run": true })).await;
    assert_eq!((status, &dry["version"]), (StatusCode::OK, &json!(1)));
    assert_eq!(hub.get(&admin, "/v1/admin/settings").await["version"], 0);
    let (status, changed) = put(json!({ "changes": changes, "comment": "a test" })).await;
    assert_eq!((status, &changed["version"]), (StatusCode::OK, &json!(1)));
    hub.cli(&["config", "set", "--file-value", "intrusion.probes"]);
    assert_eq!(hub.get(&admin, "/v1/admin/settings").await, hub.cli(&["config", "live"]));
    let actor = format!("platform:{}", admin.id);
    let told = |version: &Value| (version["version"].as_i64().unwrap(), version["actor"].as_str().unwrap().to_owned());
    let expected = [(2, String::from("operator")), (1, actor)];
    let of_cli: Vec<_> = hub.cli(&["config", "history"])["versions"].as_array().unwrap().iter().map(told).collect();
    assert_eq!(of_cli, expected);
    // The same over the network, here one at a time.
    let first = hub.get(&admin, "/v1/admin/settings/history?limit=1").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = hub.get(&admin, &format!("/v1/admin/settings/history?limit=1&cursor={cursor}")).await;
    assert_eq!([told(&first["data"][0]), told(&second["data"][0])], expected);
    assert_eq!(second["next_cursor"], Value::Null);
    for wrong in [json!({ "intrusion.probes": 257 }), json!({ "server.listen": 5 })] {
        let (status, problem) = put(json!({ "changes": wrong })).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    }
    assert_eq!(hub.get(&admin, "/v1/admin/settings").await["version"], 2);
}

#[tokio::test]
async fn what_serves_a_gallery_is_shown_and_nothing_of_who_is_in_it() {
    if skipped_without_models("what_serves_a_gallery_is_shown_and_nothing_of_who_is_in_it") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let (auditor, acme) = (admin(&hub, "auditor"), hub.tenant("Acme"));
    hub.tenant("Other");
    assert_eq!(hub.get(&auditor, "/v1/admin/search-paths").await["data"], json!([]));
    let person = hub.person(&acme, "E-1").await;
    let picture = std::fs::read(demo_picture("obama.jpg")).unwrap();
    let form = || Form::new().part("photo", Part::bytes(picture.clone()).file_name("a.jpg"));
    let url = format!("{}/v1/people/{person}/enrolments", hub.https());
    // Models are opened after the hub is ready.
    let begun = Instant::now();
    loop {
        let request = hub.client().post(&url).header("authorization", &acme.authorization).multipart(form());
        let (status, answer) = read(request.send().await.unwrap()).await;
        if status == StatusCode::CREATED {
            break;
        }
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && begun.elapsed() < PATIENCE, "{answer}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let photograph = Form::new().part("image", Part::bytes(picture.clone()).file_name("a.jpg"));
    let request = hub.client().post(format!("{}/v1/recognition/identify", hub.https()));
    let request = request.header("authorization", &acme.authorization).multipart(photograph);
    assert_eq!(read(request.send().await.unwrap()).await.0, StatusCode::OK);
    let paths = hub.get(&auditor, "/v1/admin/search-paths").await;
    let [path] = paths["data"].as_array().unwrap().as_slice() else { panic!("{paths}") };
    assert_eq!((&path["tenant_id"], &path["path"], &path["templates"]), (&json!(acme.id), &json!("memory"), &json!(1)));
    assert_eq!((&path["index"], &path["vectors_whole"]), (&json!("none"), &json!(true)), "{path}");
    let held = &path["in_memory"];
    assert!(held["bytes"].as_u64().unwrap() > 0 && held["stamp"].as_i64().unwrap() > 0, "{path}");
    assert!(path["space_id"].is_string() && held["last_searched_at"].is_string(), "{path}");
    assert!(!paths.to_string().contains(&person), "nothing of who is in it");
}
