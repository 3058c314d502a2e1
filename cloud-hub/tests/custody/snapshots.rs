//! Snapshots and the compaction of the log: who is offered one, what is in it, what an erasure does to it, and that nothing
//! that was deleted comes back when its tombstone is gone.

use std::time::Duration;

use cloud_hub::domain::compaction::{Compacted, KeepRule};
use cloud_hub::domain::gallery::Change;
use cloud_hub::domain::ids::{GalleryId, PersonId, SnapshotId};
use cloud_hub::domain::message::{Incoming, Outgoing};
use cloud_hub::keys::Snapshots;
use cloud_hub::publish::{Broker, Desk, HomeSettings, Publisher, SAID_WITHIN};
use cloud_hub::store::galleries::{self, Pending, compaction, epochs};
use cloud_hub::store::{StoreError, devices};
use gallery_log::snapshot::decode_chunk;
use gallery_log::{
    DigestKey, Kind, Log, Purpose, Record, RecordId, Root, SealContext, SealKey, SnapshotPlace, TenantId,
};
use ring::digest::{SHA256, digest};
use wire_contract::gallery::{GalleryCondition, GalleryState};
use wire_contract::snapshot::{SnapshotAnswer, SnapshotOffer, Wanted};
use wire_contract::{GalleryDown, GalleryUp, Hash32, Topic, UpChannel, V1, envelope};

use crate::support::{Place, TestHub, skipped};

/// Small, so that twenty people are enough.
const FROM: u64 = 10;

/// The publisher's desk of a hub that has no broker.
pub(crate) fn desk(hub: &TestHub, snapshot_from: u64) -> Desk {
    let (db, links, clock) = (hub.db.clone(), hub.links.clone(), hub.clock.clone());
    let broker = Broker { host: String::new(), port: 0, client_id: String::new(), credentials: None, tls: None };
    let (said_within, home) = (SAID_WITHIN, HomeSettings::default());
    Desk::new(Publisher { db, links, clock, broker, snapshot_from, said_within, home })
}

/// A device's report on its gallery, as it comes from the broker.
pub(crate) fn report(place: &Place, epoch: u32, version: u64, root: Root) -> Incoming {
    let state = GalleryState {
        gallery: wire_contract::GalleryId(place.link.galleries[0].gallery.0),
        epoch,
        version,
        root: Hash32(root.0),
        condition: GalleryCondition::Ready,
    };
    let json = serde_json::to_vec(&GalleryUp::State { v: V1, galleries: vec![state] }).unwrap();
    let (tenant, device) = (wire_contract::TenantId(place.tenant.0), wire_contract::DeviceId(place.device.0));
    let topic = Topic::Up { tenant, device, channel: UpChannel::Gallery }.to_string();
    Incoming::on(&topic, envelope::wrap_up(place.keys.up(), &topic, &json)).unwrap()
}

struct Line {
    hub: TestHub,
    place: Place,
    desk: Desk,
    snapshots: Snapshots,
}

impl Line {
    async fn start() -> Self {
        let hub = TestHub::start().await;
        let place = hub.place().await;
        let desk = desk(&hub, FROM);
        let snapshots = Snapshots::new(hub.custody.clone());
        Self { hub, place, desk, snapshots }
    }

    fn gallery(&self) -> GalleryId {
        self.place.link.galleries[0].gallery
    }

    async fn people(&self, many: usize) -> Vec<PersonId> {
        let mut people = Vec::new();
        for n in 0..many {
            let person = self.hub.person(self.place.tenant, &format!("p{n}-{many}")).await;
            self.hub.enrol(self.place.tenant, person, n).await;
            people.push(person);
        }
        people
    }

    async fn head(&self) -> galleries::Gallery {
        let gallery = self.gallery();
        self.hub.db.tenant(self.place.tenant, move |tx| Box::pin(galleries::get(tx, gallery))).await.unwrap()
    }

    /// What the device is told when it says that it stands there.
    async fn report(&mut self, version: u64, root: Root) -> Vec<GalleryDown> {
        let epoch = self.head().await.epoch;
        self.report_of(epoch, version, root).await
    }

    async fn report_of(&mut self, epoch: u32, version: u64, root: Root) -> Vec<GalleryDown> {
        let mut out = self.desk.hear(vec![report(&self.place, epoch, version, root)]).await;
        out.extend(self.work().await);
        out.iter().map(|message| self.open(message)).collect()
    }

    async fn work(&mut self) -> Vec<Outgoing> {
        let mut out = Vec::new();
        while self.desk.is_busy() {
            out.extend(self.desk.turn().await);
        }
        out
    }

    fn tenant(&self) -> wire_contract::TenantId {
        wire_contract::TenantId(self.place.tenant.0)
    }

    fn open(&self, message: &Outgoing) -> GalleryDown {
        let topic = message.topic.to_string();
        let epoch = u64::from(self.place.keys.epoch());
        let context = SealContext::new(Purpose::MQTT_DOWN, TenantId(self.place.tenant.0), self.place.device.0, epoch)
            .with_topic(&topic);
        let plain = SealKey::new(*self.place.keys.expose_down()).open(&context, &message.payload).unwrap();
        serde_json::from_slice(&plain).unwrap()
    }

    /// The one offer among what was said.
    fn offer(said: &[GalleryDown]) -> SnapshotOffer {
        match said {
            [GalleryDown::Snapshot(offer)] => offer.clone(),
            other => panic!("expected an offer, found {other:?}"),
        }
    }

    async fn manifest(&self, offer: &SnapshotOffer) -> Option<SnapshotAnswer> {
        let (tenant, device) = (self.place.tenant, self.place.device);
        self.snapshots.manifest(tenant, device, SnapshotId(offer.snapshot)).await.unwrap()
    }

    async fn chunk(&self, offer: &SnapshotOffer, index: usize) -> Option<Vec<u8>> {
        let (tenant, device) = (self.place.tenant, self.place.device);
        let ready = self.snapshots.content(tenant, device, SnapshotId(offer.snapshot)).await.unwrap()?;
        self.snapshots.chunk(&ready, index).await.unwrap()
    }

    /// Fetches, checks and applies a snapshot as a device does.
    async fn fetch(&self, offer: &SnapshotOffer) -> (Log, Vec<Record>) {
        let answer = self.manifest(offer).await.expect("it is on offer");
        let wanted = Wanted {
            snapshot: offer.snapshot,
            tenant: self.tenant(),
            device: wire_contract::DeviceId(self.place.device.0),
            gallery: offer.gallery,
            epoch: offer.epoch,
            version: offer.version,
        };
        let pinned = [self.hub.custody.keyring().signing().public()];
        answer.manifest.verify(&pinned, &wanted).unwrap();
        let gallery = gallery_log::GalleryId(offer.gallery.0);
        let gdk = DigestKey::new(*self.place.link.galleries[0].gdk);
        let mut whole = Log::new(gallery, offer.epoch).whole(offer.version).unwrap();
        let mut records = Vec::new();
        for (index, chunk) in answer.manifest.chunks.iter().enumerate() {
            let sealed = self.chunk(offer, index).await.expect("it can be made");
            assert_eq!(digest(&SHA256, &sealed).as_ref(), chunk.sha256.0);
            assert_eq!(sealed.len(), chunk.bytes as usize);
            let (epoch, version, chunk) = (offer.epoch, offer.version, u32::try_from(index).unwrap());
            let place = SnapshotPlace { gallery, epoch, version, chunk };
            let context = SealContext::new(Purpose::SNAPSHOT, TenantId(self.place.tenant.0), offer.snapshot, 1);
            let plain = SealKey::new(*answer.key.expose()).open(&context.with_place(place), &sealed).unwrap();
            for record in decode_chunk(&plain).unwrap() {
                whole.take(&record, &gdk).unwrap();
                records.push(record);
            }
        }
        assert_eq!(records.len() as u64, answer.manifest.records);
        let (log, _) = whole.finish(Root(answer.manifest.root.0)).unwrap();
        (log, records)
    }

    async fn compact(&self, rule: KeepRule) -> Compacted {
        let (gallery, keep) = (self.gallery(), rule.at(self.hub.clock.now()));
        let done = self.hub.db.tenant(self.place.tenant, move |tx| Box::pin(compaction::compact(tx, gallery, keep)));
        done.await.unwrap()
    }

    async fn seen(&self) {
        let (device, now) = (self.place.device, self.hub.clock.now());
        self.hub.db.tenant(self.place.tenant, move |tx| Box::pin(devices::seen(tx, device, now))).await.unwrap();
    }

    async fn withdraw_all(&self) {
        sqlx::query("DELETE FROM gallery_snapshot").execute(&mut self.hub.superuser().await).await.unwrap();
    }

    async fn put(&self, id: PersonId) -> Result<(), StoreError> {
        let (tenant, gallery) = (self.place.tenant, self.gallery());
        let keys = self.hub.custody.tenant_keys(tenant).await.unwrap();
        let change = Change::Put { kind: Kind::Person, id: RecordId(id.0), rev: 99, body: vec![1] };
        let pending = Pending { change, sealed: Some(vec![1]), person: None, space_id: None };
        let append = self.hub.db.tenant(tenant, move |tx| {
            Box::pin(async move { galleries::append(tx, &keys, &[gallery], &[pending]).await })
        });
        append.await
    }
}

fn empty(line: &Line, epoch: u32) -> Root {
    Log::new(gallery_log::GalleryId(line.gallery().0), epoch).root()
}

/// Nothing is too young, and devices are waited for however long they were away.
const AT_ONCE: KeepRule = KeepRule { log: Duration::ZERO, device_lease: Duration::ZERO };

#[tokio::test]
async fn a_device_that_lacks_much_is_offered_a_snapshot_that_is_the_gallery() {
    if skipped("a_device_that_lacks_much_is_offered_a_snapshot_that_is_the_gallery") {
        return;
    }
    let mut line = Line::start().await;
    line.people(4).await;
    let nothing = empty(&line, 1);
    let said = line.report(0, nothing).await;
    assert!(matches!(said[..], [GalleryDown::Records(_)]), "eight records come as records");

    let people = line.people(150).await;
    line.hub.custody.delete_person(line.place.tenant, people[7], "test").await.unwrap();
    let said = line.report(0, nothing).await;
    let offer = Line::offer(&said);
    let head = line.head().await;
    assert_eq!((offer.epoch, offer.version), (1, head.version));
    let (mut log, records) = line.fetch(&offer).await;
    assert_eq!((log.root(), log.version()), (head.root, head.version));
    assert!(records.iter().all(|record| record.id.0 != people[7].0), "who was deleted is not in it");
    assert!(line.manifest(&offer).await.unwrap().manifest.chunks.len() >= 2, "300 KiB in chunks of 256");

    // The same again while it lasts, to the byte, whatever came since; another device has nothing of it.
    let first = line.chunk(&offer, 1).await;
    line.people(2).await;
    assert_eq!(Line::offer(&line.report(0, nothing).await).snapshot, offer.snapshot);
    assert_eq!(line.chunk(&offer, 1).await, first);
    let other = line.hub.device(line.place.tenant, line.place.site).await;
    let stolen = line.snapshots.manifest(line.place.tenant, other, SnapshotId(offer.snapshot)).await.unwrap();
    assert!(stolen.is_none(), "it is one device's");

    // Who has applied it gets records again, and the snapshot is gone.
    let said = line.report(offer.version, head.root).await;
    assert!(matches!(said[..], [GalleryDown::Records(_)]), "{said:?}");
    assert!(line.manifest(&offer).await.is_none());
}

#[tokio::test]
async fn an_erasure_reaches_a_snapshot_under_way() {
    if skipped("an_erasure_reaches_a_snapshot_under_way") {
        return;
    }
    let mut line = Line::start().await;
    let people = line.people(8).await;
    let nothing = empty(&line, 1);
    let offer = Line::offer(&line.report(0, nothing).await);
    let answer = line.manifest(&offer).await.unwrap();
    assert!(line.chunk(&offer, 0).await.is_some());
    line.hub.custody.delete_person(line.place.tenant, people[3], "test").await.unwrap();
    assert!(line.chunk(&offer, 0).await.is_none(), "a chunk with an erased person cannot be made any more");
    assert!(line.manifest(&offer).await.is_none(), "and the snapshot is gone");
    let next = Line::offer(&line.report(0, nothing).await);
    assert_ne!(next.snapshot, offer.snapshot);
    let (_, records) = line.fetch(&next).await;
    assert_eq!(records.len(), 14);
    assert_ne!(line.manifest(&next).await.unwrap().key.expose(), answer.key.expose(), "each has a key of its own");
}

#[tokio::test]
async fn the_log_is_compacted_as_far_as_every_live_device_has_come_and_the_deleted_stay_deleted() {
    if skipped("the_log_is_compacted_as_far_as_every_live_device_has_come_and_the_deleted_stay_deleted") {
        return;
    }
    let mut line = Line::start().await;
    let people = line.people(6).await;
    line.hub.custody.delete_person(line.place.tenant, people[0], "test").await.unwrap();
    let half = line.head().await;
    line.people(3).await;
    line.hub.custody.delete_person(line.place.tenant, people[1], "test").await.unwrap();
    let head = line.head().await;
    let _ = line.report(half.version, half.root).await;

    let young = KeepRule { log: Duration::from_secs(3600), ..AT_ONCE };
    assert_eq!(line.compact(young).await, Compacted::default(), "what is younger than the window stays");
    line.withdraw_all().await;
    let done = line.compact(AT_ONCE).await;
    assert_eq!(done.compacted_to, half.version, "the device has come this far and no further");
    // Person, template and their two dels of the first one deleted.
    assert_eq!((done.records, done.tombstones), (4, 2));
    assert!(matches!(line.put(people[0]).await, Err(StoreError::Deleted { .. })), "its tombstone is gone, it is not");
    assert!(matches!(line.put(people[1]).await, Err(StoreError::Deleted { .. })));

    // It goes on by records from where the log is whole; a device behind it takes a snapshot, however little it lacks.
    let said = line.report(half.version, half.root).await;
    assert!(matches!(&said[..], [GalleryDown::Records(records)] if records.from == half.version + 1), "{said:?}");
    let said = line.report(half.version - 1, Root([9; 32])).await;
    let offer = Line::offer(&said);
    let (mut log, _) = line.fetch(&offer).await;
    assert_eq!((log.root(), log.version()), (head.root, head.version));

    // A snapshot on offer holds the log back; so does a device that is away, unless its lease is over.
    line.seen().await;
    assert_eq!(line.compact(AT_ONCE).await.records, 0);
    line.withdraw_all().await;
    let day = Duration::from_secs(86_400);
    assert_eq!(line.compact(KeepRule { device_lease: day, ..AT_ONCE }).await.records, 0, "seen just now");
    sqlx::query("UPDATE device SET last_seen_at = now() - interval '2 days'")
        .execute(&mut line.hub.superuser().await)
        .await
        .unwrap();
    assert_eq!(line.compact(AT_ONCE).await.records, 0, "waited for however long");
    let done = line.compact(KeepRule { device_lease: day, ..AT_ONCE }).await;
    assert_eq!((done.compacted_to, done.tombstones), (head.version, 2));
    assert!(matches!(line.put(people[1]).await, Err(StoreError::Deleted { .. })));
    let offer = Line::offer(&line.report(half.version, half.root).await);
    let (mut log, records) = line.fetch(&offer).await;
    assert_eq!((log.root(), records.len()), (head.root, 14));
    // The log goes on behind it.
    line.people(1).await;
    let said = line.report(head.version, head.root).await;
    assert!(matches!(&said[..], [GalleryDown::Records(records)] if records.from == head.version + 1), "{said:?}");
}

#[tokio::test]
async fn a_raised_epoch_has_the_same_people_and_every_device_takes_a_snapshot_of_it() {
    if skipped("a_raised_epoch_has_the_same_people_and_every_device_takes_a_snapshot_of_it") {
        return;
    }
    let mut line = Line::start().await;
    let people = line.people(5).await;
    line.hub.custody.delete_person(line.place.tenant, people[2], "test").await.unwrap();
    let before = line.head().await;
    let (tenant, gallery) = (line.place.tenant, line.gallery());
    let keys = line.hub.custody.tenant_keys(tenant).await.unwrap();
    let held = &line.place.link.galleries[0];
    let (gdk, ck) = (keys.seal_gdk(gallery, 4, &held.gdk).unwrap(), keys.seal_ck(gallery, 4, &held.ck).unwrap());
    let again = (gdk.clone(), ck.clone());
    let raise = |gdk: Vec<u8>, ck: Vec<u8>| {
        let db = line.hub.db.clone();
        async move {
            db.tenant(tenant, move |tx| Box::pin(async move { epochs::raise(tx, gallery, 4, &gdk, &ck).await }))
                .await
                .unwrap()
        }
    };
    assert!(raise(gdk, ck).await);
    assert!(!raise(again.0, again.1).await, "it is there already");
    let head = line.head().await;
    assert_eq!((head.epoch, head.version, head.compacted_to), (4, before.version, before.version));
    assert_ne!(head.root, before.root, "the epoch is in the root");

    let said = line.report_of(1, before.version, before.root).await;
    assert!(matches!(said[..], [GalleryDown::Rebuild(ref order)] if order.epoch == 4), "it fetches the link: {said:?}");
    let nothing = empty(&line, 4);
    let offer = Line::offer(&line.report(0, nothing).await);
    assert_eq!((offer.epoch, offer.version), (4, head.version));
    let (mut log, records) = line.fetch(&offer).await;
    assert_eq!((log.root(), records.len()), (head.root, 8));
    assert!(matches!(line.put(people[2]).await, Err(StoreError::Deleted { .. })), "buried in any epoch");
    // And the log goes on.
    line.people(1).await;
    let said = line.report(head.version, head.root).await;
    assert!(matches!(&said[..], [GalleryDown::Records(records)] if records.epoch == 4), "{said:?}");
}
