//! A kernel power cut under each store: what was acknowledged is there after the reboot.
//!
//! ext4 on a loop device, `EXT4_IOC_SHUTDOWN` without a log flush. Bare sled is the negative control: it must lose, or the
//! cuts cut nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::time::Duration;

use edge_store::{DeviceKeys, GalleryOpened, GalleryStore, OutboxOpened, Priority};
use support::{Ext4, Hub, Random, Worker, acknowledge, at, event_at, gallery, gallery_keys, times};

/// Cuts the power under a working child `cuts` times, each on a fresh file system, and calls `check(dir, acknowledged)`
/// after the reboot.
fn cut(test: &str, cuts: u64, check: impl Fn(&Path, u64)) {
    support::own_mounts();
    let mut random = Random::new(20);
    for _ in 0..cuts {
        let mut disk = Ext4::new();
        let mut worker = Worker::start(test, &disk.path());
        worker.await_acknowledged(5);
        std::thread::sleep(Duration::from_millis(random.below(300)));
        disk.cut_power();
        let acknowledged = worker.kill();
        disk.reboot();
        check(&disk.path(), acknowledged);
    }
}

mod outbox {
    use super::*;

    #[test]
    fn a_power_cut_loses_nothing_acknowledged() {
        let name = "outbox::a_power_cut_loses_nothing_acknowledged";
        if let Some(dir) = support::child_dir() {
            return record_for_ever(&dir);
        }
        if support::cannot_mount(name) {
            return;
        }
        cut(name, times(8), |dir, acknowledged| {
            let (outbox, opened) = support::open_outbox(dir);
            assert!(matches!(opened, OutboxOpened::Intact), "{opened:?}");
            let last = support::check_outbox(&outbox);
            assert!(last >= acknowledged, "{acknowledged} were acknowledged, {last} are there");
        });
    }

    fn record_for_ever(dir: &Path) {
        let (outbox, _) = support::open_outbox(dir);
        while let Ok(position) = outbox.append(at(0), Priority::MustKeep, |position| event_at(position.sequence)) {
            acknowledge(position.sequence);
        }
    }
}

mod gallery_store {
    use super::*;

    #[test]
    fn a_power_cut_loses_no_applied_version() {
        let name = "gallery_store::a_power_cut_loses_no_applied_version";
        if let Some(dir) = support::child_dir() {
            return apply_for_ever(&dir);
        }
        if support::cannot_mount(name) {
            return;
        }
        cut(name, times(8), |dir, acknowledged| {
            let (store, opened) = open(dir);
            assert!(matches!(opened, GalleryOpened::Intact), "{opened:?}");
            assert!(store.version() >= acknowledged, "{acknowledged} were applied, {} are there", store.version());
            assert_eq!(store.root(), Hub::root_at(store.version()));
        });
    }

    fn apply_for_ever(dir: &Path) {
        let (mut store, _) = open(dir);
        let mut hub = Hub::new();
        loop {
            let (record, root) = hub.next();
            match store.apply(&[record], root) {
                Ok(applied) => acknowledge(applied.version),
                Err(_) => return,
            }
        }
    }

    fn open(dir: &Path) -> (GalleryStore, GalleryOpened) {
        let keys = DeviceKeys::open(&dir.join("keys"), None).unwrap();
        GalleryStore::open(&dir.join("gallery"), &keys, gallery(), &gallery_keys()).unwrap()
    }
}

mod control {
    use std::cell::Cell;
    use std::panic::catch_unwind;

    use super::*;

    /// sled as it comes: `flush`, then the acknowledgement.
    #[test]
    fn bare_sled_loses_what_it_called_flushed() {
        let name = "control::bare_sled_loses_what_it_called_flushed";
        if let Some(dir) = support::child_dir() {
            return flush_for_ever(&dir);
        }
        if support::cannot_mount(name) {
            return;
        }
        let bad = Cell::new(0);
        cut(name, times(6), |dir, acknowledged| {
            let dir = dir.to_path_buf();
            let kept = catch_unwind(move || {
                let db = sled::open(dir.join("sled")).ok()?;
                Some((1..=acknowledged).all(|n| db.get(n.to_be_bytes()).is_ok_and(|value| value.is_some())))
            });
            if !matches!(kept, Ok(Some(true))) {
                bad.set(bad.get() + 1);
            }
        });
        eprintln!("bare sled: {} of {} cuts lost acknowledged data or would not open", bad.get(), times(6));
        assert!(
            bad.get() > 0,
            "no cut hurt bare sled: the cuts cut nothing, and the tests beside this one prove nothing"
        );
    }

    fn flush_for_ever(dir: &Path) {
        let db = sled::Config::new().path(dir.join("sled")).flush_every_ms(None).open().unwrap();
        for n in 1_u64.. {
            #[expect(clippy::disallowed_methods, reason = "this is the control that must lose")]
            let done = db.insert(n.to_be_bytes(), [7; 72].as_slice()).is_ok() && db.flush().is_ok();
            if !done {
                return;
            }
            acknowledge(n);
        }
    }
}
