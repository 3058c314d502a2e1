//! Events, acks, the consumers' feed, and who may say what.

use std::time::{Duration, Instant};

use cloud_hub::domain::ids::DeviceId;
use cloud_hub::publish::{access_lines, end_session};
use cloud_hub::store::devices;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event};
use sqlx::{Executor as _, Row as _};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use wire_contract::event::{ClockQuality, FaceAppearedData, Meta};
use wire_contract::{Batch, CloudEvent, EventData, EventId, Sequence, Timestamp, Topic, UpChannel, V1, Verdict, topic};

use crate::line::{Line, PATIENCE, STREAM, options};
use crate::presence::online;
use crate::support::skipped;

fn batch(range: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let event = |sequence| {
        let meta = Meta {
            id: EventId(Uuid::from_u128(u128::from(sequence) + 1_000)),
            source: "/test".to_owned(),
            subject: None,
            time: Timestamp::from_unix_ms(1_700_000_000_000),
            stream: STREAM,
            sequence: Sequence(sequence),
            boot: Uuid::from_u128(1),
            monotonic_ms: sequence,
            clock_quality: ClockQuality::Synchronised,
        };
        CloudEvent::new(meta, &EventData::FaceAppeared(FaceAppearedData { camera: "c".to_owned(), track: sequence }))
    };
    Batch { v: V1, stream: STREAM, events: range.map(event).collect() }.encode().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_in_acks_go_out_and_a_restarted_hub_tells_what_it_has() {
    if skipped("events_come_in_acks_go_out_and_a_restarted_hub_tells_what_it_has") {
        return;
    }
    let mut line = Line::start().await;
    let mut device = line.device().await;
    let consumer = consume(&line).await;
    device.say(UpChannel::Evt, &batch(1..=5)).await;
    let ack = device.next_ack().await;
    assert_eq!((ack.stream, ack.through, ack.verdict), (STREAM, Sequence(5), Verdict::Ok));
    device.say(UpChannel::Evt, &batch(3..=8)).await;
    assert_eq!(device.next_ack().await.through, Sequence(8));
    device.say(UpChannel::Evt, &batch(10..=11)).await;
    assert_eq!(device.next_ack().await.verdict, Verdict::Rewind);

    // Consumers get each event once, in order, on the class's topic.
    let mut seen = Vec::new();
    let mut consumer = consumer;
    while seen.len() < 8 {
        let (topic, payload) =
            tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("an event in time").unwrap();
        assert!(topic.ends_with("/_feed/face"), "{topic}");
        let event: CloudEvent = serde_json::from_slice(&payload).unwrap();
        seen.push(event.sequence.unwrap().0);
    }
    assert_eq!(seen, (1..=8).collect::<Vec<_>>());

    // Meanwhile a gallery was reported; the restarted hub goes on from there without waiting for another report.
    device.report().await;
    line.wait_equal().await;
    line.stop_hub().await;
    let person = line.hub.person(line.place.tenant, "made while nobody published").await;
    line.start_hub().await;
    device.follow_to(1).await;
    assert!(device.holds(person));
    line.stop_hub().await;
    line.start_hub().await;
    let ack = device.next_ack().await;
    assert_eq!((ack.stream, ack.through, ack.verdict), (STREAM, Sequence(8), Verdict::Ok), "told without being asked");
}

/// A device's status: it is there.
/// A consumer that may read the tenant's feed and nothing else.
pub(crate) async fn consume(line: &Line) -> mpsc::Receiver<(String, Vec<u8>)> {
    let id = DeviceId(Uuid::new_v4());
    let consumer = topic::acl::consumer(&id.to_string(), wire_contract::TenantId(line.place.tenant.0));
    let access = access_lines(&line.hub.db).await.unwrap();
    line.mosquitto.access().replace(&format!("{access}\n{consumer}")).unwrap();
    let (client, mut events) = AsyncClient::new(options(line, id), 8);
    let (sender, receiver) = mpsc::channel(256);
    let (up, mut is_up) = watch::channel(false);
    let filter = topic::feed_filter(wire_contract::TenantId(line.place.tenant.0), None);
    client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    tokio::spawn(async move {
        let _keep = client;
        while let Ok(event) = events.poll().await {
            match event {
                Event::Incoming(Packet::Publish(publish)) => {
                    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                    let _ = sender.send((topic, publish.payload.to_vec())).await;
                }
                Event::Incoming(Packet::SubAck(_)) => drop(up.send(true)),
                _ => {}
            }
        }
    });
    tokio::time::timeout(PATIENCE, is_up.wait_for(|up| *up)).await.unwrap().unwrap();
    receiver
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_may_write_its_own_topics_only_and_a_revoked_one_is_cut_off() {
    if skipped("a_device_may_write_its_own_topics_only_and_a_revoked_one_is_cut_off") {
        return;
    }
    let line = Line::start().await;
    let mut device = line.device().await;
    let foreign = Topic::Up {
        tenant: wire_contract::TenantId(line.place.tenant.0),
        device: wire_contract::DeviceId(Uuid::new_v4()),
        channel: UpChannel::Evt,
    };
    device.client.publish(foreign.to_string(), QoS::AtLeastOnce, false, "x").await.unwrap();
    assert_eq!(device.reasons.recv().await, Some(PubAckReason::NotAuthorized));
    device.say(UpChannel::Status, &online("1")).await;
    line.wait_for("SELECT online FROM device").await;
    let (tenant, id) = (line.place.tenant, line.place.device);
    line.hub.db.tenant(tenant, move |tx| Box::pin(devices::revoke(tx, id))).await.unwrap();
    let access = access_lines(&line.hub.db).await.unwrap();
    assert!(!access.contains(&id.to_string()));
    line.mosquitto.access().replace(&access).unwrap();
    end_session(&line.broker(), id).await;
    let gone = tokio::time::timeout(Duration::from_secs(5), device.ended.wait_for(|ended| *ended)).await;
    assert!(gone.is_ok(), "the live session ends within 5 s");
}

/// More batches than the hub has room for wait at the broker while nothing can be stored: none is dropped, none comes twice, and
/// what the device says on its other topics waits for none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_hub_cannot_take_in_yet_waits_at_the_broker() {
    if skipped("what_the_hub_cannot_take_in_yet_waits_at_the_broker") {
        return;
    }
    const BATCHES: u64 = 600;
    let line = Line::start().await;
    let mut device = line.device().await;
    let other = line.another_device().await;
    let mut holding = line.hub.superuser().await;
    holding.execute("BEGIN").await.unwrap();
    holding.execute("LOCK TABLE event IN EXCLUSIVE MODE").await.unwrap();
    for sequence in 1..=BATCHES {
        device.say(UpChannel::Evt, &batch(sequence..=sequence)).await;
    }
    // A device's own row waits with its batches; nobody else does.
    other.say(UpChannel::Status, &online("1")).await;
    let mut superuser = line.hub.superuser().await;
    line.wait_for("SELECT bool_or(online) FROM device").await;
    assert_eq!(superuser.fetch_one("SELECT count(*) FROM stream").await.unwrap().get::<i64, _>(0), 0);
    holding.execute("COMMIT").await.unwrap();
    let (mut through, deadline) = (0, Instant::now() + 6 * PATIENCE);
    while through < BATCHES {
        assert!(Instant::now() < deadline, "everything is stored in the end, not only through {through}");
        let ack = tokio::time::timeout(PATIENCE, device.next_ack()).await.expect("it goes on by itself");
        through = through.max(ack.through.0);
    }
    assert_eq!(line.event_count("lintel.face.appeared.v1").await, i64::try_from(BATCHES).unwrap());
}
