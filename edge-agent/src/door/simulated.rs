//! A door without hardware. Its relay edges appear on a Unix socket that anybody on the machine may watch.
//!
//! In: orders. Out: JSON lines to every watcher (see `relay_line`). What watchers send is never read: the socket shows
//! a door, it does not move one.
//!
//! Channel: one broadcast of [`WATCHER_BUFFER`] lines. A watcher that falls further behind, or does not take a line
//! within [`WRITE_LIMIT`], is dropped; a door never waits for a watcher.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::relay_line::{edge_line, state_line};
use super::socket::{SocketError, bind_unix};
use super::{ActuatorError, DoorActuator, FailMode, Order, RelayState, door_socket};

/// Lines that a watcher may be behind. A door makes two in `hold`: this is minutes of a busy door.
const WATCHER_BUFFER: usize = 64;
/// How long a watcher may leave its socket buffer full.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

struct Relay {
    door: String,
    state: RelayState,
    last: Order,
    edges: broadcast::Sender<Arc<str>>,
}

impl Relay {
    fn turn(&mut self, to: RelayState, order: Order) {
        if self.state == to {
            return;
        }
        self.state = to;
        self.last = order;
        // No watchers is not an error.
        let _ = self.edges.send(edge_line(&self.door, to, order).into());
    }
}

/// The simulated relay. Dropping it turns the relay into its fail state.
pub struct SimulatedDoor {
    relay: Arc<Mutex<Relay>>,
    fail: FailMode,
    clock: crate::clock::SharedClock,
}

/// The socket side of a simulated door; give [`Watch::serve`] to a task.
pub struct Watch {
    relay: Arc<Mutex<Relay>>,
    listener: UnixListener,
}

impl SimulatedDoor {
    /// A locked door and its socket `<runtime_dir>/door-<id>.sock` (mode 0666: whoever reaches the folder may watch).
    ///
    /// # Errors
    /// [`SocketError`] when the socket cannot be bound.
    pub fn open(
        runtime_dir: &Path,
        door: &str,
        fail: FailMode,
        clock: crate::clock::SharedClock,
    ) -> Result<(Self, Watch), SocketError> {
        let listener = bind_unix(&door_socket(runtime_dir, door), 0o666)?;
        let last = Order { at: clock.now(), utc: clock.wall().utc, decision: None };
        let (edges, _) = broadcast::channel(WATCHER_BUFFER);
        let relay = Relay { door: door.to_owned(), state: RelayState::Locked, last, edges };
        let relay = Arc::new(Mutex::new(relay));
        Ok((Self { relay: Arc::clone(&relay), fail, clock }, Watch { relay, listener }))
    }
}

impl DoorActuator for SimulatedDoor {
    fn unlock(&mut self, order: Order) -> Result<(), ActuatorError> {
        self.relay.lock().turn(RelayState::Unlocked, order);
        Ok(())
    }

    fn lock(&mut self, order: Order) -> Result<(), ActuatorError> {
        self.relay.lock().turn(RelayState::Locked, order);
        Ok(())
    }

    fn state(&self) -> RelayState {
        self.relay.lock().state
    }
}

impl Drop for SimulatedDoor {
    fn drop(&mut self) {
        let rest = match self.fail {
            FailMode::Secure => RelayState::Locked,
            FailMode::Safe => RelayState::Unlocked,
        };
        let order = Order { at: self.clock.now(), utc: self.clock.wall().utc, decision: None };
        self.relay.lock().turn(rest, order);
    }
}

impl Watch {
    /// Shows the door to whoever connects, until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        let mut watchers = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
                Some(_) = watchers.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (first, edges) = self.subscribe();
                    watchers.spawn(watch(stream, first, edges));
                }
                Err(error) => {
                    tracing::warn!(event = "door_socket_accept_failed", error = %error, "a watcher could not connect");
                    // Out of file descriptors: an immediate retry would spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // Watchers hear of the edge into the fail state when the relay is dropped, which happens before this stop.
        while tokio::time::timeout(Duration::from_millis(50), watchers.join_next()).await.is_ok_and(|w| w.is_some()) {}
    }

    /// State and subscription under one lock, so that no edge falls between the first line and the second.
    fn subscribe(&self) -> (String, broadcast::Receiver<Arc<str>>) {
        let relay = self.relay.lock();
        (state_line(&relay.door, relay.state, relay.last), relay.edges.subscribe())
    }
}

async fn watch(mut stream: UnixStream, first: String, mut edges: broadcast::Receiver<Arc<str>>) {
    let mut line: Arc<str> = first.into();
    loop {
        match tokio::time::timeout(WRITE_LIMIT, stream.write_all(line.as_bytes())).await {
            Ok(Ok(())) => {}
            // Gone, or too slow: either way this watcher is over.
            Ok(Err(_)) | Err(_) => return,
        }
        line = tokio::select! {
            edge = edges.recv() => match edge {
                Ok(edge) => edge,
                Err(_) => return,
            },
            // What a watcher writes is ignored; its closing ends the task.
            () = closed(&stream) => return,
        };
    }
}

/// Resolves when the other side has closed. Bytes that it sends are thrown away.
async fn closed(stream: &UnixStream) {
    let mut waste = [0u8; 256];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut waste) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
