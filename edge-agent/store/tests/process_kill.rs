//! SIGKILL at any moment: what was acknowledged is there at the next start, in order, once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::time::Duration;

use edge_store::{DeviceKeys, GalleryOpened, GalleryStore, OutboxOpened, Priority};
use support::{Hub, Random, Worker, acknowledge, at, event_at, gallery, gallery_keys, times};

/// Kills a working child `kills` times on one directory; calls `check(dir, acknowledged)` after each.
fn kill(test: &str, kills: u64, check: impl Fn(&Path, u64)) {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(9);
    let mut acknowledged = 0;
    for _ in 0..kills {
        let mut worker = Worker::start(test, dir.path());
        worker.await_acknowledged(1);
        std::thread::sleep(Duration::from_millis(random.below(120)));
        acknowledged = worker.kill().max(acknowledged);
        check(dir.path(), acknowledged);
    }
}

mod outbox {
    use super::*;

    #[test]
    fn a_kill_loses_nothing_acknowledged() {
        let name = "outbox::a_kill_loses_nothing_acknowledged";
        if let Some(dir) = support::child_dir() {
            let (outbox, _) = support::open_outbox(&dir);
            loop {
                let encoders = (0..3).map(|_| |position: edge_store::Position| event_at(position.sequence));
                let range = outbox.append_batch(at(0), Priority::MustKeep, encoders).unwrap();
                acknowledge(*range.end());
                if range.end().is_multiple_of(7) {
                    outbox.acknowledge(outbox.stats().unwrap().stream, range.start() / 2, at(0)).unwrap();
                }
            }
        }
        kill(name, times(10), |dir, acknowledged| {
            let (outbox, opened) = support::open_outbox(dir);
            assert!(matches!(opened, OutboxOpened::Intact), "{opened:?}");
            let last = support::check_outbox(&outbox);
            assert!(last >= acknowledged, "{acknowledged} were acknowledged, {last} are there");
        });
    }
}

mod gallery_store {
    use super::*;

    #[test]
    fn a_kill_loses_no_applied_version() {
        let name = "gallery_store::a_kill_loses_no_applied_version";
        if let Some(dir) = support::child_dir() {
            return work_for_ever(&dir);
        }
        kill(name, times(10), |dir, acknowledged| {
            let (store, opened) = open(dir);
            assert!(matches!(opened, GalleryOpened::Intact), "{opened:?}");
            assert!(store.version() >= acknowledged, "{acknowledged} were applied, {} are there", store.version());
            assert_eq!(store.root(), Hub::root_at(store.version()));
        });
    }

    /// Applies, and rewrites the store under a new key now and then, so that kills hit that too.
    fn work_for_ever(dir: &Path) {
        let (mut store, _) = open(dir);
        let mut hub = Hub::new();
        for _ in 0..store.version() {
            hub.next();
        }
        loop {
            let (record, root) = hub.next();
            let version = store.apply(&[record], root).unwrap().version;
            acknowledge(version);
            if version.is_multiple_of(20) {
                store.rewrite().unwrap();
            }
        }
    }

    fn open(dir: &Path) -> (GalleryStore, GalleryOpened) {
        let keys = DeviceKeys::open(&dir.join("keys"), None).unwrap();
        GalleryStore::open(&dir.join("gallery"), &keys, gallery(), &gallery_keys()).unwrap()
    }
}
