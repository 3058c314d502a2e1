//! What edge agents, the hub and consumers say to each other, byte for byte.
//!
//! In: typed values. Out: topic strings, authenticated envelopes, JSON payloads of version 1, and back again.
//!
//! Where to start: [`topic`] (every topic string is made here and nowhere else), [`envelope`] and [`link`] (how payloads
//! are authenticated), [`event`] and [`batch`] and [`evtack`] (events on their way to the hub), [`gallery`] (people on
//! their way to doors), [`snapshot`] (all of them at once), [`command`] and [`twin`] (orders, and how a device is set up),
//! [`status`], [`claim`] (how a device gets its identity), [`hub_time`] (what time it is), [`succession`] (how
//! the hub's signing key is followed by another), [`codes`] and [`texts`] (every reason
//! and error, once), [`problem`] and [`webhook`] (what integrators see). Examples of each are in `golden/v1`, JSON
//! Schemas in `schemas/v1`, the whole as an AsyncAPI document ([`asyncapi`]) in `schemas/asyncapi.json`; tests keep them
//! equal to the code, and an old golden file never changes.
//!
//! Rules of every payload: a version (`"v": 1`, or `.v1` at the end of an event type) that is refused when it is not
//! known; times are RFC 3339 in UTC with milliseconds; sequences are strings of 20 digits; streams are 32 hex digits;
//! absent optional fields are written as `null` only where the schema says so, and read either way.
//! Unknown fields: ignored in whatever is *read* (messages, answers, events), so that a newer peer may add some;
//! rejected in what asks the hub to *write* (claim requests and claim tokens), so that a misspelt field is not lost.
//!
//! Deliberately absent: sockets, files, clocks, async, any crate of ours. Sealing `down` payloads is
//! `gallery_log::seal` with the topic in the additional data; the programs do it with the K_down that [`link`] derives.

pub mod asyncapi;
pub mod batch;
pub mod claim;
pub mod codes;
pub mod command;
pub mod encoding;
pub mod enrol;
pub mod envelope;
pub mod event;
pub mod evtack;
pub mod gallery;
pub mod guidance;
pub mod healing;
pub mod home;
pub mod hub_time;
pub mod ids;
pub mod link;
pub mod paths;
pub mod problem;
pub mod schema;
pub mod snapshot;
pub mod status;
pub mod succession;
pub mod texts;
pub mod time;
pub mod topic;
pub mod twin;
pub mod webhook;

pub use batch::{Batch, BatchBuilder, BatchError};
pub use claim::{ClaimAnswer, ClaimRequest, ClaimToken, RenewalRequest};
pub use codes::{Code, Stage};
pub use command::{Command, CommandDown, CommandProgress, CommandState, CommandUp, LogLevel, Order, RebootTarget};
pub use encoding::{Bytes, Hash32, Score, SecretBytes, V1};
pub use enrol::{EnrolAnswer, EnrolRequest};
pub use event::{CloudEvent, EventData};
pub use evtack::{EvtAck, EvtRefusal, Verdict};
pub use gallery::{GalleryDown, GalleryUp};
pub use hub_time::{HubTime, HubTimeRequest, Nonce};
pub use ids::{ClaimId, CommandId, DeviceId, EventId, GalleryId, PersonId, Sequence, StreamId, TenantId};
pub use link::{LinkAnswer, LinkKeys};
pub use problem::Problem;
pub use snapshot::{SnapshotManifest, SnapshotOffer};
pub use status::Status;
pub use succession::Succession;
pub use time::Timestamp;
pub use topic::{DownChannel, EventClass, Topic, UpChannel};
pub use twin::{TwinDown, TwinSettings, TwinState, TwinUp, TwinVersion};

/// The largest MQTT payload, in bytes, envelope or seal included. Set as the maximum packet size on both sides, with
/// room for the packet's own header.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
