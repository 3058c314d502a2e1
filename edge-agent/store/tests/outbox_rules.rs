//! The outbox's promises, one by one, and as a property over any order of calls and restarts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::Duration;

use edge_store::{
    Acknowledged, DeviceKeys, MAX_EVENT_BYTES, Outbox, OutboxError, OutboxKeys, OutboxOpened, OutboxOptions, Priority,
    RenewalReason, ShedReason, StreamId,
};
use proptest::prelude::*;
use support::{at, event_at};

/// No matter how full this machine's disk is.
const ROOMY: OutboxOptions =
    OutboxOptions { quota_bytes: 1 << 30, low_space_bytes: 0, retention: Duration::from_secs(24 * 3600) };

fn keys(dir: &Path) -> OutboxKeys {
    DeviceKeys::open(&dir.join("keys"), None).unwrap().outbox().unwrap()
}

fn open_with(dir: &Path, options: OutboxOptions) -> (Outbox, OutboxOpened) {
    Outbox::open(&dir.join("outbox"), &keys(dir), options, at(0)).unwrap()
}

fn open(dir: &Path) -> (Outbox, OutboxOpened) {
    open_with(dir, ROOMY)
}

fn fill(outbox: &Outbox, count: u64) {
    for _ in 0..count {
        outbox.append(at(0), Priority::MustKeep, |position| event_at(position.sequence)).unwrap();
    }
}

fn stream(outbox: &Outbox) -> StreamId {
    outbox.stats().unwrap().stream
}

fn database(dir: &Path) -> std::path::PathBuf {
    dir.join("outbox/outbox.redb")
}

fn renewed(opened: OutboxOpened) -> RenewalReason {
    match opened {
        OutboxOpened::Renewed(renewal) => renewal.reason,
        other => panic!("expected a renewal, found {other:?}"),
    }
}

#[test]
fn a_stream_begins_at_one_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, opened) = open(dir.path());
    assert!(matches!(opened, OutboxOpened::New));
    fill(&outbox, 3);
    let first = stream(&outbox);
    drop(outbox);
    let (outbox, opened) = open(dir.path());
    assert!(matches!(opened, OutboxOpened::Intact));
    let position = outbox.append(at(9), Priority::MustKeep, |position| event_at(position.sequence)).unwrap();
    assert_eq!((position.stream, position.sequence), (first, 4));
    assert_eq!(support::check_outbox(&outbox), 4);
}

#[test]
fn each_outbox_has_a_stream_of_its_own() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_ne!(stream(&open(one.path()).0), stream(&open(other.path()).0));
}

#[test]
fn a_batch_is_recorded_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    fill(&outbox, 1);
    let encoders = (0..5).map(|_| |position: edge_store::Position| event_at(position.sequence));
    assert_eq!(outbox.append_batch(at(0), Priority::MustKeep, encoders).unwrap(), 2..=6);
    let too_long = (0..3).map(|n| move |_: edge_store::Position| vec![0; if n == 2 { MAX_EVENT_BYTES + 1 } else { 1 }]);
    assert!(matches!(
        outbox.append_batch(at(0), Priority::MustKeep, too_long),
        Err(OutboxError::TooLarge { bytes }) if bytes == MAX_EVENT_BYTES + 1
    ));
    assert_eq!(support::check_outbox(&outbox), 6);
    fill(&outbox, 1);
    assert_eq!(support::check_outbox(&outbox), 7);
}

#[test]
fn only_the_hubs_word_moves_what_is_pending() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    fill(&outbox, 10);
    let ours = stream(&outbox);
    assert_eq!(outbox.acknowledge(ours, 4, at(1)).unwrap(), Acknowledged::Advanced(4));
    assert_eq!(outbox.acknowledge(ours, 4, at(1)).unwrap(), Acknowledged::Known);
    assert_eq!(outbox.acknowledge(ours, 2, at(1)).unwrap(), Acknowledged::Known);
    assert_eq!(outbox.acknowledge(ours, 11, at(1)).unwrap(), Acknowledged::Ahead { last: 10 });
    assert_eq!(outbox.acknowledge(StreamId::from_bytes([1; 16]), 9, at(1)).unwrap(), Acknowledged::OtherStream);
    let stats = outbox.stats().unwrap();
    assert_eq!((stats.pending, stats.acknowledged_through, stats.last_sequence), (6, 4, 10));
    assert_eq!(outbox.pending(0, 1, usize::MAX).unwrap()[0].sequence, 5);
    drop(outbox);
    assert_eq!(open(dir.path()).0.stats().unwrap(), stats);
}

#[test]
fn a_read_is_bounded_by_count_and_by_bytes_but_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    fill(&outbox, 20);
    assert_eq!(outbox.pending(0, 7, usize::MAX).unwrap().len(), 7);
    assert_eq!(outbox.pending(0, 7, 1).unwrap().len(), 1);
    assert_eq!(outbox.pending(15, 100, usize::MAX).unwrap().len(), 5);
    assert!(outbox.pending(20, 100, usize::MAX).unwrap().is_empty());
    assert!(outbox.pending(500, 100, usize::MAX).unwrap().is_empty());
}

#[test]
fn the_oldest_pending_event_tells_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    assert_eq!(outbox.stats().unwrap().oldest_pending_at, None);
    for second in 1..=3 {
        outbox.append(at(second), Priority::MustKeep, |position| event_at(position.sequence)).unwrap();
    }
    outbox.acknowledge(stream(&outbox), 1, at(9)).unwrap();
    assert_eq!(outbox.stats().unwrap().oldest_pending_at, Some(at(2)));
}

#[test]
fn acknowledged_events_stay_a_day_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    let day = 24 * 3600;
    fill(&outbox, 4);
    outbox.acknowledge(stream(&outbox), 2, at(0)).unwrap();
    outbox.acknowledge(stream(&outbox), 3, at(day - 60)).unwrap();
    assert_eq!(outbox.stats().unwrap().oldest_kept, 1);
    outbox.acknowledge(stream(&outbox), 4, at(day + 120)).unwrap();
    assert_eq!(outbox.stats().unwrap().oldest_kept, 3);
    drop(outbox);
    assert!(matches!(open(dir.path()).1, OutboxOpened::Intact));
}

#[test]
fn a_full_quota_gives_up_what_the_hub_has_and_then_sheds_the_lesser_events() {
    let dir = tempfile::tempdir().unwrap();
    let options = OutboxOptions { quota_bytes: 10_000, ..ROOMY };
    let (outbox, _) = open_with(dir.path(), options);
    let append = |priority| outbox.append(at(0), priority, |_| vec![7; 1000]);
    for _ in 0..6 {
        append(Priority::MayShed).unwrap();
    }
    outbox.acknowledge(stream(&outbox), 5, at(0)).unwrap();
    for _ in 0..6 {
        append(Priority::MustKeep).unwrap();
    }
    let stats = outbox.stats().unwrap();
    assert!(stats.bytes <= 10_000 && stats.oldest_kept > 1 && stats.oldest_kept <= 6, "{stats:?}");
    for _ in 0..8 {
        append(Priority::MustKeep).unwrap();
    }
    let error = append(Priority::MayShed).unwrap_err();
    assert!(matches!(error, OutboxError::Shed { reason: ShedReason::Quota { quota_bytes: 10_000 } }), "{error}");
    assert_eq!(append(Priority::MustKeep).unwrap().sequence, 21);
    let stats = outbox.stats().unwrap();
    assert_eq!((stats.pending, stats.oldest_kept, stats.shed), (16, 6, 1));
}

#[test]
fn a_disk_that_runs_low_sheds_the_lesser_events_only() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open_with(dir.path(), OutboxOptions { low_space_bytes: u64::MAX, ..ROOMY });
    let error = outbox.append(at(0), Priority::MayShed, |_| vec![1]).unwrap_err();
    assert!(matches!(error, OutboxError::Shed { reason: ShedReason::LowSpace { .. } }), "{error}");
    assert_eq!(outbox.append(at(0), Priority::MustKeep, |_| vec![1]).unwrap().sequence, 1);
}

#[test]
fn a_restored_hub_gets_again_what_is_still_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    fill(&outbox, 10);
    let ours = stream(&outbox);
    outbox.acknowledge(ours, 8, at(0)).unwrap();
    assert_eq!(outbox.rewind(0, ours, 3).unwrap(), 8, "an epoch that is not higher changes nothing");
    assert_eq!(outbox.rewind(2, ours, 3).unwrap(), 3);
    assert_eq!(outbox.rewind(2, ours, 1).unwrap(), 3, "each epoch counts once");
    assert_eq!(outbox.pending(0, 100, usize::MAX).unwrap().len(), 7);
    drop(outbox);
    let (outbox, _) = open(dir.path());
    assert_eq!((outbox.hub_epoch().unwrap(), outbox.stats().unwrap().pending), (2, 7));
}

#[test]
fn a_second_process_is_told_that_it_is_not_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open(dir.path());
    let error = Outbox::open(&dir.path().join("outbox"), &keys(dir.path()), ROOMY, at(0)).err().unwrap();
    assert!(matches!(error, OutboxError::InUse { .. }), "{error}");
}

#[test]
fn an_old_copy_of_the_file_begins_a_new_stream() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    fill(&outbox, 3);
    let first = stream(&outbox);
    drop(outbox);
    let copy = fs::read(database(dir.path())).unwrap();
    fill(&open(dir.path()).0, 2);
    fs::write(database(dir.path()), copy).unwrap();

    let (outbox, opened) = open(dir.path());
    let reason = renewed(opened);
    assert!(matches!(reason, RenewalReason::RolledBack { expected: 5, found: 3 }), "{reason}");
    assert_ne!(stream(&outbox), first);
    assert_eq!(outbox.append(at(0), Priority::MustKeep, |_| vec![1]).unwrap().sequence, 1);
}

#[test]
fn a_missing_file_a_missing_watermark_and_rubbish_begin_a_new_stream() {
    type Spoil = fn(&Path);
    type Expect = fn(&RenewalReason) -> bool;
    let cases: [(Spoil, Expect); 4] = [
        (|dir| fs::remove_file(database(dir)).unwrap(), |reason| matches!(reason, RenewalReason::Missing { last: 3 })),
        (
            |dir| fs::remove_file(dir.join("outbox/outbox.watermark")).unwrap(),
            |reason| matches!(reason, RenewalReason::NoWatermark),
        ),
        (
            |dir| fs::write(dir.join("outbox/outbox.watermark"), [0; 8192]).unwrap(),
            |reason| matches!(reason, RenewalReason::Watermark(_)),
        ),
        (|dir| fs::write(database(dir), "rubbish").unwrap(), |reason| matches!(reason, RenewalReason::Corrupt(_))),
    ];
    for (spoil, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, _) = open(dir.path());
        fill(&outbox, 3);
        drop(outbox);
        spoil(dir.path());
        let had_file = database(dir.path()).exists();
        let (outbox, opened) = open(dir.path());
        let OutboxOpened::Renewed(renewal) = opened else { panic!("{opened:?}") };
        assert!(expected(&renewal.reason), "{renewal}");
        assert_eq!(renewal.moved_to.as_ref().is_some_and(|path| path.exists()), had_file, "{renewal}");
        fill(&outbox, 1);
        drop(outbox);
        assert!(matches!(open(dir.path()).1, OutboxOpened::Intact));
    }
}

#[test]
fn a_file_of_another_outbox_is_foreign() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(&open(one.path()).0, 3);
    fill(&open(other.path()).0, 3);
    // With the same keys (a cloned device) it would open; the watermark still tells that it is another stream.
    fs::remove_dir_all(other.path().join("keys")).unwrap();
    support::copy_dir(&one.path().join("keys"), &other.path().join("keys"));
    fs::remove_dir_all(other.path().join("outbox")).unwrap();
    fill(&open(other.path()).0, 3);
    fs::copy(database(other.path()), database(one.path())).unwrap();
    let reason = renewed(open(one.path()).1);
    assert!(matches!(reason, RenewalReason::Foreign { .. }), "{reason}");
}

#[test]
fn a_new_stream_on_demand_keeps_the_old_file_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    fill(&outbox, 3);
    let first = stream(&outbox);
    let aside = outbox.begin_new_stream(at(5)).unwrap().unwrap();
    assert!(aside.exists());
    assert_ne!(stream(&outbox), first);
    fill(&outbox, 2);
    drop(outbox);
    let (outbox, opened) = open(dir.path());
    assert!(matches!(opened, OutboxOpened::Intact));
    assert_eq!(support::check_outbox(&outbox), 2);
}

#[test]
fn of_the_files_set_aside_the_newest_three_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    let aside: Vec<_> = (1..=12).map(|time| outbox.begin_new_stream(at(time)).unwrap().unwrap()).collect();
    let kept: Vec<bool> = aside.iter().map(|path| path.exists()).collect();
    assert_eq!(kept, [[false; 9].as_slice(), &[true; 3]].concat());
}

#[test]
fn a_damaged_first_entry_leaves_the_figures_and_a_new_stream() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    fill(&outbox, 3);
    drop(outbox);
    let entries = redb::TableDefinition::<u64, &[u8]>::new("entries");
    let file = redb::Database::open(database(dir.path())).unwrap();
    let txn = file.begin_write().unwrap();
    txn.open_table(entries).unwrap().insert(1, b"damaged".as_slice()).unwrap();
    txn.commit().unwrap();
    drop(file);

    let (outbox, opened) = open(dir.path());
    assert!(matches!(opened, OutboxOpened::Intact), "entries are unsealed only when they are read");
    assert!(matches!(outbox.pending(0, 9, usize::MAX), Err(OutboxError::Corrupt { .. })));
    let stats = outbox.stats().unwrap();
    assert_eq!((stats.pending, stats.oldest_pending_at), (3, None));
    outbox.begin_new_stream(at(5)).unwrap().unwrap();
    fill(&outbox, 2);
    assert_eq!(support::check_outbox(&outbox), 2);
}

#[test]
fn nothing_of_an_event_is_readable_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    let secret = b"canary-of-an-event";
    outbox.append(at(0), Priority::MustKeep, |_| secret.to_vec()).unwrap();
    drop(outbox);
    for entry in fs::read_dir(dir.path().join("outbox")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

/// What may happen to an outbox.
#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Acknowledge(u8),
    Read(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_u8).prop_map(Step::Append),
        2 => any::<u8>().prop_map(Step::Acknowledge),
        2 => any::<u8>().prop_map(Step::Read),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn order_is_kept_over_any_steps_and_restarts(steps in proptest::collection::vec(step(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = open(dir.path()).0;
        let ours = stream(&outbox);
        let mut pending = VecDeque::new();
        let mut last = 0_u64;
        for step in steps {
            match step {
                Step::Append(count) => {
                    let encoders = (0..count).map(|_| |position: edge_store::Position| event_at(position.sequence));
                    let range = outbox.append_batch(at(last), Priority::MustKeep, encoders).unwrap();
                    prop_assert_eq!(*range.start(), last + 1);
                    pending.extend(range.clone());
                    last = *range.end();
                }
                Step::Acknowledge(fraction) => {
                    let through = last * u64::from(fraction) / 255;
                    outbox.acknowledge(ours, through, at(last)).unwrap();
                    pending.retain(|sequence| *sequence > through);
                }
                Step::Read(limit) => {
                    let read = outbox.pending(0, usize::from(limit), usize::MAX).unwrap();
                    let expected = pending.iter().copied().take(usize::from(limit));
                    prop_assert!(read.iter().map(|entry| entry.sequence).eq(expected));
                }
                Step::Restart => {
                    drop(outbox);
                    let (reopened, opened) = open(dir.path());
                    prop_assert!(matches!(opened, OutboxOpened::Intact), "{:?}", opened);
                    outbox = reopened;
                }
            }
        }
        prop_assert_eq!(stream(&outbox), ours);
        prop_assert_eq!(support::check_outbox(&outbox), last);
    }
}

#[test]
fn writers_on_many_threads_share_commits_and_each_event_has_its_own_number() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    let ours = stream(&outbox);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let position =
                        outbox.append(at(0), Priority::MustKeep, |position| event_at(position.sequence)).unwrap();
                    // On disk by the time it is promised, whoever wrote it.
                    assert_eq!(position.stream, ours);
                    assert!(outbox.stats().unwrap().last_sequence >= position.sequence);
                }
            });
        }
    });
    assert_eq!(support::check_outbox(&outbox), 200);
    drop(outbox);
    assert_eq!(support::check_outbox(&open(dir.path()).0), 200);
}

#[test]
fn a_new_stream_begins_between_two_events_of_busy_writers() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _) = open(dir.path());
    let recorded = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let append = || outbox.append(at(0), Priority::MustKeep, |position| event_at(position.sequence));
                    (0..50).map(|_| append().unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(20));
            outbox.begin_new_stream(at(1)).unwrap();
        }
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    let last = stream(&outbox);
    let promised = recorded.iter().filter(|position| position.stream == last).count() as u64;
    assert_eq!(support::check_outbox(&outbox), promised, "a number of one stream was recorded in another");
    let mut numbers: Vec<_> = recorded.iter().map(|position| (position.stream, position.sequence)).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), recorded.len(), "a number was given out twice");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "not a directory").unwrap();
    let error = Outbox::open(&path, &keys(dir.path()), ROOMY, at(0)).err().unwrap();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}
