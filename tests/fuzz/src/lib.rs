//! Every parser of bytes from outside, as a function that must not panic whatever it is given.
//!
//! In: bytes. Out: nothing; a panic or a use of memory beyond the target's bound is the finding. [`TARGETS`] is the list:
//! `tests/replay.rs` runs each target over its seeds, its kept corpus (`corpus/<name>/`) and mutations of both in every
//! test run; `scripts/fuzz` runs libFuzzer on one of them for as long as one likes (the crate `libfuzzer` beside this).
//!
//! Deliberately absent: parsers that see authenticated bytes only (the stores' files, which are checked by their own
//! bit-flip tests) and whatever libraries parse before us (TLS, MQTT, HTTP, TOML's and ONNX's own syntax).

pub mod mutation;
mod seeds;
mod targets;
pub mod trial;

/// One parser.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: that of its corpus folder and of the argument of `scripts/fuzz`.
    pub name: &'static str,
    /// Where its bytes come from.
    pub from: &'static str,
    /// Parses; returns normally for good and bad bytes alike.
    pub run: fn(&[u8]),
    /// Good inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The most memory that one input of up to [`MAX_INPUT_BYTES`] may make it hold at a time.
    pub max_memory_bytes: usize,
}

/// Longest input that is tried: longer ones are refused by length before any parser sees them, or are more of the same.
pub const MAX_INPUT_BYTES: usize = 64 << 10;

const MIB: usize = 1 << 20;

/// All of them.
pub const TARGETS: [Target; 15] = [
    // 25 megapixels with what a progressive JPEG keeps beside them: see `PhotoLimits`.
    target("photo", "uploads and enrolment folders", targets::photo, seeds::photos, 320 * MIB),
    target("netpbm", "pictures for eval", targets::netpbm, seeds::netpbm, MIB),
    target("lists", "CSV lists for eval", targets::lists, seeds::lists, 32 * MIB),
    target("pack-manifest", "model packs of others", targets::pack_manifest, seeds::pack_manifests, 8 * MIB),
    target("camera-profile", "profiles of others", targets::camera_profile, seeds::camera_profiles, 4 * MIB),
    target("event-batch", "devices, over MQTT", targets::event_batch, seeds::event_batches, 8 * MIB),
    target("up-envelope", "devices, over MQTT", targets::up_envelope, seeds::up_envelopes, 8 * MIB),
    target("down-message", "the hub, over MQTT", targets::down_message, seeds::down_messages, 8 * MIB),
    target("topic", "the broker", targets::topic, seeds::topics, MIB),
    target("claim", "tokens, claims and their answers", targets::claim, seeds::claims, 8 * MIB),
    target("gallery-record", "the hub, inside the gallery log", targets::gallery_record, seeds::gallery_records, MIB),
    target("snapshot-manifest", "the hub, over HTTPS", targets::snapshot_manifest, seeds::snapshot_manifests, 8 * MIB),
    target("snapshot-chunk", "the hub, inside a snapshot", targets::snapshot_chunk, seeds::snapshot_chunks, 4 * MIB),
    target("roster", "files of people, over the REST API", targets::roster, seeds::rosters, 80 * MIB),
    target("cursor", "clients of the REST API", targets::cursor, seeds::cursors, MIB),
];

const fn target(
    name: &'static str,
    from: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    max_memory_bytes: usize,
) -> Target {
    Target { name, from, run, seeds, max_memory_bytes }
}
