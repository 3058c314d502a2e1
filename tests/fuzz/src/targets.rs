//! What each target calls: the very function that the programs call on such bytes.

use std::hint::black_box;
use std::io;

use cloud_hub::domain::cursor::Cursor;
use cloud_hub::pki::DeviceRequest;
use cloud_hub::roster::{self, Bounds, Format};
use edge_agent::eval::{lists, template};
use edge_capture::CameraProfile;
use face_runtime::{Manifest, PhotoLimits, decode_photo};
use gallery_log::snapshot::{ChunkBuilder, decode_chunk};
use gallery_log::{Body, Kind, Record};
use wire_contract::claim::HubKey;
use wire_contract::snapshot::{SnapshotAnswer, Wanted};
use wire_contract::{
    Batch, Bytes, ClaimAnswer, ClaimRequest, ClaimToken, CommandDown, CommandUp, EvtAck, EvtRefusal, GalleryDown,
    GalleryUp, LinkAnswer, Problem, Status, Timestamp, Topic, TwinDown, TwinSettings, TwinUp,
};

pub(crate) fn photo(bytes: &[u8]) {
    let _ = black_box(decode_photo(bytes, &PhotoLimits::default()));
}

pub(crate) fn netpbm(bytes: &[u8]) {
    // Anything but a PGM or PPM is the target above.
    if let [b'P', b'5' | b'6', ..] = bytes {
        let _ = black_box(template::decode(bytes));
    }
}

pub(crate) fn lists(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        black_box(lists::readable(text));
    }
}

pub(crate) fn pack_manifest(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = black_box(Manifest::parse(text));
    }
}

pub(crate) fn camera_profile(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = black_box(CameraProfile::parse("fuzzed", text));
    }
}

pub(crate) fn event_batch(bytes: &[u8]) {
    let Ok(batch) = Batch::decode(bytes) else { return };
    // What was taken can be written, and is then taken again.
    let json = serde_json::to_vec(&batch).expect("a batch that was read can be written");
    Batch::decode(&json).expect("a batch that was written can be read");
}

pub(crate) fn up_envelope(bytes: &[u8]) {
    let _ = black_box(wire_contract::envelope::parse_up(bytes));
    let _ = black_box(serde_json::from_slice::<GalleryUp>(bytes));
    let _ = black_box(serde_json::from_slice::<Status>(bytes));
    let _ = black_box(serde_json::from_slice::<CommandUp>(bytes));
    let _ = black_box(serde_json::from_slice::<TwinUp>(bytes));
}

pub(crate) fn down_message(bytes: &[u8]) {
    let _ = black_box(serde_json::from_slice::<EvtAck>(bytes));
    let _ = black_box(serde_json::from_slice::<EvtRefusal>(bytes));
    let _ = black_box(serde_json::from_slice::<GalleryDown>(bytes));
    let _ = black_box(serde_json::from_slice::<CommandDown>(bytes));
    if let Ok(twin) = serde_json::from_slice::<TwinDown>(bytes) {
        let _ = black_box(TwinSettings::parse(&twin.settings).map(|settings| settings.hash()));
    }
    let _ = black_box(serde_json::from_slice::<LinkAnswer>(bytes));
    let _ = black_box(serde_json::from_slice::<Problem>(bytes));
}

pub(crate) fn topic(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(topic) = text.parse::<Topic>() {
        assert_eq!(topic.to_string(), text, "one topic has one spelling, else two would share an access rule");
    }
    let _ = black_box(text.parse::<Timestamp>());
}

pub(crate) fn claim(bytes: &[u8]) {
    let _ = black_box(serde_json::from_slice::<ClaimRequest>(bytes));
    let _ = black_box(serde_json::from_slice::<ClaimAnswer>(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = black_box(text.parse::<ClaimToken>());
    let _ = black_box(DeviceRequest::parse(text).map(|request| request.spki_sha256()));
}

pub(crate) fn gallery_record(bytes: &[u8]) {
    if let Ok(record) = Record::decode(bytes) {
        let _ = black_box(Body::decode(record.kind, &record.body));
    }
    for kind in Kind::ALL {
        let _ = black_box(Body::decode(kind, bytes));
    }
}

/// What is signed in a manifest is judged before anything else is done with it, so everything here sees forged ones.
pub(crate) fn snapshot_manifest(bytes: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<SnapshotAnswer>(bytes) else { return };
    let manifest = answer.manifest;
    let wanted = Wanted {
        snapshot: manifest.snapshot,
        tenant: manifest.tenant,
        device: manifest.device,
        gallery: manifest.gallery,
        epoch: manifest.epoch,
        version: manifest.version,
    };
    let pinned = [HubKey { key_id: manifest.key_id, public_key: Bytes(vec![7; 32]) }];
    assert!(manifest.verify(&pinned, &wanted).is_err(), "no mutation signs for a key that nobody has");
    if manifest.check().is_ok() {
        let total = manifest.content_bytes();
        let last = total.checked_sub(1).and_then(|last| manifest.locate(last));
        assert_eq!(last.map(|(chunk, _)| chunk + 1).unwrap_or(0), manifest.chunks.len());
        assert_eq!(manifest.locate(total), None);
    }
}

pub(crate) fn snapshot_chunk(bytes: &[u8]) {
    let Ok(records) = decode_chunk(bytes) else { return };
    // What was read is what would be written: a chunk has one spelling.
    let mut chunk = ChunkBuilder::default();
    for record in &records {
        assert!(chunk.push(record).expect("a record that was read can be written"));
    }
    assert_eq!(chunk.finish(), bytes);
}

/// A table, lines and an archive of the same bytes; every photograph that a row names is unpacked.
pub(crate) fn roster(bytes: &[u8]) {
    let bounds = Bounds { entries: 100, list_bytes: 1 << 20, photograph_bytes: 1 << 16, unpacked_bytes: 1 << 21 };
    for format in [Format::Csv, Format::Jsonl, Format::Zip] {
        let opened = roster::open(io::Cursor::new(bytes.to_vec()), format, bounds, || Ok(io::Cursor::new(Vec::new())));
        let Ok((mut list, mut photographs)) = opened else { continue };
        let rows = list.some(usize::MAX).expect("memory can be read");
        assert_eq!(rows.len() as u64, list.count(), "the second reading finds what the first has counted");
        let Some(photographs) = &mut photographs else { continue };
        for name in rows.iter().flat_map(|row| &row.photographs) {
            if let Ok(photograph) = photographs.read(name) {
                assert!(photograph.len() as u64 <= bounds.photograph_bytes);
            }
        }
    }
}

pub(crate) fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = Cursor::decode(text) {
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
    }
}
