//! Batches that came together: one transaction for all of a tenant that simply follow what is stored.
//!
//! A transaction costs some twenty round trips, locks the tenant's feed and ends in a flush of the disk, whether it stores one
//! event or a thousand. So whatever waits is stored at once. What a batch is promised stays as it was: it is stored whole or not
//! at all, by its own sequences, and acknowledged from the committed row after the commit.
//!
//! Only a batch that begins right after its stream's committed sequence is taken along. Whatever else comes (repetitions, holes,
//! clones, forgeries, what can never be stored) is looked at alone afterwards ([`super::batch`]), and so is everything if the
//! database refuses a row: one bad batch costs the others a second transaction and nothing else.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_json::json;
use tokio::sync::mpsc;
use wire_contract::{Batch, StreamId, Verdict};

use super::batch::{Ingest, Refused, new_events};
use crate::domain::ids::{DeviceId, TenantId};
use crate::domain::message::{Incoming, Outgoing};
use crate::keys::Accepted;
use crate::metrics::broker as measured;
use crate::store::audit::{self, Entry};
use crate::store::{TenantTx, devices, events, streams};

/// A batch that was read and follows what is stored.
struct Ready {
    index: usize,
    device: DeviceId,
    batch: Batch,
    stream: String,
    first: u64,
    last: u64,
}

/// What one transaction stored.
#[derive(Default)]
struct Stored {
    /// By the message's index: how many events.
    counts: HashMap<usize, usize>,
    streams: Vec<(DeviceId, StreamId)>,
    accepted: HashMap<DeviceId, Accepted>,
}

impl Ingest {
    /// Takes messages of one tenant in, in their order for each device, and puts the acknowledgements into `acks`, one for each
    /// stream that advanced. Returns for each message how many of its events were new.
    ///
    /// Where it fails, nothing was committed that had not been before, and nothing is acknowledged: see [`Ingest::take`].
    pub async fn take_all(
        &self,
        tenant: TenantId,
        messages: Vec<Incoming>,
        acks: &mpsc::Sender<Outgoing>,
    ) -> Vec<Result<usize, Refused>> {
        let messages = Arc::new(messages);
        let (this, shared) = (self.clone(), Arc::clone(&messages));
        let together =
            self.db.tenant(tenant, move |tx| Box::pin(async move { this.write_together(tx, &shared).await })).await;
        let stored = match together {
            Ok(stored) => stored,
            Err(refused) if refused.may_be_one_batch_alone() => Stored::default(),
            Err(refused) => return shared_by_all(refused, messages.len()),
        };
        for count in stored.counts.values() {
            measured::batch(measured::Batch::Committed { events: *count, repeated: 0 });
        }
        let told = self.acknowledge(tenant, &stored, acks).await.map_err(Arc::new);
        let mut results = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            results.push(match (stored.counts.get(&index), &told) {
                (Some(count), Ok(())) => Ok(*count),
                (Some(_), Err(failed)) => Err(Refused::Together(Arc::clone(failed))),
                (None, _) => self.take_alone(message.clone(), acks).await,
            });
        }
        results
    }

    /// The transaction. Whatever it returns `Ok` with is committed next.
    async fn write_together(&self, tx: &mut TenantTx, messages: &[Incoming]) -> Result<Stored, Refused> {
        let now = self.clock.now();
        let heard: BTreeSet<DeviceId> = messages.iter().map(|message| message.device).collect();
        let accepted = self.links.accepted_of(tx, &heard.into_iter().collect::<Vec<_>>()).await?;
        let ready = self.read(&accepted, messages).await;
        let wanted: BTreeSet<_> = ready.iter().map(|ready| (ready.device, ready.stream.clone())).collect();
        let mut committed = if wanted.is_empty() {
            HashMap::new()
        } else {
            streams::lock_all(tx, &wanted.into_iter().collect::<Vec<_>>()).await?
        };
        let ready = in_line(ready, &mut committed);
        if ready.is_empty() {
            return Ok(Stored::default());
        }
        let mut stored = Stored { accepted, ..Stored::default() };
        let (mut new, mut heard, mut through) = (Vec::new(), BTreeSet::new(), HashMap::new());
        for ready in &ready {
            new.append(&mut new_events(&ready.batch, &ready.stream, ready.device, 0));
            stored.counts.insert(ready.index, ready.batch.events.len());
            heard.insert(ready.device);
            through.insert((ready.device, ready.batch.stream), ready.last);
        }
        stored.streams = through.keys().copied().collect();
        let through: Vec<_> =
            through.into_iter().map(|((device, stream), last)| (device, stream.to_string(), last)).collect();
        devices::seen_all(tx, &heard.into_iter().collect::<Vec<_>>(), now).await?;
        streams::advance_all(tx, &through).await?;
        let actors: Vec<String> = ready.iter().map(|ready| format!("device:{}", ready.device)).collect();
        let entries: Vec<Entry> = ready.iter().zip(&actors).map(|(ready, actor)| entry(ready, actor)).collect();
        audit::write_all(tx, &entries).await?;
        // Last, because it locks the tenant's feed: other devices of the tenant wait from here to the commit only.
        events::append(tx, &new, now).await?;
        Ok(stored)
    }

    /// Reads what is authentic and well formed. A device of which something is not has the rest looked at alone too, so that its
    /// batches stay in their order.
    async fn read(&self, accepted: &HashMap<DeviceId, Accepted>, messages: &[Incoming]) -> Vec<Ready> {
        let (mut read, mut set_aside) = (Vec::with_capacity(messages.len()), HashSet::new());
        for (index, message) in messages.iter().enumerate() {
            let device = message.device;
            if set_aside.contains(&device) {
                continue;
            }
            match accepted.get(&device).and_then(|accepted| self.read_one(accepted, index, message)) {
                Some(ready) => read.push(ready),
                None => drop(set_aside.insert(device)),
            }
            // A batch takes a millisecond to read, and the hub has other things to do.
            tokio::task::yield_now().await;
        }
        read
    }

    fn read_one(&self, accepted: &Accepted, index: usize, message: &Incoming) -> Option<Ready> {
        let payload = self.links.verify(accepted, &message.topic(), &message.payload).ok()?;
        let batch = Batch::decode(payload).ok()?;
        let (first, last) = batch.range().ok()?;
        let stream = batch.stream.to_string();
        Some(Ready { index, device: message.device, batch, stream, first: first.0, last: last.0 })
    }

    /// The acknowledgements, from the committed rows: one for each stream, for a second one that says the same would be taken for
    /// news of the hub's own.
    async fn acknowledge(
        &self,
        tenant: TenantId,
        stored: &Stored,
        acks: &mpsc::Sender<Outgoing>,
    ) -> Result<(), Refused> {
        if stored.streams.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = stored.streams.iter().map(|(device, stream)| (*device, stream.to_string())).collect();
        let committed =
            self.db.tenant(tenant, move |tx| Box::pin(async move { streams::committed_of(tx, &wanted).await }));
        let committed = committed.await?;
        for (device, stream) in &stored.streams {
            let through = committed.get(&(*device, stream.to_string())).copied();
            let (Some(through), Some(accepted)) = (through, stored.accepted.get(device)) else { continue };
            let ack = self.seal_ack(tenant, accepted, *stream, through, Verdict::Ok, false)?;
            // A closed channel means that the hub is stopping; the device asks again when it is back.
            let _ = acks.send(ack).await;
        }
        Ok(())
    }
}

/// Those of the batches that begin right after what is committed, or after one before them that does.
fn in_line(read: Vec<Ready>, committed: &mut HashMap<(DeviceId, String), u64>) -> Vec<Ready> {
    let (mut line, mut set_aside) = (Vec::with_capacity(read.len()), HashSet::new());
    for ready in read {
        let place = committed.get_mut(&(ready.device, ready.stream.clone()));
        let place = place.filter(|place| ready.first == **place + 1 && !set_aside.contains(&ready.device));
        if let Some(place) = place {
            *place = ready.last;
            line.push(ready);
        } else {
            set_aside.insert(ready.device);
        }
    }
    line
}

fn entry<'a>(ready: &Ready, actor: &'a str) -> Entry<'a> {
    Entry {
        actor,
        action: audit::Action::EventsCommit,
        object_kind: "device",
        object_id: Some(ready.device.0),
        detail: json!({ "stream": ready.stream, "through": ready.last, "count": ready.batch.events.len() }),
    }
}

fn shared_by_all(refused: Refused, count: usize) -> Vec<Result<usize, Refused>> {
    if count == 1 {
        return vec![Err(refused)];
    }
    let refused = Arc::new(refused);
    (0..count).map(|_| Err(Refused::Together(Arc::clone(&refused)))).collect()
}
