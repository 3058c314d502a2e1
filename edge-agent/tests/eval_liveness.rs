//! `edge-agent eval liveness` as it is run: a living person and pictures of people from the demonstration parts, the report
//! card of the collection where that is there, and what is said of useless lists and files.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod support;

use std::path::{Path, PathBuf};

use edge_agent::stages::perceive::{Perceiver, Percept};
use face_core::liveness::{Demand, LivenessPolicy, judge};
use face_core::quality::QualityGate;
use face_core::{Frame, MonoTime};
use image::{Rgb, RgbImage};
use serde_json::Value;
use support::{Parts, Site, text};

fn answer(site: &Site, list: &Path, root: &Path, more: &[&str]) -> Value {
    let arguments = ["eval", "liveness", "--list", list.to_str().unwrap(), "--root", root.to_str().unwrap()];
    site.json(&[&arguments[..], more].concat())
}

fn item<'a>(told: &'a Value, path: &str) -> &'a Value {
    told["items"].as_array().unwrap().iter().find(|item| item["path"] == path).unwrap()
}

#[test]
fn a_living_person_is_live_and_a_still_picture_never_is() {
    let Some(parts) = Parts::find("a_living_person_is_live_and_a_still_picture_never_is") else { return };
    let site = Site::new(&parts, "");
    // What a file is, its content says: the video has a picture's name, and the picture a video's.
    std::fs::copy(parts.demo("single_face.mp4"), site.path("person.jpg")).unwrap();
    std::fs::copy(parts.demo("obama.jpg"), site.path("picture.mp4")).unwrap();
    RgbImage::from_pixel(320, 240, Rgb([120, 118, 110])).save(site.path("wall.png")).unwrap();
    let list = site.path("list.csv");
    std::fs::write(&list, "path,label,species\nperson.jpg,live,\npicture.mp4,attack,print\nwall.png,attack,nobody\n")
        .unwrap();
    let told = answer(&site, &list, &site.path(""), &[]);
    let person = item(&told, "person.jpg");
    assert_eq!((person["decision"].as_str(), person["kind"].as_str()), (Some("live"), Some("video")), "{told}");
    assert!(person["score"].as_f64().unwrap() > 0.9, "{told}");
    assert!(person["after_ms"].as_u64().unwrap() < 2_000, "{told}");
    let picture = item(&told, "picture.mp4");
    assert_eq!(
        (picture["decision"].as_str(), picture["kind"].as_str()),
        (Some("insufficient"), Some("still")),
        "{told}"
    );
    assert_eq!(item(&told, "wall.png")["faces"], 0, "{told}");
    assert_eq!((told["bpcer"].as_f64(), told["worst_apcer"].as_f64()), (Some(0.0), Some(0.0)), "{told}");
    assert_eq!(told["species"]["print"]["n"], 1, "{told}");
    assert_eq!(told["species"]["print"]["apcer"], 0.0, "{told}");
    assert_eq!(told["species"]["print"]["apcer_at_most"], 1.0 - 0.05, "one picture proves little: {told}");
    let strict = answer(&site, &list, &site.path(""), &["--level", "strict"]);
    assert_ne!(item(&strict, "person.jpg")["decision"], "attack", "{strict}");
    let output =
        site.output(&["eval", "liveness", "--list", list.to_str().unwrap(), "--root", site.path("").to_str().unwrap()]);
    let table = text(&output.stdout);
    for part in ["worst APCER", "at most (95 %)", "arrival to live", "without it", "never available here"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn somebody_who_arrives_is_live_within_about_a_second() {
    let Some(parts) = Parts::find("somebody_who_arrives_is_live_within_about_a_second") else { return };
    let site = Site::new(&parts, "");
    let list = site.path("list.csv");
    std::fs::write(&list, "path,label,species\ncap12_edit.mp4,live,\n").unwrap();
    let told = answer(&site, &list, &parts.demo(""), &[]);
    let arrivals = &told["arrivals"];
    // 0.80 s, 1.40 s and 2.08 s of the media's own time when it was written: no clock of the machine is in it.
    assert!(arrivals["n"].as_u64().unwrap() > 90 && arrivals["n"] == arrivals["live"], "{arrivals}");
    assert!(arrivals["p50_ms"].as_u64().is_some_and(|millis| millis <= 900), "{arrivals}");
    assert!(arrivals["p90_ms"].as_u64().is_some_and(|millis| millis <= 1_700), "{arrivals}");
}

/// The photograph as a camera sees it that it is moved about and turned before.
fn panned(photograph: &RgbImage, time: f32, seed: u64) -> RgbImage {
    use std::f32::consts::TAU;
    let (width, height) = (photograph.width() as f32, photograph.height() as f32);
    let scale = (640.0 / width).min(480.0 / height) * (1.0 + 0.1 * (time * TAU / 3.0).sin());
    let (sin, cos) = (0.06 * (time * TAU / 4.0).sin()).sin_cos();
    let (dx, dy) = (35.0 * (time * TAU / 2.5).sin(), 15.0 * (time * TAU / 2.0).cos());
    let mut noise = seed * 2 + 1;
    RgbImage::from_fn(640, 480, |x, y| {
        let (u, v) = (x as f32 - 320.0 - dx, y as f32 - 240.0 - dy);
        let (x, y) = ((u * cos + v * sin) / scale + width / 2.0, (v * cos - u * sin) / scale + height / 2.0);
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let tremble = (noise >> 61) as u8;
        if x < 0.0 || y < 0.0 || x >= width || y >= height {
            return Rgb([70 + tremble; 3]);
        }
        let sampled = image::imageops::interpolate_bilinear(photograph, x, y).unwrap_or(Rgb([70; 3]));
        Rgb(sampled.0.map(|value| value.saturating_add(tremble)))
    })
}

#[test]
fn panned_photographs_are_never_live_at_any_moment() {
    let Some(parts) = Parts::find("panned_photographs_are_never_live_at_any_moment") else { return };
    let pack = parts.pack();
    for name in ["obama.jpg", "biden.jpg"] {
        let photograph = image::open(parts.demo(name)).unwrap().to_rgb8();
        let mut perceiver = Perceiver::new("front".into(), QualityGate::matching(), LivenessPolicy::default());
        let (mut judged, mut passive, mut refused) = (0, 0, 0);
        for index in 0..75u64 {
            let picture = panned(&photograph, index as f32 / 15.0, index);
            let image = face_core::RgbImage::from_vec(640, 480, picture.into_raw()).unwrap();
            let captured_at = MonoTime::from_millis(1_000 + index * 1_000 / 15);
            for percept in perceiver.look(&pack, &Frame { image, captured_at, sequence: index }).unwrap() {
                let Percept::Face(report) = percept else { continue };
                let verdict = judge(&report.liveness, &Demand::standard());
                assert!(!verdict.is_live(), "{name}, picture {index}: {:?}", report.liveness);
                judged += 1;
                passive += usize::from(judge(&report.liveness, &Demand::basic()).is_live());
                refused += usize::from(matches!(verdict, face_core::liveness::LivenessVerdict::Attack { .. }));
            }
        }
        assert!(judged > 60, "{name}: {judged} of 75");
        assert!(passive > 30 || refused > 0, "{name}: the passive model alone would have let it in {passive} times");
    }
}

/// Lists are read before the models are opened, so that this needs none.
#[test]
fn useless_lists_are_refused_by_file_line_and_remedy() {
    let site = Site::with_config("schema_version = 1\n");
    std::fs::write(site.path("x.jpg"), "not opened").unwrap();
    let (root, list) = (site.path(""), site.path("list.csv"));
    for (rows, problem, remedy) in [
        ("path,label\nx.jpg,live\n", "list.csv:1: the header is \"path,label\"", "path,label,species"),
        ("path,label,species\n", "list.csv:1: the list has no rows", "write one for each picture or video"),
        ("path,label,species\ngone.mp4,live,\n", "list.csv:2: gone.mp4 is not in", "--root"),
        ("path,label,species\nx.jpg,dead,\n", "list.csv:2: label is \"dead\"", "write live"),
        ("path,label,species\nx.jpg,attack,\n", "list.csv:2: species is empty", "species"),
    ] {
        std::fs::write(&list, rows).unwrap();
        let output =
            site.output(&["eval", "liveness", "--list", list.to_str().unwrap(), "--root", root.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{rows:?}");
        assert!(output.stdout.is_empty(), "{rows:?}");
        let told = text(&output.stderr);
        assert!(told.contains(problem) && told.contains(remedy), "{rows:?}: {told}");
    }
    assert_eq!(site.output(&["eval", "liveness", "--root", "."]).status.code(), Some(2));
}

#[test]
fn files_that_cannot_be_judged_are_named_with_what_to_do() {
    let Some(parts) = Parts::find("files_that_cannot_be_judged_are_named_with_what_to_do") else { return };
    let site = Site::new(&parts, "");
    std::fs::write(site.path("letter.mp4"), "Dear door, please open.").unwrap();
    let jpeg = std::fs::read(parts.demo("obama.jpg")).unwrap();
    std::fs::write(site.path("half.jpg"), &jpeg[..200]).unwrap();
    let video = std::fs::read(parts.demo("single_face.mp4")).unwrap();
    std::fs::write(site.path("half.mp4"), &video[..video.len() / 2]).unwrap();
    let (root, list) = (site.path(""), site.path("list.csv"));
    for (name, problem) in [
        ("letter.mp4", "is no video that can be decoded"),
        ("half.jpg", "the picture cannot be decoded"),
        ("half.mp4", "half.mp4: is "),
    ] {
        std::fs::write(&list, format!("path,label,species\n{name},live,\n")).unwrap();
        let output =
            site.output(&["eval", "liveness", "--list", list.to_str().unwrap(), "--root", root.to_str().unwrap()]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {told}");
        assert!(told.contains(name) && told.contains(problem), "{name}: {told}");
        assert!(!told.contains("panicked"), "{name}: {told}");
    }
}

/// The collection for measuring, or none after saying that the test is skipped.
fn collection(test: &str) -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let clips = std::env::var_os("LINTEL_TEST_DATA").map_or_else(default, PathBuf::from).join("liveness");
    if clips.is_dir() {
        return Some(clips);
    }
    eprintln!("SKIPPED {test}: needs data: {} is missing, set LINTEL_TEST_DATA", clips.display());
    None
}

#[test]
fn the_report_card_of_the_collection_holds_what_was_promised() {
    let test = "the_report_card_of_the_collection_holds_what_was_promised";
    let (Some(parts), Some(clips)) = (Parts::find(test), collection(test)) else { return };
    let told = answer(&Site::new(&parts, ""), &clips.join("list.csv"), &clips, &[]);
    assert_eq!((told["n_live"].as_u64(), told["n_attack"].as_u64()), (Some(4), Some(8)), "{told}");
    assert_eq!(told["worst_apcer"], 0.0, "no attack is live: {told}");
    assert_eq!(told["arrivals"]["attack_live"], 0, "nor one that arrives at any other moment: {told}");
    assert!(told["live_videos"]["live"].as_u64().unwrap() >= 2, "{told}");
    assert_eq!((told["bpcer"].as_f64(), told["live_videos"]["attack"].as_u64()), (Some(0.0), Some(0)), "{told}");
    assert!(told["attacks"]["attack"].as_u64().unwrap() >= 5, "{told}");
    assert_ne!(item(&told, "live/still-1.jpg")["decision"], "live", "{told}");
}
