//! The body of a webhook delivery (Standard Webhooks 1.0.0): `{type, timestamp, data}`, thin, without biometrics.
//!
//! The headers (`webhook-id` = event id, `webhook-timestamp`, `webhook-signature`) are the hub's to make.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::CloudEvent;
use crate::ids::{DeviceId, EventId, Sequence, StreamId, TenantId};
use crate::time::Timestamp;
use crate::topic::EventClass;

/// What is delivered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WebhookBody {
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the event happened.
    pub timestamp: Timestamp,
    /// The event.
    pub data: WebhookData,
}

/// The event in a delivery.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WebhookData {
    /// The event; also the `webhook-id`. Deliveries may repeat: keep it to recognise them.
    pub event_id: EventId,
    /// The tenant.
    pub tenant: TenantId,
    /// The class; `null` for a type that the hub does not know.
    pub class: Option<EventClass>,
    /// The device; `null` for events of the hub itself.
    pub device: Option<DeviceId>,
    /// The device's stream.
    pub stream: Option<StreamId>,
    /// The place in the stream. Deliveries may come in another order; this is the true one.
    pub sequence: Option<Sequence>,
    /// What it is about, opaque.
    pub subject: Option<String>,
    /// The event's own `data`.
    pub details: Value,
}

impl WebhookBody {
    /// The body for an event of this tenant and device.
    pub fn of(event: &CloudEvent, tenant: TenantId, device: Option<DeviceId>) -> Self {
        Self {
            kind: event.kind.clone(),
            timestamp: event.time,
            data: WebhookData {
                event_id: event.id,
                tenant,
                class: event.class(),
                device,
                stream: event.stream,
                sequence: event.sequence,
                subject: event.subject.clone(),
                details: event.data.clone(),
            },
        }
    }
}
