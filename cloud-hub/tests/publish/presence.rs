//! Who is there: as devices say, and until when.

use std::time::{Duration, Instant};

use cloud_hub::domain::ids::DeviceId;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use sqlx::{Executor as _, PgConnection, Row as _};
use uuid::Uuid;
use wire_contract::status::{Presence, Status};
use wire_contract::{Timestamp, UpChannel, V1};

use crate::line::{Line, PATIENCE};
use crate::support::skipped;

pub(crate) fn online() -> Vec<u8> {
    let status = Status {
        v: V1,
        state: Presence::Online,
        boot: Uuid::from_u128(1),
        connection_epoch: 1,
        since: Timestamp::from_unix_ms(0),
        agent_version: "1".to_owned(),
        pack: None,
        space_id: None,
    };
    serde_json::to_vec(&status).unwrap()
}

/// Waits until one of the devices is there.
pub(crate) async fn wait_online(superuser: &mut PgConnection) {
    let deadline = Instant::now() + PATIENCE;
    while !superuser.fetch_one("SELECT bool_or(online) FROM device").await.unwrap().get::<bool, _>(0) {
        assert!(Instant::now() < deadline, "presence is noted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_online(superuser: &mut PgConnection, device: DeviceId) -> bool {
    let online = sqlx::query_scalar("SELECT online FROM device WHERE id = $1").bind(device.0);
    online.fetch_one(superuser).await.unwrap()
}

/// A broker that was killed has forgotten who was there and never says the last will of who went meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_come_back_to_a_broker_that_forgot_is_gone() {
    if skipped("who_does_not_come_back_to_a_broker_that_forgot_is_gone") {
        return;
    }
    let mut line = Line::start().await;
    line.said_within = Duration::from_secs(1);
    let (mut gone, stays) = (line.device().await, line.another_device().await);
    let mut superuser = line.hub.superuser().await;
    for device in [&gone, &stays] {
        device.say(UpChannel::Status, &online()).await;
        let deadline = Instant::now() + PATIENCE;
        while !is_online(&mut superuser, device.id).await {
            assert!(Instant::now() < deadline, "presence is noted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(gone.reasons.recv().await, Some(PubAckReason::Success));
    line.kill_hub().await;
    // The broker forgets one of them, as if it had been killed too.
    gone.client.publish(gone.up(UpChannel::Status), QoS::AtLeastOnce, true, "").await.unwrap();
    let forgotten = tokio::time::timeout(PATIENCE, gone.reasons.recv()).await.unwrap();
    // The broker may not have noticed yet that the hub is gone.
    assert!(matches!(forgotten, Some(PubAckReason::NoMatchingSubscribers | PubAckReason::Success)), "{forgotten:?}");
    line.start_hub().await;
    let deadline = Instant::now() + PATIENCE;
    while is_online(&mut superuser, gone.id).await {
        assert!(Instant::now() < deadline, "who was not heard of any more is gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_online(&mut superuser, stays.id).await, "the broker still knew of the other");
}
