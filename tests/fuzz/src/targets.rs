//! What each target calls: the very function that the programs call on such bytes.

use std::hint::black_box;

use cloud_hub::domain::cursor::Cursor;
use cloud_hub::pki::DeviceRequest;
use edge_agent::eval::{lists, template};
use edge_capture::CameraProfile;
use face_runtime::{Manifest, PhotoLimits, decode_photo};
use gallery_log::{Body, Kind, Record};
use wire_contract::{
    Batch, ClaimAnswer, ClaimRequest, ClaimToken, EvtAck, EvtRefusal, GalleryDown, GalleryUp, LinkAnswer, Problem,
    Status, Timestamp, Topic,
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
}

pub(crate) fn down_message(bytes: &[u8]) {
    let _ = black_box(serde_json::from_slice::<EvtAck>(bytes));
    let _ = black_box(serde_json::from_slice::<EvtRefusal>(bytes));
    let _ = black_box(serde_json::from_slice::<GalleryDown>(bytes));
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

pub(crate) fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = Cursor::decode(text) {
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
    }
}
