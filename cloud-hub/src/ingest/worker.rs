//! The tasks that take batches in: a device's batches in their order, devices beside one another.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Ingest;
use crate::chain::chain;
use crate::domain::message::{Incoming, Outgoing};

/// Transactions at once. Two per core of a small hub keep the disk's flushes shared without crowding the pool.
const WORKERS: usize = 4;

/// Messages waiting per worker. A full one makes the forwarder wait, and in the end `publish` drops messages, which
/// devices send again; it is about a second of one worker's work.
const QUEUE: usize = 64;

/// Takes in messages until `messages` is closed, then finishes what is queued. Acks go to `acks`.
pub async fn run(ingest: Ingest, mut messages: mpsc::Receiver<Incoming>, acks: mpsc::Sender<Outgoing>) {
    let mut workers = JoinSet::new();
    let queues: Vec<mpsc::Sender<Incoming>> = (0..WORKERS)
        .map(|_| {
            let (sender, receiver) = mpsc::channel(QUEUE);
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
        let mut hasher = DefaultHasher::new();
        message.device.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % (WORKERS as u64)).expect("a remainder of 4 fits");
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
    while let Some(message) = messages.recv().await {
        let (tenant, device) = (message.tenant, message.device);
        match ingest.take(message, &acks).await {
            Ok(stored) => tracing::debug!(%tenant, %device, stored, "batch committed"),
            Err(refused) if refused.by_the_devices_fault() => {
                tracing::warn!(%tenant, %device, error = %chain(&refused), "batch refused");
            }
            Err(failed) => {
                tracing::error!(%tenant, %device, error = %chain(&failed), "batch not committed; the device sends it again");
            }
        }
    }
}
