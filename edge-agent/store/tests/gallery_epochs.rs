//! A gallery that goes on under other keys: what is kept, and what a power cut on the way costs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::PathBuf;

use edge_store::{ApplyError, DeviceKeys, Doubt, GalleryKeys, GalleryOpened, GalleryStore};
use gallery_log::{AppendError, DigestKey, Kind, Log, Op, Record, Root};
use support::{Hub, copy_dir, gallery, gallery_keys};

/// The records before the new epoch: three of them are deletions.
const VERSION: u64 = 17;

fn new_keys() -> GalleryKeys {
    GalleryKeys { epoch: 4, digest: DigestKey::new([10; 32]), credential: [5; 32].into() }
}

/// The hub's log of the new epoch after as many records.
fn rekeyed(version: u64) -> (Log, Hub) {
    let (mut log, mut hub) = (Log::new(gallery(), 4), Hub::new());
    for _ in 0..version {
        log.apply(&Record { epoch: 4, ..hub.next().0 }, &new_keys().digest).unwrap();
    }
    (log, hub)
}

struct Device {
    dir: tempfile::TempDir,
    keys: DeviceKeys,
}

impl Device {
    /// A device that has been given the gallery and has all of it.
    fn filled() -> (Self, GalleryStore) {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        keys.set_gallery(gallery(), &gallery_keys()).unwrap();
        let device = Self { dir, keys };
        let (mut store, mut hub) = (device.open().0, Hub::new());
        let written: Vec<_> = (0..VERSION).map(|_| hub.next()).collect();
        let root = written.last().unwrap().1;
        store.apply(&written.into_iter().map(|(record, _)| record).collect::<Vec<_>>(), root).unwrap();
        (device, store)
    }

    /// Opens the store as a start does: under the keys that are stored.
    fn open(&self) -> (GalleryStore, GalleryOpened) {
        let keys = self.keys.gallery(gallery()).unwrap().unwrap();
        GalleryStore::open(&self.gallery_dir(), &self.keys, gallery(), &keys).unwrap()
    }

    fn gallery_dir(&self) -> PathBuf {
        self.dir.path().join("gallery")
    }

    fn key_file(&self) -> PathBuf {
        self.dir.path().join(format!("keys/gallery-{}.sealed", gallery()))
    }

    fn generations(&self) -> Vec<String> {
        let names = fs::read_dir(self.gallery_dir()).unwrap();
        let names = names.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        names.filter(|name| name.starts_with("generation")).collect()
    }
}

/// All that may be seen of a store, bodies included.
#[derive(Debug, PartialEq)]
struct Seen {
    version: u64,
    entries: Vec<(u64, Kind, Vec<u8>)>,
}

fn seen(store: &GalleryStore) -> Seen {
    let records = store.records().unwrap().into_iter();
    let entries = records.map(|record| (record.version, record.kind, record.body)).collect();
    Seen { version: store.version(), entries }
}

fn assert_followed(store: &GalleryStore, before: &Seen) {
    assert_eq!(&seen(store), before);
    assert_eq!((store.epoch(), store.root()), (4, rekeyed(VERSION).0.root()));
    assert!(store.records().unwrap().iter().all(|record| record.epoch == 4));
}

#[test]
fn a_new_epoch_keeps_what_is_there_under_the_new_key_and_goes_on() {
    let (device, mut store) = Device::filled();
    let before = seen(&store);
    device.keys.set_gallery(gallery(), &new_keys()).unwrap();
    store.begin_epoch(&new_keys()).unwrap();
    assert_followed(&store, &before);
    assert_eq!(device.generations(), ["generation-2"]);

    let (mut log, mut hub) = rekeyed(VERSION);
    let next = Record { epoch: 4, ..hub.next().0 };
    log.apply(&next, &new_keys().digest).unwrap();
    assert_eq!(store.apply(&[next], log.root()).unwrap().version, VERSION + 1);
    drop(store);
    let (mut store, opened) = device.open();
    assert!(matches!(opened, GalleryOpened::Intact), "{opened:?}");
    assert_eq!((store.epoch(), store.version(), store.root()), (4, VERSION + 1, log.root()));

    let deleted = Hub::new().nth(2);
    let again = Record { epoch: 4, version: VERSION + 2, rev: 9, op: Op::Put, ..deleted };
    let refused = store.apply(&[again], Root([0; 32])).unwrap_err();
    assert!(
        matches!(refused, ApplyError::Append(AppendError::Deleted { .. })),
        "buried before the new epoch: {refused}"
    );
}

#[test]
fn a_power_cut_anywhere_on_the_way_to_a_new_epoch_costs_no_gallery() {
    type Cut = fn(&Device, GalleryStore);
    let cuts: [(&str, Cut); 4] = [
        ("the keys are stored", |_, store| drop(store)),
        ("half of the new generation is there", |device, store| {
            drop(store);
            fs::create_dir(device.gallery_dir().join("generation-2")).unwrap();
            fs::write(device.gallery_dir().join("generation-2/db"), "half").unwrap();
        }),
        ("the old generation is still there", |device, mut store| {
            let (old, kept) = (device.gallery_dir().join("generation-1"), device.dir.path().join("kept"));
            copy_dir(&old, &kept);
            store.begin_epoch(&new_keys()).unwrap();
            drop(store);
            copy_dir(&kept, &old);
        }),
        ("the former key is still there", |device, mut store| {
            let kept = fs::read(device.key_file()).unwrap();
            store.begin_epoch(&new_keys()).unwrap();
            drop(store);
            fs::write(device.key_file(), kept).unwrap();
        }),
    ];
    for (name, cut) in cuts {
        let (device, store) = Device::filled();
        let (before, unkept) = (seen(&store), fs::metadata(device.key_file()).unwrap().len());
        device.keys.set_gallery(gallery(), &new_keys()).unwrap();
        assert!(fs::metadata(device.key_file()).unwrap().len() > unkept, "the former key is kept until then");
        cut(&device, store);
        let (store, opened) = device.open();
        assert!(matches!(opened, GalleryOpened::Intact), "{name}: {opened:?}");
        assert_followed(&store, &before);
        assert_eq!(device.generations(), ["generation-2"], "{name}");
        assert_eq!(fs::metadata(device.key_file()).unwrap().len(), unkept, "{name}: the former key is gone");
        drop(store);
        let (store, opened) = device.open();
        assert!(matches!(opened, GalleryOpened::Intact), "{name}: {opened:?}");
        assert_followed(&store, &before);
    }
}

#[test]
fn a_device_that_was_off_for_several_epochs_of_keys_follows_to_the_last() {
    let (device, store) = Device::filled();
    let before = seen(&store);
    drop(store);
    device.keys.set_gallery(gallery(), &new_keys()).unwrap();
    let last = GalleryKeys { epoch: 5, digest: DigestKey::new([11; 32]), ..new_keys() };
    device.keys.set_gallery(gallery(), &last).unwrap();
    let (store, opened) = device.open();
    assert!(matches!(opened, GalleryOpened::Intact), "{opened:?}");
    assert_eq!((store.epoch(), seen(&store)), (5, before));
}

#[test]
fn a_difference_that_was_noted_stays_one() {
    let (device, mut store) = Device::filled();
    store.note_difference().unwrap();
    device.keys.set_gallery(gallery(), &new_keys()).unwrap();
    store.begin_epoch(&new_keys()).unwrap();
    let (mut log, _) = rekeyed(VERSION);
    assert_eq!(store.differing().map(|hashes| **hashes), Some(log.buckets()));
    drop(store);
    assert!(device.open().0.differing().is_some());
}

#[test]
fn a_store_of_a_higher_epoch_than_its_keys_is_doubted() {
    let (device, mut store) = Device::filled();
    let kept = fs::read(device.key_file()).unwrap();
    device.keys.set_gallery(gallery(), &new_keys()).unwrap();
    store.begin_epoch(&new_keys()).unwrap();
    drop(store);
    fs::write(device.key_file(), kept).unwrap();
    let (store, opened) = device.open();
    let doubt = matches!(opened, GalleryOpened::Rebuilt { reason: Doubt::Epoch { expected: 3, found: 4 } });
    assert!(doubt, "{opened:?}");
    assert_eq!(store.version(), 0);
}
