use face_core::{DIM, Gallery as _};
use gallery_log::{Body, DigestKey, Log, RecordId, TemplateBody};
use time::OffsetDateTime;
use time::macros::datetime;

use super::*;

const SPACE: &str = "faces-1";
const NOON: OffsetDateTime = datetime!(2026-11-22 12:00:00 UTC);

fn towards(axis: usize) -> Box<[f32; DIM]> {
    let mut raw = Box::new([0.0; DIM]);
    raw[axis] = 1.0;
    raw
}

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
        let dir = tempfile::tempdir().unwrap();
        let device = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let gallery = GalleryId(Uuid::from_u128(100));
        let keys = GalleryKeys { epoch: 1, digest: DigestKey::new([4; 32]), credential: Default::default() };
        device.set_gallery(gallery, &keys).unwrap();
        let (galleries, rebuilt) = Galleries::open(&dir.path().join("galleries"), device, SPACE).unwrap();
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

    fn enrol(&mut self, person: u128, axis: usize) {
        self.person(person, PersonBody::new(PersonState::Active, None, None, Vec::new()));
        self.template(person + 1_000, person, SPACE, axis);
    }

    fn delete(&mut self, kind: Kind, id: u128) {
        let record = self.record(Op::Del, kind, id, None);
        self.apply(record);
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
    let (again, rebuilt) = Galleries::open(&dir.path().join("galleries"), device, SPACE).unwrap();
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
