//! Keeps every device's galleries equal to what they should be.
//!
//! In: devices' reports and the announcements of committed changes. Out: records, buckets for those that differ
//! ([`healing`]), offers of snapshots for those that lack much ([`snapshots`]), rows of what was reported ([`reports`]), an alarm when a device has what it cannot have. One task; it goes round the devices that are behind, those
//! that stand at the same place together, one message each time, so that a first fill of one does not hold up a deletion
//! at another. Records go before reports: a fleet that has just been told of a deletion answers with a thousand reports.
//!
//! What was sent is remembered per device only to send the next records without waiting for a report. A report that
//! shows no progress since the one before takes that memory back: then something was lost on the way. So does a new
//! session at the broker: what the old one had under way may have reached nobody.

mod desk;
mod healing;
mod reports;
mod snapshots;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use wire_contract::Code;

pub use self::desk::Desk;
use self::reports::{Judgement, ReportError, Said};
pub use self::snapshots::SNAPSHOT_FROM;
use super::Publisher;
use super::outbox::Outbox;
use super::records::{self, Next, NextMessages, Position};
use crate::domain::healing::Healing;
use crate::domain::ids::{DeviceId, GalleryId, TenantId};
use crate::domain::message::Incoming;
use crate::keys::KeysError;
use crate::store::devices::Standing;
use crate::store::{StoreError, devices, galleries, routes};

/// Devices that are sent the same records in one turn, and reports that are stored in one transaction while there is nothing to send.
const TOGETHER: usize = 64;
/// Reports that are stored after each turn of sending.
const REPORTS_BETWEEN: usize = 8;

/// What the task is told, beside reports.
#[derive(Debug)]
pub(super) enum Input {
    /// A gallery has new records.
    Changed(TenantId, GalleryId),
    /// Announcements may have been missed.
    LookAtAll,
}

type Place = (TenantId, DeviceId, GalleryId);

/// What is known of a device's gallery since this process started.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Sent or reported, whichever is newer.
    position: Position,
    /// The version of its last report.
    reported: u64,
    /// The epoch whose keys it was told to fetch since its last report.
    told: Option<u32>,
}

impl Known {
    fn reported(position: Position) -> Self {
        Self { position, reported: position.version, told: None }
    }
}

struct Galleries {
    publisher: Publisher,
    outbox: Outbox,
    known: HashMap<Place, Known>,
    /// What differs and is being healed. A hub that forgets it asks again.
    healings: HashMap<Place, Healing>,
    /// Who was offered a snapshot, and when, since its last report.
    offered: HashMap<Place, OffsetDateTime>,
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
    mut works: watch::Receiver<bool>,
) {
    let mut this = Galleries::new(publisher, outbox);
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            biased;
            // Also seen when the session ended and came back in between. The sender outlives this task.
            Ok(()) = works.changed() => if *works.borrow_and_update() { this.start_over().await } else { this.rest() },
            input = inbox.recv() => match input {
                // A hub that does not work begins with all of them when it does.
                Some(_) if !*works.borrow() => {}
                Some(input) => this.take_all(input, &mut inbox).await,
                None => return,
            },
            () = std::future::ready(()), if !this.behind.is_empty() && *works.borrow() => {
                this.step().await;
                // A few for each turn, so that a long first fill holds no report up for ever.
                let few: Vec<_> = std::iter::from_fn(|| reports.try_recv().ok()).take(REPORTS_BETWEEN).collect();
                this.hear(few).await;
            }
            taken = reports.recv_many(&mut waiting, TOGETHER) => match taken {
                0 => return,
                _ => this.hear(std::mem::take(&mut waiting)).await,
            },
        }
    }
}

impl Galleries {
    fn new(publisher: Publisher, outbox: Outbox) -> Self {
        Self {
            publisher,
            outbox,
            known: HashMap::new(),
            healings: HashMap::new(),
            offered: HashMap::new(),
            behind: VecDeque::new(),
            queued: HashSet::new(),
        }
    }

    /// Deals with reports, those of one tenant together.
    async fn hear(&mut self, messages: Vec<Incoming>) {
        let mut tenants: BTreeMap<TenantId, Vec<Incoming>> = BTreeMap::new();
        for message in messages {
            tenants.entry(message.tenant).or_default().push(message);
        }
        for (tenant, messages) in tenants {
            let devices: Vec<DeviceId> = messages.iter().map(|message| message.device).collect();
            let judged = match self.judge(tenant, messages).await {
                Ok(judged) => judged,
                Err(error) => {
                    tracing::error!(%tenant, reports = devices.len(), %error, "gallery reports not dealt with; the devices report again");
                    continue;
                }
            };
            for (device, judged) in devices.into_iter().zip(judged) {
                let dealt_with = match judged {
                    Ok(said) => self.answer_to(tenant, device, said).await,
                    Err(error) => Err(error),
                };
                match dealt_with {
                    Ok(()) => {}
                    Err(error @ (ReportError::Keys(_) | ReportError::Store(_))) => {
                        tracing::error!(%device, %error, "gallery report not dealt with; the device reports again");
                    }
                    Err(error) => tracing::warn!(%device, %error, "gallery report refused"),
                }
            }
        }
    }

    /// Judges reports in one transaction; where one of them may be in the way of the others, each in its own. A database that is away
    /// is not asked once for each: deletions wait behind this.
    async fn judge(
        &self,
        tenant: TenantId,
        messages: Vec<Incoming>,
    ) -> Result<Vec<Result<Said, ReportError>>, ReportError> {
        let together = self.judge_together(tenant, messages.clone()).await;
        match together {
            Err(error) if messages.len() > 1 && error.may_be_one_report_alone() => {
                tracing::debug!(%error, reports = messages.len(), "reports cannot be stored together; one by one");
            }
            together => return together,
        }
        let mut judged = Vec::with_capacity(messages.len());
        for message in messages {
            let alone = self.judge_together(tenant, vec![message]).await;
            judged.push(alone.and_then(|mut one| one.pop().expect("one report has one judgement")));
        }
        Ok(judged)
    }

    async fn judge_together(
        &self,
        tenant: TenantId,
        messages: Vec<Incoming>,
    ) -> Result<Vec<Result<Said, ReportError>>, ReportError> {
        let (links, now) = (self.publisher.links.clone(), self.publisher.clock.now());
        let judged = self
            .publisher
            .db
            .tenant(tenant, move |tx| Box::pin(async move { reports::judge_all(tx, &links, &messages, now).await }));
        judged.await
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

    /// Sends nothing more: this hub does not lead, or has no session at the broker.
    fn rest(&mut self) {
        self.known.clear();
        self.healings.clear();
        self.behind.clear();
        self.queued.clear();
    }

    /// Forgets what was sent and begins again from what the devices reported.
    async fn start_over(&mut self) {
        self.known.clear();
        self.offered.clear();
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
            self.known.entry(place).or_insert(Known::reported(position));
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
            Ok(Next::Nothing) => {}
            Ok(Next::Snapshot) => self.offer(places).await,
            Ok(Next::Epoch(epoch)) => self.begin_epoch(places, epoch).await,
            Ok(Next::Records(NextMessages { messages, position, more })) => {
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
            // The device was revoked, or the gallery is no more.
            Err(KeysError::Store(error @ StoreError::NotFound { .. })) => {
                let place = places[0];
                tracing::info!(device = %place.1, gallery = %place.2, %error, "no records are sent any more");
                self.forget(place);
            }
            Err(error) => {
                let place = places[0];
                tracing::error!(device = %place.1, gallery = %place.2, %error, "cannot send records; the device's next report starts again");
            }
        }
        true
    }

    /// Has devices fetch the keys of an epoch, each once until it reports: a gallery may change many times while one is away.
    async fn begin_epoch(&mut self, places: &[Place], epoch: u32) {
        for place in places {
            let Some(known) = self.known.get_mut(place).filter(|known| known.told != Some(epoch)) else { continue };
            known.told = Some(epoch);
            let order = reports::rebuild(place.2, epoch, Code::EpochChanged, None);
            if let Err(error) = self.say(*place, &order, None).await {
                tracing::error!(device = %place.1, gallery = %place.2, %error, "cannot tell a device of other keys; its next report asks again");
            }
        }
    }

    /// The next message for places of one tenant and gallery.
    async fn next(&self, places: &[Place], from: Position) -> Result<Next, KeysError> {
        let Some((tenant, _, gallery)) = places.first().copied() else { return Ok(Next::Nothing) };
        let snapshot_from = self.publisher.snapshot_from;
        let (links, devices) = (self.publisher.links.clone(), places.iter().map(|place| place.1).collect::<Vec<_>>());
        self.publisher
            .db
            .tenant(tenant, move |tx| {
                Box::pin(async move { records::next(tx, &links, &devices, gallery, from, snapshot_from).await })
            })
            .await
    }

    async fn answer_to(&mut self, tenant: TenantId, device: DeviceId, said: Said) -> Result<(), ReportError> {
        match said {
            Said::Nothing => {}
            Said::Stands(judgements) => {
                for (gallery, judgement) in judgements {
                    self.act((tenant, device, gallery), judgement).await?;
                }
            }
            Said::Hashes(hashes) => self.answer((tenant, device, GalleryId(hashes.gallery.0)), &hashes).await?,
        }
        Ok(())
    }

    /// Does what a report asks for.
    async fn act(&mut self, place: Place, judgement: Judgement) -> Result<(), ReportError> {
        match judgement {
            Judgement::At(position) => {
                self.healings.remove(&place);
                self.stands(place, position);
            }
            Judgement::FetchLink { epoch, from } => {
                self.healings.remove(&place);
                self.known.insert(place, Known { told: Some(epoch), ..Known::reported(from) });
                let order = reports::rebuild(place.2, epoch, Code::EpochChanged, None);
                self.say(place, &order, None).await?;
            }
            Judgement::Differs(divergence) => self.differs(place, divergence).await?,
            Judgement::Ahead(divergence) => self.give_up(place, &divergence).await?,
            Judgement::Hopeless(divergence) => {
                self.forget(place);
                self.tell(place, &divergence).await?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, place: Place) {
        self.known.remove(&place);
        self.healings.remove(&place);
    }

    /// Takes note of a report. Progress leaves what was sent standing, for it is probably on its way.
    fn stands(&mut self, place: Place, reported: Position) {
        self.offered.remove(&place);
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
        self.known.insert(place, Known { reported: reported.version, ..Known::reported(position) });
        self.queue(place);
    }
}
