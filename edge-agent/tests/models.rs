//! Packs side by side: `edge-agent models`, with the real pack, the real ONNX Runtime and hostile files.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::onnx::Graph;
use support::{Parts, Site, text};

/// A copy of the default pack under another name and space, in a folder as it would come on a stick.
fn second_pack(site: &Site, parts: &Parts) -> PathBuf {
    let dir = site.path("stick");
    fs::create_dir_all(&dir).unwrap();
    for file in fs::read_dir(parts.weights()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    edit_manifest(&support::manifest(), &dir, "name = \"faceplugin\"", "name = \"second\"");
    let space = manifest_line(&dir, "space_id = ");
    edit_manifest(&dir.join("manifest.toml"), &dir, &space, "space_id = \"second-space\"");
    dir
}

fn edit_manifest(from: &Path, dir: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(from).unwrap();
    assert!(text.contains(old), "{old} is not in {}", from.display());
    fs::write(dir.join("manifest.toml"), text.replacen(old, new, 1)).unwrap();
}

fn manifest_line(dir: &Path, begins: &str) -> String {
    let text = fs::read_to_string(dir.join("manifest.toml")).unwrap();
    text.lines().find(|line| line.starts_with(begins)).unwrap().to_owned()
}

fn site(parts: &Parts) -> Site {
    let site = Site::new(parts, "");
    let packs = format!("[models]\npacks_dir = {:?}\n", site.path("packs"));
    let text = fs::read_to_string(site.path("config.toml")).unwrap().replacen("[models]\n", &packs, 1);
    site.write(&text);
    site
}

fn shelf(site: &Site) -> Vec<String> {
    let Ok(entries) = fs::read_dir(site.path("packs")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != ".lock").collect()
}

#[test]
fn a_pack_is_added_examined_used_and_removed() {
    let Some(parts) = Parts::find("a_pack_is_added_examined_used_and_removed") else { return };
    let site = site(&parts);
    let stick = second_pack(&site, &parts);
    let add = ["models", "add", stick.to_str().unwrap()];
    let added = site.json(&add);
    assert_eq!((&added["added"], &added["was_there"]), (&"second-0.0.1".into(), &false.into()));
    assert!(added["note"].as_str().unwrap().starts_with("another embedding space"), "{added}");
    assert_eq!(site.json(&add)["was_there"], true, "adding the same again is no failure");

    let packs = site.json(&["models", "list"])["packs"].clone();
    let row = |index: usize, key: &str| packs[index][key].clone();
    assert_eq!((row(0, "default"), row(0, "in_use"), row(1, "in_use")), (true.into(), true.into(), false.into()));
    assert_eq!((row(1, "space_id"), row(1, "state")), ("second-space".into(), "complete".into()));
    let proofs = site.json(&["models", "verify"])["packs"].clone();
    assert_eq!(proofs.as_array().unwrap().iter().filter(|proof| proof["good"] == true).count(), 2, "{proofs}");

    let face = parts.demo("obama.jpg");
    let embed = ["embed", face.to_str().unwrap(), "-o", "json"];
    let output = site.command(&embed).env("LINTEL__MODELS__PACK", "second").output().unwrap();
    let used: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(used["space_id"], "second-space");

    let refused = site.command(&["models", "remove", "second"]).env("LINTEL__MODELS__PACK", "second").output().unwrap();
    assert!(text(&refused.stderr).contains("is in use"), "{}", text(&refused.stderr));
    assert_eq!(site.json(&["models", "remove", "second"])["removed"], "second-0.0.1");
    assert!(shelf(&site).is_empty(), "{:?}", shelf(&site));
}

/// What is done to a pack, how, and what must be said of it.
type Harm = (&'static str, fn(&Path), &'static str);

#[test]
fn what_is_not_as_its_manifest_says_is_refused_and_leaves_nothing() {
    let Some(parts) = Parts::find("what_is_not_as_its_manifest_says_is_refused_and_leaves_nothing") else { return };
    let cases: [Harm; 5] = [
        ("a changed byte", |dir| change_byte(&dir.join("fr_pose.onnx")), "sha256 is"),
        ("a byte too many", |dir| append(&dir.join("fr_eye.onnx")), "the manifest says 207130"),
        ("a missing file", |dir| fs::remove_file(dir.join("fr_eye.onnx")).unwrap(), "fr_eye.onnx"),
        (
            "another shape",
            |dir| {
                edit_manifest(&dir.join("manifest.toml"), dir, "shape = [1, 1, 24, 24]", "shape = [1, 1, 32, 32]");
            },
            "[1, 1, 32, 32]",
        ),
        (
            "a file outside the pack",
            |dir| {
                edit_manifest(&dir.join("manifest.toml"), dir, "\"fr_eye.onnx\"", "\"../fr_eye.onnx\"");
            },
            "relative path without '..'",
        ),
    ];
    for (what, harm, told) in cases {
        let site = site(&parts);
        let stick = second_pack(&site, &parts);
        harm(&stick);
        let output = site.output(&["models", "add", stick.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(text(&output.stderr).contains(told), "{what}: expected {told:?} in {}", text(&output.stderr));
        assert!(shelf(&site).is_empty(), "{what}: {:?}", shelf(&site));
    }
}

fn change_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn append(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes.push(0);
    fs::write(path, bytes).unwrap();
}

/// An ONNX file of 300 bytes that wants 8 GB of memory at its first run.
#[test]
fn a_model_that_swallows_memory_is_refused_by_the_limit_of_its_process() {
    let Some(parts) = Parts::find("a_model_that_swallows_memory_is_refused_by_the_limit_of_its_process") else {
        return;
    };
    let site = site(&parts);
    let stick = second_pack(&site, &parts);
    let model = Graph::swallowing(2_000_000_000).encode();
    let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, &model));
    let manifest = fs::read_to_string(stick.join("manifest.toml")).unwrap();
    let old = manifest.lines().skip_while(|line| *line != "path = \"fr_eye.onnx\"").nth(1).unwrap().to_owned();
    edit_manifest(&stick.join("manifest.toml"), &stick, &old, &format!("sha256 = {hash:?}"));
    let size = format!("size_bytes = {}", model.len());
    edit_manifest(&stick.join("manifest.toml"), &stick, "size_bytes = 207130", &size);
    fs::write(stick.join("fr_eye.onnx"), model).unwrap();
    let output = site.output(&["models", "add", stick.to_str().unwrap()]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("second-0.0.1 is refused") && told.contains("fr_eye.onnx"), "{told}");
    // Without the limit the run would succeed and only its answer be wrong.
    assert!(told.contains("warm-up run failed") || told.contains("does not survive"), "{told}");
    assert!(shelf(&site).is_empty(), "{:?}", shelf(&site));
}

#[test]
fn names_are_answered_with_what_there_is() {
    let Some(parts) = Parts::find("names_are_answered_with_what_there_is") else { return };
    let site = site(&parts);
    let stick = second_pack(&site, &parts);
    site.json(&["models", "add", stick.to_str().unwrap()]);
    edit_manifest(&stick.join("manifest.toml"), &stick, "licence = \"MIT\"", "licence = \"Apache-2.0\"");
    let again = site.output(&["models", "add", stick.to_str().unwrap()]);
    assert!(text(&again.stderr).contains("is there already, with another manifest"), "{}", text(&again.stderr));
    edit_manifest(&stick.join("manifest.toml"), &stick, "version = \"0.0.1\"", "version = \"0.0.2\"");
    site.json(&["models", "add", stick.to_str().unwrap()]);
    let cases = [
        (
            ["models", "verify", "third"],
            "there is no model pack third; there is faceplugin-0.0.1, second-0.0.1, second-0.0.2",
        ),
        (["models", "remove", "second"], "second may be second-0.0.1, second-0.0.2: name the version too"),
        (["models", "remove", "default"], "came with the program"),
        (["models", "add", "/nowhere"], "/nowhere/manifest.toml: cannot be read"),
    ];
    for (command, told) in cases {
        let output = site.output(&command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(text(&output.stderr).contains(told), "{command:?}: {}", text(&output.stderr));
    }
    let unknown = site.command(&["run"]).env("LINTEL__MODELS__PACK", "third").output().unwrap();
    assert!(text(&unknown.stderr).contains("there is no model pack third"), "{}", text(&unknown.stderr));
}
