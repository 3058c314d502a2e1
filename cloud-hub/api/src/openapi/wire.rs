//! What the wire's contract defines, in its own schemas: this API passes them on and does not describe them again.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use utoipa::openapi::ObjectBuilder;

use super::named::named_schemas;

/// A type of the contract each, under the name that its own schema has. What stands here is a place for it, which
/// [`definitions`] fills.
macro_rules! of_the_wire {
    ($($name:ident: $type:ty,)+) => {
        named_schemas! {$(
            /// Defined by the wire's contract.
            $name => ObjectBuilder::new();
        )+}

        /// The schemas of all of these, and of what they refer to, by name.
        pub(super) fn definitions() -> Map<String, Value> {
            let mut settings = SchemaSettings::draft2020_12();
            settings.definitions_path = "/components/schemas".into();
            let mut generator = settings.into_generator();
            $(generator.subschema_for::<$type>();)+
            let mut definitions = generator.take_definitions(true);
            // What the pattern says, in the word that makers of clients look for.
            definitions["Timestamp"]["format"] = json!("date-time");
            definitions
        }

        #[cfg(test)]
        pub(super) const NAMES: &[&str] = &[$(stringify!($name),)+];
    };
}

of_the_wire! {
    ClaimAnswer: wire_contract::ClaimAnswer,
    ClaimRequest: wire_contract::ClaimRequest,
    CloudEvent: wire_contract::CloudEvent,
    Code: wire_contract::Code,
    EnrolAnswer: wire_contract::EnrolAnswer,
    EnrolRequest: wire_contract::EnrolRequest,
    HubTime: wire_contract::HubTime,
    HubTimeRequest: wire_contract::HubTimeRequest,
    LinkAnswer: wire_contract::LinkAnswer,
    Problem: wire_contract::Problem,
    RenewalRequest: wire_contract::RenewalRequest,
    SnapshotAnswer: wire_contract::snapshot::SnapshotAnswer,
    Timestamp: wire_contract::Timestamp,
    TwinSettings: wire_contract::TwinSettings,
    TwinVersion: wire_contract::TwinVersion,
}
