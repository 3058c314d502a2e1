//! Good inputs to start from. Pictures are drawn here, the wire's are the golden files: nothing shows a face.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use gallery_log::body::PersonState;
use gallery_log::snapshot::ChunkBuilder;
use gallery_log::{Body, GalleryId, Kind, Op, PersonBody, Record, RecordId, TemplateBody};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageFormat, RgbImage};
use zip::write::{SimpleFileOptions, ZipWriter};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file of a folder whose name begins so.
fn files(folder: &str, begins: &[&str]) -> Vec<Vec<u8>> {
    let folder = repository().join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            path.is_file() && begins.iter().any(|begin| name.starts_with(begin))
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no file that begins with {begins:?}", folder.display());
    paths.iter().map(|path| std::fs::read(path).expect("a readable file")).collect()
}

fn drawn() -> RgbImage {
    RgbImage::from_fn(24, 16, |x, y| image::Rgb([(x * 10) as u8, (y * 15) as u8, ((x ^ y) * 8) as u8]))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("a small picture can be encoded");
    bytes.into_inner()
}

pub(crate) fn photos() -> Vec<Vec<u8>> {
    let colour = DynamicImage::ImageRgb8(drawn());
    let mut seeds = vec![
        encoded(&colour, ImageFormat::Jpeg),
        encoded(&colour, ImageFormat::Png),
        encoded(&DynamicImage::ImageLuma8(colour.to_luma8()), ImageFormat::Jpeg),
        encoded(&DynamicImage::ImageRgb16(colour.to_rgb16()), ImageFormat::Png),
        encoded(&DynamicImage::ImageRgba8(colour.to_rgba8()), ImageFormat::Png),
    ];
    // An orientation, so that the EXIF reader has something to read.
    let mut turned = Vec::new();
    JpegEncoder::new(&mut turned).encode_image(&colour).expect("a small picture can be encoded");
    let exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    turned.splice(2..2, exif.iter().copied());
    seeds.push(turned);
    seeds
}

pub(crate) fn netpbm() -> Vec<Vec<u8>> {
    vec![b"P5\n# drawn\n3 2\n255\nabcdef".to_vec(), b"P6 1 2 255 abcdef".to_vec()]
}

pub(crate) fn lists() -> Vec<Vec<u8>> {
    let texts = [
        "a,b,same\nx.jpg,y.jpg,1\n",
        "a,b,same,fold\nx.jpg,y.jpg,0,1\nx.jpg,\"z,1.jpg\",1,2\n",
        "path,person\nx.jpg,Ann\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

pub(crate) fn pack_manifests() -> Vec<Vec<u8>> {
    files("models/faceplugin", &["manifest.toml"])
}

pub(crate) fn camera_profiles() -> Vec<Vec<u8>> {
    files("camera-profiles", &["generic"])
}

pub(crate) fn event_batches() -> Vec<Vec<u8>> {
    files("crates/wire-contract/golden/v1", &["batch"])
}

pub(crate) fn up_envelopes() -> Vec<Vec<u8>> {
    let mut seeds = files("crates/wire-contract/golden/v1", &["gallery_state", "gallery_rebuild", "status"]);
    seeds.push([&[1; 37][..], b"{}"].concat());
    seeds
}

pub(crate) fn down_messages() -> Vec<Vec<u8>> {
    files("crates/wire-contract/golden/v1", &["evtack", "gallery_records", "gallery_snapshot", "link", "problem"])
}

pub(crate) fn topics() -> Vec<Vec<u8>> {
    let id = "018f3c1e-0000-7000-8000-000000000001";
    ["evt", "evtack", "gallery", "status"].map(|last| format!("lintel/v1/{id}/{id}/{last}").into_bytes()).to_vec()
}

pub(crate) fn claims() -> Vec<Vec<u8>> {
    let mut seeds = files("crates/wire-contract/golden/v1", &["claim"]);
    seeds.push(b"-----BEGIN CERTIFICATE REQUEST-----\nMIG\n-----END CERTIFICATE REQUEST-----\n".to_vec());
    seeds
}

pub(crate) fn gallery_records() -> Vec<Vec<u8>> {
    let person = Body::Person(PersonBody::new(PersonState::Active, None, None, Vec::new()));
    let template = Body::Template(TemplateBody {
        person: Default::default(),
        space_id: "space".to_owned(),
        quality: 0.5,
        embedding: Box::new([0.044; 512]),
    });
    let record = |kind, body: &Body| {
        let body = body.encode().expect("a good body");
        let (gallery, id) = (GalleryId(Default::default()), RecordId(Default::default()));
        Record { gallery, epoch: 1, version: 1, op: Op::Put, kind, id, rev: 1, body }.encode().expect("a good record")
    };
    vec![record(Kind::Person, &person), record(Kind::Template, &template)]
}

pub(crate) fn snapshot_manifests() -> Vec<Vec<u8>> {
    files("crates/wire-contract/golden/v1", &["snapshot_answer"])
}

pub(crate) fn snapshot_chunks() -> Vec<Vec<u8>> {
    let mut chunk = ChunkBuilder::default();
    for bytes in gallery_records() {
        let record = Record::decode(&bytes).expect("a good record");
        chunk.push(&record).expect("a record that fits");
    }
    vec![chunk.finish(), Vec::new()]
}

pub(crate) fn rosters() -> Vec<Vec<u8>> {
    let table = b"external_id,name,groups,photos\nE-1,\"Ada, L.\",a;b,ada.jpg\nE-2,Cleo,,\n".as_slice();
    let lines = b"{\"external_id\": \"E-1\", \"photos\": [\"ada.jpg\"]}\n{}\n".as_slice();
    let packed = |list: &str, bytes: &[u8]| {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in [(list, bytes), ("ada.jpg", &[7; 300])] {
            zip.start_file(name, SimpleFileOptions::default()).expect("a short name");
            zip.write_all(bytes).expect("memory can be written");
        }
        zip.finish().expect("memory can be written").into_inner()
    };
    vec![table.to_vec(), lines.to_vec(), packed("people.csv", table), packed("a/people.jsonl", lines)]
}

pub(crate) fn cursors() -> Vec<Vec<u8>> {
    vec![cloud_hub::domain::cursor::Cursor(7).encode().into_bytes()]
}
