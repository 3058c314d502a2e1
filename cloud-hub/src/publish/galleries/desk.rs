//! The galleries' task without its loop, its broker and its database's notices: whoever has it decides by himself what comes
//! in next and what becomes of what goes out. For simulations of the line.

use tokio::sync::mpsc;

use super::Galleries;
use crate::domain::ids::{GalleryId, TenantId};
use crate::domain::message::{Incoming, Outgoing};
use crate::publish::Publisher;
use crate::publish::outbox::{Outbox, Parcel};

/// The task's own machine.
pub struct Desk {
    galleries: Galleries,
    parcels: mpsc::Receiver<Parcel>,
}

impl Desk {
    /// A desk with nothing on it. `publisher` names a broker that is never spoken to.
    #[must_use]
    pub fn new(publisher: Publisher) -> Self {
        let (outbox, parcels) = Outbox::new();
        Self { galleries: Galleries::new(publisher, outbox), parcels }
    }

    /// Takes messages of `up/gallery` that came together; what goes out because of them.
    pub async fn hear(&mut self, messages: Vec<Incoming>) -> Vec<Outgoing> {
        let Self { galleries, parcels } = self;
        gather(galleries.hear(messages), parcels).await
    }

    /// Takes the announcement that a gallery has new records.
    pub async fn changed(&mut self, tenant: TenantId, gallery: GalleryId) {
        self.galleries.changed(tenant, gallery).await;
    }

    /// Forgets what was sent, as when the session at the broker begins anew.
    pub async fn start_over(&mut self) {
        self.galleries.start_over().await;
    }

    /// One turn for devices that are behind; what goes out.
    pub async fn turn(&mut self) -> Vec<Outgoing> {
        let Self { galleries, parcels } = self;
        gather(galleries.step(), parcels).await
    }

    /// Whether a device waits for its turn.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.galleries.behind.is_empty()
    }
}

/// Empties the queue while `work` fills it, so that no answer is too long for it.
async fn gather(work: impl Future<Output = ()>, parcels: &mut mpsc::Receiver<Parcel>) -> Vec<Outgoing> {
    let mut out = Vec::new();
    tokio::pin!(work);
    loop {
        tokio::select! {
            Some(parcel) = parcels.recv() => out.push(parcel.message),
            () = &mut work => break,
        }
    }
    while let Ok(parcel) = parcels.try_recv() {
        out.push(parcel.message);
    }
    out
}
