//! The loop between the stores and the line: it asks the pure machines what to do and does it.
//!
//! In: everything of [`Sync`], a [`Connect`] that opens lines. Out: batches, reports and statuses published; evtacks
//! and gallery messages taken in. Store calls block and run on blocking threads, one at a time from here; galleries are
//! applied by a task of their own ([`galleries::work`]), so that a long first fill does not delay events.

mod commanding;
mod events;
mod galleries;
mod learning;
mod leasing;
mod linking;
mod renewing;
mod snapshots;
mod telling;
mod twinning;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge_store::{Identity, Outbox};
use face_core::MonoTime;
use gallery_log::GalleryId;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use wire_contract::batch::MAX_BATCH_BYTES;
use wire_contract::envelope::UP_OVERHEAD;
use wire_contract::status::Presence;
use wire_contract::{DownChannel, EvtAck, GalleryDown, Timestamp, UpChannel};

use self::commanding::Commanding;
use self::learning::Learning;
use self::linking::{FetchError, Linking, hub_of};
use self::renewing::Renewing;
use self::snapshots::Fetching;
use self::telling::Telling;
use super::backoff::Backoff;
use super::commands::Commands;
use super::lease::Lease;
use super::link::{LinkRing, OpenError};
use super::presence::ConnectionCounter;
use super::reports::{RebuildPace, Reports};
use super::sender::Sender;
use super::transport::{Connect, Line, LineError, LineEvent, Parcel, Shipment, Will};
use super::{Orders, Sync, SyncStatus};
use crate::logging::chain;
use crate::stages::record::Happening;

/// The grain of all waits here; the finest rule (one report a second) is four times as long.
const TICK: Duration = Duration::from_millis(250);
/// Gallery messages that wait to be applied. Full means that the disk is behind: the message is dropped, and the hub
/// sends again after the next report.
const GALLERY_MESSAGES: usize = 64;

/// The line as the driver sees it.
enum Connection {
    /// None; the next attempt is due at this time.
    Down(MonoTime),
    /// Connecting, or connected and not yet subscribed.
    Opening(Line, u64, Timestamp),
    /// In use.
    Up { line: Line, max_batch: usize },
}

pub(super) struct Driver<C> {
    sync: Arc<Sync>,
    /// Who this device is now.
    identity: Arc<Identity>,
    renewing: Renewing,
    telling: Telling,
    learning: Learning,
    commands: Commands,
    commanding: Commanding,
    orders: Orders,
    recorded: watch::Receiver<u64>,
    /// The last sequence known to be in the outbox. The watch alone says nothing of what an earlier run left there.
    last_recorded: u64,
    status: watch::Sender<SyncStatus>,
    connector: C,
    connection: Connection,
    backoff: Backoff,
    counter: ConnectionCounter,
    ring: Option<LinkRing>,
    linking: Linking,
    sender: Sender,
    stream: Option<edge_store::StreamId>,
    reports: Reports,
    snapshots: Fetching,
    /// `None` when it cannot be read: then nothing ends.
    lease: Option<Lease>,
    rebuild_pace: RebuildPace,
    /// Older epochs that were put on record in this run, so that whoever repeats them does not fill the outbox.
    older_epochs: HashSet<(GalleryId, u32)>,
}

impl<C: Connect> Driver<C> {
    pub(super) fn new(mut sync: Sync, status: watch::Sender<SyncStatus>, connector: C) -> Self {
        let (timing, now) = (sync.timing, sync.clock.now());
        let backoff = Backoff::new(timing.backoff_first, timing.backoff_longest);
        let broker = format!("{}:{}", sync.identity.broker.host, sync.identity.broker.port);
        status.send_modify(|status| status.broker = broker);
        let identity = Arc::new(sync.identity.clone());
        let orders = std::mem::replace(&mut sync.orders, Orders::none());
        let renewing = Renewing::new(&identity, timing);
        renewing.show(&status);
        let opened = Lease::open(&sync.state_dir, &sync.keys, sync.gallery_lease, identity.signed_time, now);
        let lease = opened
            .inspect_err(|error| {
                tracing::error!(
                    event = "contact_unreadable",
                    alarm = true,
                    error = chain(error),
                    "the lease of the galleries is not counted in this run"
                );
            })
            .ok();
        Self {
            identity,
            renewing,
            telling: Telling::new(timing),
            learning: Learning::new(),
            commands: Commands::new(now),
            commanding: Commanding::new(&sync.state_dir),
            orders,
            recorded: sync.recorded.clone(),
            last_recorded: 0,
            status,
            connector,
            connection: Connection::Down(now),
            backoff,
            counter: ConnectionCounter::new(&sync.state_dir),
            ring: None,
            linking: Linking::new(timing, now),
            sender: Sender::new(0, timing.evtack_timeout),
            stream: None,
            reports: Reports::new(timing.report_interval),
            snapshots: Fetching::default(),
            lease,
            rebuild_pace: RebuildPace::default(),
            older_epochs: HashSet::new(),
            sync: Arc::new(sync),
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (messages, waiting) = mpsc::channel(GALLERY_MESSAGES);
        let (outcomes, mut decided) = mpsc::channel(GALLERY_MESSAGES);
        let galleries = tokio::spawn(galleries::work(Arc::clone(&self.sync), waiting, outcomes));
        let mut changes = self.sync.galleries.changes();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.load_ring().await;
        self.adopt_stream().await;
        while !stop.is_cancelled() {
            self.sync.turns.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                event = next_event(&mut self.connection) => self.on_line(event, &messages).await,
                fetched = self.linking.done() => self.on_link(fetched).await,
                told = self.orders.answer() => self.on_order_told(told).await,
                Some(done) = self.commanding.errands.join_next() => self.on_errand(done).await,
                renewed = self.renewing.done() => self.on_renewed(renewed),
                told = self.telling.done() => self.on_told(told).await,
                successions = self.learning.next() => self.learn(&successions).await,
                (offered, fetched) = self.snapshots.done() => self.on_fetched(offered, fetched),
                Some(outcome) = decided.recv() => self.on_outcome(outcome),
                Ok(()) = changes.changed() => self.on_galleries(),
                Ok(()) = self.recorded.changed() => {}
                _ = ticks.tick() => self.on_tick().await,
                () = stop.cancelled() => {}
            }
            self.send_batches().await;
            self.send_report();
        }
        self.farewell().await;
        self.linking.abandon();
        self.renewing.abandon();
        self.telling.abandon();
        self.snapshots.abandon();
        self.commanding.errands.abort_all();
        // What was handed over is applied before the stores are closed.
        drop(messages);
        drop(decided);
        if galleries.await.is_err() {
            tracing::error!(event = "gallery_task_failed", alarm = true, "the gallery task ended in a panic");
        }
    }

    fn now(&self) -> MonoTime {
        self.sync.clock.now()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from(self.sync.clock.wall().utc)
    }

    async fn on_tick(&mut self) {
        let now = self.now();
        if let Some(why) = self.sender.tick(now) {
            self.resending(why);
        }
        self.ask_when_untrusted();
        self.ask_the_time_again();
        self.show_snapshots();
        self.tick_lease().await;
        self.orders_that_are_due().await;
        // Certificates are judged by the time that is asked for.
        if self.telling.first_is_under_way() {
            return;
        }
        self.keep_keys_when_due().await;
        self.fetch_link_when_due();
        self.renew_when_due();
        if let Connection::Down(at) = self.connection
            && at <= now
            && self.ring.is_some()
        {
            self.open_line().await;
        }
    }

    // ---- the line

    async fn open_line(&mut self) {
        let (now, since) = (self.now(), self.wall());
        let mut counter = std::mem::replace(&mut self.counter, ConnectionCounter::new(&self.sync.state_dir));
        let (counter, epoch) = blocking(move || {
            let epoch = counter.next(since);
            (counter, epoch)
        })
        .await;
        self.counter = counter;
        let Some(will) = self.status_payload(Presence::Offline, epoch, since) else { return };
        self.status.send_modify(|status| status.connection_epoch = epoch);
        match self.connector.connect(&self.identity, Will { topic: will.0, payload: will.1 }) {
            Ok(line) => self.connection = Connection::Opening(line, epoch, since),
            Err(error) => self.lost(&error, now),
        }
    }

    fn status_payload(&self, state: Presence, epoch: u64, since: Timestamp) -> Option<(String, Vec<u8>)> {
        let ring = self.ring.as_ref()?;
        let topic = ring.up_topic(UpChannel::Status);
        let json = to_json(&self.sync.about.status(state, epoch, since));
        let payload = ring.wrap(&topic, &json);
        Some((topic, payload))
    }

    async fn on_line(&mut self, event: LineEvent, messages: &mpsc::Sender<GalleryDown>) {
        match event {
            LineEvent::Ready { session_present, max_payload } => self.on_ready(session_present, max_payload).await,
            LineEvent::Message { topic, payload } => self.on_message(&topic, &payload, messages).await,
            LineEvent::Taken(parcel) => {
                if parcel == Parcel::Status {
                    // Not when it is merely open: one on which the broker takes nothing is closed again, ever more slowly.
                    self.backoff.reset();
                }
                tracing::trace!(event = "taken_by_broker", ?parcel);
            }
            LineEvent::Unheard => self.sender.unheard(),
            LineEvent::Refused(parcel, reason) => {
                tracing::error!(
                    event = "refused_by_broker",
                    alarm = true,
                    ?parcel,
                    reason,
                    "the broker does not take this device's messages; the hub has not written its access lines, or a quota is reached"
                );
                if parcel == Parcel::Status {
                    // Said once a connection: the hub knows nothing of this one. Access lines may be about to come.
                    return self.lost(&LineError::StatusRefused { reason }, self.now());
                }
                self.status.send_modify(|status| status.last_error = Some(format!("the broker refused: {reason}")));
            }
            LineEvent::Lost(error) => self.lost(&error, self.now()),
        }
    }

    async fn on_ready(&mut self, session_present: bool, max_payload: usize) {
        let now = self.now();
        let Connection::Opening(line, epoch, since) = std::mem::replace(&mut self.connection, Connection::Down(now))
        else {
            return;
        };
        let max_batch = max_payload.saturating_sub(UP_OVERHEAD).min(MAX_BATCH_BYTES);
        self.connection = Connection::Up { line, max_batch };
        self.adopt_stream().await;
        self.sender.connected(now);
        self.reports.connected(now);
        self.status.send_modify(|status| {
            status.connected = true;
            status.connected_since = Some(since);
            status.last_error = None;
        });
        tracing::info!(event = "connected", connection_epoch = epoch, session_present, "connected to the broker");
        if let Some((topic, payload)) = self.status_payload(Presence::Online, epoch, since) {
            self.publish(Shipment { topic, payload, retain: true, parcel: Parcel::Status });
        }
        self.ask_the_time();
        self.tell_of_a_reboot().await;
        self.report_twin();
    }

    fn lost(&mut self, error: &LineError, now: MonoTime) {
        let wait = self.backoff.next(rand::random());
        self.hang_up(now + wait);
        self.trouble("disconnected", error);
    }

    /// Drops the line, if there is one, and connects again at `retry_at`.
    fn hang_up(&mut self, retry_at: MonoTime) {
        self.connection = Connection::Down(retry_at);
        self.sender.disconnected();
        self.status.send_modify(|status| {
            status.connected = false;
            status.connected_since = None;
        });
    }

    fn publish(&mut self, shipment: Shipment) -> bool {
        let Connection::Up { line, .. } = &self.connection else { return false };
        match line.publish(shipment) {
            Ok(()) => true,
            Err(error) => {
                self.lost(&error, self.now());
                false
            }
        }
    }

    /// Says goodbye: "offline" in its own words, an orderly disconnect, and a moment for the broker to take it.
    async fn farewell(&mut self) {
        let epoch = self.status.borrow().connection_epoch;
        let since = self.status.borrow().connected_since.unwrap_or_else(|| self.wall());
        let Some((topic, payload)) = self.status_payload(Presence::Offline, epoch, since) else { return };
        if !self.publish(Shipment { topic, payload, retain: true, parcel: Parcel::Farewell }) {
            return;
        }
        let taken = async {
            while !matches!(
                next_event(&mut self.connection).await,
                LineEvent::Taken(Parcel::Farewell) | LineEvent::Lost(_)
            ) {}
        };
        if tokio::time::timeout(self.sync.timing.stop_timeout, taken).await.is_err() {
            tracing::debug!(event = "farewell_not_taken", "the will speaks instead");
        }
        self.status.send_modify(|status| status.connected = false);
    }

    // ---- messages

    async fn on_message(&mut self, topic: &str, sealed: &[u8], messages: &mpsc::Sender<GalleryDown>) {
        let Some(ring) = &self.ring else { return };
        let Some(channel) = ring.down_channel(topic) else {
            tracing::warn!(event = "message_on_foreign_topic", topic, "ignored");
            return;
        };
        let payload = match ring.open(topic, sealed) {
            Ok(payload) => payload,
            Err(OpenError::UnknownKey) => return self.want_link(),
            Err(error) => {
                tracing::error!(
                    event = "message_not_authentic",
                    alarm = true,
                    topic,
                    error = chain(&error),
                    "ignored: forged, damaged, or moved from another topic"
                );
                return;
            }
        };
        match channel {
            DownChannel::Evtack => match serde_json::from_slice::<EvtAck>(&payload) {
                Ok(ack) => self.on_evtack(ack).await,
                Err(error) => malformed(topic, &error),
            },
            // It may be an old one: whoever holds the broker must not be able to fill what the lease has emptied.
            DownChannel::Gallery if self.lease.as_ref().is_some_and(Lease::is_over) => self.want_link(),
            DownChannel::Gallery => match serde_json::from_slice::<GalleryDown>(&payload) {
                Ok(message) => {
                    if messages.try_send(message).is_err() {
                        tracing::warn!(
                            event = "gallery_messages_full",
                            "dropped; the hub sends it again after the next report"
                        );
                        self.reports.changed(self.now());
                    }
                }
                Err(error) => malformed(topic, &error),
            },
            DownChannel::Cmd => self.on_cmd(topic, &payload).await,
            DownChannel::Twin => self.on_twin(topic, &payload).await,
            DownChannel::Rtc => {
                tracing::debug!(event = "message_not_acted_upon", topic, "this agent does not act on this channel");
            }
        }
    }

    /// In a task of its own: a full disk must not keep this loop from the hub. At most one waits for each gallery or stream
    /// thrown away, and those come ever more slowly.
    fn put_on_record(&self, happening: Happening) {
        let recorder = self.sync.recorder.clone();
        tokio::spawn(async move { recorder.record(happening).await });
    }

    async fn on_outbox<T: Send + 'static>(&self, call: impl FnOnce(&Outbox) -> T + Send + 'static) -> T {
        let outbox = Arc::clone(&self.sync.outbox);
        blocking(move || call(&outbox)).await
    }

    fn trouble(&self, event: &str, error: &(dyn std::error::Error + 'static)) {
        let text = chain(error);
        let known = self.status.borrow().last_error.as_ref() == Some(&text);
        if known {
            tracing::debug!(event, error = text, "still");
        } else {
            tracing::warn!(event, error = text, "tried again by itself");
            self.status.send_modify(|status| status.last_error = Some(text));
        }
    }
}

/// The next event of the line; never, while there is none.
async fn next_event(connection: &mut Connection) -> LineEvent {
    match connection {
        Connection::Opening(line, ..) | Connection::Up { line, .. } => {
            line.events.recv().await.unwrap_or(LineEvent::Lost(LineError::Congested))
        }
        Connection::Down(_) => std::future::pending().await,
    }
}

fn malformed(topic: &str, error: &serde_json::Error) {
    tracing::error!(event = "message_malformed", topic, error = %error, "sealed by the hub, but not what this program knows; update it");
}

fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("payloads are plain structs with string keys")
}

/// Runs what blocks on the disk away from the async workers.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody waits for the result any more.
            Err(_) => std::future::pending().await,
        },
    }
}
