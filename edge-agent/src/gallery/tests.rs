use face_core::{ClarityScale, DIM, Embedding, Gallery as _, PersonId, Space};
use gallery_log::body::PersonState;
use gallery_log::{AnchorBody, Body, DigestKey, Kind, Log, Op, PersonBody, RecordId, TemplateBody};
use time::OffsetDateTime;
use time::macros::datetime;

use uuid::Uuid;

use super::*;
use crate::clock::{ClockQuality, WallTime};

const SPACE: &str = "faces-1";
const NOON: OffsetDateTime = datetime!(2026-11-22 12:00:00 UTC);

fn towards(axis: usize) -> Box<[f32; DIM]> {
    let mut raw = Box::new([0.0; DIM]);
    raw[axis] = 1.0;
    raw
}

const OTHER: GalleryId = GalleryId(Uuid::from_u128(101));

/// A hub that writes one gallery's log, and the device's copy of it.
struct Copy {
    galleries: Galleries,
    gallery: GalleryId,
    keys: GalleryKeys,
    log: Log,
    dir: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        Self::of(&Space::plain(SPACE))
    }

    fn of(space: &Space) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let gallery = GalleryId(Uuid::from_u128(100));
        let keys = GalleryKeys { epoch: 1, digest: DigestKey::new([4; 32]), credential: Default::default() };
        device.set_gallery(gallery, &keys).unwrap();
        let (galleries, rebuilt) = Galleries::open(&dir.path().join("galleries"), device, space).unwrap();
        assert!(rebuilt.is_empty());
        Self { galleries, gallery, keys, log: Log::new(gallery, 1), dir }
    }

    fn record(&self, op: Op, kind: Kind, id: u128, body: Option<Body>) -> Record {
        let body = body.map_or_else(Vec::new, |body| body.encode().unwrap());
        let version = self.log.version() + 1;
        // A deletion is a revision too.
        let rev = if op == Op::Put { 1 } else { 2 };
        Record { gallery: self.gallery, epoch: 1, version, op, kind, id: RecordId(Uuid::from_u128(id)), rev, body }
    }

    fn apply(&mut self, record: Record) {
        self.log.apply(&record, &self.keys.digest).unwrap();
        self.galleries.apply(self.gallery, &[record], self.log.root()).unwrap();
    }

    fn person(&mut self, id: u128, body: PersonBody) {
        let record = self.record(Op::Put, Kind::Person, id, Some(Body::Person(body)));
        self.apply(record);
    }

    fn template(&mut self, id: u128, person: u128, space: &str, axis: usize) {
        let person = Uuid::from_u128(person);
        let body = TemplateBody { person, space_id: space.to_owned(), quality: 0.9, embedding: towards(axis) };
        let record = self.record(Op::Put, Kind::Template, id, Some(Body::Template(body)));
        self.apply(record);
    }

    fn anchor(&mut self, id: u128, person: u128, space: &str, axis: usize) {
        let person = Uuid::from_u128(person);
        let body = AnchorBody { person, space_id: space.to_owned(), quality: 0.9, embedding: towards(axis) };
        let record = self.record(Op::Put, Kind::Anchor, id, Some(Body::Anchor(body)));
        self.apply(record);
    }

    fn enrol(&mut self, person: u128, axis: usize) {
        self.person(person, PersonBody::new(PersonState::Active, None, None, Vec::new()));
        self.template(person + 1_000, person, SPACE, axis);
    }

    fn delete(&mut self, kind: Kind, id: u128) {
        let record = self.record(Op::Del, kind, id, None);
        self.apply(record);
    }

    /// A person in a second gallery of the same device.
    fn person_elsewhere(&self, gallery: GalleryId, person: u128, body: PersonBody) {
        self.galleries.assign(gallery, &self.keys).unwrap();
        let (id, body) = (RecordId(Uuid::from_u128(person)), Body::Person(body).encode().unwrap());
        let record = Record { gallery, epoch: 1, version: 1, op: Op::Put, kind: Kind::Person, id, rev: 1, body };
        let mut log = Log::new(gallery, 1);
        log.apply(&record, &self.keys.digest).unwrap();
        self.galleries.apply(gallery, &[record], log.root()).unwrap();
    }

    fn store_dir(&self) -> PathBuf {
        self.dir.path().join("galleries").join(self.gallery.to_string())
    }

    /// Makes the next write fail, and so the store be opened again by whatever comes after it.
    fn write_fails(&mut self) {
        let blobs = self.store_dir().join("generation-1/blobs");
        let _ = std::fs::remove_dir_all(&blobs);
        std::fs::write(&blobs, "not a folder").unwrap();
        let body = PersonBody::new(PersonState::Active, None, None, Vec::new());
        let record = self.record(Op::Put, Kind::Person, 9, Some(Body::Person(body)));
        self.log.apply(&record, &self.keys.digest).unwrap();
        let refused = self.galleries.apply(self.gallery, &[record], self.log.root());
        assert!(matches!(refused, Err(RosterError::Apply { source: ApplyError::Store(_), .. })), "{refused:?}");
        std::fs::remove_file(&blobs).unwrap();
    }

    fn standing(&self, person: u128, wall: WallTime) -> Standing {
        self.galleries.roster().load().standing(PersonId(Uuid::from_u128(person)), wall)
    }
}

fn noon() -> WallTime {
    WallTime { utc: NOON, quality: ClockQuality::Synchronised }
}

#[test]
fn an_enrolled_person_is_found_and_may_enter() {
    let mut copy = Copy::new();
    assert!(!copy.galleries.roster().load().ready(), "an empty copy decides nothing");
    copy.enrol(1, 0);
    let roster = copy.galleries.roster().load_full();
    assert!(roster.ready());
    let probe = Embedding::from_slice(towards(0).as_slice()).unwrap();
    assert_eq!(roster.snapshot().search(&probe, 1)[0].person, PersonId(Uuid::from_u128(1)));
    assert_eq!(copy.standing(1, noon()), Standing::Member);
    assert_eq!(copy.standing(2, noon()), Standing::Absent);
    let line = &roster.lines()[0];
    assert_eq!((line.version, line.people, line.templates), (2, 1, 1));
    assert_eq!(line.root, copy.log.root());
}

#[test]
fn negative_anchors_are_in_the_snapshot_of_their_person_alone_restarts_included_and_go_with_their_record() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    copy.enrol(2, 1);
    copy.anchor(50, 1, SPACE, 7);
    copy.anchor(51, 1, "another-space", 8);
    let probe = Embedding::from_slice(towards(7).as_slice()).unwrap();
    let seen = |galleries: &Galleries| {
        let roster = galleries.roster().load_full();
        let ranked = roster.snapshot().candidates(&probe);
        let of =
            |person: u128| ranked.iter().copied().filter(|row| row.person.0.as_u128() == person).collect::<Vec<_>>();
        let anchors = roster.snapshot().anchors(&probe, &of(1));
        assert!(roster.snapshot().anchors(&probe, &of(2)).is_empty(), "an anchor of one says nothing of the other");
        assert_eq!((roster.snapshot().len(), roster.snapshot().n_people()), (2, 2), "it is nobody's template");
        anchors.iter().map(|row| (row.template.0.as_u128(), row.similarity.value())).collect::<Vec<_>>()
    };
    assert_eq!(seen(&copy.galleries), [(50, 1.0)], "and not the one that cannot be compared");
    copy.delete(Kind::Anchor, 50);
    assert!(seen(&copy.galleries).is_empty());
    copy.anchor(52, 1, SPACE, 7);
    let Copy { galleries, dir, .. } = copy;
    drop(galleries);
    let device = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
    let (again, rebuilt) = Galleries::open(&dir.path().join("galleries"), device, &Space::plain(SPACE)).unwrap();
    assert!(rebuilt.is_empty());
    assert_eq!(seen(&again), [(52, 1.0)]);
}

#[test]
fn a_template_is_docked_by_the_clarity_in_its_record() {
    let clarity = Some(ClarityScale::new(1.0, 2.0, 0.1).unwrap());
    let similarity = |space: &Space| {
        let mut copy = Copy::of(space);
        copy.enrol(1, 0);
        let probe = Embedding::from_slice(towards(0).as_slice()).unwrap().with_handicap(0.05);
        copy.galleries.roster().load().snapshot().search(&probe, 1)[0].similarity.value()
    };
    // The record says 0.9: 0.4 above the middle, of a weight of 0.1, and the probe is clearer.
    assert!((similarity(&Space { id: SPACE.to_owned(), clarity }) - 0.92).abs() < 1e-5);
    assert!((similarity(&Space::plain(SPACE)) - 1.0).abs() < 1e-5, "a pack without a scale goes by the cosine");
}

#[test]
fn what_was_deleted_is_unreadable_on_disk_once_it_was_tidied() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    copy.enrol(2, 1);
    assert!(copy.galleries.tidy());
    let of_store = |generation: u32| copy.store_dir().join(format!("generation-{generation}"));
    let (first, second) = (of_store(1), of_store(2));
    assert!(first.exists(), "nothing was deleted yet");
    copy.delete(Kind::Person, 1);
    copy.delete(Kind::Template, 1_001);
    assert!(first.exists(), "a deletion waits for no rewrite");
    assert!(copy.galleries.tidy());
    assert!(second.exists() && !first.exists());
    assert_eq!(copy.standing(2, noon()), Standing::Member);
    copy.enrol(3, 2);
    assert_eq!(copy.standing(3, noon()), Standing::Member);
}

#[test]
fn a_deleted_person_is_gone_when_apply_returns_and_after_a_restart() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    copy.enrol(2, 1);
    let mut changes = copy.galleries.changes();
    changes.mark_unchanged();
    copy.delete(Kind::Person, 1);
    assert_eq!(copy.standing(1, noon()), Standing::Absent);
    assert_eq!(copy.galleries.roster().load().snapshot().len(), 1, "the template of a deleted person is searched");
    assert!(changes.has_changed().unwrap(), "open doors must hear of it");
    let Copy { galleries, dir, log, .. } = copy;
    drop(galleries);
    let device = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
    let (again, rebuilt) = Galleries::open(&dir.path().join("galleries"), device, &Space::plain(SPACE)).unwrap();
    assert!(rebuilt.is_empty());
    let roster = again.roster().load_full();
    assert_eq!(roster.standing(PersonId(Uuid::from_u128(1)), noon()), Standing::Absent);
    assert_eq!(roster.standing(PersonId(Uuid::from_u128(2)), noon()), Standing::Member);
    assert_eq!(
        (roster.lines()[0].version, roster.lines()[0].root),
        (log.version(), {
            let mut log = log;
            log.root()
        })
    );
}

#[test]
fn validity_and_suspension_are_kept_to_and_need_a_clock_that_is_right() {
    let mut copy = Copy::new();
    let noon_s = NOON.unix_timestamp();
    copy.person(1, PersonBody::new(PersonState::Suspended, None, None, Vec::new()));
    copy.person(2, PersonBody::new(PersonState::Active, Some(noon_s + 1), None, Vec::new()));
    copy.person(3, PersonBody::new(PersonState::Active, None, Some(noon_s), Vec::new()));
    copy.person(4, PersonBody::new(PersonState::Active, Some(noon_s), Some(noon_s + 1), Vec::new()));
    copy.person(5, PersonBody::new(PersonState::Active, None, None, Vec::new()));
    for person in 1..=5 {
        copy.template(person + 1_000, person, SPACE, person as usize);
    }
    let expected =
        [Standing::Suspended, Standing::OutsideValidity, Standing::OutsideValidity, Standing::Member, Standing::Member];
    for (person, expected) in (1..).zip(expected) {
        assert_eq!(copy.standing(person, noon()), expected, "person {person}");
    }
    let lost = WallTime { utc: NOON, quality: ClockQuality::Untrusted };
    assert_eq!(copy.standing(4, lost), Standing::OutsideValidity);
    assert_eq!(copy.standing(5, lost), Standing::Member, "who has no time limit needs no clock");
}

#[test]
fn templates_of_another_space_are_never_searched() {
    let mut copy = Copy::new();
    copy.person(1, PersonBody::new(PersonState::Active, None, None, Vec::new()));
    copy.template(11, 1, "faces-2", 0);
    let roster = copy.galleries.roster().load_full();
    assert_eq!(roster.snapshot().len(), 0);
    assert_eq!(roster.standing(PersonId(Uuid::from_u128(1)), noon()), Standing::Absent);
}

#[test]
fn a_wrong_root_changes_nothing() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    let record = copy.record(Op::Del, Kind::Person, 1, None);
    let error = copy.galleries.apply(copy.gallery, &[record], Root([0; 32])).unwrap_err();
    assert!(matches!(error, RosterError::Apply { source: ApplyError::Root(_), .. }), "{error}");
    assert_eq!(copy.standing(1, noon()), Standing::Member);
}

#[test]
fn a_restart_of_the_store_leaves_nobody_and_is_not_ready() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    copy.galleries.restart(copy.gallery, &copy.keys).unwrap();
    assert!(!copy.galleries.roster().load().ready());
    assert_eq!(copy.standing(1, noon()), Standing::Absent);
}

#[test]
fn people_stay_at_the_doors_while_a_gallery_goes_on_under_other_keys() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    copy.enrol(2, 1);
    copy.delete(Kind::Person, 2);
    let before = copy.galleries.roster().load_full();
    let keys = GalleryKeys { epoch: 2, digest: DigestKey::new([5; 32]), credential: Default::default() };
    copy.galleries.assign(copy.gallery, &keys).unwrap();
    let after = copy.galleries.roster().load_full();
    assert_eq!(after.generation(), before.generation() + 1, "one takes the place of the other, with none in between");
    assert!(after.ready());
    assert_eq!((copy.standing(1, noon()), copy.standing(2, noon())), (Standing::Member, Standing::Absent));
    let (old, new) = (&before.lines()[0], &after.lines()[0]);
    assert_eq!((new.epoch, new.version, new.people, new.templates), (2, old.version, old.people, old.templates));
    assert_ne!(new.root, old.root, "it is said under the new key");
    assert!(copy.galleries.take_rebuilt().is_empty());
    copy.galleries.assign(copy.gallery, &keys).unwrap();
    assert_eq!(copy.galleries.roster().load().generation(), after.generation(), "the same keys again change nothing");
}

#[test]
fn a_gallery_that_cannot_go_on_under_other_keys_begins_empty_and_is_told() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    copy.write_fails();
    std::fs::write(copy.store_dir().join("watermark"), [0; 8192]).unwrap();
    let keys = GalleryKeys { epoch: 2, digest: DigestKey::new([5; 32]), credential: Default::default() };
    copy.galleries.assign(copy.gallery, &keys).unwrap();
    let roster = copy.galleries.roster().load_full();
    assert!(!roster.closed() && !roster.ready(), "empty, to be filled by the hub");
    assert_eq!((roster.lines()[0].epoch, roster.lines()[0].version), (2, 0));
    let told = copy.galleries.take_rebuilt();
    assert!(matches!(&told[..], [Rebuilt { epoch: 2, reason: Doubt::Watermark(_), .. }]), "{told:?}");
}

#[test]
fn who_is_in_two_galleries_keeps_to_the_stricter_terms_of_both() {
    let noon_s = NOON.unix_timestamp();
    let suspended = PersonBody::new(PersonState::Suspended, None, None, Vec::new());
    let later = PersonBody::new(PersonState::Active, Some(noon_s + 1), None, Vec::new());
    let over = PersonBody::new(PersonState::Active, None, Some(noon_s), Vec::new());
    let elsewhere =
        [(suspended, Standing::Suspended), (later, Standing::OutsideValidity), (over, Standing::OutsideValidity)];
    // The second gallery comes before the first in one run and after it in the other.
    for gallery in [GalleryId(Uuid::from_u128(99)), OTHER] {
        for (body, expected) in &elsewhere {
            let mut copy = Copy::new();
            copy.person(1, PersonBody::new(PersonState::Active, Some(noon_s - 9), Some(noon_s + 9), Vec::new()));
            copy.template(1_001, 1, SPACE, 0);
            assert_eq!(copy.standing(1, noon()), Standing::Member);
            copy.person_elsewhere(gallery, 1, body.clone());
            assert_eq!(copy.standing(1, noon()), *expected, "{body:?} in {gallery}");
            copy.galleries.withdraw(gallery).unwrap();
            assert_eq!(copy.standing(1, noon()), Standing::Member);
        }
    }
}

#[test]
fn a_store_that_cannot_be_read_closes_the_doors_until_it_can() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    copy.write_fails();
    assert_eq!(copy.standing(1, noon()), Standing::Member, "the snapshot stays as it was");
    let mark = copy.store_dir().join("watermark");
    std::fs::rename(&mark, mark.with_extension("away")).unwrap();
    std::fs::create_dir(&mark).unwrap();

    let body = PersonBody::new(PersonState::Active, None, None, Vec::new());
    let assigned = copy.galleries.assign(OTHER, &copy.keys);
    assert!(matches!(assigned, Err(RosterError::Store { gallery, .. }) if gallery == copy.gallery), "{assigned:?}");
    let roster = copy.galleries.roster().load_full();
    assert!(roster.closed() && !roster.ready());
    assert_eq!(copy.standing(1, noon()), Standing::Absent);
    assert_eq!(roster.lines().len(), 2, "it is still said where each stands");
    assert!(copy.galleries.heal().is_err());

    std::fs::remove_dir(&mark).unwrap();
    std::fs::rename(mark.with_extension("away"), &mark).unwrap();
    copy.galleries.heal().unwrap();
    copy.person_elsewhere(OTHER, 2, body);
    assert!(copy.galleries.roster().load().ready());
    assert_eq!(copy.standing(1, noon()), Standing::Member);
    assert!(copy.galleries.take_rebuilt().is_empty());
}

#[test]
fn a_store_found_damaged_while_running_is_begun_anew_and_told() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    copy.write_fails();
    std::fs::write(copy.store_dir().join("watermark"), [0; 8192]).unwrap();
    copy.galleries.assign(OTHER, &copy.keys).unwrap();
    let roster = copy.galleries.roster().load_full();
    assert!(!roster.closed() && !roster.ready(), "empty, to be filled by the hub");
    assert_eq!(roster.lines().iter().map(|line| line.version).collect::<Vec<_>>(), [0, 0]);
    let told = copy.galleries.take_rebuilt();
    assert!(
        matches!(&told[..], [Rebuilt { gallery, epoch: 1, reason: Doubt::Watermark(_) }] if *gallery == copy.gallery)
    );

    copy.log = Log::new(copy.gallery, 1);
    copy.enrol(1, 0);
    copy.person_elsewhere(OTHER, 2, PersonBody::new(PersonState::Active, None, None, Vec::new()));
    assert_eq!(copy.standing(1, noon()), Standing::Member);
    assert!(copy.galleries.roster().load().ready());
}

#[test]
fn a_gallery_that_is_withdrawn_is_destroyed_even_when_another_cannot_be_read() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    copy.person_elsewhere(OTHER, 1, PersonBody::new(PersonState::Suspended, None, None, Vec::new()));
    copy.write_fails();
    let mark = copy.store_dir().join("watermark");
    std::fs::remove_file(&mark).unwrap();
    std::fs::create_dir(&mark).unwrap();
    assert!(copy.galleries.withdraw(OTHER).is_err());
    let left = copy.dir.path().join("galleries").join(OTHER.to_string()).join("generation-1");
    assert!(!left.exists(), "the withdrawn gallery is still on the disk");
}

#[test]
fn a_damaged_key_file_closes_its_own_gallery_until_the_hub_gives_the_key_again() {
    let mut copy = Copy::new();
    copy.enrol(1, 0);
    let device = DeviceKeys::open(&copy.dir.path().join("keys"), None).unwrap();
    device.set_gallery(OTHER, &copy.keys).unwrap();
    copy.person_elsewhere(OTHER, 2, PersonBody::new(PersonState::Active, None, None, Vec::new()));
    let Copy { galleries, dir, keys, gallery, .. } = copy;
    drop(galleries);
    std::fs::write(dir.path().join("keys").join(format!("gallery-{OTHER}.sealed")), b"noise").unwrap();

    let (galleries, told) =
        Galleries::open(&dir.path().join("galleries"), device.clone(), &Space::plain(SPACE)).unwrap();
    assert!(matches!(told[..], [Rebuilt { gallery: OTHER, epoch: 0, reason: Doubt::Keys(_) }]), "{told:?}");
    let roster = galleries.roster().load_full();
    assert_eq!(roster.standing(PersonId(Uuid::from_u128(1)), noon()), Standing::Member, "the other one serves");
    assert_eq!(roster.lines().iter().map(|line| line.gallery).collect::<Vec<_>>(), [gallery]);

    device.set_gallery(OTHER, &keys).unwrap();
    galleries.assign(OTHER, &keys).unwrap();
    let lines = galleries.roster().load().lines().to_vec();
    assert_eq!(lines.iter().map(|line| line.version).collect::<Vec<_>>(), [2, 1], "nothing was lost but the key");
}

#[test]
fn a_gallery_with_a_damaged_key_file_can_be_withdrawn() {
    let copy = Copy::new();
    let key = copy.dir.path().join("keys").join(format!("gallery-{OTHER}.sealed"));
    std::fs::write(&key, b"noise").unwrap();
    copy.galleries.withdraw(OTHER).unwrap();
    assert!(!key.exists());
}
