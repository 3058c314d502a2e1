//! Events: CloudEvents 1.0 in JSON, with the stream position that makes redelivery harmless.
//!
//! In: an [`EventData`] and its [`Meta`]. Out: a [`CloudEvent`]; and back, without loss even for types of a newer agent,
//! since `type` and `data` stay as they came. Identity is (device, stream, sequence); `boot` is only information.
//! Deliberately absent: names and pictures of people. `person` is an opaque id.

mod challenge;
mod gallery;
mod intrusion;
mod order;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::codes::Code;
use crate::encoding::Score;
use crate::ids::{ClaimId, DeviceId, EventId, PersonId, Sequence, StreamId, TenantId};
use crate::time::Timestamp;
use crate::topic::EventClass;

pub use challenge::{LivenessChallengeEndedData, LivenessPromptedData};
pub use gallery::{
    GalleryDivergedData, GalleryHealedData, GalleryOlderEpochData, GalleryPoint, GalleryRebuiltData,
    SnapshotRefusedData,
};
pub use intrusion::IntrusionData;
pub use order::CommandSettledData;

/// The longest JSON of one event, in bytes. An outbox must refuse a longer one: it could never be sent. Real events have
/// 1 to 2 KiB; this bound keeps any event within one batch.
pub const MAX_EVENT_BYTES: usize = 32 * 1024;

/// The longest event type, in bytes.
pub const MAX_KIND_BYTES: usize = 100;

/// How far the wall clock of an event can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockQuality {
    /// Set by the network, or by the hub's signed time, during this run.
    Synchronised,
    /// Above the persisted floor, but not confirmed during this run.
    Holdover,
    /// Not to be trusted; order by sequence.
    Untrusted,
}

/// The CloudEvents `specversion`, always `1.0`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum SpecVersion {
    /// CloudEvents 1.0 (with its errata).
    #[default]
    #[serde(rename = "1.0")]
    V1_0,
}

/// One event as it travels. Extension fields (`stream` to `clockq`) are absent in events that the hub itself makes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CloudEvent {
    /// Always `1.0`.
    pub specversion: SpecVersion,
    /// UUIDv7.
    pub id: EventId,
    /// Who says it: [`device_source`] or [`HUB_SOURCE`].
    pub source: String,
    /// The type, `lintel.<class>.<what>.v<n>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about, opaque: an id, never a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it happened, by the sender's wall clock.
    pub time: Timestamp,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The outbox that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// Its place in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// The run of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Uuid>,
    /// Milliseconds of the monotonic clock in that run, as a decimal string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monoms: Option<String>,
    /// How far `time` can be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clockq: Option<ClockQuality>,
    /// What happened, by `type`; see [`EventData`].
    pub data: Value,
}

/// The `source` of events that the hub makes itself.
pub const HUB_SOURCE: &str = "/hub";

/// The `source` of a device's events. Information only: the hub takes tenant and device from topic and registry.
pub fn device_source(tenant: TenantId, device: DeviceId) -> String {
    format!("/tenants/{tenant}/devices/{device}")
}

/// Everything of a device's event but what happened.
#[derive(Clone, PartialEq, Debug)]
pub struct Meta {
    /// UUIDv7.
    pub id: EventId,
    /// [`device_source`].
    pub source: String,
    /// What it is about, opaque.
    pub subject: Option<String>,
    /// Wall-clock time.
    pub time: Timestamp,
    /// The outbox.
    pub stream: StreamId,
    /// The place in it.
    pub sequence: Sequence,
    /// The run of the agent.
    pub boot: Uuid,
    /// Monotonic milliseconds in that run.
    pub monotonic_ms: u64,
    /// How far `time` can be trusted.
    pub clock_quality: ClockQuality,
}

/// `type` and `data` do not fit.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// A type of a newer program, or a misspelt one.
    #[error("event type `{found}` is not known")]
    UnknownType {
        /// The type.
        found: String,
    },
    /// The data are not what the type demands.
    #[error("data of event type `{kind}` are not valid")]
    InvalidData {
        /// The type.
        kind: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Why an event can be stored nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EventFault {
    /// The type is not `lintel.<class>.….v<n>` of lower-case letters, digits and underscores, or is too long.
    #[error("its type is not `lintel.<class>.<what>.v<n>` in lower-case words of at most {MAX_KIND_BYTES} bytes")]
    Type,
    /// A text somewhere in it has a NUL, which databases do not take.
    #[error("a text in it has a NUL character")]
    Nul,
}

impl CloudEvent {
    /// Checks what every reader relies on, whatever the type and its data are.
    pub fn check(&self) -> Result<(), EventFault> {
        if !is_kind(&self.kind) {
            return Err(EventFault::Type);
        }
        let texts = [Some(&self.source), self.subject.as_ref(), Some(&self.datacontenttype), self.monoms.as_ref()];
        if texts.into_iter().flatten().any(|text| has_nul(text)) || any_nul(&self.data) {
            return Err(EventFault::Nul);
        }
        Ok(())
    }

    /// A device's event.
    pub fn new(meta: Meta, data: &EventData) -> Self {
        let (kind, value) = data.to_parts();
        Self {
            specversion: SpecVersion::V1_0,
            id: meta.id,
            source: meta.source,
            kind,
            subject: meta.subject,
            time: meta.time,
            datacontenttype: "application/json".to_owned(),
            stream: Some(meta.stream),
            sequence: Some(meta.sequence),
            boot: Some(meta.boot),
            monoms: Some(meta.monotonic_ms.to_string()),
            clockq: Some(meta.clock_quality),
            data: value,
        }
    }

    /// An event of the hub itself.
    pub fn from_hub(id: EventId, subject: Option<String>, time: Timestamp, data: &EventData) -> Self {
        let (kind, value) = data.to_parts();
        Self {
            specversion: SpecVersion::V1_0,
            id,
            source: HUB_SOURCE.to_owned(),
            kind,
            subject,
            time,
            datacontenttype: "application/json".to_owned(),
            stream: None,
            sequence: None,
            boot: None,
            monoms: None,
            clockq: None,
            data: value,
        }
    }

    /// The typed data. Fails on types that this program does not know; those are stored and passed on as they came.
    pub fn typed(&self) -> Result<EventData, EventError> {
        EventData::from_parts(&self.kind, &self.data)
    }

    /// The class, from the type; `None` when the type is not of the form `lintel.<known class>.….v<n>`.
    pub fn class(&self) -> Option<EventClass> {
        class_of(&self.kind)
    }
}

fn is_kind(kind: &str) -> bool {
    let fine = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let version = |word: &str| word.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok());
    let words: Vec<&str> = kind.split('.').collect();
    kind.len() <= MAX_KIND_BYTES
        && words.len() >= 4
        && words[0] == "lintel"
        && words.iter().all(|word| fine(word))
        && words.last().is_some_and(|word| version(word))
}

fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

/// The depth is bounded by the reader of the JSON (128 levels).
fn any_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => has_nul(text),
        Value::Array(values) => values.iter().any(any_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| has_nul(name) || any_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The class of an event type: its second word.
pub fn class_of(kind: &str) -> Option<EventClass> {
    let mut words = kind.split('.');
    if words.next() != Some("lintel") {
        return None;
    }
    let class = EventClass::from_word(words.next()?)?;
    words.next().map(|_| class)
}

/// Why something was let in, refused or rejected. The same shape in events, API answers and on the command line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// The code.
    pub code: Code,
    /// The stage that said it; `null` for a code that this program does not know.
    pub stage: Option<crate::codes::Stage>,
    /// The score that was compared, when one was.
    pub score: Option<Score>,
    /// What it was compared with.
    pub threshold: Option<Score>,
    /// The id of a text that tells a person what to do ([`crate::texts`]).
    pub hint: Option<String>,
}

impl Reason {
    /// The reason with this code, its stage and hint from the register, and no score.
    pub fn of(code: Code) -> Self {
        let entry = code.entry();
        Self {
            code,
            stage: entry.map(|e| e.stage),
            score: None,
            threshold: None,
            hint: entry.map(|e| e.hint.to_owned()),
        }
    }

    /// The same reason with the comparison behind it.
    pub fn compared(mut self, score: impl Into<Score>, threshold: impl Into<Score>) -> Self {
        self.score = Some(score.into());
        self.threshold = Some(threshold.into());
        self
    }
}

/// How the identity was found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IdentityScores {
    /// The best similarity, in [-1, 1]; `null` when the gallery was empty.
    pub best_score: Option<Score>,
    /// The threshold it had to reach.
    pub threshold: Score,
    /// Its distance to the second-best person; `null` when there was none.
    pub margin: Option<Score>,
}

/// How liveness was judged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LivenessScores {
    /// `live`, `attack`, `still`, `unanswered` (a challenge), `collecting` or `unavailable`.
    pub verdict: String,
    /// The mean passive score, in [0, 1]; `null` when there was none.
    pub score: Option<Score>,
    /// The threshold it had to reach.
    pub threshold: Score,
}

/// How long the decision took.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// From the newest frame that contributed to the relay call; `null` when the relay was not called.
    pub last_frame_to_relay_ms: Option<u64>,
    /// From the first frame of the track to the relay call; `null` when the relay was not called.
    pub arrival_to_relay_ms: Option<u64>,
    /// Age of the newest contributing frame when the decision was made.
    pub frame_age_ms: Option<u64>,
}

/// Someone was let in, or refused.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AccessData {
    /// The door's id in the agent's configuration.
    pub door: String,
    /// The camera's id there.
    pub camera: String,
    /// The decision; door events name it too.
    pub decision: Uuid,
    /// The person let in; when refused, the best candidate, or `null`.
    pub person: Option<PersonId>,
    /// Why.
    pub reason: Reason,
    /// How the identity was found; `null` when no search was made.
    pub identity: Option<IdentityScores>,
    /// How liveness was judged; `null` when it was not.
    pub liveness: Option<LivenessScores>,
    /// Quality of the best shot, in [0, 1].
    pub quality: Option<Score>,
    /// How long it took.
    pub timing: Timing,
    /// The embedding space of the search.
    pub space_id: Option<String>,
    /// The model pack.
    pub pack: Option<String>,
}

/// Why a door was unlocked or locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DoorCause {
    /// A decision let someone in.
    Granted,
    /// The hold time was over.
    HoldElapsed,
    /// The person was removed while the door was open.
    PersonRemoved,
    /// The agent started or stopped.
    Agent,
    /// An operator's command.
    Command,
}

/// A relay edge.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DoorData {
    /// The door's id in the agent's configuration.
    pub door: String,
    /// Why.
    pub cause: DoorCause,
    /// The decision behind it, or the operator's command.
    pub decision: Option<Uuid>,
    /// The person let in, if one was.
    pub person: Option<PersonId>,
}

/// A new face before a camera.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FaceAppearedData {
    /// The camera's id in the agent's configuration.
    pub camera: String,
    /// The track, counted since the agent started.
    pub track: u64,
}

/// A camera gives no pictures.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CameraStalledData {
    /// The camera's id in the agent's configuration.
    pub camera: String,
    /// Age of the newest picture; `null` when there never was one.
    pub frame_age_ms: Option<u64>,
    /// Why, in the capture's own words.
    pub detail: String,
}

/// A camera gives pictures again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CameraRecoveredData {
    /// The camera's id in the agent's configuration.
    pub camera: String,
    /// How long there were none.
    pub outage_ms: u64,
}

/// The agent started.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SystemStartedData {
    /// The agent's version.
    pub agent_version: String,
    /// The model pack; `null` when none could be loaded.
    pub pack: Option<String>,
    /// The embedding space.
    pub space_id: Option<String>,
}

/// Events that had to be shed: this one stands for all of them, so that the sequence stays contiguous.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SystemGapData {
    /// Time of the first event shed.
    pub from: Timestamp,
    /// Time of the last event shed.
    pub until: Timestamp,
    /// How many were shed.
    pub count: u64,
    /// Their classes.
    pub classes: Vec<EventClass>,
}

/// Someone was enrolled.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EnrolmentCompletedData {
    /// The person.
    pub person: PersonId,
    /// The template that was made.
    pub template: Uuid,
    /// Its embedding space.
    pub space_id: String,
    /// How many photographs it was made of.
    pub photographs: u32,
    /// Its quality, in [0, 1].
    pub quality: Score,
}

/// A person was deleted, with everything kept of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PersonDeletedData {
    /// The person.
    pub person: PersonId,
}

/// One stream came with other events than those that the hub has, or with events that no hub can store. The hub raises
/// it; `alarm` is true.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StreamConflictData {
    /// Always true: consumers may look for it whatever the type is.
    pub alarm: bool,
    /// Whose identity it came under.
    pub device: DeviceId,
    /// The stream.
    pub stream: StreamId,
    /// The first sequence that contradicts what is stored; `null` when it could not be told.
    pub sequence: Option<Sequence>,
    /// `stream_conflict`, or `batch_refused` for what cannot be stored.
    pub reason: Reason,
}

/// A claim was shown by a second key. The hub raises it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClaimReusedData {
    /// Always true.
    pub alarm: bool,
    /// The claim.
    pub claim: ClaimId,
    /// The device that it is for.
    pub device: DeviceId,
}

/// What happened. Its JSON is `{"type": …, "data": …}`, the two fields of a [`CloudEvent`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
#[allow(clippy::large_enum_variant, reason = "one event lives at a time; boxing would only make it awkward to build")]
pub enum EventData {
    /// Someone was let in.
    #[serde(rename = "lintel.access.granted.v1")]
    AccessGranted(AccessData),
    /// Someone was refused.
    #[serde(rename = "lintel.access.denied.v1")]
    AccessDenied(AccessData),
    /// A relay opened a door.
    #[serde(rename = "lintel.door.unlocked.v1")]
    DoorUnlocked(DoorData),
    /// A relay closed a door.
    #[serde(rename = "lintel.door.locked.v1")]
    DoorLocked(DoorData),
    /// A new face before a camera.
    #[serde(rename = "lintel.face.appeared.v1")]
    FaceAppeared(FaceAppearedData),
    /// A camera gives no pictures.
    #[serde(rename = "lintel.camera.stalled.v1")]
    CameraStalled(CameraStalledData),
    /// A camera gives pictures again.
    #[serde(rename = "lintel.camera.recovered.v1")]
    CameraRecovered(CameraRecoveredData),
    /// The agent started.
    #[serde(rename = "lintel.system.started.v1")]
    SystemStarted(SystemStartedData),
    /// Events had to be shed.
    #[serde(rename = "lintel.system.gap.v1")]
    SystemGap(SystemGapData),
    /// A gallery was thrown away and fetched anew.
    #[serde(rename = "lintel.system.gallery_rebuilt.v1")]
    GalleryRebuilt(GalleryRebuiltData),
    /// Someone was enrolled.
    #[serde(rename = "lintel.enrolment.completed.v1")]
    EnrolmentCompleted(EnrolmentCompletedData),
    /// A person was deleted.
    #[serde(rename = "lintel.person.deleted.v1")]
    PersonDeleted(PersonDeletedData),
    /// One stream came with other events than the stored ones, or with events that cannot be stored.
    #[serde(rename = "lintel.tamper.stream_conflict.v1")]
    StreamConflict(StreamConflictData),
    /// A claim was shown by a second key.
    #[serde(rename = "lintel.tamper.claim_reused.v1")]
    ClaimReused(ClaimReusedData),
    /// A caller of the API behaves as an intruder would.
    #[serde(rename = "lintel.tamper.intrusion.v1")]
    Intrusion(IntrusionData),
    /// A device's gallery is not what was sent to it.
    #[serde(rename = "lintel.tamper.gallery_diverged.v1")]
    GalleryDiverged(GalleryDivergedData),
    /// Buckets of a gallery that differed from the hub's were replaced.
    #[serde(rename = "lintel.system.gallery_healed.v1")]
    GalleryHealed(GalleryHealedData),
    /// Somebody offered a gallery of an older epoch.
    #[serde(rename = "lintel.tamper.gallery_older_epoch.v1")]
    GalleryOlderEpoch(GalleryOlderEpochData),
    /// A snapshot was not what the hub signed.
    #[serde(rename = "lintel.tamper.gallery_snapshot_refused.v1")]
    SnapshotRefused(SnapshotRefusedData),
    /// A device had the last word on an operator's command.
    #[serde(rename = "lintel.system.command.v1")]
    CommandSettled(CommandSettledData),
    /// Somebody is asked to move, to show that they are no recording.
    #[serde(rename = "lintel.liveness.prompted.v1")]
    LivenessPrompted(LivenessPromptedData),
    /// An attempt at a challenge is over.
    #[serde(rename = "lintel.liveness.challenge_ended.v1")]
    LivenessChallengeEnded(LivenessChallengeEndedData),
}

impl EventData {
    /// The `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::AccessGranted(_) => "lintel.access.granted.v1",
            Self::AccessDenied(_) => "lintel.access.denied.v1",
            Self::DoorUnlocked(_) => "lintel.door.unlocked.v1",
            Self::DoorLocked(_) => "lintel.door.locked.v1",
            Self::FaceAppeared(_) => "lintel.face.appeared.v1",
            Self::CameraStalled(_) => "lintel.camera.stalled.v1",
            Self::CameraRecovered(_) => "lintel.camera.recovered.v1",
            Self::SystemStarted(_) => "lintel.system.started.v1",
            Self::SystemGap(_) => "lintel.system.gap.v1",
            Self::GalleryRebuilt(_) => "lintel.system.gallery_rebuilt.v1",
            Self::EnrolmentCompleted(_) => "lintel.enrolment.completed.v1",
            Self::PersonDeleted(_) => "lintel.person.deleted.v1",
            Self::StreamConflict(_) => "lintel.tamper.stream_conflict.v1",
            Self::ClaimReused(_) => "lintel.tamper.claim_reused.v1",
            Self::Intrusion(_) => "lintel.tamper.intrusion.v1",
            Self::GalleryDiverged(_) => "lintel.tamper.gallery_diverged.v1",
            Self::GalleryHealed(_) => "lintel.system.gallery_healed.v1",
            Self::GalleryOlderEpoch(_) => "lintel.tamper.gallery_older_epoch.v1",
            Self::SnapshotRefused(_) => "lintel.tamper.gallery_snapshot_refused.v1",
            Self::CommandSettled(_) => "lintel.system.command.v1",
            Self::LivenessPrompted(_) => "lintel.liveness.prompted.v1",
            Self::LivenessChallengeEnded(_) => "lintel.liveness.challenge_ended.v1",
        }
    }

    /// The class.
    pub fn class(&self) -> EventClass {
        class_of(self.kind()).expect("every type in the register has a known class; a test goes through all")
    }

    /// `type` and `data`.
    pub fn to_parts(&self) -> (String, Value) {
        let mut value = serde_json::to_value(self).expect("event data are plain structs with string keys");
        let data = value.get_mut("data").map(Value::take).expect("the representation is tagged with content `data`");
        (self.kind().to_owned(), data)
    }

    /// The typed data of this `type`.
    pub fn from_parts(kind: &str, data: &Value) -> Result<Self, EventError> {
        if !KINDS.contains(&kind) {
            return Err(EventError::UnknownType { found: kind.chars().take(100).collect() });
        }
        let whole = serde_json::json!({ "type": kind, "data": data });
        serde_json::from_value(whole).map_err(|source| EventError::InvalidData { kind: kind.to_owned(), source })
    }
}

/// Every event type that this program knows.
pub const KINDS: [&str; 22] = [
    "lintel.access.granted.v1",
    "lintel.access.denied.v1",
    "lintel.door.unlocked.v1",
    "lintel.door.locked.v1",
    "lintel.face.appeared.v1",
    "lintel.camera.stalled.v1",
    "lintel.camera.recovered.v1",
    "lintel.system.started.v1",
    "lintel.system.gap.v1",
    "lintel.system.gallery_rebuilt.v1",
    "lintel.enrolment.completed.v1",
    "lintel.person.deleted.v1",
    "lintel.tamper.stream_conflict.v1",
    "lintel.tamper.claim_reused.v1",
    "lintel.tamper.gallery_diverged.v1",
    "lintel.system.gallery_healed.v1",
    "lintel.tamper.gallery_older_epoch.v1",
    "lintel.tamper.gallery_snapshot_refused.v1",
    "lintel.system.command.v1",
    "lintel.liveness.prompted.v1",
    "lintel.liveness.challenge_ended.v1",
    "lintel.tamper.intrusion.v1",
];
