use edge_store::{DeviceKeys, OutboxOptions};
use face_core::{MonoTime, TrackId};
use time::macros::datetime;
use wire_contract::event::ClockQuality;

use super::*;
use crate::clock::Clock;
use crate::stages::record::Recorder;

/// Half past seven, two seconds after the happenings of these tests.
struct HalfPastSeven;

impl Clock for HalfPastSeven {
    fn now(&self) -> MonoTime {
        MonoTime::from_millis(10_000)
    }

    fn wall(&self) -> WallTime {
        WallTime { utc: datetime!(2026-11-22 07:30:00 UTC), quality: ClockQuality::Synchronised }
    }
}

struct Desk {
    outbox: Arc<Outbox>,
    recorder: Recorder,
    thread: std::thread::JoinHandle<()>,
    recorded: watch::Receiver<u64>,
    _dir: tempfile::TempDir,
}

fn desk(options: OutboxOptions, claimed: bool) -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
    let now = SystemTime::from(HalfPastSeven.wall().utc);
    let (outbox, _) = Outbox::open(&dir.path().join("outbox"), &keys.outbox().unwrap(), options, now).unwrap();
    let outbox = Arc::new(outbox);
    let (recorder, messages) = Recorder::channel();
    let (recorded, watching) = watch::channel(0);
    let record = Record {
        outbox: Arc::clone(&outbox),
        source: claimed.then(|| "/tenants/a/devices/b".to_owned()),
        origin: Origin { pack: "p".into(), space_id: "s".into(), agent_version: "0".into() },
        run: Uuid::from_u128(3),
        clock: Arc::new(HalfPastSeven),
        health: recorder.health(),
        recorded,
        turns: Arc::default(),
        give_up: CancellationToken::new(),
    };
    let thread = std::thread::spawn(move || run(&record, messages));
    Desk { outbox, recorder, thread, recorded: watching, _dir: dir }
}

fn face(track: u64) -> Happening {
    Happening::FaceAppeared { camera: "front".into(), track: TrackId(track), at: MonoTime::from_millis(8_000) }
}

fn rebuilt() -> Happening {
    let code = wire_contract::Code::StoreDoubtful;
    Happening::GalleryRebuilt { gallery: Uuid::from_u128(9), epoch: 1, code, at: MonoTime::from_millis(8_000) }
}

impl Desk {
    async fn close(self) -> (Vec<CloudEvent>, Self) {
        self.recorder.close().await;
        let Self { outbox, recorder, thread, recorded, _dir } = self;
        thread.join().unwrap();
        let entries = outbox.pending(0, 1_000, usize::MAX).unwrap();
        let events = entries.iter().map(|entry| serde_json::from_slice(&entry.event).unwrap()).collect();
        let thread = std::thread::spawn(|| ());
        (events, Self { outbox, recorder, thread, recorded, _dir })
    }
}

#[tokio::test]
async fn what_was_handed_over_before_the_close_is_on_disk_in_order() {
    let desk = desk(OutboxOptions::default(), true);
    for track in 0..100 {
        desk.recorder.record(face(track)).await;
    }
    let (events, desk) = desk.close().await;
    let tracks: Vec<u64> = events.iter().map(|event| event.data["track"].as_u64().unwrap()).collect();
    assert_eq!(tracks, (0..100).collect::<Vec<_>>());
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence.unwrap().0).collect();
    assert_eq!(sequences, (1..=100).collect::<Vec<_>>());
    assert_eq!(*desk.recorded.borrow(), 100, "the sender is told how far it may go");
    assert!(desk.recorder.idle());
}

#[tokio::test]
async fn an_event_carries_the_time_it_happened_at() {
    let desk = desk(OutboxOptions::default(), true);
    desk.recorder.record(face(1)).await;
    let (events, _desk) = desk.close().await;
    assert_eq!(events[0].time.to_string(), "2026-11-22T07:29:58.000Z");
    assert_eq!(events[0].monoms.as_deref(), Some("8000"));
    assert_eq!(events[0].boot, Some(Uuid::from_u128(3)));
    assert_eq!(events[0].source, "/tenants/a/devices/b");
}

#[tokio::test]
async fn what_was_shed_becomes_one_gap_before_the_next_event() {
    // No disk has this much room, so that whatever may be shed is.
    let desk = desk(OutboxOptions { low_space_bytes: u64::MAX, ..OutboxOptions::default() }, true);
    desk.recorder.record(face(1)).await;
    desk.recorder.record(face(2)).await;
    desk.recorder.record(rebuilt()).await;
    let (events, desk) = desk.close().await;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["lintel.system.gap.v1", "lintel.system.gallery_rebuilt.v1"]);
    assert_eq!(events[0].data["count"], 2);
    assert_eq!(events[0].data["classes"], serde_json::json!(["face"]));
    assert_eq!(desk.recorder.health().shed(), 2);
}

#[tokio::test]
async fn a_device_without_an_identity_records_nothing() {
    let desk = desk(OutboxOptions::default(), false);
    desk.recorder.record(rebuilt()).await;
    let (events, _desk) = desk.close().await;
    assert!(events.is_empty());
}
