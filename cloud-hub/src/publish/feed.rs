//! The consumers' feed: committed, deduplicated events on `_feed/{class}`, in order, at least once.
//!
//! A cursor per tenant in the database follows the broker's acknowledgements, so that a crash repeats a few events
//! (consumers know them by their id) and loses none.
//!
//! Where nobody listens to a class, one event of each page asks the broker whether that is still so, and the others of the page
//! are not sent: they would be thrown away at the same moment. A consumer's own session counts as somebody while it is away.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use wire_contract::EventClass;

use super::Publisher;
use super::outbox::{Outbox, Receipt};
use crate::domain::cursor::Cursor;
use crate::domain::event::FeedEvent;
use crate::domain::ids::TenantId;
use crate::domain::message::{Outgoing, feed as topic};
use crate::store::{StoreError, events, routes};

/// The feed's name among the readers of events.
const READER: &str = "feed";
/// Events per round. One round is acknowledged by the broker before the next begins.
const ROUND: u32 = 256;
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
    mut connected: watch::Receiver<bool>,
) {
    let mut due: BTreeSet<TenantId> = BTreeSet::new();
    let mut unheard = Unheard::default();
    while let Some(input) = inbox.recv().await {
        let mut look_at_all = note(input, &mut due);
        while let Ok(input) = inbox.try_recv() {
            look_at_all |= note(input, &mut due);
        }
        if connected.wait_for(|connected| *connected).await.is_err() {
            return;
        }
        loop {
            match round(&publisher, &outbox, &mut due, &mut unheard, look_at_all).await {
                Ok(true) => break,
                Ok(false) => tracing::debug!("the feed could not be published whole; going on from the cursor"),
                Err(error) => tracing::warn!(%error, "the feed could not be read; trying again"),
            }
            look_at_all = true;
            tokio::time::sleep(RETRY).await;
        }
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
    due: &mut BTreeSet<TenantId>,
    unheard: &mut Unheard,
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
            let Some(through) = publish(outbox, tenant, page, unheard).await else { return Ok(false) };
            publisher.db.tenant(tenant, move |tx| Box::pin(events::advance_reader(tx, READER, through))).await?;
        }
        due.remove(&tenant);
    }
    Ok(true)
}

/// The classes of which the broker said last that nobody listens.
#[derive(Debug, Default)]
struct Unheard(HashSet<(TenantId, EventClass)>);

impl Unheard {
    fn contains(&self, tenant: TenantId, class: EventClass) -> bool {
        self.0.contains(&(tenant, class))
    }

    /// Takes in what the broker said of an event; the last word counts.
    fn note(&mut self, tenant: TenantId, class: EventClass, said: Receipt) {
        match said {
            Receipt::ForNobody => drop(self.0.insert((tenant, class))),
            Receipt::Taken | Receipt::Refused => drop(self.0.remove(&(tenant, class))),
        }
    }
}

/// Publishes a page and waits until the broker has all of it; `None` if it did not take it.
async fn publish(outbox: &Outbox, tenant: TenantId, page: Vec<FeedEvent>, unheard: &mut Unheard) -> Option<Cursor> {
    let (mut receipts, mut through, mut asked) = (Vec::with_capacity(page.len()), None, HashSet::new());
    for event in page {
        through = Some(Cursor(event.position));
        // A class that no version knows goes where operators look.
        let class = EventClass::from_word(&event.class).unwrap_or(EventClass::System);
        let silent = unheard.contains(tenant, class);
        if silent && asked.contains(&class) {
            continue;
        }
        let payload = event.body.get().as_bytes().to_vec();
        let receipt = outbox.send_with_receipt(Outgoing { topic: topic(tenant, class), payload }).await;
        if silent {
            asked.insert(class);
            unheard.note(tenant, class, receipt.await.ok().filter(|said| *said != Receipt::Refused)?);
        } else {
            receipts.push((class, receipt));
        }
    }
    for (class, receipt) in receipts {
        unheard.note(tenant, class, receipt.await.ok().filter(|said| *said != Receipt::Refused)?);
    }
    through
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::EventId;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    /// A broker that answers by topic, and what it was given.
    fn broker(listens: impl Fn(&str) -> bool + Send + 'static) -> (Outbox, Arc<Mutex<Vec<String>>>) {
        let (outbox, mut parcels) = Outbox::new();
        let given = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&given);
        tokio::spawn(async move {
            while let Some(parcel) = parcels.recv().await {
                let topic = parcel.message.topic.to_string();
                let said = if listens(&topic) { Receipt::Taken } else { Receipt::ForNobody };
                seen.lock().push(String::from_utf8(parcel.message.payload).unwrap());
                let _ = parcel.receipt.unwrap().send(said);
            }
        });
        (outbox, given)
    }

    fn page(positions: std::ops::RangeInclusive<u64>) -> Vec<FeedEvent> {
        let event = |position: u64| FeedEvent {
            position,
            id: EventId(Uuid::from_u128(u128::from(position))),
            class: if position.is_multiple_of(3) { "door" } else { "face" }.to_owned(),
            body: RawValue::from_string(position.to_string()).unwrap(),
        };
        positions.map(event).collect()
    }

    fn numbers(given: &Mutex<Vec<String>>) -> Vec<u64> {
        std::mem::take(&mut *given.lock()).iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn where_nobody_listens_one_event_of_a_page_asks_and_the_rest_stays() {
        let (outbox, given) = broker(|topic| topic.ends_with("/door"));
        let mut unheard = Unheard::default();
        assert_eq!(publish(&outbox, TENANT, page(1..=9), &mut unheard).await, Some(Cursor(9)));
        assert_eq!(numbers(&given), (1..=9).collect::<Vec<_>>(), "what is not known is sent");
        assert_eq!(publish(&outbox, TENANT, page(10..=18), &mut unheard).await, Some(Cursor(18)));
        assert_eq!(numbers(&given), [10, 12, 15, 18], "in order: one that asks, and all that somebody hears");
    }

    #[tokio::test]
    async fn whoever_begins_to_listen_gets_everything_from_the_event_that_asked() {
        let listening = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = Arc::clone(&listening);
        let (outbox, given) = broker(move |_| asked.load(std::sync::atomic::Ordering::SeqCst));
        let mut unheard = Unheard::default();
        publish(&outbox, TENANT, page(1..=6), &mut unheard).await;
        publish(&outbox, TENANT, page(7..=12), &mut unheard).await;
        numbers(&given);
        listening.store(true, std::sync::atomic::Ordering::SeqCst);
        publish(&outbox, TENANT, page(13..=18), &mut unheard).await;
        assert_eq!(numbers(&given), (13..=18).collect::<Vec<_>>());
    }
}
