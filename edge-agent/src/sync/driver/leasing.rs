//! The driver's part of the lease: contacts are counted, and its end is carried out and told.

use std::sync::Arc;

use edge_store::PartialSnapshot;
use wire_contract::{Code, Timestamp};

use super::{Driver, blocking};
use crate::logging::chain;
use crate::stages::record::Happening;
use crate::sync::snapshots::dir_of;
use crate::sync::transport::Connect;

impl<C: Connect> Driver<C> {
    /// The hub was heard of, in a way that nobody can have recorded; this was its time.
    pub(super) fn in_contact(&mut self, at: Timestamp) {
        let now = self.now();
        let Some(lease) = &mut self.lease else { return };
        if lease.is_over() {
            tracing::info!(event = "lease_renewed", "the hub is in contact again; it fills the galleries");
            self.reports.changed(now);
        }
        lease.contact(at.unix_seconds(), now);
        self.keep_lease();
    }

    /// Counts on, and ends it when it is time.
    pub(super) async fn tick_lease(&mut self) {
        let (now, wall) = (self.now(), self.sync.clock.wall());
        let Some(lease) = &mut self.lease else { return };
        let ended = lease.tick(now, wall);
        let (until, over) = (lease.until(wall).map(Timestamp::from), lease.is_over());
        self.keep_lease();
        self.status.send_if_modified(|status| {
            // To the minute: it moves with the clock.
            let minute = |at: Option<Timestamp>| at.map(|at| at.unix_seconds() / 60);
            let changed = minute(status.lease_until) != minute(until) || status.lease_over != over;
            if changed {
                (status.lease_until, status.lease_over) = (until, over);
            }
            changed
        });
        if ended {
            self.end_lease().await;
        }
    }

    async fn end_lease(&mut self) {
        self.snapshots.abandon();
        let sync = Arc::clone(&self.sync);
        let gone = blocking(move || {
            let gone = sync.galleries.end_lease();
            for (gallery, _) in &gone {
                let dir = dir_of(&sync.state_dir, *gallery);
                if let Err(error) = PartialSnapshot::destroy_at(&dir, &sync.keys, *gallery) {
                    tracing::warn!(event = "snapshot_not_removed", gallery = %gallery, error = chain(&error), "it stays on disk, sealed");
                }
            }
            gone
        });
        let now = self.now();
        for (gallery, epoch) in gone.await {
            self.put_on_record(Happening::GalleryRebuilt {
                gallery: gallery.0,
                epoch,
                code: Code::LeaseExpired,
                at: now,
            });
        }
    }

    fn keep_lease(&mut self) {
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.to_be_kept()) {
            tokio::task::spawn_blocking(lease.keep());
        }
    }
}
