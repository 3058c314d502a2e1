//! Devices that are to take a snapshot: which, and when they are told.
//!
//! In: places whose devices lack more than records should bring. Out: an offer for each, on `down/gallery`. A device that reports
//! is told at once, for it may have lost the offer or have started again; one whose gallery merely changed is not told
//! twice within [`AGAIN`], for it is fetching. Deliberately absent: the content (`keys::snapshots`, over HTTPS).

use time::{Duration, OffsetDateTime};
use wire_contract::{DownChannel, GalleryDown, SnapshotOffer, V1};

use super::{Galleries, Place};
use crate::domain::ids::SnapshotId;
use crate::keys::KeysError;
use crate::store::galleries::{self, snapshots};

/// From this many missing versions on a device takes a snapshot. As records they would be about a megabyte, 25 messages of
/// 64 KiB through the broker, whose queue all of a device's messages share; below that, records are there in less time
/// than the two requests of a snapshot take, and a deletion in between does not begin anything anew.
pub const SNAPSHOT_FROM: u64 = 512;

/// How long a snapshot is kept on offer: 100,000 people over a line of 100 kbit/s take five hours.
pub(super) const LIFETIME: Duration = Duration::hours(12);

/// A device that has not reported is not offered the same again within this time.
const AGAIN: Duration = Duration::seconds(30);

impl Galleries {
    /// Offers each of these devices a snapshot. True when it went well.
    pub(super) async fn offer(&mut self, places: &[Place]) {
        let now = self.publisher.clock.now();
        for place in places {
            if self.offered.get(place).is_some_and(|at| now - *at < AGAIN) {
                continue;
            }
            match self.offer_one(*place, now).await {
                Ok(()) => drop(self.offered.insert(*place, now)),
                Err(error) => {
                    tracing::error!(device = %place.1, gallery = %place.2, %error, "cannot offer a snapshot; the device's next report starts again");
                }
            }
        }
    }

    async fn offer_one(&self, place: Place, now: OffsetDateTime) -> Result<(), KeysError> {
        let ((tenant, device, gallery), links) = (place, self.publisher.links.clone());
        let new = SnapshotId(self.publisher.clock.new_id());
        let sealed = self.publisher.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let gallery = galleries::get(tx, gallery).await?;
                let snapshot = snapshots::offer(tx, device, &gallery, new, now, now + LIFETIME).await?;
                let offer = GalleryDown::Snapshot(SnapshotOffer {
                    v: V1,
                    snapshot: snapshot.id.0,
                    gallery: wire_contract::GalleryId(gallery.id.0),
                    epoch: snapshot.epoch,
                    version: snapshot.version,
                    expires_at: snapshot.expires_at.into(),
                });
                let json = serde_json::to_vec(&offer).expect("an offer is a plain struct");
                let accepted = links.accepted(tx, device).await?;
                links.seal(tx.tenant(), &accepted, DownChannel::Gallery, &json)
            })
        });
        self.outbox.send(sealed.await?).await;
        Ok(())
    }
}
