//! A snapshot fetched by the driver over HTTPS that is cut again and again, and the lease that empties a gallery.

use std::sync::atomic::AtomicUsize;

use wire_contract::SnapshotOffer;
use wire_contract::command::{TimeAnswer, TimeRequest};
use wire_contract::{CommandDown, CommandUp};

use super::super::testkit::{Answer, Asked, SnapshotParts};
use super::*;
use crate::stages::record::Happening;

const ID: Uuid = Uuid::from_u128(0x5a);

fn offer(gallery: &HubGallery) -> (String, Vec<u8>) {
    let (epoch, version) = (gallery.epoch, gallery.version());
    let gallery = wire_contract::GalleryId(GALLERY.0);
    let offer = SnapshotOffer { v: V1, snapshot: ID, gallery, epoch, version, expires_at: testkit::now() };
    sealed(DownChannel::Gallery, &GalleryDown::Snapshot(offer))
}

/// What a hub has sent of a content, and how many requests for it may still bring something.
#[derive(Default)]
struct Served {
    requests: AtomicUsize,
    sent: AtomicUsize,
    allowed: AtomicUsize,
}

/// Serves a snapshot, each request for its content cut after a number of bytes that no chunk ends with.
async fn hub(pki: &Pki, parts: &SnapshotParts, served: &Arc<Served>) -> HttpsHub {
    let (parts, served) = (parts.clone(), Arc::clone(served));
    let total = parts.content.len();
    HttpsHub::start(pki, true, move |asked: Asked| -> Answer {
        assert!(asked.with_certificate);
        if asked.line.starts_with("GET /v1/device/link?") {
            return (200, serde_json::to_value(link_answer_for(asked.nonce(), 1, &[(GALLERY, 1)])).unwrap()).into();
        }
        if asked.line.starts_with(&format!("GET /v1/device/snapshots/{ID}/manifest ")) {
            return (200, serde_json::to_value(&parts.answer).unwrap()).into();
        }
        assert!(asked.line.starts_with(&format!("GET /v1/device/snapshots/{ID} ")), "{}", asked.line);
        let from = asked.from.expect("a range is asked for");
        let number = served.requests.fetch_add(1, Ordering::SeqCst);
        let many = if number < served.allowed.load(Ordering::SeqCst) { 20_011 + 7 * number } else { 0 };
        let sent = parts.content[from..(from + many).min(total)].to_vec();
        served.sent.fetch_add(sent.len(), Ordering::SeqCst);
        Answer::Content { from, total, sent }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_fetched_through_cuts_and_a_restart_of_the_agent() {
    let pki = Pki::new();
    let mut gallery = HubGallery::new(1);
    (0..300).for_each(|person| gallery.enrol(person));
    let (parts, served) = (gallery.snapshot(ID), Arc::new(Served::default()));
    served.allowed.store(10, Ordering::SeqCst);
    let server = hub(&pki, &parts, &served).await;
    let mut rig = Rig::start(Device::of(&pki, &server.url, 1).linked());
    let far = rig.line().await;
    far.say(offer(&gallery)).await;
    let part = || rig.status.borrow().snapshots.first().is_some_and(|one| one.percent >= 20 && one.percent < 50);
    let clock = Arc::clone(&rig.clock);
    eventually("some of it is here, and shown", || {
        clock.forward(Duration::from_millis(20));
        part()
    })
    .await;
    // Offered once more, it is not begun anew.
    far.say(offer(&gallery)).await;
    rig.stop.cancel();
    far.events.send(LineEvent::Taken(Parcel::Farewell)).await.unwrap();
    tokio::time::timeout(PATIENCE, rig.task).await.expect("it stops").unwrap();
    served.allowed.store(usize::MAX, Ordering::SeqCst);
    let before = served.sent.load(Ordering::SeqCst);
    assert_eq!(rig.device.galleries.roster().load().lines()[0].version, 0, "a part of a snapshot is nothing");

    let mut rig = Rig::start(rig.device);
    let far = rig.line().await;
    far.say(offer(&gallery)).await;
    let version = gallery.version();
    eventually("the gallery is whole", || rig.device.galleries.roster().load().lines()[0].version == version).await;
    let roster = rig.device.galleries.roster().load_full();
    assert_eq!((roster.lines()[0].root, roster.ready(), roster.snapshot().n_people()), (gallery.root(), true, 300));
    assert!(before > 200_000, "ten requests had brought something before");
    let sent = served.sent.load(Ordering::SeqCst);
    assert_eq!(sent, parts.content.len(), "what had come was not fetched again");
    eventually("nothing is under way", || rig.status.borrow().snapshots.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_snapshot_is_put_on_record_and_changes_nothing() {
    let pki = Pki::new();
    let mut gallery = HubGallery::new(1);
    (0..5).for_each(|person| gallery.enrol(person));
    let mut parts = gallery.snapshot(ID);
    parts.sign_with([9; 32]);
    let server = hub(&pki, &parts, &Arc::new(Served::default())).await;
    let mut rig = Rig::start(Device::of(&pki, &server.url, 1).linked());
    let far = rig.line().await;
    far.say(offer(&gallery)).await;
    let Some(Message::Happened(happening)) = rig.happenings.recv().await else { panic!("nothing on record") };
    let code = wire_contract::Code::SnapshotForged;
    assert!(
        matches!(happening, Happening::SnapshotRefused { version: 10, code: found, .. } if found == code),
        "{happening:?}"
    );
    assert_eq!(rig.device.galleries.roster().load().lines()[0].version, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_under_a_later_key_of_the_hub_is_applied_and_the_key_is_kept() {
    let pki = Pki::new();
    let mut gallery = HubGallery::new(1);
    (0..5).for_each(|person| gallery.enrol(person));
    let (mut parts, served) = (gallery.snapshot(ID), Arc::new(Served::default()));
    parts.sign_as(2, testkit::successions(2));
    served.allowed.store(usize::MAX, Ordering::SeqCst);
    let server = hub(&pki, &parts, &served).await;
    let mut rig = Rig::start(Device::of(&pki, &server.url, 1).linked());
    let far = rig.line().await;
    far.say(offer(&gallery)).await;
    let clock = Arc::clone(&rig.clock);
    eventually("the gallery is whole", || {
        clock.forward(Duration::from_millis(20));
        rig.device.galleries.roster().load().lines()[0].version == gallery.version()
    })
    .await;
    let key = testkit::hub_key_of(2).key_id.to_string();
    eventually("the key is on the disk", || {
        let stored = Identity::load(rig.device.dir.path()).unwrap();
        stored.is_some_and(|stored| stored.hub_keys.iter().any(|pinned| pinned.key_id == key))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_contact_for_the_lease_the_gallery_goes_and_comes_back_after_it() {
    let device = Device::new().linked();
    let mut gallery = HubGallery::new(1);
    gallery.enrol(1);
    let mut rig = Rig::start_leased(device, Duration::from_secs(7_200));
    let mut far = rig.line().await;
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Records(gallery.message(1)))).await;
    let version = |rig: &Rig| rig.device.galleries.roster().load().lines()[0].version;
    eventually("it is filled", || version(&rig) == 2).await;
    eventually("the lease is shown", || rig.status.borrow().lease_until.is_some()).await;
    let CommandUp::Time(TimeRequest { nonce, .. }) = far.word().await else { panic!("the time is asked first") };

    rig.clock.forward(Duration::from_secs(7_300));
    eventually("the lease is over", || rig.status.borrow().lease_over && version(&rig) == 0).await;
    let Some(Message::Happened(happening)) = rig.happenings.recv().await else { panic!("nothing on record") };
    let code = wire_contract::Code::LeaseExpired;
    assert!(matches!(happening, Happening::GalleryRebuilt { code: found, .. } if found == code), "{happening:?}");
    assert!(!rig.device.galleries.roster().load().ready(), "every door denies");
    // What was recorded on the line brings nobody back.
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Records(gallery.message(1)))).await;
    let other = Uuid::from_u128(77);
    let at = Timestamp::from_unix_ms(testkit::now().unix_ms() + 7_300_000);
    far.say(sealed(DownChannel::Cmd, &CommandDown::Time(TimeAnswer { v: V1, nonce: other, at }))).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((version(&rig), rig.status.borrow().lease_over), (0, true));

    let nonce = match tokio::time::timeout(Duration::from_millis(200), far.word()).await {
        Ok(CommandUp::Time(TimeRequest { nonce, .. })) => nonce,
        _ => nonce,
    };
    far.say(sealed(DownChannel::Cmd, &CommandDown::Time(TimeAnswer { v: V1, nonce, at }))).await;
    eventually("there is contact", || !rig.status.borrow().lease_over).await;
    far.say(sealed(DownChannel::Gallery, &GalleryDown::Records(gallery.message(1)))).await;
    eventually("it is filled again", || version(&rig) == 2).await;
}
