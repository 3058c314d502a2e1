//! Devices whose galleries differ: asked where, answered with the buckets that do, and rebuilt when that did not help.
//!
//! In: reports that differ and bucket hashes. Out: the question, the answer in parts, or the order to begin anew with an
//! alarm. When which is due is [`crate::domain::healing`]'s.

use gallery_log::digest::{BUCKETS, Bucket, root_of};
use wire_contract::event::GalleryDivergedData;
use wire_contract::gallery::GalleryStand;
use wire_contract::healing::{GalleryCompare, GalleryHashes};
use wire_contract::{Code, DownChannel, EventData, GalleryDown, Hash32, V1};

use super::reports::{self, Divergence, ReportError};
use super::{Galleries, Known, Place};
use crate::domain::event::NewEvent;
use crate::domain::gallery::log_id;
use crate::domain::healing::Step;
use crate::domain::ids::EventId;
use crate::keys::KeysError;
use crate::publish::records::{self, Healed, Position};
use crate::store::{StoreError, TenantTx, events};

impl Galleries {
    /// A report says another root than the hub had at that version.
    pub(super) async fn differs(&mut self, place: Place, divergence: Divergence) -> Result<(), ReportError> {
        let now = self.publisher.clock.now();
        let step = self.healings.entry(place).or_default().differs(divergence.stand.version, now);
        match step {
            Step::Compare => {
                tracing::warn!(device = %place.1, gallery = %place.2, version = divergence.stand.version, "a device's gallery differs; asking it where");
                // Records would be in vain until it is healed.
                self.known.remove(&place);
                let GalleryStand { version, root } = divergence.stand;
                let gallery = wire_contract::GalleryId(place.2.0);
                let question =
                    GalleryDown::Compare(GalleryCompare { v: V1, gallery, epoch: divergence.epoch, version, root });
                self.say(place, &question, None).await
            }
            Step::Rebuild => self.give_up(place, &divergence).await,
            Step::Wait | Step::Answer => Ok(()),
        }
    }

    /// A device said the bucket hashes of a gallery that differs.
    pub(super) async fn answer(&mut self, place: Place, said: &GalleryHashes) -> Result<(), ReportError> {
        let theirs = Box::new(said.hashes()?.map(Bucket));
        match self.healings.entry(place).or_default().hashes(said.version, self.publisher.clock.now()) {
            Step::Answer => {}
            Step::Rebuild => return self.cannot_heal(place, said, &theirs).await,
            Step::Wait | Step::Compare => return Ok(()),
        }
        match self.buckets(place, said.version, theirs.clone()).await {
            Ok(Some(Healed { messages, position, buckets, records })) => {
                tracing::warn!(device = %place.1, gallery = %place.2, from = said.version, to = position.version, buckets, records, parts = messages.len(), "sending the buckets in which a device's gallery differs");
                for message in messages {
                    self.outbox.send(message).await;
                }
                self.sent(place, position, said.version);
                Ok(())
            }
            Ok(None) => self.cannot_heal(place, said, &theirs).await,
            // Its records are stand-ins from here on, of which a rebuild is made.
            Err(KeysError::NoPersonKey(person)) => {
                self.publisher.links.custody().key_missing(place.0, person).await?;
                self.cannot_heal(place, said, &theirs).await
            }
            Err(error) => Err(error.into()),
        }
    }

    fn sent(&mut self, place: Place, position: Position, reported: u64) {
        let now = self.publisher.clock.now();
        self.healings.entry(place).or_default().answered(position.version, now);
        self.known.insert(place, Known { reported, ..Known::reported(position) });
        self.queue(place);
    }

    /// The answer; `None` when the difference is none that buckets can heal.
    async fn buckets(
        &self,
        place: Place,
        version: u64,
        theirs: Box<[Bucket; BUCKETS]>,
    ) -> Result<Option<Healed>, KeysError> {
        let ((tenant, device, gallery), links) = (place, self.publisher.links.clone());
        self.publisher
            .db
            .tenant(tenant, move |tx| {
                Box::pin(async move { records::buckets(tx, &links, device, gallery, version, &theirs).await })
            })
            .await
    }

    async fn cannot_heal(
        &mut self,
        place: Place,
        said: &GalleryHashes,
        theirs: &[Bucket; BUCKETS],
    ) -> Result<(), ReportError> {
        let root = Hash32(root_of(log_id(place.2), said.epoch, theirs).0);
        let stand = GalleryStand { version: said.version, root };
        let (tenant, _, gallery) = place;
        let head =
            self.publisher.db.tenant(tenant, move |tx| Box::pin(crate::store::galleries::get(tx, gallery))).await?;
        let divergence = Divergence { epoch: said.epoch, stand, hub_epoch: head.epoch, hub_version: head.version };
        self.give_up(place, &divergence).await
    }

    /// Has a gallery thrown away, and tells people.
    pub(super) async fn give_up(&mut self, place: Place, divergence: &Divergence) -> Result<(), ReportError> {
        self.forget(place);
        let order = reports::rebuild(place.2, divergence.hub_epoch, Code::RootMismatch, Some(divergence.stand));
        self.say(place, &order, Some(divergence)).await
    }

    /// Tells people of a gallery for which nothing can be done.
    pub(super) async fn tell(&mut self, place: Place, divergence: &Divergence) -> Result<(), ReportError> {
        let event = self.event_of(place, divergence);
        self.publisher.db.tenant(place.0, move |tx| Box::pin(write(tx, event))).await?;
        Ok(())
    }

    /// Sends a message; an alarm is committed with it.
    pub(super) async fn say(
        &mut self,
        place: Place,
        message: &GalleryDown,
        alarm: Option<&Divergence>,
    ) -> Result<(), ReportError> {
        let ((tenant, device, _), links) = (place, self.publisher.links.clone());
        let json = serde_json::to_vec(message).expect("a gallery message is a plain struct");
        let event = alarm.map(|divergence| self.event_of(place, divergence));
        let sealed = self.publisher.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                if let Some(event) = event {
                    write(tx, event).await?;
                }
                let accepted = links.accepted(tx, device).await?;
                links.seal(tx.tenant(), &accepted, DownChannel::Gallery, &json)
            })
        });
        let sealed = sealed.await?;
        self.outbox.send(sealed).await;
        Ok(())
    }

    fn event_of(&self, place: Place, divergence: &Divergence) -> NewEvent {
        let (device, gallery) = (place.1, place.2);
        tracing::error!(%device, %gallery, epoch = divergence.epoch, version = divergence.stand.version, "a device's gallery is not what was sent to it");
        let data = EventData::GalleryDiverged(GalleryDivergedData {
            alarm: true,
            device: wire_contract::DeviceId(device.0),
            gallery: wire_contract::GalleryId(gallery.0),
            reported: divergence.reported(),
            expected: divergence.expected(),
        });
        let clock = &self.publisher.clock;
        NewEvent::from_hub(EventId(clock.new_id()), Some(device.to_string()), clock.now(), &data)
    }
}

async fn write(tx: &mut TenantTx, event: NewEvent) -> Result<(), StoreError> {
    let at = event.occurred_at;
    events::append(tx, &[event], at).await.map(drop)
}
