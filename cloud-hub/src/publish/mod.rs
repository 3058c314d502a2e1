//! The hub's side of the broker: the connection, and everything that goes out on it.
//!
//! In: messages from devices, and what committed transactions announce. Out: evtacks, gallery records re-sealed for
//! the device they go to, the consumers' feed; devices' presence and reports as rows; batches handed on to `ingest`
//! (which this module does not know; the wiring joins the two by channels).
//!
//! ```text
//!              ┌ up/evt ─────► batches ──► (ingest) ──► acks ─┐
//! broker ─► connections ─ up/gallery ─► galleries ───────────┤► outbox ─► connection ─► broker
//!              ├ up/cmd ─────► commands ──────────────────────┤
//!              ├ up/twin ────► twins ─────────────────────────┤
//!              └ up/status ─► presence       ▲      feed ─────┘
//!                        NOTIFY at commit ───┴────────┘
//! ```
//!
//! Of several hubs on one database and broker one leads: it alone sends records, commands and the feed ([`leadership`]).
//! What devices say is divided among them, but for reports of galleries, which the leader reads.
//!
//! Nothing here keeps what it could not send: a lost evtack is asked for again by the device's resend, lost records by
//! its next report, the feed goes on from its cursor in the database.
//! Deliberately absent: video signalling.

mod access;
mod announce;
mod batches;
mod commands;
mod connection;
mod consumers;
mod feed;
mod galleries;
mod home;
mod leadership;
mod outbox;
mod presence;
mod records;
mod twins;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use access::{RevocationsError, access_lines, end_session, revocation_list};
pub use connection::{Broker, BrokerTls};
pub use consumers::{ConsumerFiles, consumer_files, end_consumer};
pub use galleries::{Desk, SNAPSHOT_FROM};
pub use home::HomeSettings;
pub use presence::SAID_WITHIN;

use crate::clock::Clock;
use crate::domain::message::{Incoming, Outgoing};
use crate::keys::DeviceLinks;
use crate::store::{Database, Notice};
use outbox::Outbox;

/// Messages waiting for one of the tasks here. When a broker comes back, each device of a fleet says at once that it is
/// there, what its galleries hold, and asks for the time; a status is not said again until the next connection, a report
/// not for a minute. So there is room for two such bursts of 5,000 devices: some ten megabytes at the worst. Full means
/// dropped.
const QUEUE: usize = 10_240;

/// Pause before the database is asked to listen again after it went away.
const LISTEN_RETRY: Duration = Duration::from_millis(500);

/// What the publisher stands on.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// The database.
    pub db: Database,
    /// Link keys, and through them all other keys.
    pub links: DeviceLinks,
    /// The hub's clock.
    pub clock: Clock,
    /// Where the broker is.
    pub broker: Broker,
    /// From how many missing versions on a device takes a snapshot and not records.
    pub snapshot_from: u64,
    /// How long after a new session at the broker a device may be silent before it counts as gone; [`SAID_WITHIN`].
    pub said_within: Duration,
    /// Whose devices are announced to Home Assistant.
    pub home: HomeSettings,
}

/// Where batches go and acks come from.
#[derive(Debug)]
pub struct Seams {
    /// Batches on their way to `ingest`. While the channel is full, more wait at the broker.
    pub batches: mpsc::Sender<Incoming>,
    /// Acks from `ingest`.
    pub acks: mpsc::Receiver<Outgoing>,
    /// Whether the hub is connected and subscribed; for health checks.
    pub connected: watch::Sender<bool>,
}

/// The queues of the tasks that deal with messages and notices.
#[derive(Clone)]
struct Inboxes {
    batches: mpsc::Sender<Incoming>,
    presence: mpsc::Sender<Incoming>,
    galleries: mpsc::Sender<galleries::Input>,
    reports: mpsc::Sender<Incoming>,
    commands: mpsc::Sender<commands::Input>,
    twins: mpsc::Sender<twins::Input>,
    feed: mpsc::Sender<feed::Input>,
}

impl Publisher {
    /// Runs until `stop`; reconnects to broker and database for as long as it takes.
    pub async fn run(self, seams: Seams, stop: CancellationToken) {
        let Seams { batches, acks, connected } = seams;
        let (outbox, parcels) = Outbox::new();
        let (presence, presence_inbox) = mpsc::channel(QUEUE);
        let (galleries, gallery_inbox) = mpsc::channel(QUEUE);
        let (reports, report_inbox) = mpsc::channel(QUEUE);
        let (feed, feed_inbox) = mpsc::channel(QUEUE);
        let (commands, command_inbox) = mpsc::channel(QUEUE);
        let (twins, twin_inbox) = mpsc::channel(QUEUE);
        let inboxes = Inboxes { batches, presence, galleries, reports, commands, twins, feed };
        let (leading, leads) = watch::channel(false);
        let (served, is_served) = watch::channel(false);
        let (at_work, works) = watch::channel(false);
        let line = connection::Line { connected: connected.clone(), leads: leads.clone(), served };
        let mut tasks = JoinSet::new();
        tasks.spawn(leadership::run(self.db.clone(), leading));
        tasks.spawn(leadership::at_work(leads, is_served, at_work));
        tasks.spawn(connection::run(self.clone(), parcels, inboxes.clone(), line));
        tasks.spawn(forward(acks, outbox.clone()));
        tasks.spawn(announce::run(self.clone(), outbox.clone(), connected.subscribe()));
        tasks.spawn(presence::run(self.clone(), presence_inbox));
        tasks.spawn(presence::end(self.clone(), connected.subscribe()));
        tasks.spawn(galleries::run(self.clone(), gallery_inbox, report_inbox, outbox.clone(), works.clone()));
        tasks.spawn(commands::run(self.clone(), command_inbox, outbox.clone(), works.clone()));
        tasks.spawn(twins::run(self.clone(), twin_inbox, outbox.clone(), works.clone()));
        tasks.spawn(feed::run(self.clone(), feed_inbox, outbox, works));
        tasks.spawn(listen(self.db.clone(), inboxes));
        tokio::select! {
            () = stop.cancelled() => {}
            ended = tasks.join_next() => {
                // None of them ends by itself, so one that did has panicked.
                tracing::error!(?ended, "a publisher task ended early; the hub stops publishing");
            }
        }
        tasks.shutdown().await;
        connected.send_replace(false);
    }
}

async fn forward(mut acks: mpsc::Receiver<Outgoing>, outbox: Outbox) {
    while let Some(ack) = acks.recv().await {
        outbox.send(ack).await;
    }
    // Ingest has ended; the others go on until the stop.
    std::future::pending::<()>().await;
}

/// Passes on what committed transactions announce.
async fn listen(db: Database, inboxes: Inboxes) {
    loop {
        match db.listen().await {
            Ok(mut listener) => {
                dispatch(Notice::Reconnected, &inboxes).await;
                loop {
                    match listener.next().await {
                        Ok(notice) => dispatch(notice, &inboxes).await,
                        Err(error) => {
                            tracing::warn!(%error, "lost the database's notices; listening again");
                            break;
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot listen to the database; trying again"),
        }
        tokio::time::sleep(LISTEN_RETRY).await;
    }
}

/// Waits where a queue is full: a notice must not be lost, and the database keeps further ones meanwhile.
async fn dispatch(notice: Notice, inboxes: &Inboxes) {
    match notice {
        Notice::Gallery(tenant, gallery) => {
            let _ = inboxes.galleries.send(galleries::Input::Changed(tenant, gallery)).await;
        }
        Notice::Command(tenant, command) => {
            let _ = inboxes.commands.send(commands::Input::Given(tenant, command)).await;
        }
        Notice::Twin(tenant, device) => {
            let _ = inboxes.twins.send(twins::Input::Wished(tenant, device)).await;
        }
        Notice::Event(tenant) => drop(inboxes.feed.send(feed::Input::News(tenant)).await),
        Notice::Reconnected => {
            let _ = inboxes.galleries.send(galleries::Input::LookAtAll).await;
            let _ = inboxes.commands.send(commands::Input::LookAtAll).await;
            let _ = inboxes.twins.send(twins::Input::LookAtAll).await;
            let _ = inboxes.feed.send(feed::Input::LookAtAll).await;
        }
    }
}
