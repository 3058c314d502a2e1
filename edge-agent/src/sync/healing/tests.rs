use std::sync::Arc;

use face_core::{Gallery as _, PersonId};
use gallery_log::{DigestKey, Log};
use uuid::Uuid;
use wire_contract::gallery::{GalleryRecords, GalleryStand};
use wire_contract::{GalleryDown, Hash32, V1};

use super::*;
use crate::sync::receiver::handle;
use crate::sync::testkit::{Device, GALLERY, HubGallery, SPACE, gallery_secret};

/// People in the gallery before it comes apart: two records each.
const PEOPLE: u128 = 60;

/// A device whose store went another way than its hub's log from some version on, through the store's own rules, so that
/// nothing in it contradicts itself.
struct Apart {
    device: Device,
    hub: HubGallery,
    parts: Parts,
}

impl Apart {
    /// `hub` and `edge` are what each of them did last; both make the same number of records.
    fn new(hub: impl FnOnce(&mut HubGallery), edge: impl FnOnce(&mut HubGallery)) -> Self {
        let (device, mut truth) = (Device::new().linked(), HubGallery::new(1));
        (1..=PEOPLE).for_each(|person| truth.enrol(person));
        let mut other = truth.clone();
        hub(&mut truth);
        edge(&mut other);
        assert_eq!(truth.version(), other.version());
        let mut apart = Self { device, hub: truth, parts: Parts::default() };
        assert_eq!(apart.take(GalleryDown::Records(other.message(1))), Outcome::Done);
        apart
    }

    /// The hub has deleted somebody whom the device still has, and the device has somebody of its own.
    fn with_one_too_many() -> Self {
        Self::new(|hub| hub.delete(7), |edge| edge.enrol(1_000))
    }

    fn take(&mut self, message: GalleryDown) -> Outcome {
        handle(&self.device.galleries, &self.device.keys, &mut self.parts, message)
    }

    fn line(&self) -> GalleryLine {
        line_of(&self.device.galleries, GALLERY).unwrap()
    }

    fn compare(&self) -> GalleryDown {
        let line = self.line();
        let (gallery, root) = (wire_contract::GalleryId(GALLERY.0), Hash32(line.root.0));
        GalleryDown::Compare(GalleryCompare { v: V1, gallery, epoch: 1, version: line.version, root })
    }

    fn hashes(&self) -> GalleryHashes {
        let [GalleryUp::Hashes(hashes)] = &hashes(&self.device.galleries)[..] else { panic!("no hashes") };
        hashes.clone()
    }

    /// The hub's answer, taken in part by part; what the last one led to.
    fn heal(&mut self) -> Outcome {
        let said = self.hashes();
        let parts = self.hub.answer(&said);
        parts.into_iter().map(|part| self.take(GalleryDown::Buckets(part))).last().unwrap()
    }

    fn knows(&self, person: u128) -> bool {
        self.device.galleries.roster().load().snapshot().contains(PersonId(Uuid::from_u128(person)))
    }

    fn ready(&self) -> bool {
        self.device.galleries.roster().load().ready()
    }

    fn is_equal(&mut self) -> bool {
        let line = self.line();
        (line.version, line.root) == (self.hub.version(), self.hub.root())
    }
}

#[test]
fn a_deleted_person_whom_the_device_kept_is_found_and_goes_and_only_those_buckets_travel() {
    let mut apart = Apart::with_one_too_many();
    assert!(apart.knows(7) && apart.knows(1_000) && apart.ready(), "until somebody compares, nothing is wrong here");
    let question = apart.compare();
    assert_eq!(apart.take(question), Outcome::Differs);
    assert!(!apart.ready() && (1..=PEOPLE).all(|person| !apart.knows(person)), "nobody is let in by it meanwhile");
    let answer = apart.hub.answer(&apart.hashes());
    let [answer] = &answer[..] else { panic!("{} parts", answer.len()) };
    // Two entries of the deleted person, two of the one too many: four buckets at most, of 122 entries.
    assert!((1..=4).contains(&answer.buckets.len()), "{:?}", answer.buckets);
    assert!(answer.records.len() <= 12, "{} of {} records travelled", answer.records.len(), 2 * PEOPLE);
    let received = answer.records.len() as u64;
    let healed = apart.take(GalleryDown::Buckets(answer.clone()));
    let replaced = edge_store::Replaced { received, removed: 4 };
    let buckets = u32::try_from(answer.buckets.len()).unwrap();
    assert_eq!(healed, Outcome::Healed { gallery: GALLERY, epoch: 1, version: 122, buckets, replaced });
    assert!(!apart.knows(7) && !apart.knows(1_000) && apart.ready() && apart.is_equal());
    assert!((1..=PEOPLE).filter(|person| *person != 7).all(|person| apart.knows(person)));
    apart.hub.enrol(2_000);
    let next = GalleryDown::Records(apart.hub.message(123));
    assert_eq!(apart.take(next), Outcome::Done, "the log goes on from there");
    assert!(apart.knows(2_000) && apart.is_equal());
}

#[test]
fn somebody_whom_the_device_lost_comes_back() {
    let mut apart = Apart::new(|hub| hub.enrol(1_000), |edge| edge.delete(7));
    assert!(!apart.knows(7));
    let question = apart.compare();
    assert_eq!(apart.take(question), Outcome::Differs);
    assert!(matches!(apart.heal(), Outcome::Healed { .. }));
    assert!(apart.knows(7) && apart.knows(1_000) && apart.is_equal());
}

#[test]
fn records_that_do_not_follow_are_healed_without_a_question() {
    let mut apart = Apart::with_one_too_many();
    apart.hub.enrol(2_000);
    let next = GalleryDown::Records(apart.hub.message(123));
    assert_eq!(apart.take(next), Outcome::Differs);
    assert!(matches!(apart.heal(), Outcome::Healed { version: 124, .. }));
    assert!(apart.knows(2_000) && !apart.knows(7) && apart.is_equal());
}

#[test]
fn what_is_said_again_or_about_another_place_does_nothing() {
    let mut apart = Apart::with_one_too_many();
    let question = apart.compare();
    let answers = {
        let mut device = Apart::with_one_too_many();
        device.take(question.clone());
        device.hub.answer(&device.hashes())
    };
    for part in answers.clone() {
        assert_eq!(apart.take(GalleryDown::Buckets(part)), Outcome::Done, "nobody asked");
    }
    let GalleryDown::Compare(mut elsewhere) = question.clone() else { unreachable!() };
    elsewhere.root = Hash32([1; 32]);
    assert_eq!(apart.take(GalleryDown::Compare(elsewhere)), Outcome::Done);
    assert!(apart.knows(1) && apart.ready());

    apart.take(question.clone());
    assert!(matches!(apart.heal(), Outcome::Healed { .. }));
    assert_eq!(apart.take(question), Outcome::Done, "the question of before");
    for part in answers {
        assert_eq!(apart.take(GalleryDown::Buckets(part)), Outcome::Done, "the answer of before");
    }
    assert!(apart.ready() && apart.is_equal());
}

#[test]
fn buckets_of_before_a_deletion_do_not_bring_anybody_back() {
    let mut apart = Apart::with_one_too_many();
    let question = apart.compare();
    apart.take(question);
    let older = apart.hub.answer(&apart.hashes());
    apart.hub.delete(8);
    assert!(matches!(apart.heal(), Outcome::Healed { .. }));
    assert!(!apart.knows(8));
    // It comes apart again, and somebody has kept the answer of before.
    let mut lie = apart.hub.clone();
    lie.enrol(3_000);
    let mut message: GalleryRecords = lie.message(125);
    message.root = Hash32([9; 32]);
    assert_eq!(apart.take(GalleryDown::Records(message)), Outcome::Differs);
    for part in older {
        assert_eq!(apart.take(GalleryDown::Buckets(part)), Outcome::Done);
    }
    assert!(!apart.ready(), "an older state heals nothing");
    assert!(matches!(apart.heal(), Outcome::Healed { .. }));
    assert!(!apart.knows(8) && apart.is_equal());
}

#[test]
fn parts_are_put_together_in_any_order_and_nothing_happens_before_the_last() {
    // Everybody differs: the device followed nobody the hub knows.
    let mut apart = Apart::new(
        |hub| (2_000..2_060).for_each(|person| hub.enrol(person)),
        |edge| (1..=PEOPLE).for_each(|person| edge.delete(person)),
    );
    let question = apart.compare();
    apart.take(question);
    let mut parts = apart.hub.answer(&apart.hashes());
    assert!(parts.len() >= 3, "{} parts", parts.len());
    parts.reverse();
    let last = parts.pop().unwrap();
    for part in parts.iter().chain(&parts) {
        assert_eq!(apart.take(GalleryDown::Buckets(part.clone())), Outcome::Done);
        assert!(!apart.ready());
    }
    let mut of_another = last.clone();
    of_another.version += 1;
    assert_eq!(apart.take(GalleryDown::Buckets(of_another)), Outcome::Done, "another answer takes its place");
    assert_eq!(apart.take(GalleryDown::Buckets(last)), Outcome::Done, "and so does the first one again");
    for part in parts {
        apart.take(GalleryDown::Buckets(part));
    }
    assert!(apart.ready() && apart.is_equal() && apart.knows(2_059) && apart.knows(1));
}

#[test]
fn an_answer_that_does_not_heal_is_the_second_failure() {
    let mut apart = Apart::with_one_too_many();
    let question = apart.compare();
    apart.take(question);
    let mut parts = apart.hub.answer(&apart.hashes());
    parts[0].root = Hash32([1; 32]);
    let thrown = Outcome::ThrownAway { gallery: GALLERY, epoch: 1, code: Code::RootMismatch };
    assert_eq!(apart.take(GalleryDown::Buckets(parts.remove(0))), thrown);
    assert_eq!(apart.line().version, 0);
    assert!(apart.line().differing.is_none(), "what is empty differs from nothing");
    let all = GalleryDown::Records(apart.hub.message(1));
    assert_eq!(apart.take(all), Outcome::Done);
    assert!(apart.ready() && apart.is_equal() && !apart.knows(7));
}

#[test]
fn a_restart_does_not_make_it_searched() {
    let mut apart = Apart::with_one_too_many();
    let question = apart.compare();
    apart.take(question);
    let said = apart.hashes();
    let Apart { device, hub, .. } = apart;
    let Device { dir, keys, galleries, outbox, identity } = device;
    drop(galleries);
    let (galleries, rebuilt) =
        Galleries::open(&dir.path().join("galleries"), keys.clone(), &face_core::Space::plain(SPACE)).unwrap();
    assert!(rebuilt.is_empty());
    let device = Device { dir, keys, galleries: Arc::new(galleries), outbox, identity };
    let mut apart = Apart { device, hub, parts: Parts::default() };
    assert!(!apart.ready() && !apart.knows(1));
    assert_eq!(apart.hashes(), said);
    assert!(matches!(apart.heal(), Outcome::Healed { .. }));
    assert!(apart.ready() && apart.is_equal());
}

#[test]
fn an_order_to_rebuild_is_obeyed_while_it_is_set_aside() {
    let mut apart = Apart::with_one_too_many();
    let question = apart.compare();
    apart.take(question);
    let line = apart.line();
    let answers = Some(GalleryStand { version: line.version, root: Hash32(line.root.0) });
    let gallery = wire_contract::GalleryId(GALLERY.0);
    let order =
        wire_contract::gallery::GalleryRebuild { v: V1, gallery, epoch: 1, reason: Code::RootMismatch, answers };
    assert!(matches!(apart.take(GalleryDown::Rebuild(order)), Outcome::ThrownAway { .. }));
    assert!(!apart.knows(7));
}

#[test]
fn hashes_are_those_of_the_log() {
    let mut apart = Apart::with_one_too_many();
    let question = apart.compare();
    apart.take(question);
    let key = DigestKey::new(gallery_secret(1));
    let mut log = Log::new(GALLERY, 1);
    let mut other = HubGallery::new(1);
    (1..=PEOPLE).for_each(|person| other.enrol(person));
    other.enrol(1_000);
    for record in other.message(1).records {
        log.apply(&into_record(GALLERY, 1, record), &key).unwrap();
    }
    assert_eq!(*apart.hashes().hashes().unwrap(), log.buckets().map(|bucket| bucket.0));
}
