//! A full disk: an error that says so, never a false acknowledgement, and work goes on when there is room again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use edge_store::{DeviceKeys, GalleryOpened, GalleryStore, OutboxOpened, OutboxOptions, Priority};
use support::{Hub, at, event_at, gallery, gallery_keys};

/// A tmpfs of `kib` KiB at `dir`.
fn small_disk(dir: &Path, kib: u32) {
    support::own_mounts();
    support::run("mount", &["-t", "tmpfs", "-o", &format!("size={kib}k"), "none", dir.to_str().unwrap()]);
}

fn grow_disk(dir: &Path, kib: u32) {
    support::run("mount", &["-o", &format!("remount,size={kib}k"), dir.to_str().unwrap()]);
}

#[test]
fn a_full_disk_stops_the_outbox_until_there_is_room() {
    let name = "a_full_disk_stops_the_outbox_until_there_is_room";
    if support::cannot_mount(name) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    small_disk(dir.path(), 2048);
    let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap().outbox().unwrap();
    let options = OutboxOptions { low_space_bytes: 0, ..OutboxOptions::default() };
    let (outbox, _) = edge_store::Outbox::open(&dir.path().join("outbox"), &keys, options, at(0)).unwrap();
    let append = || outbox.append(at(0), Priority::MustKeep, |position| event_at(position.sequence));

    let mut acknowledged = 0;
    let error = loop {
        match append() {
            Ok(position) => {
                assert_eq!(position.sequence, acknowledged + 1);
                acknowledged = position.sequence;
            }
            Err(error) => break error,
        }
    };
    assert!(error.is_disk_full(), "{error}");
    assert!(error.to_string().contains("no space left"), "{error}");
    assert!(acknowledged > 100, "only {acknowledged} events went into 2 MiB");
    for _ in 0..3 {
        assert!(append().unwrap_err().is_disk_full());
    }

    grow_disk(dir.path(), 16384);
    assert_eq!(append().unwrap().sequence, acknowledged + 1);
    assert_eq!(support::check_outbox(&outbox), acknowledged + 1);
    drop(outbox);
    let (outbox, opened) = support::open_outbox(dir.path());
    assert!(matches!(opened, OutboxOpened::Intact), "{opened:?}");
    assert_eq!(support::check_outbox(&outbox), acknowledged + 1);
}

#[test]
fn a_full_disk_stops_the_gallery_until_there_is_room() {
    let name = "a_full_disk_stops_the_gallery_until_there_is_room";
    if support::cannot_mount(name) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    small_disk(dir.path(), 4096);
    let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
    let open = || GalleryStore::open(&dir.path().join("gallery"), &keys, gallery(), &gallery_keys()).unwrap();
    let (mut store, _) = open();
    let mut hub = Hub::new();
    let (record, root, error) = loop {
        let (record, root) = hub.next();
        if let Err(error) = store.apply(std::slice::from_ref(&record), root) {
            break (record, root, error);
        }
    };
    let edge_store::ApplyError::Store(error) = error else { panic!("{error}") };
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(store.version(), record.version - 1);

    grow_disk(dir.path(), 65536);
    assert_eq!(store.apply(std::slice::from_ref(&record), root).unwrap().version, record.version);
    drop(store);
    let (store, opened) = open();
    assert!(matches!(opened, GalleryOpened::Intact), "{opened:?}");
    assert_eq!((store.version(), store.root()), (record.version, root));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap().outbox().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "not a directory").unwrap();
    let error = edge_store::Outbox::open(&path, &keys, OutboxOptions::default(), at(0)).err().unwrap();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}
