//! The hub's signing key is replaced: a device learns the next one from whatever answer comes first, and believes no other.

use wire_contract::claim::HubKey;
use wire_contract::{ClaimAnswer, LinkAnswer, Succession};

use super::super::hub_keys::without_retired;
use super::super::testkit::{Asked, hub_key, hub_key_of, signed_time_by, signer, successions};
use super::*;
use crate::clock::{ClockConfig, SystemClock, TimeService};

/// A hub that answers links of this epoch as `change` leaves them.
async fn hub(
    pki: &Pki,
    link_epoch: u32,
    change: impl Fn(&mut LinkAnswer) + Send + std::marker::Sync + 'static,
) -> HttpsHub {
    HttpsHub::start(pki, true, move |asked: Asked| {
        assert!(asked.line.starts_with("GET /v1/device/link?"), "{}", asked.line);
        let mut answer = link_answer_for(asked.nonce(), link_epoch, &[(GALLERY, 1)]);
        change(&mut answer);
        (200, serde_json::to_value(answer).unwrap())
    })
    .await
}

/// Signs an answer with the hub's key of this number, and says this of it.
fn signed_by(answer: &mut LinkAnswer, number: u8, said: Vec<Succession>) {
    answer.server_time = signed_time_by(number, answer.server_time.nonce);
    answer.successions = said;
}

fn pinned(device: &Device) -> Vec<String> {
    let stored = Identity::load(device.dir.path()).unwrap().expect("it was stored");
    stored.hub_keys.iter().map(|key| key.key_id.clone()).collect()
}

fn ids(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|number| hub_key_of(*number).key_id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_slept_through_three_changes_learns_the_key_with_its_link_and_keeps_it() {
    let pki = Pki::new();
    let server = hub(&pki, 2, |answer| signed_by(answer, 3, successions(3))).await;
    let device = Device::of(&pki, &server.url, 1).linked();
    device.identity.store(device.dir.path()).unwrap();
    let rig = Rig::start(device);
    eventually("the link is taken in", || rig.status.borrow().link_epoch == Some(2)).await;
    assert_eq!(pinned(&rig.device), ids(&[0, 1, 2, 3]), "on the disk before the link was");
    rig.stop.cancel();
    tokio::time::timeout(PATIENCE, rig.task).await.expect("it stops").unwrap();

    // After a restart nobody needs to say it again, and another hub may sign with one of before still.
    for (epoch, number) in [(3, 3), (4, 1)] {
        let server = hub(&pki, epoch, move |answer| signed_by(answer, number, Vec::new())).await;
        let stored = Identity::load(rig.device.dir.path()).unwrap().unwrap();
        let mut sync = inputs(&rig.device, rig.clock.clone(), watch::channel(0).1, Recorder::channel().0);
        sync.identity = Identity { hub_url: server.url.clone(), ..stored };
        let (status, shown) = watch::channel(SyncStatus::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(sync, status, stop.clone()));
        eventually("the next link is taken in", || shown.borrow().link_epoch == Some(epoch)).await;
        stop.cancel();
        tokio::time::timeout(PATIENCE, task).await.expect("it stops").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_no_pinned_one_leads_to_is_refused_and_nothing_is_kept() {
    type Said = fn() -> Vec<Succession>;
    let wrong: [(&str, Said); 5] = [
        ("nothing is said", Vec::new),
        ("the first link is missing", || successions(2).split_off(1)),
        ("a bit is flipped", || {
            let mut said = successions(2);
            said[0].signature.0[7] ^= 1;
            said
        }),
        ("a stranger vouches", || {
            let stranger = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
            let at = testkit::now();
            vec![Succession::sign(&stranger, hub_key().key_id, &hub_key_of(2).public_key.0, at)]
        }),
        ("the key vouches for itself", || {
            let ((pair, id), at) = (signer(2), testkit::now());
            vec![Succession::sign(&pair, id, &hub_key_of(2).public_key.0, at)]
        }),
    ];
    for (why, said) in wrong {
        let pki = Pki::new();
        let server = hub(&pki, 2, move |answer| signed_by(answer, 2, said())).await;
        let device = Device::of(&pki, &server.url, 1).linked();
        device.identity.store(device.dir.path()).unwrap();
        let rig = Rig::start(device);
        let told = || rig.status.borrow().last_error.as_ref().is_some_and(|text| text.contains("which is not pinned"));
        eventually(why, told).await;
        assert_eq!(
            (rig.status.borrow().link_epoch, pinned(&rig.device).contains(&ids(&[2])[0])),
            (Some(1), false),
            "{why}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_answer_about_the_time_says_of_the_key_is_kept_too() {
    let pki = Pki::new();
    let https = HttpsHub::start(&pki, true, move |asked: Asked| {
        if asked.line.starts_with("POST /v1/time ") {
            return (200, asked.hub_time_by(1, testkit::now(), successions(1)));
        }
        let mut answer = link_answer_for(asked.nonce(), 1, &[(GALLERY, 1)]);
        signed_by(&mut answer, 1, Vec::new());
        (200, serde_json::to_value(answer).unwrap())
    })
    .await;
    let device = Device::of(&pki, &https.url, 1);
    let (status, shown) = watch::channel(SyncStatus::default());
    let clock: SharedClock =
        Arc::new(SystemClock::resumed(ClockConfig { time_service: TimeService::Ignored }, 0, None));
    let stop = CancellationToken::new();
    let sync = inputs(&device, clock, watch::channel(0).1, Recorder::channel().0);
    let task = tokio::spawn(run(sync, status, stop.clone()));
    eventually("the link is taken in, which says nothing of it", || shown.borrow().link_epoch == Some(1)).await;
    assert_eq!(pinned(&device), ids(&[0, 1]));
    stop.cancel();
    tokio::time::timeout(PATIENCE, task).await.expect("it stops").unwrap();
}

#[test]
fn a_key_goes_when_it_is_not_named_any_more_and_leads_to_one_that_is() {
    let identity = super::super::hub_keys::learned(&Device::new().identity, &successions(2)).unwrap();
    let left = |named: Vec<HubKey>, said: Vec<Succession>| {
        let left = without_retired(identity.clone(), &renewed(named, said));
        left.hub_keys.iter().map(|key| key.key_id.clone()).collect::<Vec<_>>()
    };
    let all = ids(&[0, 1, 2]);
    assert_eq!(left(vec![hub_key_of(2)], successions(2)), ids(&[2]));
    assert_eq!(left(vec![hub_key_of(2), hub_key_of(1)], successions(2)), ids(&[1, 2]), "another hub signs with it");
    assert_eq!(left(vec![hub_key_of(2)], Vec::new()), all, "there is nothing to show for it");
    assert_eq!(left(vec![hub_key_of(7)], successions(2)), all, "it does not lead there");
    assert_eq!(left(Vec::new(), successions(2)), all);
    let same_id = HubKey { key_id: hub_key_of(2).key_id, ..hub_key_of(7) };
    assert_eq!(left(vec![same_id], successions(2)), all, "a key is its bytes too");
}

fn renewed(hub_keys: Vec<HubKey>, successions: Vec<Succession>) -> ClaimAnswer {
    ClaimAnswer {
        v: V1,
        tenant: wire_contract::TenantId(TENANT),
        device: DeviceId(DEVICE),
        certificate_chain: String::new(),
        root: String::new(),
        hub_keys,
        hub_url: "https://hub.example/".parse().unwrap(),
        broker: wire_contract::claim::BrokerAddress { host: "hub.example".into(), port: 8883 },
        server_time: signed_time_by(0, Uuid::nil()),
        successions,
    }
}
