//! The tasks that take batches in: a device's batches in their order, devices beside one another, and together what waits.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Ingest, Refused};
use crate::chain::chain;
use crate::domain::ids::{DeviceId, TenantId};
use crate::domain::message::{Incoming, Outgoing};
use crate::metrics::broker as measured;

/// Transactions at once. Those of one tenant write in turn (its feed has one order), so that more than two wait for nothing but
/// each other: while one writes, the other reads its batches.
const WORKERS: usize = 2;

/// Batches in one transaction at most: some four thousand events, which hold the tenant's feed for a tenth of a second.
const TOGETHER: usize = 32;

/// A database that starts again after a crash is back within seconds; an attempt itself waits for a connection for some, too. What
/// fails for longer is left to the devices.
const TRIES: u32 = 10;
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Takes in messages until `messages` is closed, then finishes what is queued. Acks go to `acks`.
///
/// While all queues are full nothing is received: whoever sends waits.
pub async fn run(ingest: Ingest, mut messages: mpsc::Receiver<Incoming>, acks: mpsc::Sender<Outgoing>) {
    let mut workers = JoinSet::new();
    let queues: Vec<mpsc::Sender<Incoming>> = (0..WORKERS)
        .map(|_| {
            let (sender, receiver) = mpsc::channel(2 * TOGETHER);
            workers.spawn(work(ingest.clone(), receiver, acks.clone()));
            sender
        })
        .collect();
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            // Workers end when their queues do, so one that ends now has panicked: without it devices wait for ever.
            Some(ended) = workers.join_next() => {
                tracing::error!(?ended, "an ingest worker ended early; the hub takes no more batches in");
                break;
            }
        };
        let Some(message) = message else { break };
        measured::ingest_queue(messages.len());
        let mut hasher = DefaultHasher::new();
        message.device.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % (WORKERS as u64)).expect("a remainder of 2 fits");
        if queues[index].send(message).await.is_err() {
            // A worker that panicked took its queue along; the join below tells of it.
            break;
        }
    }
    drop(queues);
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "an ingest worker ended early");
        }
    }
}

async fn work(ingest: Ingest, mut messages: mpsc::Receiver<Incoming>, acks: mpsc::Sender<Outgoing>) {
    let mut waiting = Vec::with_capacity(TOGETHER);
    while messages.recv_many(&mut waiting, TOGETHER).await > 0 {
        for (tenant, messages) in by_tenant(std::mem::take(&mut waiting)) {
            take(&ingest, tenant, messages, &acks).await;
        }
    }
}

/// Takes batches in, and tries again those for which the database was away: whoever sent them would wait ten seconds and more
/// before it did.
async fn take(ingest: &Ingest, tenant: TenantId, mut messages: Vec<Incoming>, acks: &mpsc::Sender<Outgoing>) {
    for tries_left in (0..TRIES).rev() {
        let begun = Instant::now();
        let results = ingest.take_all(tenant, messages.clone(), acks).await;
        measured::taken_in(begun.elapsed());
        let mut again = Vec::new();
        for (message, result) in messages.into_iter().zip(results) {
            match result {
                Err(failed) if tries_left > 0 && failed.is_for_want_of_the_database() => again.push(message),
                result => tell(tenant, message.device, result),
            }
        }
        if again.is_empty() {
            return;
        }
        tracing::warn!(%tenant, batches = again.len(), "the database did not take batches; trying again");
        messages = again;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// The messages of each tenant, in the order in which they came.
fn by_tenant(waiting: Vec<Incoming>) -> Vec<(TenantId, Vec<Incoming>)> {
    let mut tenants: Vec<(TenantId, Vec<Incoming>)> = Vec::new();
    for message in waiting {
        match tenants.iter_mut().find(|(known, _)| *known == message.tenant) {
            Some((_, messages)) => messages.push(message),
            None => tenants.push((message.tenant, vec![message])),
        }
    }
    tenants
}

fn tell(tenant: TenantId, device: DeviceId, result: Result<usize, Refused>) {
    match result {
        Ok(stored) => tracing::debug!(%tenant, %device, stored, "batch committed"),
        Err(refused) if refused.by_the_devices_fault() => {
            measured::batch(measured::Batch::Refused);
            tracing::warn!(%tenant, %device, error = %chain(&refused), "batch refused");
        }
        Err(failed) => {
            measured::batch(measured::Batch::Failed);
            tracing::error!(%tenant, %device, error = %chain(&failed), "batch not committed; the device sends it again");
        }
    }
}
