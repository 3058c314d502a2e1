//! Each target over its seeds, its kept corpus and mutations of both: no panic, and memory within the target's bound.
//!
//! The mutations are the same in every run: what fails here fails again. A finding of `scripts/fuzz` is kept as a file in
//! `corpus/<target>/` and replayed here for ever.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::catch_unwind;
use std::path::Path;

use fuzz_targets::{MAX_INPUT_BYTES, TARGETS, Target};

/// Mutations of each seed and corpus file. The long form is `scripts/fuzz`.
const MUTATIONS: usize = 5_000;
/// A picture costs a thousand times what a line costs, so it gets fewer.
const PICTURE_MUTATIONS: usize = 1_000;

/// The system's allocator, with a count of what this thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is handed on to the system's allocator with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise for `alloc` is the one that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from `System.alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs one input; the error says what was wrong with it.
fn tried(target: &Target, input: &[u8]) -> Result<(), String> {
    HELD.set(0);
    MOST.set(0);
    catch_unwind(|| (target.run)(input)).map_err(|_| "panicked".to_owned())?;
    let most = usize::try_from(MOST.get()).unwrap_or(0);
    if most > target.max_memory_bytes {
        return Err(format!("held {most} bytes, its bound is {}", target.max_memory_bytes));
    }
    Ok(())
}

fn kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A small generator (xorshift64*), so that every run tries the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides.max(1)
    }
}

/// Bytes that parsers stumble over.
const INTERESTING: [&[u8]; 12] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\"",
    b"{",
    b"[[[[[[[[",
    b"\n",
    b"1e999",
    b"-1",
    b"\\ud800",
    b"\xf0\x9f",
];

fn mutated(input: &[u8], all: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() + 1);
        match dice.roll(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            1 if at < bytes.len() => bytes[at] = dice.roll(256) as u8,
            2 => drop(bytes.drain(at..(at + dice.roll(16)).min(bytes.len()))),
            3 => drop(bytes.splice(at..at, INTERESTING[dice.roll(INTERESTING.len())].iter().copied())),
            4 => bytes.truncate(at),
            _ => {
                let other = &all[dice.roll(all.len())];
                let from = dice.roll(other.len() + 1);
                let piece = other[from..(from + dice.roll(64)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes.truncate(MAX_INPUT_BYTES);
    bytes
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    let inputs = [(target.seeds)(), kept(target)].concat();
    let mutations = if name == "photo" { PICTURE_MUTATIONS } else { MUTATIONS };
    let mut dice = Dice(0x1234_5678_9abc_def1);
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
