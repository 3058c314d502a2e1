//! Waking readers of the feed.
//!
//! Readers read by position from the database, so nothing depends on a wake-up arriving: a lost one is made up for by
//! the next, or by the reader's own timer.

use tokio::sync::broadcast;

use hub_domain::ids::TenantId;

/// Wake-ups that may wait for one slow reader; when more come, it is told that it missed some and looks.
const CAPACITY: usize = 256;

/// Says that a tenant has new events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed(broadcast::Sender<Option<TenantId>>);

/// One reader's side.
#[derive(Debug)]
pub struct FeedWaiter {
    receiver: broadcast::Receiver<Option<TenantId>>,
    tenant: TenantId,
}

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::channel(CAPACITY).0)
    }
}

impl Feed {
    /// Wakes the readers of a tenant, or all of them if it is not known whose events came.
    pub fn wake(&self, tenant: Option<TenantId>) {
        // No reader is no error.
        drop(self.0.send(tenant));
    }

    /// A reader's side. Take it before reading, so that nothing falls in between.
    pub(super) fn wait_for(&self, tenant: TenantId) -> FeedWaiter {
        FeedWaiter { receiver: self.0.subscribe(), tenant }
    }
}

impl FeedWaiter {
    /// Resolves when there may be new events.
    pub(super) async fn changed(&mut self) {
        loop {
            match self.receiver.recv().await {
                Ok(Some(tenant)) if tenant != self.tenant => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The hub is going down; the stream's own stop ends it.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_reader_is_woken_for_its_tenant_and_when_it_missed_something() {
        let (one, other) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        let feed = Feed::default();
        let mut waiter = feed.wait_for(one);
        feed.wake(Some(other));
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, waiter.changed()).await.is_err());
        feed.wake(Some(one));
        assert!(tokio::time::timeout(soon, waiter.changed()).await.is_ok());
        for _ in 0..=CAPACITY {
            feed.wake(Some(other));
        }
        assert!(tokio::time::timeout(soon, waiter.changed()).await.is_ok(), "a reader that missed wake-ups looks");
    }
}
