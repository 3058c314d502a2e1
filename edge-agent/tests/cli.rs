//! The command line of the built program: exit codes, messages that name the thing, data on standard output.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod support;

use std::path::PathBuf;

use image::{Rgb, RgbImage};
use support::{Parts, Site, text};

const DOOR: &str = "[[camera]]\nid = \"front\"\nsource = \"test\"\n[[door]]\nid = \"main\"\ncamera = \"front\"\n";

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let site = Site::with_config(&format!("schema_version = 1\n{DOOR}"));
    let output = site.output(&["config", "check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "the configuration is good: 1 camera(s), 1 door(s)\n");
    let shown = site.json(&["config", "show"]);
    assert_eq!(shown["door"][0]["hold"], "3s");
}

#[test]
fn configuration_errors_name_file_line_and_remedy_and_exit_with_4() {
    let cases = [
        (
            "[[door]]\nid = \"main\"\ncamera = \"front\"\nhodl = \"3s\"\n",
            "config.toml:5: unknown key door[main].hodl; did you mean hold?",
        ),
        ("[log]\nlevel = \"chatty\"\n", "config.toml:3: log.level: \"chatty\" is not a log level"),
        (
            "[[camera]]\nid = \"a\"\nsource = \"file\"\npath = \"/nowhere/clip.mp4\"\n",
            "camera a: file /nowhere/clip.mp4",
        ),
        ("[[camera]\n", "config.toml:2: not valid TOML"),
    ];
    for (rest, expected) in cases {
        let site = Site::with_config(&format!("schema_version = 1\n{rest}"));
        for command in [&["config", "check"][..], &["run"], &["outbox", "status"], &["doctor"]] {
            let output = site.output(command);
            assert_eq!(output.status.code(), Some(4), "{command:?} {rest}");
            let told = text(&output.stderr) + &text(&output.stdout);
            assert!(told.contains(expected), "{command:?}: expected {expected:?} in {told}");
        }
    }
}

#[test]
fn a_configuration_that_is_not_there_exits_with_4() {
    let site = Site::with_config("");
    std::fs::remove_file(site.path("config.toml")).unwrap();
    let output = site.output(&["config", "check"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("cannot be read"), "{}", text(&output.stderr));
}

#[test]
fn status_without_an_agent_exits_with_3() {
    let site = Site::with_config("schema_version = 1\n");
    let run = site.path("run");
    for command in [["outbox", "status"], ["gallery", "status"]] {
        let output = site.command(&command).env("LINTEL__AGENT__RUNTIME_DIR", &run).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).contains("edge-agent run"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_wrong_command_line_exits_with_2_and_help_has_examples() {
    let site = Site::with_config("schema_version = 1\n");
    assert_eq!(site.output(&["open-the-door"]).status.code(), Some(2));
    let help = site.output(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = text(&help.stdout);
    for part in ["Examples:", "LINTEL_CONFIG", "LINTEL__SECTION__KEY", "NO_COLOR", "Exit codes"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    let completions = site.output(&["completions", "bash"]);
    assert!(text(&completions.stdout).contains("edge-agent"));
}

#[test]
fn a_photograph_gives_template_quality_and_box() {
    let Some(parts) = Parts::find("a_photograph_gives_template_quality_and_box") else { return };
    let site = Site::new(&parts, "");
    let told = site.json(&["embed", parts.demo("obama.jpg").to_str().unwrap()]);
    assert_eq!(told["accepted"], true);
    assert_eq!(told["space_id"], "faceplugin-feature-0.0.1-arcface5-views2d");
    assert!(told["quality"]["overall"].as_f64().unwrap() > 0.5, "{told}");
    assert!(told["face"]["height"].as_f64().unwrap() > 100.0, "{told}");
    let (same, other) = (embedding(&site, &parts, "obama2.jpg"), embedding(&site, &parts, "biden.jpg"));
    let first = embedding(&site, &parts, "obama.jpg");
    assert!(first.similarity(&same).value() > 0.442, "two photographs of one man");
    assert!(first.similarity(&other).value() < 0.393, "two men");
}

fn embedding(site: &Site, parts: &Parts, name: &str) -> face_core::Embedding {
    use base64::Engine;
    let told = site.json(&["embed", parts.demo(name).to_str().unwrap()]);
    let bytes = base64::engine::general_purpose::STANDARD.decode(told["template"].as_str().unwrap()).unwrap();
    face_core::Embedding::from_le_bytes(&bytes).unwrap()
}

#[test]
fn each_useless_photograph_is_refused_with_its_own_reason() {
    let Some(parts) = Parts::find("each_useless_photograph_is_refused_with_its_own_reason") else { return };
    let site = Site::new(&parts, "");
    let cases = [
        (nobody(&site), "no_face", "no face was found"),
        (two_people(&site, &parts), "several_faces", "2 faces were found"),
        (small_face(&site, &parts), "face_too_small", "come closer"),
        (damaged(&site, &parts), "photo_unreadable", "incomplete"),
        (not_a_picture(&site), "photo_unreadable", "neither JPEG nor PNG"),
    ];
    for (photograph, code, sentence) in cases {
        let name = photograph.display().to_string();
        let output = site.output(&["embed", &name, "-o", "json"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let problem = text(&output.stderr);
        assert!(problem.contains(&name) && problem.contains(sentence), "{name}: {problem}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["accepted"], false);
        assert_eq!(told["reasons"][0]["code"], code, "{told}");
        assert!(told["reasons"][0]["hint"].is_string());
    }
    let output = site.output(&["embed", "/nowhere/face.jpg"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere/face.jpg cannot be read"));
}

#[test]
fn missing_models_are_named() {
    let Some(parts) = Parts::find("missing_models_are_named") else { return };
    let site = Site::new(&parts, "");
    let photograph = parts.demo("obama.jpg");
    for (variable, expected) in [
        ("LINTEL__MODELS__ONNXRUNTIME", "/nowhere/part"),
        ("LINTEL__MODELS__MANIFEST", "/nowhere/part"),
        ("LINTEL__MODELS__WEIGHTS", "/nowhere/part"),
    ] {
        let mut command = site.command(&["embed", photograph.to_str().unwrap()]);
        let output = command.env(variable, "/nowhere/part").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{variable}");
        assert!(text(&output.stderr).contains(expected), "{variable}: {}", text(&output.stderr));
    }
}

#[test]
fn doctor_says_what_to_do() {
    let Some(parts) = Parts::find("doctor_says_what_to_do") else { return };
    let site = Site::new(&parts, DOOR);
    let output = site.output(&["doctor", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = |check: &str| {
        let findings = told["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check}: {told}")).clone()
    };
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(finding("models")["state"], "ok");
    assert_eq!(finding("camera front")["state"], "ok");
    assert!(finding("identity")["advice"].as_str().unwrap().contains("edge-agent claim"));
    let output = site.command(&["doctor"]).env("LINTEL__MODELS__WEIGHTS", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("error    models") && text(&output.stdout).contains("scripts/setup"));
}

fn nobody(site: &Site) -> PathBuf {
    let path = site.path("wall.png");
    RgbImage::from_pixel(320, 240, Rgb([120, 118, 110])).save(&path).unwrap();
    path
}

fn two_people(site: &Site, parts: &Parts) -> PathBuf {
    let open = |name: &str| {
        image::open(parts.demo(name)).unwrap().resize_exact(480, 600, image::imageops::FilterType::Triangle).to_rgb8()
    };
    let mut both = RgbImage::new(960, 600);
    image::imageops::replace(&mut both, &open("obama.jpg"), 0, 0);
    image::imageops::replace(&mut both, &open("biden.jpg"), 480, 0);
    let path = site.path("both.png");
    both.save(&path).unwrap();
    path
}

fn small_face(site: &Site, parts: &Parts) -> PathBuf {
    let small =
        image::open(parts.demo("astronaut.png")).unwrap().resize(256, 256, image::imageops::FilterType::Triangle);
    let path = site.path("far-away.png");
    small.to_rgb8().save(&path).unwrap();
    path
}

fn damaged(site: &Site, parts: &Parts) -> PathBuf {
    let bytes = std::fs::read(parts.demo("obama.jpg")).unwrap();
    let path = site.path("half.jpg");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    path
}

fn not_a_picture(site: &Site) -> PathBuf {
    let path = site.path("letter.jpg");
    std::fs::write(&path, "Dear door, please open.").unwrap();
    path
}
