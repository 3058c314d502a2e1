//! Which replica sends. Everything that comes in is divided among the hubs on one broker and database; what goes out on the
//! hub's own initiative (records, commands, the feed) comes from one of them, so that it comes once and in order.
//!
//! In: the database's lock, and whether this session at the broker has what a leader reads. Out: whether this hub is at work.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;

use crate::store::leadership::Candidate;
use crate::store::{Database, StoreError};

/// How often a hub that does not lead asks whether it may: a killed leader is followed within this, and the lock's release.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// How often a leader makes sure that it is still one.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A database that takes longer for a ping is as good as away.
const PING_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database does not answer")]
    Silent,
}

/// Tries to lead, leads, and tries again, until the task is aborted.
pub(super) async fn run(db: Database, leading: watch::Sender<bool>) {
    loop {
        let Err(lost) = hold(&db, &leading).await;
        if leading.send_replace(false) {
            tracing::warn!(event = "leadership_lost", error = %lost, "this hub sends nothing until it leads again");
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

async fn hold(db: &Database, leading: &watch::Sender<bool>) -> Result<Infallible, Lost> {
    let mut session: Candidate = db.candidate().await?;
    while !session.try_to_lead().await? {
        tokio::time::sleep(TRY_EVERY).await;
    }
    tracing::info!(event = "leadership", "this hub sends records, commands and the feed");
    leading.send_replace(true);
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        tokio::time::timeout(PING_WITHIN, session.still_there()).await.map_err(|_| Lost::Silent)??;
    }
}

/// A hub is at work when it leads and the broker gives it what a leader reads. Every change of either is passed on, so that
/// a session that ended and came back is seen as one.
pub(super) async fn at_work(
    mut leading: watch::Receiver<bool>,
    mut served: watch::Receiver<bool>,
    at_work: watch::Sender<bool>,
) {
    loop {
        let both = *leading.borrow_and_update() && *served.borrow_and_update();
        at_work.send_replace(both);
        let gone = tokio::select! {
            changed = leading.changed() => changed.is_err(),
            changed = served.changed() => changed.is_err(),
        };
        if gone {
            // The publisher ends, and this task with it.
            std::future::pending::<()>().await;
        }
    }
}
