//! Downloads against the small hub's own snapshots: applied whole, refused when anything about them is wrong, resumed at any byte.

use edge_store::KeysError;
use proptest::prelude::*;
use wire_contract::V1;
use wire_contract::encoding::SecretBytes;

use super::super::receiver;
use super::super::testkit::{
    DEVICE, Device, GALLERY, HubGallery, NONCE, SnapshotParts, TENANT, hub_key, link_answer, now,
};
use super::*;
use crate::sync::healing::Parts;
use crate::sync::link;
use face_core::{Gallery as _, PersonId, Space};
use wire_contract::GalleryDown;

const ID: Uuid = Uuid::from_u128(0x5a);

fn addressee() -> Addressee {
    Addressee { tenant: TENANT, device: DEVICE, hub_keys: vec![hub_key()] }
}

fn hub(people: std::ops::Range<u128>) -> HubGallery {
    let mut hub = HubGallery::new(1);
    people.for_each(|person| hub.enrol(person));
    hub
}

/// A device that has the records of `hub`.
fn device_with(hub: &HubGallery) -> Device {
    let device = Device::new().linked();
    if hub.version() > 0 {
        let outcome = receiver::handle(
            &device.galleries,
            &device.keys,
            &mut Parts::default(),
            GalleryDown::Records(hub.message(1)),
        );
        assert_eq!(outcome, Outcome::Done);
    }
    device
}

fn dir(device: &Device) -> PathBuf {
    dir_of(device.dir.path(), GALLERY)
}

fn offered_of(hub: &HubGallery) -> Offered {
    Offered { id: ID, gallery: GALLERY, epoch: hub.epoch, version: hub.version() }
}

fn begin(device: &Device, parts: &SnapshotParts, offered: Offered) -> Result<Download, SnapshotError> {
    Download::begin(&dir(device), &device.keys, &addressee(), offered, &parts.answer)
}

fn stands(device: &Device) -> (u64, Root, bool) {
    let roster = device.galleries.roster().load_full();
    let line = &roster.lines()[0];
    (line.version, line.root, roster.ready())
}

fn knows(device: &Device, person: u128) -> bool {
    device.galleries.roster().load().snapshot().contains(PersonId(Uuid::from_u128(person)))
}

#[test]
fn a_snapshot_takes_the_place_of_what_was_there_and_who_is_not_in_it_is_buried() {
    let device = device_with(&hub(0..6));
    let mut later = hub(0..6);
    later.delete(2);
    (10..400).for_each(|person| later.enrol(person));
    let parts = later.snapshot(ID);
    assert!(parts.answer.manifest.chunks.len() > 2);
    let mut download = begin(&device, &parts, offered_of(&later)).unwrap();
    for piece in parts.content.chunks(100_000) {
        download.append(piece).unwrap();
    }
    assert!(download.is_complete());
    let replaced = download.apply(&device.galleries).unwrap();
    assert_eq!((replaced.received, replaced.removed), (790, 2));
    assert_eq!(stands(&device), (later.version(), later.root(), true));
    assert!(knows(&device, 1) && knows(&device, 399) && !knows(&device, 2));
    assert!(!dir(&device).exists(), "what was fetched is gone, with its key");
    // Records go on from there, and one of somebody who is not in it is refused.
    later.enrol(500);
    let message = GalleryDown::Records(later.message(later.version() - 1));
    let outcome = receiver::handle(&device.galleries, &device.keys, &mut Parts::default(), message);
    assert_eq!((outcome, stands(&device).1), (Outcome::Done, later.root()));
    let mut again = later.message(later.version());
    again.from = later.version() + 1;
    again.records[0] = later.message(1).records[4].clone();
    again.records[0].version = again.from;
    let outcome = receiver::handle(&device.galleries, &device.keys, &mut Parts::default(), GalleryDown::Records(again));
    assert_eq!(outcome, Outcome::Differs, "a put behind a del, which no snapshot undoes");
}

#[test]
fn an_offer_is_taken_up_only_where_it_brings_something() {
    let held = hub(0..3);
    let device = device_with(&held);
    let offer = |epoch, version| {
        let gallery = wire_contract::GalleryId(GALLERY.0);
        let offer = SnapshotOffer { v: V1, snapshot: ID, gallery, epoch, version, expires_at: now() };
        receiver::handle(&device.galleries, &device.keys, &mut Parts::default(), GalleryDown::Snapshot(offer))
    };
    let version = held.version() + 1;
    assert_eq!(offer(1, version), Outcome::Offered(Offered { id: ID, gallery: GALLERY, epoch: 1, version }));
    assert_eq!(offer(1, held.version()), Outcome::Done, "it is there already");
    assert_eq!(offer(1, 1), Outcome::Done, "older");
    assert_eq!(offer(0, version), Outcome::OlderEpoch { gallery: GALLERY, offered: 0, held: 1 });
    assert_eq!(offer(2, version), Outcome::FetchLink, "a higher epoch needs its keys first");
    device.galleries.set_aside(GALLERY).unwrap();
    assert!(matches!(offer(1, held.version()), Outcome::Offered(_)), "one that differs is replaced");
}

/// Everything that can be wrong with a snapshot: which error, and that the gallery stays as it was.
#[test]
fn what_the_hub_did_not_sign_is_refused_and_the_old_state_stays() {
    let held = hub(0..3);
    let mut later = hub(0..300);
    let offered = offered_of(&later);
    let good = later.snapshot(ID);
    type Change = fn(&mut SnapshotParts);
    let wrong: [(&str, Change, Code); 9] = [
        ("signature", |parts| parts.answer.manifest.signature.0[5] ^= 1, Code::SnapshotForged),
        ("root, unsigned", |parts| parts.answer.manifest.root.0[0] ^= 1, Code::SnapshotForged),
        ("another key", |parts| parts.sign_with([8; 32]), Code::SnapshotForged),
        (
            "another device",
            |parts| {
                parts.answer.manifest.device = DeviceId(Uuid::from_u128(1));
                parts.sign();
            },
            Code::SnapshotForged,
        ),
        (
            "a lower epoch",
            |parts| {
                parts.answer.manifest.epoch = 0;
                parts.sign();
            },
            Code::SnapshotForged,
        ),
        (
            "root, signed",
            |parts| {
                parts.answer.manifest.root.0[0] ^= 1;
                parts.sign();
            },
            Code::RootMismatch,
        ),
        ("a flipped bit", |parts| parts.content[1_000] ^= 1, Code::SnapshotDamaged),
        ("another snapshot's key", |parts| parts.answer.key = SecretBytes::new([1; 32]), Code::SnapshotDamaged),
        ("chunks swapped, by somebody who can sign", SnapshotParts::swap_chunks, Code::SnapshotDamaged),
    ];
    for (what, change, code) in wrong {
        let device = device_with(&held);
        let before = stands(&device);
        let mut parts = good.clone();
        change(&mut parts);
        let refused = begin(&device, &parts, offered).and_then(|mut download| {
            download.append(&parts.content)?;
            assert!(download.is_complete());
            download.apply(&device.galleries).map(drop)
        });
        let error = refused.expect_err(what);
        assert_eq!(error.code(), Some(code), "{what}: {error}");
        assert_eq!(stands(&device), before, "{what}");
        assert!(knows(&device, 1) && !knows(&device, 200), "{what}");
        // Nor after a restart.
        let (keys, galleries_dir) = (device.keys.clone(), device.dir.path().join("galleries"));
        drop(device.galleries);
        let (galleries, rebuilt) =
            Galleries::open(&galleries_dir, keys, &Space::plain(super::super::testkit::SPACE)).unwrap();
        assert!(rebuilt.is_empty(), "{what}");
        let line = galleries.roster().load().lines()[0].clone();
        assert_eq!((line.version, line.root), (before.0, before.1), "{what}");
    }
    let device = device_with(&held);
    let mut download = begin(&device, &good, offered).unwrap();
    download.append(&good.content).unwrap();
    download.apply(&device.galleries).unwrap();
    assert_eq!(stands(&device), (later.version(), later.root(), true), "the same without a fault");
}

#[test]
fn a_snapshot_of_another_epoch_or_hub_left_on_disk_is_not_gone_on_with() {
    let mut later = hub(0..50);
    let device = Device::new().linked();
    let (parts, offered) = (later.snapshot(ID), offered_of(&later));
    drop(begin(&device, &parts, offered).unwrap());
    let resume = |offered, to: &Addressee| Download::resume(&dir(&device), &device.keys, to, offered).unwrap();
    assert!(resume(offered, &addressee()).is_some());
    assert!(resume(Offered { id: Uuid::nil(), ..offered }, &addressee()).is_none());
    assert!(resume(Offered { epoch: 2, ..offered }, &addressee()).is_none());
    assert!(resume(offered, &Addressee { hub_keys: Vec::new(), ..addressee() }).is_none(), "no longer pinned");
    let answer = link_answer(2, &[]);
    link::take_in(&answer, NONCE, &device.identity, &device.keys, &device.galleries).unwrap();
    assert!(resume(offered, &addressee()).is_none(), "the gallery is no longer this device's, and its key is gone");
}

#[test]
fn an_empty_gallery_is_a_snapshot_too() {
    let device = device_with(&hub(0..2));
    let mut later = hub(0..2);
    later.delete(0);
    later.delete(1);
    let parts = later.snapshot(ID);
    let download = begin(&device, &parts, offered_of(&later)).unwrap();
    assert!(download.is_complete() && download.bytes() == 0);
    assert_eq!(download.apply(&device.galleries).unwrap().removed, 4);
    assert_eq!(stands(&device), (later.version(), later.root(), true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The line is cut at any bytes, the agent restarts at each, and now and then a power cut spoils the end of what is on
    /// disk: the gallery is whole in the end, and no byte that was good is fetched twice without a reason.
    #[test]
    fn a_download_goes_on_after_a_cut_at_any_byte(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 1..12),
    ) {
        let mut later = hub(0..350);
        let (parts, offered) = (later.snapshot(ID), offered_of(&later));
        let device = Device::new().linked();
        drop(begin(&device, &parts, offered).unwrap());
        let path = dir(&device).join("content");
        for (cut, fault) in cuts {
            let mut download =
                Download::resume(&dir(&device), &device.keys, &addressee(), offered).unwrap().expect("it is there");
            let held = usize::try_from(download.held()).unwrap();
            let rest = &parts.content[held..];
            // What was spoilt within a chunk that was not complete is found when it is.
            let _ = download.append(&rest[..cut.index(rest.len() + 1)]);
            let held = usize::try_from(download.held()).unwrap();
            drop(download);
            let mut on_disk = std::fs::read(&path).unwrap();
            prop_assert_eq!(on_disk.len(), held);
            match fault {
                // The length is there, the bytes are not.
                1 => { let from = held.saturating_sub(70_000); on_disk[from..].fill(0); }
                // The end is not there.
                2 => on_disk.truncate(held.saturating_sub(5_000)),
                _ => {}
            }
            std::fs::write(&path, &on_disk).unwrap();
        }
        let mut download =
            Download::resume(&dir(&device), &device.keys, &addressee(), offered).unwrap().expect("it is there");
        let mut attempts = 0;
        while !download.is_complete() {
            attempts += 1;
            prop_assert!(attempts < 5, "a spoilt chunk is cut off and fetched once more");
            let held = usize::try_from(download.held()).unwrap();
            let _ = download.append(&parts.content[held..]);
        }
        download.apply(&device.galleries).unwrap();
        prop_assert_eq!(stands(&device), (later.version(), later.root(), true));
    }
}

#[test]
fn what_the_disk_refuses_says_nothing_of_the_snapshot() {
    let error = SnapshotError::Keys(KeysError::Gone { path: PathBuf::from("x") });
    assert_eq!(error.code(), None);
}
