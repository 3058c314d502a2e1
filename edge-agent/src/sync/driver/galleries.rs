//! Galleries and the line: the hub's messages applied away from the loop, and what the loop says and does about them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use wire_contract::{Code, GalleryDown, UpChannel};

use super::{Connection, Driver, blocking, to_json};
use crate::gallery::Rebuilt;
use crate::stages::record::Happening;
use crate::sync::Sync;
use crate::sync::healing::{self, Parts};
use crate::sync::receiver::{self, Outcome};
use crate::sync::transport::{Connect, Parcel, Shipment};

/// Messages joined into one application at most: 64 messages of 64 KiB are 4 MiB in memory.
const JOINED: usize = 64;
/// No gallery message for so long: then what was deleted is made unreadable on disk too, and galleries that the operating
/// system refused to read are tried again. A burst of deletions costs one rewrite and not one for each.
const QUIET: Duration = Duration::from_secs(5);
/// Where messages never pause, what was deleted is made unreadable at these intervals.
const NEVER_QUIET: Duration = Duration::from_secs(60);
/// A disk that refused to (it is full, say) is asked again after this and not after each pause.
const REFUSED: Duration = Duration::from_secs(600);
/// After this long the hub is asked again for what the disk refused. Five seconds cost a full disk's neighbours little, and a
/// deletion that waits for room is made soon after there is some.
pub(super) const DISK_RETRY: Duration = Duration::from_secs(5);
/// After this long without the hub's answer the bucket hashes are said again: longer than 8 MiB take on a slow line's better
/// days, shorter than a person waits before a door.
const HASHES_AGAIN: Duration = Duration::from_secs(10);

impl<C: Connect> Driver<C> {
    /// There is a new roster; perhaps because a store was thrown away.
    pub(super) fn on_galleries(&mut self) {
        self.reports.changed(self.now());
        for Rebuilt { gallery, epoch, .. } in self.sync.galleries.take_rebuilt() {
            if epoch == 0 {
                self.want_link();
            }
            self.on_outcome(Outcome::ThrownAway { gallery, epoch, code: Code::StoreDoubtful });
        }
    }

    pub(super) fn on_outcome(&mut self, outcome: Outcome) {
        let now = self.now();
        match outcome {
            Outcome::Done => {}
            Outcome::Report => self.reports.changed(now),
            Outcome::Retry => self.reports.again(now + DISK_RETRY),
            Outcome::FetchLink => self.want_link(),
            Outcome::Offered(offered) => self.on_offered(offered),
            // At once, not at the pace of reports: doors deny until the answer is there.
            Outcome::Differs => self.say_hashes(),
            Outcome::Healed { gallery, epoch, version, buckets, replaced } => {
                self.put_on_record(Happening::GalleryHealed {
                    gallery: gallery.0,
                    epoch,
                    version,
                    buckets,
                    replaced,
                    at: now,
                });
            }
            Outcome::OlderEpoch { gallery, offered, held } => {
                if self.older_epochs.insert((gallery, offered)) {
                    self.put_on_record(Happening::OlderEpochOffered { gallery: gallery.0, offered, held, at: now });
                }
            }
            Outcome::ThrownAway { gallery, epoch, code } => {
                let at = self.rebuild_pace.thrown_away(now);
                self.reports.hold(at);
                self.put_on_record(Happening::GalleryRebuilt { gallery: gallery.0, epoch, code, at: now });
            }
        }
    }

    pub(super) fn send_report(&mut self) {
        if !matches!(self.connection, Connection::Up { .. }) || !self.reports.take(self.now()) {
            return;
        }
        self.say_of_galleries(&receiver::reports(&self.sync.galleries));
    }

    fn say_hashes(&mut self) {
        self.say_of_galleries(&healing::hashes(&self.sync.galleries));
    }

    fn say_of_galleries(&mut self, messages: &[wire_contract::GalleryUp]) {
        for message in messages {
            if matches!(message, wire_contract::GalleryUp::Hashes(_)) {
                self.reports.again(self.now() + HASHES_AGAIN);
            }
            let Some(ring) = &self.ring else { return };
            let topic = ring.up_topic(UpChannel::Gallery);
            let payload = ring.wrap(&topic, &to_json(message));
            self.publish(Shipment { topic, payload, retain: false, parcel: Parcel::Report });
        }
    }
}

/// Applies gallery messages in their order until the driver is gone; then what still waits is applied and it ends.
pub(super) async fn work(sync: Arc<Sync>, mut waiting: mpsc::Receiver<GalleryDown>, outcomes: mpsc::Sender<Outcome>) {
    let (mut messages, mut parts) = (Vec::new(), Parts::default());
    let (mut not_before, mut at_latest) = (Instant::now(), Instant::now() + NEVER_QUIET);
    loop {
        let quiet = match tokio::time::timeout(QUIET, waiting.recv_many(&mut messages, JOINED)).await {
            Ok(0) => return,
            Ok(_) => false,
            Err(_) => true,
        };
        for message in receiver::join(std::mem::take(&mut messages)) {
            let sync = Arc::clone(&sync);
            let (gathered, outcome) = blocking(move || {
                let outcome = receiver::handle(&sync.galleries, &sync.keys, &mut parts, message);
                (parts, outcome)
            })
            .await;
            parts = gathered;
            // A driver that is stopping needs no outcomes.
            let _ = outcomes.send(outcome).await;
        }
        if quiet {
            let sync = Arc::clone(&sync);
            // What still goes wrong is on the log, and the roster stays closed.
            let _ = blocking(move || sync.galleries.heal()).await;
        }
        let now = Instant::now();
        if now >= not_before && (quiet || now >= at_latest) {
            let sync = Arc::clone(&sync);
            let tidied = blocking(move || sync.galleries.tidy()).await;
            (not_before, at_latest) = if tidied { (now, now + NEVER_QUIET) } else { (now + REFUSED, now + REFUSED) };
        }
    }
}
