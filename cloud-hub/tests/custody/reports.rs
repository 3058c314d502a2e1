//! Reports that come together are stored together, and none of them stands in the way of the others.

use cloud_hub::store::devices::{self, Reported};
use gallery_log::Root;
use sqlx::Executor as _;
use wire_contract::LinkKeys;

use crate::snapshots::{desk, report};
use crate::support::{Place, TestHub, skipped};

async fn another(hub: &TestHub, first: &Place) -> Place {
    let Place { tenant, site, .. } = *first;
    let device = hub.device(tenant, site).await;
    let link = hub.custody.link(tenant, device).await.unwrap();
    let keys = LinkKeys::derive(&link.link_key, wire_contract::DeviceId(device.0), link.link_epoch);
    Place { tenant, site, device, link, keys }
}

/// What the hub's row says of the device's last report.
async fn reported(hub: &TestHub, place: &Place) -> Option<Reported> {
    let (tenant, device) = (place.tenant, place.device);
    hub.db.tenant(tenant, move |tx| Box::pin(devices::galleries(tx, device))).await.unwrap().remove(0).reported
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_cannot_be_judged_does_not_stand_in_the_way_of_the_others() {
    if skipped("a_report_that_cannot_be_judged_does_not_stand_in_the_way_of_the_others") {
        return;
    }
    let hub = TestHub::start().await;
    let one = hub.place().await;
    let (other, broken) = (another(&hub, &one).await, another(&hub, &one).await);
    let mut desk = desk(&hub, 10);
    let epoch = one.link.galleries[0].epoch;
    let of = |place| report(place, epoch, 0, Root([0; 32]));

    // Not the device's word: refused by itself.
    let mut forged = of(&broken);
    *forged.payload.last_mut().unwrap() ^= 1;
    desk.hear(vec![of(&one), forged, of(&other)]).await;
    assert!(reported(&hub, &one).await.is_some());
    assert!(reported(&hub, &other).await.is_some());
    assert!(reported(&hub, &broken).await.is_none());

    // The hub's own row is bad: the whole transaction fails, and each comes in its own.
    let mut superuser = hub.superuser().await;
    superuser.execute("DELETE FROM device_gallery").await.unwrap();
    let spoil = sqlx::query("UPDATE device_link SET sealed = sealed || '\\x00'::bytea WHERE device_id = $1");
    spoil.bind(broken.device.0).execute(&mut superuser).await.unwrap();
    desk.hear(vec![of(&one), of(&broken), of(&other)]).await;
    assert!(reported(&hub, &one).await.is_some());
    assert!(reported(&hub, &other).await.is_some());
    assert!(reported(&hub, &broken).await.is_none());
}
