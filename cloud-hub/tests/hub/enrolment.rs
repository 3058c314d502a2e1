//! Enrolment by photographs, with the real models: what is accepted, and what is refused with which reason.

use image::{DynamicImage, RgbImage};
use reqwest::StatusCode;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::process::{Hub, Tenant, data_dir, demo_picture, read, skipped_without_models};

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(demo_picture(name)).unwrap()
}

fn open(name: &str) -> RgbImage {
    image::load_from_memory(&picture(name)).unwrap().to_rgb8()
}

fn jpeg(picture: RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// Two people in one picture, side by side.
fn two_faces() -> Vec<u8> {
    let scaled = |name| image::imageops::resize(&open(name), 400, 500, image::imageops::FilterType::Triangle);
    let mut both = RgbImage::new(800, 500);
    image::imageops::replace(&mut both, &scaled("obama.jpg"), 0, 0);
    image::imageops::replace(&mut both, &scaled("biden.jpg"), 400, 0);
    jpeg(both)
}

/// The same person from far away.
fn small_face() -> Vec<u8> {
    let face = image::imageops::resize(&open("obama.jpg"), 130, 160, image::imageops::FilterType::Triangle);
    let mut far = RgbImage::from_pixel(320, 240, image::Rgb([128, 128, 128]));
    image::imageops::replace(&mut far, &face, 95, 40);
    jpeg(far)
}

async fn enrol(
    hub: &Hub,
    tenant: &Tenant,
    person: &str,
    query: &str,
    photographs: Vec<Vec<u8>>,
) -> (StatusCode, Value) {
    let form =
        photographs.into_iter().fold(Form::new(), |form, bytes| form.part("photo", Part::bytes(bytes).file_name("p")));
    send(hub, tenant, person, query, form).await
}

async fn send(hub: &Hub, tenant: &Tenant, person: &str, query: &str, form: Form) -> (StatusCode, Value) {
    let url = format!("{}/v1/people/{person}/enrolments{query}", hub.https());
    let request = hub.client().post(url).header("authorization", &tenant.authorization).multipart(form);
    read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn photographs_become_a_template_or_reasons() {
    if skipped_without_models("photographs_become_a_template_or_reasons") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    hub.site(&tenant).await;
    let person = hub.person(&tenant, "E-1").await;

    for (what, photograph, code) in [
        ("garbage", b"not a picture".to_vec(), "photo_unreadable"),
        ("nothing", Vec::new(), "photo_unreadable"),
        ("a truncated picture", picture("obama.jpg")[..2_000].to_vec(), "photo_unreadable"),
        ("no face", jpeg(RgbImage::from_pixel(640, 480, image::Rgb([90, 120, 150]))), "no_face"),
        ("two faces", two_faces(), "several_faces"),
        ("a small face", small_face(), "face_too_small"),
    ] {
        let (status, problem) = enrol(&hub, &tenant, &person, "", vec![photograph]).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{what}: {problem}");
        assert_eq!(problem["code"], code, "{what}: {problem}");
        let fate = &problem["photographs"][0];
        assert_eq!((&fate["index"], &fate["accepted"]), (&json!(0), &json!(false)), "{what}");
        assert!(fate["reasons"].as_array().unwrap().contains(&json!(code)), "{what}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"], "/photo/0", "{what}");
    }
    assert_eq!(hub.get(&tenant, &format!("/v1/people/{person}")).await["templates"], json!([]));

    // One bad photograph among good ones is told and left out.
    let photographs = vec![picture("obama.jpg"), b"not a picture".to_vec(), picture("obama2.jpg")];
    let (status, enrolled) = enrol(&hub, &tenant, &person, "", photographs).await;
    assert_eq!(status, StatusCode::CREATED, "{enrolled}");
    let accepted: Vec<bool> =
        enrolled["photographs"].as_array().unwrap().iter().map(|one| one["accepted"].as_bool().unwrap()).collect();
    assert_eq!(accepted, [true, false, true]);
    assert!(enrolled["template"]["quality"].as_f64().unwrap() > 0.0);
    let shown = hub.get(&tenant, &format!("/v1/people/{person}")).await;
    assert_eq!(shown["templates"][0]["id"], enrolled["template"]["id"]);
    // Several templates of one person are kept side by side.
    let (status, again) = enrol(&hub, &tenant, &person, "", vec![picture("obama3.jpg")]).await;
    assert_eq!(status, StatusCode::CREATED, "{again}");
    assert_eq!(hub.get(&tenant, &format!("/v1/people/{person}")).await["templates"].as_array().unwrap().len(), 2);
    // No vector leaves the hub.
    assert!(!shown.to_string().contains("embedding") && !enrolled.to_string().contains("embedding"));

    let (status, problem) = enrol(&hub, &tenant, &person, "", vec![picture("obama.jpg"), picture("biden.jpg")]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("photos_differ")), "{problem}");
}

#[tokio::test]
async fn a_person_who_is_there_already_is_found() {
    if skipped_without_models("a_person_who_is_there_already_is_found") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let (tenant, other) = (hub.tenant("Acme"), hub.tenant("Other"));
    for tenant in [&tenant, &other] {
        hub.site(tenant).await;
    }
    let (first, second) = (hub.person(&tenant, "E-1").await, hub.person(&tenant, "E-2").await);
    assert_eq!(enrol(&hub, &tenant, &first, "", vec![picture("obama.jpg")]).await.0, StatusCode::CREATED);
    let (status, problem) = enrol(&hub, &tenant, &second, "", vec![picture("obama2.jpg")]).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("duplicate_person")), "{problem}");
    assert_eq!(problem["duplicate"]["person"], json!(first));
    assert!(problem["duplicate"]["score"].as_f64() >= problem["duplicate"]["threshold"].as_f64());
    assert_eq!(problem["duplicate"]["compared"], 1);
    let threshold = problem["duplicate"]["threshold"].as_f64().unwrap();
    assert!((threshold - 0.442).abs() < 1e-6, "of the manifest, for one comparison: {threshold}");
    assert!(problem["detail"].as_str().unwrap().contains("allow_duplicate=true"), "what to do: {problem}");
    // Another face is no duplicate; the same one is none in another tenant, nor when it is meant.
    let elsewhere = hub.person(&other, "E-1").await;
    assert_eq!(enrol(&hub, &other, &elsewhere, "", vec![picture("obama2.jpg")]).await.0, StatusCode::CREATED);
    assert_eq!(enrol(&hub, &tenant, &second, "", vec![picture("biden.jpg")]).await.0, StatusCode::CREATED);
    let third = hub.person(&tenant, "E-3").await;
    let meant = enrol(&hub, &tenant, &third, "?allow_duplicate=true", vec![picture("obama3.jpg")]).await;
    assert_eq!(meant.0, StatusCode::CREATED, "{}", meant.1);
    assert_eq!(meant.1["duplicate_allowed"]["person"], json!(first));
    let threshold = meant.1["duplicate_allowed"]["threshold"].as_f64().unwrap();
    assert!((threshold - 0.47).abs() < 1e-6, "two people are there by now: {threshold}");
    // Once deleted, a person is no duplicate of anybody.
    for id in [&first, &third] {
        let (status, _) = hub.call(&tenant, reqwest::Method::DELETE, &format!("/v1/people/{id}"), None).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    let fourth = hub.person(&tenant, "E-4").await;
    assert_eq!(enrol(&hub, &tenant, &fourth, "", vec![picture("obama.jpg")]).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn somebody_else_becomes_a_negative_anchor_and_the_person_themselves_does_not() {
    if skipped_without_models("somebody_else_becomes_a_negative_anchor_and_the_person_themselves_does_not") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    hub.site(&tenant).await;
    let person = hub.person(&tenant, "E-1").await;
    assert_eq!(enrol(&hub, &tenant, &person, "", vec![picture("obama.jpg")]).await.0, StatusCode::CREATED);
    let path = format!("/v1/people/{person}/negative-anchors");
    let post = async |query: &str, form: Form| {
        let url = format!("{}{path}{query}", hub.https());
        let request = hub.client().post(url).header("authorization", &tenant.authorization).multipart(form);
        read(request.send().await.unwrap()).await
    };
    let of = |name: &str| Form::new().part("photo", Part::bytes(picture(name)).file_name("p"));
    assert_eq!(hub.get(&tenant, &path).await["data"], json!([]));
    let (status, made) = post("", of("biden.jpg")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert!(made["score"].as_f64().unwrap() < 0.442, "{made}");
    assert!(!made.to_string().contains("embedding"));
    // The person's own picture would keep them out.
    let (status, problem) = post("", of("obama.jpg")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("anchor_is_person")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("confirm=true"), "{problem}");
    assert!(problem["resemblance"]["score"].as_f64() >= problem["resemblance"]["threshold"].as_f64());
    let (status, confirmed) = post("?confirm=true", of("obama.jpg")).await;
    assert_eq!(status, StatusCode::CREATED, "{confirmed}");
    for (what, query, form, status, code) in [
        ("two pictures", "", of("biden.jpg").part("photo", Part::bytes(vec![1])), 422, "invalid_field"),
        ("no face", "", Form::new().part("photo", Part::bytes(jpeg(RgbImage::new(640, 480)))), 422, "no_face"),
        ("an unknown parameter", "?force=true", of("biden.jpg"), 400, "invalid_request"),
    ] {
        let (found, problem) = post(query, form).await;
        assert_eq!((found.as_u16(), &problem["code"]), (status, &json!(code)), "{what}: {problem}");
    }
    let nobody = uuid::Uuid::new_v4();
    let (status, _) =
        hub.call(&tenant, reqwest::Method::GET, &format!("/v1/people/{nobody}/negative-anchors"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    // The command line does the same.
    let id = |text: &str| text.to_owned();
    let line = |rest: &[&str]| {
        let (tenant, person) = (id(&tenant.id), id(&person));
        let mut all = vec!["negative-anchors", rest[0], "--tenant", &tenant, "--person", &person];
        all.extend(&rest[1..]);
        hub.cli(&all)
    };
    let listed = line(&["list"]);
    assert_eq!(listed["negative_anchors"].as_array().unwrap().len(), 2, "{listed}");
    let file = demo_picture("biden.jpg");
    let added = line(&["add", file.to_str().unwrap()]);
    assert_eq!(added["person"], json!(person));
    line(&["remove", added["id"].as_str().unwrap()]);
    line(&["remove", confirmed["id"].as_str().unwrap()]);
    let (status, _) =
        hub.call(&tenant, reqwest::Method::DELETE, &format!("{path}/{}", made["id"].as_str().unwrap()), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(line(&["list"])["negative_anchors"], json!([]));
}

#[tokio::test]
async fn forms_have_limits() {
    if skipped_without_models("forms_have_limits") {
        return;
    }
    let dir = data_dir();
    let mut command = super::process::serve(dir.path());
    command.env("LINTEL__ENROLMENT__MAX_PHOTOS", "2").env("LINTEL__ENROLMENT__MAX_PHOTO_BYTES", "100000");
    let hub = Hub::from_command(command, dir.path());
    let tenant = hub.tenant("Acme");
    let person = hub.person(&tenant, "E-1").await;
    let bytes = |n| Part::bytes(vec![0; n]).file_name("p");
    for (what, form, status, code) in [
        ("another field", Form::new().part("picture", bytes(10)), 422, "unknown_field"),
        (
            "three photographs",
            Form::new().part("photo", bytes(1)).part("photo", bytes(1)).part("photo", bytes(1)),
            413,
            "payload_too_large",
        ),
        ("a large photograph", Form::new().part("photo", bytes(100_001)), 413, "payload_too_large"),
    ] {
        let (found, problem) = send(&hub, &tenant, &person, "", form).await;
        assert_eq!((found.as_u16(), &problem["code"]), (status, &json!(code)), "{what}: {problem}");
    }
    let raw = |kind: &'static str, body: &'static str| {
        let request = hub.client().post(format!("{}/v1/people/{person}/enrolments", hub.https()));
        request.header("authorization", &tenant.authorization).header("content-type", kind).body(body).send()
    };
    for (kind, body, code) in [
        ("multipart/form-data; boundary=b", "--b--\r\n", "missing_field"),
        ("multipart/form-data; boundary=b", "--b\r\nrubbish", "invalid_request"),
        ("multipart/form-data", "", "unsupported_media_type"),
        ("application/json", "{}", "unsupported_media_type"),
    ] {
        let (status, problem) = read(raw(kind, body).await.unwrap()).await;
        assert!(status.is_client_error(), "{problem}");
        assert_eq!(problem["code"], code, "{kind}: {problem}");
    }
}

#[tokio::test]
async fn a_full_queue_is_told_at_once() {
    if skipped_without_models("a_full_queue_is_told_at_once") {
        return;
    }
    let dir = data_dir();
    let mut command = super::process::serve(dir.path());
    command.env("LINTEL__ENROLMENT__WORKERS", "1").env("LINTEL__ENROLMENT__QUEUE", "0");
    let hub = Hub::from_command(command, dir.path());
    let tenant = hub.tenant("Acme");
    let person = hub.person(&tenant, "E-1").await;
    // The only place is taken by a form that does not end.
    let (chunks, body) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let url = format!("{}/v1/people/{person}/enrolments", hub.https());
    let held = hub
        .client()
        .post(url)
        .header("authorization", &tenant.authorization)
        .header("content-type", "multipart/form-data; boundary=b")
        .body(reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(body)));
    let held = tokio::spawn(held.send());
    let head = b"--b\r\ncontent-disposition: form-data; name=\"photo\"\r\n\r\nx".to_vec();
    chunks.send(Ok(head)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let form = Form::new().part("photo", Part::bytes(picture("obama.jpg")));
    let url = format!("{}/v1/people/{person}/enrolments", hub.https());
    let refused =
        hub.client().post(url).header("authorization", &tenant.authorization).multipart(form).send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "2");
    let (status, problem) = read(refused).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("unavailable")), "{problem}");
    // The place is given back when the first client goes away.
    drop(chunks);
    held.abort();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let (status, answer) = enrol(&hub, &tenant, &person, "", vec![picture("obama.jpg")]).await;
        if status == StatusCode::CREATED {
            break;
        }
        assert!(std::time::Instant::now() < until, "{answer}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_models_enrolment_alone_is_refused() {
    if super::process::skipped("without_models_enrolment_alone_is_refused") {
        return;
    }
    let dir = data_dir();
    let mut command = super::process::serve(dir.path());
    command.env("LINTEL__MODELS__MANIFEST", "/nonexistent/manifest.toml");
    let hub = Hub::from_command(command, dir.path());
    let tenant = hub.tenant("Acme");
    let person = hub.person(&tenant, "E-1").await;
    let (status, problem) = enrol(&hub, &tenant, &person, "", vec![b"x".to_vec()]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("models_unavailable")), "{problem}");
    let health = hub.client().get(format!("{}/health/detailed/", hub.https())).send().await.unwrap();
    let (status, health) = read(health).await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &json!("warn")), "{health}");
    let log = std::fs::read_to_string(dir.path().join("hub.log")).unwrap();
    assert!(log.contains("models_unavailable") && log.contains("/nonexistent/manifest.toml"));
}
