//! Keeps every device's galleries equal to what they should be.
//!
//! In: devices' reports and the announcements of committed changes. Out: records, rebuild orders, rows of what was
//! reported, an alarm when a device has what it cannot have. One task; it goes round the devices that are behind, those
//! that stand at the same place together, one message each time, so that a first fill of one does not hold up a deletion
//! at another. Records go before reports: a fleet that has just been told of a deletion answers with a thousand reports.
//!
//! What was sent is remembered per device only to send the next records without waiting for a report. A report that
//! shows no progress since the one before takes that memory back: then something was lost on the way. So does a new
//! session at the broker: what the old one had under way may have reached nobody.

use std::collections::{HashMap, HashSet, VecDeque};

use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use wire_contract::envelope::EnvelopeError;
use wire_contract::event::{GalleryDivergedData, GalleryPoint};
use wire_contract::gallery::{GalleryRebuild, GalleryState};
use wire_contract::{Code, DownChannel, EventData, GalleryDown, GalleryUp, V1};

use super::Publisher;
use super::outbox::Outbox;
use super::records::{self, NextMessages, Position};
use crate::domain::event::NewEvent;
use crate::domain::ids::{DeviceId, EventId, GalleryId, TenantId};
use crate::domain::message::{Incoming, Outgoing};
use crate::keys::{DeviceLinks, KeysError};
use crate::store::devices::{DeviceGallery, Reported, Standing};
use crate::store::{StoreError, TenantTx, devices, events, galleries, routes};

/// Devices that are sent the same records in one turn. Each costs one query and one seal, about a third of a millisecond.
const TOGETHER: usize = 64;

/// What the task is told, beside reports.
#[derive(Debug)]
pub(super) enum Input {
    /// A gallery has new records.
    Changed(TenantId, GalleryId),
    /// Announcements may have been missed.
    LookAtAll,
}

#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("the device is not one of that tenant")]
    NotRegistered,
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("report is not valid")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Place = (TenantId, DeviceId, GalleryId);

/// What is known of a device's gallery since this process started.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Sent or reported, whichever is newer.
    position: Position,
    /// The version of its last report.
    reported: u64,
}

/// What a report means for one gallery.
enum Finding {
    /// It stands here.
    At(Position),
    /// It must start anew, or fetch the keys of the hub's epoch.
    Rebuild(Outgoing),
    /// Nothing can be sent: its epoch is higher than the hub's.
    Hopeless,
}

struct Galleries {
    publisher: Publisher,
    outbox: Outbox,
    known: HashMap<Place, Known>,
    /// Devices that are behind, each once.
    behind: VecDeque<Place>,
    queued: HashSet<Place>,
}

/// Works until a queue closes. `reports` are the messages on `up/gallery`.
pub(super) async fn run(
    publisher: Publisher,
    mut inbox: mpsc::Receiver<Input>,
    mut reports: mpsc::Receiver<Incoming>,
    outbox: Outbox,
    mut connected: watch::Receiver<bool>,
) {
    let mut this =
        Galleries { publisher, outbox, known: HashMap::new(), behind: VecDeque::new(), queued: HashSet::new() };
    loop {
        tokio::select! {
            biased;
            // Also seen when the session ended and came back in between. The sender outlives this task.
            Ok(()) = connected.changed() => if *connected.borrow_and_update() { this.start_over().await },
            input = inbox.recv() => match input {
                Some(input) => this.take_all(input, &mut inbox).await,
                None => return,
            },
            () = std::future::ready(()), if !this.behind.is_empty() => {
                this.step().await;
                // One for each turn, so that a long first fill holds no report up for ever.
                if let Ok(report) = reports.try_recv() {
                    this.hear(report).await;
                }
            }
            report = reports.recv() => match report {
                Some(report) => this.hear(report).await,
                None => return,
            },
        }
    }
}

impl Galleries {
    async fn hear(&mut self, message: Incoming) {
        let device = message.device;
        match self.report(message).await {
            Ok(()) => {}
            Err(error @ (ReportError::Keys(_) | ReportError::Store(_))) => {
                tracing::error!(%device, %error, "gallery report not dealt with; the device reports again");
            }
            Err(error) => tracing::warn!(%device, %error, "gallery report refused"),
        }
    }

    /// Takes in what waits, a gallery that changed several times once: who enrols ten people makes twenty changes.
    async fn take_all(&mut self, first: Input, inbox: &mut mpsc::Receiver<Input>) {
        let (mut changed, mut look_at_all) = (HashSet::new(), false);
        let mut next = Some(first);
        while let Some(input) = next {
            match input {
                Input::Changed(tenant, gallery) => drop(changed.insert((tenant, gallery))),
                Input::LookAtAll => look_at_all = true,
            }
            next = inbox.try_recv().ok();
        }
        if look_at_all {
            self.look_at_all().await;
            return;
        }
        for (tenant, gallery) in changed {
            self.changed(tenant, gallery).await;
        }
    }

    /// Forgets what was sent and begins again from what the devices reported.
    async fn start_over(&mut self) {
        self.known.clear();
        self.look_at_all().await;
    }

    /// Queues every device of the registry, those not heard of in this process from their last stored report: the
    /// hub may have restarted while they stayed connected, and they report once a minute only.
    async fn look_at_all(&mut self) {
        if let Err(error) = self.recall_all().await {
            tracing::error!(%error, "cannot look at all devices; their next reports start them again");
        }
    }

    async fn recall_all(&mut self) -> Result<(), StoreError> {
        for tenant in routes::tenants(&self.publisher.db).await? {
            let all = self.publisher.db.tenant(tenant, |tx| Box::pin(galleries::of_sites(tx, None))).await?;
            for gallery in all {
                self.recall(tenant, gallery).await?;
            }
        }
        Ok(())
    }

    /// Queues every device that holds the gallery and ever reported on it; the others report when they connect. A device
    /// of which no more is known is taken up where its stored report left it. A report that is out of date is harmless:
    /// what the device has already it passes over, and what does not follow makes it report.
    async fn recall(&mut self, tenant: TenantId, gallery: GalleryId) -> Result<(), StoreError> {
        let stored = self.publisher.db.tenant(tenant, move |tx| Box::pin(devices::standings(tx, gallery))).await?;
        for Standing { device, epoch, version, genuine } in stored {
            let position = Position { epoch, version, genuine_through: if genuine { version } else { 0 } };
            let place = (tenant, device, gallery);
            self.known.entry(place).or_insert(Known { position, reported: version });
            self.queue(place);
        }
        Ok(())
    }

    fn queue(&mut self, place: Place) {
        if self.queued.insert(place) {
            self.behind.push_back(place);
        }
    }

    async fn changed(&mut self, tenant: TenantId, gallery: GalleryId) {
        if let Err(error) = self.recall(tenant, gallery).await {
            tracing::error!(%gallery, %error, "cannot tell who holds a gallery; sending to those that are known");
            let places: Vec<Place> = self.known.keys().filter(|place| place.2 == gallery).copied().collect();
            places.into_iter().for_each(|place| self.queue(place));
        }
    }

    /// Sends one message to the device whose turn it is, and to those behind it that stand at the same place.
    async fn step(&mut self) {
        let Some(first) = self.behind.pop_front() else { return };
        self.queued.remove(&first);
        let Some(known) = self.known.get(&first).copied() else { return };
        let mut group = vec![first];
        group.extend(self.take_alike(first, known.position));
        if !self.send(&group, known.position).await && group.len() > 1 {
            // One of them stands in the way of the others; alone it is told of, and they get what is theirs.
            for place in group {
                self.send(&[place], known.position).await;
            }
        }
    }

    /// Takes from the queue who holds the same gallery of the same tenant at the same place.
    fn take_alike(&mut self, first: Place, position: Position) -> Vec<Place> {
        let known = &self.known;
        let alike = |place: &Place| {
            (place.0, place.2) == (first.0, first.2) && known.get(place).is_some_and(|known| known.position == position)
        };
        let taken: Vec<Place> = self.behind.iter().copied().filter(alike).take(TOGETHER - 1).collect();
        if !taken.is_empty() {
            self.queued.retain(|place| !taken.contains(place));
            self.behind.retain(|place| !taken.contains(place));
        }
        taken
    }

    /// Sends the next message to places that stand alike. False when it could not be put together.
    async fn send(&mut self, places: &[Place], from: Position) -> bool {
        match self.next(places, from).await {
            Ok(None) => {}
            Ok(Some(NextMessages { messages, position, more })) => {
                for (place, message) in places.iter().zip(messages) {
                    self.outbox.send(message).await;
                    if let Some(known) = self.known.get_mut(place) {
                        known.position = position;
                    }
                    if more {
                        self.queue(*place);
                    }
                }
            }
            Err(error) if places.len() > 1 => {
                tracing::debug!(%error, devices = places.len(), "records cannot be sent to all at once; one by one");
                return false;
            }
            // Erased between the reading and the opening, or without a key for good: erased either way when the log is
            // read again, which is when the other devices had their turns.
            Err(KeysError::NoPersonKey(person)) => {
                let place = places[0];
                match self.publisher.links.custody().key_missing(place.0, person).await {
                    Ok(()) => self.queue(place),
                    Err(error) => {
                        tracing::error!(device = %place.1, gallery = %place.2, %person, %error, "cannot note that a key is missing; the device's next report starts again");
                    }
                }
            }
            Err(error) => {
                let place = places[0];
                tracing::error!(device = %place.1, gallery = %place.2, %error, "cannot send records; the device's next report starts again");
            }
        }
        true
    }

    /// The next message for places of one tenant and gallery.
    async fn next(&self, places: &[Place], from: Position) -> Result<Option<NextMessages>, KeysError> {
        let Some((tenant, _, gallery)) = places.first().copied() else { return Ok(None) };
        let (links, devices) = (self.publisher.links.clone(), places.iter().map(|place| place.1).collect::<Vec<_>>());
        self.publisher
            .db
            .tenant(tenant, move |tx| Box::pin(async move { records::next(tx, &links, &devices, gallery, from).await }))
            .await
    }

    async fn report(&mut self, message: Incoming) -> Result<(), ReportError> {
        let (tenant, device) = (message.tenant, message.device);
        if routes::tenant_of_device(&self.publisher.db, device).await? != Some(tenant) {
            return Err(ReportError::NotRegistered);
        }
        let (links, now) = (self.publisher.links.clone(), self.publisher.clock.now());
        let clock = self.publisher.clock.clone();
        let new_id = move || EventId(clock.new_id());
        let findings = self
            .publisher
            .db
            .tenant(tenant, move |tx| Box::pin(async move { judge(tx, &links, &message, now, &new_id).await }))
            .await?;
        for (gallery, finding) in findings {
            let place = (tenant, device, gallery);
            match finding {
                Finding::At(position) => self.stands(place, position),
                Finding::Rebuild(order) => {
                    self.known.remove(&place);
                    self.outbox.send(order).await;
                }
                Finding::Hopeless => drop(self.known.remove(&place)),
            }
        }
        Ok(())
    }

    /// Takes note of a report. Progress leaves what was sent standing, for it is probably on its way.
    fn stands(&mut self, place: Place, reported: Position) {
        let position = match self.known.get(&place) {
            Some(known)
                if known.position.epoch == reported.epoch
                    && reported.version > known.reported
                    && known.position.version >= reported.version =>
            {
                known.position
            }
            _ => reported,
        };
        self.known.insert(place, Known { position, reported: reported.version });
        self.queue(place);
    }
}

/// Verifies a report, stores it, and finds out what it means.
async fn judge(
    tx: &mut TenantTx,
    links: &DeviceLinks,
    message: &Incoming,
    now: OffsetDateTime,
    new_id: &(dyn Fn() -> EventId + Send + Sync),
) -> Result<Vec<(GalleryId, Finding)>, ReportError> {
    let accepted = links.accepted(tx, message.device).await?;
    let report: GalleryUp = serde_json::from_slice(links.verify(&accepted, &message.topic(), &message.payload)?)?;
    let GalleryUp::State { galleries: states, .. } = report else { return Ok(Vec::new()) };
    let held = devices::galleries(tx, message.device).await?;
    devices::seen(tx, message.device, now).await?;
    let mut findings = Vec::new();
    for state in states {
        let id = GalleryId(state.gallery.0);
        let Some(own) = held.iter().find(|gallery| gallery.gallery == id) else {
            // No longer assigned: the device drops it when it next fetches its link.
            continue;
        };
        let reported = Reported { epoch: state.epoch, version: state.version, root: state.root.0.to_vec(), at: now };
        let equal = (state.epoch, state.version, &reported.root) == (own.epoch, own.version, &own.root);
        devices::report_gallery(tx, message.device, id, &reported, equal).await?;
        let finding = find(tx, own, &state).await?;
        findings.push((
            id,
            match finding {
                Judgement::At(position) => Finding::At(position),
                Judgement::FetchLink => {
                    Finding::Rebuild(order(tx, links, message.device, own, Code::EpochChanged).await?)
                }
                Judgement::Diverged => {
                    alarm(tx, message.device, own, &state, now, new_id()).await?;
                    Finding::Rebuild(order(tx, links, message.device, own, Code::RootMismatch).await?)
                }
                Judgement::FromTheFuture => {
                    alarm(tx, message.device, own, &state, now, new_id()).await?;
                    Finding::Hopeless
                }
            },
        ));
    }
    Ok(findings)
}

enum Judgement {
    At(Position),
    FetchLink,
    Diverged,
    FromTheFuture,
}

async fn find(tx: &mut TenantTx, own: &DeviceGallery, state: &GalleryState) -> Result<Judgement, StoreError> {
    let at = |genuine_through| Judgement::At(Position { epoch: own.epoch, version: state.version, genuine_through });
    if state.epoch != own.epoch {
        return Ok(if state.epoch < own.epoch { Judgement::FetchLink } else { Judgement::FromTheFuture });
    }
    if state.version > own.version {
        return Ok(Judgement::Diverged);
    }
    let expected = galleries::root_at(tx, own.gallery, own.epoch, state.version).await?;
    if expected.is_some_and(|root| root.0 == state.root.0) {
        return Ok(at(state.version));
    }
    // Where an erased person was live, a device may rightly have a stand-in and with it another root.
    if galleries::is_whole_at(tx, own.gallery, own.epoch, state.version).await? {
        return Ok(Judgement::Diverged);
    }
    Ok(at(0))
}

async fn order(
    tx: &mut TenantTx,
    links: &DeviceLinks,
    device: DeviceId,
    own: &DeviceGallery,
    reason: Code,
) -> Result<Outgoing, KeysError> {
    let order = GalleryRebuild { v: V1, gallery: wire_contract::GalleryId(own.gallery.0), epoch: own.epoch, reason };
    let json = serde_json::to_vec(&GalleryDown::Rebuild(order)).expect("an order is a plain struct");
    let accepted = links.accepted(tx, device).await?;
    links.seal(tx.tenant(), &accepted, DownChannel::Gallery, &json)
}

async fn alarm(
    tx: &mut TenantTx,
    device: DeviceId,
    own: &DeviceGallery,
    state: &GalleryState,
    now: OffsetDateTime,
    id: EventId,
) -> Result<(), StoreError> {
    tracing::error!(%device, gallery = %own.gallery, epoch = state.epoch, version = state.version, "a device's gallery is not what was sent to it");
    let data = EventData::GalleryDiverged(GalleryDivergedData {
        alarm: true,
        device: wire_contract::DeviceId(device.0),
        gallery: wire_contract::GalleryId(own.gallery.0),
        reported: GalleryPoint { epoch: state.epoch, version: state.version, root: Some(state.root) },
        expected: GalleryPoint { epoch: own.epoch, version: own.version, root: None },
    });
    let event = NewEvent::from_hub(id, Some(device.to_string()), now, &data);
    events::append(tx, &[event], now).await.map(|_| ())
}
