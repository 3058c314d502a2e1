//! Closed words of answers and requests, from the same lists that the program reads and writes them by.

use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::schema::Type;
use wire_contract::{CommandState as Said, LogLevel as Level, TwinState};

use super::named::named_schemas;
use crate::commands::{OF_DEVICES, OF_DOORS};
use crate::sessions::MOVEMENTS;
use hub_domain::permission;
use hub_domain::session;
use hub_domain::tenant;
use hub_domain::twin::Standing;
use hub_domain::user;
use hub_recognition::paths::SearchPath as Path;
use hub_store::vectors::Index;

named_schemas! {
    /// What was agreed upon; it decides over the quotas.
    Tier => one_of(tenant::Tier::ALL.iter().map(|tier| tier.as_str()));
    /// As the tier has it.
    OfTier => one_of(["tier"]);
    /// The keys of a suspended tenant are refused; its doors go on.
    TenantState => one_of(["active", "suspended"]);
    /// How far the end of a tenant is. `erased`: nothing is left of it but the receipt.
    DeletionState => one_of(["active", "suspended", "deleting", "erased"]);
    /// What serves a gallery: `memory`, the gallery in the hub's memory; `scan`, all vectors in the database; `index`, an index over
    /// these.
    SearchPath => one_of(Path::ALL.iter().map(|path| path.as_str()));
    /// The index over a gallery's vectors: none, one that is being made or was cut off, or one that serves.
    VectorIndex => one_of(Index::ALL.iter().map(|index| index.as_str()));
    /// Where a setting's value is from: a version, or the hub's own file.
    SettingSource => one_of(["version", "file"]);
    /// Whether a user may log in.
    UserState => one_of(user::State::ALL.iter().map(|state| state.as_str()));
    /// `resource:verb`.
    Permission => one_of(permission::Permission::ALL.iter().map(|permission| permission.as_str()));
    /// The second word of an event's type.
    EventClass => one_of(wire_contract::EventClass::ALL.iter().map(|class| class.as_str()));
    /// Made and waiting for its claim, claimed, or revoked.
    DeviceState => one_of(["created", "claimed", "revoked"]);
    /// How what a device searches stands to what the hub has. `differs`: same version, other content.
    GalleryStanding => one_of(["unreported", "equal", "behind", "differs"]);
    /// What a command does.
    CommandKind => one_of(kinds());
    /// How far a command got. `unanswered`: its time is over and the device did not say what became of it.
    CommandState => one_of(
        ["issued"].into_iter().chain(SAID.iter().map(|state| state.as_str())).chain(["unanswered"]),
    );
    /// How a device stands to its desired settings.
    TwinStanding => one_of(STANDINGS.iter().map(|standing| standing.as_str()));
    /// What a device made of the settings that it saw last.
    TwinReportState => one_of(REPORTS.iter().map(|state| state.as_str()));
    /// Where something was refused.
    Stage => one_of(["capture", "detect", "quality", "liveness", "identify", "decide", "enrol", "sync", "api"]);
    /// What a still photograph says of life: never that somebody lives.
    StillDecision => one_of(["attack", "insufficient"]);
    /// Who it is, or why nobody.
    Identity => one_of(["known", "unknown", "ambiguous", "not_this_person", "attack"]);
    /// What a session is for.
    SessionKind => one_of(session::Kind::ALL.iter().map(|kind| kind.as_str()));
    /// What a session is for that compares a face.
    AuthenticationKind => one_of([session::Kind::Verification.as_str(), session::Kind::Identification.as_str()]);
    /// Where a session stands; the last four are ends.
    SessionState => one_of(session::State::ALL.iter().map(|state| state.name()));
    /// A movement that is asked for. Sides are those of the picture: the nose goes towards its left or right edge.
    Movement => one_of(MOVEMENTS);
    /// Something that is audited.
    AuditAction => one_of(hub_domain::audit::action::Action::ALL.iter().map(|action| action.as_str()));
    /// Where the hub is in its life.
    HubPhase => one_of(["starting", "ready", "draining"]);
    /// How much a device logs.
    LogLevel => one_of(Level::ALL.iter().map(|level| level.as_str()));
    /// What is started again.
    RebootTarget => one_of(["agent", "machine"]);
}

const SAID: [Said; 5] = [Said::Accepted, Said::Executing, Said::Succeeded, Said::Failed, Said::Expired];
const STANDINGS: [Standing; 6] = [
    Standing::Unset,
    Standing::Pending,
    Standing::Equal,
    Standing::RestartNeeded,
    Standing::Refused,
    Standing::Differs,
];
const REPORTS: [TwinState; 4] = [TwinState::None, TwinState::Applied, TwinState::RestartNeeded, TwinState::Refused];

/// A text that is one of these.
pub(super) fn one_of(words: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words))
}

/// Each kind once: some are for doors and for devices.
fn kinds() -> impl Iterator<Item = &'static str> {
    OF_DEVICES.into_iter().chain(OF_DOORS.into_iter().filter(|kind| !OF_DEVICES.contains(kind)))
}
