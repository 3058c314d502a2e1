//! Recognition over the API with the real models: faces, decisions, and why not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, RgbImage};
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

fn blank() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let grey = RgbImage::from_pixel(640, 480, image::Rgb([90, 120, 150]));
    DynamicImage::ImageRgb8(grey).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

async fn ask(hub: &Hub, tenant: &Tenant, what: &str, body: Value) -> (StatusCode, Value) {
    hub.call(tenant, Method::POST, &format!("/v1/recognition/{what}"), Some(body)).await
}

async fn answer(hub: &Hub, tenant: &Tenant, what: &str, body: Value) -> Value {
    let (status, answer) = ask(hub, tenant, what, body).await;
    assert_eq!(status, StatusCode::OK, "{what}: {answer}");
    answer
}

async fn form(hub: &Hub, tenant: &Tenant, what: &str, parts: &[(&'static str, Vec<u8>)]) -> (StatusCode, Value) {
    let form = parts.iter().fold(Form::new(), |form, (name, bytes)| form.part(*name, Part::bytes(bytes.clone())));
    let url = format!("{}/v1/recognition/{what}", hub.https());
    read(hub.client().post(url).header("authorization", &tenant.authorization).multipart(form).send().await.unwrap())
        .await
}

/// A person who is enrolled by one photograph.
async fn enrolled(hub: &Hub, tenant: &Tenant, name: &str, photograph: &str) -> String {
    let person = hub.person(tenant, name).await;
    let form = Form::new().part("photo", Part::bytes(picture(photograph)));
    let url = format!("{}/v1/people/{person}/enrolments", hub.https());
    let request = hub.client().post(url).header("authorization", &tenant.authorization).multipart(form);
    let (status, answer) = read(request.send().await.unwrap()).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    person
}

#[tokio::test]
async fn who_it_is_and_whether_it_is_them_and_why_not() {
    if skipped_without_models("who_it_is_and_whether_it_is_them_and_why_not") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (acme, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    let site = hub.site(&acme).await;
    let obama = enrolled(&hub, &acme, "o", "obama.jpg").await;
    let probe = json!({ "image": in_base64("obama2.jpg"), "candidates": 3 });

    let known = answer(&hub, &acme, "identify", probe.clone()).await;
    assert_eq!((&known["decision"], &known["person_id"]), (&json!("known"), &json!(obama)), "{known}");
    assert!(known["score"].as_f64() > known["threshold"].as_f64() && known["why"].is_null(), "{known}");
    assert_eq!(
        (&known["far"], &known["compared"], &known["candidates"][0]["person_id"]),
        (&json!("1e-4"), &json!(1), &json!(obama))
    );
    // Another tenant knows nobody, and there is nobody whom it could ask about.
    let unknown = answer(&hub, &other, "identify", probe.clone()).await;
    assert_eq!((&unknown["decision"], &unknown["compared"]), (&json!("unknown"), &json!(0)), "{unknown}");
    assert!(unknown["person_id"].is_null() && unknown["candidates"] == json!([]), "{unknown}");
    let body = json!({ "image": in_base64("obama2.jpg"), "person_id": obama });
    let (status, problem) = ask(&hub, &other, "verify", body.clone()).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));

    let verified = answer(&hub, &acme, "verify", body).await;
    assert_eq!((&verified["verified"], &verified["why"]), (&json!(true), &json!(null)), "{verified}");
    let wrong = json!({ "image": in_base64("biden.jpg"), "person_id": obama });
    let refused = answer(&hub, &acme, "verify", wrong).await;
    assert_eq!(refused["verified"], false);
    let why = &refused["why"];
    assert_eq!((&why["stage"], &why["code"]), (&json!("identify"), &json!("unknown")), "{refused}");
    assert!(why["score"].as_f64() < why["threshold"].as_f64() && why["hint"].is_string(), "{refused}");
    let stranger = answer(&hub, &acme, "identify", json!({ "image": in_base64("biden.jpg") })).await;
    assert_eq!((&stranger["decision"], &stranger["candidates"]), (&json!("unknown"), &json!([])), "{stranger}");

    // By template as by photograph, and as a form.
    let template = answer(&hub, &acme, "embed", json!({ "image": in_base64("obama2.jpg") })).await;
    let given =
        json!({ "space_id": template["space_id"], "vector": template["vector"], "quality": template["quality"] });
    let again = answer(&hub, &acme, "identify", json!({ "template": given })).await;
    assert_eq!((&again["decision"], &again["person_id"]), (&json!("known"), &json!(obama)), "{again}");
    assert!((again["score"].as_f64().unwrap() - known["score"].as_f64().unwrap()).abs() < 1e-3, "{again} {known}");
    let parts = [("image", picture("obama2.jpg")), ("options", json!({ "person_id": obama }).to_string().into_bytes())];
    let (status, verified) = form(&hub, &acme, "verify", &parts).await;
    assert_eq!((status, &verified["verified"]), (StatusCode::OK, &json!(true)), "{verified}");

    // A tenant that does not mind a stranger now and then.
    let policy = hub.get(&acme, "/v1/tenant/recognition").await;
    assert_eq!(policy["far"], "1e-4");
    let (status, problem) = hub.call(&acme, Method::PUT, "/v1/tenant/recognition", Some(json!({ "far": "0.3" }))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    let rate = |choice: &&Value| choice.as_str().unwrap().parse::<f64>().unwrap();
    let choices = policy["choices"].as_array().unwrap();
    let laxest = choices.iter().max_by(|a, b| rate(a).total_cmp(&rate(b))).unwrap().clone();
    let (status, laxer) = hub.call(&acme, Method::PUT, "/v1/tenant/recognition", Some(json!({ "far": laxest }))).await;
    assert_eq!(status, StatusCode::OK, "{laxer}");
    let known = answer(&hub, &acme, "identify", probe.clone()).await;
    assert_eq!(known["far"], laxest);
    assert!(known["threshold"].as_f64() < again["threshold"].as_f64(), "{known}");

    // Searches are narrowed to whom they are meant for.
    let everybody = json!({ "template": given, "site_id": site });
    let found = answer(&hub, &acme, "search", everybody).await;
    assert_eq!(found["candidates"][0]["person_id"], json!(obama), "{found}");
    let nobody = json!({ "template": given, "person_ids": [uuid::Uuid::nil()] });
    assert_eq!(answer(&hub, &acme, "search", nobody).await["candidates"], json!([]));
    let far = json!({ "template": given, "min_score": 0.999 });
    assert_eq!(answer(&hub, &acme, "search", far).await["candidates"], json!([]));

    // Whoever was deleted is nobody from the answer on.
    assert_eq!(hub.call(&acme, Method::DELETE, &format!("/v1/people/{obama}"), None).await.0, StatusCode::NO_CONTENT);
    let gone = answer(&hub, &acme, "identify", probe).await;
    assert_eq!((&gone["decision"], &gone["compared"]), (&json!("unknown"), &json!(0)), "{gone}");
}

#[tokio::test]
async fn a_gallery_without_room_in_memory_gives_the_same_answers() {
    if skipped_without_models("a_gallery_without_room_in_memory_gives_the_same_answers") {
        return;
    }
    let dir = data_dir();
    let mut command = super::process::serve(dir.path());
    command.env("LINTEL__RECOGNITION__GALLERIES_MIB", "0");
    let hub = Hub::from_command(command, dir.path());
    let tenant = hub.tenant("Acme");
    let site = hub.site(&tenant).await;
    let obama = enrolled(&hub, &tenant, "o", "obama.jpg").await;
    let biden = enrolled(&hub, &tenant, "b", "biden.jpg").await;
    let probe = json!({ "image": in_base64("obama2.jpg"), "candidates": 3 });
    let known = answer(&hub, &tenant, "identify", probe.clone()).await;
    assert_eq!((&known["decision"], &known["person_id"]), (&json!("known"), &json!(obama)), "{known}");
    assert_eq!((&known["compared"], known["candidates"].as_array().unwrap().len()), (&json!(2), 2), "{known}");
    assert!(known["margin"].as_f64() > Some(0.1), "{known}");
    let verified =
        answer(&hub, &tenant, "verify", json!({ "image": in_base64("obama2.jpg"), "person_id": obama })).await;
    assert_eq!((&verified["verified"], &verified["score"]), (&json!(true), &known["score"]), "{verified}");
    let wrong = answer(&hub, &tenant, "verify", json!({ "image": in_base64("obama2.jpg"), "person_id": biden })).await;
    assert_eq!((&wrong["verified"], &wrong["why"]["code"]), (&json!(false), &json!("unknown")), "{wrong}");
    for (narrowed, found) in [
        (json!({ "site_id": site }), &obama),
        (json!({ "person_ids": [biden] }), &biden),
        (json!({ "site_id": site, "person_ids": [biden] }), &biden),
    ] {
        let mut body = narrowed;
        body["image"] = json!(in_base64("obama2.jpg"));
        let searched = answer(&hub, &tenant, "search", body).await;
        assert_eq!((&searched["candidates"][0]["person_id"], &searched["compared"]), (&json!(found), &json!(2)));
    }
    // Whoever was deleted is nobody from the answer on.
    assert_eq!(hub.call(&tenant, Method::DELETE, &format!("/v1/people/{obama}"), None).await.0, StatusCode::NO_CONTENT);
    let gone = answer(&hub, &tenant, "identify", probe).await;
    assert_eq!((&gone["decision"], &gone["compared"]), (&json!("unknown"), &json!(1)), "{gone}");
}

#[tokio::test]
async fn what_is_on_a_photograph_and_what_cannot_be_compared() {
    if skipped_without_models("what_is_on_a_photograph_and_what_cannot_be_compared") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let acme = hub.tenant("Acme");
    let seen = answer(&hub, &acme, "detect", json!({ "image": in_base64("obama.jpg") })).await;
    assert_eq!((&seen["count"], seen["faces"].as_array().unwrap().len()), (&json!(1), 1), "{seen}");
    assert!(seen["faces"][0]["box"]["width"].as_f64().unwrap() > 50.0, "{seen}");
    let none = answer(&hub, &acme, "detect", json!({ "image": STANDARD.encode(blank()) })).await;
    assert_eq!((&none["count"], &none["faces"]), (&json!(0), &json!([])));
    let quality = answer(&hub, &acme, "quality", json!({ "image": in_base64("obama.jpg") })).await;
    assert_eq!((&quality["enrolment"]["accepted"], &quality["matching"]["accepted"]), (&json!(true), &json!(true)));
    for metric in ["overall", "sharpness", "brightness", "pose", "visibility", "size"] {
        let value = quality["face"]["quality"][metric].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&value), "{metric}: {quality}");
    }
    // A still photograph never proves that somebody lives.
    let life = answer(&hub, &acme, "liveness", json!({ "image": in_base64("obama.jpg") })).await;
    assert!(life["decision"] == "insufficient" || life["decision"] == "attack", "{life}");
    assert_eq!(life["why"]["stage"], "liveness", "{life}");
    let both = json!({ "image": in_base64("obama.jpg"), "other_image": in_base64("obama2.jpg") });
    let same = answer(&hub, &acme, "compare", both).await;
    assert_eq!((&same["same"], &same["why"]), (&json!(true), &json!(null)), "{same}");
    let parts = [("image", picture("obama.jpg")), ("other_image", picture("biden.jpg"))];
    let (_, differ) = form(&hub, &acme, "compare", &parts).await;
    assert_eq!((&differ["same"], &differ["why"]["code"]), (&json!(false), &json!("unknown")), "{differ}");

    let unit = |value: f32| {
        let mut raw = vec![0_u8; 2_048];
        raw[..4].copy_from_slice(&value.to_le_bytes());
        STANDARD.encode(raw)
    };
    let space = answer(&hub, &acme, "embed", json!({ "image": in_base64("obama.jpg") })).await["space_id"].clone();
    let template = |vector: String| json!({ "template": { "space_id": space, "vector": vector } });
    answer(&hub, &acme, "identify", template(unit(1.0))).await;
    for (what, body, code, pointer) in [
        ("identify", json!({ "image": STANDARD.encode(blank()) }), "no_face", "/image"),
        ("identify", json!({ "image": STANDARD.encode(b"not a picture") }), "photo_unreadable", "/image"),
        ("identify", json!({ "image": STANDARD.encode(&picture("obama.jpg")[..2_000]) }), "photo_unreadable", "/image"),
        ("identify", json!({ "image": "%%%" }), "invalid_field", "/image"),
        ("identify", json!({ "image": 7 }), "invalid_field", "/image"),
        ("identify", json!({}), "missing_field", "/image"),
        (
            "identify",
            json!({ "image": in_base64("obama.jpg"), "template": { "space_id": space, "vector": unit(1.0) } }),
            "invalid_field",
            "/template",
        ),
        (
            "identify",
            json!({ "template": { "space_id": "another", "vector": unit(1.0) } }),
            "invalid_field",
            "/template/space_id",
        ),
        ("identify", template(unit(0.5)), "invalid_field", "/template/vector"),
        ("identify", template(unit(f32::NAN)), "invalid_field", "/template/vector"),
        ("identify", template(STANDARD.encode([0_u8; 12])), "invalid_field", "/template/vector"),
        (
            "identify",
            json!({ "candidates": 101, "template": { "space_id": space, "vector": unit(1.0) } }),
            "invalid_field",
            "/candidates",
        ),
        (
            "search",
            json!({ "limit": 0, "template": { "space_id": space, "vector": unit(1.0) } }),
            "invalid_field",
            "/limit",
        ),
        (
            "search",
            json!({ "min_score": 2, "template": { "space_id": space, "vector": unit(1.0) } }),
            "invalid_field",
            "/min_score",
        ),
        ("verify", template(unit(1.0)), "missing_field", "/person_id"),
        ("detect", json!({ "image": in_base64("obama.jpg"), "colour": 1 }), "unknown_field", "/colour"),
    ] {
        let (status, problem) = ask(&hub, &acme, what, body).await;
        assert_eq!((status.as_u16(), &problem["code"]), (422, &json!(code)), "{what} {pointer}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{what}: {problem}");
    }
    let (status, problem) = form(&hub, &acme, "detect", &[("picture", picture("obama.jpg"))]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("unknown_field")), "{problem}");
    // Every use is in the audit, with its decision and without a vector.
    let mut superuser = hub.superuser().await;
    let uses: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_entry WHERE action LIKE 'recognition.%'")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert!(uses >= 8, "{uses}");
    // What cannot be noted is not answered.
    superuser.execute("REVOKE INSERT ON audit_entry FROM lintel_app").await.unwrap();
    let (status, problem) = ask(&hub, &acme, "identify", template(unit(1.0))).await;
    assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")), "{problem}");
    superuser.execute("GRANT INSERT ON audit_entry TO lintel_app").await.unwrap();
    answer(&hub, &acme, "identify", template(unit(1.0))).await;
    // A tenant without the feature is told so.
    hub.cli(&["tenants", "set", &acme.id, "--feature", "recognition=off"]);
    let (status, problem) = ask(&hub, &acme, "detect", json!({ "image": in_base64("obama.jpg") })).await;
    assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("feature_off")));
}
