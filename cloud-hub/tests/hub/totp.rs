//! Second factors over the API: set up, asked for, lost, and demanded by a tenant of everybody.

use cloud_hub::api::access::{Audience, ROUTES};
use data_encoding::BASE32_NOPAD;
use reqwest::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::login::{PASSWORD, bearer, log_in, post, user, words};
use super::process::{Hub, Tenant, data_dir, read, skipped};

/// What an app shows, so many steps from now.
fn code(secret: &str, steps: i64) -> String {
    let secret = BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let step = OffsetDateTime::now_utc().unix_timestamp() / 30 + steps;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret), &step.to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let word = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", word % 1_000_000)
}

async fn with_code(hub: &Hub, tenant: &Tenant, login: &str, code: &str) -> (StatusCode, Value) {
    let mut body = words(tenant, login, PASSWORD);
    body["code"] = json!(code);
    post(hub, "/v1/login", body).await
}

/// Sets up a second factor; its secret and its recovery codes.
async fn set_up(hub: &Hub, who: &Tenant) -> (String, Vec<String>) {
    let (status, begun) = hub.call(who, Method::POST, "/v1/me/totp", Some(json!({ "password": PASSWORD }))).await;
    assert_eq!(status, StatusCode::OK, "{begun}");
    let secret = begun["secret"].as_str().unwrap().to_owned();
    assert!(begun["uri"].as_str().unwrap().contains(&format!("secret={secret}")), "{begun}");
    let confirm =
        async |code: String| hub.call(who, Method::POST, "/v1/me/totp/confirm", Some(json!({ "code": code }))).await;
    assert_eq!(confirm(code(&secret, 7)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, codes) = confirm(code(&secret, 0)).await;
    assert_eq!(status, StatusCode::OK, "{codes}");
    let codes = codes["recovery_codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned());
    (secret, codes.collect())
}

#[tokio::test]
async fn a_log_in_takes_a_code_once_there_is_a_second_factor() {
    if skipped("a_log_in_takes_a_code_once_there_is_a_second_factor") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let id = user(&hub, &tenant, "ada", "operator").await;
    let (one, other) = (log_in(&hub, &tenant, "ada").await, log_in(&hub, &tenant, "ada").await);
    let ada = bearer(&tenant, &one);
    // A log-in that somebody came by sets none up for its owner.
    let (status, problem) =
        hub.call(&ada, Method::POST, "/v1/me/totp", Some(json!({ "password": "something else!" }))).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("/password")));
    let (secret, recovery) = set_up(&hub, &ada).await;
    assert_eq!(recovery.len(), 10);
    // What was made without it ends; this one goes on.
    let me = hub.get(&ada, "/v1/me").await;
    assert_eq!((&me["recovery_codes_left"], &me["user"]["totp"]), (&json!(10), &json!(true)));
    assert_eq!(hub.call(&bearer(&tenant, &other), Method::GET, "/v1/me", None).await.0, StatusCode::UNAUTHORIZED);
    let (status, problem) = hub.call(&ada, Method::POST, "/v1/me/totp", Some(json!({ "password": PASSWORD }))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    // The password alone is told what is missing; a wrong password is told nothing of it.
    let (status, problem) = post(&hub, "/v1/login", words(&tenant, "ada", PASSWORD)).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("totp_required")));
    let (_, problem) = post(&hub, "/v1/login", words(&tenant, "ada", "something else!")).await;
    assert_eq!(problem["code"], "unauthorized");
    let next = code(&secret, 1);
    assert_eq!(with_code(&hub, &tenant, "ada", &next).await.0, StatusCode::OK);
    let (status, problem) = with_code(&hub, &tenant, "ada", &next).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("totp_required")));
    assert_eq!(with_code(&hub, &tenant, "ada", &recovery[0]).await.0, StatusCode::OK);
    assert_eq!(with_code(&hub, &tenant, "ada", &recovery[0]).await.1["code"], "totp_required");
    // Lost: somebody who may takes it off, and what she held ends.
    let path = format!("/v1/users/{id}/totp");
    assert_eq!(hub.call(&ada, Method::DELETE, &path, None).await.0, StatusCode::FORBIDDEN);
    assert_eq!(hub.call(&tenant, Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(hub.call(&tenant, Method::DELETE, &path, None).await.0, StatusCode::CONFLICT);
    assert_eq!(hub.call(&ada, Method::GET, "/v1/me", None).await.0, StatusCode::UNAUTHORIZED);
    let again = bearer(&tenant, &log_in(&hub, &tenant, "ada").await);
    let (_, recovery) = set_up(&hub, &again).await;
    let body = |code: &str| json!({ "password": PASSWORD, "code": code });
    let remove = async |code: &str| hub.call(&again, Method::DELETE, "/v1/me/totp", Some(body(code))).await.0;
    assert_eq!(remove("000 00").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(remove(&recovery[9]).await, StatusCode::NO_CONTENT);
    log_in(&hub, &tenant, "ada").await;
    // Neither secrets nor codes are in the database or the log as they are.
    let log = std::fs::read_to_string(dir.path().join("hub.log")).unwrap();
    assert!(!log.contains(&secret) && recovery.iter().all(|code| !log.contains(code)));
    let mut database = hub.superuser().await;
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_entry WHERE action = 'user.totp_off'")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(users, 2);
}

#[tokio::test]
async fn who_must_set_up_a_second_factor_can_do_nothing_else() {
    if skipped("who_must_set_up_a_second_factor_can_do_nothing_else") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    user(&hub, &tenant, "ada", "owner").await;
    user(&hub, &tenant, "bob", "owner").await;
    let ada = bearer(&tenant, &log_in(&hub, &tenant, "ada").await);
    let policy = async |required: bool| {
        hub.call(&tenant, Method::PUT, "/v1/tenant/login", Some(json!({ "require_totp": required }))).await
    };
    assert_eq!(policy(true).await, (StatusCode::OK, json!({ "require_totp": true })));
    assert_eq!(hub.get(&tenant, "/v1/tenant/login").await["require_totp"], true, "keys are not touched");
    // Whoever is in already, and whoever comes.
    let bobs = log_in(&hub, &tenant, "bob").await;
    assert_eq!(bobs["totp_setup_required"], true);
    let bob = bearer(&tenant, &bobs);
    for who in [&ada, &bob] {
        let me = hub.get(who, "/v1/me").await;
        assert_eq!((&me["totp_setup_required"], &me["permissions"]), (&json!(true), &json!([])));
    }
    let nil = uuid::Uuid::nil().to_string();
    let mut refused = 0;
    for (method, pattern, audience) in ROUTES {
        if !matches!(audience, Audience::Key(_) | Audience::User) {
            continue;
        }
        let path = pattern.replace("{id}", &nil).replace("{anchor}", &nil).replace("{command}", &nil);
        let request = hub.client().request(method.parse().unwrap(), format!("{}{path}", hub.https()));
        let answer = request.header("authorization", &ada.authorization).send().await.unwrap();
        let (status, problem) = read(answer).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}");
        assert_eq!(problem["code"], "totp_setup_required", "{method} {path}");
        refused += 1;
    }
    assert!(refused > 60, "{refused}");
    let other = hub.tenant("Neighbour");
    let stranger = Tenant { id: other.id.clone(), authorization: ada.authorization.clone() };
    assert_eq!(hub.call(&stranger, Method::GET, "/v1/people", None).await.0, StatusCode::FORBIDDEN);
    // Set up, all of it is hers again, and the next log-in takes a code.
    let (_, recovery) = set_up(&hub, &ada).await;
    assert_eq!(hub.call(&ada, Method::GET, "/v1/people", None).await.0, StatusCode::OK);
    let (status, granted) = with_code(&hub, &tenant, "ada", &recovery[1]).await;
    assert_eq!((status, &granted["totp_setup_required"]), (StatusCode::OK, &json!(false)));
    assert_eq!(hub.call(&bob, Method::GET, "/v1/people", None).await.0, StatusCode::FORBIDDEN);
    assert_eq!(policy(false).await.0, StatusCode::OK);
    assert_eq!(hub.call(&bob, Method::GET, "/v1/people", None).await.0, StatusCode::OK);
}
