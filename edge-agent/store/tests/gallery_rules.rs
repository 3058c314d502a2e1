//! The gallery store's promises, one by one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use edge_store::{ApplyError, DeviceKeys, Doubt, GalleryError, GalleryKeys, GalleryOpened, GalleryStore};
use gallery_log::{AppendError, Body, Kind, Log, Op, PersonBody, Record, RecordId, Root, TemplateBody};
use support::{Hub, gallery, gallery_keys};
use uuid::Uuid;

struct Device {
    dir: tempfile::TempDir,
    keys: DeviceKeys,
}

impl Device {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        Self { dir, keys }
    }

    fn open(&self) -> (GalleryStore, GalleryOpened) {
        self.open_at(&gallery_keys())
    }

    fn open_at(&self, keys: &GalleryKeys) -> (GalleryStore, GalleryOpened) {
        GalleryStore::open(&self.gallery_dir(), &self.keys, gallery(), keys).unwrap()
    }

    fn gallery_dir(&self) -> PathBuf {
        self.dir.path().join("gallery")
    }

    /// A device whose store is at `version`.
    fn filled(version: u64) -> Self {
        let device = Self::new();
        apply(&mut device.open().0, &mut Hub::new(), version);
        device
    }

    fn doubt(&self) -> Doubt {
        match self.open() {
            (store, GalleryOpened::Rebuilt { reason }) => {
                assert_eq!((store.version(), store.records().unwrap().len()), (0, 0));
                reason
            }
            (_, other) => panic!("expected a rebuild, found {other:?}"),
        }
    }
}

fn apply(store: &mut GalleryStore, hub: &mut Hub, count: u64) -> Root {
    let records: Vec<_> = (0..count).map(|_| hub.next()).collect();
    let root = records.last().unwrap().1;
    let records: Vec<_> = records.into_iter().map(|(record, _)| record).collect();
    store.apply(&records, root).unwrap();
    root
}

fn generations(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok().filter(|name| name.starts_with("generation")))
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_applied_is_there_after_a_restart() {
    let device = Device::new();
    let (mut store, opened) = device.open();
    assert!(matches!(opened, GalleryOpened::New));
    let root = apply(&mut store, &mut Hub::new(), 12);
    let records = store.records().unwrap();
    assert_eq!(store.count(Kind::Person) + store.count(Kind::Template), records.len() as u64);
    drop(store);
    let (store, opened) = device.open();
    assert!(matches!(opened, GalleryOpened::Intact));
    assert_eq!((store.version(), store.root(), store.epoch()), (12, root, 3));
    assert_eq!(store.records().unwrap(), records);
    assert_eq!(store.count(Kind::Person) + store.count(Kind::Template), records.len() as u64);
}

#[test]
fn a_store_goes_on_where_it_was_and_a_deleted_id_stays_dead() {
    let device = Device::filled(7);
    let (mut store, _) = device.open();
    let mut hub = Hub::new();
    for _ in 0..7 {
        hub.next();
    }
    apply(&mut store, &mut hub, 5);
    let deleted = RecordId::from_bytes((2_u128 << 64 | 0x5a).to_be_bytes());
    let again = Record {
        gallery: gallery(),
        epoch: 3,
        version: 13,
        op: Op::Put,
        kind: Kind::Person,
        id: deleted,
        rev: 9,
        body: vec![1],
    };
    let error = store.apply(&[again], Root([0; 32])).unwrap_err();
    assert!(matches!(error, ApplyError::Append(AppendError::Deleted { .. })), "{error}");
}

#[test]
fn a_database_that_lets_go_late_costs_no_gallery() {
    let device = Device::filled(7);
    let (store, _) = device.open();
    let (version, root) = (store.version(), store.root());
    drop(store);
    // As sled's own threads do it: the file is still locked for a moment after the database was dropped.
    let held = fs::File::open(device.gallery_dir().join("generation-1/db")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let late = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(held);
    });
    let (store, opened) = device.open();
    late.join().unwrap();
    assert!(matches!(opened, GalleryOpened::Intact), "{opened:?}");
    assert_eq!((store.version(), store.root()), (version, root));
}

#[test]
fn another_root_than_the_hubs_changes_nothing() {
    let device = Device::filled(5);
    let (mut store, _) = device.open();
    let before = (store.version(), store.root());
    let mut hub = Hub::new();
    for _ in 0..5 {
        hub.next();
    }
    let (record, root) = hub.next();
    let error = store.apply(std::slice::from_ref(&record), Root([1; 32])).unwrap_err();
    assert!(matches!(error, ApplyError::Root(_)), "{error}");
    assert_eq!((store.version(), store.root()), before);
    drop(store);
    let (mut store, _) = device.open();
    assert_eq!((store.version(), store.root()), before);
    assert_eq!(store.apply(&[record], root).unwrap().version, 6);
}

#[test]
fn a_hole_and_a_foreign_epoch_are_refused() {
    let device = Device::new();
    let (mut store, _) = device.open();
    let mut hub = Hub::new();
    hub.next();
    let (second, root) = hub.next();
    let error = store.apply(std::slice::from_ref(&second), root).unwrap_err();
    assert!(matches!(error, ApplyError::Append(AppendError::OutOfOrder { expected: 1, found: 2, .. })), "{error}");
    let foreign = Record { epoch: 2, version: 1, ..second };
    let error = store.apply(&[foreign], root).unwrap_err();
    assert!(matches!(error, ApplyError::Append(AppendError::OtherEpoch { .. })), "{error}");
}

#[test]
fn a_difference_is_remembered_and_gone_with_the_replacement() {
    let device = Device::filled(7);
    let (mut store, _) = device.open();
    assert!(store.differing().is_none());
    store.note_difference().unwrap();
    drop(store);
    let (mut store, opened) = device.open();
    assert!(matches!(opened, GalleryOpened::Intact), "what is there stays: {opened:?}");
    assert!(store.differing().is_some(), "a restart forgets nothing");

    // The hub went on with two records that the store never saw, and does not know the store's newest entry.
    let mut hub = Hub::new();
    let written: Vec<Record> = (0..9).map(|_| hub.next().0).collect();
    let mut log = Log::new(gallery(), gallery_keys().epoch);
    written.iter().for_each(|record| log.apply(record, &gallery_keys().digest).unwrap());
    let is_live = |record: &&Record| log.entry(record.id).is_some_and(|entry| entry.leaf.is_some());
    let live: Vec<Record> = written.iter().filter(is_live).filter(|r| r.op == Op::Put).cloned().collect();
    let all = (0..=255).collect();
    let root = log.root();
    let refused = store.replace(9, &all, live.clone(), Root([0; 32])).unwrap_err();
    assert!(matches!(refused, ApplyError::Root(_)), "{refused}");
    assert!(store.differing().is_some() && store.version() == 7);
    let older = store.replace(6, &all, Vec::new(), root).unwrap_err();
    assert!(matches!(older, ApplyError::Replace(_)), "{older}");
    store.replace(9, &all, live, root).unwrap();
    let (version, count) = (store.version(), store.count(Kind::Person) + store.count(Kind::Template));
    assert_eq!((version, store.root(), count), (9, root, log.live() as u64));
    assert!(store.differing().is_none());
    drop(store);
    let (store, opened) = device.open();
    assert!(matches!(opened, GalleryOpened::Intact), "{opened:?}");
    assert_eq!((store.version(), store.root()), (9, root));
    assert!(store.differing().is_none());
}

#[test]
fn a_store_that_begins_anew_differs_from_nothing() {
    let device = Device::filled(7);
    let (mut store, _) = device.open();
    store.note_difference().unwrap();
    store.destroy_and_restart(&gallery_keys()).unwrap();
    assert!(store.differing().is_none());
    drop(store);
    assert!(device.open().0.differing().is_none());
}

#[test]
fn an_old_copy_of_the_store_is_rebuilt() {
    let device = Device::filled(5);
    let copy = device.dir.path().join("copy");
    support::copy_dir(&device.gallery_dir().join("generation-1"), &copy);
    let (mut store, _) = device.open();
    let mut hub = Hub::new();
    for _ in 0..5 {
        hub.next();
    }
    apply(&mut store, &mut hub, 3);
    drop(store);
    fs::remove_dir_all(device.gallery_dir().join("generation-1")).unwrap();
    support::copy_dir(&copy, &device.gallery_dir().join("generation-1"));
    let doubt = device.doubt();
    assert!(matches!(doubt, Doubt::RolledBack { expected: 8, found: 5 }), "{doubt}");
    assert_eq!(generations(&device.gallery_dir()), ["generation-2"]);
}

#[test]
fn every_missing_or_damaged_part_is_a_doubt_and_destroys_the_key() {
    type Spoil = fn(&Device);
    let cases: [(&str, Spoil); 6] = [
        ("no watermark", |device| fs::remove_file(device.gallery_dir().join("watermark")).unwrap()),
        ("a forged watermark", |device| fs::write(device.gallery_dir().join("watermark"), [0; 8192]).unwrap()),
        ("no database", |device| fs::remove_file(device.gallery_dir().join("generation-1/db")).unwrap()),
        ("no directory", |device| fs::remove_dir_all(device.gallery_dir().join("generation-1")).unwrap()),
        ("no key", |device| fs::remove_file(store_key(device)).unwrap()),
        ("a damaged key", |device| {
            let mut bytes = fs::read(store_key(device)).unwrap();
            bytes[40] ^= 1;
            fs::write(store_key(device), bytes).unwrap();
        }),
    ];
    for (name, spoil) in cases {
        let device = Device::filled(5);
        spoil(&device);
        let doubt = device.doubt();
        assert!(!store_key(&device).exists(), "{name}: {doubt}: the old key is still there");
        let (mut store, opened) = device.open();
        assert!(matches!(opened, GalleryOpened::Intact), "{name}: {opened:?}");
        apply(&mut store, &mut Hub::new(), 6);
    }
}

fn store_key(device: &Device) -> PathBuf {
    device.dir.path().join(format!("keys/store-{}-1.sealed", gallery()))
}

#[test]
fn a_new_epoch_empties_the_store() {
    let device = Device::filled(5);
    let (store, opened) = device.open_at(&GalleryKeys { epoch: 4, ..gallery_keys() });
    assert!(matches!(opened, GalleryOpened::Rebuilt { reason: Doubt::Epoch { expected: 4, found: 3 } }), "{opened:?}");
    assert_eq!((store.epoch(), store.version()), (4, 0));
}

#[test]
fn a_rewrite_keeps_what_is_live_under_a_new_key() {
    let device = Device::filled(12);
    let (mut store, _) = device.open();
    let before = (store.version(), store.root(), store.records().unwrap());
    store.rewrite().unwrap();
    assert!(!store_key(&device).exists());
    assert_eq!(generations(&device.gallery_dir()), ["generation-2"]);
    assert_eq!((store.version(), store.root(), store.records().unwrap()), before);
    drop(store);
    let (store, opened) = device.open();
    assert!(matches!(opened, GalleryOpened::Intact), "{opened:?}");
    assert_eq!((store.version(), store.root(), store.records().unwrap()), before);
}

#[test]
fn what_was_deleted_is_owed_a_rewrite_until_it_was_made_restarts_included() {
    let (device, mut hub) = (Device::new(), Hub::new());
    let (mut store, _) = device.open();
    apply(&mut store, &mut hub, 4);
    assert!(!store.wants_rewrite());
    // The fifth is a deletion.
    apply(&mut store, &mut hub, 1);
    assert!(store.wants_rewrite());
    drop(store);
    let (mut store, _) = device.open();
    assert!(store.wants_rewrite(), "forgotten by a restart");
    store.rewrite().unwrap();
    assert!(!store.wants_rewrite());
    drop(store);
    assert!(!device.open().0.wants_rewrite());
}

#[test]
fn leftovers_of_an_interrupted_rewrite_are_removed() {
    let device = Device::filled(5);
    fs::create_dir(device.gallery_dir().join("generation-2")).unwrap();
    fs::write(device.gallery_dir().join("generation-2/db"), "half").unwrap();
    let (store, opened) = device.open();
    assert!(matches!(opened, GalleryOpened::Intact));
    assert_eq!(store.version(), 5);
    assert_eq!(generations(&device.gallery_dir()), ["generation-1"]);
}

#[test]
fn destroy_and_restart_begins_at_version_zero_with_a_new_key() {
    let device = Device::filled(5);
    let (mut store, _) = device.open();
    store.destroy_and_restart(&gallery_keys()).unwrap();
    assert_eq!((store.version(), store.count(Kind::Person)), (0, 0));
    assert!(!store_key(&device).exists());
    apply(&mut store, &mut Hub::new(), 4);
    drop(store);
    assert_eq!(device.open().0.version(), 4);
}

#[test]
fn a_store_that_is_no_longer_ours_leaves_nothing() {
    let device = Device::filled(5);
    device.keys.set_gallery(gallery(), &gallery_keys()).unwrap();
    device.open().0.destroy().unwrap();
    assert!(device.keys.gallery(gallery()).unwrap().is_none());
    assert!(!store_key(&device).exists());
    assert!(generations(&device.gallery_dir()).is_empty());
    assert!(matches!(device.open().1, GalleryOpened::New));
}

#[test]
fn a_second_opening_is_refused_and_harms_nothing() {
    let device = Device::filled(5);
    let (store, _) = device.open();
    let error = GalleryStore::open(&device.gallery_dir(), &device.keys, gallery(), &gallery_keys()).err().unwrap();
    assert!(matches!(error, GalleryError::InUse { .. }), "{error}");
    assert_eq!(store.records().unwrap().len(), 3);
}

#[test]
fn contents_are_decoded_and_unreadable_on_disk() {
    let device = Device::new();
    let (mut store, _) = device.open();
    let person = Uuid::from_u128(11);
    let template = TemplateBody {
        person,
        space_id: "canary-space".into(),
        quality: 0.5,
        embedding: Box::new(std::array::from_fn(|i| i as f32)),
    };
    let bodies = [
        (
            Kind::Person,
            person,
            Body::Person(PersonBody::new(gallery_log::body::PersonState::Active, None, None, vec![])),
        ),
        (Kind::Template, Uuid::from_u128(12), Body::Template(template.clone())),
    ];
    let mut log = Log::new(gallery(), 3);
    let records: Vec<_> = (1..)
        .zip(bodies)
        .map(|(version, (kind, id, body))| {
            let body = body.encode().unwrap();
            let record =
                Record { gallery: gallery(), epoch: 3, version, op: Op::Put, kind, id: RecordId(id), rev: 1, body };
            log.apply(&record, &gallery_keys().digest).unwrap();
            record
        })
        .collect();
    store.apply(&records, log.root()).unwrap();

    let contents = store.contents().unwrap();
    assert_eq!(contents.people.len(), 1);
    assert_eq!(contents.templates, [(RecordId(Uuid::from_u128(12)), template.clone())]);
    drop(store);
    let floats: Vec<u8> = template.embedding[100..104].iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut files = vec![device.gallery_dir()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for secret in [floats.as_slice(), b"canary-space"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
    }
}

#[test]
fn long_rules_in_one_leaf_survive_a_restart() {
    // Seventeen of these make sled write the leaf as a file of its own.
    let device = Device::new();
    let (mut store, _) = device.open();
    let mut log = Log::new(gallery(), 3);
    for version in 1..=40_u64 {
        let id = RecordId::from_bytes((u128::from(version) << 64).to_be_bytes());
        let body = vec![b'r'; 30_000];
        let record = Record { gallery: gallery(), epoch: 3, version, op: Op::Put, kind: Kind::Rule, id, rev: 1, body };
        log.apply(&record, &gallery_keys().digest).unwrap();
        store.apply(&[record], log.root()).unwrap();
    }
    drop(store);
    let (store, opened) = device.open();
    assert!(matches!(opened, GalleryOpened::Intact), "{opened:?}");
    assert_eq!(store.count(Kind::Rule), 40);
    let blobs = fs::read_dir(device.gallery_dir().join("generation-1/blobs")).unwrap().count();
    assert!(blobs > 0, "sled wrote no blob: the case is not tested");
}
