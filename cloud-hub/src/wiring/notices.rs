//! What transactions announce, told to those who wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::feed::Feed;
use crate::store::{Database, Notice, StoreError};

/// After a broken connection to the database the listener for notices waits this long.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

/// Turns what transactions announce into wake-ups: readers of the feed and the notifier.
pub(super) async fn listen(db: Database, feed: Feed, wake: Arc<Notify>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = forward(&db, &feed, &wake) => outcome,
        };
        if let Err(error) = outcome {
            tracing::warn!(event = "notices_interrupted", %error, "the database's notices are interrupted");
        }
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}

async fn forward(db: &Database, feed: &Feed, wake: &Notify) -> Result<(), StoreError> {
    let mut notices = db.listen().await?;
    // Whatever happened before this line was not heard.
    feed.wake(None);
    wake.notify_one();
    loop {
        match notices.next().await? {
            Notice::Event(tenant) => feed.wake(Some(tenant)),
            Notice::Reconnected => feed.wake(None),
            Notice::Gallery(..) | Notice::Command(..) | Notice::Twin(..) => continue,
        }
        wake.notify_one();
    }
}
