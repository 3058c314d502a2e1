//! API keys, claims, certificates and link keys.

use std::sync::Arc;

use cloud_hub::clock::Clock;
use cloud_hub::domain::certificate::DeviceCertificate;
use cloud_hub::domain::claim::LIFETIME;
use cloud_hub::domain::ids::ClaimId;
use cloud_hub::keys::{Custody, Redeemed};
use cloud_hub::store::{claims, devices, routes};
use parking_lot::Mutex;
use sqlx::{Executor as _, Row as _};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::support::{TestHub, skipped};

#[tokio::test]
async fn of_two_devices_with_one_claim_exactly_one_wins() {
    if skipped("of_two_devices_with_one_claim_exactly_one_wins") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    for _ in 0..25 {
        let claim = hub.custody.issue_claim(place.tenant, place.device, "test").await.unwrap();
        let (one, other) = tokio::join!(
            hub.custody.redeem_claim(claim.id, &claim.secret, [1; 32]),
            hub.custody.redeem_claim(claim.id, &claim.secret, [2; 32]),
        );
        let mut outcomes = [one.unwrap(), other.unwrap()];
        outcomes.sort_by_key(|outcome| *outcome == Redeemed::Used);
        assert_eq!(outcomes, [Redeemed::Accepted(place.tenant, place.device), Redeemed::Used]);
    }
    let mut superuser = hub.superuser().await;
    let alarms: i64 = superuser
        .fetch_one("SELECT count(*) FROM event WHERE type = 'lintel.tamper.claim_reused.v1'")
        .await
        .unwrap()
        .get(0);
    assert_eq!(alarms, 25, "each loser is a security event");
}

#[tokio::test]
async fn a_claim_is_good_for_its_secret_its_time_and_its_first_key() {
    if skipped("a_claim_is_good_for_its_secret_its_time_and_its_first_key") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let time = Arc::new(Mutex::new(OffsetDateTime::UNIX_EPOCH + Duration::days(20_000)));
    let told = Arc::clone(&time);
    let custody = Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), Clock::of(move || *told.lock()));
    let claim = custody.issue_claim(place.tenant, place.device, "test").await.unwrap();
    assert_eq!(custody.redeem_claim(claim.id, &[0; 32], [1; 32]).await.unwrap(), Redeemed::Unknown);
    assert_eq!(custody.redeem_claim(ClaimId(Uuid::new_v4()), &claim.secret, [1; 32]).await.unwrap(), Redeemed::Unknown);
    let accepted = Redeemed::Accepted(place.tenant, place.device);
    assert_eq!(custody.redeem_claim(claim.id, &claim.secret, [1; 32]).await.unwrap(), accepted);
    assert_eq!(
        custody.redeem_claim(claim.id, &claim.secret, [1; 32]).await.unwrap(),
        accepted,
        "the same key may retry"
    );
    let late = custody.issue_claim(place.tenant, place.device, "test").await.unwrap();
    *time.lock() += LIFETIME;
    assert_eq!(custody.redeem_claim(late.id, &late.secret, [1; 32]).await.unwrap(), Redeemed::Expired);
    let stored = hub.db.tenant(place.tenant, move |tx| Box::pin(claims::get(tx, claim.id))).await.unwrap().unwrap();
    assert_ne!(stored.1.secret_mac, *claim.secret, "the secret itself is kept nowhere");
}

#[tokio::test]
async fn a_new_token_ends_the_older_ones() {
    if skipped("a_new_token_ends_the_older_ones") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let accepted = Redeemed::Accepted(place.tenant, place.device);
    let issue = async || hub.custody.issue_claim(place.tenant, place.device, "test").await.unwrap();
    let redeem = async |claim: &cloud_hub::keys::IssuedClaim, key: u8| {
        hub.custody.redeem_claim(claim.id, &claim.secret, [key; 32]).await.unwrap()
    };
    let (unused, used) = (issue().await, issue().await);
    assert_eq!(redeem(&unused, 1).await, Redeemed::Expired, "a token that lies about is good for nothing");
    assert_eq!(redeem(&used, 1).await, accepted);
    assert_eq!(redeem(&used, 1).await, accepted);
    let newest = issue().await;
    assert_eq!(redeem(&used, 1).await, Redeemed::Expired, "the old hardware cannot take its place back");
    assert_eq!(redeem(&newest, 2).await, accepted);
    assert_eq!(redeem(&newest, 2).await, accepted);
}

#[tokio::test]
async fn a_new_claim_begins_with_its_connections_and_galleries_anew() {
    if skipped("a_new_claim_begins_with_its_connections_and_galleries_anew") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let (tenant, device, now) = (place.tenant, place.device, hub.clock.now());
    let present = async |connection_epoch: u64| {
        hub.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let versions = serde_json::json!({});
                    let presence = devices::Presence { online: true, boot_id: "b", connection_epoch, versions };
                    devices::present(tx, device, &presence, now).await
                })
            })
            .await
            .unwrap()
    };
    assert!(present(17).await);
    assert!(!present(1).await, "an older connection's last word is no news");
    let gallery = place.link.galleries[0].gallery;
    let reported = devices::Reported { epoch: 1, version: 0, root: vec![0; 32], at: now, differs: false };
    hub.db
        .tenant(tenant, move |tx| {
            Box::pin(async move { devices::report_gallery(tx, device, gallery, &reported, false).await })
        })
        .await
        .unwrap();
    let claimed = cloud_hub::keys::Claimed {
        hardware_serial: "another".to_owned(),
        certificate: DeviceCertificate {
            spki_sha256: [2; 32],
            serial: "01".to_owned(),
            expires_at: now,
            issuer: [0; 32],
        },
    };
    hub.custody.device_claimed(tenant, device, claimed).await.unwrap();
    let held = hub.db.tenant(tenant, move |tx| Box::pin(devices::galleries(tx, device))).await.unwrap();
    assert_eq!(held[0].reported, None);
    assert!(present(1).await, "the new hardware counts from the beginning");
}

#[tokio::test]
async fn a_replaced_certificate_is_on_the_revocation_list_until_it_expires() {
    if skipped("a_replaced_certificate_is_on_the_revocation_list_until_it_expires") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let (tenant, device, now) = (place.tenant, place.device, hub.clock.now());
    let claim = async |serial: &str, key: u8| {
        let claimed = cloud_hub::keys::Claimed {
            hardware_serial: "hardware".to_owned(),
            certificate: DeviceCertificate {
                spki_sha256: [key; 32],
                serial: serial.to_owned(),
                expires_at: now + Duration::days(90),
                issuer: [0; 32],
            },
        };
        hub.custody.device_claimed(tenant, device, claimed).await.unwrap();
    };
    let listed = async |at: OffsetDateTime| -> Vec<String> {
        let revoked = routes::revoked_certificates(&hub.db, at).await.unwrap();
        revoked.into_iter().map(|certificate| certificate.serial).collect()
    };
    claim("0a", 2).await;
    assert_eq!(listed(now).await, [""; 0]);
    claim("0b", 3).await;
    assert_eq!(listed(now).await, ["0a"]);
    hub.db.tenant(tenant, move |tx| Box::pin(devices::revoke(tx, device))).await.unwrap();
    assert_eq!(listed(now).await, ["0a", "0b"]);
    assert_eq!(listed(now + Duration::days(91)).await, [""; 0]);
    routes::forget_expired_certificates(&hub.db, now + Duration::days(91)).await.unwrap();
    assert_eq!(listed(now).await, [""; 0]);
}

#[tokio::test]
async fn a_new_claim_ends_the_old_link_key_and_a_renewal_keeps_it_a_day() {
    if skipped("a_new_claim_ends_the_old_link_key_and_a_renewal_keeps_it_a_day") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let (tenant, device, now) = (place.tenant, place.device, hub.clock.now());
    assert_eq!(
        *hub.custody.link(tenant, device).await.unwrap().link_key,
        *place.link.link_key,
        "asking again gives the same"
    );
    let keys = hub.custody.tenant_keys(tenant).await.unwrap();
    let renewed = Zeroizing::new([9; 32]);
    let sealed = keys.seal_link(device, 2, &renewed).unwrap();
    hub.db
        .tenant(tenant, move |tx| Box::pin(async move { devices::renew_link(tx, device, 2, &sealed, now).await }))
        .await
        .unwrap();
    let epochs = async |at: OffsetDateTime| -> Vec<u32> {
        let links = hub.db.tenant(tenant, move |tx| Box::pin(devices::links(tx, device, at))).await.unwrap();
        links.iter().map(|link| link.epoch).collect()
    };
    assert_eq!(epochs(now + Duration::hours(23)).await, [2, 1]);
    assert_eq!(epochs(now + Duration::hours(25)).await, [2]);
    let claimed = cloud_hub::keys::Claimed {
        hardware_serial: "another".to_owned(),
        certificate: DeviceCertificate {
            spki_sha256: [2; 32],
            serial: "01".to_owned(),
            expires_at: OffsetDateTime::UNIX_EPOCH,
            issuer: [0; 32],
        },
    };
    hub.custody.device_claimed(tenant, device, claimed).await.unwrap();
    assert_eq!(epochs(now).await, [3], "whoever held the old keys is another device now");
}
