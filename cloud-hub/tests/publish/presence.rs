//! Who is there: as devices say, and until when.

use std::time::Duration;

use cloud_hub::domain::ids::DeviceId;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use uuid::Uuid;
use wire_contract::status::{Presence, Status};
use wire_contract::{Timestamp, UpChannel, V1};

use crate::line::{Line, PATIENCE};
use crate::support::skipped;

/// The status of a device that is there, with this version of the agent.
pub(crate) fn online(agent_version: &str) -> Vec<u8> {
    let status = Status {
        v: V1,
        state: Presence::Online,
        boot: Uuid::from_u128(1),
        connection_epoch: 1,
        since: Timestamp::from_unix_ms(0),
        agent_version: agent_version.to_owned(),
        pack: None,
        space_id: None,
    };
    serde_json::to_vec(&status).unwrap()
}

async fn wait_until(line: &Line, device: DeviceId, so: &str) {
    line.wait_for(&format!("SELECT {so} FROM device WHERE id = '{}'", device.0)).await;
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
    for device in [&gone, &stays] {
        device.say(UpChannel::Status, &online("1")).await;
        wait_until(&line, device.id, "online").await;
    }
    assert_eq!(gone.reasons.recv().await, Some(PubAckReason::Success));
    line.kill_hub().await;
    // The broker forgets one of them, as if it had been killed too.
    gone.client.publish(gone.up(UpChannel::Status), QoS::AtLeastOnce, true, "").await.unwrap();
    let forgotten = tokio::time::timeout(PATIENCE, gone.reasons.recv()).await.unwrap();
    // The broker may not have noticed yet that the hub is gone.
    assert!(matches!(forgotten, Some(PubAckReason::NoMatchingSubscribers | PubAckReason::Success)), "{forgotten:?}");
    line.start_hub().await;
    wait_until(&line, gone.id, "NOT online").await;
    // The broker still knew of the other, and the hub has looked at both.
    wait_until(&line, stays.id, "online").await;
}
