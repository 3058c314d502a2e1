//! Records: first fills, changes, deletions, erased people, and lines that broke.

use std::time::{Duration, Instant};

use cloud_hub::keys::{Custody, DeviceLinks};
use cloud_hub::publish::access_lines;
use gallery_log::log::Entry;
use gallery_log::{DigestKey, Leaf, Log};
use rumqttc::v5::Event;
use rumqttc::v5::mqttbytes::v5::Packet;
use wire_contract::{Code, GalleryDown, LinkKeys};

use crate::line::{Device, Line};
use crate::support::{self, Place, skipped};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_filled_follows_changes_and_loses_the_deleted_at_once() {
    if skipped("a_device_is_filled_follows_changes_and_loses_the_deleted_at_once") {
        return;
    }
    let line = Line::start().await;
    let tenant = line.place.tenant;
    let mut people = Vec::new();
    for n in 0..40 {
        let person = line.hub.person(tenant, &format!("p{n}")).await;
        line.hub.enrol(tenant, person, n).await;
        people.push(person);
    }
    let mut device = line.device().await;
    device.report().await;
    let messages = device.follow_to(80).await;
    assert!(messages >= 2, "40 templates do not fit one message of 64 KiB, found {messages}");
    device.report().await;
    line.wait_equal().await;

    // A new person arrives without any report in between.
    let late = line.hub.person(tenant, "late").await;
    device.follow_to(81).await;
    assert!(device.holds(late));

    let mut slowest = Duration::ZERO;
    for person in people.iter().take(10) {
        let version = device.log.version();
        line.hub.custody.delete_person(tenant, *person, "test").await.unwrap();
        let answered = Instant::now();
        device.follow_to(version + 2).await;
        slowest = slowest.max(answered.elapsed());
        assert!(!device.holds(*person));
    }
    println!("slowest of ten deletions, from the hub's answer to the device: {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "deletions must reach doors well within two seconds, took {slowest:?}");
    device.report().await;
    line.wait_equal().await;
    assert_eq!(line.event_count("lintel.tamper.gallery_diverged.v1").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_joins_after_an_erasure_gets_stand_ins_and_ends_equal() {
    if skipped("a_device_that_joins_after_an_erasure_gets_stand_ins_and_ends_equal") {
        return;
    }
    let line = Line::start().await;
    let tenant = line.place.tenant;
    let early = line.hub.person(tenant, "early").await;
    line.hub.enrol(tenant, early, 500).await;
    let mut others = Vec::new();
    // More than two messages between the erased person's records and their dels.
    for n in 0..50 {
        let person = line.hub.person(tenant, &format!("p{n}")).await;
        line.hub.enrol(tenant, person, n).await;
        others.push(person);
    }
    line.hub.custody.delete_person(tenant, early, "test").await.unwrap();
    let mut device = line.device().await;
    device.report().await;
    // `follow` checks the root after every message, also where the erased person is still live.
    let messages = device.follow_to(104).await;
    assert!(messages >= 3, "the erased person must be live at the end of a message; found {messages} messages");
    assert!(!device.holds(early));
    assert!(others.iter().all(|person| device.holds(*person)));
    device.report().await;
    line.wait_equal().await;
    assert_eq!(line.event_count("lintel.tamper.gallery_diverged.v1").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_when_the_hubs_session_ended_goes_out_again() {
    if skipped("what_was_under_way_when_the_hubs_session_ended_goes_out_again") {
        return;
    }
    let line = Line::start().await;
    let tenant = line.place.tenant;
    let mut witness = line.another_device().await;
    let mut device = line.device().await;
    device.report().await;
    witness.report().await;
    line.wait_equal().await;
    // Nobody reads what the hub sends now; the broker takes it all the same.
    device.client.disconnect().await.unwrap();
    device.ended.wait_for(|ended| *ended).await.unwrap();
    line.hub.person(tenant, "one").await;
    witness.follow_to(1).await;
    let person = line.hub.person(tenant, "two").await;
    // The devices have turns: when the witness has the second record, the other one's first is gone.
    witness.follow_to(2).await;
    let mut device = line.device().await;
    // Somebody takes over the hub's session: it comes back, and the device, which says nothing, lacks nothing.
    let (_, mut events) = line.broker_client("hub-test");
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::ConnAck(_))) {}
    drop(events);
    device.follow_to(2).await;
    assert!(device.holds(person));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_a_link_holds_up_none_of_those_that_are_told_together() {
    if skipped("a_device_without_a_link_holds_up_none_of_those_that_are_told_together") {
        return;
    }
    let line = Line::start().await;
    let (tenant, site) = (line.place.tenant, line.place.site);
    let mut places = Vec::new();
    for _ in 0..3 {
        let device = line.hub.device(tenant, site).await;
        let link = line.hub.custody.link(tenant, device).await.unwrap();
        let keys = LinkKeys::derive(&link.link_key, wire_contract::DeviceId(device.0), link.link_epoch);
        places.push(Place { tenant, site, device, link, keys });
    }
    line.mosquitto.access().replace(&access_lines(&line.hub.db).await.unwrap()).unwrap();
    let mut all = Vec::new();
    for place in &places {
        let mut device = Device::connect(&line, place).await;
        device.report().await;
        all.push(device);
    }
    let first = line.hub.person(tenant, "first").await;
    for device in &mut all {
        device.follow_to(1).await;
        assert!(device.holds(first));
    }
    // All of them stand at version 1 now; the hub cannot seal anything for one of them any more.
    let mut superuser = line.hub.superuser().await;
    let delete = sqlx::query("DELETE FROM device_link WHERE device_id = $1").bind(places[1].device.0);
    assert_eq!(delete.execute(&mut superuser).await.unwrap().rows_affected(), 1);
    let second = line.hub.person(tenant, "second").await;
    for device in [0, 2] {
        all[device].follow_to(2).await;
        assert!(all[device].holds(second));
    }
}

impl Device {
    /// Takes its gallery's keys in and goes on with the entries that it has, as an edge does.
    async fn rekey(&mut self, line: &Line) {
        let link = line.hub.custody.link(line.place.tenant, self.id).await.unwrap();
        let held = &link.galleries[0];
        self.gdk = DigestKey::new(*held.gdk);
        let leaf = |id, kind, body: &[u8]| Leaf::of(&self.gdk, kind, id, 1, body);
        let entries = self
            .bodies
            .iter()
            .map(|(id, (kind, body))| (*id, Entry { kind: *kind, rev: 1, leaf: Some(leaf(*id, *kind, body)) }));
        self.log = Log::restore(self.log.gallery(), held.epoch, self.log.version(), entries);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_hears_of_other_keys_at_once_and_once_and_ends_with_the_same_root() {
    if skipped("a_device_hears_of_other_keys_at_once_and_once_and_ends_with_the_same_root") {
        return;
    }
    let line = Line::start().await;
    let tenant = line.place.tenant;
    for n in 0..20 {
        let person = line.hub.person(tenant, &format!("p{n}")).await;
        line.hub.enrol(tenant, person, n).await;
    }
    let mut device = line.device().await;
    device.report().await;
    device.follow_to(40).await;
    device.report().await;
    line.wait_equal().await;

    let begun = Instant::now();
    line.hub.custody.rotate_gallery_keys(tenant, "test").await.unwrap();
    let GalleryDown::Rebuild(order) = device.next_gallery().await else { panic!("no order") };
    assert!(begun.elapsed() < Duration::from_secs(2), "without any report: {:?}", begun.elapsed());
    assert_eq!((order.epoch, order.reason, order.answers), (2, Code::EpochChanged, None), "it empties nothing");
    // What happens before it has the keys comes afterwards, with no further order.
    let first = line.hub.person(tenant, "first").await;
    let second = line.hub.person(tenant, "second").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    device.rekey(&line).await;
    device.report().await;
    // `follow` takes nothing but records, and checks the root after each message of them.
    device.follow_to(42).await;
    assert!(device.holds(first) && device.holds(second));
    device.report().await;
    line.wait_equal().await;
    assert_eq!(line.event_count("lintel.tamper.gallery_diverged.v1").await, 0);
    // One that was away says so by its report.
    line.hub.custody.rotate_gallery_keys(tenant, "test").await.unwrap();
    let GalleryDown::Rebuild(order) = device.next_gallery().await else { panic!("no order") };
    assert_eq!(order.epoch, 3);
    device.report().await;
    let GalleryDown::Rebuild(order) = device.next_gallery().await else { panic!("no order") };
    assert_eq!((order.epoch, order.answers), (3, None), "a report of the epoch before is answered each time");
    device.rekey(&line).await;
    device.report().await;
    line.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_whose_key_is_gone_holds_up_no_device() {
    if skipped("a_person_whose_key_is_gone_holds_up_no_device") {
        return;
    }
    let mut line = Line::start().await;
    let tenant = line.place.tenant;
    let without = support::keys_without_people(&line.hub);
    let lost = line.hub.person(tenant, "lost").await;
    line.hub.enrol(tenant, lost, 1).await;
    // The hub comes back with the key store of a backup that is older than the person.
    line.stop_hub().await;
    line.hub.custody = Custody::new(line.hub.db.clone(), without, line.hub.clock.clone());
    line.hub.links = DeviceLinks::new(line.hub.custody.clone());
    line.start_hub().await;
    let other = line.hub.person(tenant, "other").await;
    line.hub.enrol(tenant, other, 2).await;
    let mut device = line.device().await;
    device.report().await;
    // `follow` checks the root after every message.
    device.follow_to(4).await;
    assert!(device.holds(other));
    line.hub.custody.delete_person(tenant, other, "test").await.unwrap();
    device.follow_to(6).await;
    assert!(!device.holds(other));
    device.report().await;
    line.hub.custody.delete_person(tenant, lost, "test").await.unwrap();
    device.follow_to(8).await;
    device.report().await;
    line.wait_equal().await;
    assert_eq!(line.event_count("lintel.tamper.gallery_diverged.v1").await, 0, "a stand-in is no divergence");
}
