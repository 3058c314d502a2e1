//! Batches of events against a real Postgres: once, in order, acknowledged only when committed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock to wait for others"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use cloud_hub::domain::ids::{DeviceId, EndpointId, TenantId};
use cloud_hub::domain::message::{Incoming, Outgoing};
use cloud_hub::ingest::{Ingest, Refused};
use cloud_hub::store::{devices, webhooks};
use gallery_log::{Purpose, SealContext, SealKey};
use sqlx::{Executor as _, PgConnection, Row as _};
use support::{Place, TestHub, skipped};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;
use wire_contract::event::{ClockQuality, FaceAppearedData, Meta};
use wire_contract::{
    Batch, CloudEvent, Code, EventData, EventId, EvtAck, EvtRefusal, LinkKeys, Sequence, StreamId, Timestamp,
    UpChannel, V1, Verdict, envelope,
};

const STREAM: StreamId = StreamId([7; 16]);

struct Line {
    hub: TestHub,
    place: Place,
    ingest: Ingest,
    sender: mpsc::Sender<Outgoing>,
    acks: mpsc::Receiver<Outgoing>,
}

impl Line {
    async fn start() -> Self {
        let hub = TestHub::start().await;
        let place = hub.place().await;
        let ingest = Ingest::new(hub.db.clone(), hub.links.clone(), hub.clock.clone());
        let (sender, acks) = mpsc::channel(64);
        Self { hub, place, ingest, sender, acks }
    }

    fn message(&self, events: &[CloudEvent]) -> Incoming {
        message(self.place.tenant, self.place.device, &self.place.keys, events)
    }

    async fn take(&self, events: &[CloudEvent]) -> Result<usize, Refused> {
        self.ingest.take(self.message(events), &self.sender).await
    }

    /// The next ack, opened as the device would.
    fn ack(&mut self) -> EvtAck {
        serde_json::from_slice(&self.answer()).unwrap()
    }

    /// The next answer's JSON.
    fn answer(&mut self) -> Vec<u8> {
        let Outgoing { topic, payload } = self.acks.try_recv().expect("an ack");
        let (place, topic) = (&self.place, topic.to_string());
        let tenant = gallery_log::TenantId(place.tenant.0);
        let context = SealContext::new(Purpose::MQTT_DOWN, tenant, place.device.0, u64::from(place.keys.epoch()))
            .with_topic(&topic);
        SealKey::new(*place.keys.expose_down()).open(&context, &payload).unwrap().to_vec()
    }

    fn no_ack(&mut self) {
        assert!(self.acks.try_recv().is_err(), "nothing may be acknowledged");
    }

    async fn count(&self, connection: &mut PgConnection, table: &'static str) -> i64 {
        connection.fetch_one(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"))).await.unwrap().get(0)
    }
}

fn message(tenant: TenantId, device: DeviceId, keys: &LinkKeys, events: &[CloudEvent]) -> Incoming {
    let batch = Batch { v: V1, stream: events[0].stream.unwrap(), events: events.to_vec() };
    let mut message = Incoming { tenant, device, channel: UpChannel::Evt, payload: Vec::new() };
    message.payload = envelope::wrap_up(keys.up(), &message.topic().to_string(), &batch.encode().unwrap());
    message
}

fn event(sequence: u64) -> CloudEvent {
    let meta = Meta {
        id: EventId(Uuid::from_u128(u128::from(sequence) + 1_000)),
        source: "/test".to_owned(),
        subject: None,
        time: Timestamp::from(OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000)),
        stream: STREAM,
        sequence: Sequence(sequence),
        boot: Uuid::from_u128(1),
        monotonic_ms: sequence,
        clock_quality: ClockQuality::Synchronised,
    };
    CloudEvent::new(meta, &EventData::FaceAppeared(FaceAppearedData { camera: "c".to_owned(), track: sequence }))
}

fn events(range: std::ops::RangeInclusive<u64>) -> Vec<CloudEvent> {
    range.map(event).collect()
}

#[tokio::test]
async fn events_are_stored_once_and_in_order_whatever_comes_again() {
    if skipped("events_are_stored_once_and_in_order_whatever_comes_again") {
        return;
    }
    let mut line = Line::start().await;
    for (name, classes) in
        [("all", None), ("faces", Some(vec!["face".to_owned()])), ("doors", Some(vec!["door".to_owned()]))]
    {
        let url = format!("https://example.org/{name}");
        let id = EndpointId(Uuid::new_v4());
        line.hub.custody.create_webhook(line.place.tenant, id, &url, classes, "test").await.unwrap();
    }
    let expect = |ack: EvtAck, through, verdict| {
        assert_eq!((ack.stream, ack.through, ack.verdict, ack.hub_epoch), (STREAM, Sequence(through), verdict, 1));
    };
    assert_eq!(line.take(&events(1..=5)).await.unwrap(), 5);
    expect(line.ack(), 5, Verdict::Ok);
    assert_eq!(line.take(&events(3..=8)).await.unwrap(), 3, "three of these are duplicates");
    expect(line.ack(), 8, Verdict::Ok);
    assert_eq!(line.take(&events(1..=8)).await.unwrap(), 0);
    expect(line.ack(), 8, Verdict::Ok);
    assert_eq!(line.take(&events(11..=12)).await.unwrap(), 0, "9 and 10 are missing");
    expect(line.ack(), 8, Verdict::Rewind);

    let mut superuser = line.hub.superuser().await;
    let rows = superuser.fetch_all("SELECT sequence, position FROM event ORDER BY position").await.unwrap();
    let found: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, (1..=8).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!(line.count(&mut superuser, "webhook_delivery").await, 16, "two of the three endpoints want them");
    assert_eq!(line.count(&mut superuser, "audit_entry WHERE action = 'events.commit'").await, 2);

    // And the deliveries can be worked off: leased, failed, leased again, delivered, then none is due.
    let (db, tenant, now) = (line.hub.db.clone(), line.place.tenant, line.hub.clock.now());
    let lease = async |at: OffsetDateTime| {
        db.tenant(tenant, move |tx| {
            Box::pin(webhooks::lease_due(tx, at, time::Duration::minutes(1), (100, 100), (&[], None)))
        })
        .await
        .unwrap()
    };
    let leased = lease(now).await;
    assert_eq!(leased.len(), 16);
    assert!(lease(now).await.is_empty(), "leased deliveries are nobody else's");
    let (failed, rest) = leased.split_first().unwrap();
    let (failed, rest): (_, Vec<_>) = (failed.id, rest.iter().map(|delivery| delivery.id).collect());
    let next = db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                webhooks::failed(tx, failed, 1, (Some(500), "status 500"), Some(now + time::Duration::seconds(5)))
                    .await?;
                for id in rest {
                    webhooks::delivered(tx, id, 200, now).await?;
                }
                webhooks::reschedule(tx).await
            })
        })
        .await
        .unwrap();
    assert_eq!(next.unwrap().unix_timestamp(), (now + time::Duration::seconds(5)).unix_timestamp());
    let again = lease(now + time::Duration::seconds(6)).await;
    assert_eq!((again.len(), again[0].id, again[0].attempts), (1, failed, 2));
    // The outcome of the first attempt, once more and much too late.
    let late = db.tenant(tenant, move |tx| {
        Box::pin(webhooks::failed(tx, failed, 1, (Some(500), "status 500"), Some(now + time::Duration::seconds(7))))
    });
    late.await.unwrap();
    assert!(lease(now + time::Duration::seconds(10)).await.is_empty(), "the second attempt has it still");
}

#[tokio::test]
async fn endpoints_take_turns() {
    if skipped("endpoints_take_turns") {
        return;
    }
    let line = Line::start().await;
    let mut ids = [1, 2, 3].map(|_| EndpointId(Uuid::new_v4()));
    ids.sort_unstable();
    for id in ids {
        line.hub.custody.create_webhook(line.place.tenant, id, "https://example.org/", None, "test").await.unwrap();
    }
    assert_eq!(line.take(&events(1..=5)).await.unwrap(), 5);
    let (db, tenant, now) = (line.hub.db.clone(), line.place.tenant, line.hub.clock.now());
    let lease = async |busy: &[EndpointId], last| {
        let busy = busy.to_vec();
        let leased = db.tenant(tenant, move |tx| {
            Box::pin(
                async move { webhooks::lease_due(tx, now, time::Duration::minutes(1), (3, 2), (&busy, last)).await },
            )
        });
        leased.await.unwrap().iter().map(|delivery| delivery.id.endpoint).fold(
            BTreeMap::new(),
            |mut found, endpoint| {
                *found.entry(endpoint).or_insert(0) += 1;
                found
            },
        )
    };
    assert_eq!(lease(&[], Some(ids[1])).await, BTreeMap::from([(ids[2], 2), (ids[0], 1)]));
    assert_eq!(lease(&[], Some(ids[0])).await, BTreeMap::from([(ids[1], 2), (ids[2], 1)]));
    assert_eq!(lease(&[ids[0]], Some(ids[2])).await, BTreeMap::from([(ids[1], 2), (ids[2], 1)]));
    assert_eq!(lease(&[ids[1]], None).await, BTreeMap::from([(ids[0], 2), (ids[2], 1)]));
}

/// The guard of the whole outbox: an ack that goes out before the commit would empty the edge's only copy.
#[tokio::test]
async fn an_ack_goes_out_only_after_the_commit() {
    if skipped("an_ack_goes_out_only_after_the_commit") {
        return;
    }
    let mut line = Line::start().await;
    let mut superuser = line.hub.superuser().await;
    // A commit that fails.
    superuser
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'on purpose'; END $$;
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    let failed = line.take(&events(1..=3)).await.unwrap_err();
    assert!(!failed.by_the_devices_fault(), "{failed}");
    line.no_ack();
    assert_eq!(line.count(&mut superuser, "event").await, 0);
    assert_eq!(line.count(&mut superuser, "stream").await, 0);

    // A commit that hangs: it waits for a lock that this test holds.
    superuser
        .execute(
            "DROP TRIGGER refuse ON event;
             CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse();
             SELECT pg_advisory_lock(42)",
        )
        .await
        .unwrap();
    let (ingest, sender, message) = (line.ingest.clone(), line.sender.clone(), line.message(&events(1..=3)));
    let taking = tokio::spawn(async move { ingest.take(message, &sender).await });
    let mut witness = line.hub.superuser().await;
    let hanging = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE 'COMMIT%'";
    while witness.fetch_one(hanging).await.unwrap().get::<i64, _>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    line.no_ack();
    assert!(!taking.is_finished());
    superuser.execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    assert_eq!(taking.await.unwrap().unwrap(), 3);
    assert_eq!(line.ack().through, Sequence(3));
    assert_eq!(line.count(&mut witness, "event").await, 3);
}

#[tokio::test]
async fn a_clone_is_quarantined_and_told_once() {
    if skipped("a_clone_is_quarantined_and_told_once") {
        return;
    }
    let mut line = Line::start().await;
    line.take(&events(1..=4)).await.unwrap();
    line.ack();
    let mut twin = events(3..=6);
    twin[1].id = EventId(Uuid::from_u128(77));
    for _ in 0..2 {
        assert_eq!(line.take(&twin).await.unwrap(), 0);
        let ack = line.ack();
        assert_eq!((ack.through, ack.verdict), (Sequence(4), Verdict::Conflict));
    }
    // An id that is known from another place in the stream is no duplicate either.
    let mut moved = events(5..=6);
    moved[0].id = event(1).id;
    assert_eq!(line.take(&moved).await.unwrap(), 0);
    assert_eq!(line.ack().verdict, Verdict::Conflict);
    let mut superuser = line.hub.superuser().await;
    assert_eq!(line.count(&mut superuser, "event WHERE device_id IS NOT NULL").await, 4);
    assert_eq!(line.count(&mut superuser, "event WHERE type = 'lintel.tamper.stream_conflict.v1'").await, 1);
    assert_eq!(
        line.count(&mut superuser, "event_quarantine").await,
        4,
        "three of the twin, one more of the moved, repeats once"
    );
    // The true device goes on.
    assert_eq!(line.take(&events(5..=6)).await.unwrap(), 2);
    assert_eq!(line.ack().verdict, Verdict::Ok);
}

/// An authentic message of any content.
fn raw(line: &Line, json: &[u8]) -> Incoming {
    let mut message = line.message(&events(1..=1));
    message.payload = envelope::wrap_up(line.place.keys.up(), &message.topic().to_string(), json);
    message
}

#[tokio::test]
async fn a_batch_that_can_never_be_stored_is_answered_once_and_for_all() {
    if skipped("a_batch_that_can_never_be_stored_is_answered_once_and_for_all") {
        return;
    }
    let mut line = Line::start().await;
    line.take(&events(1..=2)).await.unwrap();
    line.ack();
    let with = |change: &dyn Fn(&mut CloudEvent)| {
        let mut events = events(3..=4);
        change(&mut events[1]);
        serde_json::to_vec(&Batch { v: V1, stream: STREAM, events }).unwrap()
    };
    let mut cut = with(&|_| {});
    cut.truncate(cut.len() - 9);
    for (what, json) in [
        ("a NUL in a text", with(&|event| event.data = serde_json::json!({ "camera": "a\0b" }))),
        ("a NUL in a name", with(&|event| event.data = serde_json::json!({ "a\0b": 1 }))),
        ("an id that is there twice", with(&|event| event.id = self::event(3).id)),
        ("a type with a line feed", with(&|event| event.kind = "lintel.face.a\n.v1".to_owned())),
        ("a gap", with(&|event| event.sequence = Some(Sequence(9)))),
        ("an event that is no JSON", cut),
    ] {
        for _ in 0..2 {
            assert_eq!(line.ingest.take(raw(&line, &json), &line.sender).await.expect(what), 0);
            let answer = line.answer();
            let refusal: EvtRefusal = serde_json::from_slice(&answer).expect(what);
            let ack: EvtAck = serde_json::from_slice(&answer).expect(what);
            assert_eq!((refusal.ack, refusal.code), (ack, Code::BatchRefused), "{what}");
            assert_eq!((ack.stream, ack.through, ack.verdict), (STREAM, Sequence(2), Verdict::Conflict), "{what}");
        }
    }
    let mut superuser = line.hub.superuser().await;
    assert_eq!(line.count(&mut superuser, "event WHERE device_id IS NOT NULL").await, 2, "nothing of them is stored");
    let told = "event WHERE type = 'lintel.tamper.stream_conflict.v1'";
    assert_eq!(line.count(&mut superuser, told).await, 1, "told once a stream");
}

#[tokio::test]
async fn what_is_not_the_devices_own_is_refused_without_an_answer() {
    if skipped("what_is_not_the_devices_own_is_refused_without_an_answer") {
        return;
    }
    let mut line = Line::start().await;
    let other = line.hub.place().await;
    let (tenant, device) = (line.place.tenant, line.place.device);
    let good = events(1..=2);
    let forged = message(tenant, device, &other.keys, &good);
    let stolen = message(other.tenant, device, &line.place.keys, &good);
    let unknown = message(tenant, DeviceId(Uuid::new_v4()), &line.place.keys, &good);
    let mut moved = line.message(&good);
    moved.channel = UpChannel::Gallery;
    let mut damaged = line.message(&good);
    *damaged.payload.last_mut().unwrap() ^= 1;
    let empty = Incoming { payload: Vec::new(), ..line.message(&good) };
    let nonsense = {
        let mut message = line.message(&good);
        message.payload = envelope::wrap_up(line.place.keys.up(), &message.topic().to_string(), b"{\"v\":2}");
        message
    };
    for (what, message) in [
        ("another device's key", forged),
        ("another tenant's topic", stolen),
        ("an unknown device", unknown),
        ("another channel", moved),
        ("a flipped bit", damaged),
        ("nothing", empty),
        ("another version", nonsense),
    ] {
        let refused = line.ingest.take(message, &line.sender).await.expect_err(what);
        assert!(refused.by_the_devices_fault(), "{what}: {refused}");
        line.no_ack();
    }
    let mut superuser = line.hub.superuser().await;
    for table in ["event", "stream", "event_quarantine"] {
        assert_eq!(line.count(&mut superuser, table).await, 0, "{table}");
    }
    line.hub.db.tenant(tenant, move |tx| Box::pin(devices::revoke(tx, device))).await.unwrap();
    assert!(matches!(line.take(&good).await, Err(Refused::NotRegistered { .. })), "a revoked device is nobody's");
}

/// What came together shares a transaction, and one that cannot be in it costs the others nothing.
#[tokio::test]
async fn of_batches_that_come_together_each_gets_its_own_answer() {
    if skipped("of_batches_that_come_together_each_gets_its_own_answer") {
        return;
    }
    let mut line = Line::start().await;
    let tenant = line.place.tenant;
    let mut others = Vec::new();
    for _ in 0..6 {
        others.push(another(&line).await);
    }
    let [good, gap, forged, broken, thief, late] = &others[..] else { panic!("six devices") };
    let of = |device: &(DeviceId, LinkKeys), range: std::ops::RangeInclusive<u64>| {
        let mut batch = events(range);
        batch.iter_mut().for_each(|event| event.id = EventId(Uuid::new_v4()));
        message(tenant, device.0, &device.1, &batch)
    };
    line.take(&events(1..=2)).await.unwrap();
    line.ack();
    let mut nul = of(broken, 1..=1);
    nul.payload = {
        let mut event = event(1);
        event.data = serde_json::json!({ "camera": "a\0b" });
        let json = serde_json::to_vec(&Batch { v: V1, stream: STREAM, events: vec![event] }).unwrap();
        envelope::wrap_up(broken.1.up(), &nul.topic().to_string(), &json)
    };
    let messages = vec![
        line.message(&events(3..=4)),
        of(good, 1..=3),
        of(gap, 5..=6),
        message(tenant, forged.0, &good.1, &events(1..=1)),
        nul,
        // The id of an event that another device's stream already holds: the database refuses the row.
        message(tenant, thief.0, &thief.1, &[event(1)]),
        of(good, 4..=5),
        line.message(&events(1..=4)),
        of(late, 1..=1),
    ];
    let results = line.ingest.take_all(tenant, messages, &line.sender).await;
    let stored: Vec<Option<usize>> = results.iter().map(|result| result.as_ref().ok().copied()).collect();
    assert_eq!(stored, [Some(2), Some(3), Some(0), None, Some(0), Some(0), Some(2), Some(0), Some(1)], "{results:?}");
    let mut superuser = line.hub.superuser().await;
    assert_eq!(line.count(&mut superuser, "event WHERE device_id IS NOT NULL").await, 10);
    assert_eq!(line.count(&mut superuser, "event_quarantine").await, 1, "the thief's");
    let mut acks = 0;
    while line.acks.try_recv().is_ok() {
        acks += 1;
    }
    assert!(acks >= 7, "{acks}");
    drop(results);

    // Without the bad ones: one transaction, and one answer for each stream.
    let messages = vec![line.message(&events(5..=6)), of(good, 6..=7), line.message(&events(7..=9)), of(late, 2..=2)];
    let results = line.ingest.take_all(tenant, messages, &line.sender).await;
    assert_eq!(results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [2, 2, 3, 1]);
    let transactions = "(SELECT DISTINCT xmin FROM event WHERE position > 12) t";
    assert_eq!(line.count(&mut superuser, transactions).await, 1);
    let mut acks = 0;
    while line.acks.try_recv().is_ok() {
        acks += 1;
    }
    assert_eq!(acks, 3, "a second one that says the same would be taken for an announcement");
    let order = "SELECT count(*) FROM (SELECT sequence - lag(sequence, 1, 0::bigint) OVER
                 (PARTITION BY device_id ORDER BY position) AS step FROM event WHERE device_id IS NOT NULL) s WHERE step <> 1";
    assert_eq!(superuser.fetch_one(order).await.unwrap().get::<i64, _>(0), 0);
}

/// A further device of the place.
async fn another(line: &Line) -> (DeviceId, LinkKeys) {
    let device = line.hub.device(line.place.tenant, line.place.site).await;
    let link = line.hub.custody.link(line.place.tenant, device).await.unwrap();
    (device, LinkKeys::derive(&link.link_key, wire_contract::DeviceId(device.0), link.link_epoch))
}

/// What took the place of three foreign keys: without it an event could hang on nothing.
#[tokio::test]
async fn an_event_of_a_stream_that_is_not_there_is_refused_by_the_database() {
    if skipped("an_event_of_a_stream_that_is_not_there_is_refused_by_the_database") {
        return;
    }
    let line = Line::start().await;
    line.take(&events(1..=1)).await.unwrap();
    let mut superuser = line.hub.superuser().await;
    let copied = "INSERT INTO event (tenant_id, id, position, type, class, device_id, stream, sequence, occurred_at, body)
                  SELECT tenant_id, gen_random_uuid(), position + 1000, type, class, device_id, md5('elsewhere'), sequence,
                         occurred_at, body FROM event";
    let refused = superuser.execute(copied).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("23503"), "{refused}");
    superuser.execute("ALTER TABLE event DISABLE TRIGGER event_needs_its_stream").await.unwrap();
    superuser.execute(copied).await.expect("the trigger was what refused it");
    // And what events hang on does not go away.
    let mut app = line.hub.app().await;
    for table in ["stream", "device", "tenant", "webhook_endpoint", "event"] {
        let refused = app.execute(sqlx::AssertSqlSafe(format!("DELETE FROM {table}"))).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{table}: {refused}");
    }
}

#[tokio::test]
async fn batches_of_many_devices_at_once_are_all_stored() {
    if skipped("batches_of_many_devices_at_once_are_all_stored") {
        return;
    }
    let line = Line::start().await;
    let mut devices = Vec::new();
    for _ in 0..8 {
        devices.push(another(&line).await);
    }
    let (incoming, messages) = mpsc::channel(64);
    let (sender, mut acks) = mpsc::channel(1024);
    let running = tokio::spawn(cloud_hub::ingest::run(line.ingest.clone(), messages, sender));
    let began = std::time::Instant::now();
    for round in 0..10u64 {
        for (device, keys) in &devices {
            let mut batch = events(round * 10 + 1..=round * 10 + 10);
            for event in &mut batch {
                event.id = EventId(Uuid::new_v4());
            }
            incoming.send(message(line.place.tenant, *device, keys, &batch)).await.unwrap();
        }
    }
    drop(incoming);
    running.await.unwrap();
    println!("80 batches of 10 events of 8 devices committed in {:?}", began.elapsed());
    let mut n_acks = 0;
    while acks.try_recv().is_ok() {
        n_acks += 1;
    }
    let mut superuser = line.hub.superuser().await;
    assert_eq!(line.count(&mut superuser, "event").await, 800);
    assert!((8..=80).contains(&n_acks), "{n_acks}: one for each stream that a transaction advanced");
    let gaps: i64 = superuser.fetch_one("SELECT max(position) - count(*) FROM event").await.unwrap().get(0);
    assert_eq!(gaps, 0);
}

/// A device would send again after ten seconds or more; the hub has the batch and can wait for its database itself.
#[tokio::test]
async fn a_batch_that_met_no_database_is_stored_when_it_is_back() {
    if skipped("a_batch_that_met_no_database_is_stored_when_it_is_back") {
        return;
    }
    let mut line = Line::start().await;
    line.take(&events(1..=1)).await.unwrap();
    line.ack();
    let mut superuser = line.hub.superuser().await;
    superuser.execute("ALTER ROLE lintel_app NOLOGIN").await.unwrap();
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lintel_app'";
    superuser.execute(ended).await.unwrap();
    let (incoming, messages) = mpsc::channel(4);
    let running = tokio::spawn(cloud_hub::ingest::run(line.ingest.clone(), messages, line.sender.clone()));
    incoming.send(line.message(&events(2..=3))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    line.no_ack();
    superuser.execute("ALTER ROLE lintel_app LOGIN").await.unwrap();
    drop(incoming);
    running.await.unwrap();
    assert_eq!(line.ack().through, Sequence(3));
    assert_eq!(line.count(&mut superuser, "event").await, 3);
}
