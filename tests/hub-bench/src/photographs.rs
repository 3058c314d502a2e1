//! Photographs: one of 640×480 searched for, three of one person enrolled.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use face_core::LivenessModel as _;
use face_core::quality::QualityGate;
use face_runtime::{ModelPack, PackOptions, PhotoLimits, Runtime, Task};
use image::ImageFormat;
use image::imageops::{FilterType, replace, resize};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use system_tests::bench::percentile;
use system_tests::launcher::cpu_time;
use tokio::time::Instant;

use crate::load;
use crate::rig::{Asking, Rig, answer};

/// Wanted of the 95th percentile of an identification, in milliseconds.
const IDENTIFY_MS: f64 = 500.0;
/// Of the processor's time outside decoding, what must be ONNX Runtime's.
const ONNX_SHARE: f64 = 0.85;
/// Wanted of the 95th percentile of an enrolment of three photographs, in milliseconds.
const ENROL_MS: f64 = 2_000.0;
/// Enrolments; each needs the person before to be gone, since one face is one person.
const ENROLMENTS: usize = 20;
/// Photographs looked at by the models alone.
const BARE: usize = 40;

pub(crate) async fn measure(rig: &Rig, lasting: Duration) -> Result<Map<String, Value>> {
    let asking = rig.tenant("Photographs")?;
    let frame = Arc::new(at_a_door(&std::fs::read(rig.places.demo_file("obama.jpg"))?)?);
    let person = enrolled(&asking, std::slice::from_ref(&frame)).await?;
    let ask = {
        let (asking, frame) = (asking.clone(), Arc::clone(&frame));
        move |_| {
            let (asking, frame, person) = (asking.clone(), Arc::clone(&frame), person.clone());
            async move {
                let photograph = reqwest::multipart::Part::bytes(frame.to_vec()).file_name("frame.jpg");
                let form = reqwest::multipart::Form::new().part("image", photograph);
                let request = asking.request(Method::POST, "/v1/recognition/identify").multipart(form);
                let told = answer(request, StatusCode::OK).await?;
                ensure!(told["person_id"].as_str() == Some(&person), "the man in the picture was looked for: {told}");
                Ok(())
            }
        }
    };
    ask(0).await?;
    let bare = Bare::measure(rig, &frame)?;
    let cpu = rig.hub_cpu()?;
    let identify = load::closed(1, lasting, ask).await?;
    let cpu = (rig.hub_cpu()? - cpu).as_secs_f64() * 1e3 / identify.count() as f64;
    let onnx_share = bare.onnx_cpu_ms / (cpu - bare.decoding_ms);
    let portrait = std::fs::read(rig.places.demo_file("biden.jpg"))?;
    let mut three = vec![Arc::new(portrait.clone())];
    for share in [0.95, 0.9] {
        three.push(Arc::new(smaller(&portrait, share)?));
    }
    let (mut times, began) = (Vec::new(), Instant::now());
    while times.len() < ENROLMENTS {
        let made = Instant::now();
        let person = enrolled(&asking, &three).await?;
        times.push(made.elapsed().as_secs_f64() * 1e3);
        let gone = asking.request(Method::DELETE, &format!("/v1/people/{person}")).send().await?;
        ensure!(gone.status().is_success(), "the person could not be deleted: {}", gone.status());
    }
    let enrol = load::Load::of(times, began.elapsed())?;
    let (p50, p95) = (enrol.percentile(50), enrol.percentile(95));
    let floor = 3.0 * bare.enrol_onnx_ms;
    Ok(Map::from_iter([
        (
            "identify_jpeg".to_owned(),
            json!({
                "ok": identify.percentile(95) < IDENTIFY_MS && onnx_share >= ONNX_SHARE,
                "p95_ms": identify.percentile(95), "goal_ms": IDENTIFY_MS, "onnx_share": onnx_share, "goal_onnx_share": ONNX_SHARE,
                "ratio": identify.percentile(50) / bare.onnx_ms, "hub_cpu_ms": cpu, "onnx_ms": bare.onnx_ms, "onnx_cpu_ms": bare.onnx_cpu_ms,
                "decoding_ms": bare.decoding_ms, "load": identify.told(),
            }),
        ),
        (
            "enrol_three".to_owned(),
            json!({
                "ok": p95 < ENROL_MS, "p95_ms": p95, "goal_ms": ENROL_MS, "ratio": p50 / floor, "onnx_ms": floor,
                "load": enrol.told(),
            }),
        ),
    ]))
}

/// A person made of these photographs.
async fn enrolled(asking: &Asking, photographs: &[Arc<Vec<u8>>]) -> Result<String> {
    let made = asking
        .request(Method::POST, "/v1/people")
        .json(&json!({ "external_id": uuid::Uuid::new_v4(), "name": "Somebody" }));
    let made = answer(made, StatusCode::CREATED).await?;
    let id = made["id"].as_str().context("no id in the person")?.to_owned();
    let mut form = reqwest::multipart::Form::new();
    for (number, bytes) in photographs.iter().enumerate() {
        let part = reqwest::multipart::Part::bytes(bytes.to_vec()).file_name(format!("photo-{number}"));
        form = form.part("photo", part);
    }
    let enrolment = asking.request(Method::POST, &format!("/v1/people/{id}/enrolments")).multipart(form);
    let told = answer(enrolment, StatusCode::CREATED).await?;
    let accepted =
        told["photographs"].as_array().map_or(0, |all| all.iter().filter(|one| one["accepted"] == true).count());
    ensure!(accepted == photographs.len(), "{accepted} of {} photographs were accepted: {told}", photographs.len());
    Ok(id)
}

/// A portrait in the middle of a grey frame of 640×480, as a door camera gives it.
fn at_a_door(portrait: &[u8]) -> Result<Vec<u8>> {
    let portrait = image::load_from_memory(portrait)?.to_rgb8();
    let height = 480;
    let width = (portrait.width() * height / portrait.height()).min(640);
    let portrait = resize(&portrait, width, height, FilterType::Triangle);
    let mut frame = image::RgbImage::from_pixel(640, 480, image::Rgb([110; 3]));
    replace(&mut frame, &portrait, i64::from((640 - width) / 2), 0);
    let mut bytes = Cursor::new(Vec::new());
    frame.write_to(&mut bytes, ImageFormat::Jpeg)?;
    Ok(bytes.into_inner())
}

/// The same portrait with fewer pixels: another photograph of one who sat still.
fn smaller(portrait: &[u8], share: f32) -> Result<Vec<u8>> {
    let portrait = image::load_from_memory(portrait)?.to_rgb8();
    let [width, height] = [portrait.width(), portrait.height()].map(|pixels| (pixels as f32 * share) as u32);
    let mut bytes = Cursor::new(Vec::new());
    resize(&portrait, width, height, FilterType::Triangle).write_to(&mut bytes, ImageFormat::Jpeg)?;
    Ok(bytes.into_inner())
}

/// The same work with nothing around it, in this process and with the hub's own number of threads: medians of a photograph's
/// decoding, and of the time within ONNX Runtime.
struct Bare {
    decoding_ms: f64,
    /// Of an identification: who it is, and whether it is plainly an attack.
    onnx_ms: f64,
    /// The same in time of all processors: the hub's sessions have several threads.
    onnx_cpu_ms: f64,
    /// Of an enrolment, which does not ask that.
    enrol_onnx_ms: f64,
}

impl Bare {
    fn measure(rig: &Rig, photograph: &[u8]) -> Result<Self> {
        let runtime = Runtime::load(&rig.places.parts.join("onnxruntime/libonnxruntime.so"))?;
        let manifest = rig.places.repository.join("models/faceplugin/manifest.toml");
        let weights = rig.places.parts.join("models/faceplugin");
        let models = cloud_hub::config::load(None, [])?.models;
        let options =
            PackOptions { sessions: models.sessions, intra_threads: models.intra_threads, ..PackOptions::default() };
        let pack = ModelPack::open(&runtime, &manifest, &weights, &options)?;
        let (mut decoding, mut whole, mut enrol) = (Vec::new(), Vec::new(), Vec::new());
        let (mut around, cpu) = (Duration::ZERO, cpu_time(std::process::id())?);
        for _ in 0..BARE {
            let began = Instant::now();
            let image = face_runtime::decode_photo(photograph, &PhotoLimits::default())?;
            decoding.push(began.elapsed().as_secs_f64() * 1e3);
            let before = within(&pack);
            let enrolled = face_runtime::enrol_photograph(&pack, &image, &QualityGate::matching())
                .map_err(|error| anyhow::anyhow!("the photograph was refused: {error}"))?;
            let between = within(&pack);
            std::hint::black_box(pack.live_scores(&image, &enrolled.examined.face)?);
            whole.push((within(&pack) - before).as_secs_f64() * 1e3);
            enrol.push((between - before).as_secs_f64() * 1e3);
            around += began.elapsed() - (within(&pack) - before);
        }
        // What is around ONNX Runtime has one thread.
        let onnx_cpu = (cpu_time(std::process::id())? - cpu).saturating_sub(around);
        let median = |times: &[f64]| percentile(times, 50).expect("there were some");
        Ok(Self {
            decoding_ms: median(&decoding),
            onnx_ms: median(&whole),
            onnx_cpu_ms: onnx_cpu.as_secs_f64() * 1e3 / BARE as f64,
            enrol_onnx_ms: median(&enrol),
        })
    }
}

/// Time within ONNX Runtime so far.
fn within(pack: &ModelPack) -> Duration {
    Task::ALL.iter().map(|task| pack.usage(*task).running).sum()
}
