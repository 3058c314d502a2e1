//! The renewal of the certificate: when it is due, and what an answer must be to replace the identity.

use serde_json::{Value, json};
use wire_contract::claim::BrokerAddress;
use wire_contract::{ClaimAnswer, RenewalRequest};

use super::super::testkit::{Asked, hub_key, hub_key_of, signed_time, signed_time_by, successions};
use super::*;

/// More than six tenths of the life of the certificates that the small hub makes, which end in the year 4096.
const PAST_DUE: Duration = Duration::from_secs(1_300 * 365 * 86_400);

/// A hub that answers renewals as `change` leaves them, and links with the epoch that goes with the certificate shown.
async fn hub(
    pki: &Arc<Pki>,
    change: impl Fn(&mut ClaimAnswer) + Send + std::marker::Sync + 'static,
) -> (HttpsHub, Arc<Mutex<u32>>) {
    let (inside, renewals) = (Arc::clone(pki), Arc::new(Mutex::new(0)));
    let counter = Arc::clone(&renewals);
    let server = HttpsHub::start(pki, true, move |asked: Asked| {
        assert!(asked.with_certificate);
        if asked.line.starts_with("GET /v1/device/link?") {
            return (200, serde_json::to_value(link_answer_for(asked.nonce(), 1 + *counter.lock(), &[])).unwrap());
        }
        assert_eq!(asked.line, "POST /v1/device/renewal HTTP/1.1");
        *counter.lock() += 1;
        let request: RenewalRequest = serde_json::from_slice(&asked.body).unwrap();
        (200, answer(&inside, &request, &change))
    })
    .await;
    (server, renewals)
}

fn answer(pki: &Pki, request: &RenewalRequest, change: &impl Fn(&mut ClaimAnswer)) -> Value {
    let mut answer = ClaimAnswer {
        v: V1,
        tenant: wire_contract::TenantId(TENANT),
        device: DeviceId(DEVICE),
        certificate_chain: pki.certify(&request.csr, &DEVICE.to_string()),
        root: pki.root.pem(),
        hub_keys: vec![hub_key()],
        hub_url: "https://moved.example/".parse().unwrap(),
        broker: BrokerAddress { host: "moved.example".into(), port: 8884 },
        server_time: signed_time(request.nonce.unwrap()),
        successions: Vec::new(),
    };
    change(&mut answer);
    json!(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_half_its_life_a_certificate_is_renewed_stored_and_used() {
    let pki = Arc::new(Pki::new());
    let (server, renewals) = hub(&pki, |_| {}).await;
    let device = Device::of(&pki, &server.url, 1).linked();
    let before = device.identity.clone();
    let mut rig = Rig::start(device);
    let _first = rig.line().await;
    eventually("the link is fetched", || rig.status.borrow().link_epoch == Some(1)).await;
    assert_eq!(*renewals.lock(), 0, "it is not due");
    let due = rig.status.borrow().certificate_renewal_at.unwrap();
    assert!(due > testkit::now() && due < rig.status.borrow().certificate_expires_at.unwrap());

    rig.clock.forward(PAST_DUE);
    eventually("the renewed identity is on the disk", || {
        Identity::load(rig.device.dir.path()).unwrap().is_some_and(|stored| stored.chain_pem != before.chain_pem)
    })
    .await;
    let stored = Identity::load(rig.device.dir.path()).unwrap().unwrap();
    assert_ne!(*stored.key_pem, *before.key_pem, "with a new key");
    assert_eq!((stored.tenant, stored.device, &stored.hub_keys), (before.tenant, before.device, &before.hub_keys));
    assert_eq!((stored.hub_url.as_str(), stored.broker.port), ("https://moved.example/", 8884));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(*renewals.lock(), 1, "a clock that is ahead by centuries does not make it ask without end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_for_this_device_changes_nothing_and_is_named() {
    type Change = fn(&mut ClaimAnswer);
    let wrong: [(&str, Change); 4] = [
        ("another device", |answer| answer.device = DeviceId(Uuid::from_u128(1))),
        ("another device", |answer| answer.tenant = wire_contract::TenantId(Uuid::from_u128(1))),
        ("not the one that this device trusts", |answer| answer.root = Pki::new().root.pem()),
        ("for another key", |answer| answer.certificate_chain = Pki::new().identity("https://x/", 1).chain_pem),
    ];
    for (expected, change) in wrong {
        let pki = Arc::new(Pki::new());
        let (server, renewals) = hub(&pki, change).await;
        let device = Device::of(&pki, &server.url, 1).linked();
        device.identity.store(device.dir.path()).unwrap();
        let before = device.identity.clone();
        let rig = Rig::start(device);
        rig.clock.forward(PAST_DUE);
        let told = || rig.status.borrow().last_error.as_ref().is_some_and(|text| text.contains(expected));
        eventually(expected, told).await;
        let stored = Identity::load(rig.device.dir.path()).unwrap().unwrap();
        assert_eq!(stored.chain_pem, before.chain_pem);
        assert_eq!(*renewals.lock(), 1, "the next attempt waits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_under_a_later_key_brings_that_key_and_ends_those_before() {
    let change = |answer: &mut ClaimAnswer| {
        answer.server_time = signed_time_by(2, answer.server_time.nonce);
        answer.hub_keys = vec![hub_key_of(2)];
        answer.successions = successions(2);
    };
    let pki = Arc::new(Pki::new());
    let (server, _) = hub(&pki, change).await;
    let device = Device::of(&pki, &server.url, 1).linked();
    device.identity.store(device.dir.path()).unwrap();
    let before = device.identity.clone();
    let rig = Rig::start(device);
    rig.clock.forward(PAST_DUE);
    let stored = || Identity::load(rig.device.dir.path()).unwrap().unwrap();
    eventually("the renewed identity is on the disk", || stored().chain_pem != before.chain_pem).await;
    let keys: Vec<String> = stored().hub_keys.iter().map(|key| key.key_id.clone()).collect();
    assert_eq!(keys, [hub_key_of(2).key_id.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_under_a_key_that_nothing_leads_to_brings_no_certificate() {
    let change = |answer: &mut ClaimAnswer| {
        answer.server_time = signed_time_by(2, answer.server_time.nonce);
        answer.hub_keys = vec![hub_key_of(2)];
    };
    let pki = Arc::new(Pki::new());
    let (server, _) = hub(&pki, change).await;
    let device = Device::of(&pki, &server.url, 1).linked();
    device.identity.store(device.dir.path()).unwrap();
    let before = device.identity.clone();
    let rig = Rig::start(device);
    rig.clock.forward(PAST_DUE);
    let told = || rig.status.borrow().last_error.as_ref().is_some_and(|text| text.contains("which is not pinned"));
    eventually("it is named", told).await;
    let stored = Identity::load(rig.device.dir.path()).unwrap().unwrap();
    assert_eq!((stored.chain_pem, stored.hub_keys), (before.chain_pem, before.hub_keys));
}
