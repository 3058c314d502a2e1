//! The driver's part of the twin: desired states in, reports out, at each connection and after each change.

use wire_contract::{TwinDown, UpChannel};

use super::{Driver, blocking, malformed, to_json};
use crate::sync::transport::{Connect, Parcel, Shipment};

impl<C: Connect> Driver<C> {
    pub(super) async fn on_twin(&mut self, topic: &str, payload: &[u8]) {
        let message: TwinDown = match serde_json::from_slice(payload) {
            Ok(message) => message,
            Err(error) => return malformed(topic, &error),
        };
        let Some(mut desk) = self.orders.twin.take() else { return };
        let desk = blocking(move || {
            desk.take(&message);
            desk
        })
        .await;
        self.orders.twin = Some(desk);
        self.report_twin();
    }

    /// Retained at the broker, so that the hub hears of it whenever it comes.
    pub(super) fn report_twin(&mut self) {
        let (Some(desk), Some(ring)) = (&self.orders.twin, &self.ring) else { return };
        let report = desk.report(self.sync.about.boot);
        self.status.send_modify(|status| {
            status.twin = report.applied;
            status.twin_state = Some(report.state.as_str());
        });
        let topic = ring.up_topic(UpChannel::Twin);
        let payload = ring.wrap(&topic, &to_json(&report));
        self.publish(Shipment { topic, payload, retain: true, parcel: Parcel::Twin });
    }
}
