//! Whose certificates are of another authority than the one that issues now, and what ends with that one.

use cloud_hub::domain::certificate::DeviceCertificate;
use cloud_hub::domain::ids::{DeviceId, TenantId};
use cloud_hub::keys::Claimed;
use cloud_hub::store::{devices, routes};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::support::{TestHub, skipped};

const BEFORE: [u8; 32] = [1; 32];
const PRESENT: [u8; 32] = [2; 32];

fn certificate(serial: &str, issuer: [u8; 32], expires_at: OffsetDateTime) -> DeviceCertificate {
    // Another key for each.
    let spki_sha256 = std::array::from_fn(|at| serial.as_bytes()[at % serial.len()]);
    DeviceCertificate { spki_sha256, serial: serial.to_owned(), expires_at, issuer }
}

async fn held(hub: &TestHub, tenant: TenantId, device: DeviceId) -> (Option<String>, Option<String>) {
    let found = hub.db.tenant(tenant, move |tx| Box::pin(devices::get(tx, device))).await.unwrap();
    (found.certificate_serial, found.next_certificate_serial)
}

#[tokio::test]
async fn a_device_is_left_until_it_has_shown_a_certificate_of_the_present_authority() {
    if skipped("a_device_is_left_until_it_has_shown_a_certificate_of_the_present_authority") {
        return;
    }
    let hub = TestHub::start().await;
    let (place, now) = (hub.place().await, hub.clock.now());
    let (tenant, soon) = (place.tenant, now + Duration::days(9));
    let claim = async |of: [u8; 32], serial: &str, until| {
        let device = hub.device(tenant, place.site).await;
        let claimed = Claimed { hardware_serial: "one".to_owned(), certificate: certificate(serial, of, until) };
        hub.custody.device_claimed(tenant, device, claimed).await.unwrap();
        device
    };
    let left = async || hub.custody.devices_of_other_authorities(PRESENT).await.unwrap();
    assert_eq!(left().await, 0, "a certificate of 1970");
    let early = claim(BEFORE, "0a", soon).await;
    let late = claim(PRESENT, "0b", soon).await;
    let renewing = claim(BEFORE, "0c", soon).await;
    let other_hub = claim(PRESENT, "0d", soon).await;
    let ended = claim(BEFORE, "0e", now - Duration::days(29)).await;
    claim(BEFORE, "0f", now - Duration::days(31)).await;
    let offer = async |device, serial: &str, of| {
        assert!(hub.custody.certificate_offered(tenant, device, certificate(serial, of, soon)).await.unwrap());
    };
    offer(renewing, "1c", PRESENT).await;
    // By a hub that had not gone over.
    offer(other_hub, "1d", BEFORE).await;
    assert_eq!(left().await, 4, "the first, one that renews, one with a next one of before, one that may still renew");
    assert!(hub.custody.certificate_taken_up(tenant, renewing, "1c".to_owned()).await.unwrap());
    assert_eq!(left().await, 3);
    offer(early, "1a", PRESENT).await;
    assert_eq!(left().await, 3, "it may never have heard of it");
    // As a version left them that noted no issuer.
    let mut superuser = hub.superuser().await;
    sqlx::query("UPDATE device SET certificate_issuer = NULL WHERE certificate_serial = '0e'")
        .execute(&mut superuser)
        .await
        .unwrap();
    assert_eq!(left().await, 3);

    let mut gone = hub.custody.end_other_authorities(PRESENT, BEFORE).await.unwrap();
    gone.retain(|device| [early, late, renewing, other_hub, ended].contains(device));
    gone.sort();
    let mut wanted = vec![early, other_hub, ended];
    wanted.sort();
    assert_eq!((gone, left().await), (wanted, 0));
    let serial = |text: &str| Some(text.to_owned());
    assert_eq!(held(&hub, tenant, early).await, (None, serial("1a")), "if it has it, it may show it");
    assert_eq!(held(&hub, tenant, late).await, (serial("0b"), None));
    assert_eq!(held(&hub, tenant, renewing).await, (serial("1c"), None));
    assert_eq!(held(&hub, tenant, other_hub).await, (serial("0d"), None));
    assert_eq!(held(&hub, tenant, ended).await, (None, None));
    let revoked = routes::revoked_certificates(&hub.db, now).await.unwrap();
    let revoked: Vec<&str> = revoked.iter().map(|certificate| certificate.serial.as_str()).collect();
    assert_eq!(revoked, ["0a", "0c", "1d"]);
    assert!(hub.custody.certificate_taken_up(tenant, early, "1a".to_owned()).await.unwrap());
    let told: Value = sqlx::query_scalar("SELECT detail FROM audit_entry WHERE action = 'hub.authorities'")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!((&told["retired"], &told["authority"]), (&json!(hex::encode(BEFORE)), &json!(hex::encode(PRESENT))));
}
