//! One flipped bit anywhere on disk: it is noticed, or it changes nothing. Never a wrong answer, never a panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use edge_store::{DeviceKeys, GalleryError, GalleryOpened, GalleryStore, OutboxOpened, OutboxOptions, Priority};
use support::{Hub, Random, at, event_at, gallery, gallery_keys, times};

const EVENTS: u64 = 60;
const VERSIONS: u64 = 60;

#[test]
fn every_flip_in_an_outbox_is_noticed_or_harmless() {
    let original = tempfile::tempdir().unwrap();
    let (outbox, _) = support::open_outbox(original.path());
    for _ in 0..EVENTS {
        outbox.append(at(0), Priority::MustKeep, |position| event_at(position.sequence)).unwrap();
    }
    drop(outbox);

    let mut random = Random::new(4);
    let mut noticed = 0;
    for _ in 0..times(150) {
        let copy = tempfile::tempdir().unwrap();
        support::copy_dir(original.path(), copy.path());
        let flip = support::flip_a_bit(copy.path(), &mut random, |path| path.parent().unwrap().ends_with("outbox"));
        noticed += u64::from(outbox_notices(copy.path(), &flip));
    }
    assert!(noticed > 0, "no flip was noticed: none was made");
}

/// True when the flip was noticed; fails when it was not and the answer is wrong.
fn outbox_notices(dir: &Path, flip: &str) -> bool {
    let keys = DeviceKeys::open(&dir.join("keys"), None).unwrap().outbox().unwrap();
    let opened = edge_store::Outbox::open(&dir.join("outbox"), &keys, OutboxOptions::default(), at(0));
    let (outbox, OutboxOpened::Intact) = opened.unwrap_or_else(|error| panic!("{flip}: {error}")) else { return true };
    let Ok(entries) = outbox.pending(0, 1000, 1 << 24) else { return true };
    assert_eq!(entries.len() as u64, EVENTS, "{flip}: events are gone and nobody noticed");
    for (sequence, entry) in (1..).zip(entries) {
        assert_eq!((entry.sequence, &entry.event), (sequence, &event_at(sequence)), "{flip}");
    }
    false
}

#[test]
fn every_flip_in_a_gallery_store_is_noticed_or_harmless() {
    let original = tempfile::tempdir().unwrap();
    let root = fill_gallery(original.path());

    let mut random = Random::new(5);
    let mut noticed = 0;
    for _ in 0..times(100) {
        let copy = tempfile::tempdir().unwrap();
        support::copy_dir(original.path(), copy.path());
        let flip = support::flip_a_bit(copy.path(), &mut random, |path| !path.ends_with("device-store.key"));
        let keys = DeviceKeys::open(&copy.path().join("keys"), None).unwrap();
        let (store, opened) = GalleryStore::open(&copy.path().join("gallery"), &keys, gallery(), &gallery_keys())
            .unwrap_or_else(|error| panic!("{flip}: {error}"));
        match opened {
            GalleryOpened::Rebuilt { .. } => {
                assert_eq!(store.version(), 0, "{flip}: a store that is not believed must be empty");
                noticed += 1;
            }
            GalleryOpened::Intact => {
                assert_eq!((store.version(), store.root()), (VERSIONS, root), "{flip}");
                match store.records() {
                    Ok(records) => assert_eq!(records.len() as u64, VERSIONS * 3 / 5, "{flip}"),
                    Err(GalleryError::Doubt { .. }) => noticed += 1,
                    Err(error) => panic!("{flip}: {error}"),
                }
            }
            GalleryOpened::New => panic!("{flip}: a filled store was taken for none"),
        }
    }
    assert!(noticed > 0, "no flip was noticed: none was made");
}

fn fill_gallery(dir: &Path) -> gallery_log::Root {
    let keys = DeviceKeys::open(&dir.join("keys"), None).unwrap();
    let (mut store, _) = GalleryStore::open(&dir.join("gallery"), &keys, gallery(), &gallery_keys()).unwrap();
    let mut hub = Hub::new();
    for _ in 0..VERSIONS {
        let (record, root) = hub.next();
        store.apply(&[record], root).unwrap();
    }
    store.root()
}
