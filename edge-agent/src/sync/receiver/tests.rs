use face_core::{Gallery as _, PersonId};
use uuid::Uuid;
use wire_contract::gallery::GalleryUp;

use super::*;
use crate::sync::testkit::{Device, GALLERY, HubGallery};

fn records(message: GalleryRecords) -> GalleryDown {
    GalleryDown::Records(message)
}

fn version(device: &Device) -> u64 {
    device.galleries.roster().load().lines()[0].version
}

fn knows(device: &Device, person: u128) -> bool {
    device.galleries.roster().load().snapshot().contains(PersonId(Uuid::from_u128(person)))
}

fn take(device: &Device, message: GalleryDown) -> Outcome {
    handle(&device.galleries, &device.keys, &mut Parts::default(), message)
}

#[test]
fn people_come_and_go_and_the_report_says_where_the_snapshot_stands() {
    let (device, mut hub) = (Device::new().linked(), HubGallery::new(1));
    hub.enrol(1);
    hub.enrol(2);
    assert_eq!(take(&device, records(hub.message(1))), Outcome::Done);
    assert!(knows(&device, 1) && knows(&device, 2));
    hub.delete(1);
    assert_eq!(take(&device, records(hub.message(5))), Outcome::Done);
    assert!(!knows(&device, 1) && knows(&device, 2));
    let GalleryUp::State { galleries, .. } = state_report(&device.galleries) else { panic!("not a state") };
    let expected = GalleryState {
        gallery: wire_contract::GalleryId(GALLERY.0),
        epoch: 1,
        version: hub.version(),
        root: Hash32(hub.root().0),
        condition: GalleryCondition::Ready,
    };
    assert_eq!(galleries, [expected]);
}

#[test]
fn a_wrong_root_is_never_served() {
    let (device, mut hub) = (Device::new().linked(), HubGallery::new(1));
    hub.enrol(1);
    assert_eq!(take(&device, records(hub.message(1))), Outcome::Done);
    hub.enrol(2);
    let mut lie = hub.message(3);
    lie.root = Hash32([0; 32]);
    assert_eq!(take(&device, records(lie)), Outcome::Differs);
    assert!(!knows(&device, 1) && !knows(&device, 2), "nobody is served from a gallery that differs");
    assert!(!device.galleries.roster().load().ready());
    assert_eq!(version(&device), 2, "what is there stays to be compared");
    assert_eq!(take(&device, records(hub.message(3))), Outcome::Done, "the answer brings these as well");
    assert_eq!(version(&device), 2);
    let [GalleryUp::State { galleries, .. }, GalleryUp::Hashes(hashes)] = &reports(&device.galleries)[..] else {
        panic!("not a state and hashes")
    };
    assert_eq!(galleries[0].condition, GalleryCondition::Rebuilding);
    let [answer] = &hub.answer(hashes)[..] else { panic!("not one part") };
    assert!(matches!(take(&device, GalleryDown::Buckets(answer.clone())), Outcome::Healed { version: 4, .. }));
    assert!(knows(&device, 1) && knows(&device, 2));
    assert!(device.galleries.roster().load().ready());
}

#[test]
fn a_changed_body_is_a_wrong_root() {
    let (device, mut hub) = (Device::new().linked(), HubGallery::new(1));
    hub.enrol(1);
    let mut changed = hub.message(1);
    let body = &mut changed.records[1].body.0;
    let end = body.len();
    body[end - 1] ^= 1;
    assert_eq!(take(&device, records(changed)), Outcome::Differs);
    assert!(!knows(&device, 1));
}

#[test]
fn what_is_known_is_passed_over_and_what_is_missing_is_asked_for() {
    let (device, mut hub) = (Device::new().linked(), HubGallery::new(1));
    hub.enrol(1);
    take(&device, records(hub.message(1)));
    assert_eq!(take(&device, records(hub.message(1))), Outcome::Done, "the same again");
    assert_eq!(version(&device), 2);
    hub.enrol(2);
    assert_eq!(take(&device, records(hub.message(1))), Outcome::Done, "half of it known");
    assert_eq!(version(&device), 4);
    hub.enrol(3);
    hub.enrol(4);
    assert_eq!(take(&device, records(hub.message(7))), Outcome::Report, "a hole");
    assert_eq!(version(&device), 4);
    let mut mixed = hub.message(5);
    mixed.records.swap(0, 1);
    assert_eq!(take(&device, records(mixed)), Outcome::Report, "not in order");
    assert!(knows(&device, 1) && knows(&device, 2), "none of this harms what is there");
}

#[test]
fn an_id_that_comes_back_is_a_difference() {
    let (device, mut hub) = (Device::new().linked(), HubGallery::new(1));
    hub.enrol(1);
    hub.delete(1);
    take(&device, records(hub.message(1)));
    let mut again = hub.message(1);
    again.from = 5;
    again.records.truncate(2);
    for (version, record) in (5..).zip(&mut again.records) {
        record.version = version;
        record.rev = 9;
    }
    assert_eq!(take(&device, records(again)), Outcome::Differs);
    assert!(!knows(&device, 1));
}

#[test]
fn another_epoch_or_gallery_needs_new_keys_and_an_older_one_is_refused() {
    let (device, mut newer) = (Device::new().linked(), HubGallery::new(2));
    newer.enrol(1);
    assert_eq!(take(&device, records(newer.message(1))), Outcome::FetchLink);
    let mut foreign = newer.message(1);
    foreign.gallery = wire_contract::GalleryId(Uuid::nil());
    assert_eq!(take(&device, records(foreign)), Outcome::FetchLink);
    let mut older = HubGallery::new(0);
    older.enrol(1);
    let refused = Outcome::OlderEpoch { gallery: GALLERY, offered: 0, held: 1 };
    assert_eq!(take(&device, records(older.message(1))), refused);
    assert_eq!(version(&device), 0, "nothing was applied");
    assert_eq!(take(&device, GalleryDown::Rebuild(order(2, None))), Outcome::FetchLink);
    assert_eq!(take(&device, GalleryDown::Rebuild(order(0, None))), refused);
}

fn order(epoch: u32, answers: Option<GalleryStand>) -> GalleryRebuild {
    GalleryRebuild { v: V1, gallery: wire_contract::GalleryId(GALLERY.0), epoch, reason: Code::RootMismatch, answers }
}

#[test]
fn the_hubs_order_to_rebuild_empties_the_gallery_once() {
    let (device, mut hub) = (Device::new().linked(), HubGallery::new(1));
    hub.enrol(1);
    take(&device, records(hub.message(1)));
    assert_eq!(take(&device, GalleryDown::Rebuild(order(1, None))), Outcome::Report, "an answer to nothing");
    let elsewhere = GalleryStand { version: 2, root: Hash32([7; 32]) };
    assert_eq!(take(&device, GalleryDown::Rebuild(order(1, Some(elsewhere)))), Outcome::Report);
    assert!(knows(&device, 1));
    let answers = Some(GalleryStand { version: 2, root: Hash32(hub.root().0) });
    let rightful = GalleryDown::Rebuild(order(1, answers));
    let thrown = Outcome::ThrownAway { gallery: GALLERY, epoch: 1, code: Code::RootMismatch };
    assert_eq!(take(&device, rightful.clone()), thrown);
    assert!(!knows(&device, 1));
    // The same bytes again, while it is being filled and after more came: whoever has the broker has them too.
    assert_eq!(take(&device, rightful.clone()), Outcome::Report, "it is empty already");
    hub.enrol(2);
    take(&device, records(hub.message(1)));
    assert_eq!(take(&device, rightful), Outcome::Report);
    assert!(knows(&device, 1) && knows(&device, 2), "an order that is delivered again empties nothing");
    assert_eq!(take(&device, GalleryDown::Unknown), Outcome::Done);
}

#[test]
fn messages_that_continue_one_another_are_joined_and_others_are_not() {
    let mut hub = HubGallery::new(1);
    (1..=3).for_each(|person| hub.enrol(person));
    let whole = hub.message(1);
    let part = |from: usize, to: usize| {
        let mut part = whole.clone();
        part.from = u64::try_from(from).unwrap();
        part.records = whole.records[from - 1..to].to_vec();
        part.root = Hash32([u8::try_from(to).unwrap(); 32]);
        records(part)
    };
    let [joined] = &join(vec![part(1, 2), part(3, 4), part(5, 6)])[..] else { panic!("not one message") };
    let mut expected = whole.clone();
    expected.root = Hash32([6; 32]);
    assert_eq!(joined, &records(expected));
    assert_eq!(join(vec![part(1, 2), part(4, 6)]).len(), 2, "a hole");
    assert_eq!(join(vec![part(1, 2), GalleryDown::Unknown, part(3, 4)]).len(), 3, "something in between");
    let mut other = whole.clone();
    other.from = 3;
    other.epoch = 2;
    assert_eq!(join(vec![part(1, 2), records(other)]).len(), 2, "another epoch");
}
