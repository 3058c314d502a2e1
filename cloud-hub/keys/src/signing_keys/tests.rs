//! What is in the folder at each step of a change, and what a hub makes of it that was killed there.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use tempfile::TempDir;
use time::macros::datetime;
use wire_contract::succession::{MAX_SUCCESSIONS, trusted};

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-30 10:00 UTC);

fn opened() -> (TempDir, SigningKeys) {
    let dir = tempfile::tempdir().unwrap();
    let keys = SigningKeys::open(dir.path()).unwrap();
    (dir, keys)
}

fn rotate(keys: &SigningKeys) {
    keys.prepare().unwrap();
    keys.switch(NOW).unwrap();
}

fn names(dir: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path()).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn whoever_pinned_any_key_of_before_is_led_to_the_present_one() {
    let (dir, keys) = opened();
    let mut before = vec![keys.present().public()];
    assert_eq!((keys.present().valid(), keys.present().successions()), (before.clone(), &[][..]));
    for _ in 0..3 {
        rotate(&keys);
        let present = keys.present();
        for pinned in &before {
            assert!(trusted(std::slice::from_ref(pinned), present.successions()).contains(&present.public()));
        }
        before.insert(0, present.public());
        assert_eq!(present.valid(), before);
        let again = SigningKeys::open(dir.path()).unwrap().present();
        assert_eq!(
            (again.id(), again.successions(), again.valid()),
            (present.id(), present.successions(), before.clone())
        );
    }
    assert_eq!(keys.retire().unwrap(), [before[3].key_id, before[2].key_id, before[1].key_id]);
    let present = keys.present();
    assert_eq!((present.valid(), present.successions().len()), (before[..1].to_vec(), 3), "they lead on all the same");
    assert_eq!(SigningKeys::open(dir.path()).unwrap().present().valid(), before[..1]);
    assert!(keys.retire().unwrap().is_empty());
}

#[test]
fn the_key_before_is_overwritten_where_it_lay_and_gone() {
    let (dir, keys) = opened();
    let old = std::fs::File::open(dir.path().join(FILE)).unwrap();
    let length = old.metadata().unwrap().len();
    rotate(&keys);
    let mut left = Vec::new();
    std::io::Read::read_to_end(&mut &old, &mut left).unwrap();
    assert_eq!(left, vec![0; usize::try_from(length).unwrap()], "by whatever name it may be held");
    assert_eq!(old.metadata().unwrap().nlink(), 0);
    assert_eq!(names(&dir), [HISTORY, FILE]);
    assert_eq!(std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
}

/// The folder as it is after each step of a change that a kill ends there, and which key a start finds: the one before, or the next.
#[test]
fn a_hub_that_is_killed_at_any_step_begins_as_before_or_ends_the_change() {
    type Step = fn(&Path, &SigningKeys);
    let steps: [Step; 6] = [
        |_, keys| keys.prepare().unwrap(),
        |dir, keys| {
            let (present, next) = (keys.present(), next_in(dir).unwrap().unwrap());
            let predecessors = vec![Predecessor { key: present.public(), retired: false }];
            let successions = vec![present.vouch_for(&next, NOW)];
            History { predecessors, successions, ..History::default() }.write(dir).unwrap();
        },
        |dir, _| secret_file::name_again(&dir.join(FILE), &dir.join(PREVIOUS)).unwrap(),
        |dir, _| secret_file::put_in_place(&dir.join(NEXT), &dir.join(FILE)).unwrap(),
        |dir, _| std::fs::write(dir.join(PREVIOUS), [0; 83]).unwrap(),
        |dir, _| std::fs::remove_file(dir.join(PREVIOUS)).unwrap(),
    ];
    for killed_after in 0..=steps.len() {
        let (dir, keys) = opened();
        let first = keys.present();
        for step in &steps[..killed_after] {
            step(dir.path(), &keys);
        }
        let wanted = next_in(dir.path()).unwrap().map(|next| next.id());
        let again = SigningKeys::open(dir.path()).unwrap();
        let present = again.present();
        if killed_after < 2 {
            assert_eq!((present.id(), present.successions().len()), (first.id(), 0), "after step {killed_after}");
            assert_eq!(again.next().unwrap().is_some(), killed_after == 1);
            rotate(&again);
        } else {
            assert!(wanted.is_none_or(|wanted| wanted == present.id()), "after step {killed_after}");
        }
        let present = again.present();
        assert_ne!(present.id(), first.id(), "after step {killed_after}");
        assert!(trusted(&[first.public()], present.successions()).contains(&present.public()));
        assert_eq!(names(&dir), [HISTORY, FILE], "after step {killed_after}");
        assert_eq!(SigningKeys::open(dir.path()).unwrap().present().id(), present.id());
    }
}

#[test]
fn two_hubs_change_one_after_the_other_and_each_is_believed_by_the_devices_of_the_other() {
    let (one_dir, one) = opened();
    let other_dir = tempfile::tempdir().unwrap();
    std::fs::copy(one_dir.path().join(FILE), other_dir.path().join(FILE)).unwrap();
    let other = SigningKeys::open(other_dir.path()).unwrap();
    let first = one.present().public();
    one.prepare().unwrap();
    std::fs::copy(one_dir.path().join(NEXT), other_dir.path().join(NEXT)).unwrap();
    one.switch(NOW).unwrap();
    assert_eq!(other.present().public(), first);
    let claimed_at_one = one.present().valid();
    assert!(claimed_at_one.contains(&first), "the other hub signs with it still");
    other.switch(NOW + time::Duration::HOUR).unwrap();
    assert_eq!(other.present().public(), one.present().public());
    assert!(trusted(&[first], other.present().successions()).contains(&one.present().public()));
    // The same file copied once more.
    std::fs::copy(one_dir.path().join(FILE), other_dir.path().join(NEXT)).unwrap();
    other.switch(NOW).unwrap();
    assert_eq!((other.present().public(), other.next().unwrap()), (one.present().public(), None));
    assert_eq!(other.present().successions().len(), 1);
}

#[test]
fn a_folder_that_lost_its_key_or_its_past_is_an_error_and_no_other_key_is_made() {
    let (dir, keys) = opened();
    rotate(&keys);
    let path = dir.path().join(FILE);
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(SigningKeys::open(dir.path()), Err(KeysError::Damaged { path: found }) if found == path));
    assert!(!path.exists());
    secret_file::replace(&path, &kept).unwrap();
    std::fs::write(dir.path().join(HISTORY), b"{}").unwrap();
    assert!(matches!(SigningKeys::open(dir.path()), Err(KeysError::Damaged { .. })));
}

#[test]
fn of_more_changes_than_a_device_looks_at_the_last_are_told() {
    let (_dir, keys) = opened();
    for _ in 0..MAX_SUCCESSIONS + 2 {
        rotate(&keys);
    }
    let present = keys.present();
    assert_eq!(present.successions().len(), MAX_SUCCESSIONS);
    assert_eq!(present.successions().last().unwrap().key, present.public());
}
