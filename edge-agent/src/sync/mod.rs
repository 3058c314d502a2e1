//! Between this device and the hub: events out, people in, presence, keys. Works offline as long as it must.
//!
//! In: the outbox, the galleries, the identity and keys of the stores. Out: an outbox that empties on the hub's own
//! acknowledgement alone, galleries that equal the hub's log, and a [`SyncStatus`] for the control socket.
//!
//! Where to start: [`driver`] is the loop; what it should do is decided by small pure machines that take the time as an
//! argument: [`sender`] (which batch next), [`reports`] (when to say where the galleries stand), [`backoff`] (when to
//! connect again), [`commands`] (which of the hub's orders are carried out). [`receiver`] applies gallery messages, [`healing`] makes a gallery that differs equal again, [`snapshots`] fetches a whole one, [`lease`] says how long they may be used without contact, [`link`] holds the keys of the wire, [`presence`] the status,
//! [`transport`] is the only file that knows the MQTT client, [`tls`] how certificates are judged, [`https`] the hub's
//! device calls, [`hub_keys`] which of its keys are believed, [`hub_time`] how the time is learned when the clock is not to be believed, [`renewal`] when and how this device gets its next certificate. [`claim`] gives the device its identity in the first place.
//!
//! Invariants: an entry leaves the outbox on a verified evtack and on nothing else; a gallery that is
//! known to differ from the hub's is not searched before it is healed or fetched anew; nothing read from the broker is used before its seal was opened.
//! Deliberately absent: video; no topic of its is acted upon. What the twin means is [`crate::twin`]'s.

pub mod backoff;
pub mod claim;
pub mod commands;
mod driver;
pub mod healing;
mod https;
mod hub_keys;
mod hub_time;
mod journal;
pub mod lease;
mod link;
mod presence;
pub mod receiver;
pub mod renewal;
mod reports;
pub mod sender;
pub mod snapshots;
mod tls;
mod transport;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use edge_store::{DeviceKeys, Identity, Outbox};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire_contract::{Code, CommandId, Timestamp};

use crate::clock::SharedClock;
use crate::gallery::Galleries;
use crate::lockdown::Lockdowns;
use crate::logging::LogDesk;
use crate::stages::decide::{DoorInput, OrderTold};
use crate::stages::record::Recorder;
use crate::twin::TwinDesk;

pub use claim::{ClaimError, Claimed, claim};
pub use https::HttpsError;
pub use link::LinkError;
pub use presence::About;
pub use tls::TlsError;

/// Everything that the connection to the hub works with.
pub struct Sync {
    /// Who this device is, at the start; renewals replace it. Without one there is nothing to connect to: do not start sync.
    pub identity: Identity,
    /// Where the connection counter is kept (the same directory that holds the identity).
    pub state_dir: PathBuf,
    /// Link and gallery keys; sync stores new ones there.
    pub keys: DeviceKeys,
    /// Where events wait.
    pub outbox: Arc<Outbox>,
    /// Where people go, and what the state reports say.
    pub galleries: Arc<Galleries>,
    /// The last sequence on disk: changes wake the sender.
    pub recorded: watch::Receiver<u64>,
    /// For `system.gallery_rebuilt`.
    pub recorder: Recorder,
    /// The doors that the hub may open.
    pub orders: Orders,
    /// How long the galleries may be used without contact with the hub; `None`: for ever.
    pub gallery_lease: Option<Duration>,
    /// What the status says of this agent.
    pub about: About,
    /// The clock.
    pub clock: SharedClock,
    /// Turns of the loop, for the watchdog: at least two a second while all is well, with or without a network.
    pub turns: Arc<AtomicU64>,
    /// How long to wait for what.
    pub timing: Timing,
}

/// What an operator's orders may do here beside doors. Whatever is not there is refused as not configured.
#[derive(Debug, Clone)]
pub struct Hands {
    /// The doors' lock-downs.
    pub lockdowns: Option<Arc<Lockdowns>>,
    /// The log.
    pub log: LogDesk,
    /// Whom to ask for a restart of the agent.
    pub restart: Option<mpsc::Sender<()>>,
    /// The command that reboots the machine; empty where that is not allowed.
    pub reboot_command: Vec<String>,
}

impl Hands {
    /// For a device that can do nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { lockdowns: None, log: LogDesk::unattached(), restart: None, reboot_command: Vec::new() }
    }
}

/// The way of an operator's order to a door, and of the door's answer.
#[derive(Debug)]
pub struct Orders {
    /// By the door's id. Weak: a door ends when the stages before it have ended, whoever might still give orders.
    doors: HashMap<String, mpsc::WeakSender<DoorInput>>,
    told: mpsc::Receiver<OrderTold>,
    hands: Hands,
    twin: Option<TwinDesk>,
}

impl Orders {
    /// Orders for these doors, and what they answer.
    #[must_use]
    pub fn new(doors: HashMap<String, mpsc::WeakSender<DoorInput>>, told: mpsc::Receiver<OrderTold>) -> Self {
        Self { doors, told, hands: Hands::none(), twin: None }
    }

    /// And these hands.
    #[must_use]
    pub fn with(self, hands: Hands) -> Self {
        Self { hands, ..self }
    }

    /// And the hub's wishes for the configuration.
    #[must_use]
    pub fn with_twin(self, twin: TwinDesk) -> Self {
        Self { twin: Some(twin), ..self }
    }

    /// For a device without doors.
    #[must_use]
    pub fn none() -> Self {
        Self::new(HashMap::new(), mpsc::channel(1).1)
    }

    fn door(&self, id: &str) -> Option<mpsc::Sender<DoorInput>> {
        self.doors.get(id)?.upgrade()
    }

    /// The next answer of a door; never, when there are none to come.
    async fn answer(&mut self) -> OrderTold {
        match self.told.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }
}

/// How long to wait for what. The defaults are for real devices; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A device that falls silent is shown as gone after one and a half of this. 10 s: a dead line is noticed by the hub within
    /// 15 s and by the device within 20 s, so that what waited is gone within 30 s of a heal; a mobile network's address
    /// translation (30 s at the worst) is kept open. The connection itself asks the broker for less, since that looks seldom.
    pub keep_alive: Duration,
    /// No evtack for this long while batches are on their way: send them again (protocol.md).
    pub evtack_timeout: Duration,
    /// Between state reports when nothing changes (protocol.md).
    pub report_interval: Duration,
    /// The first wait before connecting again.
    pub backoff_first: Duration,
    /// The longest wait before connecting again. 10 s: a door is back soon after its network is, and a thousand devices
    /// spread over 10 s are a hundred handshakes a second, which one broker core does.
    pub backoff_longest: Duration,
    /// How long one HTTPS call or connection attempt may take.
    pub connect_timeout: Duration,
    /// How long a stop waits for the last status to be taken.
    pub stop_timeout: Duration,
    /// The first wait after a renewal of the certificate that failed.
    pub renewal_first: Duration,
    /// The longest wait between two attempts to renew it: half of ninety days is left for some hundred and eighty.
    pub renewal_longest: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(10),
            evtack_timeout: Duration::from_secs(10),
            report_interval: Duration::from_secs(60),
            backoff_first: Duration::from_millis(500),
            backoff_longest: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(1),
            renewal_first: Duration::from_secs(60),
            renewal_longest: Duration::from_secs(6 * 3600),
        }
    }
}

/// How the line to the hub is, for `status`, `outbox status` and `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SyncStatus {
    /// Connected, subscribed and reported.
    pub connected: bool,
    /// `host:port` of the broker.
    pub broker: String,
    /// Connections since the device was made.
    pub connection_epoch: u64,
    /// Since when it is connected.
    pub connected_since: Option<Timestamp>,
    /// The link keys in use; none before the first link.
    pub link_epoch: Option<u32>,
    /// What went wrong last, as one line with its causes; none after a success.
    pub last_error: Option<String>,
    /// When the hub last acknowledged events.
    pub last_acknowledged_at: Option<Timestamp>,
    /// When this device's certificate ends.
    pub certificate_expires_at: Option<Timestamp>,
    /// When its renewal is due.
    pub certificate_renewal_at: Option<Timestamp>,
    /// Until when the galleries may be used without contact with the hub; none: for ever.
    pub lease_until: Option<Timestamp>,
    /// That this time is over: the galleries were destroyed and wait for contact.
    pub lease_over: bool,
    /// The snapshots that are being fetched.
    pub snapshots: Vec<SnapshotStatus>,
    /// The desired state that the agent works by.
    pub twin: Option<wire_contract::TwinVersion>,
    /// Whether something of the twin waits for a start, or was refused: its state's word.
    pub twin_state: Option<&'static str>,
    /// The last commands of this run, the newest first.
    pub commands: VecDeque<CommandLine>,
}

/// A snapshot that is being fetched.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SnapshotStatus {
    /// The gallery.
    pub gallery: String,
    /// The version that it brings.
    pub version: u64,
    /// Bytes that are here.
    pub held: u64,
    /// Bytes in all; none before the manifest is here.
    pub bytes: Option<u64>,
    /// How much of it is here, in percent, rounded down.
    pub percent: u64,
}

/// Commands that are shown.
const SHOWN: usize = 16;

/// A command, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CommandLine {
    /// Which.
    pub id: CommandId,
    /// Its kind's word; none for one that was known before it came, or was refused unread.
    pub kind: Option<&'static str>,
    /// How far it got.
    pub state: &'static str,
    /// Why not.
    pub code: Option<Code>,
    /// When that was said.
    pub at: Timestamp,
}

impl SyncStatus {
    /// Shows a word on a command.
    fn show_command(&mut self, line: CommandLine) {
        let kind = self.commands.iter().find(|known| known.id == line.id).and_then(|known| known.kind);
        self.commands.retain(|known| known.id != line.id);
        self.commands.push_front(CommandLine { kind: line.kind.or(kind), ..line });
        self.commands.truncate(SHOWN);
    }
}

/// Runs until `stop` is cancelled, then says "offline" and returns within [`Timing::stop_timeout`] and what the disk
/// takes. Never returns before: every trouble is logged, shown in `status`, and tried again.
pub async fn run(sync: Sync, status: watch::Sender<SyncStatus>, stop: CancellationToken) {
    let connector = transport::Mqtt::new(sync.timing, SharedClock::clone(&sync.clock));
    driver::Driver::new(sync, status, connector).run(stop).await;
}

#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
