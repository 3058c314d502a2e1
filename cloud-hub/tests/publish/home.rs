//! What Home Assistants hear at the broker: devices, their states, and their end; and a door that they open.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cloud_hub::domain::ids::{DeviceId, DoorId, PersonId};
use cloud_hub::publish::{HomeSettings, access_lines};
use cloud_hub::store::{devices, places};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event};
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;
use wire_contract::event::{AccessData, ClockQuality, DoorCause, DoorData, Meta, Reason, Timing};
use wire_contract::{
    Batch, CloudEvent, Code, CommandDown, DownChannel, EventData, EventId, Order, Sequence, Timestamp, UpChannel, V1,
    topic,
};

use crate::line::{Device, Line, PATIENCE, STREAM, options};
use crate::presence::online;
use crate::support::skipped;

/// What did not come by then does not come.
const SILENCE: Duration = Duration::from_millis(2_500);

/// A door of the line's device, called `main` there.
async fn door(line: &Line) -> DoorId {
    let door = places::NewDoor {
        id: DoorId(Uuid::new_v4()),
        site_id: line.place.site,
        device_id: Some(line.place.device),
        local_id: Some("main".to_owned()),
        name: "Main".to_owned(),
    };
    let id = door.id;
    line.hub
        .db
        .tenant(line.place.tenant, move |tx| Box::pin(async move { places::create_door(tx, &door).await }))
        .await
        .unwrap();
    id
}

/// A Home Assistant with the rights of one.
struct Listener {
    client: AsyncClient,
    heard: mpsc::Receiver<(String, Vec<u8>)>,
    reasons: mpsc::Receiver<PubAckReason>,
}

impl Listener {
    /// `lines` are those of all that were started.
    async fn start(line: &Line, lines: &mut String, may_unlock: bool) -> Self {
        let id = DeviceId(Uuid::new_v4());
        let (tenant, device) =
            (wire_contract::TenantId(line.place.tenant.0), wire_contract::DeviceId(line.place.device.0));
        lines.push_str(&topic::acl::home_assistant(&id.to_string(), tenant, &[device], may_unlock));
        let access = access_lines(&line.hub.db).await.unwrap();
        line.mosquitto.access().replace(&format!("{access}\n{lines}")).unwrap();
        // The broker reads its lists a moment later; what it keeps for a subscriber is judged when that one subscribes.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (client, mut events) = AsyncClient::new(options(line, id), 8);
        for filter in ["homeassistant/device/+/config".to_owned(), format!("lintel/v1/{tenant}/_home/#")] {
            client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        }
        let (message, heard) = mpsc::channel(256);
        let (reason, reasons) = mpsc::channel(256);
        tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                match event {
                    Event::Incoming(Packet::Publish(publish)) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        let _ = message.send((topic, publish.payload.to_vec())).await;
                    }
                    Event::Incoming(Packet::PubAck(ack)) => drop(reason.send(ack.reason).await),
                    _ => {}
                }
            }
        });
        Self { client, heard, reasons }
    }

    /// The next message on a topic that ends so.
    async fn next_on(&mut self, end: &str) -> String {
        loop {
            let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
            let (topic, payload) = heard.unwrap_or_else(|_| panic!("nothing on …{end}")).unwrap();
            if topic.ends_with(end) {
                return String::from_utf8(payload).unwrap();
            }
        }
    }

    /// Whether a message with this payload comes on a topic that ends so, if one comes at all.
    async fn hears(&mut self, end: &str, payload: &str) {
        while self.next_on(end).await != payload {}
    }

    /// The ends of all topics on which something comes until it is silent.
    async fn topics(&mut self) -> BTreeSet<String> {
        let mut topics = BTreeSet::new();
        while let Ok(Some((topic, _))) = tokio::time::timeout(SILENCE, self.heard.recv()).await {
            topics.insert(topic.rsplit('/').next().unwrap().to_owned());
        }
        topics
    }
}

fn settings(line: &Line, unlock: bool) -> HomeSettings {
    let tenants = BTreeSet::from([line.place.tenant]);
    HomeSettings { unlock: if unlock { tenants.clone() } else { BTreeSet::new() }, tenants }
}

async fn say(device: &Device, first: u64, happened: Vec<EventData>) {
    let events = happened.iter().zip(first..).map(|(data, sequence)| {
        let meta = Meta {
            id: EventId(Uuid::from_u128(u128::from(sequence) + 5_000)),
            source: "/test".to_owned(),
            subject: None,
            time: Timestamp::from_unix_ms(1_700_000_000_000),
            stream: STREAM,
            sequence: Sequence(sequence),
            boot: Uuid::from_u128(1),
            monotonic_ms: sequence,
            clock_quality: ClockQuality::Synchronised,
        };
        CloudEvent::new(meta, data)
    });
    let batch = Batch { v: V1, stream: STREAM, events: events.collect() }.encode().unwrap();
    device.say(UpChannel::Evt, &batch).await;
}

fn unlocked() -> EventData {
    EventData::DoorUnlocked(DoorData { door: "main".into(), cause: DoorCause::Granted, decision: None, person: None })
}

fn locked() -> EventData {
    let cause = DoorCause::HoldElapsed;
    EventData::DoorLocked(DoorData { door: "main".into(), cause, decision: None, person: None })
}

fn granted(person: PersonId) -> EventData {
    EventData::AccessGranted(AccessData {
        door: "main".into(),
        camera: "front".into(),
        decision: Uuid::from_u128(9),
        person: Some(wire_contract::PersonId(person.0)),
        reason: Reason::of(Code::Granted),
        identity: None,
        liveness: None,
        quality: None,
        timing: Timing::default(),
        space_id: None,
        pack: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_its_states_and_its_end_are_told() {
    if skipped("a_device_its_states_and_its_end_are_told") {
        return;
    }
    let (mut line, mut lines) = (Line::start().await, String::new());
    let door = door(&line).await;
    let mut before = Listener::start(&line, &mut lines, false).await;
    assert_eq!(before.topics().await, BTreeSet::new(), "nothing is said unless it is asked for");
    line.stop_hub().await;
    line.home = settings(&line, false);
    line.start_hub().await;
    let config: Value = serde_json::from_str(&before.next_on("/config").await).unwrap();
    assert_eq!(config["device"]["identifiers"][0], format!("lintel-{}", line.place.device));
    assert_eq!(config["components"][format!("unlocked_{door}")]["platform"], "binary_sensor");

    let device = line.device().await;
    device.say(UpChannel::Status, &online("9.9")).await;
    before.hears("/availability", "online").await;
    let (person, other) =
        (line.hub.person(line.place.tenant, "p").await, line.hub.person(line.place.tenant, "o").await);
    say(&device, 1, vec![granted(person), unlocked(), locked()]).await;
    assert!(before.next_on("/access").await.contains("granted"));
    before.hears(&format!("{door}/person"), &person.to_string()).await;
    assert_eq!(before.next_on(&format!("{door}/lock")).await, "UNLOCKED");
    assert_eq!(before.next_on(&format!("{door}/lock")).await, "LOCKED");

    // Who comes later finds how things stand, also after a hub that knew nothing of it has come to lead.
    line.kill_hub().await;
    line.start_hub().await;
    let mut later = Listener::start(&line, &mut lines, false).await;
    later.hears("/lock", "LOCKED").await;
    let mut later = Listener::start(&line, &mut lines, false).await;
    let kept = ["availability", "config", "lock", "person"].map(str::to_owned);
    assert_eq!(later.topics().await, BTreeSet::from(kept));

    // Nobody reads there who was deleted; somebody else's deletion changes nothing.
    line.hub.custody.delete_person(line.place.tenant, other, "test").await.unwrap();
    line.hub.custody.delete_person(line.place.tenant, person, "test").await.unwrap();
    before.hears("/person", "").await;
    let mut later = Listener::start(&line, &mut lines, false).await;
    assert!(!later.topics().await.contains("person"));

    let revoked = line.place.device;
    line.hub
        .db
        .tenant(line.place.tenant, move |tx| Box::pin(async move { devices::revoke(tx, revoked).await }))
        .await
        .unwrap();
    before.hears("/config", "").await;
    let mut later = Listener::start(&line, &mut lines, false).await;
    assert_eq!(later.topics().await, BTreeSet::new(), "a revoked device leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_is_taken_back_when_the_tenant_does_not_want_it_any_more() {
    if skipped("what_was_told_is_taken_back_when_the_tenant_does_not_want_it_any_more") {
        return;
    }
    let (mut line, mut lines) = (Line::start().await, String::new());
    door(&line).await;
    line.stop_hub().await;
    line.home = settings(&line, false);
    line.start_hub().await;
    let mut listener = Listener::start(&line, &mut lines, false).await;
    assert!(listener.next_on("/config").await.contains("Main lock"));
    line.stop_hub().await;
    let mut later = Listener::start(&line, &mut lines, false).await;
    assert!(later.topics().await.contains("config"), "the broker keeps it while no hub is there");
    line.home = HomeSettings::default();
    line.start_hub().await;
    listener.hears("/config", "").await;
    let mut later = Listener::start(&line, &mut lines, false).await;
    assert_eq!(later.topics().await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_is_opened_from_there_only_where_that_is_allowed() {
    if skipped("a_door_is_opened_from_there_only_where_that_is_allowed") {
        return;
    }
    let (mut line, mut lines) = (Line::start().await, String::new());
    let door = door(&line).await;
    let set = format!("lintel/v1/{}/_home/{}/{door}/set", line.place.tenant, line.place.device);
    line.stop_hub().await;
    line.home = settings(&line, false);
    line.start_hub().await;
    let mut device = line.device().await;
    device.say(UpChannel::Status, &online("9.9")).await;
    let mut reader = Listener::start(&line, &mut lines, false).await;
    reader.hears("/availability", "online").await;
    let wish = async |listener: &mut Listener, word: &str| {
        listener.client.publish(set.clone(), QoS::AtLeastOnce, false, word.to_owned()).await.unwrap();
        tokio::time::timeout(PATIENCE, listener.reasons.recv()).await.unwrap().unwrap()
    };
    assert_eq!(wish(&mut reader, "UNLOCK").await, PubAckReason::NotAuthorized, "a reader only reads");
    // The broker's lines alone are not enough: the hub does not listen either.
    let mut opener = Listener::start(&line, &mut lines, true).await;
    wish(&mut opener, "UNLOCK").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(given(&line).await, Vec::<(String, String)>::new());

    line.stop_hub().await;
    line.home = settings(&line, true);
    line.start_hub().await;
    let config: Value = serde_json::from_str(&opener.next_on("/config").await).unwrap();
    assert!(config.is_object());
    for word in ["LOCK", "unlock", "", "UNLOCK "] {
        wish(&mut opener, word).await;
    }
    wish(&mut opener, "UNLOCK").await;
    let begun = Instant::now();
    let ordered = loop {
        let (channel, plain) = device.next().await;
        if channel == DownChannel::Cmd {
            let CommandDown::Command(command) = serde_json::from_slice(&plain).unwrap() else { panic!("a command") };
            break command.order;
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    assert_eq!(ordered, Order::Unlock { door: "main".to_owned(), hold_ms: None });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(given(&line).await, [("command.give".to_owned(), "home_assistant".to_owned())], "once, and audited");
}

/// Commands, as the audit has them.
async fn given(line: &Line) -> Vec<(String, String)> {
    let mut rows = line.hub.superuser().await;
    sqlx::query_as("SELECT action, actor FROM audit_entry WHERE action = 'command.give' ORDER BY at")
        .fetch_all(&mut rows)
        .await
        .unwrap()
}
