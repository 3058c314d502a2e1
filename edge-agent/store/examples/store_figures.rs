//! What the stores cost on this disk: `cargo run --release -p edge-store --example store_figures [DIR]`.
//!
//! Prints one line of JSON: appends to the outbox with one commit each and 32 at a time, opening an outbox of 10,000
//! events, and filling, opening and rewriting a gallery of 1,000 and of 10,000 templates. Works in DIR (default: the
//! system's temporary directory) and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use edge_store::{DeviceKeys, GalleryKeys, GalleryStore, Outbox, OutboxOptions, Position, Priority};
use gallery_log::{Body, DigestKey, GalleryId, Kind, Log, Op, Record, RecordId, Root, TemplateBody};
use uuid::Uuid;

const EVENT_BYTES: usize = 1000;

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn main() {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
    let figures = serde_json::json!({
        "outbox": outbox(&dir.path().join("outbox"), &keys),
        "gallery_1000": gallery(&dir.path().join("small"), &keys, 1, 1000),
        "gallery_10000": gallery(&dir.path().join("large"), &keys, 2, 10_000),
    });
    println!("{figures}");
}

fn outbox(dir: &Path, keys: &DeviceKeys) -> serde_json::Value {
    let now = SystemTime::UNIX_EPOCH;
    let open = || Outbox::open(dir, &keys.outbox().unwrap(), OutboxOptions::default(), now).unwrap().0;
    let outbox = open();
    let encode = |_: Position| vec![7; EVENT_BYTES];
    let mut single: Vec<_> =
        (0..500).map(|_| timed(|| outbox.append(now, Priority::MustKeep, encode).unwrap()).1).collect();
    single.sort();
    let batches = 297;
    let (_, batched) = timed(|| {
        for _ in 0..batches {
            outbox.append_batch(now, Priority::MustKeep, (0..32).map(|_| encode)).unwrap();
        }
    });
    let stream = outbox.stats().unwrap().stream;
    let (_, read) = timed(|| {
        let mut after = 0;
        while let Some(last) = outbox.pending(after, 128, 64 << 10).unwrap().last() {
            after = last.sequence;
        }
    });
    let (_, acknowledge) = timed(|| outbox.acknowledge(stream, 5000, now).unwrap());
    let events = outbox.stats().unwrap().last_sequence;
    drop(outbox);
    let (_, opened) = timed(open);
    serde_json::json!({
        "append_ms_p50": ms(single[single.len() / 2]),
        "append_ms_p95": ms(single[single.len() * 95 / 100]),
        "append_of_32_ms": ms(batched / batches),
        "events": events,
        "read_all_ms": ms(read),
        "acknowledge_ms": ms(acknowledge),
        "open_ms": ms(opened),
        "file_bytes": std::fs::metadata(dir.join("outbox.redb")).unwrap().len(),
    })
}

fn gallery(dir: &Path, keys: &DeviceKeys, number: u8, templates: u64) -> serde_json::Value {
    let id = GalleryId::from_bytes([number; 16]);
    let gallery_keys = GalleryKeys { epoch: 1, digest: DigestKey::new([9; 32]), credential: [4; 32].into() };
    let open = || GalleryStore::open(dir, keys, id, &gallery_keys).unwrap().0;
    let mut store = open();
    let mut log = Log::new(id, 1);
    let batches: Vec<_> = (1..=templates)
        .map(|version| template(id, version))
        .collect::<Vec<_>>()
        .chunks(20)
        .map(|records| (records.to_vec(), root_after(&mut log, records, &gallery_keys)))
        .collect();
    let (_, filled) = timed(|| {
        for (records, root) in &batches {
            store.apply(records, *root).unwrap();
        }
    });
    drop(store);
    let (mut store, opened) = timed(open);
    let (contents, decoded) = timed(|| store.contents().unwrap());
    assert_eq!(contents.templates.len() as u64, templates);
    let (_, rewritten) = timed(|| store.rewrite().unwrap());
    serde_json::json!({
        "fill_by_20_ms": ms(filled),
        "open_ms": ms(opened),
        "contents_ms": ms(decoded),
        "rewrite_ms": ms(rewritten),
    })
}

fn root_after(log: &mut Log, records: &[Record], keys: &GalleryKeys) -> Root {
    for record in records {
        log.apply(record, &keys.digest).unwrap();
    }
    log.root()
}

fn template(gallery: GalleryId, version: u64) -> Record {
    let body = TemplateBody {
        person: Uuid::from_u128(version.into()),
        space_id: "faceplugin-0.0.1".into(),
        quality: 0.9,
        embedding: Box::new([0.044; 512]),
    };
    // Ids come in no order, as random ones do.
    let id = RecordId(Uuid::from_u128(u128::from(version).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)));
    let body = Body::Template(body).encode().unwrap();
    Record { gallery, epoch: 1, version, op: Op::Put, kind: Kind::Template, id, rev: 1, body }
}

#[expect(clippy::disallowed_methods, reason = "measuring time is what this program does")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed())
}

fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e5).round() / 1e2
}
