//! Galleries that differ: only what differs travels, and what cannot be healed is rebuilt with an alarm.

use std::collections::BTreeSet;

use cloud_hub::keys::{Custody, DeviceLinks};
use cloud_hub::store::devices::Agreement;
use gallery_log::{Digest, Kind, Op, Record, RecordId, Root};
use uuid::Uuid;
use wire_contract::gallery::GalleryStand;
use wire_contract::healing::{GalleryBuckets, GalleryHashes};
use wire_contract::{GalleryDown, GalleryUp, Hash32, UpChannel};

use crate::line::{Device, Line};
use crate::support::{self, skipped};

const ALARM: &str = "lintel.tamper.gallery_diverged.v1";

impl Device {
    /// Goes its own way: an entry that no hub wrote, by the log's own rules.
    fn strays(&mut self, n: u128) {
        let (gallery, epoch, version) = (self.log.gallery(), self.log.epoch(), self.log.version() + 1);
        let id = RecordId(Uuid::from_u128(n));
        let record = Record { gallery, epoch, version, op: Op::Put, kind: Kind::Person, id, rev: 1, body: vec![1] };
        self.log.apply(&record, &self.gdk).unwrap();
    }

    async fn say_hashes(&mut self) {
        let hashes = self.log.buckets().map(|bucket| bucket.0);
        let gallery = wire_contract::GalleryId(self.log.gallery().0);
        let said = GalleryUp::Hashes(GalleryHashes::of(gallery, self.log.epoch(), self.log.version(), &hashes));
        self.say(UpChannel::Gallery, &serde_json::to_vec(&said).unwrap()).await;
    }

    /// The next message that is not one of records, and its bytes on the wire.
    async fn next_but_records(&mut self) -> (GalleryDown, usize) {
        loop {
            let (_, plain) = self.next().await;
            match serde_json::from_slice(&plain) {
                Ok(GalleryDown::Records(_)) => {}
                Ok(other) => return (other, plain.len()),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Is asked to compare where it stands, and says its hashes.
    async fn is_compared(&mut self) {
        self.report().await;
        let (GalleryDown::Compare(question), _) = self.next_but_records().await else { panic!("no question") };
        assert_eq!((question.version, question.root.0), (self.log.version(), self.log.root().0));
        self.say_hashes().await;
    }

    /// All parts of the answer, and their bytes.
    async fn answer(&mut self) -> (Vec<GalleryBuckets>, usize) {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        loop {
            let (GalleryDown::Buckets(part), length) = self.next_but_records().await else { panic!("no buckets") };
            assert_eq!((part.check(), usize::from(part.part)), (Ok(()), parts.len()));
            bytes += length;
            let last = part.part + 1 == part.parts;
            parts.push(part);
            if last {
                return (parts, bytes);
            }
        }
    }

    /// Replaces the buckets as an edge does; returns how many entries had been too many.
    fn replace(&mut self, parts: Vec<GalleryBuckets>) -> usize {
        let (version, root) = (parts[0].version, Root(parts[0].root.0));
        let buckets: BTreeSet<u8> = parts[0].buckets.iter().copied().collect();
        let live: Vec<Record> = parts.into_iter().flat_map(|part| part.records).map(|wire| self.record(wire)).collect();
        let gone = self.log.replace(version, &buckets, &live, &self.gdk).unwrap();
        self.log.verify_root(root).unwrap();
        gone.len()
    }
}

/// A line with so many people who have a template each, and a device that has followed them.
async fn filled(people: usize) -> (Line, Device, Vec<cloud_hub::domain::ids::PersonId>) {
    let line = Line::start().await;
    let mut all = Vec::new();
    for n in 0..people {
        let person = line.hub.person(line.place.tenant, &format!("p{n}")).await;
        line.hub.enrol(line.place.tenant, person, n).await;
        all.push(person);
    }
    let mut device = line.device().await;
    device.report().await;
    device.follow_to(2 * people as u64).await;
    (line, device, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_buckets_that_differ_travel() {
    if skipped("only_the_buckets_that_differ_travel") {
        return;
    }
    let (line, mut device, people) = filled(60).await;
    let tenant = line.place.tenant;
    // The hub deletes somebody; the device hears nothing of it and has two others of its own instead.
    line.hub.custody.delete_person(tenant, people[7], "test").await.unwrap();
    device.strays(1);
    device.strays(2);
    assert_eq!(device.log.version(), 122, "the watermarks agree");
    device.is_compared().await;
    let (parts, bytes) = device.answer().await;
    assert_eq!(line.held().await.agreement(), Agreement::Differs);
    let (buckets, records) = (parts[0].buckets.len(), parts[0].records.len());
    assert!(parts.len() == 1 && buckets <= 4, "{} parts, {buckets} buckets", parts.len());
    // 118 entries are live in 256 buckets; one that stands in a bucket with another is already rare.
    assert!(records <= 8 && bytes < 30_000, "{records} records, {bytes} bytes; the whole gallery has 170,000");
    println!("healed by {buckets} buckets with {records} records in {bytes} bytes");
    assert_eq!(device.replace(parts), 4, "the deleted person, their template and the two strays");
    device.report().await;
    line.wait_equal().await;
    let healed = line.held().await;
    assert_eq!(healed.agreement(), Agreement::Equal);
    // The log goes on where the healing ended.
    let late = line.hub.person(tenant, "late").await;
    device.follow_to(123).await;
    assert!(device.holds(late));
    let behind = line.held().await;
    assert_eq!(behind.agreement(), Agreement::Behind);
    assert!(behind.since() > healed.since(), "since the change that it has not reported");
    device.report().await;
    line.wait_equal().await;
    let took = line.held().await.propagation.expect("a change was reported");
    assert!(took.is_positive() && took < time::Duration::seconds(10), "{took}");
    assert_eq!(line.event_count(ALARM).await, 0, "what was healed alarms nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_that_differs_comes_in_parts() {
    if skipped("much_that_differs_comes_in_parts") {
        return;
    }
    let (line, mut device, _) = filled(60).await;
    // Everything is gone, although the version says otherwise.
    let version = device.log.version();
    device.log = gallery_log::Log::restore(device.log.gallery(), 1, version, []);
    device.is_compared().await;
    // Meanwhile the hub goes on.
    let (parts, _) = device.answer().await;
    assert!(parts.len() >= 3, "120 records do not fit two messages of 64 KiB, found {}", parts.len());
    assert_eq!(parts.iter().map(|part| part.records.len()).sum::<usize>(), 120);
    assert_eq!(device.replace(parts), 0);
    device.report().await;
    line.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_failure_is_a_rebuild_and_an_alarm() {
    if skipped("a_second_failure_is_a_rebuild_and_an_alarm") {
        return;
    }
    let (line, mut device, people) = filled(2).await;
    line.hub.custody.delete_person(line.place.tenant, people[0], "test").await.unwrap();
    device.strays(1);
    device.strays(2);
    device.is_compared().await;
    device.answer().await;
    assert_eq!(line.event_count(ALARM).await, 0);
    // It says that it has taken the answer in, and differs all the same.
    let root = Root([9; 32]);
    device.report_as(6, root).await;
    let (GalleryDown::Rebuild(order), _) = device.next_but_records().await else { panic!("no order to rebuild") };
    assert_eq!((order.gallery.0, order.epoch), (line.gallery().0, 1));
    assert_eq!(order.answers, Some(GalleryStand { version: 6, root: Hash32(root.0) }));
    assert_eq!(line.event_count(ALARM).await, 1);
    // It throws its gallery away and begins again.
    device.log = gallery_log::Log::new(device.log.gallery(), 1);
    let empty = Digest::new(device.log.gallery(), 1).root();
    device.report_as(0, empty).await;
    device.follow_to(6).await;
    assert!(device.holds(people[1]) && !device.holds(people[0]));
    device.report().await;
    line.wait_equal().await;
    // A version that the hub does not have cannot be healed.
    device.report_as(7, Root([9; 32])).await;
    assert!(matches!(device.next_but_records().await.0, GalleryDown::Rebuild(_)));
    assert_eq!(line.event_count(ALARM).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_that_nobody_can_open_are_rebuilt_with_stand_ins() {
    if skipped("buckets_that_nobody_can_open_are_rebuilt_with_stand_ins") {
        return;
    }
    let (mut line, mut device, people) = filled(2).await;
    let tenant = line.place.tenant;
    // What the hub knows to be there it does not send again, and so does not notice yet that it could not.
    device.report().await;
    line.wait_equal().await;
    let without = support::keys_without_people(&line.hub);
    line.stop_hub().await;
    line.hub.custody = Custody::new(line.hub.db.clone(), without, line.hub.clock.clone());
    line.hub.links = DeviceLinks::new(line.hub.custody.clone());
    line.start_hub().await;
    // It lacks somebody whose records nobody can open any more.
    device.log = gallery_log::Log::restore(device.log.gallery(), 1, 4, []);
    device.is_compared().await;
    let (GalleryDown::Rebuild(order), _) = device.next_but_records().await else { panic!("no order to rebuild") };
    assert_eq!(order.answers.map(|stand| stand.root.0), Some(device.log.root().0));
    device.log = gallery_log::Log::new(device.log.gallery(), 1);
    device.report().await;
    // `follow` checks the root, with stand-ins, after every message.
    device.follow_to(4).await;
    for person in people {
        line.hub.custody.delete_person(tenant, person, "test").await.unwrap();
    }
    device.follow_to(8).await;
    device.report().await;
    line.wait_equal().await;
}
