//! What is in the folder at each step of a change, and what a hub makes of it that was killed there.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use tempfile::TempDir;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-30 10:00 UTC);
/// What lies in the folder while a device authority before is believed.
const WITH_BEFORE: [&str; 8] = [
    "device-ca-previous.key",
    "device-ca-previous.pem",
    "device-ca.key",
    "device-ca.pem",
    "root.key",
    "root.pem",
    "service-ca.key",
    "service-ca.pem",
];
const ALONE: [&str; 6] = ["device-ca.key", "device-ca.pem", "root.key", "root.pem", "service-ca.key", "service-ca.pem"];

fn opened() -> (TempDir, Authorities) {
    let dir = tempfile::tempdir().unwrap();
    let authorities = Authorities::open(dir.path(), NOW).unwrap();
    (dir, authorities)
}

fn rotate(authorities: &Authorities) {
    authorities.prepare(NOW).unwrap();
    authorities.switch().unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path, which: impl Fn(&str) -> bool) {
    for name in names(from).iter().filter(|name| which(name)) {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn ids(authorities: &Authorities) -> ([u8; 32], [u8; 32]) {
    let held = authorities.held();
    (held.devices.spki_sha256, held.services.spki_sha256)
}

/// The folder as it is after each step of a change that a kill ends there: the start finds everything as before, or ends the change.
#[test]
fn a_hub_that_is_killed_at_any_step_begins_as_before_or_ends_the_change() {
    type Step = fn(&Path);
    let next_made: [Step; 4] = [
        |dir| drop(crate::load_key(&DEVICES.next(dir).key).unwrap()),
        |dir| Authorities::open(dir, NOW).unwrap().prepare(NOW).unwrap(),
        |dir| write_public(&DEVICES.previous(dir).pem, &read_public(&DEVICES.present(dir).pem).unwrap()).unwrap(),
        |dir| secret_file::name_again(&DEVICES.present(dir).key, &DEVICES.previous(dir).key).unwrap(),
    ];
    // From here on it is ended.
    let changed: [Step; 8] = [
        |dir| secret_file::put_in_place(&DEVICES.next(dir).pem, &DEVICES.present(dir).pem).unwrap(),
        |dir| secret_file::put_in_place(&DEVICES.next(dir).key, &DEVICES.present(dir).key).unwrap(),
        |dir| write_public(&SERVICES.previous(dir).pem, &read_public(&SERVICES.present(dir).pem).unwrap()).unwrap(),
        |dir| secret_file::name_again(&SERVICES.present(dir).key, &SERVICES.previous(dir).key).unwrap(),
        |dir| secret_file::put_in_place(&SERVICES.next(dir).pem, &SERVICES.present(dir).pem).unwrap(),
        |dir| secret_file::put_in_place(&SERVICES.next(dir).key, &SERVICES.present(dir).key).unwrap(),
        |dir| remove_public(&SERVICES.previous(dir).pem).unwrap(),
        |dir| std::fs::write(SERVICES.previous(dir).key, [0; 80]).unwrap(),
    ];
    let steps: Vec<Step> = next_made.into_iter().chain(changed).collect();
    for killed_after in 0..=steps.len() {
        let (dir, first) = opened();
        let first = ids(&first);
        let mut wanted = None;
        for step in &steps[..killed_after] {
            step(dir.path());
            let next = Authority::read(&DEVICES.next(dir.path())).ok().map(|next| next.spki_sha256);
            wanted = next.or(wanted);
        }
        let again = Authorities::open(dir.path(), NOW).unwrap();
        if killed_after <= next_made.len() {
            assert_eq!((ids(&again), again.before()), (first, None), "after step {killed_after}");
            assert_eq!(again.next(), wanted, "after step {killed_after}");
            rotate(&again);
        }
        let (present, before) = (ids(&again), again.before());
        assert!(wanted.is_none_or(|wanted| wanted == present.0), "after step {killed_after}");
        assert!(present.0 != first.0 && present.1 != first.1, "after step {killed_after}");
        assert_eq!((before, again.next()), (Some(first.0), None), "after step {killed_after}");
        assert_eq!(names(dir.path()), WITH_BEFORE, "after step {killed_after}");
        let again = Authorities::open(dir.path(), NOW).unwrap();
        assert_eq!((ids(&again), again.before()), (present, before), "after step {killed_after}");
    }
}

#[test]
fn a_retirement_that_was_cut_short_is_ended_by_the_start() {
    let cuts: [fn(&Path); 3] = [
        |dir| remove_public(&DEVICES.previous(dir).pem).unwrap(),
        |dir| std::fs::write(DEVICES.previous(dir).key, [0; 80]).unwrap(),
        |dir| std::fs::remove_file(DEVICES.previous(dir).key).unwrap(),
    ];
    for cut in 1..=cuts.len() {
        let (dir, authorities) = opened();
        rotate(&authorities);
        cuts[..cut].iter().for_each(|step| step(dir.path()));
        let again = Authorities::open(dir.path(), NOW).unwrap();
        assert_eq!((again.before(), ids(&again)), (None, ids(&authorities)), "cut {cut}");
        assert_eq!(names(dir.path()), ALONE, "cut {cut}");
    }
}

#[test]
fn keys_before_are_overwritten_where_they_lay_and_gone() {
    let (dir, authorities) = opened();
    let open = |kind: &Kind| std::fs::File::open(kind.present(dir.path()).key).unwrap();
    let (devices, services) = (open(&DEVICES), open(&SERVICES));
    let is_destroyed = |file: &std::fs::File| {
        let mut left = Vec::new();
        std::io::Read::read_to_end(&mut &*file, &mut left).unwrap();
        std::io::Seek::rewind(&mut &*file).unwrap();
        file.metadata().unwrap().nlink() == 0 && !left.is_empty() && left.iter().all(|byte| *byte == 0)
    };
    rotate(&authorities);
    assert!(is_destroyed(&services), "nothing needs it any more");
    assert!(!is_destroyed(&devices), "it signs its own revocation list");
    assert_eq!(names(dir.path()), WITH_BEFORE);
    for kind in [&DEVICES, &SERVICES] {
        let mode = std::fs::metadata(kind.present(dir.path()).key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    authorities.retire().unwrap();
    assert!(is_destroyed(&devices), "by whatever name it may be held");
    assert_eq!((names(dir.path()), authorities.before()), (ALONE.map(str::to_owned).to_vec(), None));
}

#[test]
fn hubs_with_copies_go_over_one_after_the_other_and_each_believes_both_meanwhile() {
    let (one_dir, one) = opened();
    let other_dir = tempfile::tempdir().unwrap();
    let (from, to) = (one_dir.path(), other_dir.path());
    copy(from, to, |_| true);
    let other = Authorities::open(to, NOW).unwrap();
    let first = ids(&one);
    assert_eq!(ids(&other), first);
    one.prepare(NOW).unwrap();
    let next = one.next().unwrap();
    assert_eq!(ids(&one), first, "the first half changes nothing");

    // File after file: what is half there is not believed, and nobody goes over with it.
    copy(from, to, |name| name == "device-ca-next.key");
    assert!(!other.look_again().unwrap());
    copy(from, to, |name| name == "device-ca-next.pem");
    assert!(other.look_again().unwrap() && !other.look_again().unwrap());
    assert!(matches!(other.switch(), Err(PkiError::NoNext)));
    copy(from, to, |name| name.contains("next"));
    one.switch().unwrap();
    let believed = |of: &Authorities| of.held().believed().map(|authority| authority.spki_sha256).collect::<Vec<_>>();
    assert_eq!((believed(&one), believed(&other)), (vec![next, first.0], vec![first.0, next]));
    other.switch().unwrap();
    assert_eq!((believed(&other), ids(&other)), (vec![next, first.0], ids(&one)));
    // The same ones copied once more, and a hub that is added now.
    copy(from, to, |_| true);
    for kind in [&DEVICES, &SERVICES] {
        std::fs::copy(kind.present(from).key, kind.next(to).key).unwrap();
        std::fs::copy(kind.present(from).pem, kind.next(to).pem).unwrap();
    }
    other.switch().unwrap();
    assert_eq!((names(to), ids(&other)), (WITH_BEFORE.map(str::to_owned).to_vec(), ids(&one)));
    assert!(matches!(one.prepare(NOW), Err(PkiError::UnderWay)), "two rotations do not mix");
    for hub in [&one, &other] {
        hub.retire().unwrap();
        assert_eq!(believed(hub), [next]);
    }
}

#[test]
fn what_is_not_under_this_hubs_root_takes_nobodys_place() {
    let ((dir, authorities), (strange_dir, strange)) = (opened(), opened());
    strange.prepare(NOW).unwrap();
    copy(strange_dir.path(), dir.path(), |name| name.contains("next"));
    let first = ids(&authorities);
    assert!(!authorities.look_again().unwrap(), "nor is it believed");
    assert!(matches!(authorities.switch(), Err(PkiError::Stored { .. })));
    let again = Authorities::open(dir.path(), NOW).unwrap();
    assert_eq!((ids(&again), again.next(), again.before()), (first, None, None));
}
