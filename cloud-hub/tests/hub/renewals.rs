//! A device's next certificate: offered while the present one works, the present one's end at its first use.

use std::time::Instant;

use cloud_hub::clock::Clock;
use cloud_hub::domain::ids::DeviceId;
use cloud_hub::pki::{DeviceRequest, Pki};
use reqwest::StatusCode;
use serde_json::{Value, json};
use time::Duration;
use wire_contract::{ClaimAnswer, LinkAnswer};

use super::devices::{Device, code, made};
use super::process::{Hub, Tenant, data_dir, read, skipped};

/// Asks for the next certificate, for `next`'s key, under `present`'s certificate.
pub(crate) async fn renew(hub: &Hub, present: &Device, chain: &str, next: &Device) -> (StatusCode, Value) {
    let request = present.client(hub, chain).post(format!("{}/v1/device/renewal", hub.https()));
    read(request.json(&json!({ "v": 1, "csr": next.csr() })).send().await.unwrap()).await
}

fn chain_of(answer: (StatusCode, Value)) -> String {
    assert_eq!(answer.0, StatusCode::OK, "{}", answer.1);
    serde_json::from_value::<ClaimAnswer>(answer.1).unwrap().certificate_chain
}

/// A claimed device, its id and its chain.
async fn claimed(hub: &Hub, tenant: &Tenant) -> (Device, String, String) {
    let (id, token) = made(hub, tenant, "entrance").await;
    let device = Device::new();
    let chain = chain_of(device.claim(hub, &token).await);
    (device, id, chain)
}

async fn link_epoch(hub: &Hub, device: &Device, chain: &str) -> u32 {
    let (status, link) = device.link(hub, chain).await;
    assert_eq!(status, StatusCode::OK, "{link}");
    serde_json::from_value::<LinkAnswer>(link).unwrap().link_epoch
}

/// The broker reads a new revocation list a moment after it was told to; five seconds are the protocol's.
pub(crate) async fn ends_at_the_broker(hub: &Hub, device: &Device, chain: &str, id: &str) {
    let begun = Instant::now();
    while device.is_let_in(hub, chain, id).await {
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "the broker still lets the certificate in");
    }
}

#[tokio::test]
async fn the_next_certificate_works_at_once_and_ends_the_one_before_at_its_first_use() {
    if skipped("the_next_certificate_works_at_once_and_ends_the_one_before_at_its_first_use") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (device, id, chain) = claimed(&hub, &tenant).await;
    let before = link_epoch(&hub, &device, &chain).await;

    assert_eq!(code(&renew(&hub, &device, &chain, &device).await), (422, "csr_invalid"), "a renewal needs a new key");
    let next = Device::new();
    let answer: ClaimAnswer = serde_json::from_value(renew(&hub, &device, &chain, &next).await.1).unwrap();
    assert_eq!(answer.device.to_string(), id);
    assert!(
        answer.server_time.verify(&answer.hub_keys, id.parse().unwrap()).is_ok(),
        "without a nonce, for the device"
    );
    // Whichever of the two the device has after a power cut works.
    assert_eq!(link_epoch(&hub, &device, &chain).await, before);
    assert!(device.is_let_in(&hub, &chain, &id).await);

    let after = link_epoch(&hub, &next, &answer.certificate_chain).await;
    assert_eq!(after, before + 1, "a new link key comes with the new certificate");
    assert_eq!(link_epoch(&hub, &next, &answer.certificate_chain).await, after, "once");
    assert!(next.is_let_in(&hub, &answer.certificate_chain, &id).await);
    assert_eq!(code(&device.link(&hub, &chain).await), (403, "device_revoked"));
    assert_eq!(code(&renew(&hub, &device, &chain, &Device::new()).await), (403, "device_revoked"));
    ends_at_the_broker(&hub, &device, &chain, &id).await;

    let mut rows = hub.superuser().await;
    let audited: Vec<String> =
        sqlx::query_scalar("SELECT action FROM audit_entry WHERE action LIKE 'device.certificate%' ORDER BY at, id")
            .fetch_all(&mut rows)
            .await
            .unwrap();
    assert_eq!(audited, ["device.certificate_offered", "device.certificate_renewed"]);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_the_lost_certificate_serves_for_nothing() {
    if skipped("a_lost_answer_is_asked_for_again_and_the_lost_certificate_serves_for_nothing") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (device, id, chain) = claimed(&hub, &tenant).await;
    let (lost, kept) = (Device::new(), Device::new());
    let lost_chain = chain_of(renew(&hub, &device, &chain, &lost).await);
    let kept_chain = chain_of(renew(&hub, &device, &chain, &kept).await);
    assert_eq!(code(&lost.link(&hub, &lost_chain).await), (403, "device_revoked"));
    assert_eq!(kept.link(&hub, &kept_chain).await.0, StatusCode::OK);
    ends_at_the_broker(&hub, &lost, &lost_chain, &id).await;

    // A revocation ends the offered certificate too.
    let offered = Device::new();
    let offered_chain = chain_of(renew(&hub, &kept, &kept_chain, &offered).await);
    let gone = hub.call(&tenant, reqwest::Method::DELETE, &format!("/v1/devices/{id}"), None).await;
    assert_eq!(gone.0, StatusCode::NO_CONTENT);
    assert_eq!(code(&offered.link(&hub, &offered_chain).await), (403, "device_revoked"));
    ends_at_the_broker(&hub, &offered, &offered_chain, &id).await;
}

#[tokio::test]
async fn a_certificate_that_ended_within_the_month_renews_itself_and_does_nothing_else() {
    if skipped("a_certificate_that_ended_within_the_month_renews_itself_and_does_nothing_else") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (_, id, _) = claimed(&hub, &tenant).await;
    // The same authority, a hundred days ago: its certificate ended ten days ago.
    let (now, old) = (Clock::system().now(), Device::new());
    let pki = Pki::load_or_make(&dir.path().join("pki"), now).unwrap();
    let issued = |days: i64| {
        let request = DeviceRequest::parse(&old.csr()).unwrap();
        pki.issue_device(request, DeviceId(id.parse().unwrap()), now - Duration::days(days)).unwrap()
    };
    let mut rows = hub.superuser().await;
    let (ended, too_old) = (issued(100), issued(121));
    for certificate in [&ended.certificate, &too_old.certificate] {
        sqlx::query("UPDATE device SET certificate_serial = $1, certificate_expires_at = $2")
            .bind(&certificate.serial)
            .bind(certificate.expires_at)
            .execute(&mut rows)
            .await
            .unwrap();
        if certificate == &ended.certificate {
            assert_eq!(code(&old.link(&hub, &ended.chain_pem).await), (403, "certificate_expired"));
            assert!(!old.is_let_in(&hub, &ended.chain_pem, &id).await, "the broker lets an ended certificate in");
            let next = Device::new();
            let chain = chain_of(renew(&hub, &old, &ended.chain_pem, &next).await);
            assert_eq!(next.link(&hub, &chain).await.0, StatusCode::OK);
            assert!(next.is_let_in(&hub, &chain, &id).await);
        } else {
            let request = old.client(&hub, &too_old.chain_pem).post(format!("{}/v1/device/renewal", hub.https()));
            let refused = request.json(&json!({ "v": 1, "csr": Device::new().csr() })).send().await;
            assert!(refused.is_err(), "the handshake itself refuses what ended more than thirty days ago");
        }
    }
}
