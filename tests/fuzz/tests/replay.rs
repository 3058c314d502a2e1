//! Each target over its seeds, its kept corpus and mutations of both: no panic, and memory within the target's bound.
//!
//! The mutations are the same in every run: what fails here fails again. A finding of `scripts/fuzz` is kept as a file in
//! `corpus/<target>/` and replayed here for ever.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::path::Path;

use fuzz_targets::mutation::{Dice, mutated};
use fuzz_targets::trial::{Counting, tried};
use fuzz_targets::{TARGETS, Target};

/// Mutations of each seed and corpus file. The long form is `scripts/fuzz`.
const MUTATIONS: usize = 5_000;
/// A picture costs a thousand times what a line costs, so it gets fewer.
const PICTURE_MUTATIONS: usize = 1_000;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    let inputs = [(target.seeds)(), kept(target)].concat();
    let mutations = if name == "photo" { PICTURE_MUTATIONS } else { MUTATIONS };
    let mut dice = Dice::new(0x1234_5678_9abc_def1);
    let mut findings = Vec::new();
    let mut check = |input: &[u8]| {
        if let Err(what) = tried(target, input) {
            findings.push(format!("{what}: {}", input.escape_ascii()));
        }
    };
    for input in &inputs {
        check(input);
        for _ in 0..mutations {
            check(&mutated(input, &inputs, &mut dice));
        }
    }
    assert!(findings.is_empty(), "{name}: {} findings, the first: {:.2000}", findings.len(), findings[0]);
}

macro_rules! replayed {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { replay($name); })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$($name),*];
            let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(all, replayed);
        }
    };
}

replayed! {
    photo: "photo",
    netpbm: "netpbm",
    lists: "lists",
    pack_manifest: "pack-manifest",
    camera_profile: "camera-profile",
    event_batch: "event-batch",
    up_envelope: "up-envelope",
    down_message: "down-message",
    topic: "topic",
    claim: "claim",
    gallery_record: "gallery-record",
    snapshot_manifest: "snapshot-manifest",
    snapshot_chunk: "snapshot-chunk",
    roster: "roster",
    cursor: "cursor",
}

#[test]
fn seeds_are_understood() {
    use wire_contract::Batch;
    let seeds = |name: &str| (TARGETS.iter().find(|target| target.name == name).unwrap().seeds)();
    let limits = face_runtime::PhotoLimits::default();
    assert!(seeds("photo").iter().all(|seed| face_runtime::decode_photo(seed, &limits).is_ok()));
    assert!(seeds("event-batch").iter().all(|seed| Batch::decode(seed).is_ok()));
    assert!(seeds("gallery-record").iter().all(|seed| gallery_log::Record::decode(seed).is_ok()));
    let rows = |seed: &Vec<u8>| {
        use cloud_hub::roster::{Bounds, Format, open};
        let bounds = Bounds { entries: 9, list_bytes: 1 << 20, photograph_bytes: 1 << 20, unpacked_bytes: 1 << 20 };
        let found = [Format::Csv, Format::Jsonl, Format::Zip].into_iter().filter_map(|format| {
            let opened = open(std::io::Cursor::new(seed.clone()), format, bounds, || Ok(Default::default()));
            opened.ok()?.0.some(9).ok()?.into_iter().find(|row| row.fields.is_ok())
        });
        found.count()
    };
    assert!(seeds("roster").iter().map(rows).all(|found| found == 1));
    let lists = |seed: &Vec<u8>| edge_agent::eval::lists::readable(std::str::from_utf8(seed).unwrap());
    assert!(seeds("lists").iter().map(lists).all(|(pairs, labels)| pairs != labels));
}

/// What would pass if panics or memory were not noticed.
#[test]
fn a_target_that_panics_or_swallows_memory_is_found_out() {
    let panics = Target { run: |bytes| assert!(bytes.is_empty()), ..TARGETS[0] };
    assert!(tried(&panics, b"").is_ok());
    assert_eq!(tried(&panics, b"x"), Err("panicked".to_owned()));
    let swallows = Target { run: |bytes| drop(vec![7_u8; bytes.len() << 20]), max_memory_bytes: 1 << 20, ..TARGETS[0] };
    assert!(tried(&swallows, b"x").is_ok());
    assert!(tried(&swallows, b"xx").is_err());
}
