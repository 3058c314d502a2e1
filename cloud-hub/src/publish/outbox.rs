//! The queue before the connection.

use tokio::sync::{mpsc, oneshot};

use crate::domain::message::Outgoing;
use crate::metrics::broker::outbox;

/// Messages waiting for the connection. Full means that producers wait: the broker is slower than the hub.
const CAPACITY: usize = 256;

/// What the broker said of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// It has it, and somebody to give it to (or does not say).
    Taken,
    /// It took it, and there was nobody to give it to: neither a subscriber nor the session of one who is away.
    ForNobody,
    /// It did not take it.
    Refused,
}

/// A message and who wants to know what became of it.
pub(super) struct Parcel {
    pub(super) message: Outgoing,
    /// Told what the broker said of it. Dropped unsent when the connection is lost before that.
    pub(super) receipt: Option<oneshot::Sender<Receipt>>,
}

/// Puts messages into the queue. Cheap to clone.
#[derive(Clone)]
pub(super) struct Outbox {
    parcels: mpsc::Sender<Parcel>,
}

impl Outbox {
    pub(super) fn new() -> (Self, mpsc::Receiver<Parcel>) {
        let (parcels, receiver) = mpsc::channel(CAPACITY);
        (Self { parcels }, receiver)
    }

    /// Queues a message; waits while the queue is full.
    pub(super) async fn send(&self, message: Outgoing) {
        // A closed queue means that the hub stops.
        let _ = self.parcels.send(Parcel { message, receipt: None }).await;
        self.measure();
    }

    fn measure(&self) {
        outbox(self.parcels.max_capacity() - self.parcels.capacity());
    }

    /// Queues a message and returns what will tell what the broker said.
    pub(super) async fn send_with_receipt(&self, message: Outgoing) -> oneshot::Receiver<Receipt> {
        let (receipt, receiver) = oneshot::channel();
        let _ = self.parcels.send(Parcel { message, receipt: Some(receipt) }).await;
        self.measure();
        receiver
    }
}
