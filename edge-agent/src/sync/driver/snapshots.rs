//! The driver's part of snapshots: one task a gallery that fetches, and what is said when it is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;

use gallery_log::GalleryId;
use tokio::task::JoinHandle;

use super::{Driver, FetchError, hub_of};
use crate::stages::record::Happening;
use crate::sync::snapshots::fetch::{Fetched, Progress, Task};
use crate::sync::snapshots::{Addressee, Offered, dir_of};
use crate::sync::transport::Connect;
use crate::sync::{SnapshotStatus, hub_keys};

/// The snapshots that are being fetched.
#[derive(Default)]
pub(super) struct Fetching(HashMap<GalleryId, Under>);

/// One under way.
struct Under {
    offered: Offered,
    progress: Arc<Progress>,
    task: JoinHandle<Fetched>,
}

impl Fetching {
    /// The next that is done; never, while none is.
    pub(super) async fn done(&mut self) -> (Offered, Fetched) {
        let (offered, fetched) = std::future::poll_fn(|context| {
            for under in self.0.values_mut() {
                if let Poll::Ready(fetched) = std::pin::Pin::new(&mut under.task).poll(context) {
                    let fetched = fetched.expect("fetching does not panic, and is aborted only when it is taken out");
                    return Poll::Ready((under.offered, fetched));
                }
            }
            Poll::Pending
        })
        .await;
        self.0.remove(&offered.gallery);
        (offered, fetched)
    }

    /// Ends all; what is on disk is gone on with after the next offer.
    pub(super) fn abandon(&mut self) {
        for (_, under) in self.0.drain() {
            under.task.abort();
        }
    }

    fn show(&self) -> Vec<SnapshotStatus> {
        let mut shown: Vec<SnapshotStatus> = self.0.values().map(Under::show).collect();
        shown.sort_by(|a, b| a.gallery.cmp(&b.gallery));
        shown
    }
}

impl Under {
    fn show(&self) -> SnapshotStatus {
        let (held, bytes) = self.progress.get();
        SnapshotStatus {
            gallery: self.offered.gallery.to_string(),
            version: self.offered.version,
            held,
            bytes: (bytes > 0).then_some(bytes),
            percent: (held * 100).checked_div(bytes).unwrap_or(0),
        }
    }
}

impl<C: Connect> Driver<C> {
    /// The hub offers a snapshot. The one that is being fetched is not begun anew; another one of the gallery takes its place.
    pub(super) fn on_offered(&mut self, offered: Offered) {
        match self.snapshots.0.get(&offered.gallery) {
            Some(under) if under.offered == offered => return,
            Some(under) => under.task.abort(),
            None => {}
        }
        let task = match self.fetching_task(offered) {
            Ok(task) => task,
            Err(error) => return self.trouble("snapshot_not_fetched", &error),
        };
        let Offered { id, gallery, version, .. } = offered;
        tracing::info!(event = "snapshot_offered", gallery = %gallery, snapshot = %id, version, "this device fetches a gallery whole");
        let progress = Arc::clone(&task.progress);
        let under = Under { offered, progress, task: tokio::spawn(task.run()) };
        self.snapshots.0.insert(gallery, under);
        self.show_snapshots();
    }

    fn fetching_task(&self, offered: Offered) -> Result<Task, FetchError> {
        let identity = &self.identity;
        let hub_keys = hub_keys::pinned(identity);
        Ok(Task {
            hub: hub_of(identity, &self.sync.clock, self.sync.timing.connect_timeout)?,
            dir: dir_of(&self.sync.state_dir, offered.gallery),
            keys: self.sync.keys.clone(),
            galleries: Arc::clone(&self.sync.galleries),
            to: Addressee { tenant: identity.tenant, device: identity.device, hub_keys },
            offered,
            progress: Arc::default(),
            learned: self.learning.heard.clone(),
            timing: self.sync.timing,
        })
    }

    pub(super) fn on_fetched(&mut self, offered: Offered, fetched: Fetched) {
        let now = self.now();
        let Offered { gallery, epoch, version, .. } = offered;
        match fetched {
            // The swap of the roster has made a report due.
            Fetched::Applied(replaced) => {
                tracing::info!(event = "snapshot_applied", gallery = %gallery, version, received = replaced.received, removed = replaced.removed, "a gallery was replaced whole");
            }
            Fetched::Gone => self.reports.changed(now),
            Fetched::NotKept => self.reports.again(now + super::galleries::DISK_RETRY),
            Fetched::Refused(code) => {
                let at = self.rebuild_pace.thrown_away(now);
                self.reports.hold(at);
                self.put_on_record(Happening::SnapshotRefused { gallery: gallery.0, epoch, version, code, at: now });
            }
        }
        self.show_snapshots();
    }

    /// Shows people how far it is.
    pub(super) fn show_snapshots(&self) {
        let shown = self.snapshots.show();
        self.status.send_if_modified(|status| {
            let changed = status.snapshots != shown;
            status.snapshots = shown;
            changed
        });
    }
}
