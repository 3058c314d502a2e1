//! The consumers' feed: committed, deduplicated events on `_feed/{class}`, in order, at least once.
//!
//! A cursor per tenant in the database follows the broker's acknowledgements, so that a crash repeats a few events
//! (consumers know them by their id) and loses none. Only a hub that is at work publishes it ([`super::leadership`]).

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use wire_contract::EventClass;
use wire_contract::home::Said;

use super::Publisher;
use super::home::{self, Home};
use super::outbox::Outbox;
use crate::domain::cursor::Cursor;
use crate::domain::event::FeedEvent;
use crate::domain::ids::TenantId;
use crate::domain::message::{Outgoing, feed as topic};
use crate::store::{StoreError, events, routes};

/// The feed's name among the readers of events.
pub(super) const READER: &str = "feed";
/// Events per round. One round is acknowledged by the broker before the next begins.
const ROUND: u32 = 100;
/// When something failed, everything is looked at again after this.
const RETRY: Duration = Duration::from_secs(2);

/// Why the feed wakes up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// A tenant has new events.
    News(TenantId),
    /// Notices may have been missed, or the broker is back.
    LookAtAll,
}

/// Publishes until the queue closes.
pub(super) async fn run(
    publisher: Publisher,
    mut inbox: mpsc::Receiver<Input>,
    outbox: Outbox,
    mut works: watch::Receiver<bool>,
) {
    let mut due: BTreeSet<TenantId> = BTreeSet::new();
    let mut home = Home::new(publisher.home.clone());
    let mut looks = tokio::time::interval(home::LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut look_at_all = tokio::select! {
            biased;
            // Also seen when the session ended and came back in between. The sender outlives this task.
            Ok(()) = works.changed() => {
                home.begin_session();
                *works.borrow_and_update()
            }
            input = inbox.recv() => match input {
                Some(input) => note(input, &mut due),
                None => return,
            },
            _ = looks.tick(), if *works.borrow() => {
                match home.look(&publisher, &outbox).await {
                    Ok(true) => {}
                    Ok(false) => tracing::debug!("not all was said for Home Assistants; looking again"),
                    Err(error) => tracing::warn!(%error, "what Home Assistants should be told could not be read; trying again"),
                }
                continue;
            }
        };
        while let Ok(input) = inbox.try_recv() {
            look_at_all |= note(input, &mut due);
        }
        // A hub that does not work looks at everything when it begins to.
        while *works.borrow() {
            match round(&publisher, &outbox, &works, &mut home, &mut due, look_at_all).await {
                Ok(true) => break,
                Ok(false) => tracing::debug!("the feed could not be published whole; going on from the cursor"),
                Err(error) => tracing::warn!(%error, "the feed could not be read; trying again"),
            }
            look_at_all = true;
            tokio::time::sleep(RETRY).await;
        }
        due.clear();
    }
}

fn note(input: Input, due: &mut BTreeSet<TenantId>) -> bool {
    match input {
        Input::News(tenant) => {
            due.insert(tenant);
            false
        }
        Input::LookAtAll => true,
    }
}

/// Publishes all that is due; `false` if the broker did not take something.
async fn round(
    publisher: &Publisher,
    outbox: &Outbox,
    works: &watch::Receiver<bool>,
    home: &mut Home,
    due: &mut BTreeSet<TenantId>,
    all: bool,
) -> Result<bool, StoreError> {
    if all {
        due.extend(routes::tenants(&publisher.db).await?);
    }
    while let Some(tenant) = due.first().copied() {
        loop {
            let page = publisher
                .db
                .tenant(tenant, |tx| {
                    Box::pin(async move {
                        let after = events::reader(tx, READER).await?;
                        events::page(tx, after, ROUND, None).await
                    })
                })
                .await?;
            if page.is_empty() {
                break;
            }
            // Another hub goes on from the same cursor.
            if !*works.borrow() {
                return Ok(false);
            }
            let Some(through) = publish(outbox, home, tenant, page).await else { return Ok(false) };
            publisher.db.tenant(tenant, move |tx| Box::pin(events::advance_reader(tx, READER, through))).await?;
        }
        due.remove(&tenant);
    }
    Ok(true)
}

/// Publishes a page and waits until the broker has all of it; `None` if it did not take it.
async fn publish(outbox: &Outbox, home: &mut Home, tenant: TenantId, page: Vec<FeedEvent>) -> Option<Cursor> {
    let (mut receipts, mut through) = (Vec::with_capacity(page.len()), None);
    for event in page {
        through = Some(Cursor(event.position));
        // A class that no version knows goes where operators look.
        let class = EventClass::from_word(&event.class).unwrap_or(EventClass::System);
        let payload = event.body.to_string().into_bytes();
        receipts.push(outbox.send_with_receipt(Outgoing { topic: topic(tenant, class), payload }).await);
        for said in home.follows(tenant, &event) {
            home.goes_out(&said);
            let Said { topic, payload } = said;
            receipts.push(outbox.send_with_receipt(Outgoing { topic, payload }).await);
        }
    }
    for receipt in receipts {
        if !receipt.await.unwrap_or(false) {
            return None;
        }
    }
    through
}
