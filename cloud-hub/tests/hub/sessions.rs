//! Sessions over the API with the real models: enrolment, verification and identification, and what a session's token opens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloud_hub::api::access::{Audience, ROUTES};
use futures::future::join_all;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Executor as _;

use super::process::{Hub, Tenant, data_dir, demo_picture, read, skipped_without_models};

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(demo_picture(name)).unwrap()
}

fn in_base64(name: &str) -> String {
    STANDARD.encode(picture(name))
}

/// A session, and what a kiosk has of it.
struct Kiosk<'a> {
    hub: &'a Hub,
    id: String,
    token: String,
    opened: Value,
}

async fn open<'a>(hub: &'a Hub, tenant: &Tenant, what: &str, body: Value) -> Kiosk<'a> {
    let (status, opened) = hub.call(tenant, Method::POST, &format!("/v1/sessions/{what}"), Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{opened}");
    let text = |pointer: &str| opened.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    Kiosk { hub, id: text("/session/id"), token: text("/token"), opened }
}

/// Asks with a token and nothing else.
async fn with_token(hub: &Hub, token: &str, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let url = format!("{}{path}", hub.https());
    let mut sent = hub.client().request(method, url).header("x-session-token", token);
    if let Some(body) = body {
        sent = sent.json(&body);
    }
    read(sent.send().await.unwrap()).await
}

impl Kiosk<'_> {
    async fn ask(&self, method: Method, rest: &str, body: Option<Value>) -> (StatusCode, Value) {
        with_token(self.hub, &self.token, method, &format!("/v1/sessions/{}{rest}", self.id), body).await
    }

    async fn show(&self, names: &[&str]) -> Value {
        let images: Vec<String> = names.iter().map(|name| in_base64(name)).collect();
        let (status, state) = self.ask(Method::POST, "/frames", Some(json!({ "images": images }))).await;
        assert_eq!(status, StatusCode::OK, "{state}");
        state
    }

    async fn complete(&self) -> Value {
        let (status, state) = self.ask(Method::POST, "/complete", None).await;
        assert_eq!(status, StatusCode::OK, "{state}");
        state
    }
}

fn accepted(state: &Value) -> Vec<bool> {
    state["frames"].as_array().unwrap().iter().map(|frame| frame["accepted"].as_bool().unwrap()).collect()
}

async fn enrolled(hub: &Hub, tenant: &Tenant, name: &str, photographs: &[&str]) -> String {
    let person = hub.person(tenant, name).await;
    let kiosk = open(hub, tenant, "enrolment", json!({ "person_id": person })).await;
    kiosk.show(photographs).await;
    let done = kiosk.complete().await;
    assert_eq!(done["session"]["state"], "completed", "{done}");
    person
}

async fn count(hub: &Hub, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(&mut hub.superuser().await).await.unwrap()
}

#[tokio::test]
async fn frames_become_a_template_and_nothing_of_them_stays() {
    if skipped_without_models("frames_become_a_template_and_nothing_of_them_stays") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let acme = hub.tenant("Acme");
    hub.site(&acme).await;
    let (person, twin) = (hub.person(&acme, "E-1").await, hub.person(&acme, "E-2").await);
    let kiosk = open(&hub, &acme, "enrolment", json!({ "person_id": person })).await;
    let opened = &kiosk.opened["session"];
    assert_eq!((&opened["state"], &opened["person_id"]), (&json!("initialized"), &json!(person)), "{opened}");
    let (status, early) = kiosk.ask(Method::POST, "/complete", None).await;
    assert_eq!((status, &early["code"]), (StatusCode::CONFLICT, &json!("conflict")), "{early}");

    // One by one and several together; each is told whether it is good enough.
    assert_eq!(accepted(&kiosk.show(&["obama.jpg"]).await), [true]);
    let form = ["obama2.jpg", "biden.jpg"]
        .iter()
        .fold(Form::new(), |form, name| form.part("image", Part::bytes(picture(name))));
    let form = form.part("image", Part::bytes(b"not a picture".to_vec()));
    let url = format!("{}/v1/sessions/{}/frames", hub.https(), kiosk.id);
    let sent = hub.client().post(url).header("x-session-token", &kiosk.token).multipart(form).send().await.unwrap();
    let (status, state) = read(sent).await;
    assert_eq!((status, accepted(&state)), (StatusCode::OK, vec![true, true, false, false]), "{state}");
    assert_eq!(state["frames"][2]["reasons"], json!(["photos_differ"]), "{state}");
    assert_eq!(state["frames"][3]["reasons"], json!(["photo_unreadable"]), "{state}");
    assert_eq!(state["session"]["state"], "processing");
    // What is held is sealed: the two accepted ones, of which no two are alike.
    assert_eq!(count(&hub, "SELECT count(*) FROM session_frame WHERE sealed IS NOT NULL").await, 2);
    for (body, code, pointer) in [
        (json!({}), "missing_field", "/images"),
        (json!({ "images": [] }), "missing_field", "/images"),
        (json!({ "images": ["%%"] }), "invalid_field", "/images/0"),
        (json!({ "images": 7 }), "invalid_field", "/images"),
        (json!({ "images": [in_base64("obama.jpg")], "colour": 1 }), "unknown_field", "/colour"),
        (json!({ "images": [in_base64("obama.jpg")], "interval_ms": 5 }), "invalid_field", "/interval_ms"),
    ] {
        let (status, problem) = kiosk.ask(Method::POST, "/frames", Some(body)).await;
        assert_eq!((status.as_u16(), &problem["code"]), (422, &json!(code)), "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let done = kiosk.complete().await;
    assert_eq!((&done["session"]["state"], &done["frames"]), (&json!("completed"), &json!([])), "{done}");
    let shown = hub.get(&acme, &format!("/v1/people/{person}")).await;
    assert_eq!(shown["templates"][0]["id"], done["session"]["template_id"], "{shown}");
    assert_eq!(count(&hub, "SELECT count(*) FROM session_frame").await, 0);

    // Somebody who is there already: the kiosk is not told who that is, whoever has a key is.
    for by_kiosk in [true, false] {
        let again = open(&hub, &acme, "enrolment", json!({ "person_id": twin })).await;
        again.show(&["obama3.jpg"]).await;
        let path = format!("/v1/sessions/{}/complete", again.id);
        let failed = if by_kiosk { again.complete().await } else { hub.call(&acme, Method::POST, &path, None).await.1 };
        assert_eq!(failed["session"]["state"], "failed", "{failed}");
        assert_eq!(failed["session"]["why"]["code"], "duplicate_person", "{failed}");
        assert_eq!(failed.to_string().contains(&person), !by_kiosk, "{failed}");
    }
    let allowed = open(&hub, &acme, "enrolment", json!({ "person_id": twin, "allow_duplicate": true })).await;
    allowed.show(&["obama3.jpg"]).await;
    assert_eq!(allowed.complete().await["session"]["state"], "completed");

    // Whoever is deleted takes their open sessions with them.
    let open_one = open(&hub, &acme, "enrolment", json!({ "person_id": twin })).await;
    open_one.show(&["obama.jpg"]).await;
    assert_eq!(hub.call(&acme, Method::DELETE, &format!("/v1/people/{twin}"), None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(count(&hub, "SELECT count(*) FROM session_frame").await, 0);
    let gone = hub.get(&acme, &format!("/v1/sessions/{}", open_one.id)).await;
    assert_eq!(gone["session"]["state"], "cancelled", "{gone}");
    let listed = hub.get(&acme, "/v1/sessions?limit=2").await;
    assert_eq!((listed["data"].as_array().unwrap().len(), listed["next_cursor"].is_string()), (2, true), "{listed}");
    let entries = "SELECT count(*) FROM audit_entry WHERE action = 'session.end' AND actor LIKE 'session:%'";
    assert!(count(&hub, entries).await >= 3);
}

#[tokio::test]
async fn who_it_is_is_asked_after_whether_they_live() {
    if skipped_without_models("who_it_is_is_asked_after_whether_they_live") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (acme, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    hub.site(&acme).await;
    let obama = enrolled(&hub, &acme, "o", &["obama.jpg", "obama3.jpg"]).await;
    let verify = |more: Value| {
        let mut body = json!({ "kind": "verification", "person_id": obama });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let still = json!({ "require_liveness": false });
    let kiosk = open(&hub, &acme, "authentication", verify(still.clone())).await;
    assert!(kiosk.opened["challenge"].is_null(), "{}", kiosk.opened);
    kiosk.show(&["obama2.jpg"]).await;
    let done = kiosk.complete().await;
    let result = &done["session"]["result"];
    assert_eq!((&done["session"]["state"], &result["matched"]), (&json!("completed"), &json!(true)), "{done}");
    assert_eq!((&result["person_id"], &result["far"]), (&json!(obama), &json!("1e-4")), "{done}");
    assert!(result["score"].as_f64() > result["threshold"].as_f64() && done["session"]["why"].is_null(), "{done}");

    // Somebody else has as many attempts as the session has, and is told why not.
    let kiosk =
        open(&hub, &acme, "authentication", verify(json!({ "require_liveness": false, "max_attempts": 2 }))).await;
    for (attempt, state) in [(1, "processing"), (2, "failed")] {
        kiosk.show(&["biden.jpg"]).await;
        let refused = kiosk.complete().await;
        let (session, why) = (&refused["session"], &refused["session"]["why"]);
        assert_eq!((&session["state"], &session["attempts"]), (&json!(state), &json!(attempt)), "{refused}");
        assert_eq!((&why["stage"], &why["code"]), (&json!("identify"), &json!("unknown")), "{refused}");
        assert!(why["score"].as_f64() < why["threshold"].as_f64() && why["hint"].is_string(), "{refused}");
        assert_eq!(session["result"]["matched"], false);
    }
    assert_eq!(kiosk.ask(Method::GET, "", None).await.0, StatusCode::UNAUTHORIZED, "it has ended");

    for (tenant, state, person) in [(&acme, "completed", json!(obama)), (&other, "failed", json!(null))] {
        let body = json!({ "kind": "identification", "require_liveness": false, "max_attempts": 1 });
        let kiosk = open(&hub, tenant, "authentication", body).await;
        // Nobody can be two people: the second face is not the first one's.
        assert_eq!(accepted(&kiosk.show(&["obama2.jpg", "biden.jpg"]).await), [true, false]);
        let done = kiosk.complete().await;
        assert_eq!(done["session"]["state"], state, "{done}");
        assert_eq!(done["session"]["result"]["person_id"], person, "{done}");
    }

    // Photographs do not live, however alike, and nobody is looked for in them.
    let kiosk = open(&hub, &acme, "authentication", verify(json!({}))).await;
    let challenge = &kiosk.opened["challenge"];
    assert!(challenge["movement"].is_string() && challenge["nonce"].is_string(), "{challenge}");
    assert_eq!((&challenge["step"], &challenge["steps"]), (&json!(1), &json!(3)));
    kiosk.show(&["obama2.jpg", "obama.jpg"]).await;
    let undecided = kiosk.complete().await;
    assert_eq!(undecided["undecided"]["code"], "liveness_undecided", "{undecided}");
    let session = &undecided["session"];
    assert_eq!((&session["state"], &session["attempts"]), (&json!("processing"), &json!(0)), "{undecided}");
    assert!(session["result"].is_null(), "{undecided}");
    // One picture again and again is an attack, whatever is said to be an answer.
    let nonce = challenge["nonce"].clone();
    let body = json!({ "images": vec![in_base64("obama2.jpg"); 10], "nonce": nonce, "interval_ms": 50 });
    let (status, state) = kiosk.ask(Method::POST, "/frames", Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{state}");
    let attack = kiosk.complete().await;
    assert_eq!(attack["session"]["why"]["stage"], "liveness", "{attack}");
    assert_eq!(attack["session"]["why"]["code"], "liveness_failed", "{attack}");
    assert_eq!(attack["session"]["attempts"], 1, "{attack}");
    assert!(attack["session"]["result"]["score"].is_null(), "{attack}");
    assert_ne!(attack["challenge"]["nonce"], nonce, "the next attempt has other movements");
    let leaked = attack.to_string();
    assert!(!leaked.contains("seed") && !leaked.contains("embedding"), "{leaked}");
    for (body, pointer) in [
        (json!({ "kind": "verification" }), "/person_id"),
        (json!({ "kind": "identification", "person_id": obama }), "/person_id"),
        (json!({ "kind": "enrolment", "person_id": obama }), "/kind"),
        (verify(json!({ "max_attempts": 6 })), "/max_attempts"),
        (verify(json!({ "colour": 6 })), "/colour"),
    ] {
        let (status, problem) = hub.call(&acme, Method::POST, "/v1/sessions/authentication", Some(body)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let (status, _) = hub.call(&other, Method::POST, "/v1/sessions/authentication", Some(verify(still))).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "another tenant's person");
}

#[tokio::test]
async fn a_token_opens_its_session_and_nothing_else() {
    if super::process::skipped("a_token_opens_its_session_and_nothing_else") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (acme, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    let body = || json!({ "kind": "identification" });
    let (mine, second) =
        (open(&hub, &acme, "authentication", body()).await, open(&hub, &acme, "authentication", body()).await);
    let foreign = open(&hub, &other, "authentication", body()).await;
    let at = |id: &str| format!("/v1/sessions/{id}");
    assert_eq!(mine.ask(Method::GET, "", None).await.0, StatusCode::OK);

    // Another session, of the same tenant or of another one, and whatever else there is: not there.
    for path in [at(&second.id), at(&foreign.id), at(&uuid::Uuid::nil().to_string()), at("x")] {
        let (status, problem) = with_token(&hub, &mine.token, Method::GET, &path, None).await;
        assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{path}: {problem}");
    }
    for (method, pattern, audience) in ROUTES {
        let (Audience::Key(_) | Audience::User) = audience else { continue };
        let path = pattern.replace("{id}", &mine.id).replace("{anchor}", &mine.id);
        let method: Method = method.parse().unwrap();
        let (status, problem) = with_token(&hub, &mine.token, method, &path, Some(json!({}))).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{pattern}: {problem}");
    }
    // Mutated: of another tenant, of another session, another secret, another spelling; and none at all.
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&mine.token).unwrap();
    let mutated = |from: usize, with: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[from..from + with.len()].copy_from_slice(with);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    };
    let others: Vec<u8> = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&foreign.token).unwrap();
    let seconds: Vec<u8> = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&second.token).unwrap();
    for (what, token) in [
        ("another tenant's", mutated(0, &others[..16])),
        ("another session's", mutated(16, &seconds[16..32])),
        ("another secret", mutated(63, &[bytes[63] ^ 1])),
        ("another's secret", mutated(32, &seconds[32..])),
        ("longer", format!("{}AA", mine.token)),
        ("padded", format!("{}==", mine.token)),
        ("cut", mine.token[..80].to_owned()),
        ("empty", String::new()),
        ("its id", mine.id.clone()),
    ] {
        for id in [&mine.id, &foreign.id] {
            let (status, problem) = with_token(&hub, &token, Method::GET, &at(id), None).await;
            assert_eq!((status, &problem["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")), "{what}");
        }
    }
    // Two ways to say who asks are one too many; a token is no key.
    let url = format!("{}{}", hub.https(), at(&mine.id));
    let both =
        hub.client().get(&url).header("x-session-token", &mine.token).header("authorization", &acme.authorization);
    assert_eq!(read(both.send().await.unwrap()).await.0, StatusCode::BAD_REQUEST);
    let twice = hub.client().get(&url).header("x-session-token", &mine.token).header("x-session-token", &mine.token);
    assert_eq!(read(twice.send().await.unwrap()).await.0, StatusCode::BAD_REQUEST);
    let as_key = hub.client().get(&url).header("authorization", format!("Bearer {}", mine.token));
    assert_eq!(read(as_key.send().await.unwrap()).await.0, StatusCode::UNAUTHORIZED);

    // It ends with its session: cancelled, or when the time is over, whether or not the job was there.
    let (status, ended) = mine.ask(Method::DELETE, "", None).await;
    assert_eq!((status, &ended["session"]["state"]), (StatusCode::OK, &json!("cancelled")), "{ended}");
    assert_eq!(mine.ask(Method::GET, "", None).await.0, StatusCode::UNAUTHORIZED);
    let (status, problem) = hub.call(&acme, Method::DELETE, &at(&mine.id), None).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("conflict")), "{problem}");
    let mut superuser = hub.superuser().await;
    // Without its note the job does not come.
    superuser.execute("DELETE FROM route_due WHERE kind = 'session'").await.unwrap();
    superuser.execute("UPDATE session SET expires_at = now() - interval '1 ms' WHERE ended_at IS NULL").await.unwrap();
    assert_eq!(second.ask(Method::GET, "", None).await.0, StatusCode::UNAUTHORIZED);
    let shown = hub.get(&acme, &at(&second.id)).await;
    assert_eq!(
        (&shown["session"]["state"], &shown["session"]["ended_at"]),
        (&json!("expired"), &json!(null)),
        "{shown}"
    );
    let (status, problem) = hub.call(&acme, Method::DELETE, &at(&second.id), None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    superuser
        .execute("INSERT INTO route_due SELECT 'session', tenant_id, now() FROM session GROUP BY tenant_id")
        .await
        .unwrap();
    let mut written = Value::Null;
    for _ in 0..100 {
        written = hub.get(&acme, &at(&second.id)).await;
        if written["session"]["ended_at"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(written["session"]["state"], "expired", "{written}");
    assert!(written["session"]["ended_at"].is_string(), "the job was not there: {written}");
}

#[tokio::test]
async fn so_many_are_open_and_for_so_long_as_was_agreed() {
    if super::process::skipped("so_many_are_open_and_for_so_long_as_was_agreed") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let acme = hub.tenant("Acme");
    let path = "/v1/tenant/sessions";
    assert_eq!(hub.get(&acme, path).await, json!({ "authentication_s": 120, "enrolment_s": 900 }));
    for (short, long) in [(29, 900), (601, 900), (120, 59), (120, 3_601)] {
        let body = json!({ "authentication_s": short, "enrolment_s": long });
        let (status, problem) = hub.call(&acme, Method::PUT, path, Some(body)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    }
    let body = json!({ "authentication_s": 30, "enrolment_s": 60 });
    assert_eq!(hub.call(&acme, Method::PUT, path, Some(body.clone())).await, (StatusCode::OK, body));
    let wanted = || json!({ "kind": "identification" });
    let kiosk = open(&hub, &acme, "authentication", wanted()).await;
    let moment = |name: &str| {
        let text = kiosk.opened["session"][name].as_str().unwrap();
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap()
    };
    assert_eq!((moment("expires_at") - moment("created_at")).whole_seconds(), 30);

    hub.cli(&["tenants", "set", &acme.id, "--quota", "sessions=5"]);
    let opened =
        join_all((0..12).map(|_| hub.call(&acme, Method::POST, "/v1/sessions/authentication", Some(wanted()))));
    let opened = opened.await;
    let made = opened.iter().filter(|(status, _)| *status == StatusCode::CREATED).count();
    assert_eq!(made, 4, "one was open already");
    let (_, refused) = opened.iter().find(|(status, _)| *status != StatusCode::CREATED).unwrap();
    assert_eq!(refused["code"], "quota_reached", "{refused}");
    assert_eq!(hub.get(&acme, "/v1/tenant").await["usage"]["sessions"], json!({ "used": 5, "quota": 5 }));
    // What ended makes room.
    assert_eq!(kiosk.ask(Method::DELETE, "", None).await.0, StatusCode::OK);
    open(&hub, &acme, "authentication", wanted()).await;
}
