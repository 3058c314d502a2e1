//! Wishes for a device's configuration over a real broker: retained for who comes later, new for who is there, again for who
//! has not seen them, and sealed anew when the device's link key is another.

use std::time::Instant;

use cloud_hub::domain::twin::Desired;
use cloud_hub::store::twins;
use serde_json::{Value, json};
use uuid::Uuid;
use wire_contract::{DownChannel, TwinDown, TwinSettings, TwinState, TwinUp, TwinVersion, UpChannel, V1};

use crate::line::{Device, Line, PATIENCE};
use crate::support::skipped;

fn hold(ms: u32) -> Value {
    json!({ "door": { "main": { "hold_ms": ms } } })
}

impl Line {
    async fn wish(&self, version: u64, settings: Value) {
        let settings = TwinSettings::parse(&settings).unwrap();
        let desired = Desired { version, settings, actor: "test".into(), created_at: self.hub.clock.now() };
        let device = self.place.device;
        let wish = self
            .hub
            .db
            .tenant(self.place.tenant, move |tx| Box::pin(async move { twins::wish(tx, device, &desired).await }));
        wish.await.unwrap();
    }

    async fn reported(&self) -> Option<cloud_hub::domain::twin::Reported> {
        let device = self.place.device;
        self.hub.db.tenant(self.place.tenant, move |tx| Box::pin(twins::reported(tx, device))).await.unwrap()
    }

    async fn reported_to_be(&self, seen: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.reported().await.and_then(|said| said.seen).is_none_or(|version| version.version != seen) {
            assert!(Instant::now() < deadline, "the report is noted");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Device {
    async fn next_twin(&mut self) -> TwinDown {
        loop {
            let (channel, plain) = self.next().await;
            if channel == DownChannel::Twin {
                return serde_json::from_slice(&plain).unwrap();
            }
        }
    }

    async fn report_twin(&self, seen: Option<u64>, settings: Value) {
        let version = seen.map(|version| TwinVersion { epoch: 1, version });
        let report = TwinUp {
            v: V1,
            boot: Uuid::from_u128(1),
            seen: version,
            applied: version,
            hash: None,
            state: if seen.is_some() { TwinState::Applied } else { TwinState::None },
            settings,
            restart_needed: Vec::new(),
            code: None,
            reason: None,
        };
        self.say(UpChannel::Twin, &serde_json::to_vec(&report).unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_waits_for_the_device_follows_it_and_comes_again_until_it_is_seen() {
    if skipped("a_wish_waits_for_the_device_follows_it_and_comes_again_until_it_is_seen") {
        return;
    }
    let mut line = Line::start().await;
    line.wish(1, hold(900)).await;
    // Given to the broker before the device is there.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let mut device = line.device().await;
    let first = device.next_twin().await;
    assert_eq!((first.desired.version, &first.settings), (1, &hold(900)));
    assert_eq!(first.hash, TwinSettings::parse(&first.settings).unwrap().hash());
    device.report_twin(Some(1), hold(900)).await;
    line.reported_to_be(1).await;

    line.wish(2, hold(700)).await;
    assert_eq!(device.next_twin().await.desired.version, 2);
    // It did not take it in: its next report says so, and the wish comes again.
    device.report_twin(Some(1), hold(900)).await;
    assert_eq!(device.next_twin().await.desired.version, 2);
    let since = line.reported().await.unwrap().since;
    device.report_twin(Some(2), hold(700)).await;
    line.reported_to_be(2).await;
    let said = line.reported().await.unwrap();
    assert!(said.since >= since && said.settings == hold(700));
    let steady = said.since;
    device.report_twin(Some(2), hold(700)).await;
    let deadline = Instant::now() + PATIENCE;
    while line.reported().await.unwrap().reported_at <= steady {
        assert!(Instant::now() < deadline, "the report is noted");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(line.reported().await.unwrap().since, steady, "nothing has changed since");

    // A broker that lost what it kept gets it again when the hub's session begins anew.
    line.stop_hub().await;
    line.wish(3, hold(600)).await;
    line.start_hub().await;
    assert_eq!(device.next_twin().await.desired.version, 3);
}
