//! JSON Schemas (draft 2020-12) of every payload, by name. `schemas/v1` holds them as files; a test keeps both equal.

use schemars::{Schema, schema_for};

use crate::{
    Batch, ClaimAnswer, ClaimRequest, ClaimToken, CloudEvent, CommandDown, CommandUp, EnrolAnswer, EnrolRequest,
    EventData, EvtAck, EvtRefusal, GalleryDown, GalleryUp, HubTime, HubTimeRequest, LinkAnswer, Problem,
    RenewalRequest, Status, Succession, TwinDown, TwinSettings, TwinUp, guidance::DoorGuidance,
    snapshot::SnapshotAnswer, webhook::WebhookBody,
};

/// Every schema with the name of its file (without `.json`).
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("batch", schema_for!(Batch)),
        ("claim_answer", schema_for!(ClaimAnswer)),
        ("claim_request", schema_for!(ClaimRequest)),
        ("claim_token", schema_for!(ClaimToken)),
        ("cloud_event", schema_for!(CloudEvent)),
        ("command_down", schema_for!(CommandDown)),
        ("command_up", schema_for!(CommandUp)),
        ("enrol_answer", schema_for!(EnrolAnswer)),
        ("enrol_request", schema_for!(EnrolRequest)),
        ("event_data", schema_for!(EventData)),
        ("evtack", schema_for!(EvtAck)),
        ("evtack_refusal", schema_for!(EvtRefusal)),
        ("gallery_down", schema_for!(GalleryDown)),
        ("gallery_up", schema_for!(GalleryUp)),
        ("guidance", schema_for!(DoorGuidance)),
        ("hub_time", schema_for!(HubTime)),
        ("hub_time_request", schema_for!(HubTimeRequest)),
        ("link_answer", schema_for!(LinkAnswer)),
        ("problem", schema_for!(Problem)),
        ("renewal_request", schema_for!(RenewalRequest)),
        ("snapshot_answer", schema_for!(SnapshotAnswer)),
        ("status", schema_for!(Status)),
        ("succession", schema_for!(Succession)),
        ("twin_down", schema_for!(TwinDown)),
        ("twin_settings", schema_for!(TwinSettings)),
        ("twin_up", schema_for!(TwinUp)),
        ("webhook", schema_for!(WebhookBody)),
    ]
}
