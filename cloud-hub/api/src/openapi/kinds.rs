//! Commands as a request describes them: one form for each kind, since each kind takes fields of its own.

use utoipa::PartialSchema as _;
use utoipa::openapi::schema::{AdditionalProperties, KnownFormat, OneOfBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, Schema};
use wire_contract::command::{MAX_ENROL_WITHIN_S, MAX_LOG_BYTES, MAX_LOG_LEVEL_S, MAX_ORDERED_HOLD_MS};

use super::named::named_schemas;
use super::words::{self, one_of};
use crate::commands::{ENROL_WITHIN_S, OF_DEVICES, OF_DOORS};

named_schemas! {
    /// A command to a device: by `kind`, with the fields of that kind.
    NewDeviceCommand => forms(&OF_DEVICES, Target::Device);
    /// A command to a door: by `kind`, with the fields of that kind.
    NewDoorCommand => forms(&OF_DOORS, Target::Door);
    /// Opens a door once.
    NewUnlock => unlock();
}

/// What a command is given to.
#[derive(Clone, Copy)]
enum Target {
    Device,
    Door,
}

fn forms(kinds: &[&'static str], target: Target) -> OneOfBuilder {
    let form =
        |kind: &'static str| form(kind, target).title(Some(kind)).property("kind", one_of([kind])).required("kind");
    kinds.iter().fold(OneOfBuilder::new(), |forms, kind| forms.item(form(kind)))
}

/// What every command takes.
fn plain() -> ObjectBuilder {
    let id = uuid(nullable(Type::String))
        .description(Some("Asked twice with one id, there is one command. The hub chooses one if there is none."));
    let closed = AdditionalProperties::<Schema>::FreeForm(false);
    ObjectBuilder::new().property("id", id).additional_properties(Some(closed))
}

fn unlock() -> ObjectBuilder {
    plain().property(
        "hold_ms",
        up_to(MAX_ORDERED_HOLD_MS, "How long the door stays open; as the device is set up without it."),
    )
}

/// The fields of one kind. The bounds are those of the wire.
fn form(kind: &str, target: Target) -> ObjectBuilder {
    match kind {
        "unlock" => unlock(),
        "lockdown" => {
            let which = match target {
                Target::Device => "true begins it at every door of the device, false ends it",
                Target::Door => "true begins it, false ends it",
            };
            let on = ObjectBuilder::new().schema_type(Type::Boolean).description(Some(which));
            plain().property("on", on).required("on")
        }
        "reboot" => plain().property("target", words::RebootTarget::schema()),
        "log_level" => plain()
            .property("level", words::LogLevel::schema())
            .required("level")
            .property("for_s", up_to(MAX_LOG_LEVEL_S, "Then as configured again; until the next start without it.")),
        "collect_logs" => plain().property("max_bytes", up_to(MAX_LOG_BYTES, "All that the device keeps without it.")),
        "enrol" => {
            let within = up_to(MAX_ENROL_WITHIN_S, "How long the door waits for a face.");
            let within = within.default(Some(ENROL_WITHIN_S.into()));
            plain().property("person_id", uuid(Type::String.into())).required("person_id").property("within_s", within)
        }
        _ => plain(),
    }
}

fn uuid(kind: SchemaType) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
}

fn up_to(most: u32, description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(nullable(Type::Integer))
        .minimum(Some(1))
        .maximum(Some(most))
        .description(Some(description))
}

/// A field that may be left away may be `null` too.
fn nullable(kind: Type) -> SchemaType {
    SchemaType::from_iter([kind, Type::Null])
}
