//! A device's store that went its own way, by its own rules, against a real hub, broker and Postgres: found by its report, and
//! made equal by the buckets that differ and by nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use edge_store::{DeviceKeys, GalleryStore};
use fault_lab::line::Site;
use fault_lab::row::Need;
use fleet_sim::device::{Device, SPACE_ID};
use gallery_log::body::{Body, PersonBody, PersonState};
use gallery_log::log::Entry;
use gallery_log::{GalleryId, Kind, Leaf, Log, Op, Record, RecordId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// People in the gallery, one record each: many more than fit the buckets that differ.
const PEOPLE: usize = 120;
/// Longer than a start, a claim and a first fill take together on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begun = fault_lab::lab::now();
    while !so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How the hub shows the one gallery of the one device.
async fn shown(site: &Site) -> Value {
    let devices = site.hub().unwrap().get(site.tenant(), "/v1/devices").await.unwrap();
    devices["data"][0]["galleries"][0].clone()
}

/// What the device has told of its healings.
async fn healings(site: &Site) -> Vec<Value> {
    let mut database = site.database().await.unwrap();
    let told = sqlx::query_scalar("SELECT body FROM event WHERE type = $1").bind("lintel.system.gallery_healed.v1");
    told.fetch_all(&mut database).await.unwrap()
}

/// Runs the device until the hub shows that it searches `version` and both are equal, and has heard of so many healings.
async fn run_until_equal(site: &Site, version: u64, healed: usize) {
    let device = Device::open(&site.device_dir(0), SPACE_ID, None).unwrap();
    let stop = CancellationToken::new();
    let running = device.start(stop.clone());
    eventually("the device is equal to the hub", async || {
        let gallery = shown(site).await;
        gallery["standing"] == "equal" && gallery["version"] == version
    })
    .await;
    eventually("the device tells of its healing", async || healings(site).await.len() == healed).await;
    stop.cancel();
    running.task.await.unwrap();
}

/// Writes somebody into the device's store who is in no hub, as the store itself writes records: sealed, in its log, with
/// root and watermark.
fn stray(dir: &Path) {
    let keys = DeviceKeys::open(&dir.join("keys"), None).unwrap();
    let gallery: GalleryId = keys.galleries().unwrap()[0];
    let own = keys.gallery(gallery).unwrap().unwrap();
    let (mut store, _) =
        GalleryStore::open(&dir.join("galleries").join(gallery.to_string()), &keys, gallery, &own).unwrap();
    let entries = store.records().unwrap().into_iter().map(|record| {
        let leaf = Leaf::of(&own.digest, record.kind, record.id, record.rev, &record.body);
        (record.id, Entry { kind: record.kind, rev: record.rev, leaf: Some(leaf) })
    });
    let mut log = Log::restore(gallery, store.epoch(), store.version(), entries);
    let body = Body::Person(PersonBody::new(PersonState::Active, None, None, Vec::new())).encode().unwrap();
    let (epoch, version, id) = (store.epoch(), store.version() + 1, RecordId(Uuid::new_v4()));
    let record = Record { gallery, epoch, version, op: Op::Put, kind: Kind::Person, id, rev: 1, body };
    log.apply(&record, &own.digest).unwrap();
    store.apply(&[record], log.root()).unwrap();
}

#[test]
fn a_store_that_went_its_own_way_is_healed_by_the_buckets_that_differ() {
    let needs = [Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")];
    if let Some(missing) = needs.into_iter().find_map(Need::missing) {
        let _ = writeln!(std::io::stderr(), "SKIPPED healing over the line: {missing}");
        return;
    }
    let site = Site::open(1).unwrap();
    site.block_on(async {
        let hub = site.hub().unwrap();
        let mut people = Vec::new();
        for n in 0..PEOPLE {
            let new = json!({ "external_id": n.to_string(), "name": format!("Person {n}") });
            let made = hub.post(site.tenant(), "/v1/people", new).await.unwrap();
            people.push(made["id"].as_str().unwrap().to_owned());
        }
        let version = PEOPLE as u64;
        run_until_equal(&site, version, 0).await;

        // The hub deletes somebody, the device hears nothing of it, and has somebody of its own at that version.
        let gone = format!("/v1/people/{}", people[7]);
        hub.call(site.tenant(), reqwest::Method::DELETE, &gone, None).await.unwrap();
        stray(&site.device_dir(0));
        run_until_equal(&site, version + 1, 1).await;

        let healed = healings(&site).await;
        let [healed] = &healed[..] else { panic!("{} healings: {healed:?}", healed.len()) };
        let data = &healed["data"];
        let count = |field: &str| data[field].as_u64().unwrap();
        let _ = writeln!(std::io::stderr(), "healed by {data}");
        assert_eq!((count("version"), count("removed")), (version + 1, 2), "the deleted and the stray are gone");
        assert!((1..=2).contains(&count("buckets")), "two entries are in two buckets at most: {data}");
        assert!(count("received") <= 8, "{data}: {PEOPLE} entries are in 256 buckets");
        let alarms: i64 = sqlx::query_scalar("SELECT count(*) FROM event WHERE type LIKE 'lintel.tamper.%'")
            .fetch_one(&mut site.database().await.unwrap())
            .await
            .unwrap();
        assert_eq!(alarms, 0, "what was healed alarms nobody");
    });
}
